//! What the plane says of itself, in words.

use std::collections::BTreeSet;

use ipvs_core::service::ServiceKey;

use super::selection::excuse;
use super::worker::Worker;

impl Worker {
    /// A line for each thing that an administrator should know.
    pub(super) fn report(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.host().links().map(|link| self.about(link)).collect();
        lines.sort();
        lines.extend(self.forwarding.turned_off().map(|switch| {
            format!("{switch}: turned off until the plane ends, lest replies go out untranslated")
        }));
        let owned = |key: &ServiceKey| self.host().owns(key.family(), key.addr);
        let addrs = self.registry.keys().filter(owned).map(|key| key.addr.to_ip(key.family()));
        for addr in addrs.collect::<BTreeSet<_>>() {
            lines.push(format!(
                "virtual address {addr}: it is an address of this host, whose kernel answers its \
                 clients with a refusal; remove it from the host, the plane answers for it"
            ));
        }
        let counted = [
            (
                self.leaving.pending.dropped,
                "packets dropped: the next hop's MAC address was not found out",
            ),
            (
                self.ports.portless,
                "packets dropped: their way goes by an interface that is no port",
            ),
            (
                self.leaving.unfinished,
                "packets dropped: they could not be cut or completed for a tunnel",
            ),
            (
                self.undelivered,
                "packets for a destination on the director itself: this plane has no way to \
                 hand the host a changed packet",
            ),
        ];
        lines.extend(
            counted
                .into_iter()
                .filter(|(count, _)| *count != 0)
                .map(|(count, what)| format!("{count} {what}")),
        );
        lines
    }

    fn about(&self, link: &crate::rtnetlink::Link) -> String {
        let kind = if link.kind.is_empty() { "NIC" } else { &link.kind };
        let name = &link.name;
        if self.ports.all.iter().any(|port| port.link.index == link.index) {
            return format!("{name} ({kind}): user-space, by a packet socket with a ring");
        }
        let failure = self.failures.iter().find(|(failed, _)| failed == name);
        let reason = match failure {
            Some((_, reason)) => reason.as_str(),
            None if !link.carries_frames() => excuse(link),
            None => "it was not selected",
        };
        format!("{name} ({kind}): left out, {reason}")
    }
}
