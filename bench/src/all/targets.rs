//! What was asked of ipvs-rs, held against what was measured.

use std::io::{self, Write};

use super::medians::Medians;

/// What is asked of a figure.
#[derive(Clone, Copy, Debug)]
enum Asked {
    AtMost(f64),
    AtLeast(f64),
}
use Asked::{AtLeast, AtMost};

/// A figure, or a ratio of two.
#[derive(Clone, Copy, Debug)]
enum Of {
    One(&'static str),
    Ratio(&'static str, &'static str),
}
use Of::{One, Ratio};

/// What is asked, of what, and how much.
const TARGETS: [(&str, Of, Asked); 28] = [
    (
        "NAT, 1 flow: added, of nftables' DNAT",
        Ratio("forward-ipv4:xdp-nat/1", "forward-ipv4:nft-dnat/1"),
        AtMost(0.125),
    ),
    (
        "DR, 1 flow: added, of IP forwarding's",
        Ratio("forward-ipv4:xdp-dr/1", "forward-ipv4:ip-forward/1"),
        AtMost(1.0 / 6.0),
    ),
    (
        "ipip, 1 flow: added, of IP forwarding's",
        Ratio("forward-ipv4:xdp-ipip/1", "forward-ipv4:ip-forward/1"),
        AtMost(1.0 / 6.0),
    ),
    (
        "NAT, 100 k flows: added, of nftables' DNAT",
        Ratio("forward-ipv4:xdp-nat/100000", "forward-ipv4:nft-dnat/100000"),
        AtMost(0.2),
    ),
    (
        "DR, 100 k flows: added, of IP forwarding's",
        Ratio("forward-ipv4:xdp-dr/100000", "forward-ipv4:ip-forward/100000"),
        AtMost(0.25),
    ),
    (
        "ipip, 100 k flows: added, of IP forwarding's",
        Ratio("forward-ipv4:xdp-ipip/100000", "forward-ipv4:ip-forward/100000"),
        AtMost(0.25),
    ),
    (
        "NAT, 1 M flows: added, times that of 10 k",
        Ratio("forward-ipv4:xdp-nat/1000000", "forward-ipv4:xdp-nat/10000"),
        AtMost(2.5),
    ),
    (
        "DR, 1 M flows: added, times that of 10 k",
        Ratio("forward-ipv4:xdp-dr/1000000", "forward-ipv4:xdp-dr/10000"),
        AtMost(2.5),
    ),
    (
        "NAT over IPv6, 10 k flows: added, times that of IPv4",
        Ratio("forward-ipv6:xdp-nat/10000", "forward-ipv4:xdp-nat/10000"),
        AtMost(1.25),
    ),
    (
        "DR over IPv6, 10 k flows: added, times that of IPv4",
        Ratio("forward-ipv6:xdp-dr/10000", "forward-ipv4:xdp-dr/10000"),
        AtMost(1.25),
    ),
    (
        "new connections, NAT: times nftables' DNAT",
        Ratio("connect:xdp-nat/empty", "connect:nft-dnat/empty"),
        AtLeast(4.0),
    ),
    (
        "new connections, NAT, 10 M in the table: of an empty one",
        Ratio("connect-10m:xdp-nat/full", "connect-10m:xdp-nat/empty"),
        AtLeast(0.7),
    ),
    ("program alone, NAT, 1 flow: ns", One("program:xdp-nat/v4/1"), AtMost(90.0)),
    ("octets a connection, NAT, IPv4", One("memory:charged/bpf/nat/v4"), AtMost(256.0)),
    ("octets a connection, DR, IPv4", One("memory:charged/bpf/dr/v4"), AtMost(144.0)),
    ("octets a connection, NAT, IPv6", One("memory:charged/bpf/nat/v6"), AtMost(352.0)),
    (
        // 2.6 GiB over 10 M connections.
        "octets a connection, DR, IPv4, of 10 M in 2.6 GiB",
        One("memory-10m:charged/bpf/dr/v4"),
        AtMost(279.17),
    ),
    (
        "idle with 1 M connections: % of a CPU more",
        One("memory:idle/added/bpf/nat/v4"),
        AtMost(2.0),
    ),
    (
        "iperf3 through NAT: of nftables' DNAT",
        Ratio("proxy-view:iperf3/ipvs-bpf", "proxy-view:iperf3/nft-dnat"),
        AtLeast(1.0),
    ),
    (
        "wrk, kept connections: of nftables' DNAT",
        Ratio("proxy-view:wrk/keep-alive/ipvs-bpf", "proxy-view:wrk/keep-alive/nft-dnat"),
        AtLeast(1.0),
    ),
    (
        "wrk, Connection: close: of nftables' DNAT",
        Ratio("proxy-view:wrk/close/ipvs-bpf", "proxy-view:wrk/close/nft-dnat"),
        AtLeast(1.0),
    ),
    (
        "wrk, Connection: close: times HAProxy",
        Ratio("proxy-view:wrk/close/ipvs-bpf", "proxy-view:wrk/close/haproxy"),
        AtLeast(2.0),
    ),
    (
        "plane in user space: thousand datagrams a second",
        One("proxy-view:udp/ipvs-user"),
        AtLeast(300.0),
    ),
    (
        "plane in user space: times nginx's datagrams",
        Ratio("proxy-view:udp/ipvs-user", "proxy-view:udp/nginx"),
        AtLeast(2.0),
    ),
    ("two CPUs, NAT, flows apart: times one", One("scale:xdp-nat/apart"), AtLeast(1.8)),
    ("two CPUs, DR, flows apart: times one", One("scale:xdp-dr/apart"), AtLeast(1.8)),
    (
        "NAT, 10 k flows: added, of nftables' DNAT (asked of the plane at first)",
        Ratio("forward-ipv4:xdp-nat/10000", "forward-ipv4:nft-dnat/10000"),
        AtMost(0.25),
    ),
    (
        "NAT over IPv6, 100 k flows: added, of nftables' DNAT",
        Ratio("forward-ipv6:xdp-nat/100000", "forward-ipv6:nft-dnat/100000"),
        AtMost(0.25),
    ),
];

/// Writes the table.
pub(super) fn write(medians: &Medians, out: &mut impl Write) -> io::Result<()> {
    let width = TARGETS.iter().map(|(what, ..)| what.len()).max().unwrap_or(0);
    writeln!(out, "{:width$}  {:>14}  {:>9}", "what", "asked", "measured")?;
    for (what, of, asked) in TARGETS {
        let asked_in_words = match asked {
            AtMost(most) => format!("at most {most:.3}"),
            AtLeast(least) => format!("at least {least:.1}"),
        };
        write!(out, "{what:width$}  {asked_in_words:>14}  ")?;
        let measured = match of {
            One(name) => medians.get(name),
            Ratio(one, other) => medians.ratio(one, other),
        };
        match measured {
            Some(measured) => writeln!(out, "{measured:>9.3}  {}", asked.verdict(measured))?,
            None => writeln!(out, "{:>9}  not measured", "-")?,
        }
    }
    Ok(())
}

impl Asked {
    fn verdict(self, measured: f64) -> String {
        let (is_met, share) = match self {
            AtMost(most) => (measured <= most, measured / most - 1.0),
            AtLeast(least) => (measured >= least, 1.0 - measured / least),
        };
        if is_met { "met".to_owned() } else { format!("missed by {:.0} %", share * 100.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(medians: &Medians, begins: &str) -> String {
        let mut out = Vec::new();
        write(medians, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines().find(|line| line.starts_with(begins)).unwrap().to_owned()
    }

    #[test]
    fn what_is_missed_says_by_how_much_of_what_was_asked() {
        let medians = Medians::with(&[
            ("program:xdp-nat/v4/1", 99.0),
            ("scale:xdp-nat/apart", 1.9),
            ("scale:xdp-dr/apart", 0.9),
        ]);
        assert!(line(&medians, "program alone").ends_with("99.000  missed by 10 %"));
        assert!(line(&medians, "two CPUs, NAT").ends_with("1.900  met"));
        assert!(line(&medians, "two CPUs, DR").ends_with("missed by 50 %"));
        assert!(line(&medians, "iperf3").ends_with("-  not measured"));
    }

    #[test]
    fn every_target_is_of_a_suite_that_is_run() {
        for (what, of, _) in TARGETS {
            let names = match of {
                One(name) => vec![name],
                Ratio(one, other) => vec![one, other],
            };
            for name in names {
                let (suite, _) = name.split_once(':').unwrap();
                assert!(super::super::SUITES.iter().any(|it| it.name == suite), "{what}: {suite}");
            }
        }
    }
}
