//! HTTP and HTTPS, by nginx.

use std::fs;

use ipvs_health::check::Failure;

use crate::faults::{Fault, in_front_of, refused};
use crate::programs::{Server, certificate, nginx};
use crate::{made, within};

const SERVER: &str = "server { listen 127.0.0.1:$PORT; server_name named.example;
      location = /health { add_header X-Method $request_method; return 200 'all is well\n'; }
      location = /teapot { return 418; }
      location = /moved { return 302 /health; }
      location / { return 404; } }
    server { listen 127.0.0.1:$PORT default_server; location / { return 503; } }";

fn server() -> Option<Server> {
    nginx(SERVER, tempfile::tempdir().unwrap())
}

/// The keys of a check of a path.
fn http(path: &str, more: &str) -> String {
    format!("type = \"http\"\nhost = \"named.example\"\npath = \"{path}\"\n{more}")
}

#[test]
fn a_status_is_right_or_not() {
    let Some(server) = server() else { return };
    within(async {
        let wrong = |status| Err(Failure::Wrong(format!("status {status}")));
        for (keys, expect) in [
            (http("/health", ""), Ok(())),
            (http("/moved", ""), Ok(())),
            (http("/nosuch", ""), wrong(404)),
            (http("/teapot", ""), wrong(418)),
            (http("/teapot", "status = [204, \"400-418\"]"), Ok(())),
            (http("/health", "status = [204, \"400-418\"]"), wrong(200)),
            (http("/health", "method = \"HEAD\""), Ok(())),
            (http("/health", "method = \"OPTIONS\""), Ok(())),
            // Another host's server has nothing.
            ("type = \"http\"\npath = \"/health\"".to_owned(), wrong(503)),
        ] {
            assert_eq!(made(&keys, server.at).await, expect, "{keys}");
        }
    });
}

#[test]
fn a_body_is_searched() {
    let Some(server) = server() else { return };
    within(async {
        assert_eq!(made(&http("/health", "body = \"^all is .ell\""), server.at).await, Ok(()));
        let keys = http("/health", "body = \"^is well\"");
        let failure = Failure::Wrong("`^is well` is not in the body of 12 octets".into());
        assert_eq!(made(&keys, server.at).await, Err(failure));
    });
}

#[test]
fn http_fails_in_all_ways() {
    let Some(server) = server() else { return };
    within(async {
        let keys = http("/health", "");
        let hasty = http("/health", "timeout = \"300ms\"");
        let failure = made(&keys, refused().await).await.unwrap_err();
        assert_eq!(failure.label(), "refused");
        for fault in [Fault::Silent, Fault::Slow] {
            let at = in_front_of(server.at, fault).await;
            assert_eq!(made(&hasty, at).await, Err(Failure::Timeout(300)), "{fault:?}");
        }
        // Within the status line, the headers and the body.
        for octets in [0, 9, 60, 165] {
            let at = in_front_of(server.at, Fault::Cut(octets)).await;
            let failure = made(&keys, at).await.unwrap_err();
            assert_eq!(failure.label(), "broken", "{octets}: {failure}");
        }
        let failure = made(&keys, not_http().await).await.unwrap_err();
        assert_eq!(failure.label(), "wrong", "{failure}");
    });
}

/// A server of another protocol.
async fn not_http() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind(crate::faults::ANY).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let said = b"220 mail.example ESMTP\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut client, said).await.unwrap();
        std::future::pending::<()>().await;
    });
    at
}

const TLS_SERVER: &str = "server { listen 127.0.0.1:$PORT ssl; server_name localhost;
      ssl_certificate $FOLDER/cert.pem; ssl_certificate_key $FOLDER/key.pem;
      location = /large { root $FOLDER; }
      location / { return 200 $ssl_server_name; } }";

fn tls_server() -> Option<Server> {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "30")?;
    fs::write(folder.path().join("large"), "x".repeat(100_000)).unwrap();
    nginx(TLS_SERVER, folder)
}

#[test]
fn a_certificate_is_verified_unless_that_is_not_wanted() {
    let Some(server) = tls_server() else { return };
    within(async {
        let ca_file = server.folder.path().join("cert.pem").display().to_string();
        let trusted = format!("ca_file = \"{ca_file}\"");
        let https = |more: &str| format!("type = \"https\"\n{more}");
        for right in [
            https("verify = false"),
            https("verify = false\nsni = \"other.example\"\nbody = \"^other.example$\""),
            https(&format!("{trusted}\nsni = \"localhost\"\nbody = \"^localhost$\"")),
            https(&format!("{trusted}\nhost = \"localhost:443\"\nbody = \"^localhost$\"")),
        ] {
            assert_eq!(made(&right, server.at).await, Ok(()), "{right}");
        }
        for (wrong, why) in [
            (https(&format!("{trusted}\nsni = \"other.example\"")), "not valid for name"),
            (https(&trusted), "not valid for name"),
            (https("sni = \"localhost\""), "invalid peer certificate"),
        ] {
            let failure = made(&wrong, server.at).await.unwrap_err();
            let said = failure.to_string();
            // Where the system trusts nobody, that is told instead.
            let trusts_nobody = said.contains("no certificate to trust in");
            assert!(said.contains(why) || trusts_nobody, "{wrong}: {said}");
        }
        let failure = made(&https("ca_file = \"/nosuch.pem\""), server.at).await.unwrap_err();
        let said = failure.to_string();
        assert!(said.starts_with("cannot be checked: /nosuch.pem: "), "{said}");
    });
}

#[test]
fn https_fails_in_all_ways() {
    let Some(server) = tls_server() else { return };
    within(async {
        let keys = "type = \"https\"\nverify = false\npath = \"/large\"";
        assert_eq!(made(keys, server.at).await, Ok(()));
        let hasty = format!("{keys}\ntimeout = \"500ms\"");
        assert_eq!(made(keys, refused().await).await.unwrap_err().label(), "refused");
        for fault in [Fault::Silent, Fault::Slow] {
            let at = in_front_of(server.at, fault).await;
            assert_eq!(made(&hasty, at).await, Err(Failure::Timeout(500)), "{fault:?}");
        }
        // Within the handshake, and behind it.
        for octets in [0, 100, 50_000] {
            let at = in_front_of(server.at, Fault::Cut(octets)).await;
            let failure = made(keys, at).await.unwrap_err();
            assert_eq!(failure.label(), "broken", "{octets}: {failure}");
        }
        let failure = made(keys, not_http().await).await.unwrap_err();
        assert_eq!(failure.label(), "wrong", "{failure}");
    });
}
