//! Builds the lab, sends a request to every real server, and waits until it is told to end.
//!
//! `cargo run -p ipvs-lab --example lab`, as root or not.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    time::Duration,
};

use ipvs_lab::{HttpClient, Plan, can_make_namespaces, enter_user_namespace};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if !can_make_namespaces() {
        enter_user_namespace()?;
    }
    let lab = Plan::with_servers(3).build()?;
    let servers = lab.serve(80)?;
    let mut out = io::stdout().lock();
    for server in &servers {
        for address in [server.host.v4(), server.host.v6()] {
            let to = SocketAddr::new(address, 80);
            let answer =
                lab.client().run(|| HttpClient::new().get(to, Duration::from_secs(1)))??;
            writeln!(out, "{to} is {} ({:?})", answer.server, answer.latency)?;
        }
    }
    // A child for whoever wants to see that it does not outlive this process.
    let mut sleep = lab.director().command("sleep")?;
    sleep.arg("3600");
    let child = lab.director().spawn_child(sleep)?;
    writeln!(out, "child {} sleeps; press Enter, or end this in any other way", child.id())?;
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}
