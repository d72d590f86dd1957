//! A greeting to a mail server, and a goodbye.

use std::net::SocketAddr;

use ipvs_config::check::{Check, Smtp};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::{Failure, connect};

/// Octets of all that a server says: replies of many lines are common, long ones are not.
const LONGEST: u64 = 16 * 1024;

pub(super) async fn check(check: &Check, smtp: &Smtp, at: SocketAddr) -> Result<(), Failure> {
    let stream = connect::tcp(check, at).await?;
    let mut server = Server(BufReader::new(stream));
    server.expect("the greeting", "220").await?;
    server.say(&format!("HELO {}\r\n", smtp.helo)).await?;
    server.expect("HELO", "250").await?;
    server.say("QUIT\r\n").await?;
    server.expect("QUIT", "221").await
}

struct Server(BufReader<TcpStream>);

impl Server {
    async fn say(&mut self, line: &str) -> Result<(), Failure> {
        self.0.write_all(line.as_bytes()).await.map_err(|error| Failure::of_io(&error))
    }

    /// Reads a reply, which may have several lines, all of this code.
    async fn expect(&mut self, to: &str, code: &str) -> Result<(), Failure> {
        let mut left = LONGEST;
        loop {
            let mut line = Vec::new();
            let read = (&mut self.0).take(left).read_until(b'\n', &mut line).await;
            left = left.saturating_sub(read.map_err(|error| Failure::of_io(&error))? as u64);
            let text = String::from_utf8_lossy(&line);
            if left == 0 {
                return Err(Failure::Wrong(format!("the reply to {to} has no end")));
            }
            if !text.ends_with('\n') {
                return Err(Failure::Broken(format!("in the reply to {to}")));
            }
            match text.strip_prefix(code) {
                Some(rest) if rest.starts_with('-') => {}
                Some(rest) if rest.starts_with([' ', '\r', '\n']) => return Ok(()),
                _ => return Err(Failure::Wrong(format!("to {to}: {}", text.trim_end()))),
            }
        }
    }
}
