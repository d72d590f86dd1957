//! Packets leave through the egress device's network scheduler, with their service's mark.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::programs::{Nginx, curl, nginx, run};
use ipvs_e2e::{Bed, Method, Plane, vip};

use crate::web::make_body;

pub(crate) const NEEDS: &[&str] = &["tc", "nft", "curl", "nginx"];

const DEVICE: &str = "server0";
const LIMITED: &str = "1:10";
const OTHERS: &str = "1:20";
/// Octets of a body that a client sends: more than the limited class lets through at once.
const BODY: u64 = 300_000;
/// Matches mark 7: a load of `SKF_AD_OFF + SKF_AD_MARK` and a compare. Everywhere else one would
/// write `handle 7 fw`, for which not every kernel here is built.
const MARK_7: &str = "4,32 0 0 4294963220,21 0 1 7,6 0 0 4294967295,6 0 0 0";

/// What a class of HTB has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Class {
    octets: u64,
    /// How often a packet had to wait for the class's rate.
    over: u64,
}

fn classes(bed: &Bed) -> Result<BTreeMap<String, Class>> {
    let listed = run(bed.lab.director(), "tc", &["-s", "class", "show", "dev", DEVICE])?;
    let class = |text: &str| -> Option<(String, Class)> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let behind = |word: &str| {
            let at = words.iter().position(|it| *it == word)?;
            words.get(at + 1)?.parse().ok()
        };
        let class = Class { octets: behind("Sent")?, over: behind("overlimits")? };
        Some(((*words.first()?).to_owned(), class))
    };
    Ok(listed.split("class htb ").filter_map(class).collect())
}

/// Of two services to the same real server, one has a mark, and the scheduler's filter puts
/// its packets, and no others, into a class that limits them.
pub(crate) fn limited(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let started: Result<Vec<Nginx>> =
        bed.lab.servers().iter().map(|host| nginx(&bed, host)).collect();
    let _nginx = started?;
    let host = bed.lab.servers().first().context("no server")?;
    let director = bed.lab.director();
    for line in [
        format!("qdisc add dev {DEVICE} root handle 1: htb default 20"),
        format!("class add dev {DEVICE} parent 1: classid {LIMITED} htb rate 8mbit burst 15k"),
        format!(
            "class add dev {DEVICE} parent 1: classid {OTHERS} htb rate 10gbit burst 10m cburst 10m"
        ),
    ] {
        run(director, "tc", &line.split(' ').collect::<Vec<_>>())?;
    }
    let filter = ["filter", "add", "dev", DEVICE, "parent", "1:", "protocol", "all", "bpf"];
    run(director, "tc", &[&filter[..], &["bytecode", MARK_7, "flowid", LIMITED]].concat())?;
    for v4 in [true, false] {
        let marked = SocketAddr::new(vip(Method::Nat, v4), 80);
        let other = SocketAddr::new(vip(Method::DirectRouting, v4), 80);
        let real = SocketAddr::new(host.address(marked.ip()), 80);
        give_mark(&bed, marked)?;
        let service = if v4 { "-f 7" } else { "-f 7 -6" };
        for service in [service, &format!("-t {other}")] {
            bed.ipvsadm(&format!("-A {service} -s rr"))?;
            bed.ipvsadm(&format!("-a {service} -r {real} -m"))?;
        }
    }
    let file = bed.folder.path().join("body");
    make_body(&file, BODY)?;
    let file = file.to_str().context("a strange path")?;
    for v4 in [true, false] {
        for (method, class, idle) in
            [(Method::Nat, LIMITED, OTHERS), (Method::DirectRouting, OTHERS, LIMITED)]
        {
            let before = classes(&bed)?;
            let at = SocketAddr::new(vip(method, v4), 80);
            curl(bed.lab.client(), at, "put", &["-T", file]).with_context(|| at.to_string())?;
            let after = classes(&bed)?;
            let grown = |class: &str| -> Result<Class> {
                let (before, after) = (before.get(class), after.get(class));
                let (before, after) = (before.context("no class")?, after.context("no class")?);
                let octets = after.octets - before.octets;
                Ok(Class { octets, over: after.over - before.over })
            };
            let (taken, idle) = (grown(class)?, grown(idle)?);
            ensure!(taken.octets > BODY, "{at}: {class} has let {taken:?} through");
            // What the host itself says to its neighbours.
            ensure!(idle.octets < BODY / 10, "{at}: {idle:?} went by the other class");
            ensure!((taken.over != 0) == (class == LIMITED), "{at}: {class}: {taken:?}");
        }
    }
    Ok(())
}

/// Has packets to a virtual address marked: by the firewall, or by a rule of our own where
/// packets pass by that.
fn give_mark(bed: &Bed, at: SocketAddr) -> Result<()> {
    let (ip, port) = (at.ip().to_string(), at.port().to_string());
    if bed.plane == Plane::Netfilter {
        let family = if at.is_ipv4() { "ip" } else { "ip6" };
        let chain = "{ type filter hook prerouting priority mangle; }";
        let script = format!(
            "add table {family} marks\nadd chain {family} marks pre {chain}\n\
             add rule {family} marks pre {family} daddr {ip} tcp dport {port} meta mark set 7\n"
        );
        return crate::netfilter::load(bed, &script);
    }
    let rule = ["mark", "add", "7", "--to", &ip, "--protocol", "tcp", "--ports", &port];
    let added = bed.ipvs(&rule)?;
    ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    Ok(())
}
