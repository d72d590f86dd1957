//! What a kernel shows in files only: connections in `/proc/net/ip_vs_conn`, and
//! settings in `/proc/sys/net/ipv4/vs`.

use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use ipvs_core::addr::{Addr, Family};

use rustix::io::Errno;

use crate::client::ClientError;
use crate::conn::Connection;

/// Where the kernel has the settings.
const SETTINGS: &str = "/proc/sys/net/ipv4/vs";

/// Reads the settings of this network namespace, sorted by name.
pub(crate) fn settings() -> io::Result<Vec<(String, String)>> {
    let mut settings = Vec::new();
    for entry in fs::read_dir(SETTINGS)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            let text = fs::read_to_string(entry.path())?;
            settings.push((name, text.trim_end().to_owned()));
        }
    }
    settings.sort();
    Ok(settings)
}

/// Reads one setting.
pub(crate) fn setting(name: &str) -> Result<String, ClientError> {
    let text = fs::read_to_string(file(name)?).map_err(|error| refusal(&error))?;
    Ok(text.trim_end().to_owned())
}

/// Writes one setting.
pub(crate) fn set_setting(name: &str, text: &str) -> Result<(), ClientError> {
    fs::write(file(name)?, text).map_err(|error| refusal(&error))
}

/// The file of a setting, whose name must not lead elsewhere.
fn file(name: &str) -> Result<PathBuf, ClientError> {
    let path = Path::new(SETTINGS).join(name);
    let is_there = !name.contains('/') && path.is_file();
    if is_there { Ok(path) } else { Err(ClientError::Refused(Errno::NOENT)) }
}

fn refusal(error: &io::Error) -> ClientError {
    ClientError::Refused(Errno::from_io_error(error).unwrap_or(Errno::IO))
}

/// Reads a file of this network namespace.
pub(crate) fn file_text(name: &str) -> io::Result<String> {
    fs::read_to_string(Path::new("/proc/net").join(name))
}

/// Reads the connections of this network namespace.
pub(crate) fn connections() -> io::Result<Vec<Connection>> {
    let text = file_text("ip_vs_conn")?;
    Ok(text.lines().skip(1).filter_map(connection).collect())
}

/// The connection of one line; `None` for a line that is not one.
fn connection(line: &str) -> Option<Connection> {
    let mut words = line.split_ascii_whitespace();
    let protocol = protocol(words.next()?)?;
    let (family, client) = addr(words.next()?)?;
    let client_port = port(words.next()?)?;
    let (_, virtual_addr) = addr(words.next()?)?;
    let virtual_port = port(words.next()?)?;
    let (dest_family, dest) = addr(words.next()?)?;
    let dest_port = port(words.next()?)?;
    let state = words.next()?.to_owned();
    let seconds: u64 = words.next()?.parse().ok()?;
    let engine = words.next().unwrap_or_default().to_owned();
    let engine_data = words.collect::<Vec<_>>().join(" ");
    Some(Connection {
        family,
        protocol,
        client,
        client_port,
        virtual_addr,
        virtual_port,
        dest_family,
        dest,
        dest_port,
        state,
        expires_ms: seconds.saturating_mul(1000),
        flags: 0,
        fwmark: 0,
        engine,
        engine_data,
    })
}

/// The number of a protocol as the kernel names it.
fn protocol(name: &str) -> Option<u8> {
    match name {
        "IP" => Some(0),
        "ICMP" => Some(1),
        "TCP" => Some(6),
        "UDP" => Some(17),
        "ICMPv6" => Some(58),
        "SCTP" => Some(132),
        _ => name.strip_prefix("IP_")?.parse().ok(),
    }
}

/// An address in hexadecimal: eight digits, or eight groups of four.
fn addr(text: &str) -> Option<(Family, Addr)> {
    if text.contains(':') {
        let ip: Ipv6Addr = text.trim_matches(['[', ']']).parse().ok()?;
        return Some((Family::V6, Addr::v6(ip.octets())));
    }
    let number = u32::from_str_radix(text, 16).ok()?;
    Some((Family::V4, Addr::v4(number.to_be_bytes())))
}

/// A port in hexadecimal.
fn port(text: &str) -> Option<u16> {
    u16::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read() {
        let line = "TCP CB007163 C350 C000020A 0050 0A01000B 1F90 ESTABLISHED     899";
        let conn = connection(line).unwrap();
        assert_eq!((conn.protocol, conn.client_port, conn.dest_port), (6, 50000, 8080));
        assert_eq!(conn.dest, Addr::v4([10, 1, 0, 11]));
        assert_eq!((conn.state.as_str(), conn.expires_ms), ("ESTABLISHED", 899_000));
    }

    #[test]
    fn a_line_with_engine_data_and_long_addresses_is_read() {
        let line = "UDP 2001:0db8:000c:0000:0000:0000:0000:0063 0000 \
            2001:0db8:000c:0000:0000:0000:0000:0010 13C4 0A01000B 13C4 NONE 59 sip id@host";
        let conn = connection(line).unwrap();
        assert_eq!((conn.family, conn.dest_family), (Family::V6, Family::V4));
        assert_eq!((conn.engine.as_str(), conn.engine_data.as_str()), ("sip", "id@host"));
    }
}
