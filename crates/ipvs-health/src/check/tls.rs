//! TLS, with the certificate verified or not.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ipvs_config::check::{Certificate, Check, Tls};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use x509_cert::der::Decode as _;

use super::{Failure, connect};

/// How to speak TLS, made once for all checks that do it in the same way.
#[derive(Debug, Default)]
pub struct Trust(Mutex<HashMap<Way, Arc<ClientConfig>>>);

/// Whether certificates are verified, who may have signed them, and what is spoken.
type Way = (bool, Option<PathBuf>, Protocol);

/// What is spoken within TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    /// Nothing that would have to be said.
    Any,
    /// HTTP/2.
    Http2,
}

impl Trust {
    fn config(&self, tls: &Tls, protocol: Protocol) -> Result<Arc<ClientConfig>, Failure> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tls.verify, tls.ca_file.clone(), protocol);
        if let Some(config) = made.get(&key) {
            return Ok(Arc::clone(config));
        }
        let mut config = config(tls)?;
        if protocol == Protocol::Http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        let config = Arc::new(config);
        made.insert(key, Arc::clone(&config));
        Ok(config)
    }
}

fn config(tls: &Tls) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let unmade = |error: Error| Failure::Unmade(error.to_string());
    let builder = builder.with_safe_default_protocol_versions().map_err(unmade)?;
    if !tls.verify {
        let verifier = Arc::new(Anybody(provider));
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        return Ok(builder.with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    if let Some(path) = &tls.ca_file {
        for certificate in certificates(path)? {
            let added = roots.add(certificate);
            added.map_err(|error| Failure::Unmade(format!("{}: {error}", path.display())))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        let whom = tls.ca_file.as_ref().map(|path| path.display().to_string());
        let whom = whom.unwrap_or_else(|| "the system (ca-certificates)".into());
        return Err(Failure::Unmade(format!("{whom} has no certificate to trust in")));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::Unmade(format!("{}: {error}", path.display()));
    let found = CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?;
    found.collect::<Result<_, _>>().map_err(|error| failed(&error))
}

/// Shakes hands; `host` is who is asked for unless the check names another.
pub(super) async fn handshake(
    stream: TcpStream,
    tls: &Tls,
    host: Option<&str>,
    at: SocketAddr,
    trust: &Trust,
    protocol: Protocol,
) -> Result<TlsStream<TcpStream>, Failure> {
    let name = match tls.sni.as_deref().or(host) {
        Some(name) => ServerName::try_from(name.to_owned())
            .map_err(|error| Failure::Unmade(format!("{name}: {error}")))?,
        None => ServerName::IpAddress(at.ip().into()),
    };
    let connector = TlsConnector::from(trust.config(tls, protocol)?);
    connector.connect(name, stream).await.map_err(|error| {
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match cause {
            Some(cause) => Failure::Wrong(format!("TLS: {cause}")),
            None => Failure::of_io(&error),
        }
    })
}

/// Shakes hands, and looks for how long the certificate is valid still.
pub(super) async fn check(
    check: &Check,
    certificate: &Certificate,
    at: SocketAddr,
    trust: &Trust,
) -> Result<(), Failure> {
    let stream = connect::tcp(check, at).await?;
    let stream = handshake(stream, &certificate.tls, None, at, trust, Protocol::Any).await?;
    if certificate.days == 0 {
        return Ok(());
    }
    let (_, session) = stream.get_ref();
    let first = session.peer_certificates().and_then(<[_]>::first);
    let first = first.ok_or_else(|| Failure::Wrong("there is no certificate".into()))?;
    let parsed = x509_cert::Certificate::from_der(first);
    let parsed = parsed.map_err(|error| Failure::Wrong(format!("the certificate: {error}")))?;
    let until = parsed.tbs_certificate().validity().not_after.to_system_time();
    match until.duration_since(SystemTime::now()) {
        Ok(left) if left >= DAY * certificate.days => Ok(()),
        Ok(left) => {
            let days = left.as_secs() / DAY.as_secs();
            Err(Failure::Wrong(format!("the certificate is valid for {days} days only")))
        }
        Err(_) => Err(Failure::Wrong("the certificate is not valid any more".into())),
    }
}

const DAY: Duration = Duration::from_hours(24);

/// Takes every certificate; what is signed with it has to be right all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
