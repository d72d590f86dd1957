//! vsftpd behind the director; curl and lftp in front of it, called by the
//! server and calling it, by old commands and new, IPv4 and IPv6.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::programs::{run, sha256, vsftpd};
use ipvs_e2e::{Bed, Method, Plane, vip};

use crate::web::make_body;

pub(crate) const NEEDS: &[&str] = &["vsftpd", "curl", "lftp"];

/// Octets of the file: more than one window takes.
const SIZE: u64 = 3_000_000;

/// Ways to have curl get data, and whether they are for IPv4 only.
const WAYS: [(&str, &[&str], bool); 4] = [
    ("EPSV", &[], false),
    ("PASV", &["--disable-epsv"], true),
    ("EPRT", &["--ftp-port", "-"], false),
    ("PORT", &["--ftp-port", "-", "--disable-eprt"], true),
];

pub(crate) fn transfers(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 2)?;
    let mut hash = String::new();
    let mut servers = Vec::new();
    for host in bed.lab.servers() {
        let server = vsftpd(&bed, host)?;
        let file = server.root.join("file");
        match servers.first() {
            None => hash = make_body(&file, SIZE)?,
            Some(ipvs_e2e::programs::Vsftpd { root, .. }) => {
                fs::copy(root.join("file"), file)?;
            }
        }
        servers.push(server);
    }
    for v4 in [true, false] {
        let service = SocketAddr::new(vip(Method::Nat, v4), 21);
        bed.ipvsadm(&format!("-A -t {service} -s rr"))?;
        for host in bed.lab.servers() {
            let real = SocketAddr::new(host.address(service.ip()), 21);
            bed.ipvsadm(&format!("-a -t {service} -r {real} -m"))?;
        }
    }
    let came = bed.folder.path().join("came");
    let to = came.to_str().context("a strange path")?;
    for v4 in [true, false] {
        let at = SocketAddr::new(vip(Method::Nat, v4), 21);
        for (way, options, _) in WAYS.into_iter().filter(|(_, _, v4_only)| v4 || !v4_only) {
            let what = || format!("{way} {at}: {:?}", bed.packets());
            let list = curl(&bed, at, "", options).with_context(what)?;
            ensure!(list.contains("file"), "{way} {at}: {list}");
            let options = [options, &["--output", to]].concat();
            curl(&bed, at, "file", &options).with_context(what)?;
            ensure!(sha256(&came)? == hash, "{way} {at}: another file came");
            fs::remove_file(&came)?;
        }
        for passive in ["on", "off"] {
            let script = format!(
                "set net:max-retries 1; set net:timeout 10; set ftp:use-feat off; \
                 set ftp:passive-mode {passive}; open ftp://{at}/; ls; get file -o {to}; bye"
            );
            let list = run(bed.lab.client(), "lftp", &["-c", &script])
                .with_context(|| format!("lftp, passive {passive}, {at}: {:?}", bed.packets()))?;
            ensure!(list.contains("file"), "lftp, passive {passive}, {at}: {list}");
            ensure!(sha256(&came)? == hash, "lftp, passive {passive}, {at}: another file came");
            fs::remove_file(&came)?;
        }
    }
    if plane.is_bpf() {
        let packets = bed.packets()?;
        ensure!(packets.contains_key("deferred_helped"), "nothing was deferred: {packets:?}");
    }
    Ok(())
}

fn curl(bed: &Bed, at: SocketAddr, path: &str, more: &[&str]) -> Result<String> {
    let url = format!("ftp://{at}/{path}");
    let mut arguments = vec!["--silent", "--show-error", "--fail", "--globoff"];
    arguments.extend(["--max-time", "20", "--noproxy", "*"]);
    arguments.extend(more);
    arguments.push(&url);
    run(bed.lab.client(), "curl", &arguments)
}
