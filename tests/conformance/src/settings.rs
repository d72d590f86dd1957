//! The kernel's `net.ipv4.vs` settings as cases change them.

/// Settings with the values that the kernel starts with, and that a director
/// without the setting behaves as if it had.
const DEFAULTS: [(&str, &str); 14] = [
    ("cache_bypass", "0"),
    ("conn_reuse_mode", "1"),
    ("conntrack", "0"),
    ("drop_entry", "0"),
    ("drop_packet", "0"),
    ("expire_nodest_conn", "0"),
    ("expire_quiescent_template", "0"),
    ("nat_icmp_send", "0"),
    ("pmtu_disc", "1"),
    ("schedule_icmp", "0"),
    ("secure_tcp", "0"),
    ("sloppy_sctp", "0"),
    ("sloppy_tcp", "0"),
    ("sync_version", "1"),
];

/// Whether nothing changes when the setting is given this value.
pub fn is_default(name: &str, value: &str) -> bool {
    DEFAULTS.contains(&(name, value))
}
