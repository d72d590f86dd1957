//! iperf3 through the director: long streams, both directions.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::programs::{iperf3_server, run};
use ipvs_e2e::{Bed, METHODS, Method, Plane, vip};
use serde_json::Value;

pub(crate) const NEEDS: &[&str] = &["iperf3"];

const PORT: u16 = 5201;

pub(crate) fn tcp(plane: Plane) -> Result<()> {
    each(plane, |at, iperf3| {
        for reverse in [&[][..], &["-R"]] {
            let report = iperf3(&[&["-n", "30M"], reverse].concat())?;
            let received = number(&report, "/end/sum_received/bytes")?;
            ensure!(received > 10e6, "{at} {reverse:?}: only {received} octets came");
        }
        Ok(())
    })
}

pub(crate) fn udp(plane: Plane) -> Result<()> {
    each(plane, |at, iperf3| {
        for reverse in [&[][..], &["-R"]] {
            // Datagrams that fill the MTU, so slowly that a receiver's buffer lasts while a
            // busy machine does other things.
            let udp = [&["-u", "-b", "8M", "-n", "1M", "-l", "1400"], reverse].concat();
            let report = iperf3(&udp)?;
            let packets = number(&report, "/end/sum/packets")?;
            let lost = number(&report, "/end/sum/lost_percent")?;
            ensure!(
                packets > 700.0 && lost < 5.0,
                "{at} {reverse:?}: {packets} sent, {lost} % lost"
            );
        }
        Ok(())
    })
}

/// A client that is given more arguments and returns the client's report.
type Iperf3<'a> = &'a dyn Fn(&[&str]) -> Result<Value>;

/// Runs `test` for every virtual address, with one server, for the connections
/// of a client belong together.
fn each(plane: Plane, test: impl Fn(SocketAddr, Iperf3<'_>) -> Result<()>) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let host = bed.lab.servers().first().context("no server")?;
    for transport in ["-t", "-u"] {
        bed.make_services(transport, PORT, "rr", |_| PORT)?;
    }
    for method in METHODS {
        for v4 in [true, false] {
            let at = SocketAddr::new(vip(method, v4), PORT);
            // It answers datagrams from whichever address the kernel likes, unless it has one.
            let own = if method == Method::Nat { host.address(at.ip()) } else { at.ip() };
            let (address, port) = (at.ip().to_string(), PORT.to_string());
            test(at, &|more| {
                // A new one each time: it is busy for a while after a test.
                let _server = iperf3_server(host, own, PORT)?;
                let mut arguments = vec!["-c", &address, "-p", &port, "-J"];
                arguments.extend(["--connect-timeout", "3000"]);
                arguments.extend(more);
                Ok(serde_json::from_str(&run(bed.lab.client(), "iperf3", &arguments)?)?)
            })
            .with_context(|| format!("{method:?} {at}; the director: {:?}", bed.status()))?;
        }
    }
    Ok(())
}

fn number(report: &Value, path: &str) -> Result<f64> {
    report.pointer(path).and_then(Value::as_f64).with_context(|| format!("no {path} in {report}"))
}
