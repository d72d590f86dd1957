//! Name servers behind one-packet services: every question is scheduled by itself, although
//! all come from one port of the client.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::programs::{DNS_PORT, dnsmasq, run};
use ipvs_e2e::{Bed, METHODS, Method, Plane, vip};
use ipvs_lab::{Namespace, Topology};

pub(crate) const NEEDS: &[&str] = &["dnsmasq", "dig", "nft"];
pub(crate) const NEEDS_IP: &[&str] = &["dnsmasq", "dig", "ip"];

/// The client's port.
const FROM: u16 = 5300;
const SERVERS: usize = 3;
/// How often it is each server's turn.
const ROUNDS: usize = 3;
/// Questions that come at once, for each server: no more than wait for a MAC address.
const BURST: usize = 10;

pub(crate) fn in_turn(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, SERVERS)?;
    let servers: Result<Vec<_>> = bed.lab.servers().iter().map(dnsmasq).collect();
    let _servers = servers?;
    answer_as_service(&bed)?;
    for (method, at) in services() {
        make_service(&bed, method.option(), at)?;
        answered_in_turn(at, (0..SERVERS * ROUNDS).map(|_| ask(&bed, at)))
            .with_context(|| format!("{method:?} {at}: {:?}", bed.status()))?;
    }
    bed.await_statistics()?;
    services().try_for_each(|(_, at)| counted_exactly(&bed, at, ROUNDS))
}

/// The director's host has forgotten its neighbours before each question: XDP leaves it to
/// TC, which must not pick another server for it, nor count it again.
pub(crate) fn unresolved(plane: Plane) -> Result<()> {
    let mut bed = Bed::new(plane, SERVERS)?;
    let servers: Result<Vec<_>> = bed.lab.servers().iter().map(dnsmasq).collect();
    let _servers = servers?;
    // Without a firewall's help nobody takes the answers of masqueraded servers.
    let unmasqueraded = || services().filter(|(method, _)| *method != Method::Nat);
    for (method, at) in services() {
        make_service(&bed, method.option(), at)?;
    }
    if plane.is_bpf() {
        // It has the kernel keep its neighbours known.
        bed.kill_daemon()?;
    }
    let ends = [Topology::DIRECTOR_CLIENT_SIDE, Topology::DIRECTOR_SERVER_SIDE];
    let forget = || {
        let flush = |end| run(bed.lab.director(), "ip", &["neigh", "flush", "dev", end]).map(drop);
        ends.into_iter().try_for_each(flush)
    };
    for (method, at) in unmasqueraded() {
        let questions = (0..SERVERS * ROUNDS).map(|_| forget().and_then(|()| ask(&bed, at)));
        answered_in_turn(at, questions).with_context(|| format!("{method:?} {at}"))?;
    }
    for (_, at) in services() {
        forget()?;
        let from = SocketAddr::new(bed.lab.client_address(at.ip()), FROM);
        let socket = bed.lab.client().run(|| UdpSocket::bind(from))??;
        for _ in 0..SERVERS * BURST {
            socket.send_to(b"is that a question?", at)?;
        }
    }
    if plane.is_bpf() {
        bed.start_daemon()?;
    }
    let each = |method| if method == Method::Nat { BURST } else { ROUNDS + BURST };
    bed.await_packets(services().map(|(method, _)| SERVERS * each(method)).sum())?;
    services().try_for_each(|(method, at)| counted_exactly(&bed, at, each(method)))?;
    if plane == Plane::Xdp {
        let packets = bed.packets()?;
        let left = packets.get("unresolved").copied().unwrap_or_default();
        ensure!(left > 0, "XDP has left nothing to TC: {packets:?}");
    }
    Ok(())
}

/// Checks that every server answered when it was its turn.
fn answered_in_turn(at: SocketAddr, answers: impl Iterator<Item = Result<String>>) -> Result<()> {
    let answers: Vec<_> = answers.collect::<Result<_>>()?;
    let (first, others) = answers.split_at(SERVERS);
    let mut names = first.to_vec();
    names.sort();
    ensure!(names == ["rs1", "rs2", "rs3"], "{at}: {answers:?}");
    ensure!(others.chunks(SERVERS).all(|round| round == first), "{at}: {answers:?}");
    Ok(())
}

/// A service of every method and family.
fn services() -> impl Iterator<Item = (Method, SocketAddr)> {
    let families = |method| [true, false].map(|v4| (method, vip(method, v4)));
    METHODS.into_iter().flat_map(families).map(|(how, at)| (how, SocketAddr::new(at, DNS_PORT)))
}

/// A checksum of the tunnel covers that of the question, which the client has left to its
/// hardware: TC leaves it to the daemon, which must not pick another server, either.
pub(crate) fn deferred(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, SERVERS)?;
    let servers: Result<Vec<_>> = bed.lab.servers().iter().map(dnsmasq).collect();
    let _servers = servers?;
    let services = || services().filter(|(method, _)| *method == Method::Tunnel);
    for (_, at) in services() {
        make_service(&bed, "-i --tun-type gue --tun-port 6080 --tun-csum", at)?;
        answered_in_turn(at, (0..SERVERS * ROUNDS).map(|_| ask(&bed, at)))
            .with_context(|| format!("{at}: {:?}", bed.status()))?;
    }
    bed.await_statistics()?;
    services().try_for_each(|(_, at)| counted_exactly(&bed, at, ROUNDS))?;
    if plane == Plane::Bpf {
        let packets = bed.packets()?;
        ensure!(packets.contains_key("deferred_unfilled"), "nothing was deferred: {packets:?}");
    }
    Ok(())
}

/// Makes a one-packet service of all real servers, that packets get to as ipvsadm is told.
fn make_service(bed: &Bed, how: &str, at: SocketAddr) -> Result<()> {
    bed.ipvsadm(&format!("-A -u {at} -s rr -o"))?;
    for host in bed.lab.servers() {
        let real = SocketAddr::new(host.address(at.ip()), DNS_PORT);
        bed.ipvsadm(&format!("-a -u {at} -r {real} {how}"))?;
    }
    Ok(())
}

/// Asks the service who it is, once; dig takes no answer from elsewhere.
fn ask(bed: &Bed, at: SocketAddr) -> Result<String> {
    let from = format!("{}#{FROM}", bed.lab.client_address(at.ip()));
    let server = format!("@{}", at.ip());
    let question = ["name", "TXT", "+short", "+tries=1", "+timeout=5", "+nocookie"];
    let options = [&["-b", &from, &server], &question[..]].concat();
    let answer = run(bed.lab.client(), "dig", &options)?;
    Ok(answer.trim().trim_matches('"').to_owned())
}

/// Checks that each server was given so many connections of one packet each, of which none
/// is there any more.
fn counted_exactly(bed: &Bed, at: SocketAddr, each: usize) -> Result<()> {
    let listed = bed.ipvsadm(&format!("-L -n --stats --exact -u {at}"))?;
    let counts = |start: &str, from: usize| -> Vec<[usize; 3]> {
        let rows = listed.lines().filter(|line| line.starts_with(start));
        let row = |line: &str| {
            let words = line.split_whitespace().skip(from).take(3);
            let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
            numbers.try_into().ok()
        };
        rows.filter_map(row).collect()
    };
    // Connections, packets in, packets out: no answer is one of a connection.
    let all = each * bed.lab.servers().len();
    ensure!(counts("UDP ", 2) == [[all, all, 0]], "{at}: not {all}: {listed}");
    let wanted = vec![[each, each, 0]; bed.lab.servers().len()];
    ensure!(counts("  -> ", 2) == wanted, "{at}: not {each} each: {listed}");
    let connections = bed.ipvsadm("-L -n -c")?;
    ensure!(!connections.contains(&at.to_string()), "{at}: there is one: {connections}");
    Ok(())
}

/// Masqueraded servers answer with their own address, since no connection is there that would
/// translate that: somebody's firewall has to, without tracking connections. That is the
/// director's where it sends on what it does not balance, else the servers'.
fn answer_as_service(bed: &Bed) -> Result<()> {
    if bed.plane.is_bpf() {
        return rewrite(bed, bed.lab.director(), "type filter hook postrouting priority 0;");
    }
    // Asks for the way anew: answers of the virtual address leave by the router.
    let place = "type route hook output priority 0;";
    bed.lab.servers().iter().try_for_each(|host| rewrite(bed, host.namespace(), place))
}

fn rewrite(bed: &Bed, namespace: &Namespace, place: &str) -> Result<()> {
    let rules: Vec<String> = [("ip", "10.1.0.0/24", true), ("ip6", "2001:db8:5::/64", false)]
        .map(|(family, servers, v4)| {
            let service = vip(Method::Nat, v4);
            format!("{family} saddr {servers} udp sport {DNS_PORT} {family} saddr set {service}")
        })
        .into();
    let rules = rules.join("\n");
    let file = bed.folder.path().join("answers.nft");
    std::fs::write(
        &file,
        format!("table inet answers {{ chain out {{ {place}\n{rules}\n}}\n}}\n"),
    )?;
    run(namespace, "nft", &["-f", file.to_str().context("a strange path")?]).map(drop)
}
