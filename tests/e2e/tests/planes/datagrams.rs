//! Datagrams too long for a packet: a socket sends them in fragments, and gets
//! the answer in such.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::{Bed, METHODS, Method, Plane, vip};
use ipvs_lab::{RequestError, UdpClient};
use nix::errno::Errno;

const PORT: u16 = 5353;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Octets of the datagrams: one packet, a few and many.
const LENGTHS: [usize; 4] = [1000, 3000, 8000, 60_000];

pub(crate) fn fragments(plane: Plane) -> Result<()> {
    // No longer than the client's: a router would tell the virtual address of a reply that is.
    let bed = Bed::with_server_mtu(plane, 2, 1500)?;
    let _servers = bed.serve(PORT)?;
    bed.make_services("-u", PORT, "rr", |_| PORT)?;
    for method in METHODS {
        for v4 in [true, false] {
            let at = SocketAddr::new(vip(method, v4), PORT);
            let mut met = Vec::new();
            let mut sent = 0;
            // Fragments as long as the link do not fit into a tunnel over IPv6: the client is
            // told once, and cuts shorter from then on.
            let mut untold = method == Method::Tunnel && !v4;
            for _ in 0..2 {
                let client = bed.lab.client().run(|| UdpClient::connect(at))??;
                for len in LENGTHS {
                    let payload: Vec<u8> = (0..=250).cycle().take(len).collect();
                    sent += 1;
                    let mut answer = client.exchange(&payload, TIMEOUT);
                    if untold && answer.as_ref().is_err_and(is_too_long) {
                        untold = false;
                        sent += 1;
                        answer = client.exchange(&payload, TIMEOUT);
                    }
                    let answer = answer.with_context(|| {
                        format!("{method:?} {at} {len} octets; the director: {:?}", bed.status())
                    })?;
                    met.push(answer.server);
                }
            }
            ensure!(!untold, "{method:?} {at}: nobody told the client of the tunnel's MTU");
            met.dedup();
            ensure!(met.len() == 2, "{method:?} {at}: not one server for each client: {met:?}");
            bed.await_statistics()?;
            let listed = bed.ipvsadm(&format!("-L -n --stats --exact -u {at}"))?;
            // A datagram counts as one packet, whatever it came in.
            let packets = listed.lines().find_map(|line| {
                line.strip_prefix("UDP")?.split_whitespace().nth(2)?.parse::<usize>().ok()
            });
            ensure!(packets == Some(sent), "{method:?} {at}: {listed}");
        }
    }
    Ok(())
}

/// Whether the client's own host refused a datagram for its length.
fn is_too_long(error: &RequestError) -> bool {
    matches!(error, RequestError::Broken(source) if source.raw_os_error() == Some(Errno::EMSGSIZE as i32))
}
