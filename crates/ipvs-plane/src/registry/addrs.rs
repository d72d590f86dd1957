//! Which addresses packets of ours can have: by them a plane tells the
//! fragments that may be of a datagram that is balanced.

use std::collections::HashMap;

use ipvs_core::addr::{AddrKey, AddrUse};
use ipvs_core::dest::{Dest, ForwardingMethod};
use ipvs_core::service::ServiceKey;

use super::Registry;
use crate::store::Store;

/// What stands in the tables, and whether it may be too much.
#[derive(Debug, Default)]
pub(super) struct Addrs {
    written: HashMap<AddrKey, u32>,
    /// Something went that may have been the last user of an address.
    pub(super) stale: bool,
}

impl Addrs {
    /// Those that an earlier daemon left, some of which may be used no more.
    pub(super) fn adopt(written: HashMap<AddrKey, u32>) -> Self {
        Self { written, stale: true }
    }
}

/// What the key of a service makes of which address.
fn of_service(key: &ServiceKey) -> Option<(AddrKey, u32)> {
    (!key.is_fwmark()).then(|| (AddrKey::new(key.family(), key.addr), AddrUse::SERVICE))
}

/// What a destination makes of its address.
fn of_dest(dest: &Dest) -> (AddrKey, u32) {
    let translated = dest.spec.forwarding() == ForwardingMethod::Masquerade;
    let uses = if translated { AddrUse::TRANSLATED } else { 0 };
    (AddrKey::new(dest.key.family(), dest.key.addr), uses)
}

impl<S: Store> Registry<S> {
    /// Adds the addresses of services and destinations that are about to be written.
    pub(super) fn add_addrs<'a>(
        &mut self,
        services: impl Iterator<Item = &'a ServiceKey>,
        dests: impl Iterator<Item = &'a Dest>,
    ) -> Result<(), S::Error> {
        for (key, uses) in services.filter_map(of_service).chain(dests.map(of_dest)) {
            let before = self.addrs.written.get(&key).copied().unwrap_or(0);
            if before | uses != before {
                self.store.put_addr_use(&key, before | uses)?;
                self.addrs.written.insert(key, before | uses);
            }
        }
        Ok(())
    }

    /// Takes out the addresses that nothing uses any more.
    pub(super) fn remove_stale_addrs(&mut self) {
        if !std::mem::take(&mut self.addrs.stale) {
            return;
        }
        let mut used: HashMap<AddrKey, u32> = HashMap::new();
        for (key, uses) in self.services.keys().filter_map(of_service) {
            *used.entry(key).or_default() |= uses;
        }
        for dest in self.dests.values() {
            let (key, uses) = of_dest(dest);
            // One that was changed may have connections whose replies are translated.
            let before = self.addrs.written.get(&key).copied().unwrap_or(0);
            *used.entry(key).or_default() |= uses | before & AddrUse::TRANSLATED;
        }
        let store = &mut self.store;
        let mut failed = false;
        self.addrs.written.retain(|key, uses| {
            let left = used.get(key).copied().unwrap_or(0);
            if left != *uses {
                match store.put_addr_use(key, left) {
                    Ok(()) => *uses = left,
                    Err(error) => {
                        tracing::warn!(%error, ?key, "an address is looked at although unused");
                        failed = true;
                    }
                }
            }
            *uses != 0
        });
        self.addrs.stale = failed;
    }
}
