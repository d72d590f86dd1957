//! Pictures of the figures.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::medians::Medians;
use crate::report::Spread;

const SIZE: (u32, u32) = (900, 520);

/// Lines of a picture: by name, points.
type Lines = BTreeMap<String, Vec<(f64, f64)>>;

/// Draws what there is to be drawn.
pub(super) fn draw_all(medians: &Medians, folder: &Path) -> Result<()> {
    for (suite, title) in [
        ("forward-ipv4", "IPv4, known connections: ns added to a packet"),
        ("forward-ipv6", "IPv6, known connections: ns added to a packet"),
        ("program", "the program alone: ns"),
    ] {
        let lines = lines(medians.of(suite));
        if !lines.is_empty() {
            draw_lines(&folder.join(format!("{suite}.svg")), title, &lines)?;
        }
    }
    for (suite, begins, title) in [
        ("connect", "", "packets that open a connection: thousand a second"),
        ("memory", "charged/", "octets a connection"),
        ("scale", "", "two CPUs: times one"),
        ("proxy-view", "wrk/", "requests a second by wrk"),
        ("proxy-view", "iperf3/", "Gbit/s by iperf3"),
        ("proxy-view", "latency/", "latency at a fixed load: µs"),
        ("proxy-view", "udp/", "datagrams: thousand a second of CPU time"),
    ] {
        let is_rate = |name: &str| suite == "scale" && name.contains("/rate-of-");
        let bars: Vec<(&str, Spread)> = medians
            .of(suite)
            .iter()
            .filter(|(name, _)| name.starts_with(begins) && !is_rate(name))
            .map(|(name, spread)| (name.as_str(), *spread))
            .collect();
        if !bars.is_empty() {
            let which = begins.trim_end_matches('/');
            let name = if which.is_empty() { suite.to_owned() } else { format!("{suite}-{which}") };
            draw_bars(&folder.join(format!("{name}.svg")), title, &bars)?;
        }
    }
    Ok(())
}

/// Figures whose names end with how many flows there were.
fn lines(figures: &[(String, Spread)]) -> Lines {
    let mut lines = Lines::new();
    for (name, spread) in figures {
        let Some((line, flows)) = name.rsplit_once('/') else { continue };
        let Ok(flows) = flows.parse::<f64>() else { continue };
        lines.entry(line.to_owned()).or_default().push((flows, spread.median));
    }
    lines
}

fn draw_lines(path: &Path, title: &str, lines: &Lines) -> Result<()> {
    let points = || lines.values().flatten();
    let most = points().map(|(flows, _)| *flows).fold(10.0, f64::max);
    let top = points().map(|(_, ns)| *ns).fold(1.0, f64::max) * 1.05;
    let failed = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((1.0..most).log_scale(), 0.0..top)
        .map_err(|error| failed(&error))?;
    chart.configure_mesh().x_desc("flows").draw().map_err(|error| failed(&error))?;
    for (number, (name, points)) in lines.iter().enumerate() {
        let color = Palette99::pick(number).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color).point_size(3))
            .map_err(|error| failed(&error))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}

/// A bar from nothing to each median, and a line from the least to the greatest.
fn draw_bars(path: &Path, title: &str, bars: &[(&str, Spread)]) -> Result<()> {
    let top = bars.iter().map(|(_, it)| it.max).fold(f64::MIN_POSITIVE, f64::max) * 1.05;
    let count = u32::try_from(bars.len())?;
    let failed = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());
    let area = SVGBackend::new(path, (SIZE.0, 80 + 26 * count)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(200)
        .build_cartesian_2d(0.0..top, (0..count).into_segmented())
        .map_err(|error| failed(&error))?;
    let name = |place: &SegmentValue<u32>| {
        let (SegmentValue::CenterOf(place) | SegmentValue::Exact(place)) = place else {
            return String::new();
        };
        // From above, in the order of the table.
        let found = usize::try_from(count - 1 - place.min(&(count - 1))).ok();
        found.and_then(|it| bars.get(it)).map_or_else(String::new, |(name, _)| (*name).to_owned())
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(bars.len())
        .y_label_formatter(&name)
        .draw()
        .map_err(|error| failed(&error))?;
    for (number, (_, spread)) in (0..count).rev().zip(bars) {
        let (low, high) = (SegmentValue::Exact(number), SegmentValue::Exact(number + 1));
        let mut bar = Rectangle::new([(0.0, low), (spread.median, high)], BLUE.mix(0.6).filled());
        bar.set_margin(4, 4, 0, 0);
        let center = SegmentValue::CenterOf(number);
        let line = PathElement::new([(spread.min, center.clone()), (spread.max, center)], BLACK);
        chart.draw_series([bar]).map_err(|error| failed(&error))?;
        chart.draw_series([line]).map_err(|error| failed(&error))?;
    }
    area.present().map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_hold_the_names_of_what_was_measured() {
        let folder = tempfile::tempdir().unwrap();
        let medians = Medians::with(&[
            ("forward-ipv4:xdp-nat/1", 100.0),
            ("forward-ipv4:xdp-nat/10000", 160.0),
            ("connect:xdp-nat/empty", 700.0),
            ("connect:nft-dnat/empty", 300.0),
        ]);
        draw_all(&medians, folder.path()).unwrap();
        let read = |name| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let forward = read("forward-ipv4.svg");
        assert!(forward.contains("xdp-nat") && forward.contains("<polyline"), "{forward}");
        let connect = read("connect.svg");
        assert!(connect.contains("nft-dnat/empty") && connect.contains("<rect"), "{connect}");
        assert!(!folder.path().join("memory.svg").exists(), "nothing is drawn of nothing");
    }
}
