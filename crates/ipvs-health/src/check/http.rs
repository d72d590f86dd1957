//! A request by HTTP/1.1, within TLS or not, and whether its answer is the right one.

use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ipvs_config::check::{Check, Http};
use regex_lite::Regex;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Failure, Trust, connect, tls};

/// Octets of a body that are looked at.
const LOOKED_AT: usize = 256 * 1024;

pub(super) async fn check(
    check: &Check,
    http: &Http,
    at: SocketAddr,
    trust: &Trust,
) -> Result<(), Failure> {
    let stream = connect::tcp(check, at).await?;
    match &http.tls {
        None => ask(stream, http, at).await,
        Some(tls) => {
            // A host may have its port behind it.
            let host = http.host.as_deref().and_then(|host| host.parse().ok());
            let host = host.as_ref().map(|host: &hyper::http::uri::Authority| host.host());
            ask(tls::handshake(stream, tls, host, at, trust, tls::Protocol::Any).await?, http, at)
                .await
        }
    }
}

async fn ask<S>(stream: S, http: &Http, at: SocketAddr) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| failure(&error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let host = http.host.clone().unwrap_or_else(|| at.to_string());
    let request = Request::builder()
        .method(http.method.as_str())
        .uri(&http.path)
        .header(HOST, host)
        .header(USER_AGENT, "ipvs-health")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::Unmade(error.to_string()))?;
    // Whoever drives the connection is gone with the check, whenever that ends.
    let driver = Driver(tokio::spawn(async move { drop(connection.await) }));
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status().as_u16();
    if !http.status.iter().any(|(from, to)| (*from..=*to).contains(&status)) {
        return Err(Failure::Wrong(format!("status {status}")));
    }
    let outcome = body(response, http.body.as_deref()).await;
    drop(driver);
    outcome
}

/// Reads the body, to its end unless it is long, and looks for what is to be in it.
async fn body(mut response: Response<Incoming>, pattern: Option<&str>) -> Result<(), Failure> {
    let mut text = Vec::new();
    while let Some(frame) = response.body_mut().frame().await {
        let frame = frame.map_err(|error| failure(&error))?;
        text.extend(frame.data_ref().into_iter().flatten().take(LOOKED_AT - text.len()));
        if text.len() == LOOKED_AT {
            break;
        }
    }
    let Some(pattern) = pattern else { return Ok(()) };
    let regex = Regex::new(pattern).map_err(|error| Failure::Unmade(error.to_string()))?;
    if regex.is_match(&String::from_utf8_lossy(&text)) {
        Ok(())
    } else {
        Err(Failure::Wrong(format!("`{pattern}` is not in the body of {} octets", text.len())))
    }
}

/// What an error of hyper's means.
pub(super) fn failure(error: &hyper::Error) -> Failure {
    let cause = std::error::Error::source(error);
    if let Some(io) = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        return match Failure::of_io(io) {
            // The request was made.
            Failure::Unmade(text) => Failure::Broken(text),
            failure => failure,
        };
    }
    let text = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
    if error.is_parse() { Failure::Wrong(text) } else { Failure::Broken(text) }
}

/// A task that ends with whoever has this.
pub(super) struct Driver(pub(super) tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
