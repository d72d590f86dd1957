//! Destinations that a list of commands takes off their services, until they are in the
//! trash: the same list may add them again, and there may be very many.

use std::collections::HashMap;

use ipvs_core::dest::{DestId, DestKey};
use ipvs_core::service::ServiceKey;

/// One that left its service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) id: DestId,
    pub(super) service: ServiceKey,
    /// Which service of that key it belonged to.
    pub(super) serial: u64,
}

/// Those that left, in order.
#[derive(Debug, Default)]
pub(super) struct Deleted {
    /// `None` where one was taken back.
    all: Vec<Option<Left>>,
    /// Where those with these keys stand.
    places: HashMap<(ServiceKey, DestKey), Vec<usize>>,
}

impl Deleted {
    pub(super) fn put(&mut self, key: DestKey, left: Left) {
        self.places.entry((left.service, key)).or_default().push(self.all.len());
        self.all.push(Some(left));
    }

    /// Takes back the last one with these keys.
    pub(super) fn take(&mut self, service: &ServiceKey, key: &DestKey) -> Option<Left> {
        let place = self.places.get_mut(&(*service, *key))?.pop()?;
        self.all.get_mut(place)?.take()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Left> {
        self.all.iter().flatten()
    }
}
