//! A snapshot as metrics. Their names, types and labels are an interface that
//! docs/metrics.md lists; a test holds the two together.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::dest::DestKey;
use ipvs_core::service::ServiceKey;
use ipvs_core::stats::Counters;
use ipvs_core::verdict::Reason;
use ipvs_health::check::Failure;
use ipvs_plane::measure::MeasuredDest;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
    prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Snapshot;

/// In which form metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
}

impl Format {
    /// What a client that says `accept` is given.
    pub(super) fn of(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// Writes a snapshot.
pub(super) fn write(snapshot: Snapshot, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition::new(snapshot)));
    let mut out = String::new();
    match format {
        Format::OpenMetrics => text::encode(&mut out, &registry)?,
        Format::Prometheus => prometheus_text::encode(&mut out, &registry)?,
    }
    Ok(out)
}

/// What services and destinations count: the end of the name, help, and the count.
type Counted = (&'static str, &'static str, fn(&Counters) -> u64);

const COUNTED: [Counted; 5] = [
    ("connections", "Connections scheduled", |it| it.conns),
    ("incoming_packets", "Packets from clients", |it| it.in_packets),
    ("outgoing_packets", "Packets to clients that passed the director", |it| it.out_packets),
    ("incoming_bytes", "IP octets from clients", |it| it.in_bytes),
    ("outgoing_bytes", "IP octets to clients that passed the director", |it| it.out_bytes),
];

/// What destinations have: the end of the name, help, and the value.
type Held = (&'static str, &'static str, fn(&MeasuredDest) -> i64);

const HELD: [Held; 5] = [
    ("weight", "Weight, 0 if quiescent or drained", |it| it.weight.into()),
    ("drains", "1 while it is drained", |it| it.drains.into()),
    ("active_connections", "Connections counted active", |it| it.load.active.into()),
    ("inactive_connections", "Connections counted inactive", |it| it.load.inactive.into()),
    ("persistent_connections", "Persistence templates", |it| it.load.persistent.into()),
];

/// The labels of a metric that there is one of.
const ALONE: [(&str, &str); 0] = [];

/// A snapshot and what its services and destinations are called.
#[derive(Debug)]
struct Exposition {
    snapshot: Snapshot,
    names: Vec<Names>,
}

/// The labels of a service, and those of its destinations.
#[derive(Debug)]
struct Names {
    protocol: Cow<'static, str>,
    service: String,
    dests: Vec<String>,
}

impl Exposition {
    fn new(snapshot: Snapshot) -> Self {
        let names = snapshot.measures.services.iter().map(|service| {
            let dests = service.dests.iter().map(|dest| dest.key);
            Names {
                protocol: protocol(&service.key),
                service: name(&service.key),
                dests: dests.map(|key| socket(key.family(), key.addr, key.port)).collect(),
            }
        });
        Self { names: names.collect(), snapshot }
    }

    fn daemon(&self, out: &mut Out<'_>) -> fmt::Result {
        let Snapshot { ground, measures, process, .. } = &self.snapshot;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        out.gauges("ipvs_build_info", "Version of the daemon", [(version, 1)])?;
        let plane = [("plane", ground.plane)];
        out.gauges("ipvs_plane_info", "Data plane, bpf or user", [(plane, 1)])?;
        let interfaces = ground.interfaces.iter();
        let interfaces =
            interfaces.map(|it| ([("interface", it.name.as_str()), ("mode", it.mode)], 1));
        let help = "Interface that is balanced on, and how packets are taken from it";
        out.gauges("ipvs_interface_info", help, interfaces)?;
        let adoptions = [(ALONE, u64::from(measures.adoptions))];
        let help = "Daemons that took the plane over since it was loaded";
        out.counters("ipvs_adoptions", help, adoptions)?;
        let help = "Start of the daemon since the Unix epoch, in seconds";
        out.gauges("process_start_time_seconds", help, [(ALONE, process.started)])?;
        let help = "Processor time of the daemon, in seconds";
        out.counters("process_cpu_seconds", help, [(ALONE, process.cpu_seconds)])?;
        let help = "Memory of the daemon, in octets";
        out.gauges("process_resident_memory_bytes", help, [(ALONE, process.resident)])
    }

    fn tables(&self, out: &mut Out<'_>) -> fmt::Result {
        let tables = &self.snapshot.measures.tables;
        let values = tables.iter().map(|it| ([("table", it.name)], it.entries));
        out.gauges("ipvs_table_entries", "Places of a table that are taken", values)?;
        let values = tables.iter().map(|it| ([("table", it.name)], it.capacity));
        out.gauges("ipvs_table_capacity", "Places that a table has", values)?;
        let counts = self.snapshot.ground.neighbours.into_iter();
        let values = counts
            .flat_map(|counts| ["kept", "on_demand"].into_iter().zip(counts))
            .map(|(state, count)| ([("state", state)], count));
        let help = "Neighbours of destinations: kept resolved, or resolved once needed";
        out.gauges("ipvs_neighbours", help, values)?;
        let settings = self.snapshot.settings.iter();
        let settings = settings.map(|(name, value)| ([("name", *name)], *value));
        out.gauges("ipvs_setting", "Settings of net.ipv4.vs that are one number", settings)
    }

    fn kernel(&self, out: &mut Out<'_>) -> fmt::Result {
        let ground = &self.snapshot.ground;
        let maps = ground.maps.iter().map(|(map, octets)| ([("map", *map)], *octets));
        out.gauges("ipvs_bpf_map_memory_bytes", "Memory of an eBPF map, in octets", maps)?;
        let programs = || ground.programs.iter();
        let info = programs().map(|it| ([("program", it.name), ("tag", it.tag.as_str())], 1));
        let help = "eBPF program, and the kernel's hash of its instructions";
        out.gauges("ipvs_bpf_program_info", help, info)?;
        let runs = programs().map(|it| ([("program", it.name)], it.runs));
        let help = "Runs of an eBPF program while kernel.bpf_stats_enabled was on";
        out.counters("ipvs_bpf_program_runs", help, runs)?;
        let seconds = programs().map(|it| {
            let run_time = std::time::Duration::from_nanos(it.run_time_ns);
            ([("program", it.name)], run_time.as_secs_f64())
        });
        let help = "Time that those runs took, in seconds";
        out.counters("ipvs_bpf_program_run_time_seconds", help, seconds)
    }

    fn packets(&self, out: &mut Out<'_>) -> fmt::Result {
        let packets = |reason: &Reason| {
            let mut counted = self.snapshot.packets.iter();
            let count = counted.find(|(of, _)| of == reason).map_or(0, |(_, count)| *count);
            ([("outcome", outcome(*reason)), ("reason", reason.label())], count)
        };
        let help = "Packets by what became of them, and why";
        out.counters("ipvs_packets", help, Reason::ALL.iter().map(packets))?;
        for (end, help, of) in COUNTED {
            let total = of(&self.snapshot.measures.total);
            let help = format!("{help}, of all services together");
            out.counters(&format!("ipvs_{end}"), &help, [(ALONE, total)])?;
        }
        Ok(())
    }

    fn services(&self, out: &mut Out<'_>) -> fmt::Result {
        let services = || {
            self.names.iter().zip(&self.snapshot.measures.services).map(|(names, service)| {
                ([("protocol", names.protocol.as_ref()), ("service", &names.service)], service)
            })
        };
        let info = services().map(|([protocol, name], service)| {
            ([protocol, name, ("scheduler", service.scheduler.as_str())], 1)
        });
        out.gauges("ipvs_service_info", "Virtual service and its scheduler", info)?;
        let dests = services().map(|(labels, service)| (labels, service.dests.len()));
        out.gauges("ipvs_service_destinations", "Destinations of the service", dests)?;
        for (end, help, of) in COUNTED {
            let values = services().map(|(labels, service)| (labels, of(&service.counters)));
            out.counters(&format!("ipvs_service_{end}"), help, values)?;
        }
        Ok(())
    }

    fn dests(&self, out: &mut Out<'_>) -> fmt::Result {
        let dests = || {
            let services = self.names.iter().zip(&self.snapshot.measures.services);
            services.flat_map(|(names, service)| {
                names.dests.iter().zip(&service.dests).map(|(name, dest)| {
                    let labels = [
                        ("protocol", names.protocol.as_ref()),
                        ("service", names.service.as_str()),
                        ("destination", name.as_str()),
                    ];
                    (labels, dest)
                })
            })
        };
        for (end, help, of) in HELD {
            let values = dests().map(|(labels, dest)| (labels, of(dest)));
            out.gauges(&format!("ipvs_destination_{end}"), help, values)?;
        }
        for (end, help, of) in COUNTED {
            let values = dests().map(|(labels, dest)| (labels, of(&dest.counters)));
            out.counters(&format!("ipvs_destination_{end}"), help, values)?;
        }
        Ok(())
    }
}

impl Exposition {
    fn health(&self, out: &mut Out<'_>) -> fmt::Result {
        let health = &self.snapshot.health;
        let of_service = |key: &ServiceKey| (protocol(key), name(key));
        let quorums = health.quorums.iter().map(|(key, has)| (of_service(key), has));
        let quorums: Vec<_> = quorums.collect();
        let values = quorums.iter().map(|((protocol, service), has)| {
            ([("protocol", protocol.as_ref()), ("service", service)], u64::from(**has))
        });
        out.gauges("ipvs_service_quorum", "1 if the checked service has its quorum", values)?;
        let of_dest = |key: &ServiceKey, dest: &DestKey| {
            let (protocol, service) = of_service(key);
            (protocol, service, socket(dest.family(), dest.addr, dest.port))
        };
        let up: Vec<_> = health.up.iter().map(|(key, dest, up)| (of_dest(key, dest), up)).collect();
        let values = up.iter().map(|((protocol, service, dest), up)| {
            let labels = [
                ("protocol", protocol.as_ref()),
                ("service", service),
                ("destination", dest.as_str()),
            ];
            (labels, u64::from(**up))
        });
        out.gauges("ipvs_destination_up", "1 if the checked destination is up", values)?;
        let checks: Vec<_> = health
            .checks
            .iter()
            .map(|check| (of_dest(&check.key.service, &check.key.dest), check))
            .collect();
        let each = || {
            checks.iter().map(|((protocol, service, dest), check)| {
                let labels = [
                    ("protocol", protocol.as_ref()),
                    ("service", service.as_str()),
                    ("destination", dest.as_str()),
                    ("check", check.check.as_str()),
                ];
                (labels, *check)
            })
        };
        let values = each().map(|(labels, check)| (labels, u64::from(check.up)));
        out.gauges("ipvs_check_up", "1 if the check is passed, by rise and fall", values)?;
        let values = each().flat_map(|([protocol, service, dest, name], check)| {
            let counts = Failure::LABELS.into_iter().zip(check.results);
            counts.map(move |(result, count)| {
                ([protocol, service, dest, name, ("result", result)], count)
            })
        });
        out.counters("ipvs_check_results", "Checks made, by their result", values)?;
        let values = each().map(|(labels, check)| (labels, check.spent.as_secs_f64()));
        let help = "Time that the checks took, in seconds";
        out.counters("ipvs_check_duration_seconds", help, values)?;
        let values = each().filter_map(|(labels, it)| Some((labels, it.last?.as_secs_f64())));
        out.gauges("ipvs_check_latency_seconds", "Time that the last check took", values)
    }
}

impl Collector for Exposition {
    fn encode(&self, out: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(out);
        self.daemon(&mut out)?;
        self.tables(&mut out)?;
        self.kernel(&mut out)?;
        self.packets(&mut out)?;
        self.services(&mut out)?;
        self.dests(&mut out)?;
        self.health(&mut out)
    }
}

/// Where metrics go, a family at a time.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    /// A family of counters; `_total` is put behind its name.
    fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

/// The protocol of a service, or that it goes by a firewall mark: one of each family may.
fn protocol(key: &ServiceKey) -> Cow<'static, str> {
    match (key.is_fwmark(), key.family(), key.protocol) {
        (true, Family::V4, _) => "fwmark".into(),
        (true, Family::V6, _) => "fwmark6".into(),
        (false, _, 6) => "tcp".into(),
        (false, _, 17) => "udp".into(),
        (false, _, 132) => "sctp".into(),
        (false, _, other) => other.to_string().into(),
    }
}

/// A service as ipvsadm takes it.
fn name(key: &ServiceKey) -> String {
    if key.is_fwmark() {
        return key.fwmark.to_string();
    }
    socket(key.family(), key.addr, key.port)
}

fn socket(family: Family, addr: Addr, port: u16) -> String {
    SocketAddr::new(addr.to_ip(family), port).to_string()
}

/// What became of a packet that is counted under this reason.
const fn outcome(reason: Reason) -> &'static str {
    use Reason::*;
    match reason {
        Forwarded | Replied => "forwarded",
        NotIp | NoService | OtherProtocol | Malformed | Fragment | OtherHost | NotStarting
        | NotLocal | Local | LeftToCut | LeftToRefuse | DirectReply | Unresolved | Tagged
        | OptionsRefused => "passed",
        ShortTransport | BadChecksum | NeverSent | DestGone | NoDestination | NoRoute | TooLong
        | NoEngineData | TableFull | Defence | Unwritable | Unanswerable | Unsupported
        | DeferredLost | FragmentBad | FragmentTimeout | FragmentPushedOut => "dropped",
        SentUnreachable | SentTimeExceeded | SentTooBig | SentReset => "answered",
        // No verdict: besides one, or before it.
        PathMtuLearnt | CacheFull => "noted",
        DeferredFragment | DeferredOptions | DeferredLong | DeferredUnfilled | DeferredHelped
        | DeferredReset => "deferred",
    }
}

#[cfg(test)]
mod tests;
