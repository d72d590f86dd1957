//! Clients of the daemon's socket, good and bad.

use std::os::fd::OwnedFd;

use anyhow::{Result, ensure};
use ipvs_e2e::{Bed, Plane};
use ipvs_netlink::message::{Header, flags};
use ipvs_netlink::numbers;
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

fn connected(bed: &Bed) -> Result<OwnedFd> {
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
