//! Which interfaces are ports.

use super::StartError;
use crate::rtnetlink::Link;

/// Which interfaces are ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// Every Ethernet interface that is not a port of a bridge or bond; those
    /// that come later, too.
    #[default]
    All,
    /// Those with these names.
    Named(Vec<String>),
}

impl Selection {
    /// Whether the interface is to be a port.
    pub(super) fn wants(&self, link: &Link) -> bool {
        link.carries_frames()
            && match self {
                Self::All => true,
                Self::Named(names) => names.contains(&link.name),
            }
    }

    /// Refuses a name that no interface has, and an interface that cannot be a port.
    pub(super) fn check<'a>(
        &self,
        links: impl Iterator<Item = &'a Link>,
    ) -> Result<(), StartError> {
        let Self::Named(names) = self else { return Ok(()) };
        let links: Vec<&Link> = links.collect();
        for name in names {
            match links.iter().find(|link| link.name == *name) {
                None => return Err(StartError::NoSuchInterface(name.clone())),
                Some(link) if !link.carries_frames() => {
                    return Err(StartError::NoPort { name: name.clone(), reason: excuse(link) });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Why an interface cannot be a port.
pub(super) fn excuse(link: &Link) -> &'static str {
    if link.loopback {
        "it is a loopback interface"
    } else if link.mac.is_none() {
        "it carries no Ethernet frames"
    } else if link.is_door() {
        "it is a part of an eBPF plane in this network namespace"
    } else {
        "it is a port of a bridge or bond, which gets its frames"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, loopback: bool, controller: Option<u32>) -> Link {
        Link {
            index: 1,
            name: name.to_owned(),
            mac: Some([2; 6]),
            mtu: 1500,
            kind: String::new(),
            up: true,
            loopback,
            controller,
            has_xdp: false,
            alias: String::new(),
        }
    }

    #[test]
    fn ports_are_ethernet_interfaces_that_stand_alone() {
        let no_ethernet = Link { mac: None, ..link("tun0", false, None) };
        for (link, wanted) in [
            (link("eth0", false, None), true),
            (link("lo", true, None), false),
            (link("eth1", false, Some(7)), false),
            (no_ethernet, false),
        ] {
            assert_eq!(Selection::All.wants(&link), wanted, "{}", link.name);
        }
        let named = Selection::Named(vec!["eth0".to_owned()]);
        assert!(named.wants(&link("eth0", false, None)));
        assert!(!named.wants(&link("eth2", false, None)));
    }

    #[test]
    fn a_name_is_refused_with_what_is_wrong_with_it() {
        let links = [link("lo", true, None), link("eth0", false, None)];
        let named = |name: &str| Selection::Named(vec![name.to_owned()]).check(links.iter());
        assert!(named("eth0").is_ok());
        assert!(matches!(named("eth9"), Err(StartError::NoSuchInterface(_))));
        assert!(matches!(named("lo"), Err(StartError::NoPort { .. })));
    }
}
