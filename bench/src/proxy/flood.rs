//! More datagrams than a program in user space can deal with: how many get through.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ipvs_bench_programs::headers::UDP;
use ipvs_bench_programs::records::Expectation;
use ipvs_core::addr::Family;

use super::peers::{self, Peer};
use crate::machine::{CpuTime, on_one_cpu, process_time};
use crate::mode::Mode;
use crate::packet::{Addresses, DEST_PORT, Order, Phase, TTL, Traffic, plan};
use crate::programs::Programs;
use crate::rig::{Entry, Rig, inside};

/// Clients' sockets, so to say.
const FLOWS: u32 = 64;
/// Less of what was sent must get through, or it was the generator that was slow.
const THROUGH: f64 = 0.98;

/// Datagrams that get through in a second of the director's CPU time, or why there is no figure.
pub(super) fn measure(peer: Peer, smoke: bool) -> Result<Result<f64, String>> {
    let folder = tempfile::Builder::new().prefix("ipvs-bench-").tempdir()?;
    let addresses = Addresses::of(Family::V4);
    let rig = Rig::new(addresses, Entry::Stack)?;
    let mut programs = Programs::load(Family::V4, CpuTime::default())?;
    inside(&rig.servers, || programs.attach_sink(&rig.server_link))?;
    inside(&rig.clients, || programs.attach_client(&rig.client_link))?;
    let names = [rig.outside.name(), rig.inside.name()];
    let director = peers::set_up(peer, &rig.director, &names, folder.path())?;
    // A proxy sends datagrams of its own, with a new time to live.
    let ttl = if peer == Peer::Nginx { TTL } else { TTL - 1 };
    let right = Mode::NftDnat.expectation(&addresses);
    programs.expect(&Expectation {
        protocol: u32::from(UDP),
        port: u32::from(DEST_PORT),
        ttl: u32::from(ttl),
        ..right
    })?;
    let traffic = Traffic {
        udp: true,
        ..Traffic::new(Family::V4, Phase::Established, FLOWS, Order::Sequence)
    };
    let plan = plan(&addresses, rig.macs()?, &traffic);
    let send = |programs: &mut Programs, packets: u32| {
        on_one_cpu(|| inside(&rig.clients, || programs.send(&rig.client_link, &plan, packets)))
    };
    // Until the first gets through: a program does not say when it is ready.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let before = programs.counts()?;
        send(&mut programs, FLOWS)?;
        thread::sleep(Duration::from_millis(50));
        let counts = programs.counts()?.since(before);
        if counts.right != 0 {
            break;
        }
        if Instant::now() > deadline {
            return Ok(Err(format!("no datagram gets through; {} are wrong", counts.wrong)));
        }
    }
    let process = director.process().context("a kernel has no process")?;
    let warm = send(&mut programs, 100_000)?;
    let pace = warm.wall.as_secs_f64() / 1e5;
    let seconds = if smoke { 0.2 } else { 1.0 };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some millions")]
    let packets = (seconds / pace) as u32;
    let (counts, spent) = (programs.counts()?, process_time(process)?);
    send(&mut programs, packets)?;
    // What still waits is dealt with, too.
    let mut last = programs.counts()?;
    loop {
        thread::sleep(Duration::from_millis(20));
        let now = programs.counts()?;
        if now == last {
            break;
        }
        last = now;
    }
    let (counts, spent) = (last.since(counts), process_time(process)?.saturating_sub(spent));
    if counts.wrong != 0 {
        return Ok(Err(format!("{} datagrams arrived wrong", counts.wrong)));
    }
    let through = f64::from(u32::try_from(counts.right)?);
    if !smoke && through > f64::from(packets) * THROUGH {
        return Ok(Err("all get through: the generator is too slow".to_owned()));
    }
    Ok(Ok(through / spent.as_secs_f64()))
}
