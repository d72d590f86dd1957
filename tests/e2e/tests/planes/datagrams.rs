//! Datagrams too long for a packet: a socket sends them in fragments, and gets
//! the answer in such.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::{Bed, METHODS, Method, Plane, vip};
use ipvs_lab::{RequestError, UdpAnswer, UdpClient};
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
            let (mut sent, mut told) = (0, 0);
            for _ in 0..2 {
                let client = bed.lab.client().run(|| UdpClient::connect(at))??;
                for len in LENGTHS {
                    let payload: Vec<u8> = (0..=250).cycle().take(len).collect();
                    let (answer, refused) = exchange(&client, &payload).with_context(|| {
                        format!("{method:?} {at} {len} octets; the director: {:?}", bed.status())
                    })?;
                    met.push(answer.server);
                    sent += 1 + refused;
                    told += refused;
                }
            }
            // Fragments as long as the link do not fit into a tunnel over IPv6: the client is
            // told once, and cuts shorter from then on.
            let due = usize::from(method == Method::Tunnel && !v4);
            ensure!(told == due, "{method:?} {at}: the client was told {told} times of an MTU");
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

/// Has a datagram answered, and says how often the client was told before, of a tunnel not
/// more than once, that its fragments are too long: it cuts shorter then.
pub(crate) fn exchange(client: &UdpClient, payload: &[u8]) -> Result<(UdpAnswer, usize)> {
    match client.exchange(payload, TIMEOUT) {
        Err(error) if is_too_long(&error) => Ok((client.exchange(payload, TIMEOUT)?, 1)),
        answer => Ok((answer?, 0)),
    }
}

/// Whether the client's own host refused a datagram for its length.
pub(crate) fn is_too_long(error: &RequestError) -> bool {
    matches!(error, RequestError::Broken(source) if source.raw_os_error() == Some(Errno::EMSGSIZE as i32))
}
