//! The host's firewall in front of the director, in mode `netfilter`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ipvs_e2e::programs::{Nginx, curl, nginx, run};
use ipvs_e2e::{AS_PROGRAM, Bed, METHODS, Method, Plane, vip};
use ipvs_lab::{HttpClient, HttpServer, Namespace, ServerHost};

pub(crate) const NEEDS: &[&str] = &["nft", "curl", "nginx"];
pub(crate) const NEEDS_IP: &[&str] = &["ip"];

const TIMEOUT: Duration = Duration::from_secs(3);
const PORT: u16 = 80;
/// Connections that the limited client may make to an address of a family, all methods
/// together.
const LIMIT: usize = 4;

/// A client by what the firewall does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Dropped,
    Marked,
    Limited,
    Other,
}

impl Client {
    fn address(self, v4: bool) -> IpAddr {
        let last = match self {
            Self::Dropped => 0x16,
            Self::Marked => 0x17,
            Self::Limited => 0x18,
            Self::Other => 0x19,
        };
        if v4 {
            IpAddr::from([192, 0, 2, last])
        } else {
            IpAddr::from([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, u16::from(last)])
        }
    }

    /// What answers it at a virtual address, if anything does.
    fn get(self, bed: &Bed, at: SocketAddr, more: &[&str]) -> Result<String> {
        let source = self.address(at.is_ipv4()).to_string();
        let options = [&["--interface", &source], more].concat();
        curl(bed.lab.client(), at, "name", &options)
    }
}

/// The mark under which a method's packets of the marked client go.
const fn mark(method: Method) -> u32 {
    match method {
        Method::Nat => 7,
        Method::DirectRouting => 8,
        Method::Tunnel => 9,
    }
}

/// A firewall as somebody would write it: what belongs to a connection passes, what starts one
/// must be allowed, and all else is forbidden. No entry of connection tracking stands for a
/// client's packets, so that they are all new, and the last of a connection invalid.
fn ruleset() -> String {
    let (mut marks, mut others) = (Vec::new(), Vec::new());
    for v4 in [true, false] {
        let family = if v4 { "ip" } else { "ip6" };
        let source = |client: Client| format!("{family} saddr {}", client.address(v4));
        for method in METHODS {
            let (source, at, mark) = (source(Client::Marked), vip(method, v4), mark(method));
            marks.push(format!(
                "{source} {family} daddr {at} tcp dport {PORT} meta mark set {mark}"
            ));
        }
        others.push(format!("{} counter name dropped drop", source(Client::Dropped)));
        others.push(format!(
            "{} tcp flags & (syn | ack) == syn limit rate over 1/day burst {LIMIT} packets \
             counter name limited drop",
            source(Client::Limited)
        ));
    }
    let (marks, others) = (marks.join("\n"), others.join("\n"));
    format!(
        "table inet wall {{\n\
           counter dropped {{ }}\n counter limited {{ }}\n counter refused {{ }}\n\
           chain marks {{ type filter hook prerouting priority mangle; policy accept;\n{marks}\n }}\n\
           chain sent-on {{ type filter hook forward priority filter; policy drop;\n\
             {others}\n\
             iifname \"server0\" accept\n\
             ct state established,related accept\n\
             tcp dport {PORT} tcp flags & (fin | rst) != 0 accept\n\
             ct state invalid counter name refused drop\n\
             meta l4proto {{ icmp, ipv6-icmp }} accept\n\
             iifname \"client0\" tcp dport {PORT} ct state new accept\n\
           }}\n\
         }}\n"
    )
}

/// Loads a ruleset into a director's host.
pub(crate) fn load(bed: &Bed, ruleset: &str) -> Result<()> {
    let file = bed.folder.path().join("ruleset.nft");
    std::fs::write(&file, ruleset)?;
    let file = file.to_str().context("a strange path")?;
    run(bed.lab.director(), "nft", &["-f", file]).map(drop)
}

/// How many packets a counter of the ruleset has seen.
fn counted(bed: &Bed, name: &str) -> Result<u64> {
    let listed = run(bed.lab.director(), "nft", &["list", "counter", "inet", "wall", name])?;
    let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
    Ok(words.nth(1).context("no count")?.parse()?)
}

/// A bed with services by address that lead to the first real server, services by mark
/// that lead to the second, and clients at addresses of their own.
fn bed(plane: Plane) -> Result<(Bed, Vec<Nginx>)> {
    let bed = Bed::new(plane, 2)?;
    let started: Result<Vec<Nginx>> =
        bed.lab.servers().iter().map(|host| nginx(&bed, host)).collect();
    let [first, second] = bed.lab.servers() else { bail!("not two servers") };
    for method in METHODS {
        let option = method.option();
        for v4 in [true, false] {
            let at = SocketAddr::new(vip(method, v4), PORT);
            let real = |server: &ServerHost| SocketAddr::new(server.address(at.ip()), PORT);
            bed.ipvsadm(&format!("-A -t {at} -s rr"))?;
            bed.ipvsadm(&format!("-a -t {at} -r {} {option}", real(first)))?;
            let service = format!("-f {}{}", mark(method), if v4 { "" } else { " -6" });
            bed.ipvsadm(&format!("-A {service} -s rr"))?;
            bed.ipvsadm(&format!("-a {service} -r {} {option}", real(second)))?;
        }
    }
    let link = bed.lab.client_link();
    for client in [Client::Dropped, Client::Marked, Client::Limited, Client::Other] {
        for v4 in [true, false] {
            link.add_address(client.address(v4).into())?;
        }
    }
    Ok((bed, started?))
}

pub(crate) fn firewall(plane: Plane) -> Result<()> {
    let (bed, _nginx) = bed(plane)?;
    // Long enough for an answer, and what a refused one costs.
    let refused = &["--max-time", "0.3"];
    load(&bed, &ruleset())?;
    await_table(&bed, true)?;
    for v4 in [true, false] {
        let mut limited = 0;
        for method in METHODS {
            let at = SocketAddr::new(vip(method, v4), PORT);
            for (client, expected) in [(Client::Other, "rs1"), (Client::Marked, "rs2")] {
                for _ in 0..3 {
                    let page = client.get(&bed, at, &[]);
                    let page = page.with_context(|| format!("{client:?} {method:?} {at}"))?;
                    ensure!(page == expected, "{client:?} {method:?} {at}: {page}");
                }
            }
            let before = counted(&bed, "dropped")?;
            ensure!(Client::Dropped.get(&bed, at, refused).is_err(), "{method:?} {at} answered");
            ensure!(
                counted(&bed, "dropped")? > before,
                "{method:?} {at}: the firewall saw nothing"
            );
            while limited < LIMIT {
                Client::Limited.get(&bed, at, &[]).with_context(|| format!("{method:?} {at}"))?;
                limited += 1;
            }
            let before = counted(&bed, "limited")?;
            ensure!(Client::Limited.get(&bed, at, refused).is_err(), "{method:?} {at} unlimited");
            ensure!(counted(&bed, "limited")? > before, "{method:?} {at}: not by the firewall");
        }
    }
    ensure!(counted(&bed, "refused")? == 0, "connection tracking finds packets invalid");
    // It is made again where somebody loads another ruleset, and not left without reason.
    load(&bed, &format!("flush ruleset\n{}", ruleset()))?;
    await_table(&bed, true)?;
    load(&bed, "delete table inet wall")?;
    await_table(&bed, false)
}

/// Waits until the table that keeps connection tracking out of the way is there, or not any more.
fn await_table(bed: &Bed, present: bool) -> Result<()> {
    for _ in 0..100 {
        let tables = run(bed.lab.director(), "nft", &["list", "tables"])?;
        if tables.contains("inet ipvs-rs") == present {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("the table of ours is not {present}: {:?}", bed.status()?.lines)
}

/// The rules of policy routing, both families.
fn rules(director: &Namespace) -> Result<[String; 2]> {
    let list = |family| run(director, "ip", &[family, "rule", "list"]);
    Ok([list("-4")?, list("-6")?])
}

/// What is for services goes by the door, what is not reaches the host; with and without a
/// daemon; and what led the one and the other is gone with the plane.
pub(crate) fn way(plane: Plane) -> Result<()> {
    let (mut bed, servers) = crate::adopt::bed(plane)?;
    let director = bed.lab.director().clone();
    let own = HttpServer::start(&director, "director", 8081)?;
    let ask = |bed: &Bed, port: u16| -> Result<BTreeMap<SocketAddr, String>> {
        let mut answers = BTreeMap::new();
        for v4 in [true, false] {
            let at = SocketAddr::new(vip(Method::Nat, v4), port);
            let get = || HttpClient::new().get(at, TIMEOUT);
            let answer = bed.lab.client().run(get)?.with_context(|| at.to_string())?;
            answers.insert(at, answer.server);
        }
        Ok(answers)
    };
    let is_balanced = |bed: &Bed| -> Result<()> {
        let answers = ask(bed, 80)?;
        let by_server = |name: &String| servers.iter().any(|server| server.host.name() == name);
        ensure!(answers.values().all(by_server), "{answers:?}");
        // The host's own service at the same address, and its own addresses for itself.
        let answers = ask(bed, 8081)?;
        ensure!(answers.values().all(|name| name == "director"), "{answers:?}");
        Ok(())
    };
    is_balanced(&bed)?;
    let there = rules(&director)?;
    ensure!(
        there.iter().all(|list| list.contains("iif client0 ipproto tcp dport 80")),
        "{there:?}"
    );
    bed.kill_daemon()?;
    is_balanced(&bed)?;
    bed.start_daemon()?;
    ensure!(rules(&director)? == there, "the next daemon makes them others: {there:?}");
    is_balanced(&bed)?;
    // Without services nothing is to be led.
    bed.ipvsadm("-C")?;
    let bare = rules(&director)?;
    let first = "0:\tfrom all lookup local\n";
    ensure!(bare.iter().all(|list| list.starts_with(first) && !list.contains("iif")), "{bare:?}");
    bed.ipvsadm("-A -t 192.0.2.100:80 -s rr")?;
    let v4 = rules(&director)?.concat();
    ensure!(v4.contains("iif client0 ipproto tcp dport 80"), "{v4}");
    bed.kill_daemon()?;
    let mut detach = director.command(std::env::current_exe()?)?;
    let detached =
        detach.env(AS_PROGRAM, "1").arg("detach").arg("--pins").arg(bed.pins()).output()?;
    ensure!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
    ensure!(rules(&director)? == bare, "rules are left: {:?}", rules(&director)?);
    drop(own);
    bed.start_daemon()
}

/// Waits until the daemon says something of the firewall, or nothing any more: it hears of a
/// change from the kernel, and looks within a second.
fn await_words(bed: &Bed, words: &str, present: bool) -> Result<Vec<String>> {
    for _ in 0..100 {
        let lines = bed.status()?.lines;
        if lines.iter().any(|line| line.contains(words)) == present {
            return Ok(lines);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("{words:?}: {present} is not what is reported: {:?}", bed.status()?.lines)
}

/// Where packets pass by the firewall, or some of its chains, the log and `ipvs status` name
/// them.
pub(crate) fn noticed(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    bed.ipvsadm("-A -t 192.0.2.100:80 -s rr")?;
    let lines = bed.status()?.lines;
    ensure!(!lines.iter().any(|line| line.contains("firewall")), "too early: {lines:?}");
    load(&bed, &ruleset())?;
    if plane == Plane::Netfilter {
        load(&bed, "add chain inet wall own { type filter hook input priority 0; policy drop; }")?;
        let lines = await_words(&bed, "inet wall own (input)", true)?;
        let line = lines.iter().find(|line| line.contains("inet wall own")).context("no line")?;
        ensure!(!line.contains("sent-on") && line.contains("client0, server0"), "{line}");
    } else {
        let lines = await_words(&bed, "pass by the host's firewall", true)?;
        let line = lines.iter().find(|line| line.contains("pass by")).context("no line")?;
        for part in
            ["client0, server0:", "inet wall marks (prerouting)", "inet wall sent-on (forward)"]
        {
            ensure!(line.contains(part), "{part} is not in {line}");
        }
        let log = std::fs::read_to_string(bed.folder.path().join("daemon.log"))?;
        ensure!(log.contains(line.as_str()) && log.contains("WARN"), "not in the log: {log}");
    }
    run(bed.lab.director(), "nft", &["flush", "ruleset"])?;
    await_words(&bed, "inet wall", false).map(drop)
}
