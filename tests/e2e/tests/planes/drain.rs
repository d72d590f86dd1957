//! Destinations that are drained, with connections on them.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ipvs_e2e::{Bed, Plane};
use serde_json::Value;

use crate::web::vips;

const PORT: u16 = 90;
/// Looks at what is to come, and between two of them.
const LOOKS: u32 = 500;
const BETWEEN: Duration = Duration::from_millis(20);

/// Listens at a port of a real server.
struct Listener {
    tcp: TcpListener,
    udp: UdpSocket,
}

/// A connection with both its ends.
struct Pair {
    client: TcpStream,
    served: TcpStream,
    by: usize,
}

impl Pair {
    fn connect(bed: &Bed, to: SocketAddr, listeners: &[Listener]) -> Result<Self> {
        let client = bed.lab.client().run(|| TcpStream::connect(to))??;
        let own = client.local_addr()?;
        for _ in 0..LOOKS {
            for (by, listener) in listeners.iter().enumerate() {
                match listener.tcp.accept() {
                    Ok((served, from))
                        if (from.ip().to_canonical(), from.port()) == (own.ip(), own.port()) =>
                    {
                        client.set_nonblocking(true)?;
                        served.set_nonblocking(true)?;
                        return Ok(Self { client, served, by });
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    outcome => bail!("accept: {outcome:?}"),
                }
            }
            thread::sleep(BETWEEN);
        }
        bail!("{to}: nobody was connected")
    }

    /// What is sent arrives.
    fn lives(&mut self) -> Result<()> {
        self.client.write_all(b"alive")?;
        let mut octets = [0; 5];
        await_some(|| self.served.read_exact(&mut octets)).context("what was sent")?;
        ensure!(&octets == b"alive");
        Ok(())
    }

    /// Both ends hear that the connection is reset, as soon as the client sends something.
    fn is_reset(&mut self) -> Result<()> {
        let mut octets = [0; 64];
        let mut hears = |end: &mut TcpStream| match end.read(&mut octets) {
            Ok(0) => bail!("the connection was closed"),
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(true),
            Err(error) => Err(error.into()),
        };
        let (mut server, mut client) = (false, false);
        for _ in 0..LOOKS {
            server = server || hears(&mut self.served)?;
            client = client || hears(&mut self.client)?;
            if server && client {
                return Ok(());
            }
            if !client {
                // It may be too late for it.
                let _late = self.client.write(b"more");
            }
            thread::sleep(BETWEEN);
        }
        bail!("reset: server {server}, client {client}")
    }
}

fn await_some<T>(mut take: impl FnMut() -> io::Result<T>) -> Result<T> {
    for _ in 0..LOOKS {
        match take() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(BETWEEN),
            outcome => return Ok(outcome?),
        }
    }
    bail!("it does not come")
}

fn listen(bed: &Bed) -> Result<Vec<Listener>> {
    // Of both families.
    let any = Ipv6Addr::UNSPECIFIED;
    let start = || -> io::Result<Listener> {
        let (tcp, udp) = (TcpListener::bind((any, PORT))?, UdpSocket::bind((any, PORT))?);
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        Ok(Listener { tcp, udp })
    };
    bed.lab.servers().iter().map(|host| Ok(host.namespace().run(start)??)).collect()
}

/// Services of both transports behind one virtual address, and what to call them.
struct Drained<'a> {
    bed: &'a Bed,
    service: SocketAddr,
}

impl Drained<'_> {
    fn words(&self, transport: &str, by: usize) -> Result<[String; 2]> {
        let host = self.bed.lab.servers().get(by).context("no such server")?;
        let dest = SocketAddr::new(host.address(self.service.ip()), PORT);
        Ok([format!("{transport}:{}", self.service), dest.to_string()])
    }

    fn run(&self, verb: &str, transport: &str, by: usize, more: &[&str]) -> Result<()> {
        let [service, dest] = self.words(transport, by)?;
        let words = [&[verb, service.as_str(), dest.as_str()], more].concat();
        let output = self.bed.ipvs(&words)?;
        ensure!(output.status.success(), "{words:?}: {output:?}");
        Ok(())
    }

    /// The drain of a destination, as it is told.
    fn told(&self, transport: &str, by: usize) -> Result<Value> {
        let [service, dest] = self.words(transport, by)?;
        let service = service.replacen(':', " ", 1);
        let output = self.bed.ipvs(&["drain", "--json"])?;
        let all: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        let ours = all.into_iter().find(|it| it["service"] == service && it["destination"] == dest);
        ours.with_context(|| format!("{service} {dest} is not drained"))
    }
}

/// Nothing new comes, what is there goes on over the daemon's death, and is reset at the
/// deadline.
pub(crate) fn tcp(plane: Plane) -> Result<()> {
    let mut bed = Bed::new(plane, 2)?;
    bed.make_services("-t", PORT, "rr", |_| PORT)?;
    let listeners = &listen(&bed)?;
    let mut held = Vec::new();
    for (method, at) in vips() {
        let service = SocketAddr::new(at.ip(), PORT);
        let mut old = Pair::connect(&bed, service, listeners)?;
        Drained { bed: &bed, service }.run("drain", "tcp", old.by, &[])?;
        for _ in 0..3 {
            let new = Pair::connect(&bed, service, listeners)?;
            ensure!(new.by != old.by, "{method:?} {service}: a connection came to {}", new.by);
        }
        old.lives()?;
        let stays = Pair::connect(&bed, service, listeners)?;
        held.push((service, old, stays));
    }
    if plane.is_bpf() {
        bed.kill_daemon()?;
        bed.start_daemon()?;
    }
    for (service, mut old, mut stays) in held {
        let drained = Drained { bed: &bed, service };
        let told = drained.told("tcp", old.by)?;
        ensure!(told["open"] == 1 && told["began_with"] == 1, "{told}");
        old.lives().with_context(|| format!("{service} before the deadline"))?;
        drained.run("drain", "tcp", old.by, &["--deadline", "1s", "--then", "reset"])?;
        old.is_reset().with_context(|| format!("{service}"))?;
        stays.lives()?;
        drained.run("drain", "tcp", old.by, &["--wait"])?;
        drained.run("undrain", "tcp", old.by, &[])?;
        let again = [
            Pair::connect(&bed, service, listeners)?.by,
            Pair::connect(&bed, service, listeners)?.by,
        ];
        ensure!(again.contains(&old.by), "{service}: nobody came back to {}", old.by);
    }
    Ok(())
}

/// A client that goes on sending datagrams goes on until the deadline, and then elsewhere.
pub(crate) fn udp(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 2)?;
    bed.make_services("-u", PORT, "rr", |_| PORT)?;
    let listeners = listen(&bed)?;
    for (method, at) in vips() {
        let service = SocketAddr::new(at.ip(), PORT);
        let any = if service.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let client = bed.lab.client().run(|| UdpSocket::bind(any))??;
        let served = || -> Result<usize> {
            client.send_to(b"question", service)?;
            let mut room = [0; 64];
            await_some(|| {
                let take = |(by, it): (usize, &Listener)| match it.udp.recv(&mut room) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                    outcome => Some(outcome.map(|_| by)),
                };
                let came = listeners.iter().enumerate().find_map(take);
                came.unwrap_or_else(|| Err(ErrorKind::WouldBlock.into()))
            })
        };
        let first = served()?;
        let drained = Drained { bed: &bed, service };
        drained.run("drain", "udp", first, &["--deadline", "1h", "--then", "rehash"])?;
        for _ in 0..3 {
            ensure!(served()? == first, "{method:?} {service}: it moved before its time");
        }
        drained.run("drain", "udp", first, &["--deadline", "1s", "--then", "rehash"])?;
        let mut looks = 0;
        while served()? == first {
            looks += 1;
            ensure!(looks < LOOKS, "{method:?} {service}: it stays");
            thread::sleep(BETWEEN);
        }
    }
    Ok(())
}

/// What is asked for wrongly is refused with what to do.
pub(crate) fn refused(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    bed.ipvsadm("-A -t 192.0.2.100:80")?;
    bed.ipvsadm("-a -t 192.0.2.100:80 -r 10.1.0.11:80 -m")?;
    let told = |words: &[&str]| -> Result<String> {
        let output = bed.ipvs(words)?;
        ensure!(!output.status.success(), "{words:?} succeeded");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (service, dest) = ("tcp:192.0.2.100:80", "10.1.0.11:80");
    for (words, why) in [
        (&["drain", "udp:192.0.2.100:80", dest][..], "there is no service udp 192.0.2.100:80"),
        (&["drain", service, "10.1.0.12:80"], "has no destination 10.1.0.12:80"),
        (&["undrain", service, dest], "10.1.0.11:80 is not drained"),
        (&["drain", "192.0.2.100:80", dest], "a service is tcp:ADDRESS:PORT"),
        (&["drain", service, dest, "--then", "reset"], "--deadline"),
        (&["drain", service, dest, "--deadline", "5"], "a number with its unit"),
        (&["drain", service], "DESTINATION"),
    ] {
        let said = told(words)?;
        ensure!(said.contains(why), "{words:?}: {said}");
    }
    let output = bed.ipvs(&["drain"])?;
    ensure!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    Ok(())
}
