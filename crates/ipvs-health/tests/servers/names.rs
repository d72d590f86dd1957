//! DNS, by dnsmasq, and datagrams.

use std::process::Command;

use ipvs_health::check::Failure;
use tokio::net::UdpSocket;

use crate::faults::{ANY, Fault, datagrams_in_front_of};
use crate::programs::{Server, find, free_port, start};
use crate::{made, within};

fn server() -> Option<Server> {
    let program = find("dnsmasq")?;
    let port = free_port();
    let mut command = Command::new(program);
    // Nothing of this machine's.
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv"]);
    command.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file="]);
    command.arg(format!("--port={port}"));
    command.args(["--address=/there.example/10.1.2.3", "--txt-record=there.example,all is well"]);
    command.args(["--local=/example/", "--user=root"]);
    Some(start(command, port, tempfile::tempdir().unwrap()))
}

fn dns(more: &str) -> String {
    format!("type = \"dns\"\nname = \"there.example\"\nrecord = \"A\"\n{more}")
}

#[test]
fn an_answer_is_right_or_not() {
    let Some(server) = server() else { return };
    within(async {
        let wrong = |why: &str| Err(Failure::Wrong(why.into()));
        for (keys, expect) in [
            (dns(""), Ok(())),
            (dns("answer = \"10.1.2.3\""), Ok(())),
            (dns("answer = \"10.1.2.4\""), wrong("10.1.2.3, not 10.1.2.4")),
            (dns("rcode = \"NXDOMAIN\""), wrong("NOERROR")),
            (
                "type = \"dns\"\nname = \"there.example\"\nrecord = \"TXT\"\nanswer = \"all is well\""
                    .to_owned(),
                Ok(()),
            ),
            ("type = \"dns\"\nname = \"not.example\"".to_owned(), wrong("NXDOMAIN")),
            ("type = \"dns\"\nname = \"elsewhere.test\"".to_owned(), wrong("REFUSED")),
            ("type = \"dns\"\nname = \"elsewhere.test\"\nrcode = \"REFUSED\"".to_owned(), Ok(())),
        ] {
            assert_eq!(made(&keys, server.at).await, expect, "{keys}");
        }
    });
}

#[test]
fn dns_fails_in_all_ways() {
    let Some(server) = server() else { return };
    within(async {
        let nobody = UdpSocket::bind(ANY).await.unwrap().local_addr().unwrap();
        assert_eq!(made(&dns(""), nobody).await.unwrap_err().label(), "refused");
        let hasty = dns("timeout = \"300ms\"");
        for fault in [Fault::Silent, Fault::Slow] {
            let at = datagrams_in_front_of(server.at, fault).await;
            assert_eq!(made(&hasty, at).await, Err(Failure::Timeout(300)), "{fault:?}");
        }
        // Within the header, and within the answer.
        for octets in [5, 40] {
            let at = datagrams_in_front_of(server.at, Fault::Cut(octets)).await;
            let failure = made(&dns(""), at).await.unwrap_err();
            assert_eq!(failure.label(), "wrong", "{octets}: {failure}");
        }
    });
}

/// A server that answers every datagram so.
async fn answers(with: &'static [u8]) -> std::net::SocketAddr {
    let socket = UdpSocket::bind(ANY).await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut octets = [0; 2000];
        while let Ok((len, from)) = socket.recv_from(&mut octets).await {
            let answer = [with, &octets[..len]].concat();
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    at
}

#[test]
fn datagrams_are_answered_or_not() {
    within(async {
        let at = answers(b"pong ").await;
        let udp = |more: &str| format!("type = \"udp\"\npayload = \"ping\"\n{more}");
        for (keys, expect) in [
            (udp(""), Ok(())),
            (udp("reply = \"^pong ping$\""), Ok(())),
            (udp("reply_hex = \"70 6F 6e 6x 20\""), Ok(())),
            ("type = \"udp\"\npayload_hex = \"7069\"\nreply = \"pi$\"".to_owned(), Ok(())),
            (udp("reply = \"^ping\""), Err(Failure::Wrong("\"pong ping\"".into()))),
            (udp("reply_hex = \"71\""), Err(Failure::Wrong("\"pong ping\"".into()))),
        ] {
            assert_eq!(made(&keys, at).await, expect, "{keys}");
        }
        // Half of it.
        let half = datagrams_in_front_of(at, Fault::Cut(4)).await;
        let keys = udp("reply = \"^pong ping$\"");
        assert_eq!(made(&keys, half).await, Err(Failure::Wrong("\"pong\"".into())));
        let keys = udp("reply_hex = \"706f6e6720\"");
        assert_eq!(made(&keys, half).await, Err(Failure::Wrong("\"pong\"".into())));
        let nobody = UdpSocket::bind(ANY).await.unwrap().local_addr().unwrap();
        for keys in [udp(""), udp("require_reply = false")] {
            assert_eq!(made(&keys, nobody).await.unwrap_err().label(), "refused", "{keys}");
        }
        for fault in [Fault::Silent, Fault::Slow] {
            let silent = datagrams_in_front_of(at, fault).await;
            let keys = udp("timeout = \"300ms\"");
            assert_eq!(made(&keys, silent).await, Err(Failure::Timeout(300)));
        }
        let silent = datagrams_in_front_of(at, Fault::Silent).await;
        let keys = udp("require_reply = false\ntimeout = \"300ms\"");
        assert_eq!(made(&keys, silent).await, Ok(()), "nobody has refused it");
    });
}
