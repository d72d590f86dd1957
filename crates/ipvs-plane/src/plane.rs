//! What every data plane offers its daemon besides the configuration.

use core::time::Duration;

use ipvs_core::snapshot::Control;

use crate::measure::{Ground, Measures};
use crate::rtnetlink::Neighbour;

/// A data plane that is driven by a daemon.
pub trait Plane: Control + Send {
    /// One line of words for each interface, and for what else a user should
    /// know: how packets get in, and why this way.
    fn report(&self) -> Vec<String>;

    /// To be called about once a second: gives back what edits left behind.
    fn tick(&mut self);

    /// To be called when interfaces, addresses or routes of the host changed; what follows
    /// from it may be left to [`go_on`](Self::go_on).
    fn host_changed(&mut self);

    /// To be called when nothing but these neighbours of the host changed.
    fn neighbours_changed(&mut self, neighbours: &[Neighbour]);

    /// Does a share of the work that was put off, a few milliseconds long; returns whether
    /// there is more.
    fn go_on(&mut self) -> bool {
        false
    }

    /// Sets the virtual ports of FTP control connections that are helped, from
    /// the next connection on; 0 is none.
    fn set_ftp_ports(&mut self, ports: [u16; 8]);

    /// Moves the plane's clock forward; for tests, in which no hour is waited for.
    fn shift_clock(&mut self, by: Duration);

    /// How long it is, on the plane's clock, until statistics are made next.
    fn until_look(&mut self) -> Duration;

    /// Ends the connections that are due now.
    fn sweep(&mut self);

    /// Counters whatever the zero point, loads, and how full the tables are.
    fn measure(&mut self) -> Measures;

    /// Interfaces, and what the plane takes of the kernel.
    fn ground(&mut self) -> Ground;

    /// Packets by reason, those that were never counted left out.
    fn reasons(&mut self) -> Vec<(ipvs_core::verdict::Reason, u64)>;
}
