//! nginx behind the director, curl and wrk in front of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::programs::{HTTP_PORTS, Nginx, curl, nginx, run, sha256};
use ipvs_e2e::{Bed, METHODS, Method, Plane, vip};

pub(crate) const NEEDS_CURL: &[&str] = &["nginx", "curl"];
pub(crate) const NEEDS_WRK: &[&str] = &["nginx", "wrk"];

/// Octets of a large body.
const LARGE: u64 = 100_000_000;

/// A bed with web servers behind all virtual addresses; masquerading changes
/// the port.
pub(crate) fn bed(plane: Plane, servers: usize) -> Result<(Bed, Vec<Nginx>)> {
    let bed = Bed::new(plane, servers)?;
    let started: Result<Vec<Nginx>> =
        bed.lab.servers().iter().map(|host| nginx(&bed, host)).collect();
    bed.make_services("-t", 80, "rr", |method| match method {
        Method::Nat => HTTP_PORTS[1],
        Method::DirectRouting | Method::Tunnel => HTTP_PORTS[0],
    })?;
    Ok((bed, started?))
}

/// Every virtual address with the port of the web servers.
pub(crate) fn vips() -> impl Iterator<Item = (Method, SocketAddr)> {
    METHODS
        .into_iter()
        .flat_map(|method| [true, false].map(|v4| (method, SocketAddr::new(vip(method, v4), 80))))
}

pub(crate) fn pages(plane: Plane) -> Result<()> {
    let (bed, _nginx) = bed(plane, 3)?;
    for (method, at) in vips() {
        let mut pages = BTreeMap::new();
        for _ in 0..6 {
            let page = curl(bed.lab.client(), at, "name", &[])
                .with_context(|| format!("{method:?} {at}"))?;
            *pages.entry(page).or_insert(0) += 1;
        }
        let expected = ["rs1", "rs2", "rs3"].map(|name| (name.to_owned(), 2));
        ensure!(pages == BTreeMap::from(expected), "{method:?} {at}: {pages:?}");
    }
    Ok(())
}

pub(crate) fn load(plane: Plane) -> Result<()> {
    let (bed, _nginx) = bed(plane, 3)?;
    for (method, at) in vips() {
        let kept = (method == Method::Nat).then_some("keep-alive");
        for connection in kept.into_iter().chain(["close"]) {
            let (header, url) = (format!("Connection: {connection}"), format!("http://{at}/name"));
            let arguments = ["-t1", "-c16", "-d1s", "--timeout", "3s", "-H", &header, &url];
            let output = run(bed.lab.client(), "wrk", &arguments)?;
            // What wrk says only if there is something to say.
            let failed = output.contains("Socket errors") || output.contains("Non-2xx");
            ensure!(!failed, "{method:?} {at} {connection}: {output}");
            let requests = output.lines().find_map(|line| line.trim().strip_suffix(" read"));
            let requests =
                requests.and_then(|line| line.split_once(" requests in ")).context("no sum")?;
            let few = || format!("{method:?} {at} {connection}: {output}\n{:?}", bed.status());
            ensure!(requests.0.parse::<u64>()? > 100, few());
        }
    }
    Ok(())
}

pub(crate) fn bodies(plane: Plane) -> Result<()> {
    let (bed, nginx) = bed(plane, 1)?;
    let server = nginx.first().context("no server")?;
    let hash = make_body(&server.root.join("body"), LARGE)?;
    let body = server.root.join("body");
    let body = body.to_str().context("a strange path")?;
    for (method, at) in vips() {
        let came = bed.folder.path().join("came");
        curl(bed.lab.client(), at, "body", &["-o", came.to_str().context("a strange path")?])
            .with_context(|| format!("{method:?} {at} down"))?;
        ensure!(sha256(&came)? == hash, "{method:?} {at}: another body came");
        curl(bed.lab.client(), at, "put", &["-T", body])
            .with_context(|| format!("{method:?} {at} up"))?;
        let put = server.root.join("put");
        ensure!(sha256(&put)? == hash, "{method:?} {at}: another body was stored");
        fs::remove_file(put)?;
    }
    Ok(())
}

/// Writes so many random octets into a file, and returns their hash.
pub(crate) fn make_body(file: &PathBuf, octets: u64) -> Result<String> {
    let mut random = File::open("/dev/urandom")?.take(octets);
    let mut to = File::create(file)?;
    std::io::copy(&mut random, &mut to)?;
    to.flush()?;
    sha256(Path::new(file))
}
