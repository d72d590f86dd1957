//! SCTP by a real stack on both ends: an association is set up, carries messages both ways
//! and is shut down, by every method in either family.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ipvs_e2e::programs::{self, SCTP_NEEDS};
use ipvs_e2e::{Bed, METHODS, Method, Plane, vip};
use ipvs_lab::{ChildGuard, ServerHost};

pub(crate) const NEEDS: &[&str] = &SCTP_NEEDS;

const PORT: u16 = 7;
/// Another one at masqueraded servers: only then is the checksum to be made anew.
const MASQUERADED_PORT: u16 = 7007;
const SERVERS: usize = 2;
/// How long it may take until a packet that was sent is listed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets of the messages: one packet and many.
const LENGTHS: [usize; 3] = [5, 1000, 40_000];

pub(crate) fn associations(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, SERVERS)?;
    let program = programs::sctp(&bed)?;
    let mut servers = Vec::new();
    for method in METHODS {
        for v4 in [true, false] {
            for host in bed.lab.servers() {
                servers.push(serve(&program, host, method, vip(method, v4))?);
            }
        }
    }
    bed.make_services("--sctp-service", PORT, "rr", real_port)?;
    for method in METHODS {
        for v4 in [true, false] {
            let at = SocketAddr::new(vip(method, v4), PORT);
            let mut met = Vec::new();
            for number in 1..=SERVERS {
                let name = converse(&bed, &program, at, number)
                    .with_context(|| format!("{method:?} {at}: {:?}", bed.status()))?;
                met.push(name);
            }
            met.sort();
            ensure!(met == ["rs1", "rs2"], "{method:?} {at}: {met:?}");
        }
    }
    Ok(())
}

fn real_port(method: Method) -> u16 {
    if method == Method::Nat { MASQUERADED_PORT } else { PORT }
}

/// Starts a server at the address at which a real server has packets for `service` come.
fn serve(program: &Path, host: &ServerHost, method: Method, service: IpAddr) -> Result<ChildGuard> {
    let own = if method == Method::Nat { host.address(service) } else { service };
    let mut command = host.namespace().command(program)?;
    command.args(["serve", host.name(), &own.to_string(), &real_port(method).to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = host.namespace().spawn_child(command)?;
    let mut word = String::new();
    BufReader::new(server.child().stdout.take().context("no pipe")?).read_line(&mut word)?;
    ensure!(word == "ready\n", "no server at {own}: {word:?}");
    Ok(server)
}

/// The `number`th association with a service: returns who answered.
fn converse(bed: &Bed, program: &Path, at: SocketAddr, number: usize) -> Result<String> {
    let client = bed.lab.client();
    let from = bed.lab.client_address(at.ip());
    let mut command = client.command(program)?;
    command.args(["ask", &from.to_string(), &at.ip().to_string(), &at.port().to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = client.spawn_child(command)?;
    let mut questions = process.child().stdin.take().context("no pipe")?;
    let mut said = BufReader::new(process.child().stdout.take().context("no pipe")?).lines();
    let mut next = || said.next().context("it ended too early")?.context("it cannot be read");
    let first = next()?;
    ensure!(first == "up", "no association: {first}");
    await_states(bed, at, number, "ESTABLISHED", 1)?;
    let mut server = String::new();
    for len in LENGTHS {
        let question: String = ('a'..='z').cycle().take(len).collect();
        writeln!(questions, "{question}")?;
        let answer = next()?;
        let (name, message) = answer.split_once(' ').context("no name")?;
        ensure!(message == question, "{len} octets came back as {}", message.len());
        ensure!(server.is_empty() || server == name, "{name} answers instead of {server}");
        name.clone_into(&mut server);
    }
    drop(questions);
    let last = next()?;
    ensure!(last == "down", "not shut down: {last}");
    let status = process.child().wait()?;
    ensure!(status.success(), "{status}");
    await_states(bed, at, number, "CLOSED", number)?;
    Ok(server)
}

/// Waits until the service has `all` connections, `wanted` of them in `state`.
fn await_states(bed: &Bed, at: SocketAddr, all: usize, state: &str, wanted: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = bed.ipvsadm("-L -n -c")?;
        let at = format!(" {at} ");
        let states = listed.lines().filter(|line| line.starts_with("SCTP") && line.contains(&at));
        let states: Vec<_> = states.filter_map(|line| line.split_whitespace().nth(2)).collect();
        if states.len() == all && states.iter().filter(|it| **it == state).count() == wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not {wanted} of {all} are {state}: {listed}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}
