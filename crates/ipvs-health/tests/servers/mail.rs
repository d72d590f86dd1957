//! SMTP, by aiosmtpd.

use std::process::Command;

use ipvs_health::check::Failure;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::faults::{Fault, in_front_of, refused};
use crate::programs::{Server, free_port, is_there, start};
use crate::{made, within};

const SMTP: &str = "type = \"smtp\"\nhelo = \"director.example\"";
/// Debian's, whichever other there is.
const PYTHON: &str = "/usr/bin/python3";
const AIOSMTPD: &str = "/usr/lib/python3/dist-packages/aiosmtpd/main.py";

fn server() -> Option<Server> {
    is_there(AIOSMTPD)?;
    let port = free_port();
    let mut command = Command::new(PYTHON);
    command.args(["-m", "aiosmtpd", "-n", "-l", &format!("127.0.0.1:{port}")]);
    Some(start(command, port, tempfile::tempdir().unwrap()))
}

#[test]
fn a_mail_server_greets() {
    let Some(server) = server() else { return };
    within(async { assert_eq!(made(SMTP, server.at).await, Ok(())) });
}

#[test]
fn smtp_fails_in_all_ways() {
    let Some(server) = server() else { return };
    within(async {
        assert_eq!(made(SMTP, refused().await).await.unwrap_err().label(), "refused");
        let hasty = format!("{SMTP}\ntimeout = \"300ms\"");
        for fault in [Fault::Silent, Fault::Slow] {
            let at = in_front_of(server.at, fault).await;
            assert_eq!(made(&hasty, at).await, Err(Failure::Timeout(300)), "{fault:?}");
        }
        // Within the greeting, and the reply to HELO.
        let mut greeting = String::new();
        let stream = tokio::net::TcpStream::connect(server.at).await.unwrap();
        BufReader::new(stream).read_line(&mut greeting).await.unwrap();
        for octets in [0, 10, greeting.len() + 5] {
            let at = in_front_of(server.at, Fault::Cut(octets)).await;
            let failure = made(SMTP, at).await.unwrap_err();
            assert_eq!(failure.label(), "broken", "{octets}: {failure}");
        }
        let at = says("554 no service here\r\n").await;
        let failure = Failure::Wrong("to the greeting: 554 no service here".into());
        assert_eq!(made(SMTP, at).await, Err(failure));
        let at = says("220-two\r\n220 lines\r\n502 what?\r\n").await;
        assert_eq!(made(SMTP, at).await, Err(Failure::Wrong("to HELO: 502 what?".into())));
    });
}

/// A server that says this, whatever it is asked.
async fn says(text: &'static str) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind(crate::faults::ANY).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut client, text.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    at
}
