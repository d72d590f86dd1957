//! Networks of network namespaces for demo, tests and benches, made by system calls and
//! netlink alone: no `ip` command, no file in `/run/netns`, nothing to clean up.
//!
//! * [`Namespace`]: a network namespace held by a file descriptor; run closures, threads and
//!   child processes in it.
//! * [`veth`], [`bridge`], [`Link`], [`Route`]: interfaces, addresses, neighbours, routes, rules,
//!   offloads.
//! * [`Plan`] and [`Topology`]: the classical lab of a director, with a client and real servers
//!   that can be reached by masquerading, direct routing and tunnels, IPv4 and IPv6.
//! * [`HttpServer`], [`UdpEcho`], [`Decapsulator`]: what a real server runs.
//! * [`HttpClient`], [`UdpClient`], [`udp_exchange`]: what a client does.
//! * [`Seen`]: which addresses a real server saw, as it tells the client.
//! * [`enter_user_namespace`]: root's rights for a process without any.
//! * [`testing::isolated`]: runs a test body as root, or in a user namespace, or says loudly
//!   that it was skipped.
//!
//! # Example
//!
//! ```no_run
//! use std::time::Duration;
//! use ipvs_lab::{HttpClient, Plan, VIP4};
//!
//! if !ipvs_lab::can_make_namespaces() {
//!     ipvs_lab::enter_user_namespace()?; // before the first thread
//! }
//! let lab = Plan::with_servers(3).build()?;
//! let servers = lab.serve(80)?;
//!
//! // A daemon beside the director's interfaces; it is killed when the guard is dropped.
//! let mut command = lab.director().command("ipvs")?;
//! command.arg("daemon");
//! let daemon = lab.director().spawn_child(command)?;
//!
//! let vip = (VIP4, 80).into();
//! let answer = lab.client().run(|| HttpClient::new().get(vip, Duration::from_secs(1)))??;
//! assert!(servers.iter().any(|server| server.host.name() == answer.server));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is left behind: nothing
//!
//! The kernel removes a network namespace, with its interfaces, routes and sockets, when the last
//! thread, socket and descriptor in it is gone. So dropping the values above removes the lab; and so
//! does the end of the process, be it a return, a panic, Ctrl-C or SIGKILL. Child processes started
//! with [`Namespace::spawn_child`] are killed on drop, and the kernel kills them (parent-death
//! signal) when this process ends in any other way. A grandchild is the child's to look after.

mod addr;
mod child;
mod client;
mod decap;
mod error;
mod ethtool;
mod http_server;
mod joined;
mod link;
mod modules;
mod namespace;
mod netlink;
mod outer;
mod pattern;
mod route;
mod seen;
mod softirq;
mod sys;
pub mod testing;
mod topology;
mod udp_echo;
mod userns;

pub use ipnet::IpNet;

pub use self::{
    addr::{MacAddr, ParseMacError},
    child::ChildGuard,
    client::{HttpClient, RequestError, Response, UdpAnswer, UdpClient, udp_exchange},
    decap::{Decapsulator, DecapsulatorStats},
    error::{Error, Result},
    ethtool::Offload,
    http_server::HttpServer,
    link::{End, Link, bridge, veth},
    modules::load_modules,
    namespace::Namespace,
    pattern::{Fnv1a, Pattern},
    route::Route,
    seen::Seen,
    softirq::handle_packets_first,
    topology::{Plan, RealServer, Segment, ServerHost, Topology, VIP4, VIP6},
    udp_echo::UdpEcho,
    userns::{can_make_namespaces, enter_private_mounts, enter_user_namespace},
};
