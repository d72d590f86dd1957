//! The file as it is written: its keys, and nothing about what they mean.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

type Text = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[serde(default)]
    pub(crate) timeouts: Timeouts,
    #[serde(default)]
    pub(crate) sysctl: BTreeMap<Text, Spanned<Setting>>,
    #[serde(default)]
    pub(crate) sync: Sync,
    #[serde(default)]
    pub(crate) mark: Vec<Spanned<MarkTable>>,
    #[serde(default)]
    pub(crate) service: Vec<Spanned<Service>>,
}

/// In seconds; what is left out stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with tcp, tcp_fin or udp")]
pub(crate) struct Timeouts {
    pub(crate) tcp: Option<Spanned<u32>>,
    pub(crate) tcp_fin: Option<Spanned<u32>>,
    pub(crate) udp: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a setting is a number or a text")]
pub(crate) enum Setting {
    Number(i64),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) address: Option<Text>,
    pub(crate) protocol: Option<Text>,
    pub(crate) port: Option<Spanned<u16>>,
    pub(crate) fwmark: Option<Spanned<u32>>,
    pub(crate) family: Option<Text>,
    pub(crate) scheduler: Option<Text>,
    #[serde(default)]
    pub(crate) flags: Vec<Text>,
    pub(crate) persistence: Option<Spanned<Persistence>>,
    #[serde(default)]
    pub(crate) one_packet: bool,
    #[serde(default)]
    pub(crate) check: Vec<Spanned<Check>>,
    pub(crate) health: Option<Spanned<Health>>,
    pub(crate) sorry_server: Option<Spanned<Dest>>,
    #[serde(default)]
    pub(crate) destination: Vec<Spanned<Dest>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with timeout, netmask or engine")]
pub(crate) struct Persistence {
    pub(crate) timeout: Option<Spanned<u32>>,
    pub(crate) netmask: Option<Spanned<NumberOrText>>,
    pub(crate) engine: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dest {
    pub(crate) address: Text,
    pub(crate) port: Option<Spanned<u16>>,
    pub(crate) method: Option<Text>,
    pub(crate) weight: Option<Spanned<u32>>,
    #[serde(default)]
    pub(crate) upper_threshold: u32,
    pub(crate) lower_threshold: Option<Spanned<u32>>,
    pub(crate) tunnel: Option<Spanned<Tunnel>>,
    pub(crate) check: Option<Vec<Spanned<Check>>>,
}

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table with on_failure, initial, quorum, hysteresis or slow_start"
)]
pub(crate) struct Health {
    pub(crate) on_failure: Option<Text>,
    pub(crate) initial: Option<Text>,
    pub(crate) quorum: Option<Spanned<u32>>,
    pub(crate) hysteresis: Option<Spanned<u32>>,
    pub(crate) slow_start: Option<Text>,
}

/// The keys of all types of checks; which has which is seen when it is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Check {
    pub(crate) r#type: Text,
    pub(crate) address: Option<Text>,
    pub(crate) port: Option<Spanned<u16>>,
    pub(crate) source: Option<Text>,
    pub(crate) mark: Option<Spanned<u32>>,
    pub(crate) interval: Option<Text>,
    pub(crate) retry_interval: Option<Text>,
    pub(crate) timeout: Option<Text>,
    pub(crate) delay: Option<Text>,
    pub(crate) jitter: Option<Spanned<u32>>,
    pub(crate) rise: Option<Spanned<u32>>,
    pub(crate) fall: Option<Spanned<u32>>,
    pub(crate) dampening: Option<Spanned<Dampening>>,
    pub(crate) method: Option<Text>,
    pub(crate) path: Option<Text>,
    pub(crate) host: Option<Text>,
    pub(crate) status: Option<Spanned<Vec<Spanned<NumberOrText>>>>,
    pub(crate) body: Option<Text>,
    pub(crate) sni: Option<Text>,
    pub(crate) verify: Option<Spanned<bool>>,
    pub(crate) ca_file: Option<Text>,
    pub(crate) days: Option<Spanned<u32>>,
    pub(crate) name: Option<Text>,
    pub(crate) record: Option<Text>,
    pub(crate) rcode: Option<Text>,
    pub(crate) answer: Option<Text>,
    pub(crate) payload: Option<Text>,
    pub(crate) payload_hex: Option<Text>,
    pub(crate) require_reply: Option<Spanned<bool>>,
    pub(crate) reply: Option<Text>,
    pub(crate) reply_hex: Option<Text>,
    pub(crate) helo: Option<Text>,
    pub(crate) service: Option<Text>,
    pub(crate) tls: Option<Spanned<bool>>,
    pub(crate) send: Option<Text>,
    pub(crate) command: Option<Spanned<Vec<String>>>,
    pub(crate) user: Option<Text>,
    pub(crate) group: Option<Text>,
    pub(crate) dynamic: Option<Spanned<bool>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with falls, within and hold")]
pub(crate) struct Dampening {
    pub(crate) falls: Spanned<u32>,
    pub(crate) within: Text,
    pub(crate) hold: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with type, port or checksum")]
pub(crate) struct Tunnel {
    pub(crate) r#type: Text,
    pub(crate) port: Option<Spanned<u16>>,
    pub(crate) checksum: Option<Text>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "this is a number or a text")]
pub(crate) enum NumberOrText {
    Number(u32),
    Text(String),
}

impl NumberOrText {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with master or backup")]
pub(crate) struct Sync {
    pub(crate) master: Option<Spanned<SyncDaemon>>,
    pub(crate) backup: Option<Spanned<SyncDaemon>>,
}

/// What is left out is the director's choice.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with interface")]
pub(crate) struct SyncDaemon {
    pub(crate) interface: Text,
    pub(crate) id: Option<Spanned<u8>>,
    pub(crate) max_length: Option<Spanned<u16>>,
    pub(crate) group: Option<Text>,
    pub(crate) port: Option<Spanned<u16>>,
    pub(crate) ttl: Option<Spanned<u8>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MarkTable {
    pub(crate) mark: Spanned<u32>,
    pub(crate) mask: Option<Spanned<u32>>,
    pub(crate) family: Option<Text>,
    pub(crate) from: Option<Text>,
    pub(crate) to: Option<Text>,
    pub(crate) protocol: Option<Spanned<NumberOrText>>,
    pub(crate) ports: Option<Spanned<NumberOrText>>,
    pub(crate) interface: Option<Text>,
}
