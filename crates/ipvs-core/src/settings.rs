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
