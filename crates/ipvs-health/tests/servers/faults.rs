//! What stands in front of a real server and spoils its answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// How answers are spoilt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Connections are accepted, and nothing is ever said.
    Silent,
    /// An octet now and then.
    Slow,
    /// So many octets, and then the end.
    Cut(usize),
}

/// Any port of loopback.
pub(crate) const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Where nobody listens: the port was somebody's a moment ago.
pub(crate) async fn refused() -> SocketAddr {
    TcpListener::bind(ANY).await.unwrap().local_addr().unwrap()
}

/// Stands in front of `server`; ends with the runtime.
pub(crate) async fn in_front_of(server: SocketAddr, fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move { drop(spoil(client, server, fault).await) });
        }
    });
    at
}

async fn spoil(client: TcpStream, server: SocketAddr, fault: Fault) -> std::io::Result<()> {
    if matches!(fault, Fault::Silent) {
        std::future::pending::<()>().await;
    }
    let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let requests = tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
    let mut left = if let Fault::Cut(octets) = fault { octets } else { usize::MAX };
    let mut octet = [0];
    while left > 0 && from_server.read(&mut octet).await? == 1 {
        if matches!(fault, Fault::Slow) {
            // It is the time that passes which is the fault.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        to_client.write_all(&octet).await?;
        left -= 1;
    }
    to_client.shutdown().await?;
    drop(to_client);
    requests.abort();
    Ok(())
}

/// The same for datagrams: an answer is late, or cut.
pub(crate) async fn datagrams_in_front_of(server: SocketAddr, fault: Fault) -> SocketAddr {
    let front = UdpSocket::bind(ANY).await.unwrap();
    let at = front.local_addr().unwrap();
    tokio::spawn(async move {
        let behind = UdpSocket::bind(ANY).await.unwrap();
        let mut octets = [0; 2000];
        while let Ok((len, client)) = front.recv_from(&mut octets).await {
            behind.send_to(&octets[..len], server).await.unwrap();
            let len = behind.recv(&mut octets).await.unwrap();
            match fault {
                Fault::Silent => {}
                Fault::Slow => tokio::time::sleep(Duration::from_secs(2)).await,
                Fault::Cut(left) => {
                    front.send_to(&octets[..len.min(left)], client).await.unwrap();
                }
            }
        }
    });
    at
}
