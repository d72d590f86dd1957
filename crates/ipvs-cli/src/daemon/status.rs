//! `ipvs status`: what the daemon says of its plane.

mod health;

use std::io::{self, Write};

use ipvs_netlink::health::Health;
use ipvs_netlink::status::Status;
use serde_json::json;

use super::{connect, options, unreachable};

/// Asks the daemon and shows the answer.
pub(super) fn show(options: &options::Status) -> Result<(), String> {
    let socket = &options.socket;
    let mut client = connect(socket)?;
    let asked = client.status().and_then(|status| Ok((status, client.health()?)));
    let (status, health) = asked.map_err(|error| unreachable(socket, &error))?;
    let render = if options.json { as_json } else { as_text };
    match render(&mut io::stdout().lock(), &status, &health) {
        // Whoever read the output has had enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Writes lines, then the health of destinations, tables and packets by reason, and at the end
/// what is wrong.
fn as_text(out: &mut dyn Write, status: &Status, health: &Health) -> io::Result<()> {
    for line in &status.lines {
        writeln!(out, "{line}")?;
    }
    health::as_text(out, health)?;
    if !status.tables.is_empty() {
        writeln!(out, "tables:")?;
    }
    for table in &status.tables {
        let percent = u128::from(table.entries) * 100 / u128::from(table.capacity.max(1));
        let (name, entries, capacity) = (&table.name, table.entries, table.capacity);
        writeln!(out, "  {name:<20} {entries:>12} of {capacity} ({percent} %)")?;
    }
    if !status.packets.is_empty() {
        writeln!(out, "packets:")?;
    }
    for (reason, packets) in &status.packets {
        writeln!(out, "  {reason:<20} {packets:>12}")?;
    }
    if status.problems.is_empty() {
        writeln!(out, "problems: none found")?;
    } else {
        writeln!(out, "problems:")?;
    }
    for problem in &status.problems {
        writeln!(out, "  {problem}")?;
    }
    out.flush()
}

/// Writes the same as an object, interfaces apart from the lines.
fn as_json(out: &mut dyn Write, status: &Status, health: &Health) -> io::Result<()> {
    let interfaces = status.interfaces.iter();
    let interfaces: Vec<_> = interfaces
        .map(|it| json!({ "name": it.name, "mode": it.mode, "reason": it.why }))
        .collect();
    let tables = status.tables.iter();
    let tables: Vec<_> = tables
        .map(|it| json!({ "name": it.name, "entries": it.entries, "capacity": it.capacity }))
        .collect();
    let packets: serde_json::Map<_, _> =
        status.packets.iter().map(|(reason, count)| (reason.clone(), (*count).into())).collect();
    let object = json!({
        "lines": status.lines,
        "interfaces": interfaces,
        "tables": tables,
        "packets": packets,
        "health": health::as_json(health),
        "problems": status.problems,
    });
    writeln!(out, "{object:#}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use ipvs_netlink::status::{Fill, Interface};

    use super::*;

    fn status() -> Status {
        let why = "a network card".to_owned();
        Status {
            lines: vec!["eBPF plane, fresh".to_owned()],
            packets: vec![("no_service".to_owned(), 3), ("forwarded".to_owned(), 1_234_567)],
            interfaces: vec![Interface { name: "eth0".to_owned(), mode: "xdp".to_owned(), why }],
            tables: vec![Fill { name: "services".to_owned(), entries: 9, capacity: 10 }],
            problems: vec!["it is \"full\"".to_owned()],
        }
    }

    type Render = fn(&mut dyn Write, &Status, &Health) -> io::Result<()>;

    fn written(render: Render, of: &Status) -> String {
        let mut out = Vec::new();
        render(&mut out, of, &Health::default()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tables_reasons_and_problems_stand_below_the_words() {
        let expect = "eBPF plane, fresh\ntables:\n  services                        9 of 10 (90 %)\n\
                      packets:\n  no_service                      3\n  \
                      forwarded                 1234567\nproblems:\n  it is \"full\"\n";
        assert_eq!(written(as_text, &status()), expect);
        assert_eq!(written(as_text, &Status::default()), "problems: none found\n");
    }

    #[test]
    fn as_json_it_is_one_object_with_everything() {
        let object: serde_json::Value = serde_json::from_str(&written(as_json, &status())).unwrap();
        let expect = json!({
            "lines": ["eBPF plane, fresh"],
            "interfaces": [{ "name": "eth0", "mode": "xdp", "reason": "a network card" }],
            "tables": [{ "name": "services", "entries": 9, "capacity": 10 }],
            "packets": { "no_service": 3, "forwarded": 1_234_567 },
            "health": [],
            "problems": ["it is \"full\""],
        });
        assert_eq!(object, expect);
    }
}
