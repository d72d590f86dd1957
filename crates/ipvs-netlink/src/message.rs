//! Netlink messages: their header, the generic header behind it, and the
//! answers that every family has in common.

use rustix::io::Errno;

use crate::attr::{Writer, align4};

/// Length of the netlink header.
pub const HEADER_LEN: usize = 16;
/// Length of the netlink header and the generic one.
pub const GENERIC_HEADER_LEN: usize = HEADER_LEN + 4;

/// Bits of [`Header::flags`].
pub mod flags {
    /// Asks the other side to do something.
    pub const REQUEST: u16 = 0x01;
    /// More messages of this answer follow, up to [`super::kind::DONE`].
    pub const MULTI: u16 = 0x02;
    /// Asks for an acknowledgement.
    pub const ACK: u16 = 0x04;
    /// Asks for everything; both bits must be set.
    pub const DUMP: u16 = 0x300;
    /// On an acknowledgement: the request's header only is quoted.
    pub const CAPPED: u16 = 0x100;
}

/// Values of [`Header::kind`] that every family shares.
pub mod kind {
    /// An acknowledgement or an error.
    pub const ERROR: u16 = 2;
    /// The end of a dump.
    pub const DONE: u16 = 3;
    /// The lowest number that is not reserved for control messages.
    pub const FIRST_FAMILY: u16 = 0x10;
}

/// The header of a netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the message with its header, in octets.
    pub len: u32,
    /// [`kind`], or the number of a family.
    pub kind: u16,
    /// [`flags`].
    pub flags: u16,
    /// Chosen by the client and repeated in the answer.
    pub sequence: u32,
    /// The client's port; repeated in the answer.
    pub port: u32,
}

impl Header {
    /// Reads the header at the start of `bytes`.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (word, rest) = bytes.split_first_chunk::<4>()?;
        let (&[k0, k1, f0, f1], rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<4>()?;
        let (port, _) = rest.split_first_chunk::<4>()?;
        Some(Self {
            len: u32::from_ne_bytes(*word),
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes(*sequence),
            port: u32::from_ne_bytes(*port),
        })
    }

    /// Whether all of `bits` are set.
    pub const fn has(&self, bits: u16) -> bool {
        self.flags & bits == bits
    }

    /// The header as bytes.
    fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let fields = (self.len.to_ne_bytes().into_iter())
            .chain(self.kind.to_ne_bytes())
            .chain(self.flags.to_ne_bytes())
            .chain(self.sequence.to_ne_bytes())
            .chain(self.port.to_ne_bytes());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }
}

/// A message as it lies in a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// All of it, without the padding behind.
    pub bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// What follows the netlink header.
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or(&[])
    }

    /// The command of a generic message and what follows the generic header.
    pub fn generic(&self) -> Option<(u8, &'a [u8])> {
        let (&[command, _version, _, _], attrs) = self.payload().split_first_chunk()?;
        Some((command, attrs))
    }

    /// The errno of an error message, `Some(None)` for an acknowledgement, and
    /// `None` when this is neither.
    pub fn error(&self) -> Option<Option<Errno>> {
        if self.header.kind != kind::ERROR {
            return None;
        }
        match i32::from_ne_bytes(*self.payload().first_chunk()?).wrapping_neg() {
            0 => Some(None),
            code @ 1..=4095 => Some(Some(Errno::from_raw_os_error(code))),
            _ => Some(Some(Errno::IO)),
        }
    }
}

/// The messages of a datagram; ends at the first one that is not whole.
#[derive(Clone, Debug)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let header = Header::parse(self.0)?;
        let len = usize::try_from(header.len).ok()?;
        if len < HEADER_LEN {
            return None;
        }
        let bytes = self.0.get(..len)?;
        self.0 = self.0.get(align4(len)..).unwrap_or(&[]);
        Some(Message { header, bytes })
    }
}

impl Writer {
    /// A message whose payload `inner` writes; the length is filled in.
    pub(crate) fn message(&mut self, header: Header, inner: impl FnOnce(&mut Self)) {
        let at = self.len();
        self.raw(&header.to_bytes());
        inner(self);
        let len = u32::try_from(self.len() - at).unwrap_or(u32::MAX);
        self.patch(at, &len.to_ne_bytes());
        self.pad();
    }

    /// A generic message whose attributes `inner` writes.
    pub(crate) fn generic(
        &mut self,
        header: Header,
        command: u8,
        version: u8,
        inner: impl FnOnce(&mut Self),
    ) {
        self.message(header, |writer| {
            writer.raw(&[command, version, 0, 0]);
            inner(writer);
        });
    }
}

/// The acknowledgement of `request`: code 0 and its header.
pub(crate) fn acknowledgement(request: &Message<'_>) -> Writer {
    let header = answer(&request.header, kind::ERROR, flags::CAPPED);
    let mut writer = Writer::new();
    writer.message(header, |writer| {
        writer.raw(&[0; 4]);
        writer.raw(request.bytes.get(..HEADER_LEN).unwrap_or(&[]));
    });
    writer
}

/// The refusal of `request`: the negative errno and all of it.
pub(crate) fn refusal(request: &Message<'_>, errno: Errno) -> Writer {
    let mut writer = Writer::new();
    writer.message(answer(&request.header, kind::ERROR, 0), |writer| {
        writer.raw(&errno.raw_os_error().wrapping_neg().to_ne_bytes());
        writer.raw(request.bytes);
    });
    writer
}

/// The end of the dump that `request` asked for.
pub(crate) fn done(request: &Header) -> Writer {
    let mut writer = Writer::new();
    writer.message(answer(request, kind::DONE, flags::MULTI), |writer| writer.raw(&[0; 4]));
    writer
}

/// The header of an answer to `request`.
pub(crate) const fn answer(request: &Header, kind: u16, flags: u16) -> Header {
    Header { len: 0, kind, flags, sequence: request.sequence, port: request.port }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(payload: &[u8]) -> Vec<u8> {
        let header = Header { len: 0, kind: 0x20, flags: flags::REQUEST, sequence: 5, port: 9 };
        let mut writer = Writer::new();
        writer.message(header, |writer| writer.raw(payload));
        writer.into_bytes()
    }

    #[test]
    fn an_acknowledgement_is_capped_to_the_request_header() {
        let bytes = request(&[1, 2, 3, 4]);
        let message = Messages(&bytes).next().unwrap();
        let ack = acknowledgement(&message).into_bytes();
        assert_eq!(ack.len(), 36);
        assert_eq!(ack[..16], [36, 0, 0, 0, 2, 0, 0, 1, 5, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!(ack[16..20], [0; 4]);
        assert_eq!(ack[20..], bytes[..16]);
    }

    #[test]
    fn an_error_quotes_the_whole_request() {
        let bytes = request(&[1, 2, 3, 4]);
        let message = Messages(&bytes).next().unwrap();
        let error = refusal(&message, Errno::SRCH).into_bytes();
        assert_eq!(error[6..8], [0, 0]);
        assert_eq!(error[16..20], (-3i32).to_ne_bytes());
        assert_eq!(error[20..], bytes);
        let error = Messages(&error).next().unwrap();
        assert_eq!(error.error(), Some(Some(Errno::SRCH)));
    }

    #[test]
    fn a_message_longer_than_its_datagram_is_not_read() {
        let mut bytes = request(&[1, 2, 3, 4]);
        bytes[0] = 24;
        assert!(Messages(&bytes).next().is_none());
        bytes[0] = 15;
        assert!(Messages(&bytes).next().is_none());
    }
}
