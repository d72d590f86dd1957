//! The host door: a pair of interfaces through which the plane hands packets
//! to the host's own stack as if they had come by a wire, and the host hands
//! packets to the plane by a route.
//!
//! ```text
//! the host's stack ── ipvs0 ═══ ipvs1 ── the plane
//! ```
//!
//! What is sent out of `ipvs1`, to the Ethernet address of `ipvs0`, the host
//! takes in at `ipvs0`, with any source address, its own too. What the host
//! routes to `ipvs0` passes the TC programs on its way out there. The two ask for
//! no neighbours, join no groups and have no addresses, so nothing else moves
//! on them. They stay when the daemon ends, like everything that is pinned.

use std::io;

use ipvs_core::hop::HOST_DOOR;
use ipvs_wire::ethernet::Mac;

use crate::rtnetlink::{DOOR_ALIAS, End, Inet, Link, Rtnetlink};

/// The host's side.
pub const HOST: &str = "ipvs0";
/// The plane's side.
pub const PLANE: &str = "ipvs1";
/// Ethernet address of the host's side.
pub const HOST_MAC: Mac = HOST_DOOR;
/// Ethernet address of the plane's side.
pub const PLANE_MAC: Mac = *b"\x02ipvs\x01";

/// `IPV4_DEVCONF_RP_FILTER`
const RP_FILTER: u16 = 8;
/// `IPV4_DEVCONF_ACCEPT_LOCAL`
const ACCEPT_LOCAL: u16 = 23;
/// Translated replies come from virtual addresses, which are the host's own,
/// and no route leads back through the door.
const INET: [Inet; 2] = [(RP_FILTER, 0), (ACCEPT_LOCAL, 1)];
/// Where the kernel keeps the strictest reverse-path filter of a host.
const RP_FILTER_OF_ALL: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";
/// Whether the host's side takes IPv6 in: a host may say no by default, and
/// yes for its other interfaces.
const NO_IPV6: &str = "/proc/sys/net/ipv6/conf/ipvs0/disable_ipv6";

/// The door of this network namespace, by the indices of its interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// Of [`HOST`].
    pub host: u32,
    /// Of [`PLANE`].
    pub plane: u32,
}

/// Why there is no door.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    /// The host's network could not be read or changed.
    #[error("the interfaces {HOST} and {PLANE} cannot be made: {0}")]
    Netlink(#[from] io::Error),
    /// There is something else of that name.
    #[error("{0} is an interface of somebody else; rename it, the eBPF plane needs that name")]
    Taken(&'static str),
}

impl Door {
    /// Finds the door, or makes it.
    pub fn open(netlink: &mut Rtnetlink) -> Result<Self, DoorError> {
        let (door, complete) = if let Some(found) = Self::find(&netlink.links()?)? {
            found
        } else {
            netlink.make_pair([
                End { name: HOST, mac: HOST_MAC },
                End { name: PLANE, mac: PLANE_MAC },
            ])?;
            Self::find(&netlink.links()?)?.ok_or_else(|| io::Error::other("they vanish"))?
        };
        // Its maker may have been killed in between.
        if !complete {
            netlink.set_up(door.host, &INET, DOOR_ALIAS)?;
            netlink.set_up(door.plane, &[], DOOR_ALIAS)?;
            if let Err(error) = std::fs::write(NO_IPV6, "0") {
                tracing::debug!(%error, "IPv6 of the host door is as the host's default says");
            }
        }
        Ok(door)
    }

    /// Removes the door, if there is one.
    pub fn remove(netlink: &mut Rtnetlink) -> io::Result<()> {
        match Self::find(&netlink.links()?) {
            Ok(Some((door, _))) => netlink.remove_link(door.host),
            _ => Ok(()),
        }
    }

    /// What keeps the host from taking in what comes by the door.
    pub(super) fn hindrance() -> Option<String> {
        let strict = std::fs::read_to_string(RP_FILTER_OF_ALL).ok()?.trim() != "0";
        strict.then(|| {
            "the host drops what comes by its door while net.ipv4.conf.all.rp_filter is not 0"
                .to_owned()
        })
    }

    /// The door, and whether it was finished.
    fn find(links: &[Link]) -> Result<Option<(Self, bool)>, DoorError> {
        let side = |name, mac| match links.iter().find(|link| link.name == name) {
            Some(link) if link.kind == "veth" && link.mac == Some(mac) => Ok(Some(link)),
            Some(_) => Err(DoorError::Taken(name)),
            None => Ok(None),
        };
        match (side(HOST, HOST_MAC)?, side(PLANE, PLANE_MAC)?) {
            (Some(host), Some(plane)) => {
                let door = Self { host: host.index, plane: plane.index };
                Ok(Some((door, host.is_door() && plane.is_door() && host.up && plane.up)))
            }
            (None, None) => Ok(None),
            (Some(_), None) => Err(DoorError::Taken(HOST)),
            (None, Some(_)) => Err(DoorError::Taken(PLANE)),
        }
    }
}
