//! Clients for load and tests: HTTP over TCP, and UDP request and answer.

use std::{
    io::{self, IoSlice, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::Seen;

/// Why a request got no answer, or a wrong one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No TCP connection came about.
    #[error("cannot connect to {to}: {source}")]
    Connect {
        /// The address asked for.
        to: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The answer, or the rest of it, did not come in time.
    #[error("no whole answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("connection broke: {0}")]
    Broken(#[source] io::Error),
    /// Something came that is no answer to the request.
    #[error("bad answer: {0}")]
    BadAnswer(&'static str),
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Broken(error),
        }
    }
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The value of `X-Real-Server`: who answered; empty if the header is missing.
    pub server: String,
    /// The value of `X-Seen`, if it is there.
    pub seen: Option<Seen>,
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// From before the TCP connection was asked for (or, on a kept connection, before the
    /// request was sent) until the last octet of the body was there.
    pub latency: Duration,
    /// The client's address and port.
    pub local: SocketAddr,
}

/// An HTTP/1.1 client that opens a new TCP connection for each request, with a source port of
/// the kernel's choice; or, with [`keep_alive`](Self::keep_alive), keeps one.
///
/// It works in the network namespace of the thread that uses it:
///
/// ```no_run
/// # let client = ipvs_lab::Namespace::new("client")?;
/// use std::time::Duration;
/// let vip = "192.0.2.100:80".parse()?;
/// let answer = client.run(|| ipvs_lab::HttpClient::new().get(vip, Duration::from_secs(1)))??;
/// assert_eq!(answer.status, 200);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct HttpClient {
    source: Option<IpAddr>,
    keeps: bool,
    kept: Option<(SocketAddr, TcpStream)>,
}

impl HttpClient {
    /// A client with a new connection per request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the connection for the next request.
    #[must_use]
    pub fn keep_alive(self) -> Self {
        Self { keeps: true, ..self }
    }

    /// Connects from this address of the client.
    #[must_use]
    pub fn source(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Closes the kept connection, if any.
    pub fn close(&mut self) {
        self.kept = None;
    }

    /// `GET /`.
    pub fn get(&mut self, to: SocketAddr, timeout: Duration) -> Result<Response, RequestError> {
        self.request("GET", "/", &[], to, timeout)
    }

    /// `GET` of a path.
    pub fn get_path(
        &mut self,
        path: &str,
        to: SocketAddr,
        timeout: Duration,
    ) -> Result<Response, RequestError> {
        self.request("GET", path, &[], to, timeout)
    }

    /// `POST` of a body.
    pub fn post(
        &mut self,
        path: &str,
        body: &[u8],
        to: SocketAddr,
        timeout: Duration,
    ) -> Result<Response, RequestError> {
        self.request("POST", path, body, to, timeout)
    }

    fn request(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
        to: SocketAddr,
        timeout: Duration,
    ) -> Result<Response, RequestError> {
        let start = Instant::now();
        let deadline = start + timeout;
        let kept = self.kept.take().filter(|(peer, _)| *peer == to);
        let mut stream = match kept {
            Some((_, stream)) => stream,
            None => connect(self.source, to, timeout)?,
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {to}\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n",
            body.len(),
            if self.keeps { "keep-alive" } else { "close" },
        );
        stream.set_write_timeout(Some(left_until(deadline)?))?;
        write_both(&mut stream, head.as_bytes(), body)?;
        let answer = read_answer(&mut stream, deadline)?;
        let local = stream.local_addr()?;
        let latency = start.elapsed();
        if self.keeps && answer.keep_alive {
            self.kept = Some((to, stream));
        }
        let Answer { server, seen, status, body, .. } = answer;
        Ok(Response { server, seen, status, body, latency, local })
    }
}

fn connect(
    source: Option<IpAddr>,
    to: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream, RequestError> {
    let connected = || -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.set_tcp_nodelay(true)?;
        socket.connect_timeout(&to.into(), timeout)?;
        Ok(socket.into())
    };
    connected().map_err(|source| RequestError::Connect { to, source })
}

/// Writes head and body, as one segment if they fit.
fn write_both(stream: &mut TcpStream, head: &[u8], body: &[u8]) -> io::Result<()> {
    let sent = stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)])?;
    stream.write_all(head.get(sent..).unwrap_or_default())?;
    stream.write_all(body.get(sent.saturating_sub(head.len())..).unwrap_or_default())
}

fn left_until(deadline: Instant) -> Result<Duration, RequestError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(RequestError::TimedOut) } else { Ok(left) }
}

struct Answer {
    server: String,
    seen: Option<Seen>,
    status: u16,
    body: Vec<u8>,
    keep_alive: bool,
}

fn read_answer(stream: &mut TcpStream, deadline: Instant) -> Result<Answer, RequestError> {
    let mut bytes = Vec::with_capacity(4096);
    let mut piece = vec![0; 64 * 1024];
    let mut more = |bytes: &mut Vec<u8>| -> Result<(), RequestError> {
        stream.set_read_timeout(Some(left_until(deadline)?))?;
        match stream.read(&mut piece)? {
            0 => Err(RequestError::BadAnswer("it ended too early")),
            length => {
                bytes.extend_from_slice(piece.get(..length).unwrap_or_default());
                Ok(())
            }
        }
    };
    let (mut answer, head_length, body_length) = loop {
        match parse_answer(&bytes)? {
            Some(parsed) => break parsed,
            None => more(&mut bytes)?,
        }
    };
    let whole = head_length.saturating_add(body_length);
    while bytes.len() < whole {
        more(&mut bytes)?;
    }
    if bytes.len() > whole {
        return Err(RequestError::BadAnswer("it is longer than it says"));
    }
    answer.body = bytes.split_off(head_length);
    Ok(answer)
}

/// Parses an answer's head; returns it with the lengths of head and body, or nothing if more
/// is to come.
fn parse_answer(bytes: &[u8]) -> Result<Option<(Answer, usize, usize)>, RequestError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut headers);
    let head_length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(RequestError::BadAnswer("it is no HTTP")),
    };
    let header = |name: &str| {
        parsed
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .and_then(|header| str::from_utf8(header.value).ok())
            .map(str::trim)
    };
    let body_length = header("Content-Length")
        .and_then(|text| text.parse().ok())
        .ok_or(RequestError::BadAnswer("it does not say its length"))?;
    let answer = Answer {
        server: header("X-Real-Server").unwrap_or_default().to_owned(),
        seen: header("X-Seen").and_then(|text| text.parse().ok()),
        status: parsed.code.unwrap_or_default(),
        body: Vec::new(),
        keep_alive: header("Connection").is_none_or(|text| !text.eq_ignore_ascii_case("close")),
    };
    Ok(Some((answer, head_length, body_length)))
}

/// An answer of a [`UdpEcho`](crate::UdpEcho).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpAnswer {
    /// Who answered.
    pub server: String,
    /// Which addresses it saw.
    pub seen: Seen,
    /// From before the datagram was sent until the answer was there.
    pub latency: Duration,
    /// The client's address and port.
    pub local: SocketAddr,
}

/// A UDP client that keeps its port.
///
/// The socket stays in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct UdpClient(UdpSocket);

impl UdpClient {
    /// Opens a socket that talks only to `to`, with a source port of the kernel's choice.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self::connect_from(SocketAddr::new(any, 0), to)
    }

    /// Opens a socket with this address and port that talks only to `to`.
    pub fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        Ok(Self(socket))
    }

    /// Sends a datagram and waits for the answer that belongs to it; late answers to earlier
    /// datagrams are passed over.
    pub fn exchange(&self, payload: &[u8], timeout: Duration) -> Result<UdpAnswer, RequestError> {
        let start = Instant::now();
        let deadline = start + timeout;
        let mut answer = vec![0; 65_536];
        self.0.send(payload)?;
        loop {
            self.0.set_read_timeout(Some(left_until(deadline)?))?;
            let length = self.0.recv(&mut answer)?;
            let answer = answer.get(..length).unwrap_or_default();
            if let Some((server, seen)) = answering_server(answer, payload) {
                let local = self.0.local_addr()?;
                return Ok(UdpAnswer { server, seen, latency: start.elapsed(), local });
            }
        }
    }
}

/// Returns the name and the addresses before the last blank if what follows is the payload.
fn answering_server(answer: &[u8], payload: &[u8]) -> Option<(String, Seen)> {
    let head = answer.strip_suffix(payload)?.strip_suffix(b" ")?;
    let (name, seen) = str::from_utf8(head).ok()?.split_once(' ')?;
    Some((name.to_owned(), seen.parse().ok()?))
}

/// Sends one datagram from a new port and waits for the answer.
pub fn udp_exchange(
    to: SocketAddr,
    payload: &[u8],
    timeout: Duration,
) -> Result<UdpAnswer, RequestError> {
    UdpClient::connect(to)?.exchange(payload, timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_its_server() {
        let text = b"HTTP/1.1 200 OK\r\nx-real-server: rs2\r\nContent-Length: 3\r\n\r\nrs2";
        let (answer, head, body) = parse_answer(text).unwrap().unwrap();
        assert_eq!((answer.server.as_str(), answer.status, head + body), ("rs2", 200, text.len()));
        assert!(answer.keep_alive);
    }

    #[test]
    fn an_answer_without_a_length_is_bad() {
        assert!(parse_answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn a_late_answer_to_another_datagram_does_not_count() {
        let answer = |payload| format!("rs1 192.0.2.2:5000 10.1.0.11:80 {payload}").into_bytes();
        let seen = "192.0.2.2:5000 10.1.0.11:80".parse().unwrap();
        assert_eq!(answering_server(&answer("ping 7"), b"ping 7"), Some(("rs1".to_owned(), seen)));
        assert_eq!(answering_server(&answer("ping 6"), b"ping 7"), None);
        assert_eq!(answering_server(&answer("ping 77"), b"7"), None);
    }
}
