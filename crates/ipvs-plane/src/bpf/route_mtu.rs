//! The MTU that routes say (`ip route … mtu N`), for the programs: a kernel tells eBPF
//! programs that of a route only if it is locked.

use std::collections::HashMap;
use std::io;

use aya::maps::lpm_trie::Key;
use aya::maps::{LpmTrie, Map, MapData, MapError};
use ipvs_core::addr::{Addr, Family};
use ipvs_core::hop::MtuKey;

use super::object::Pins;
use crate::rtnetlink::{RouteMtu, Rtnetlink};

/// How many prefixes the map holds.
const PLACES: usize = 16384;
/// What stands for a route that says nothing, within a prefix whose route does.
const SILENT: u32 = 0;

/// A prefix: family, address and length.
type Prefix = (Family, Addr, u8);
type Octets = [u8; size_of::<MtuKey>()];

/// The map, and what it holds.
#[derive(Debug)]
pub(super) struct RouteMtus {
    map: LpmTrie<MapData, Octets, u32>,
    held: HashMap<Prefix, u32>,
    outcome: io::Result<()>,
}

impl RouteMtus {
    /// Opens the map that is pinned, and empties it of what an earlier daemon found.
    pub(super) fn open(pins: &Pins) -> Result<Self, MapError> {
        let data = MapData::from_pin(pins.map("IPVS_ROUTE_MTUS"))?;
        let map = LpmTrie::try_from(Map::LpmTrie(data))?;
        let mut mtus = Self { map, held: HashMap::new(), outcome: Ok(()) };
        let keys: Vec<Key<Octets>> = mtus.map.keys().filter_map(Result::ok).collect();
        for key in keys {
            mtus.map.remove(&key)?;
        }
        Ok(mtus)
    }

    /// Writes what has changed in the host's routes.
    pub(super) fn follow(&mut self) {
        self.outcome = self.write();
        if let Err(error) = &self.outcome {
            tracing::warn!(%error, "the MTU of routes is not followed");
        }
    }

    /// What is wrong, for the user.
    pub(super) fn report(&self) -> Option<String> {
        let error = self.outcome.as_ref().err()?;
        Some(format!("the MTU of routes is not followed, only that of interfaces: {error}"))
    }

    fn write(&mut self) -> io::Result<()> {
        let mut wanted = entries(&Rtnetlink::open()?.route_mtus()?);
        let too_many = wanted.len() > PLACES;
        if too_many {
            wanted.clear();
        }
        let gone: Vec<Prefix> =
            self.held.keys().filter(|prefix| !wanted.contains_key(prefix)).copied().collect();
        for prefix in gone {
            self.map.remove(&key(prefix)).map_err(io::Error::other)?;
            self.held.remove(&prefix);
        }
        for (prefix, mtu) in wanted {
            if self.held.get(&prefix) != Some(&mtu) {
                self.map.insert(&key(prefix), mtu, 0).map_err(io::Error::other)?;
                self.held.insert(prefix, mtu);
            }
        }
        if too_many {
            let what = format!("over {PLACES} prefixes with an MTU of their own, or within one");
            return Err(io::Error::other(what));
        }
        Ok(())
    }
}

fn key((family, addr, prefix_len): Prefix) -> Key<Octets> {
    let bits = MtuKey::FAMILY_BITS + u32::from(prefix_len);
    Key::new(bits, zerocopy::transmute!(MtuKey::of(family, addr)))
}

/// What the map is to hold: the routes that say an MTU, and those within them that say
/// another, or none.
fn entries(routes: &[RouteMtu]) -> HashMap<Prefix, u32> {
    let said: HashMap<Prefix, u32> = routes
        .iter()
        .map(|it| ((it.family, it.addr, it.prefix_len), it.mtu.unwrap_or(SILENT)))
        .collect();
    if said.values().all(|mtu| *mtu == SILENT) {
        return HashMap::new();
    }
    let around = |&(family, addr, prefix_len): &Prefix| {
        let mut wider = (0..prefix_len).rev().map(|len| (family, masked(addr, len), len));
        wider.find_map(|prefix| said.get(&prefix).copied()).unwrap_or(SILENT)
    };
    said.iter()
        .filter(|(prefix, mtu)| **mtu != around(prefix))
        .map(|(prefix, mtu)| (*prefix, *mtu))
        .collect()
}

/// The first `len` bits of an address.
fn masked(addr: Addr, len: u8) -> Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
    let octets = addr.octets();
    Addr::v6((u128::from_be_bytes(octets) & mask).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str, mtu: Option<u32>) -> RouteMtu {
        let (addr, len) = text.split_once('/').unwrap();
        let (family, addr) = Addr::from_ip(addr.parse().unwrap());
        RouteMtu { family, addr, prefix_len: len.parse().unwrap(), mtu }
    }

    fn prefix(text: &str) -> Prefix {
        let route = route(text, None);
        (route.family, route.addr, route.prefix_len)
    }

    #[test]
    fn routes_that_say_nothing_need_no_entry() {
        let routes = [route("0.0.0.0/0", None), route("10.0.0.0/8", None)];
        assert!(entries(&routes).is_empty());
    }

    #[test]
    fn a_silent_route_within_one_that_says_something_is_not_forgotten() {
        let routes = [
            route("0.0.0.0/0", Some(1300)),
            route("10.0.0.0/8", None),
            route("10.1.0.0/16", None),
            route("10.2.0.0/16", Some(1300)),
            route("192.0.2.0/24", Some(1300)),
            route("::/0", None),
            route("2001:db8::/32", Some(1280)),
        ];
        let expected = HashMap::from([
            (prefix("0.0.0.0/0"), 1300),
            (prefix("10.0.0.0/8"), SILENT),
            (prefix("10.2.0.0/16"), 1300),
            (prefix("2001:db8::/32"), 1280),
        ]);
        assert_eq!(entries(&routes), expected);
    }
}
