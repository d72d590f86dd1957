//! Connections.

use std::net::SocketAddr;

use ipvs_health::check::Failure;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use crate::faults::{ANY, refused};
use crate::{made, within};

const TCP: &str = "type = \"tcp\"\ntimeout = \"300ms\"";

#[test]
fn who_listens_passes_and_who_does_not_refuses() {
    within(async {
        let listener = TcpListener::bind(ANY).await.unwrap();
        assert_eq!(made(TCP, listener.local_addr().unwrap()).await, Ok(()));
        let failure = made(TCP, refused().await).await.unwrap_err();
        assert_eq!(failure, Failure::Refused("nobody listens".into()));
    });
}

#[test]
fn who_has_no_room_for_connections_is_silent() {
    within(async {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(ANY).into()).unwrap();
        socket.listen(0).unwrap();
        let at = socket.local_addr().unwrap().as_socket().unwrap();
        // Nobody accepts the first one, and the next is not answered.
        let _first = tokio::net::TcpStream::connect(at).await.unwrap();
        assert_eq!(made(TCP, at).await, Err(Failure::Timeout(300)));
    });
}

#[test]
fn a_source_that_is_not_ours_is_told() {
    within(async {
        let listener = TcpListener::bind(ANY).await.unwrap();
        let at = listener.local_addr().unwrap();
        assert_eq!(made("type = \"tcp\"\nsource = \"127.0.0.9\"", at).await, Ok(()));
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from.ip().to_string(), "127.0.0.9");
        let failure = made("type = \"tcp\"\nsource = \"192.0.2.9\"", at).await.unwrap_err();
        let said = failure.to_string();
        assert!(said.starts_with("cannot be checked: from 192.0.2.9: "), "{said}");
    });
}
