//! What is wrong, and what an administrator can do about it.

use std::fs;

use ipvs_core::addr::Family;
use ipvs_core::service::ServiceKey;
use ipvs_plane::measure::{MeasuredService, Measures, Table};

/// Services that are named; of others it is said how many.
const MOST_NAMED: usize = 10;

/// Everything that is wrong; `forwards` says whether the host forwards packets.
/// Services that are checked are spoken of elsewhere.
pub(crate) fn of(
    measures: &Measures,
    is_checked: impl Fn(&ServiceKey) -> bool,
    forwards: impl Fn(Family) -> bool,
) -> Vec<String> {
    let mut problems: Vec<String> = measures.tables.iter().filter_map(filling).collect();
    for (family, setting) in
        [(Family::V4, "net.ipv4.ip_forward"), (Family::V6, "net.ipv6.conf.all.forwarding")]
    {
        let mut services = measures.services.iter();
        if services.any(|service| service.key.family() == family) && !forwards(family) {
            problems.push(format!(
                "{setting} is 0, so packets for services are not forwarded: sysctl -w {setting}=1"
            ));
        }
    }
    let mut idle: Vec<&MeasuredService> =
        measures.services.iter().filter(|it| is_idle(it) && !is_checked(&it.key)).collect();
    idle.sort_by_key(|service| (service.key.protocol, service.key.fwmark, name(&service.key)));
    problems.extend(idle.iter().take(MOST_NAMED).map(|service| {
        format!(
            "service {} has no destination with a weight above 0, so its clients are refused: \
             add one, or give one a weight, by ipvsadm",
            name(&service.key)
        )
    }));
    if let more @ 1.. = idle.len().saturating_sub(MOST_NAMED) {
        problems.push(format!("{more} more services have no destination with a weight above 0"));
    }
    problems
}

/// What there is to say of a table that is full, or nearly.
fn filling(table: &Table) -> Option<String> {
    let Table { name, entries, capacity } = *table;
    if entries < capacity - capacity / 5 {
        return None;
    }
    let remedy = match name {
        "connections" => {
            "shorter timeouts (ipvsadm --set) make room; a larger table comes with \
                          ipvs daemon --connections, after ipvs detach"
        }
        "destinations" => "a larger table comes with ipvs daemon --destinations, after ipvs detach",
        _ => "delete what is not needed",
    };
    let most = "a full table refuses new ones";
    Some(format!("{entries} of {capacity} {name} are taken, {most}: {remedy}"))
}

fn is_idle(service: &MeasuredService) -> bool {
    service.dests.iter().all(|dest| dest.weight <= 0)
}

/// A service in the words of ipvsadm.
fn name(key: &ServiceKey) -> String {
    if key.is_fwmark() {
        let family = if key.family() == Family::V6 { " -6" } else { "" };
        return format!("-f {}{family}", key.fwmark);
    }
    let option = match key.protocol {
        17 => "-u",
        132 => "--sctp-service",
        _ => "-t",
    };
    format!("{option} {}", std::net::SocketAddr::new(key.addr.to_ip(key.family()), key.port))
}

/// Whether this host forwards packets of the family; one that does not say so is believed to.
pub(crate) fn forwards(family: Family) -> bool {
    let path = match family {
        Family::V4 => "/proc/sys/net/ipv4/ip_forward",
        Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    };
    fs::read_to_string(path).map_or(true, |text| text.trim() != "0")
}

#[cfg(test)]
mod tests {
    use ipvs_core::addr::Addr;
    use ipvs_core::dest::DestKey;
    use ipvs_core::name::Name;
    use ipvs_core::stats::Counters;
    use ipvs_plane::measure::MeasuredDest;
    use ipvs_plane::store::LoadValues;

    use super::*;

    fn service(port: u16, weights: &[i32]) -> MeasuredService {
        let dest = |weight: &i32| MeasuredDest {
            key: DestKey::new(Family::V4, Addr::v4([10, 1, 0, 11]), 80),
            weight: *weight,
            drains: false,
            load: LoadValues::default(),
            counters: Counters::default(),
        };
        MeasuredService {
            key: ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 10]), port),
            scheduler: Name::from("wlc"),
            counters: Counters::default(),
            dests: weights.iter().map(dest).collect(),
        }
    }

    fn measures(services: Vec<MeasuredService>, entries: u64) -> Measures {
        let tables = vec![Table { name: "connections", entries, capacity: 100 }];
        Measures { services, tables, ..Measures::default() }
    }

    #[test]
    fn where_all_is_well_nothing_is_said() {
        let measures = measures(vec![service(80, &[0, 1])], 79);
        assert_eq!(of(&measures, |_| false, |_| true), Vec::<String>::new());
    }

    #[test]
    fn a_service_whose_clients_are_refused_is_named() {
        let measures = measures(vec![service(81, &[0]), service(80, &[]), service(82, &[1])], 0);
        let problems = of(&measures, |_| false, |_| true);
        let begins = ["service -t 192.0.2.10:80 has no", "service -t 192.0.2.10:81 has no"];
        assert_eq!(problems.len(), begins.len(), "{problems:?}");
        for (problem, begin) in problems.iter().zip(begins) {
            assert!(problem.starts_with(begin), "{problem}");
        }
    }

    #[test]
    fn of_very_many_only_some_are_named() {
        let measures = measures((0..1000).map(|port| service(port, &[])).collect(), 0);
        let problems = of(&measures, |_| false, |_| true);
        assert_eq!(problems.len(), MOST_NAMED + 1);
        assert!(problems.last().unwrap().starts_with("990 more services"), "{problems:?}");
    }

    #[test]
    fn a_table_that_is_nearly_full_is_told_with_what_to_do() {
        let problems = of(&measures(Vec::new(), 80), |_| false, |_| true);
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(problem.starts_with("80 of 100 connections are taken"), "{problem}");
        assert!(problem.contains("--connections"), "{problem}");
    }

    #[test]
    fn a_host_that_does_not_forward_is_told_to_for_families_that_there_are_services_of() {
        let problems = of(&measures(vec![service(80, &[1])], 0), |_| false, |_| false);
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(problem.ends_with("sysctl -w net.ipv4.ip_forward=1"), "{problem}");
    }
}
