//! The health service of gRPC (`grpc.health.v1.Health/Check`), in the clear or within TLS.

use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ipvs_config::check::{Check, Grpc};
use tokio::io::{AsyncRead, AsyncWrite};

use super::http::{Driver, failure};
use super::{Failure, Trust, connect, tls};

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// The states of `HealthCheckResponse.ServingStatus`, by number.
const STATES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/// Octets of an answer.
const LONGEST: usize = 4096;

pub(super) async fn check(
    check: &Check,
    grpc: &Grpc,
    at: SocketAddr,
    trust: &Trust,
) -> Result<(), Failure> {
    let stream = connect::tcp(check, at).await?;
    match &grpc.tls {
        None => ask(stream, grpc, at, "http").await,
        Some(tls) => {
            let stream = tls::handshake(stream, tls, None, at, trust, tls::Protocol::Http2);
            ask(stream.await?, grpc, at, "https").await
        }
    }
}

async fn ask<S>(stream: S, grpc: &Grpc, at: SocketAddr, scheme: &str) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| failure(&error);
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), io).await.map_err(broken)?;
    let _driver = Driver(tokio::spawn(async move { drop(connection.await) }));
    let host = grpc.tls.as_ref().and_then(|tls| tls.sni.as_deref());
    let host = host.map_or_else(|| at.to_string(), str::to_owned);
    let request = Request::post(format!("{scheme}://{host}{METHOD}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(message(&grpc.service)))
        .map_err(|error| Failure::Unmade(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() != 200 {
        return Err(Failure::Wrong(format!("status {} of HTTP", response.status().as_u16())));
    }
    // Without a message the status stands where otherwise trailers would.
    status(response.headers())?;
    let mut body = response.into_body();
    let mut octets = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(broken)?;
        if let Some(trailers) = frame.trailers_ref() {
            status(trailers)?;
        }
        octets.extend(frame.data_ref().into_iter().flatten().take(LONGEST - octets.len()));
    }
    match state(&octets) {
        Some(1) => Ok(()),
        Some(number) => {
            let name = usize::try_from(number).ok().and_then(|number| STATES.get(number));
            Err(Failure::Wrong(name.map_or_else(|| format!("state {number}"), |it| (*it).into())))
        }
        None => Err(Failure::Wrong("no message of gRPC".into())),
    }
}

/// A `HealthCheckRequest` with its five octets in front: its only field, 1, is a text.
fn message(service: &str) -> Bytes {
    let mut message = Vec::new();
    if let (Ok(len @ 1..), false) = (u8::try_from(service.len()), service.len() > 127) {
        message.extend([0x0a, len]);
        message.extend(service.as_bytes());
    }
    let len = u32::try_from(message.len()).unwrap_or_default();
    let mut framed = vec![0];
    framed.extend(len.to_be_bytes());
    framed.extend(message);
    framed.into()
}

/// The state in a `HealthCheckResponse` behind its five octets: its field 1, 0 if left out.
fn state(octets: &[u8]) -> Option<u64> {
    let (head, message) = octets.split_at_checked(5)?;
    let [0, a, b, c, d] = *head else { return None };
    if u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
        return None;
    }
    match message {
        [] => Some(0),
        [0x08, number @ 0..=0x7f] => Some((*number).into()),
        _ => None,
    }
}

/// An error that gRPC tells.
fn status(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some("5") => Err(Failure::Wrong("no such service".into())),
        Some("12") => Err(Failure::Wrong("no health service".into())),
        Some(code) => {
            let said = text("grpc-message").unwrap_or_default();
            Err(Failure::Wrong(format!("status {code} of gRPC: {said}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_protocol() {
        assert_eq!(*message(""), [0, 0, 0, 0, 0]);
        assert_eq!(*message("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(state(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(state(&[0, 0, 0, 0, 0]), Some(0));
        for bad in [&[][..], &[0, 0, 0, 0, 2, 8], &[0, 0, 0, 0, 1, 8], &[1, 0, 0, 0, 2, 8, 1]] {
            assert_eq!(state(bad), None, "{bad:?}");
        }
    }
}
