//! Connections that checks are made by.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipvs_config::check::Check;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::Failure;

/// Connects from where, and with the mark, that the check says.
pub(super) async fn tcp(check: &Check, at: SocketAddr) -> Result<TcpStream, Failure> {
    let unmade = |error: io::Error| Failure::Unmade(error.to_string());
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(unmade)?;
    prepare(&socket, check)?;
    if let Some(source) = check.source {
        let bound = socket.bind(SocketAddr::new(source, 0));
        bound.map_err(|error| Failure::Unmade(format!("from {source}: {error}")))?;
    }
    socket.connect(at).await.map_err(|error| Failure::of_io(&error))
}

/// A socket for datagrams to and from there only, so that it hears of who refuses them.
pub(super) async fn udp(check: &Check, at: SocketAddr) -> Result<UdpSocket, Failure> {
    let any: IpAddr =
        if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = check.source.unwrap_or(any);
    let socket = UdpSocket::bind(SocketAddr::new(source, 0)).await;
    let socket = socket.map_err(|error| Failure::Unmade(format!("from {source}: {error}")))?;
    prepare(&socket, check)?;
    socket.connect(at).await.map_err(|error| Failure::of_io(&error))?;
    Ok(socket)
}

/// Gives a socket the check's mark.
fn prepare<'s>(socket: impl Into<SockRef<'s>>, check: &Check) -> Result<(), Failure> {
    if check.mark == 0 {
        return Ok(());
    }
    let marked = socket.into().set_mark(check.mark);
    marked.map_err(|error| Failure::Unmade(format!("mark {}: {error}", check.mark)))
}
