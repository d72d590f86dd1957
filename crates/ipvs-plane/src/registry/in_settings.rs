//! What edits of services and timeouts leave in the settings, which every packet reads.

use std::collections::HashMap;

use ipvs_core::addr::Family;
use ipvs_core::command::{CommandError, TimeoutEdit};
use ipvs_core::engine::{Caller, CallerKey};
use ipvs_core::proto::tcp;
use ipvs_core::service::ServiceKey;
use ipvs_core::settings::Settings;

/// How many destinations send by themselves.
pub(super) fn count(callers: &HashMap<CallerKey, Caller>) -> u32 {
    u32::try_from(callers.len()).unwrap_or(u32::MAX)
}

/// The settings with the number of services of each kind.
pub(super) fn counted<'a>(
    settings: &Settings,
    keys: impl Iterator<Item = &'a ServiceKey>,
) -> Settings {
    let none = Settings { services_v4: 0, services_v6: 0, all_port_services: 0, ..*settings };
    let mut counted = Settings { ftp_services: 0, ..none };
    keys.for_each(|key| count_service(&mut counted, key, 1));
    counted
}

/// Counts a service that comes, or one that goes with `by` -1.
pub(super) fn count_service(settings: &mut Settings, key: &ServiceKey, by: i32) {
    let count = |count: &mut u32, is_one: bool| {
        *count = count.saturating_add_signed(if is_one { by } else { 0 });
    };
    count(&mut settings.services_v4, key.family() == Family::V4);
    count(&mut settings.services_v6, key.family() == Family::V6);
    count(&mut settings.all_port_services, key.port == 0 && !key.is_fwmark());
    count(&mut settings.ftp_services, key.port == 21);
}

/// Changes the timeouts that are not zero.
pub(super) fn set_timeouts(
    settings: &mut Settings,
    edit: &TimeoutEdit,
) -> Result<(), CommandError> {
    let millis = |seconds: u32| seconds.checked_mul(1000).ok_or(CommandError::Invalid);
    for (state, seconds) in [(tcp::ESTABLISHED, edit.tcp), (tcp::FIN_WAIT, edit.tcp_fin)] {
        let value = millis(seconds)?;
        if value != 0
            && let Some(timeout) = settings.tcp_timeouts.get_mut(usize::from(state))
        {
            *timeout = value;
        }
    }
    let udp = millis(edit.udp)?;
    if udp != 0 {
        settings.udp_timeout = udp;
    }
    Ok(())
}
