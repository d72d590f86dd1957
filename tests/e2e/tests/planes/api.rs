//! Clients of the daemon's socket, good and bad.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use ipvs_core::addr::{Addr, Family};
use ipvs_core::name::Name;
use ipvs_core::service::{ServiceKey, ServiceSpec};
use ipvs_e2e::programs::find;
use ipvs_e2e::{Bed, Plane};
use ipvs_netlink::attr::Writer;
use ipvs_netlink::message::{Header, Messages, flags, kind};
use ipvs_netlink::{numbers, service};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket,
    sockopt,
};
use std::os::fd::AsRawFd as _;

const GOOD: &[&str] = &[
    "-A -t 192.0.2.100:80 -s wrr",
    "-a -t 192.0.2.100:80 -r 10.1.0.11:80 -m -w 3",
    "-A -u [2001:db8:c::100]:53 -s rr -p 60",
];

/// Lines that the director refuses, and what ipvsadm says then.
const REFUSED: &[(&str, &str)] = &[
    ("-A -t 192.0.2.100:80 -s rr", "Service already exists"),
    ("-A -t 192.0.2.101:80 -s nosuch", "Scheduler or persistence engine not found"),
    ("-E -t 192.0.2.101:80 -s rr", "No such service"),
    ("-D -t 192.0.2.101:80", "No such service"),
    ("-a -t 192.0.2.100:80 -r 10.1.0.11:80 -m", "Destination already exists"),
    ("-a -t 192.0.2.101:80 -r 10.1.0.11:80 -m", "Service not defined"),
    ("-e -t 192.0.2.100:80 -r 10.1.0.12:80 -m -w 2", "No such destination"),
    ("-d -t 192.0.2.100:80 -r 10.1.0.12:80", "No such destination"),
    ("-Z -t 192.0.2.101:80", "No such service"),
];

pub(crate) fn refused_commands(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    for line in GOOD {
        bed.ipvsadm(line)?;
    }
    let before = bed.ipvsadm("-Sn")?;
    for (line, words) in REFUSED {
        let arguments: Vec<&str> = ["adm"].into_iter().chain(line.split(' ')).collect();
        let output = bed.ipvs(&arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(255), "{line}: {:?}", output.status);
        ensure!(said.contains(words), "{line}: {said}");
        ensure!(bed.ipvsadm("-Sn")? == before, "{line} has changed something");
    }
    Ok(())
}

pub(crate) fn connected(bed: &Bed) -> Result<OwnedFd> {
    let kind = SockType::SeqPacket;
    let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::SndBuf, &(1 << 20))?;
    connect(socket.as_raw_fd(), &UnixAddr::new(&bed.socket())?)?;
    Ok(socket)
}

pub(crate) fn nonsense(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let bystander = connected(&bed)?;
    for octets in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 100], &[0; 16], &[1], &vec![7; 100_000]]
    {
        let socket = connected(&bed)?;
        send(socket.as_raw_fd(), octets, MsgFlags::empty())?;
        bed.ipvsadm("-Ln")?;
    }
    let hung_up = connected(&bed)?;
    send(hung_up.as_raw_fd(), &vec![0; 150_000], MsgFlags::empty())?;
    let len = recv(hung_up.as_raw_fd(), &mut [0; 16], MsgFlags::empty())?;
    ensure!(len == 0, "a request that is too long is answered by hanging up");
    drop(bystander);
    bed.ipvsadm("-Ln").map(drop)
}

/// One client asks for much, many times, and reads nothing.
pub(crate) fn slow_client(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    for port in 1..200 {
        bed.ipvsadm(&format!("-A -t 192.0.2.100:{port} -s rr"))?;
    }
    let slow = connected(&bed)?;
    let mut dump = Vec::new();
    let kind = numbers::FAMILY_ID;
    let header =
        Header { len: 20, kind, flags: flags::REQUEST | flags::DUMP, sequence: 1, port: 0 };
    dump.extend(header.len.to_ne_bytes());
    dump.extend(header.kind.to_ne_bytes());
    dump.extend(header.flags.to_ne_bytes());
    dump.extend(header.sequence.to_ne_bytes());
    dump.extend(header.port.to_ne_bytes());
    dump.extend([numbers::command::GET_SERVICE, numbers::FAMILY_VERSION, 0, 0]);
    // Until the daemon takes no more of it.
    while send(slow.as_raw_fd(), &dump, MsgFlags::MSG_DONTWAIT) != Err(Errno::EAGAIN) {}
    ensure!(bed.ipvsadm("-Ln")?.lines().count() == 202, "others are answered");
    let (mut octets, mut buffer) = (0, vec![0; 65_536]);
    while octets < 100_000 {
        octets += recv(slow.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    }
    Ok(())
}

/// What a client sends to add a service.
pub(crate) fn request_to_add(port: u16) -> Vec<u8> {
    let key = ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 101]), port);
    let spec = ServiceSpec {
        scheduler: "rr".into(),
        engine: Name::default(),
        flags: 0,
        timeout: 0,
        netmask: [255; 4],
    };
    let mut attrs = Writer::new();
    service::write_full(&mut attrs, &key, &spec);
    message(numbers::command::NEW_SERVICE, flags::REQUEST | flags::ACK, attrs.bytes())
}

/// A message of the family.
fn message(command: u8, flags: u16, attrs: &[u8]) -> Vec<u8> {
    message_of(numbers::FAMILY_ID, command, flags, attrs)
}

/// A message of a family.
pub(crate) fn message_of(family: u16, command: u8, flags: u16, attrs: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    let len = u32::try_from(20 + attrs.len()).unwrap_or(u32::MAX);
    octets.extend(len.to_ne_bytes());
    octets.extend(family.to_ne_bytes());
    octets.extend(flags.to_ne_bytes());
    octets.extend([1_u32, 0].iter().flat_map(|word| word.to_ne_bytes()));
    octets.extend([command, numbers::FAMILY_VERSION, 0, 0]);
    octets.extend(attrs);
    octets
}

/// Sends, and takes what is answered off the socket, so that the daemon need not wait.
fn throw(socket: &OwnedFd, octets: &[u8]) -> Result<()> {
    send(socket.as_raw_fd(), octets, MsgFlags::MSG_NOSIGNAL)?;
    let mut answer = [0; 4096];
    while recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).is_ok() {}
    Ok(())
}

pub(crate) fn flood(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    for line in GOOD {
        bed.ipvsadm(line)?;
    }
    let before = bed.ipvsadm("-Sn")?;
    let socket = connected(&bed)?;
    let whole = request_to_add(80);
    for len in 1..whole.len() {
        // Half sent, and then gone.
        throw(&socket, &whole[..len])?;
        let hung_up = connected(&bed)?;
        send(hung_up.as_raw_fd(), &whole[..len], MsgFlags::empty())?;
        // Cut, and the header says so.
        let mut cut = whole[..len].to_vec();
        let said = u32::try_from(len)?.to_ne_bytes();
        cut.iter_mut().zip(said).for_each(|(octet, said)| *octet = said);
        throw(&socket, &cut)?;
    }
    // Attributes that say that they are longer or shorter than they are.
    for at in (20..whole.len()).step_by(2) {
        for wrong in [0, 1, 3, 0x00ff, 0xffff_u16] {
            let mut octets = whole.clone();
            octets.iter_mut().skip(at).zip(wrong.to_ne_bytes()).for_each(|(it, new)| *it = new);
            octets.truncate(whole.len() - 4);
            throw(&socket, &octets)?;
        }
    }
    // Anything at all, under every command but those that need no more than their number.
    let mut word = 0x9e37_79b9_u32;
    for turn in 0..4000_usize {
        let noise = std::iter::repeat_with(|| {
            // A generator of Lehmer's.
            word = word.wrapping_mul(48271) % 0x7fff_ffff;
            word.to_ne_bytes()[1]
        });
        let noise: Vec<u8> = noise.take(turn % 97).collect();
        let command = u8::try_from(turn % 12)?;
        throw(&socket, &message(command, flags::REQUEST, &noise))?;
        throw(&socket, &message(command, flags::REQUEST | flags::DUMP, &noise))?;
        // An empty one says that there is nothing more.
        if !noise.is_empty() {
            throw(&socket, &noise)?;
        }
    }
    ensure!(bed.ipvsadm("-Sn")? == before, "something was changed");
    throw(&connected(&bed)?, &whole)?;
    ensure!(bed.ipvsadm("-Sn")? != before, "what is well formed is still done");
    Ok(())
}

pub(crate) fn many_clients(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    bed.ipvsadm("-A -t 192.0.2.100:80 -s rr")?;
    let clients: Vec<OwnedFd> = (0..200).map(|_| connected(&bed)).collect::<Result<_>>()?;
    let ask = message(numbers::command::GET_SERVICE, flags::REQUEST | flags::DUMP, &[]);
    for (port, client) in (1..).zip(&clients) {
        send(client.as_raw_fd(), &ask, MsgFlags::empty())?;
        send(client.as_raw_fd(), &request_to_add(port), MsgFlags::empty())?;
    }
    ensure!(bed.ipvsadm("-Ln")?.contains("192.0.2.100:80"), "one more is served");
    for client in &clients {
        let (mut kinds, mut answer) = (Vec::new(), [0; 4096]);
        // The end of the listing is not the end: the edit is acknowledged behind it.
        while kinds.last() != Some(&kind::ERROR) {
            let len = recv(client.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            let all = Messages(answer.get(..len).unwrap_or(&[]));
            kinds.extend(all.map(|message| message.header.kind));
        }
        ensure!(kinds.first() == Some(&numbers::FAMILY_ID), "{kinds:?}");
        ensure!(kinds.contains(&kind::DONE), "{kinds:?}");
    }
    let added = bed.ipvsadm("-Ln")?.matches("192.0.2.101:").count();
    ensure!(added == clients.len(), "{added} clients have added their service");
    Ok(())
}

pub(crate) const NEEDS_OTHER_USER: &[&str] = &["setpriv", "/usr/bin/python3"];

/// Asks for the version, then for everything to be deleted, and prints the two outcomes.
const ASK: &str = r#"
import socket, struct, sys
to = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
to.connect(sys.argv[1])
for command in 15, 17:
    to.send(struct.pack("=IHHIIBBH", 20, int(sys.argv[2]), 5, 1, 0, command, 1, 0))
    errno = None
    while errno is None:
        answer = to.recv(65536)
        if struct.unpack_from("=H", answer, 4)[0] == 2:
            errno = struct.unpack_from("=i", answer, 16)[0]
    print(-errno)
"#;

/// Rights go by who a client is: another user, another group.
pub(crate) fn rights(plane: Plane) -> Result<()> {
    let mut bed = Bed::new(plane, 1)?;
    bed.end_daemon()?;
    bed.daemon_options = vec!["--group".to_owned(), "daemon".to_owned()];
    bed.start_daemon()?;
    fs::set_permissions(bed.folder.path(), fs::Permissions::from_mode(0o755))?;
    let run = |bed: &Bed, group: &str| -> Result<String> {
        let mut command = Command::new(find("setpriv").context("no setpriv")?);
        command.args([
            "--reuid",
            "65534",
            "--regid",
            group,
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            ASK,
        ]);
        command.arg(bed.socket()).arg(numbers::FAMILY_ID.to_string()).stdin(Stdio::null());
        let output = command.output()?;
        let said = if output.status.success() { output.stdout } else { output.stderr };
        Ok(String::from_utf8_lossy(&said).into_owned())
    };
    let group = nix::unistd::Group::from_name("daemon")?.context("no group daemon")?;
    let daemon = group.gid.to_string();
    let refused = run(&bed, "65534")?;
    ensure!(refused.contains("Permission denied"), "may not even connect: {refused}");
    let allowed = run(&bed, &daemon)?;
    ensure!(
        allowed
            == "0
0
",
        "the group may do everything: {allowed}"
    );
    bed.end_daemon()?;
    bed.daemon_options.extend(["--readers".to_owned(), "all".to_owned()]);
    bed.start_daemon()?;
    let reader = run(&bed, "65534")?;
    ensure!(
        reader
            == "0
1
",
        "others may read, and get EPERM for the rest: {reader}"
    );
    let allowed = run(&bed, &daemon)?;
    ensure!(
        allowed
            == "0
0
",
        "the group still may: {allowed}"
    );
    Ok(())
}
