//! What holds for all services: timeouts and the `net.ipv4.vs` settings.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::proto::{sctp, tcp};

/// Settings as a data plane reads them; written by the control side only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// TCP timeouts by state number, in milliseconds.
    pub tcp_timeouts: [u32; 16],
    /// SCTP timeouts by state number, in milliseconds.
    pub sctp_timeouts: [u32; 16],
    /// UDP timeout, in milliseconds.
    pub udp_timeout: u32,
    /// Counts up when routes or neighbours change.
    pub route_generation: u32,
    /// `conn_reuse_mode`.
    pub conn_reuse_mode: u32,
    /// `expire_nodest_conn`.
    pub expire_nodest_conn: u32,
    /// `sloppy_tcp`.
    pub sloppy_tcp: u32,
    /// `sloppy_sctp`.
    pub sloppy_sctp: u32,
    /// `pmtu_disc`.
    pub pmtu_disc: u32,
    /// Added to the kernel's clock, in nanoseconds: tests move time with it.
    pub clock_offset_low: u32,
    /// High half of the same.
    pub clock_offset_high: u32,
    /// Number of IPv4 services. With none every packet of the family passes,
    /// those of connections that are left too: the kernel then does not look
    /// at the family at all (recorded on 6.1).
    pub services_v4: u32,
    /// Number of IPv6 services.
    pub services_v6: u32,
    /// Number of services for all ports.
    pub all_port_services: u32,
    /// Number of services for FTP control connections.
    pub ftp_services: u32,
    /// `expire_quiescent_template`.
    pub expire_quiescent_template: u32,
    /// `amemthresh`, in pages.
    pub amemthresh: u32,
    /// `am_droprate`.
    pub am_droprate: u32,
    /// `drop_entry`.
    pub drop_entry: u32,
    /// `drop_packet`.
    pub drop_packet: u32,
    /// `secure_tcp`.
    pub secure_tcp: u32,
    /// `conntrack`.
    pub conntrack: u32,
    /// `snat_reroute`.
    pub snat_reroute: u32,
    /// `cache_bypass`.
    pub cache_bypass: u32,
    /// `nat_icmp_send`.
    pub nat_icmp_send: u32,
    /// `schedule_icmp`.
    pub schedule_icmp: u32,
    /// `ignore_tunneled`.
    pub ignore_tunneled: u32,
    /// `backup_only`.
    pub backup_only: u32,
    /// `run_estimation`.
    pub run_estimation: u32,
    /// `lblc_expiration`, in seconds.
    pub lblc_expiration: u32,
    /// `lblcr_expiration`, in seconds.
    pub lblcr_expiration: u32,
    /// Number of destinations whose own datagrams leave as their service's.
    pub callers: u32,
    /// Virtual ports of FTP control connections that are helped; 0 is none.
    pub ftp_ports: [u16; 8],
    /// `sync_version`.
    pub sync_version: u32,
    /// `sync_ports`.
    pub sync_ports: u32,
    /// `sync_persist_mode`.
    pub sync_persist_mode: u32,
    /// `sync_qlen_max`, in messages: low and high half.
    pub sync_qlen_max: [u32; 2],
    /// `sync_sock_size`, in octets.
    pub sync_sock_size: u32,
    /// `sync_threshold`: threshold and period, in packets.
    pub sync_threshold: [u32; 2],
    /// `sync_refresh_period`, in seconds.
    pub sync_refresh_period: u32,
    /// `sync_retries`.
    pub sync_retries: u32,
    /// Of so many packets that start a connection `drop_packet` drops one at
    /// present; 0 for none ([`defence::adjust`](crate::defence::adjust)).
    pub drop_rate: u32,
    /// Interface by which the host takes in what the plane gives it; 0 for none.
    pub door: u32,
    /// The [list](crate::mark::list) of mark rules; 0 if there are none.
    pub mark_rules: u32,
}

impl Settings {
    /// The kernel's defaults.
    pub const DEFAULT: Self = Self {
        tcp_timeouts: tcp::TIMEOUTS,
        sctp_timeouts: sctp::TIMEOUTS,
        udp_timeout: 300_000,
        route_generation: 0,
        conn_reuse_mode: 1,
        expire_nodest_conn: 0,
        sloppy_tcp: 0,
        sloppy_sctp: 0,
        pmtu_disc: 1,
        clock_offset_low: 0,
        clock_offset_high: 0,
        services_v4: 0,
        services_v6: 0,
        all_port_services: 0,
        ftp_services: 0,
        expire_quiescent_template: 0,
        amemthresh: 1024,
        am_droprate: 10,
        drop_entry: 0,
        drop_packet: 0,
        secure_tcp: 0,
        conntrack: 0,
        snat_reroute: 1,
        cache_bypass: 0,
        nat_icmp_send: 0,
        schedule_icmp: 0,
        ignore_tunneled: 0,
        backup_only: 0,
        run_estimation: 1,
        lblc_expiration: 86_400,
        lblcr_expiration: 86_400,
        callers: 0,
        ftp_ports: [21, 0, 0, 0, 0, 0, 0, 0],
        sync_version: 1,
        sync_ports: 1,
        sync_persist_mode: 0,
        sync_qlen_max: [0, 0],
        sync_sock_size: 0,
        sync_threshold: [3, 50],
        sync_refresh_period: 0,
        sync_retries: 0,
        drop_rate: 0,
        door: 0,
        mark_rules: 0,
    };

    /// What to add to the kernel's clock, in nanoseconds.
    #[inline(always)]
    pub const fn clock_offset(&self) -> u64 {
        (self.clock_offset_high as u64) << 32 | self.clock_offset_low as u64
    }

    /// Sets what to add to the kernel's clock, in nanoseconds.
    #[expect(clippy::cast_possible_truncation, reason = "split into two halves")]
    pub fn set_clock_offset(&mut self, nanos: u64) {
        self.clock_offset_high = (nanos >> 32) as u32;
        self.clock_offset_low = nanos as u32;
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::DEFAULT
    }
}
