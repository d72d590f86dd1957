//! The web server of a real server: small, on plain threads, and countable.

use std::{
    collections::HashMap,
    io::{self, BufWriter, Read, Write},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Fnv1a, Namespace, Pattern, Seen,
    error::{Doing, Result},
};

/// A request line and headers longer than this are refused.
const MAX_HEAD: usize = 16 * 1024;

/// An HTTP/1.1 server on the wildcard address of a namespace, IPv4 and IPv6, with keep-alive.
///
/// Every answer carries `X-Real-Server: NAME` and `X-Seen: CLIENT AT`, see [`Seen`].
///
/// | request | answer |
/// |---|---|
/// | `GET /` | the name and a newline |
/// | `GET /bytes/N` | the first N bytes of [`Pattern`] |
/// | `POST` or `PUT /sink` | length and [`Fnv1a`] hash of the body that was sent: `5 a430d84680aabd0b` |
/// | `HEAD` of the above | the same without a body |
///
/// It stops when dropped.
#[derive(Debug)]
pub struct HttpServer {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    pattern: Pattern,
    stop: EventFd,
    requests: AtomicU64,
    accepted: AtomicU64,
    open: Mutex<HashMap<u64, TcpStream>>,
    one_closed: Condvar,
}

impl HttpServer {
    /// Starts a server that calls itself `name` on `port` of `namespace`.
    pub fn start(namespace: &Namespace, name: &str, port: u16) -> Result<Self> {
        let doing = || format!("serve HTTP on port {port} of {}", namespace.name());
        let listener = namespace.run(|| listen(port))?.doing(doing)?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            pattern: Pattern::default(),
            stop: EventFd::new().doing(doing)?,
            requests: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            open: Mutex::default(),
            one_closed: Condvar::new(),
        });
        let acceptor = thread::Builder::new()
            .name(format!("{name} http"))
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.accept_until_stopped(&listener)
            })
            .doing(doing)?;
        Ok(Self { shared, acceptor: Some(acceptor) })
    }

    /// How many requests were answered.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many TCP connections were accepted.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many TCP connections are open now.
    pub fn open_connections(&self) -> usize {
        self.shared.open().len()
    }

    /// Closes the listening socket and every connection, and waits until all threads ended.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        // Fails only if the counter is full, and then the acceptor has been told already.
        let _ = self.shared.stop.write(1);
        if let Some(acceptor) = self.acceptor.take() {
            // A panic there was reported by its own thread.
            let _ = acceptor.join();
        }
        let mut open = self.shared.open();
        for connection in open.values() {
            // An error means that the peer closed it first.
            let _ = connection.shutdown(Shutdown::Both);
        }
        while !open.is_empty() {
            open = self.shared.one_closed.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        // A map of sockets is whole after every operation.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept_until_stopped(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let mut ready = [
                PollFd::new(listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
            ];
            if poll(&mut ready, PollTimeout::NONE).is_err() {
                continue; // interrupted by a signal
            }
            if ready[1].any() == Some(true) {
                return;
            }
            // An error other than "no more" concerns the connection that was to be accepted.
            while let Ok((stream, _)) = listener.accept() {
                let number = self.accepted.fetch_add(1, Ordering::Relaxed);
                self.start_connection(number, stream);
            }
        }
    }

    /// Serves a connection on a thread of its own. If there is no descriptor or thread left,
    /// the connection is closed, as a busy server would.
    fn start_connection(self: &Arc<Self>, number: u64, stream: TcpStream) {
        let Ok(copy) = stream.try_clone() else { return };
        self.open().insert(number, copy);
        let shared = Arc::clone(self);
        let started = thread::Builder::new().name(format!("{} conn", self.name)).spawn(move || {
            // An error is the client's: it went away or spoke no HTTP.
            let _ = shared.serve(&stream);
            drop(stream);
            shared.open().remove(&number);
            shared.one_closed.notify_all();
        });
        if started.is_err() {
            self.open().remove(&number);
        }
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        let mut connection = Connection { stream, buffer: Vec::with_capacity(4096) };
        loop {
            let request = match connection.read_head()? {
                Head::Complete(request) => request,
                Head::Closed => return Ok(()),
                Head::Bad => {
                    return self.answer(stream, &Answer::error("400 Bad Request"), false, true);
                }
            };
            let keep_alive = request.keep_alive;
            let head_only = request.method == "HEAD";
            let answer = self.handle(&request, &mut connection)?;
            let keep_alive = keep_alive && answer.keeps_connection;
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.answer(stream, &answer, head_only, !keep_alive)?;
            if !keep_alive {
                return Ok(());
            }
        }
    }

    fn handle(&self, request: &Request, connection: &mut Connection<'_>) -> io::Result<Answer> {
        let (method, path) = (request.method.as_str(), request.path.as_str());
        Ok(match (method, path) {
            ("POST" | "PUT", "/sink") => {
                let Some(length) = request.content_length else {
                    return Ok(Answer::error("411 Length Required"));
                };
                if request.expects_continue {
                    connection.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                let mut hash = Fnv1a::default();
                connection.read_body(length, |piece| hash.write(piece))?;
                Answer::text(format!("{length} {hash}\n"))
            }
            ("GET" | "HEAD", "/") => Answer::text(format!("{}\n", self.name)),
            ("GET" | "HEAD", path) => match path.strip_prefix("/bytes/").map(str::parse) {
                Some(Ok(length)) => {
                    Answer { body: Body::Pattern(length), ..Answer::text(String::new()) }
                }
                _ => Answer::error("404 Not Found"),
            },
            _ => Answer::error("405 Method Not Allowed"),
        })
    }

    fn answer(
        &self,
        stream: &TcpStream,
        answer: &Answer,
        head_only: bool,
        close: bool,
    ) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(64 * 1024, stream);
        let length = match &answer.body {
            Body::Text(text) => text.len() as u64,
            Body::Pattern(length) => *length,
        };
        write!(
            out,
            "HTTP/1.1 {}\r\nX-Real-Server: {}\r\nX-Seen: {}\r\nContent-Length: {length}\r\n\
             Connection: {}\r\n\r\n",
            answer.status,
            self.name,
            Seen::new(stream.peer_addr()?, stream.local_addr()?),
            if close { "close" } else { "keep-alive" },
        )?;
        match &answer.body {
            _ if head_only => {}
            Body::Text(text) => out.write_all(text.as_bytes())?,
            Body::Pattern(length) => {
                let mut offset = 0;
                while offset < *length {
                    let piece = self.pattern.slice(offset, length - offset);
                    out.write_all(piece)?;
                    offset += piece.len() as u64;
                }
            }
        }
        out.flush()
    }
}

struct Answer {
    status: &'static str,
    body: Body,
    keeps_connection: bool,
}

enum Body {
    Text(String),
    Pattern(u64),
}

impl Answer {
    fn text(text: String) -> Self {
        Self { status: "200 OK", body: Body::Text(text), keeps_connection: true }
    }

    /// Closes the connection: a body that was not read would be taken for the next request.
    fn error(status: &'static str) -> Self {
        Self { status, body: Body::Text(format!("{status}\n")), keeps_connection: false }
    }
}

struct Request {
    method: String,
    path: String,
    content_length: Option<u64>,
    keep_alive: bool,
    expects_continue: bool,
}

enum Head {
    Complete(Request),
    Closed,
    Bad,
}

/// One TCP connection with the bytes that were read too far.
struct Connection<'a> {
    stream: &'a TcpStream,
    buffer: Vec<u8>,
}

impl Connection<'_> {
    fn read_head(&mut self) -> io::Result<Head> {
        let mut piece = [0; 4096];
        loop {
            match parse_head(&self.buffer) {
                Ok(Some((request, length))) => {
                    self.buffer.drain(..length);
                    return Ok(Head::Complete(request));
                }
                Ok(None) if self.buffer.len() > MAX_HEAD => return Ok(Head::Bad),
                Ok(None) => {}
                Err(_) => return Ok(Head::Bad),
            }
            let length = self.stream.read(&mut piece)?;
            if length == 0 {
                return Ok(Head::Closed);
            }
            self.buffer.extend_from_slice(piece.get(..length).unwrap_or_default());
        }
    }

    fn read_body(&mut self, length: u64, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let early = usize::try_from(length).unwrap_or(usize::MAX).min(self.buffer.len());
        each(self.buffer.get(..early).unwrap_or_default());
        self.buffer.drain(..early);
        let mut left = length - early as u64;
        let mut piece = vec![0; 64 * 1024];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            let room = piece.get_mut(..want).unwrap_or_default();
            let got = self.stream.read(room)?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            each(room.get(..got).unwrap_or_default());
            left -= got as u64;
        }
        Ok(())
    }
}

/// Parses a request's head; returns it with its length, or nothing if more is to come.
fn parse_head(bytes: &[u8]) -> Result<Option<(Request, usize)>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = parsed.parse(bytes)? else { return Ok(None) };
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: parsed.path.unwrap_or_default().to_owned(),
        content_length: None,
        keep_alive: parsed.version == Some(1),
        expects_continue: false,
    };
    for header in parsed.headers.iter() {
        let value = str::from_utf8(header.value).unwrap_or_default().trim();
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => {
                request.content_length =
                    Some(value.parse().map_err(|_no_number| httparse::Error::HeaderValue)?);
            }
            "connection" if value.eq_ignore_ascii_case("close") => request.keep_alive = false,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => request.keep_alive = true,
            "expect" => request.expects_continue = value.eq_ignore_ascii_case("100-continue"),
            _ => {}
        }
    }
    Ok(Some((request, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_parsed_only_when_complete() {
        let text = b"GET / HTTP/1.1\r\nHost: vip\r\n\r\nrest";
        for end in 0..text.len() - 4 {
            assert!(matches!(parse_head(&text[..end]), Ok(None)), "{end}");
        }
        let (request, length) = parse_head(text).unwrap().unwrap();
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), length),
            ("GET", "/", text.len() - 4)
        );
        assert!(request.keep_alive);
    }

    #[test]
    fn keep_alive_is_the_default_of_http_1_1_only() {
        let keep_alive = |text: &[u8]| parse_head(text).unwrap().unwrap().0.keep_alive;
        assert!(!keep_alive(b"GET / HTTP/1.0\r\n\r\n"));
        assert!(keep_alive(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
        assert!(!keep_alive(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"));
    }

    #[test]
    fn a_length_that_is_no_number_is_refused() {
        assert!(parse_head(b"POST /sink HTTP/1.1\r\nContent-Length: many\r\n\r\n").is_err());
    }
}
