//! Metrics, as a real Prometheus takes them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ipvs_e2e::{Bed, Method, Plane, programs, vip};
use ipvs_lab::{ChildGuard, HttpClient};

use crate::atomic::lines;

pub(crate) const NEEDS: &[&str] = &["prometheus", "promtool"];

const AT: &str = "127.0.0.1:9475";
const PROMETHEUS: &str = "127.0.0.1:9090";
/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a request through the director may take.
const REQUEST: Duration = Duration::from_secs(2);

/// A director that serves metrics.
fn bed(plane: Plane) -> Result<Bed> {
    let mut bed = Bed::new(plane, 2)?;
    bed.daemon_options = vec!["--metrics".to_owned(), AT.to_owned()];
    bed.end_daemon()?;
    bed.start_daemon()?;
    Ok(bed)
}

/// Gets a page of the director's loopback.
fn get(bed: &Bed, at: &str, path: &str) -> Result<String> {
    let at: SocketAddr = at.parse()?;
    let answer = bed.lab.director().run(|| -> Result<String> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(body.to_owned())
}

/// The values of a scrape, by name and labels.
fn scrape(bed: &Bed) -> Result<BTreeMap<String, f64>> {
    let text = get(bed, AT, "/metrics")?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').context("no value")?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

/// The connections that the service has counted.
fn connections() -> String {
    let service = SocketAddr::new(vip(Method::Nat, true), 80);
    format!("ipvs_service_connections_total{{protocol=\"tcp\",service=\"{service}\"}}")
}

/// Makes that many connections, one after the other.
fn connect(bed: &Bed, times: usize) -> Result<()> {
    let service = SocketAddr::new(vip(Method::Nat, true), 80);
    bed.lab.client().run(|| {
        (0..times).try_for_each(|_| {
            HttpClient::new().get(service, REQUEST).map(|_| ()).map_err(anyhow::Error::from)
        })
    })?
}

/// Starts Prometheus, which scrapes the director.
fn prometheus(bed: &Bed) -> Result<ChildGuard> {
    let file = |name: &str| bed.folder.path().join(name);
    let conf = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: ipvs\n    \
         static_configs:\n      - targets: [\"{AT}\"]\n"
    );
    fs::write(file("prometheus.yml"), conf)?;
    let program = programs::find("prometheus").context("prometheus is missing")?;
    let mut command = bed.lab.director().command(program)?;
    command.arg(format!("--config.file={}", file("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", file("tsdb").display()));
    command.arg(format!("--web.listen-address={PROMETHEUS}"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(file("prometheus.log"))?);
    Ok(bed.lab.director().spawn_child(command)?)
}

/// What Prometheus answers to a query that has one value; `None` as long as it has none.
fn query(bed: &Bed, query: &str) -> Result<Option<f64>> {
    let encoded = query.bytes().map(|octet| format!("%{octet:02X}")).collect::<Vec<_>>().concat();
    // It may not listen yet.
    let Ok(answer) = get(bed, PROMETHEUS, &format!("/api/v1/query?query={encoded}")) else {
        return Ok(None);
    };
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    let value = answer["data"]["result"][0]["value"][1].as_str();
    Ok(value.map(str::parse).transpose()?)
}

/// Waits until Prometheus has scraped this.
fn await_value(bed: &Bed, expression: &str, expect: f64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = None;
    while last != Some(expect) {
        if Instant::now() >= deadline {
            let log = fs::read_to_string(bed.folder.path().join("prometheus.log"));
            bail!("{expression}: {last:?}, not {expect}:\n{}", log.unwrap_or_default());
        }
        last = query(bed, expression)?;
        // It tells nobody that it has scraped.
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A scrape as promtool sees it.
fn check(bed: &Bed) -> Result<()> {
    let text = bed.folder.path().join("metrics.txt");
    fs::write(&text, get(bed, AT, "/metrics")?)?;
    let arguments = ["-c", "exec promtool check metrics < \"$0\"", text.to_str().context("path")?];
    let said = programs::run(bed.lab.director(), "sh", &arguments)?;
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

pub(crate) fn scraped(plane: Plane) -> Result<()> {
    let mut bed = bed(plane)?;
    let _servers = bed.serve(80)?;
    bed.make_services("-t", 80, "rr", |_| 80)?;
    bed.ipvsadm("-A -f 7 -6 -s wlc")?;
    check(&bed)?;
    let prometheus = prometheus(&bed)?;
    let count = connections();
    await_value(&bed, &count, 0.0)?;
    connect(&bed, 10)?;
    await_value(&bed, &count, 10.0)?;
    check(&bed)?;
    await_value(&bed, "sum(ipvs_destination_weight)", 12.0)?;
    await_value(&bed, "count(ipvs_service_info)", 7.0)?;
    await_value(&bed, "sum(ipvs_connections_total)", 10.0)?;
    await_value(&bed, "ipvs_table_entries{table=\"connections\"} >= bool 10", 1.0)?;
    // The zero point is for listings, and an edit is no new service.
    bed.ipvsadm("-Z")?;
    let service = SocketAddr::new(vip(Method::Nat, true), 80);
    bed.ipvsadm(&format!("-E -t {service} -s wrr"))?;
    connect(&bed, 1)?;
    await_value(&bed, &count, 11.0)?;
    if plane.is_bpf() {
        bed.kill_daemon()?;
        await_value(&bed, "up", 0.0)?;
        connect(&bed, 5)?;
        bed.start_daemon()?;
        await_value(&bed, &count, 16.0)?;
        await_value(&bed, "ipvs_adoptions_total", 2.0)?;
        await_value(&bed, "up", 1.0)?;
    }
    await_value(&bed, &format!("resets({count}[5m])"), 0.0)?;
    drop(prometheus);
    Ok(())
}

pub(crate) fn while_restoring(plane: Plane) -> Result<()> {
    const SERVICES: u32 = 10_000;
    let bed = bed(plane)?;
    let restored = thread::scope(|scope| {
        let restoring = scope.spawn(|| bed.ipvsadm_reading("-R", &lines(SERVICES, 1)));
        let mut seen = Vec::new();
        while !restoring.is_finished() {
            seen.push(scrape(&bed)?["ipvs_table_entries{table=\"services\"}"]);
        }
        let restored = restoring.join().map_err(|panic| anyhow::anyhow!("{panic:?}"))??;
        let halfway = |services: &f64| *services > 0.0 && *services < f64::from(SERVICES);
        ensure!(seen.iter().any(halfway), "no scrape while services were added: {seen:?}");
        ensure!(seen.is_sorted(), "{seen:?}");
        Ok(restored)
    })?;
    ensure!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let values = scrape(&bed)?;
    let dests = values["ipvs_table_entries{table=\"destinations\"}"];
    ensure!(dests.total_cmp(&f64::from(SERVICES)).is_eq(), "{dests}");
    let weights = values.keys().filter(|name| name.starts_with("ipvs_destination_weight"));
    ensure!(weights.count() == SERVICES as usize);
    Ok(())
}

/// An address that is not the host's, and one that somebody has.
pub(crate) fn address_in_use(plane: Plane) -> Result<()> {
    let bed = bed(plane)?;
    for (at, why) in [(AT, "in use"), ("192.0.2.77:9475", "assign")] {
        let folder = bed.folder.path().join("second");
        fs::create_dir_all(&folder)?;
        let error = refused(&bed, &folder, at)?;
        ensure!(error.contains("--metrics") && error.contains(why), "{error}");
        ensure!(!folder.join("bpf").exists(), "the plane was touched");
    }
    ensure!(scrape(&bed)?.contains_key("ipvs_connections_total"));
    Ok(())
}

/// What a daemon says that does not start.
fn refused(bed: &Bed, folder: &Path, at: &str) -> Result<String> {
    let mut command = bed.daemon_command(&folder.join("sock"), &folder.join("bpf"))?;
    let log = folder.join("log");
    command.args(["--metrics", at]).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(&log)?);
    let status = bed.lab.director().spawn_child(command)?.child().wait()?;
    ensure!(!status.success(), "it started");
    Ok(fs::read_to_string(log)?)
}
