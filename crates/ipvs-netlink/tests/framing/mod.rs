//! Requests as bytes, made by hand.

use ipvs_netlink::attr::Writer;

/// A request of `family` with the attributes that `write` writes.
pub(crate) fn request(
    family: u16,
    flags: u16,
    command: u8,
    write: impl FnOnce(&mut Writer),
) -> Vec<u8> {
    let mut attrs = Writer::new();
    write(&mut attrs);
    let len = u32::try_from(20 + attrs.len()).unwrap();
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(family.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([7, 0, 0, 0, 9, 0, 0, 0, command, 1, 0, 0]);
    bytes.extend(attrs.bytes());
    bytes
}
