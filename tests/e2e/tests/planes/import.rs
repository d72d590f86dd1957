//! What is imported of another program's configuration, beside what that program makes of it.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::{AS_PROGRAM, Bed, Plane};

/// How long keepalived may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that is carried over, and no health checks, so that keepalived has all servers
/// in from the start.
const CONF: &str = "global_defs {
    lvs_timeouts tcp 100 tcpfin 50 udp 30
}
$NET=10.1
include servers-*.conf
virtual_server_group web {
    192.0.2.50-51 80   # two
    192.0.2.60 8080
    fwmark 9
}
virtual_server group web {
    lvs_sched mh
    mh-port
    lvs_method DR
    protocol TCP
    real_server ${NET}.0.11 80 { weight 2 }
    real_server ${NET}.0.12 80 {
        uthreshold 9
        lthreshold 3
    }
}
virtual_server 2001:db8:9::1 53 {
    lb_algo rr
    protocol UDP
    ops
    real_server 2001:db8:5::11 5353 { }
}
virtual_server fwmark 7 {
    lb_kind TUN
    ip_family inet6
    persistence_timeout
    persistence_granularity 64
    real_server 2001:db8:5::11 80 { }
    real_server 10.1.0.12 80 {
        lvs_method TUN type gue port 6080 remcsum
        weight 0
    }
}
";
const INCLUDED: &str = "virtual_server 192.0.2.70 443 {
    lvs_sched sh
    sh-fallback
    persistence_granularity 255.255.255.0
    protocol TCP
    weight 4
    real_server 10.1.0.11 8443 {
        lvs_method NAT
    }
}
";

/// A plan of keepalived's own work finds no change.
pub(crate) fn keepalived(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let folder = bed.folder.path();
    let conf = folder.join("keepalived.conf");
    fs::write(&conf, CONF)?;
    fs::write(folder.join("servers-1.conf"), INCLUDED)?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a strange path");
    let imported = bed.ipvs(&["import", "keepalived.conf", &text(&conf)?])?;
    let left_out = String::from_utf8_lossy(&imported.stderr).into_owned();
    ensure!(imported.status.code() == Some(0) && left_out.is_empty(), "{left_out}");
    let file = folder.join("ipvs.toml");
    fs::write(&file, &imported.stdout)?;

    let log = folder.join("keepalived.log");
    let mut command = bed.lab.director().command("/proc/self/exe")?;
    command.args(["exec", "--", "keepalived", "-n", "-l", "-C", "-f", &text(&conf)?]);
    for (option, name) in [("-p", "pid"), ("-c", "checkers"), ("-r", "vrrp")] {
        command.arg(option).arg(folder.join(name));
    }
    command.env(AS_PROGRAM, "1").env("IPVS_SOCKET", bed.socket()).stdin(Stdio::null());
    let output = fs::File::create(&log)?;
    command.stdout(output.try_clone()?).stderr(output);
    let mut program = bed.lab.director().spawn_child(command)?;
    let outcome = await_no_change(&bed, &text(&file)?);
    // What runs can be said by a file, too.
    let exported = bed.ipvs(&["export"])?;
    ensure!(program.terminate(PATIENCE)?, "keepalived does not end");
    outcome.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    ensure!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    // It has taken all away; ours brings it back.
    let applied = bed.ipvs(&["apply", &text(&file)?])?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let lines = bed.ipvsadm("-Sn")?.lines().count();
    ensure!(lines == 7 + 12, "{}", bed.ipvsadm("-Sn")?);
    Ok(())
}

/// Waits until what runs is what the file says.
fn await_no_change(bed: &Bed, file: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let plan = bed.ipvs(&["plan", file])?;
        if plan.status.success() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&plan.stdout));
        // It tells nobody that it is done.
        thread::sleep(Duration::from_millis(50));
    }
}
