//! Unmodified programs in control of the director: they are started by `ipvs exec`, and
//! what they ask the kernel's IPVS, the daemon answers.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ipvs_e2e::{AS_PROGRAM, Bed, Method, Plane, vip};
use ipvs_lab::{ChildGuard, End, HttpClient, HttpServer, IpNet, Namespace, veth};

use crate::visitor::{self, Trouble, visiting};

pub(crate) const NEEDS_KEEPALIVED: &[&str] = &["keepalived", visitor::NEEDS];
pub(crate) const NEEDS_LDIRECTORD: &[&str] = &["ldirectord", "ipvsadm"];
pub(crate) const NEEDS_PYTHON: &[&str] = &["python3"];

/// How long a check may take to notice what has happened.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(2);

/// Looks again until something is so. The programs tell nobody what they have noticed.
fn await_that(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The virtual service, and where a request goes.
fn service() -> SocketAddr {
    SocketAddr::new(vip(Method::Nat, true), 80)
}

/// Starts a program in a namespace, led to the bed's daemon; what it says goes to a file.
fn start(bed: &Bed, place: &Namespace, words: &[&str], log: &Path) -> Result<ChildGuard> {
    let mut command = place.command("/proc/self/exe")?;
    command.args(["exec", "--"]).args(words).env(AS_PROGRAM, "1");
    command.env("IPVS_SOCKET", bed.socket()).stdin(Stdio::null());
    let file = fs::File::create(log)?;
    command.stdout(file.try_clone()?).stderr(file);
    Ok(place.spawn_child(command)?)
}

/// The listing's lines of destinations: address and weight.
fn listed(bed: &Bed) -> Result<Vec<(String, u32)>> {
    let listing = bed.ipvsadm("-Ln")?;
    let dests = listing.lines().filter_map(|line| line.strip_prefix("  -> ")).skip(1);
    dests
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [addr, _, weight, ..] => Ok(((*addr).to_owned(), weight.parse()?)),
                _ => bail!("no destination: {line}"),
            }
        })
        .collect()
}

/// Waits for a list of destinations, in any order.
fn await_dests(bed: &Bed, expect: &[(&str, u32)]) -> Result<()> {
    let mut expect: Vec<(String, u32)> =
        expect.iter().map(|(addr, weight)| ((*addr).to_owned(), *weight)).collect();
    expect.sort();
    let mut last = Vec::new();
    let outcome = await_that("the destinations", || {
        last = listed(bed)?;
        last.sort();
        Ok(last == expect)
    });
    outcome.with_context(|| format!("expected {expect:?}, have {last:?}"))
}

/// Gets pages; each must come, and from one of `servers`.
fn pages(bed: &Bed, servers: &[&str]) -> Result<()> {
    let get = || -> Result<()> {
        for _ in 0..12 {
            let page = HttpClient::new().get(service(), REQUEST)?;
            ensure!(servers.contains(&page.server.as_str()), "a page from {}", page.server);
        }
        Ok(())
    };
    bed.lab.client().run(get)?.with_context(|| format!("pages from {servers:?}"))
}

/// A web server on the real server of this number.
fn web(bed: &Bed, number: usize) -> Result<HttpServer> {
    let host = bed.lab.servers().get(number).context("no such real server")?;
    Ok(HttpServer::start(host.namespace(), host.name(), 80)?)
}

/// A path as text.
fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a strange path")
}

/// Three real servers, each with a check of its own, and one for when none is left.
fn keepalived_conf(script: &Path) -> String {
    let (service, script) = (service(), script.display());
    format!(
        "global_defs {{
            script_user root
            enable_script_security
        }}
        virtual_server {} {} {{
            delay_loop 1
            lvs_sched wrr
            lvs_method NAT
            protocol TCP
            quorum 1
            sorry_server 10.1.0.14 80
            real_server 10.1.0.11 80 {{
                weight 1
                TCP_CHECK {{
                    connect_timeout 1
                    retry 0
                }}
            }}
            real_server 10.1.0.12 80 {{
                weight 2
                inhibit_on_failure
                HTTP_GET {{
                    url {{
                        path /
                        status_code 200
                    }}
                    connect_timeout 1
                    retry 0
                }}
            }}
            real_server 10.1.0.13 80 {{
                weight 3
                MISC_CHECK {{
                    misc_path \"{script}\"
                    misc_timeout 1
                }}
            }}
        }}\n",
        service.ip(),
        service.port()
    )
}

pub(crate) fn keepalived(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 4)?;
    let folder = bed.folder.path();
    let (mark, script) = (folder.join("rs3-is-well"), folder.join("check"));
    fs::write(&script, format!("#!/bin/sh\ntest -e {}\n", mark.display()))?;
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    fs::write(&mark, "")?;
    let conf = folder.join("keepalived.conf");
    fs::write(&conf, keepalived_conf(&script))?;
    let (first, second) = (web(&bed, 0)?, web(&bed, 1)?);
    let (_third, _sorry) = (web(&bed, 2)?, web(&bed, 3)?);

    let log = folder.join("keepalived.log");
    let pids = ["pid", "checkers", "vrrp"].map(|name| folder.join(name));
    let words = ["keepalived", "-n", "-l", "-C", "-f", text(&conf)?, "-p", text(&pids[0])?];
    let more = ["-c", text(&pids[1])?, "-r", text(&pids[2])?];
    let mut program = start(&bed, bed.lab.director(), &[&words[..], &more].concat(), &log)?;

    let all = [("10.1.0.11:80", 1), ("10.1.0.12:80", 2), ("10.1.0.13:80", 3)];
    let visited = |trouble: &Trouble| {
        pages(&bed, &["rs1", "rs2", "rs3"])?;
        trouble.during(|| {
            drop(first);
            await_dests(&bed, &all[1..]).context("TCP_CHECK takes one out")
        })?;
        pages(&bed, &["rs2", "rs3"])?;
        trouble.during(|| {
            drop(second);
            let inhibited = [("10.1.0.12:80", 0), ("10.1.0.13:80", 3)];
            await_dests(&bed, &inhibited).context("HTTP_GET inhibits one")
        })?;
        pages(&bed, &["rs3"])?;
        trouble.during(|| {
            fs::remove_file(&mark)?;
            let sorry = [("10.1.0.12:80", 0), ("10.1.0.14:80", 1)];
            await_dests(&bed, &sorry).context("without quorum there is the sorry server")
        })?;
        pages(&bed, &["rs4"])?;
        // keepalived takes the sorry server out before it brings the others in.
        let revived = trouble.during(|| {
            let revived = (web(&bed, 0)?, web(&bed, 1)?);
            fs::write(&mark, "")?;
            await_dests(&bed, &all).context("all are well again").map(|()| revived)
        })?;
        pages(&bed, &["rs1", "rs2", "rs3"])?;
        // They outlive the last visit.
        Ok(revived)
    };
    let url = format!("http://{}/", service());
    let outcome = await_dests(&bed, &all).and_then(|()| visiting(&bed, &url, visited));
    // First of all: a child that outlives it never ends.
    let has_ended = program.terminate(PATIENCE)?;
    outcome.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    ensure!(has_ended, "keepalived does not end");
    ensure!(listed(&bed)?.is_empty(), "it takes its services with it");
    Ok(())
}

/// A VRRP router: no virtual servers, only the address.
fn vrrp_conf(interface: &str, state: &str, priority: u8, address: &str) -> String {
    format!(
        "vrrp_instance pair {{
            state {state}
            interface {interface}
            virtual_router_id 51
            priority {priority}
            version 3
            advert_int 0.1
            virtual_ipaddress {{ {address} }}
        }}\n"
    )
}

/// Whether a namespace has the address.
fn has(place: &Namespace, address: &str) -> Result<bool> {
    // Every IPv4 address of a host stands in its table of local ones.
    let table = place.run(|| fs::read_to_string("/proc/thread-self/net/fib_trie"))??;
    Ok(table.contains(address))
}

pub(crate) fn vrrp(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let (client, director) = (bed.lab.client(), bed.lab.director());
    // The pair has a wire of its own.
    let backup = Namespace::for_lab("backup")?;
    let (one, other) = veth(End::new(director, "pair0"), End::new(&backup, "pair0"), None)?;
    one.add_address("198.51.100.1/24".parse::<IpNet>()?)?;
    other.add_address("198.51.100.2/24".parse::<IpNet>()?)?;
    ensure!(!has(client, "198.51.100.100")?);
    let address = "198.51.100.100";
    let mut run = Vec::new();
    for (place, state, priority) in [(director, "MASTER", 200), (&backup, "BACKUP", 100)] {
        let file = |ending: &str| bed.folder.path().join(format!("{state}.{ending}"));
        let conf = file("conf");
        let virtual_server =
            if state == "MASTER" { keepalived_conf(Path::new("/bin/true")) } else { String::new() };
        fs::write(&conf, vrrp_conf("pair0", state, priority, address) + &virtual_server)?;
        let pids: [PathBuf; 3] = [file("pid"), file("checkers"), file("vrrp")];
        let words = ["keepalived", "-n", "-l", "-f", text(&conf)?, "-p", text(&pids[0])?];
        let more = ["-c", text(&pids[1])?, "-r", text(&pids[2])?];
        run.push(start(&bed, place, &[&words[..], &more].concat(), &file("log"))?);
    }
    let logs = || {
        let log = |state: &str| fs::read_to_string(bed.folder.path().join(format!("{state}.log")));
        format!("{}{}", log("MASTER").unwrap_or_default(), log("BACKUP").unwrap_or_default())
    };
    await_that("the master has the address", || {
        Ok(has(director, address)? && !has(&backup, address)?)
    })
    .with_context(logs)?;
    let mut master = run.remove(0);
    // VRRP and the checks are in one program, the one by the host's netlink, the other by ours.
    await_that("a destination", || Ok(!listed(&bed)?.is_empty())).with_context(logs)?;
    ensure!(master.terminate(PATIENCE)?, "keepalived does not end");
    await_that("the address moves", || Ok(!has(director, address)? && has(&backup, address)?))
        .with_context(logs)
}

pub(crate) fn ldirectord(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 3)?;
    let (first, _second, _fallback) = (web(&bed, 0)?, web(&bed, 1)?, web(&bed, 2)?);
    let folder = bed.folder.path();
    let conf = folder.join("ldirectord.cf");
    let lines = [
        "checktimeout=1".to_owned(),
        "checkinterval=1".to_owned(),
        "quiescent=no".to_owned(),
        format!("virtual={}", service()),
        "\treal=10.1.0.11:80 masq 2".to_owned(),
        "\treal=10.1.0.12:80 masq 1".to_owned(),
        "\tfallback=10.1.0.13:80 masq".to_owned(),
        "\tservice=http\n\tscheduler=wrr\n\tprotocol=tcp\n\tchecktype=connect\n".to_owned(),
    ];
    fs::write(&conf, lines.join("\n"))?;
    let log = folder.join("ldirectord.log");
    let program =
        start(&bed, bed.lab.director(), &["ldirectord", "-d", text(&conf)?, "start"], &log)?;
    let outcome = (|| -> Result<()> {
        let all = [("10.1.0.11:80", 2), ("10.1.0.12:80", 1)];
        await_dests(&bed, &all)?;
        pages(&bed, &["rs1", "rs2"])?;
        drop(first);
        await_dests(&bed, &all[1..])?;
        pages(&bed, &["rs2"])?;
        let _revived = web(&bed, 0)?;
        await_dests(&bed, &all)
    })();
    outcome.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    drop(program);
    Ok(())
}

/// Speaks netlink with its own hands, and the old socket options.
const PYTHON: &str = r#"
import select, socket, struct

def attr(number, octets):
    return struct.pack("=HH", 4 + len(octets), number) + octets + bytes(-len(octets) % 4)

def send(to, kind, flags, command, attrs=b""):
    payload = struct.pack("=BBH", command, 1, 0) + attrs
    to.send(struct.pack("=IHHII", 16 + len(payload), kind, flags, 7, 0) + payload)

def resolve(on, name):
    send(on, 16, 1, 3, attr(2, name + b"\0"))
    answer, sender = on.recvfrom(65536)
    assert sender == (0, 0), sender
    length = struct.unpack_from("=H", answer, 20)[0]
    at = 20 + (length + 3) // 4 * 4
    return struct.unpack_from("=H", answer, at + 4)[0]

def generic():
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
    made.bind((0, 0))
    return made

ours, kernel = generic(), generic()
# As an event loop does: before it is known what the socket is for.
waiter = select.epoll()
waiter.register(ours, select.EPOLLIN)
family = resolve(ours, b"IPVS")
assert resolve(kernel, b"nlctrl") == 16
assert ours.getsockname()[1] == 0 and kernel.getsockname()[0] != 0

def port(number):
    return struct.pack("!H", number)

key = attr(1, struct.pack("=H", 2)) + attr(2, struct.pack("=H", 6))
key += attr(3, socket.inet_aton("192.0.2.100")) + attr(4, port(8080))
full = key + attr(6, b"sh\0") + attr(7, struct.pack("=II", 0, 0xffffffff))
full += attr(8, bytes(4)) + attr(9, b"\xff" * 4)
send(ours, family, 5, 1, attr(1, full))
assert waiter.poll(5)
assert struct.unpack_from("=i", ours.recv(65536), 16)[0] == 0
send(ours, family, 5, 1, attr(1, full))
assert struct.unpack_from("=i", ours.recv(65536), 16)[0] == -17

raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
assert struct.unpack("=III", raw.getsockopt(0, 1153, 12))[2] == 1
service = struct.pack("=HxxI", 6, struct.unpack("=I", socket.inet_aton("192.0.2.100"))[0])
service += port(8080) + bytes(2) + bytes(4) + b"sh".ljust(16, b"\0") + bytes(8) + b"\xff" * 4
dest = socket.inet_aton("10.1.0.11") + port(80) + bytes(2) + struct.pack("=IiII", 0, 5, 0, 0)
raw.setsockopt(0, 1159, service + dest)
try:
    raw.setsockopt(0, 1159, service + dest)
    raise SystemExit("added twice")
except FileExistsError:
    pass
print("done")
"#;

pub(crate) fn python(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let log = bed.folder.path().join("python.log");
    let mut program = start(&bed, bed.lab.director(), &["python3", "-c", PYTHON], &log)?;
    let status = program.child().wait()?;
    let said = fs::read_to_string(&log)?;
    ensure!(status.success() && said == "done\n", "{status}: {said}");
    let listing = bed.ipvsadm("-Sn")?;
    let expect = "-A -t 192.0.2.100:8080 -s sh\n-a -t 192.0.2.100:8080 -r 10.1.0.11:80 -m -w 5\n";
    ensure!(listing == expect, "{listing}");
    Ok(())
}
