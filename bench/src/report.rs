//! The figures: medians and spreads, as a table for people and as JSON.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::mode::Mode;

/// What the issue of the plane asks: NAT adds at most this share of what
/// nftables adds.
const NAT_TARGET: f64 = 0.25;

/// What was measured of one mode with one number of flows.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// The mode.
    pub(crate) mode: Mode,
    /// How many flows.
    pub(crate) flows: u32,
    /// Of each round.
    pub(crate) samples: Vec<Sample>,
    /// Why there is no figure.
    pub(crate) flaw: Option<String>,
    /// Nanoseconds of a run of the eBPF program, by the kernel's own count,
    /// which costs some itself.
    pub(crate) program_ns: Option<f64>,
}

/// What was measured in one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Packets sent.
    pub(crate) sent: u32,
    /// Packets that arrived as they should.
    pub(crate) arrived: u64,
    /// Seconds by the clock on the wall.
    pub(crate) seconds: f64,
    /// Seconds that the CPU spent on it.
    pub(crate) cpu_seconds: f64,
    /// Nanoseconds that the CPU spent on each packet that arrived.
    pub(crate) ns: f64,
    /// The same by the clock on the wall: more, if others had the CPU meanwhile.
    pub(crate) wall_ns: f64,
}

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// Half of the values are below, half above.
    pub(crate) median: f64,
    /// Least.
    pub(crate) min: f64,
    /// Greatest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of `values`; of none there is none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

/// All figures of a run, and under which circumstances they were taken.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Where.
    pub(crate) machine: Machine,
    /// The CPU that did everything.
    pub(crate) cpu: usize,
    /// `IPv4` or `IPv6`.
    pub(crate) family: &'static str,
    /// Octets of a frame, without its check sequence.
    pub(crate) frame_octets: usize,
    /// How flows take turns.
    pub(crate) order: &'static str,
    /// How many rounds.
    pub(crate) rounds: u32,
    /// How long a measurement was to take.
    pub(crate) seconds: f64,
    /// The figures.
    pub(crate) results: Vec<Figures>,
    /// What is compared.
    pub(crate) ratios: Vec<Ratio>,
}

/// The figures of one mode with one number of flows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// The mode's name.
    pub(crate) mode: &'static str,
    /// How many flows.
    pub(crate) flows: u32,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flaw: Option<String>,
    /// Nanoseconds of the CPU for a packet, generator and sink included.
    pub(crate) ns: Option<Spread>,
    /// Nanoseconds on the wall.
    pub(crate) wall_ns: Option<Spread>,
    /// Nanoseconds over the floor of the same round.
    pub(crate) added_ns: Option<Spread>,
    /// See [`Series::program_ns`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) program_ns: Option<f64>,
    /// Of each round.
    pub(crate) samples: Vec<Sample>,
}

/// What one mode adds as a share of what another adds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ratio {
    /// One.
    pub(crate) mode: &'static str,
    /// The other.
    pub(crate) against: &'static str,
    /// How many flows.
    pub(crate) flows: u32,
    /// The share of the medians.
    pub(crate) share: f64,
    /// What it should be at most, if anything is asked.
    pub(crate) target: Option<f64>,
}

/// Makes figures out of measurements.
pub(crate) fn figures(all: &[Series]) -> Vec<Figures> {
    all.iter()
        .map(|series| {
            let floor = all.iter().find(|it| it.mode == Mode::Floor && it.flows == series.flows);
            let usable = series.flaw.is_none();
            let added = floor.filter(|floor| usable && floor.flaw.is_none()).and_then(|floor| {
                let pairs = series.samples.iter().zip(&floor.samples);
                Spread::of(pairs.map(|(sample, floor)| sample.ns - floor.ns))
            });
            let ns = Spread::of(series.samples.iter().map(|sample| sample.ns));
            let wall_ns = Spread::of(series.samples.iter().map(|sample| sample.wall_ns));
            Figures {
                mode: series.mode.name(),
                flows: series.flows,
                flaw: series.flaw.clone(),
                ns: ns.filter(|_| usable),
                wall_ns: wall_ns.filter(|_| usable),
                added_ns: added.filter(|_| series.mode != Mode::Floor),
                program_ns: series.program_ns,
                samples: series.samples.clone(),
            }
        })
        .collect()
}

/// Compares what is to be compared.
pub(crate) fn ratios(figures: &[Figures]) -> Vec<Ratio> {
    const PAIRS: [(&str, &str, Option<f64>); 6] = [
        ("xdp-nat", "nft-dnat", Some(NAT_TARGET)),
        ("tc-nat", "nft-dnat", None),
        ("xdp-dr", "ip-forward", None),
        ("tc-dr", "ip-forward", None),
        ("xdp-ipip", "ip-forward", None),
        ("tc-ipip", "ip-forward", None),
    ];
    let added = |mode: &str, flows: u32| {
        let figures = figures.iter().find(|it| it.mode == mode && it.flows == flows)?;
        Some(figures.added_ns?.median)
    };
    let mut flows: Vec<u32> = figures.iter().map(|it| it.flows).collect();
    flows.sort_unstable();
    flows.dedup();
    let mut ratios = Vec::new();
    for (mode, against, target) in PAIRS {
        for &flows in &flows {
            if let (Some(one), Some(other)) = (added(mode, flows), added(against, flows)) {
                ratios.push(Ratio { mode, against, flows, share: one / other, target });
            }
        }
    }
    ratios
}

impl Report {
    /// Writes the table.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", self.machine)?;
        writeln!(
            out,
            "{}, TCP of known connections, drawn {}, frames of {} octets; median (least to greatest) of {} rounds",
            self.family, self.order, self.frame_octets, self.rounds
        )?;
        writeln!(
            out,
            "time of CPU {}, which does everything: generator, director, sink",
            self.cpu
        )?;
        let mut flows = None;
        for figures in &self.results {
            if flows != Some(figures.flows) {
                flows = Some(figures.flows);
                let program = if self.has_program_times() { "  program, ns" } else { "" };
                writeln!(
                    out,
                    "\n{:<14}{:>6}  {:>22}  {:>22}  {:>7}{program}",
                    flows_in_words(figures.flows),
                    "Mpps",
                    "ns for a packet",
                    "added ns",
                    "wall ns"
                )?;
            }
            figures.write(out)?;
        }
        writeln!(out)?;
        for ratio in &self.ratios {
            ratio.write(out)?;
        }
        Ok(())
    }

    fn has_program_times(&self) -> bool {
        self.results.iter().any(|figures| figures.program_ns.is_some())
    }
}

impl Figures {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        write!(out, "{:<14}", self.mode)?;
        match (&self.flaw, self.ns) {
            (Some(flaw), _) => write!(out, "no figure: {flaw}")?,
            (None, None) => write!(out, "no figure")?,
            (None, Some(ns)) => {
                write!(out, "{:>6.2}  {:>22}", 1e3 / ns.median, in_words(ns))?;
                let added = self.added_ns.map(in_words).unwrap_or_default();
                write!(out, "  {added:>22}")?;
                if let Some(wall) = self.wall_ns {
                    write!(out, "  {:>7.0}", wall.median)?;
                }
                if let Some(program) = self.program_ns {
                    write!(out, "  {program:>11.0}")?;
                }
            }
        }
        writeln!(out)
    }
}

impl Ratio {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { mode, against, flows, share, target } = self;
        write!(out, "{mode} adds {share:.2} of what {against} adds, {}", flows_in_words(*flows))?;
        match target {
            Some(target) if share <= target => write!(out, " (asked: at most {target}; met)")?,
            Some(target) => write!(out, " (asked: at most {target}; NOT met)")?,
            None => {}
        }
        writeln!(out)
    }
}

fn in_words(Spread { median, min, max }: Spread) -> String {
    format!("{median:.0} ({min:.0} to {max:.0})")
}

fn flows_in_words(flows: u32) -> String {
    match flows {
        1 => "1 flow".to_owned(),
        _ if flows.is_multiple_of(1000) => format!("{} k flows", flows / 1000),
        _ => format!("{flows} flows"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(mode: Mode, ns: &[f64], flaw: Option<&str>) -> Series {
        let sample =
            |&ns| Sample { sent: 1, arrived: 1, seconds: 1.0, cpu_seconds: 1.0, ns, wall_ns: ns };
        Series {
            mode,
            flows: 1,
            samples: ns.iter().map(sample).collect(),
            flaw: flaw.map(str::to_owned),
            program_ns: None,
        }
    }

    fn named(name: &str) -> Mode {
        Mode::named(name).unwrap()
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn what_is_added_is_taken_round_by_round() {
        let all = [
            series(Mode::Floor, &[100.0, 200.0, 300.0], None),
            series(named("xdp-nat"), &[110.0, 220.0, 310.0], None),
        ];
        let added = figures(&all)[1].added_ns.unwrap();
        assert_eq!(added, Spread { median: 10.0, min: 10.0, max: 20.0 });
    }

    #[test]
    fn a_flaw_leaves_no_figure_and_no_ratio() {
        let all = [
            series(Mode::Floor, &[100.0], None),
            series(named("xdp-nat"), &[150.0], None),
            series(named("nft-dnat"), &[1100.0], Some("half was lost")),
        ];
        let figures = figures(&all);
        assert!(figures[2].ns.is_none() && figures[2].added_ns.is_none());
        assert!(ratios(&figures).is_empty());
    }

    #[test]
    fn the_share_is_held_against_what_is_asked() {
        let all = [
            series(Mode::Floor, &[100.0], None),
            series(named("xdp-nat"), &[300.0], None),
            series(named("nft-dnat"), &[1100.0], None),
        ];
        let ratios = ratios(&figures(&all));
        let mut out = Vec::new();
        ratios[0].write(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "xdp-nat adds 0.20 of what nft-dnat adds, 1 flow (asked: at most 0.25; met)\n"
        );
    }
}
