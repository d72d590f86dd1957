//! The kernel's `net.ipv4.vs` settings as cases change them.

use ipvs_core::settings::Settings;

use crate::subject::Trouble;

/// Settings with the values that the kernel starts with, and that a director
/// without the setting behaves as if it had.
const DEFAULTS: [(&str, &str); 9] = [
    ("cache_bypass", "0"),
    ("conntrack", "0"),
    ("drop_entry", "0"),
    ("drop_packet", "0"),
    ("expire_quiescent_template", "0"),
    ("nat_icmp_send", "0"),
    ("schedule_icmp", "0"),
    ("secure_tcp", "0"),
    ("sync_version", "1"),
];

/// A setting with the value that it is to have.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    field: fn(&mut Settings) -> &mut u32,
    value: u32,
}

impl Change {
    /// What `sysctl -w net.ipv4.vs.NAME=VALUE` asks for; `None` if nothing has
    /// to be changed for it.
    pub fn of(name: &str, value: &str) -> Result<Option<Self>, Trouble> {
        let field: fn(&mut Settings) -> &mut u32 = match name {
            "conn_reuse_mode" => |it| &mut it.conn_reuse_mode,
            "expire_nodest_conn" => |it| &mut it.expire_nodest_conn,
            "pmtu_disc" => |it| &mut it.pmtu_disc,
            "sloppy_sctp" => |it| &mut it.sloppy_sctp,
            "sloppy_tcp" => |it| &mut it.sloppy_tcp,
            _ if DEFAULTS.contains(&(name, value)) => return Ok(None),
            _ => return Err(Trouble::Unsupported(format!("setting {name}={value}"))),
        };
        match value.parse() {
            Ok(value) => Ok(Some(Self { field, value })),
            Err(_) => Err(Trouble::Unsupported(format!("setting {name}={value}"))),
        }
    }

    /// Makes the change.
    pub fn make(self, settings: &mut Settings) {
        *(self.field)(settings) = self.value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_not_there_may_be_set_to_what_holds_anyway() {
        assert!(Change::of("conntrack", "0").unwrap().is_none());
        assert!(Change::of("conntrack", "1").is_err());
        let mut settings = Settings::DEFAULT;
        Change::of("sloppy_tcp", "1").unwrap().unwrap().make(&mut settings);
        assert_eq!(settings, Settings { sloppy_tcp: 1, ..Settings::DEFAULT });
    }
}
