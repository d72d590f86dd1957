//! The virtio-net header in front of each frame of a packet socket: what the
//! stack has left for later, an unfilled checksum or the cutting of a train.

use ipvs_wire::checksum::Sum;
use ipvs_wire::transport::{protocol, sctp, tcp, udp};
use ipvs_wire::{Buffer, Headers};

use crate::frame::Frame;

/// Octets of the header.
pub(crate) const LEN: usize = 10;

/// Flag: the checksum from `csum_start` on is to be filled in.
const NEEDS_CSUM: u8 = 1;
/// Not a train.
const GSO_NONE: u8 = 0;
/// A train of TCP segments over IPv4.
const GSO_TCPV4: u8 = 1;
/// A train of TCP segments over IPv6.
const GSO_TCPV6: u8 = 4;
/// A train of UDP datagrams.
const GSO_UDP_L4: u8 = 5;
/// Added to a TCP train whose first segment says "congestion window reduced".
const GSO_ECN: u8 = 0x80;
/// TCP flag "congestion window reduced".
const CWR: u8 = 0x80;

/// `struct virtio_net_hdr` of `linux/virtio_net.h`; numbers are in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VirtioHeader {
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

impl VirtioHeader {
    pub(crate) fn parse(o: [u8; LEN]) -> Self {
        let word = |a, b| u16::from_ne_bytes([a, b]);
        Self {
            flags: o[0],
            gso_type: o[1],
            hdr_len: word(o[2], o[3]),
            gso_size: word(o[4], o[5]),
            csum_start: word(o[6], o[7]),
            csum_offset: word(o[8], o[9]),
        }
    }

    pub(crate) fn octets(self) -> [u8; LEN] {
        let [h, g, s, o] =
            [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset].map(u16::to_ne_bytes);
        [self.flags, self.gso_type, h[0], h[1], g[0], g[1], s[0], s[1], o[0], o[1]]
    }

    /// Tells `frame` what the header says. `None`: a kind of train that cannot
    /// be passed on.
    pub(crate) fn describe(self, frame: &mut Frame) -> Option<()> {
        frame.segment_len = match self.gso_type & !GSO_ECN {
            GSO_NONE => 0,
            GSO_TCPV4 | GSO_TCPV6 | GSO_UDP_L4 if self.gso_size != 0 => u32::from(self.gso_size),
            _ => return None,
        };
        frame.checksum_pending = self.flags & NEEDS_CSUM != 0;
        if frame.checksum_pending && u32::from(self.csum_offset) == sctp::CHECKSUM {
            return complete_sctp(frame);
        }
        if frame.segment_len != 0 && !frame.checksum_pending {
            return leave_checksum(frame);
        }
        Some(())
    }

    /// The header to send `frame` with. `None`: something is pending that the
    /// header has no words for.
    pub(crate) fn of(frame: &Frame) -> Option<Self> {
        if !frame.checksum_pending && frame.segment_len == 0 {
            return Some(Self::default());
        }
        let h = Headers::parse(frame).ok()?;
        let (gso_type, header_len, csum_offset) = match h.protocol {
            protocol::TCP => {
                let [offset, flags] = frame.load(h.l4 + 12)?;
                let gso = if h.version == 6 { GSO_TCPV6 } else { GSO_TCPV4 };
                let ecn = if flags & CWR != 0 { GSO_ECN } else { 0 };
                (gso | ecn, u32::from(offset >> 4) * 4, tcp::CHECKSUM)
            }
            protocol::UDP => (GSO_UDP_L4, udp::HEADER_LEN, udp::CHECKSUM),
            _ => return None,
        };
        let header = Self {
            flags: NEEDS_CSUM,
            csum_start: u16::try_from(h.l4).ok()?,
            csum_offset: u16::try_from(csum_offset).ok()?,
            ..Self::default()
        };
        if frame.segment_len == 0 {
            return Some(header);
        }
        Some(Self {
            gso_type,
            gso_size: u16::try_from(frame.segment_len).ok()?,
            hdr_len: u16::try_from(h.l4 + header_len).ok()?,
            ..header
        })
    }
}

/// SCTP has another checksum, which the header cannot ask for on the way out.
fn complete_sctp(frame: &mut Frame) -> Option<()> {
    let h = Headers::parse(frame).ok()?;
    let at = h.l4 + sctp::CHECKSUM;
    let crc = frame.crc32c(h.l4, h.transport_len(), at)?;
    frame.store(at, crc.to_le_bytes())?;
    frame.checksum_pending = false;
    Some(())
}

/// A train is sent with an unfilled checksum; one that came with a filled one
/// is made so.
pub(crate) fn leave_checksum(frame: &mut Frame) -> Option<()> {
    let h = Headers::parse(frame).ok()?;
    let sum = Sum::ZERO
        .addr(h.source)
        .addr(h.destination)
        .add16(u16::from_ne_bytes([0, h.protocol]))
        .add32(h.transport_len().to_be());
    frame.store(h.checksum_at()?, sum.fold().to_ne_bytes())?;
    frame.checksum_pending = true;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{Kind, packet};

    fn described(octets: Vec<u8>, header: VirtioHeader) -> Option<Frame> {
        let mut frame = Frame::new(octets);
        header.describe(&mut frame)?;
        Some(frame)
    }

    #[test]
    fn an_ordinary_frame_has_an_empty_header() {
        let frame = described(packet(Kind::TcpV4, &[1; 10]), VirtioHeader::default()).unwrap();
        assert!(!frame.checksum_pending && frame.segment_len == 0);
        assert_eq!(VirtioHeader::of(&frame), Some(VirtioHeader::default()));
    }

    #[test]
    fn header_and_frame_describe_each_other() {
        for (kind, gso_type, csum_start, csum_offset, hdr_len) in [
            // The packet has the flag CWR.
            (Kind::TcpV4, GSO_TCPV4 | GSO_ECN, 34, 16, 54),
            (Kind::TcpV6, GSO_TCPV6 | GSO_ECN, 54, 16, 74),
            (Kind::UdpV4, GSO_UDP_L4, 34, 6, 42),
            (Kind::UdpV6, GSO_UDP_L4, 54, 6, 62),
        ] {
            let alone =
                VirtioHeader { flags: NEEDS_CSUM, csum_start, csum_offset, ..Default::default() };
            let train = VirtioHeader { gso_type, gso_size: 1000, hdr_len, ..alone };
            for header in [alone, train] {
                assert_eq!(VirtioHeader::parse(header.octets()), header);
                let frame = described(packet(kind, &[1; 3000]), header).unwrap();
                assert_eq!(VirtioHeader::of(&frame), Some(header), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_train_that_nobody_can_describe_is_refused() {
        let ufo = VirtioHeader { gso_type: 3, gso_size: 1000, ..Default::default() };
        assert_eq!(described(packet(Kind::UdpV4, &[1; 3000]), ufo), None);
    }

    #[test]
    fn a_train_with_a_filled_checksum_gets_the_pseudo_headers_sum() {
        let header = VirtioHeader { gso_type: GSO_TCPV4, gso_size: 1000, ..Default::default() };
        let frame = described(packet(Kind::TcpV4, &[1; 3000]), header).unwrap();
        assert!(frame.checksum_pending);
        let h = Headers::parse(&frame).unwrap();
        let rest = Sum::ZERO.add16(frame.sum(h.l4, h.transport_len()).unwrap());
        // Pseudo header and data, summed up and complemented: a checksum over everything.
        let mut whole = frame.clone();
        whole.store(h.l4 + tcp::CHECKSUM, rest.checksum().to_ne_bytes()).unwrap();
        assert_eq!(whole.octets(), packet(Kind::TcpV4, &[1; 3000]));
    }
}
