//! Laws of reading and writing headers.

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header,
    Ipv4Options, Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, LaxSlicedPacket,
    NetSlice, SlicedPacket, TcpHeader, TransportSlice, UdpHeader, VlanId,
};
use ipvs_plane::frame::Frame;
use ipvs_wire::ipv4::Ipv4Fields;
use ipvs_wire::ipv6::Ipv6Fields;
use ipvs_wire::{Buffer as _, Fragment, Headers};
use proptest::prelude::*;
use proptest::sample::Index;

/// A well-formed frame, as the writer of another library makes it.
#[derive(Clone, Debug)]
struct Sample {
    v6: bool,
    tagged: bool,
    protocol: u8,
    ports: (u16, u16),
    flags: u8,
    ttl: u8,
    tos: u8,
    dont_fragment: bool,
    source: [u8; 16],
    destination: [u8; 16],
    /// Words of IPv4 options; of IPv6 extension headers the units beyond the first.
    options: usize,
    /// IPv6: which extension headers there are.
    extensions: [bool; 4],
    fragment: Option<(u16, bool)>,
    payload: Vec<u8>,
    padding: usize,
}

fn sample() -> impl Strategy<Value = Sample> {
    let addresses = (any::<[u8; 16]>(), any::<[u8; 16]>());
    let kind = (any::<bool>(), any::<bool>(), prop_oneof![Just(6u8), Just(17), Just(132)]);
    let fields = (any::<(u16, u16)>(), any::<u8>(), any::<u8>(), any::<u8>(), any::<bool>());
    let fragment = prop_oneof![
        3 => Just(None),
        1 => (prop_oneof![Just(0u16), 1u16..0x1000], any::<bool>()).prop_map(Some),
    ];
    let rest = (prop::collection::vec(any::<u8>(), 0..100), 0usize..20);
    (kind, fields, addresses, 0usize..=10, any::<[bool; 4]>(), fragment, rest).prop_map(
        |(
            (v6, tagged, protocol),
            (ports, flags, ttl, tos, dont_fragment),
            (source, destination),
            options,
            extensions,
            fragment,
            (payload, padding),
        )| Sample {
            v6,
            tagged,
            protocol,
            ports,
            flags,
            ttl,
            tos,
            dont_fragment,
            source,
            destination,
            options,
            extensions,
            fragment,
            payload,
            padding,
        },
    )
}

impl Sample {
    fn transport(&self) -> Vec<u8> {
        let (source, destination) = self.ports;
        let mut octets = Vec::new();
        match self.protocol {
            6 => {
                let mut header = TcpHeader::new(source, destination, 1, 2);
                let bits = [0, 1, 2, 3, 4].map(|bit| self.flags >> bit & 1 == 1);
                [header.fin, header.syn, header.rst, header.psh, header.ack] = bits;
                header.write(&mut octets).unwrap();
            }
            17 => {
                let header = UdpHeader {
                    source_port: source,
                    destination_port: destination,
                    length: u16::try_from(8 + self.payload.len()).unwrap(),
                    checksum: 0,
                };
                header.write(&mut octets).unwrap();
            }
            _ => {
                octets.extend(source.to_be_bytes());
                octets.extend(destination.to_be_bytes());
                octets.extend([0, 0, 0, 1, 0, 0, 0, 0, self.flags, 0, 0, 4]);
            }
        }
        octets.extend(&self.payload);
        octets
    }

    fn offset(&self) -> (IpFragOffset, bool) {
        let (offset, more) = self.fragment.unwrap_or_default();
        (IpFragOffset::try_new(offset).unwrap(), more)
    }

    fn octets(&self) -> Vec<u8> {
        let transport = self.transport();
        let mut octets = Vec::new();
        let ether_type = if self.v6 { EtherType::IPV6 } else { EtherType::IPV4 };
        let outer = if self.tagged { EtherType::VLAN_TAGGED_FRAME } else { ether_type };
        let ethernet = Ethernet2Header { source: [2; 6], destination: [4; 6], ether_type: outer };
        ethernet.write(&mut octets).unwrap();
        if self.tagged {
            let vlan = etherparse::SingleVlanHeader {
                pcp: etherparse::VlanPcp::ZERO,
                drop_eligible_indicator: false,
                vlan_id: VlanId::try_new(7).unwrap(),
                ether_type,
            };
            vlan.write(&mut octets).unwrap();
        }
        let ip = if self.v6 { self.v6(transport.len()) } else { self.v4(transport.len()) };
        ip.write(&mut octets).unwrap();
        octets.extend(transport);
        octets.resize(octets.len() + self.padding, 0xee);
        octets
    }

    fn v4(&self, len: usize) -> IpHeaders {
        let mut header = Ipv4Header {
            time_to_live: self.ttl,
            protocol: IpNumber(self.protocol),
            source: *self.source.first_chunk().unwrap(),
            destination: *self.destination.first_chunk().unwrap(),
            dont_fragment: self.dont_fragment,
            options: Ipv4Options::try_from(&vec![1; self.options * 4][..]).unwrap(),
            ..Ipv4Header::default()
        };
        header.dscp = (self.tos >> 2).try_into().unwrap();
        header.ecn = (self.tos & 3).try_into().unwrap();
        (header.fragment_offset, header.more_fragments) = self.offset();
        header.set_payload_len(len).unwrap();
        header.header_checksum = header.calc_header_checksum();
        IpHeaders::Ipv4(header, Ipv4Extensions::default())
    }

    fn v6(&self, len: usize) -> IpHeaders {
        let raw = |there: bool| {
            let payload = vec![0; 6 + 8 * self.options];
            there.then(|| Ipv6RawExtHeader::new_raw(IpNumber(0), &payload).unwrap())
        };
        let [hop_by_hop, destination, routing, last] = self.extensions;
        let mut extensions = Ipv6Extensions {
            hop_by_hop_options: raw(hop_by_hop),
            destination_options: raw(destination),
            routing: raw(routing).map(|routing| etherparse::Ipv6RoutingExtensions {
                routing,
                // They are behind the fragment header, so not in a later fragment.
                final_destination_options: raw(last && self.offset().0.value() == 0),
            }),
            ..Ipv6Extensions::default()
        };
        if self.fragment.is_some() {
            let (offset, more) = self.offset();
            extensions.fragment = Some(Ipv6FragmentHeader::new(IpNumber(0), offset, more, 9));
        }
        let next_header = extensions.set_next_headers(IpNumber(self.protocol));
        let header = Ipv6Header {
            traffic_class: self.tos,
            flow_label: 5.try_into().unwrap(),
            payload_length: u16::try_from(extensions.header_len() + len).unwrap(),
            next_header,
            hop_limit: self.ttl,
            source: self.source,
            destination: self.destination,
        };
        IpHeaders::Ipv6(header, extensions)
    }
}

/// What the other library reads of the frame.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    source: Vec<u8>,
    destination: Vec<u8>,
    ttl: u8,
    tos: u8,
    protocol: u8,
    fragment: Fragment,
    ports: Option<(u16, u16)>,
    flags: u8,
}

fn theirs(octets: &[u8]) -> Reading {
    let sliced = SlicedPacket::from_ethernet(octets).unwrap();
    let (mut reading, named, more, offset, payload) = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let reading = Reading {
                source: header.source().to_vec(),
                destination: header.destination().to_vec(),
                ttl: header.ttl(),
                tos: header.dcp().value() << 2 | header.ecn().value(),
                protocol: ip.payload().ip_number.0,
                fragment: Fragment::No,
                ports: None,
                flags: 0,
            };
            let offset = header.fragments_offset().value();
            (reading, false, header.more_fragments(), offset, ip.payload().payload)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let fragment = ip.extensions().clone().into_iter().find_map(|extension| {
                let etherparse::Ipv6ExtensionSlice::Fragment(fragment) = extension else {
                    return None;
                };
                Some((fragment.more_fragments(), fragment.fragment_offset().value()))
            });
            let named = fragment.is_some();
            let (more, offset) = fragment.unwrap_or_default();
            let reading = Reading {
                source: header.source().to_vec(),
                destination: header.destination().to_vec(),
                ttl: header.hop_limit(),
                tos: header.traffic_class(),
                protocol: ip.payload().ip_number.0,
                fragment: Fragment::No,
                ports: None,
                flags: 0,
            };
            (reading, named, more, offset, ip.payload().payload)
        }
        NetSlice::Arp(_) => unreachable!("no ARP is made here"),
    };
    reading.fragment = match (offset, more) {
        (0, false) if !named => Fragment::No,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    };
    if reading.fragment == Fragment::Later {
        return reading;
    }
    // A first fragment's transport is not sliced, so it is read from its payload.
    match (reading.protocol, sliced.transport) {
        (6, Some(TransportSlice::Tcp(tcp))) => {
            reading.ports = Some((tcp.source_port(), tcp.destination_port()));
            let flags = [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh(), tcp.ack()];
            reading.flags = (0..).zip(flags).map(|(bit, set)| u8::from(set) << bit).sum();
        }
        (17, Some(TransportSlice::Udp(udp))) => {
            reading.ports = Some((udp.source_port(), udp.destination_port()));
        }
        (protocol, _) => {
            let port = |at| u16::from_be_bytes([payload[at], payload[at + 1]]);
            reading.ports = Some((port(0), port(2)));
            reading.flags = match protocol {
                6 => payload[13],
                132 => payload[12],
                _ => 0,
            };
        }
    }
    reading
}

fn ours(headers: &Headers) -> Reading {
    let len = if headers.version == 6 { 16 } else { 4 };
    let octets = |words: [u32; 4]| {
        words.iter().flat_map(|word| word.to_ne_bytes()).take(len).collect::<Vec<u8>>()
    };
    Reading {
        source: octets(headers.source),
        destination: octets(headers.destination),
        ttl: headers.ttl,
        tos: headers.tos,
        protocol: headers.protocol,
        fragment: headers.fragment,
        ports: headers.has_ports.then_some((headers.source_port, headers.destination_port)),
        flags: headers.event,
    }
}

/// What [`Headers`] promises of every frame that is read at all.
fn claims_only_what_is_there(frame: &Frame, h: &Headers) -> Result<(), TestCaseError> {
    let len = frame.len();
    let fixed = if h.version == 6 { 40 } else { 20 };
    prop_assert!(matches!(h.version, 4 | 6));
    prop_assert!(h.l3 + fixed <= len, "the IP header");
    prop_assert!(h.l3 + h.total_len <= len, "the datagram");
    prop_assert!(h.l4 >= h.l3 + fixed, "the transport header overlaps the IP header");
    // Extension headers may be longer than the datagram; then there is no transport.
    let end = h.l3 + h.total_len;
    prop_assert_eq!(h.transport_len(), end.saturating_sub(h.l4));
    if h.has_ports {
        prop_assert!(h.l4 + 4 <= end, "the ports");
        let octets = &frame.octets()[h.l4 as usize..];
        prop_assert_eq!(h.source_port.to_be_bytes(), [octets[0], octets[1]]);
        prop_assert_eq!(h.destination_port.to_be_bytes(), [octets[2], octets[3]]);
    } else {
        prop_assert!(!h.has_transport);
        prop_assert_eq!((h.source_port, h.destination_port), (0, 0));
    }
    if h.has_transport {
        let need = match h.protocol {
            6 => 20,
            17 => 8,
            132 => 16,
            other => return Err(TestCaseError::fail(format!("a transport of protocol {other}"))),
        };
        prop_assert!(h.l4 + need <= end, "the transport header");
        prop_assert!(h.fragment != Fragment::Later);
    } else {
        prop_assert_eq!((h.event, h.second_event), (0, 0));
    }
    if let Some(at) = h.checksum_at().filter(|_| h.has_transport) {
        prop_assert!(at + 2 <= end, "the checksum");
    }
    if h.version == 4 {
        let header = &frame.octets()[h.l3 as usize..h.l4 as usize];
        prop_assert_eq!(etherparse_sum(header), 0, "header checksum");
    }
    Ok(())
}

/// 0 for a header whose checksum is right.
fn etherparse_sum(header: &[u8]) -> u16 {
    etherparse::checksum::Sum16BitWords::new().add_slice(header).ones_complement()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Of a well-formed frame both readers say the same.
    #[test]
    fn well_formed_frames_are_read_as_another_library_reads_them(sample in sample()) {
        let octets = sample.octets();
        let headers = Headers::parse(&Frame::new(octets.clone())).unwrap();
        prop_assert_eq!(ours(&headers), theirs(&octets));
        prop_assert_eq!(headers.total_len as usize, octets.len() - sample.padding - headers.l3 as usize);
        prop_assert_eq!(headers.l3, if sample.tagged { 18 } else { 14 });
        let transport = sample.transport().len();
        prop_assert_eq!(headers.transport_len() as usize, transport);
        prop_assert_eq!(headers.has_transport, headers.fragment != Fragment::Later);
        prop_assert_eq!(headers.dont_fragment, sample.v6 || sample.dont_fragment);
        claims_only_what_is_there(&Frame::new(octets), &headers)?;
    }

    /// Octets of a sound frame changed, cut off or added: it is refused, or
    /// nothing is claimed that is not there; and where the other library reads
    /// it too, both see the same addresses.
    #[test]
    fn mutated_frames_claim_nothing_that_is_not_there(
        sample in sample(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        near in prop::collection::vec((0usize..80, any::<u8>()), 0..4),
        cut in prop::option::of(any::<Index>()),
        mend: bool,
    ) {
        let mut octets = sample.octets();
        if let Some(cut) = cut {
            octets.truncate(cut.index(octets.len() + 1));
        }
        for (at, octet) in changes {
            let at = at.index(octets.len().max(1));
            if let Some(place) = octets.get_mut(at) {
                *place = octet;
            }
        }
        for (at, octet) in near {
            if let Some(place) = octets.get_mut(at) {
                *place = octet;
            }
        }
        if mend {
            mend_checksum(&mut octets);
        }
        let frame = Frame::new(octets.clone());
        if let Ok(headers) = Headers::parse(&frame) {
            claims_only_what_is_there(&frame, &headers)?;
            let sliced = LaxSlicedPacket::from_ethernet(&octets).unwrap();
            let ours = ours(&headers);
            match sliced.net {
                Some(etherparse::LaxNetSlice::Ipv4(ip)) => {
                    prop_assert_eq!(ours.source, ip.header().source());
                    prop_assert_eq!(ours.destination, ip.header().destination());
                }
                Some(etherparse::LaxNetSlice::Ipv6(ip)) => {
                    prop_assert_eq!(ours.source, ip.header().source());
                    prop_assert_eq!(ours.destination, ip.header().destination());
                }
                other => prop_assert!(false, "read as {other:?}"),
            }
        }
    }

    /// Noise behind a valid EtherType.
    #[test]
    fn noise_claims_nothing_that_is_not_there(
        v6: bool,
        noise in prop::collection::vec(any::<u8>(), 0..200),
        small_len: bool,
    ) {
        let mut octets = vec![2; 12];
        octets.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
        octets.extend(noise);
        if let Some(first) = octets.get_mut(14) {
            *first = *first & 15 | if v6 { 0x60 } else { 0x40 };
        }
        if small_len && octets.len() > 19 {
            octets[if v6 { 18 } else { 16 }] = 0;
        }
        mend_checksum(&mut octets);
        let frame = Frame::new(octets);
        if let Ok(headers) = Headers::parse(&frame) {
            claims_only_what_is_there(&frame, &headers)?;
        }
    }

    /// What is written is read again, by ourselves and by the other library.
    #[test]
    fn written_ipv4_fields_are_read_back(
        (tos, id, ttl) in any::<(u8, u16, u8)>(),
        flags in prop_oneof![Just(0u16), Just(0x4000), Just(0x2000), 0u16..0x4000],
        payload in 0u16..60,
        (source, destination) in any::<(u32, u32)>(),
    ) {
        let total_len = 20 + payload;
        let fields =
            Ipv4Fields { tos, total_len, id, flags, ttl, protocol: 47, source, destination };
        let mut octets = vec![2; 12];
        octets.extend([8, 0]);
        octets.extend(fields.octets());
        octets.resize(octets.len() + usize::from(payload), 0);
        let header = Ipv4Header::from_slice(&octets[14..]).unwrap().0;
        prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
        prop_assert_eq!((header.identification, header.total_len), (id, total_len));
        let headers = Headers::parse(&Frame::new(octets.clone())).unwrap();
        prop_assert_eq!(ours(&headers), theirs_unsliced(&header));
        prop_assert_eq!(headers.total_len, u32::from(total_len));
        prop_assert_eq!((headers.source[0], headers.destination[0]), (source, destination));
    }

    /// The same for IPv6.
    #[test]
    fn written_ipv6_fields_are_read_back(
        (class, hop_limit) in any::<(u8, u8)>(),
        payload_len in 0u16..60,
        (source, destination) in any::<([u32; 4], [u32; 4])>(),
        dirt: u8,
    ) {
        let fields = Ipv6Fields { class, payload_len, next: 47, hop_limit, source, destination };
        let mut octets = vec![dirt; 12];
        octets.extend([0x86, 0xdd]);
        octets.resize(14 + 40 + usize::from(payload_len), dirt);
        let mut frame = Frame::new(octets);
        fields.store(&mut frame, 14).unwrap();
        let header = Ipv6Header::from_slice(&frame.octets()[14..]).unwrap().0;
        prop_assert_eq!(header.flow_label.value(), 0);
        prop_assert_eq!(header.next_header.0, 47);
        let h = Headers::parse(&frame).unwrap();
        prop_assert_eq!((h.tos, h.ttl), (header.traffic_class, header.hop_limit));
        prop_assert_eq!((h.tos, h.ttl, h.protocol), (class, hop_limit, 47));
        prop_assert_eq!((h.source, h.destination), (source, destination));
        prop_assert_eq!(h.total_len, 40 + u32::from(payload_len));
        prop_assert_eq!(ours(&h).source, header.source);
        prop_assert_eq!(ours(&h).destination, header.destination);
    }
}

fn theirs_unsliced(header: &Ipv4Header) -> Reading {
    Reading {
        source: header.source.to_vec(),
        destination: header.destination.to_vec(),
        ttl: header.time_to_live,
        tos: header.dscp.value() << 2 | header.ecn.value(),
        protocol: header.protocol.0,
        fragment: match (header.fragment_offset.value(), header.more_fragments) {
            (0, false) => Fragment::No,
            (0, true) => Fragment::First,
            _ => Fragment::Later,
        },
        ports: None,
        flags: 0,
    }
}

/// Makes the IPv4 header checksum right again, wherever the header ends, so
/// that not every change is caught by it.
fn mend_checksum(octets: &mut [u8]) {
    let at = if octets.get(12..14) == Some(&[0x81, 0]) { 18 } else { 14 };
    let Some(packet) = octets.get_mut(at..) else { return };
    let header_len = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    if let Some(header) = packet.get_mut(..header_len).filter(|header| header.len() >= 20) {
        header[10..12].fill(0);
        let sum = etherparse_sum(header);
        header[10..12].copy_from_slice(&sum.to_ne_bytes());
    }
}
