//! Netlink attributes: read without copying, checked by a policy, and written.

/// Length of an attribute's header.
const HEADER_LEN: usize = 4;
/// The bits of an attribute's type that are its number; the other two say
/// "nested" and "network byte order" and are not looked at.
const TYPE_MASK: u16 = 0x3fff;

/// Rounds a length up to the alignment of messages and attributes.
pub(crate) const fn align4(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// The attributes in a run of bytes, as number and payload.
///
/// Ends silently at the first header that does not fit, as the kernel's reader
/// does: bytes after the last attribute are ignored.
#[derive(Clone, Debug)]
pub struct Attrs<'a>(pub &'a [u8]);

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[l0, l1, t0, t1], _) = self.0.split_first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let payload = self.0.get(HEADER_LEN..len)?;
        self.0 = self.0.get(align4(len)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([t0, t1]) & TYPE_MASK, payload))
    }
}

/// What the payload of an attribute must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// At least so many bytes; more are ignored.
    AtLeast(usize),
    /// At most so many bytes.
    AtMost(usize),
    /// A text of at most so many bytes that ends with a NUL.
    Text(usize),
    /// Attributes, or nothing.
    Nest,
}

/// Why an attribute was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAttr {
    /// Too short, or longer than its type allows.
    Length,
    /// A text without an end.
    Unterminated,
}

impl Policy {
    /// Checks one payload.
    fn check(self, payload: &[u8]) -> Result<(), BadAttr> {
        let fits = match self {
            Self::AtLeast(len) => payload.len() >= len,
            Self::AtMost(len) => payload.len() <= len,
            Self::Nest => payload.is_empty() || payload.len() >= HEADER_LEN,
            Self::Text(max) => {
                if !payload.iter().take(max.saturating_add(1)).any(|&octet| octet == 0) {
                    return Err(BadAttr::Unterminated);
                }
                // One NUL at the very end does not count.
                payload.strip_suffix(&[0]).unwrap_or(payload).len() <= max
            }
        };
        if fits { Ok(()) } else { Err(BadAttr::Length) }
    }
}

/// The attributes 1 to `N - 1` of one level, each checked by its policy.
///
/// Unknown numbers are ignored; of an attribute given twice the last counts.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a, const N: usize> {
    payloads: [Option<&'a [u8]>; N],
}

impl<'a, const N: usize> Table<'a, N> {
    /// Reads `bytes` and checks the attributes that have a policy.
    pub fn parse(bytes: &'a [u8], policies: &[(u16, Policy)]) -> Result<Self, BadAttr> {
        let mut payloads = [None; N];
        for (number, payload) in Attrs(bytes) {
            let Some(slot) = payloads.get_mut(usize::from(number)) else { continue };
            for (_, policy) in policies.iter().filter(|(of, _)| *of == number) {
                policy.check(payload)?;
            }
            *slot = Some(payload);
        }
        Ok(Self { payloads })
    }

    /// The payload of an attribute, if it is there.
    pub fn get(&self, number: u16) -> Option<&'a [u8]> {
        self.payloads.get(usize::from(number)).copied().flatten()
    }

    /// The first bytes of an attribute's payload, if there are as many.
    pub fn array<const LEN: usize>(&self, number: u16) -> Option<[u8; LEN]> {
        self.get(number)?.first_chunk().copied()
    }

    /// An octet.
    pub fn u8(&self, number: u16) -> Option<u8> {
        self.array(number).map(u8::from_ne_bytes)
    }

    /// A 16-bit integer in host order.
    pub fn u16(&self, number: u16) -> Option<u16> {
        self.array(number).map(u16::from_ne_bytes)
    }

    /// A 16-bit integer in network order.
    pub fn be16(&self, number: u16) -> Option<u16> {
        self.array(number).map(u16::from_be_bytes)
    }

    /// A 32-bit integer in host order.
    pub fn u32(&self, number: u16) -> Option<u32> {
        self.array(number).map(u32::from_ne_bytes)
    }

    /// A 64-bit integer in host order.
    pub fn u64(&self, number: u16) -> Option<u64> {
        self.array(number).map(u64::from_ne_bytes)
    }

    /// A payload cut or filled up with zeros to `LEN` bytes.
    pub fn padded<const LEN: usize>(&self, number: u16) -> Option<[u8; LEN]> {
        let payload = self.get(number)?;
        let mut bytes = [0; LEN];
        for (to, from) in bytes.iter_mut().zip(payload) {
            *to = *from;
        }
        Some(bytes)
    }

    /// The bytes of a text before its NUL.
    pub fn text(&self, number: u16) -> Option<&'a [u8]> {
        self.get(number)?.split(|&octet| octet == 0).next()
    }
}

/// Writes attributes, and the messages around them, one after another.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// What has been written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes what has been written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Number of bytes written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends plain bytes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Removes the first `len` bytes.
    pub(crate) fn drop_front(&mut self, len: usize) {
        self.bytes.drain(..len.min(self.bytes.len()));
    }

    /// Overwrites bytes at `at`, which were written before.
    pub(crate) fn patch(&mut self, at: usize, bytes: &[u8]) {
        let end = at.saturating_add(bytes.len());
        if let Some(place) = self.bytes.get_mut(at..end) {
            place.copy_from_slice(bytes);
        }
    }

    /// Fills up to the alignment.
    pub(crate) fn pad(&mut self) {
        self.bytes.resize(align4(self.bytes.len()), 0);
    }

    /// An attribute with these bytes as payload.
    pub fn attr(&mut self, number: u16, payload: &[u8]) {
        self.nest(number, |writer| writer.raw(payload));
    }

    /// An attribute whose payload `inner` writes.
    pub fn nest(&mut self, number: u16, inner: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.raw(&[0; HEADER_LEN]);
        inner(self);
        // No attribute of these families comes near 64 KiB.
        let len = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        let mut header = [0; HEADER_LEN];
        let (len_field, type_field) = header.split_at_mut(2);
        len_field.copy_from_slice(&len.to_ne_bytes());
        type_field.copy_from_slice(&number.to_ne_bytes());
        self.patch(at, &header);
        self.pad();
    }

    /// An octet.
    pub fn u8(&mut self, number: u16, value: u8) {
        self.attr(number, &[value]);
    }

    /// A 16-bit integer in host order.
    pub fn u16(&mut self, number: u16, value: u16) {
        self.attr(number, &value.to_ne_bytes());
    }

    /// A 16-bit integer in network order.
    pub fn be16(&mut self, number: u16, value: u16) {
        self.attr(number, &value.to_be_bytes());
    }

    /// A 32-bit integer in host order.
    pub fn u32(&mut self, number: u16, value: u32) {
        self.attr(number, &value.to_ne_bytes());
    }

    /// A 64-bit integer in host order.
    pub fn u64(&mut self, number: u16, value: u64) {
        self.attr(number, &value.to_ne_bytes());
    }

    /// A text and its NUL.
    pub fn text(&mut self, number: u16, text: &[u8]) {
        self.nest(number, |writer| {
            writer.raw(text);
            writer.raw(&[0]);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of_15(payload: &[u8]) -> Result<(), BadAttr> {
        let mut writer = Writer::new();
        writer.attr(1, payload);
        Table::<2>::parse(writer.bytes(), &[(1, Policy::Text(15))]).map(|_| ())
    }

    #[test]
    fn a_text_must_end_within_its_length() {
        assert_eq!(text_of_15(b"wlc\0"), Ok(()));
        assert_eq!(text_of_15(b"wlc\0rest"), Ok(()));
        assert_eq!(text_of_15(b"wlc"), Err(BadAttr::Unterminated));
        assert_eq!(text_of_15(b""), Err(BadAttr::Unterminated));
        assert_eq!(text_of_15(b"123456789012345\0"), Ok(()));
        assert_eq!(text_of_15(b"1234567890123456\0"), Err(BadAttr::Unterminated));
        assert_eq!(text_of_15(b"123\0abcdefghijkl"), Err(BadAttr::Length));
    }

    #[test]
    fn reading_stops_at_a_header_that_does_not_fit() {
        let mut writer = Writer::new();
        writer.u16(1, 7);
        let mut bytes = writer.into_bytes();
        bytes.extend_from_slice(&[200, 0, 2, 0, 1]);
        let numbers: Vec<u16> = Attrs(&bytes).map(|(number, _)| number).collect();
        assert_eq!(numbers, [1]);
    }

    #[test]
    fn the_nested_bit_is_not_part_of_the_number() {
        let bytes = [4, 0, 1, 0x80];
        assert_eq!(Attrs(&bytes).next(), Some((1, &[][..])));
    }

    #[test]
    fn the_last_of_equal_attributes_counts() {
        let mut writer = Writer::new();
        writer.u32(1, 1);
        writer.u32(1, 2);
        let table = Table::<2>::parse(writer.bytes(), &[(1, Policy::AtLeast(4))]).unwrap();
        assert_eq!(table.u32(1), Some(2));
    }

    #[test]
    fn attributes_are_padded_to_four() {
        let mut writer = Writer::new();
        writer.u8(3, 9);
        assert_eq!(writer.bytes(), [5, 0, 3, 0, 9, 0, 0, 0]);
    }
}
