//! What the service manager that has started the daemon, such as systemd, is told of how the
//! daemon stands (`sd_notify(3)`). Without one nobody is told.

use sd_notify::NotifyState;

/// The daemon answers, and `status` says in a line what it does.
pub(crate) fn tell_ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Something is read again; [`tell_ready`] is to follow.
pub(crate) fn tell_reloading() {
    let now = NotifyState::monotonic_usec_now();
    tell(&[Ok(NotifyState::Reloading), now].into_iter().flatten().collect::<Vec<_>>());
}

/// The daemon has come round once more, for a manager that wants to hear that it is not stuck.
pub(crate) fn tell_alive() {
    if sd_notify::watchdog_enabled().is_some() {
        tell(&[NotifyState::Watchdog]);
    }
}

/// The daemon ends, as it was told to.
pub(crate) fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
