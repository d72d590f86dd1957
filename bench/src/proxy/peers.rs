//! The director of a bed: ours, or another.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use ipvs_lab::{ChildGuard, IpNet, Namespace, Route};

use super::bed::{HTTP, IPERF, SERVER_HTTP, SERVERS, VIP, start_nginx};
use crate::daemon::Daemon;
use crate::director::BPF_FS;
use crate::director::has_nft;

/// Who leads connections to servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Nobody: the first server has the virtual address.
    Forward,
    /// Our eBPF plane.
    IpvsBpf,
    /// Our plane in user space.
    IpvsUser,
    /// nftables: destination NAT.
    NftDnat,
    /// `HAProxy` in TCP mode.
    Haproxy,
    /// nginx's stream module.
    Nginx,
}

impl Peer {
    pub(super) const ALL: [Self; 6] =
        [Self::Forward, Self::IpvsBpf, Self::IpvsUser, Self::NftDnat, Self::Haproxy, Self::Nginx];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::IpvsBpf => "ipvs-bpf",
            Self::IpvsUser => "ipvs-user",
            Self::NftDnat => "nft-dnat",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Why it cannot be had, if it cannot.
    pub(super) fn is_missing(self) -> Option<&'static str> {
        match self {
            Self::NftDnat if !has_nft() => Some("for want of package nftables"),
            Self::Haproxy if !Path::new("/usr/sbin/haproxy").exists() => {
                Some("for want of package haproxy")
            }
            Self::Nginx if !Path::new("/usr/lib/nginx/modules/ngx_stream_module.so").exists() => {
                Some("for want of package libnginx-mod-stream")
            }
            _ => None,
        }
    }
}

/// A director at work.
pub(super) struct Director {
    pub(super) peer: Peer,
    kind: Kind,
    space: Namespace,
}

enum Kind {
    Kernel,
    Daemon(Option<Daemon>),
    Program(ChildGuard),
}

impl Director {
    /// How many connections it has, where it knows any.
    pub(super) fn connections(&self) -> Result<Option<u64>> {
        Ok(match (&self.kind, self.peer) {
            (Kind::Daemon(Some(daemon)), _) => Some(daemon.ever_connected()?),
            (_, Peer::NftDnat) => {
                let count = self.space.read_sysctl("net/netfilter/nf_conntrack_count")?;
                Some(count.parse()?)
            }
            _ => None,
        })
    }

    /// The process that does the work, if it is one.
    pub(super) fn process(&self) -> Option<u32> {
        match &self.kind {
            Kind::Kernel => None,
            Kind::Daemon(daemon) => daemon.as_ref().map(Daemon::id),
            Kind::Program(child) => Some(child.id()),
        }
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        if let Kind::Daemon(daemon) = &mut self.kind
            && let Some(Err(error)) = daemon.take().map(Daemon::stop)
        {
            crate::say(&format!("{}: {error:#}", self.peer.name()));
        }
    }
}

/// Sets it up in `space`, on two interfaces.
pub(super) fn set_up(
    peer: Peer,
    space: &Namespace,
    interfaces: &[&str; 2],
    folder: &Path,
) -> Result<Director> {
    let vip = IpNet::new(VIP.into(), 32)?;
    let [outside, inside] = *interfaces;
    let kind = match peer {
        Peer::Forward => {
            space.add_route(Route::via(vip, SERVERS[0].into()))?;
            Kind::Kernel
        }
        Peer::IpvsBpf | Peer::IpvsUser => {
            let plane = if peer == Peer::IpvsBpf { "bpf" } else { "user" };
            if peer == Peer::IpvsUser {
                // It takes what clients on one of its links would ask for.
                space.add_route(Route::on(vip, &space.link(outside)?))?;
            }
            let pins = Path::new(BPF_FS).join("proxy");
            let daemon =
                Daemon::start(space, plane, &["-i", outside, "-i", inside], &pins, folder)?;
            daemon.configure(&rules()?)?;
            Kind::Daemon(Some(daemon))
        }
        Peer::NftDnat => {
            let mut command = space.command("nft")?;
            command.args(["-f", "-"]).stdin(Stdio::piped());
            let mut nft = command.spawn().context("cannot start nft (package nftables)")?;
            nft.stdin.take().context("nft takes no rules")?.write_all(ruleset().as_bytes())?;
            let status = nft.wait()?;
            ensure!(status.success(), "nft refuses the rules: {status}");
            Kind::Kernel
        }
        Peer::Haproxy => {
            space.link("lo")?.add_address(vip)?;
            let config = folder.join("haproxy.cfg");
            std::fs::write(&config, haproxy()?)?;
            let mut command = space.command("haproxy")?;
            command.arg("-db").arg("-f").arg(&config).stdin(Stdio::null());
            command.stdout(Stdio::null());
            command.stderr(std::fs::File::create(folder.join("haproxy.err"))?);
            Kind::Program(space.spawn_child(command)?)
        }
        Peer::Nginx => {
            space.link("lo")?.add_address(vip)?;
            Kind::Program(start_nginx(space, folder, &nginx()?)?)
        }
    };
    Ok(Director { peer, kind, space: space.clone() })
}

/// Services with the ports where their servers answer.
const SERVICES: [(u16, u16); 2] = [(HTTP, SERVER_HTTP), (IPERF, IPERF)];

fn rules() -> Result<String> {
    let mut rules = String::new();
    let services = SERVICES.map(|(port, to)| ("-t", port, to));
    for (kind, port, to) in services.into_iter().chain([("-u", HTTP, SERVER_HTTP)]) {
        writeln!(rules, "-A {kind} {VIP}:{port} -s rr")?;
        for server in SERVERS {
            writeln!(rules, "-a {kind} {VIP}:{port} -r {server}:{to} -m -w 1")?;
        }
    }
    Ok(rules)
}

fn ruleset() -> String {
    let [one, other] = SERVERS;
    let rule = |(port, to): (u16, u16)| {
        format!(
            "ip daddr {VIP} tcp dport {port} dnat to jhash ip saddr . tcp sport mod 2 map \
             {{ 0 : {one} . {to}, 1 : {other} . {to} }}\n"
        )
    };
    format!(
        "table ip bench {{ chain prerouting {{\n\
         type nat hook prerouting priority dstnat; policy accept;\n{}}}\n}}\n",
        SERVICES.map(rule).concat()
    )
}

fn haproxy() -> Result<String> {
    let mut config = "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode tcp\n  \
                      timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        .to_owned();
    for (port, to) in SERVICES {
        writeln!(config, "listen port{port}\n  bind {VIP}:{port} backlog 8192")?;
        for (number, server) in (1..).zip(SERVERS) {
            writeln!(config, "  server s{number} {server}:{to}")?;
        }
    }
    Ok(config)
}

fn nginx() -> Result<String> {
    let mut config = "events { worker_connections 4096; }\nstream {\n".to_owned();
    for (port, to) in SERVICES {
        let servers = SERVERS.map(|server| format!("server {server}:{to};")).concat();
        writeln!(config, "upstream port{port} {{ {servers} }}")?;
        writeln!(config, "server {{ listen {VIP}:{port} backlog=8192; proxy_pass port{port}; }}")?;
    }
    writeln!(
        config,
        "server {{ listen {VIP}:{HTTP} udp; proxy_pass port{HTTP}; proxy_timeout 10s; }}\n}}"
    )?;
    Ok(config)
}
