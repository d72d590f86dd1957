//! UDP: one state; every packet of either side starts the timeout anew.

/// The one state as the kernel prints it.
pub const STATE_NAME: &str = "UDP";
