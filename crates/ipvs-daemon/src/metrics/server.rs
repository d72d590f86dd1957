//! The HTTP server. Whoever it speaks with may be slow, hostile or many: what one may
//! take of connections, memory and time is bounded, and other clients of the daemon do
//! not notice.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use super::Snapshot;
use super::exposition::{self, Format};

/// Where a snapshot is to go.
pub(super) type Ask = oneshot::Sender<Snapshot>;

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at a time; others wait to be accepted. What is written for each is in
    /// memory, about 100 octets a value.
    pub(super) connections: usize,
    /// How long the head of a request may take.
    pub(super) head: Duration,
    /// How long the daemon may take for a snapshot.
    pub(super) snapshot: Duration,
    /// How long a connection may take from its first octet to its last.
    pub(super) connection: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 4,
            head: Duration::from_secs(5),
            snapshot: Duration::from_secs(10),
            connection: Duration::from_secs(30),
        }
    }
}

/// Octets of a request's head.
const LONGEST_HEAD: usize = 16 * 1024;
/// Headers of a request.
const MOST_HEADERS: usize = 64;
/// How long nobody is accepted after that has failed.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves until the process ends.
pub(super) fn run(
    listener: TcpListener,
    asks: Sender<Ask>,
    wake: Arc<OwnedFd>,
    bounds: Bounds,
) -> io::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // Beside this thread one that writes.
    let runtime = runtime.enable_all().max_blocking_threads(1).build()?;
    let scrapes = Arc::new(Scrapes { asks, wake, turn: Mutex::new(()), bounds });
    runtime.block_on(accept(listener, scrapes))
}

async fn accept(listener: TcpListener, scrapes: Arc<Scrapes>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(scrapes.bounds.connections));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let scrapes = Arc::clone(&scrapes);
                tokio::spawn(async move {
                    serve(stream, scrapes).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client for metrics");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Answers one request.
async fn serve(stream: TcpStream, scrapes: Arc<Scrapes>) {
    let bounds = scrapes.bounds;
    let answer = service_fn(move |request| {
        let scrapes = Arc::clone(&scrapes);
        async move { Ok::<_, Infallible>(scrapes.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_HEADERS)
        // A connection that stands idle would keep a place from others.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(bounds.connection, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a client for metrics is gone"),
        Err(_) => tracing::debug!("a client for metrics does not read its answer: hung up"),
    }
}

/// The way to the daemon.
#[derive(Debug)]
struct Scrapes {
    asks: Sender<Ask>,
    wake: Arc<OwnedFd>,
    /// Held by whose snapshot is made and written.
    turn: Mutex<()>,
    bounds: Bounds,
}

impl Scrapes {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/metrics" {
            return say(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = say(StatusCode::METHOD_NOT_ALLOWED, "metrics can only be read\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = Format::of(accept.unwrap_or_default());
        match self.scrape(format).await {
            Some(text) => {
                let mut response = Response::new(Full::from(text));
                let kind = HeaderValue::from_static(format.content_type());
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            None => say(StatusCode::SERVICE_UNAVAILABLE, "the daemon is busy; try again\n"),
        }
    }

    /// The metrics of now; `None` if the daemon has no time.
    async fn scrape(&self, format: Format) -> Option<String> {
        let _turn = self.turn.lock().await;
        let (answer, snapshot) = oneshot::channel();
        self.asks.send(answer).ok()?;
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).ok()?;
        let snapshot = timeout(self.bounds.snapshot, snapshot).await.ok()?.ok()?;
        // Of a hundred thousand destinations this takes a second or so.
        let written = tokio::task::spawn_blocking(move || exposition::write(snapshot, format));
        written.await.ok()?.ok()
    }
}

fn say(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests;
