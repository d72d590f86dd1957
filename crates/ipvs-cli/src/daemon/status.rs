//! `ipvs status`: what the daemon says of its plane.

use std::io::{self, Write};
use std::path::Path;

use ipvs_netlink::client::SeqpacketTransport;
use ipvs_netlink::status::Status;
use ipvs_netlink::{Client, ClientError};

/// Asks the daemon and shows the answer.
pub(super) fn show(socket: &Path) -> Result<(), String> {
    let asked = SeqpacketTransport::connect(socket)
        .map_err(ClientError::from)
        .and_then(Client::new)
        .and_then(|mut client| client.status());
    let status = asked.map_err(|error| {
        format!("{}: {error}; is `ipvs daemon` running, with its socket there?", socket.display())
    })?;
    match render(&mut io::stdout().lock(), &status) {
        // Whoever read the output has had enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Writes lines, then packets by reason.
fn render(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    for line in &status.lines {
        writeln!(out, "{line}")?;
    }
    if !status.packets.is_empty() {
        writeln!(out, "packets:")?;
    }
    for (reason, packets) in &status.packets {
        writeln!(out, "  {reason:<20} {packets:>12}")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_below_the_words() {
        let status = Status {
            lines: vec!["eBPF plane, fresh".to_owned()],
            packets: vec![("no_service".to_owned(), 3), ("forwarded".to_owned(), 1_234_567)],
        };
        let mut out = Vec::new();
        render(&mut out, &status).unwrap();
        let expect = "eBPF plane, fresh\npackets:\n  no_service                      3\n  \
                      forwarded                 1234567\n";
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }
}
