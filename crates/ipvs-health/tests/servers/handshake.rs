//! TLS, by `openssl s_server`.

use std::process::Command;

use ipvs_health::check::Failure;

use crate::faults::{Fault, in_front_of, refused};
use crate::programs::{Server, certificate, find, free_port, start};
use crate::{made, within};

/// A server whose certificate is valid for so many days.
fn server(days: &str) -> Option<Server> {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), days)?;
    let port = free_port();
    let mut command = Command::new(find("openssl")?);
    command.args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-cert"]);
    command.arg(folder.path().join("cert.pem")).arg("-key").arg(folder.path().join("key.pem"));
    Some(start(command, port, folder))
}

#[test]
fn a_certificate_has_to_be_valid_for_some_days() {
    let Some(server) = server("30") else { return };
    within(async {
        let ca_file = server.folder.path().join("cert.pem").display().to_string();
        let tls = |more: &str| {
            format!("type = \"tls\"\nsni = \"localhost\"\nca_file = \"{ca_file}\"\n{more}")
        };
        assert_eq!(made(&tls(""), server.at).await, Ok(()));
        assert_eq!(made(&tls("days = 29"), server.at).await, Ok(()));
        let failure = Failure::Wrong("the certificate is valid for 29 days only".into());
        assert_eq!(made(&tls("days = 31"), server.at).await, Err(failure));
        let keys = "type = \"tls\"\nverify = false\ndays = 400";
        assert_eq!(made(keys, server.at).await.unwrap_err().label(), "wrong");
    });
}

#[test]
fn tls_fails_in_all_ways() {
    let Some(server) = server("30") else { return };
    within(async {
        let keys = "type = \"tls\"\nverify = false";
        let hasty = format!("{keys}\ntimeout = \"500ms\"");
        assert_eq!(made(keys, refused().await).await.unwrap_err().label(), "refused");
        for fault in [Fault::Silent, Fault::Slow] {
            let at = in_front_of(server.at, fault).await;
            assert_eq!(made(&hasty, at).await, Err(Failure::Timeout(500)), "{fault:?}");
        }
        for octets in [0, 3, 200] {
            let at = in_front_of(server.at, Fault::Cut(octets)).await;
            let failure = made(keys, at).await.unwrap_err();
            assert_eq!(failure.label(), "broken", "{octets}: {failure}");
        }
        let trusted = "type = \"tls\"\nsni = \"localhost\"";
        assert!(made(trusted, server.at).await.is_err(), "nobody of note has signed it");
    });
}
