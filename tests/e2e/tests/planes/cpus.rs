//! Two CPUs that schedule for one service at once: every pick is somebody's
//! turn, and nothing is counted twice or not at all.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::frames::{Port, ethernet, tcp};
use ipvs_e2e::{Bed, Plane};
use ipvs_lab::VIP4;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

const IPV4: u16 = 0x0800;
const SYN: u8 = 2;
/// A scheduler, its service's port, and the weights of its destinations.
const SERVICES: [(&str, u16, [u32; 3]); 2] = [("rr", 80, [1, 1, 1]), ("wrr", 81, [3, 2, 1])];
/// Connections that one CPU opens with one service; both together are a
/// multiple of every sum of weights.
const CONNECTIONS: u16 = 9_000;
const FIRST_PORT: u16 = 1_024;
/// Connections that one CPU opens without a look whether the daemon follows.
const BATCH: u16 = 128;
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn fairness(plane: Plane) -> Result<()> {
    let cpus = cpus()?;
    let bed = Bed::new(plane, 3)?;
    for (scheduler, port, weights) in SERVICES {
        bed.ipvsadm(&format!("-A -t {VIP4}:{port} -s {scheduler}"))?;
        for (host, weight) in bed.lab.servers().iter().zip(weights) {
            let real = host.address(VIP4.into());
            bed.ipvsadm(&format!("-a -t {VIP4}:{port} -r {real} -m -w {weight}"))?;
        }
    }
    let (from, to) = (bed.lab.client_link(), bed.lab.director_client_side());
    let header = ethernet(from, to, IPV4)?;
    // What is sent on a `veth` is handled by the CPU that sends; in user space by the daemon,
    // which takes turns.
    let sent: Result<()> = thread::scope(|scope| {
        let senders: Vec<_> = (66u8..)
            .zip(cpus)
            .map(|(host, cpu)| {
                let (bed, header) = (&bed, &header);
                scope.spawn(move || hammer(bed, header, host, cpu))
            })
            .collect();
        senders.into_iter().try_for_each(|sender| {
            sender.join().map_err(|_panic| anyhow::anyhow!("a sender panicked"))?
        })
    });
    sent?;
    for (scheduler, port, weights) in SERVICES {
        let all = 2 * u64::from(CONNECTIONS);
        let [connections, packets] = counted(&bed, port, all)?;
        let turns = all / u64::from(weights.iter().sum::<u32>());
        let wanted: Vec<u64> = weights.iter().map(|weight| turns * u64::from(*weight)).collect();
        ensure!(connections == wanted, "{scheduler}: {connections:?}, and not {wanted:?}");
        ensure!(packets == wanted, "{scheduler}: {packets:?} packets for {wanted:?}");
    }
    Ok(())
}

/// Two CPUs that we may use.
fn cpus() -> Result<[CpuSet; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut usable = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut next = || -> Result<CpuSet> {
        let mut only = CpuSet::new();
        only.set(usable.next().context("this test needs two CPUs")?)?;
        Ok(only)
    };
    Ok([next()?, next()?])
}

/// Opens connections with all services in turn, from one CPU and one address.
fn hammer(bed: &Bed, header: &[u8], host: u8, cpu: CpuSet) -> Result<()> {
    let port = Port::open(bed.lab.switch(), "c-director")?;
    let mut control = bed.client()?;
    sched_setaffinity(Pid::from_raw(0), &cpu)?;
    let client = Ipv4Addr::new(192, 0, 2, host);
    for source in FIRST_PORT..FIRST_PORT + CONNECTIONS {
        if bed.plane == Plane::User && source.is_multiple_of(BATCH) {
            // It answers once it has taken what came before, for which there is some room only.
            control.status()?;
        }
        for (_, service, _) in SERVICES {
            let syn = tcp((client, source), (VIP4, service), SYN);
            let frame = [header, &syn.octets()].concat();
            // An interface with XDP takes no more than it has handled.
            while let Err(error) = port.send(&frame) {
                ensure!(error.downcast_ref() == Some(&Errno::ENOBUFS), "{error:#}");
                thread::yield_now();
            }
        }
    }
    Ok(())
}

/// Connections and packets of each destination of the service at `port`, by
/// address, once the service has counted `all` packets.
fn counted(bed: &Bed, port: u16, all: u64) -> Result<[Vec<u64>; 2]> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listing = bed.ipvsadm(&format!("-Ln -t {VIP4}:{port} --stats --exact"))?;
        let column = |at: usize| -> Vec<u64> {
            // Listed by address, and so as they were added.
            let rows = listing.lines().filter(|line| line.starts_with("  -> "));
            rows.filter_map(|line| line.split_whitespace().nth(at)?.parse().ok()).collect()
        };
        let counts = [column(2), column(3)];
        if counts[1].iter().sum::<u64>() >= all || Instant::now() >= deadline {
            ensure!(counts[0].len() == bed.lab.servers().len(), "cannot read {listing}");
            return Ok(counts);
        }
        thread::sleep(Duration::from_millis(20));
    }
}
