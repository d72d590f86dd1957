//! What the two sides of an FTP control connection say about data connections
//! (RFC 959, RFC 2428), as IPVS reads it.

use core::net::Ipv6Addr;

use ipvs_wire::Buffer;

use super::segment::{Place, Segment};
use crate::addr::{Addr, Family};

/// What the client asked for last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Mode {
    /// Nothing, or to be called by the server.
    Active = 0,
    /// PASV: to be told an address and a port.
    Passive = 1,
    /// EPSV: to be told a port.
    ExtendedPassive = 2,
}

impl Mode {
    pub(super) const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Passive,
            2 => Self::ExtendedPassive,
            _ => Self::Active,
        }
    }
}

/// What a client's segment means to the helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// The server is to say where it listens.
    Enter(Mode),
    /// The client listens there.
    Data { addr: Addr, port: u16 },
    /// Nothing.
    Other,
}

/// Where a server says that it listens, and where in the frame it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// The server's own address if `None`.
    pub(super) addr: Option<Addr>,
    pub(super) port: u16,
    pub(super) place: Place,
}

/// Octets that must follow the first of a PASV or EPSV, this included.
const SHORTEST: u32 = 6;

/// Reads a client's segment. PASV and EPSV are found anywhere in it, PORT and
/// EPRT at its beginning.
pub(super) fn command<B: Buffer>(buf: &B, segment: &Segment, family: Family) -> Command {
    let mut text = Text { buf, at: segment.payload, end: segment.end };
    while text.at + SHORTEST <= text.end {
        if let Some(mode) = text.enters(family) {
            return Command::Enter(mode);
        }
        text.at += 1;
    }
    text.at = segment.payload;
    let data = match text.word() {
        Some([b'P', b'O', b'R', b'T']) if family == Family::V4 => text.port(),
        Some([b'E', b'P', b'R', b'T']) => text.extended_port(family),
        _ => None,
    };
    data.map_or(Command::Other, |(addr, port)| Command::Data { addr, port })
}

/// Reads a server's segment: an announcement stands at its beginning.
pub(super) fn announced<B: Buffer>(
    buf: &B,
    segment: &Segment,
    family: Family,
    mode: Mode,
) -> Option<Announced> {
    let mut text = Text { buf, at: segment.payload, end: segment.end };
    match (mode, text.word()?) {
        (Mode::Passive, [b'2', b'2', b'7', b' ']) if family == Family::V4 => text.passive(),
        (Mode::ExtendedPassive, [b'2', b'2', b'9', b' ']) => text.extended_passive(family),
        _ => None,
    }
}

/// The text that stands for the virtual address and `port` in an announcement.
pub(super) fn announcement(mode: Mode, addr: Addr, port: u16) -> Line {
    let mut line = Line::default();
    if mode == Mode::Passive {
        for octet in addr.v4_octets() {
            line.number(u16::from(octet));
            line.push(b',');
        }
        let [high, low] = port.to_be_bytes();
        line.number(u16::from(high));
        line.push(b',');
        line.number(u16::from(low));
    } else {
        line.push(b'|');
        line.push(b'|');
        line.push(b'|');
        line.number(port);
        line.push(b'|');
    }
    line
}

/// A short text in the making.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    /// As long as six numbers of three digits with commas.
    octets: [u8; 23],
    len: usize,
}

impl Line {
    pub(super) fn octets(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, octet: u8) {
        if let Some(place) = self.octets.get_mut(self.len) {
            *place = octet;
            self.len += 1;
        }
    }

    fn number(&mut self, number: u16) {
        let mut unit = 10_000;
        while unit > 1 && number < unit {
            unit /= 10;
        }
        while unit != 0 {
            let digit = (number / unit % 10).to_le_bytes()[0];
            self.push(b'0' + digit);
            unit /= 10;
        }
    }
}

/// The payload of a segment from a place on.
struct Text<'a, B> {
    buf: &'a B,
    at: u32,
    end: u32,
}

impl<B: Buffer> Text<'_, B> {
    /// The octet `ahead` of the place.
    fn peek(&self, ahead: u32) -> Option<u8> {
        let at = self.at + ahead;
        if at >= self.end {
            return None;
        }
        self.buf.load::<1>(at).map(|[octet]| octet)
    }

    fn next(&mut self) -> Option<u8> {
        let octet = self.peek(0)?;
        self.at += 1;
        Some(octet)
    }

    /// Goes on if `octet` comes next.
    fn expect(&mut self, octet: u8) -> Option<()> {
        (self.next()? == octet).then_some(())
    }

    /// The next four octets, in capitals.
    fn word(&mut self) -> Option<[u8; 4]> {
        if self.at + 4 > self.end {
            return None;
        }
        let word = self.buf.load::<4>(self.at)?;
        self.at += 4;
        Some(word.map(|octet| octet.to_ascii_uppercase()))
    }

    /// Whether PASV or EPSV stands here.
    fn enters(&self, family: Family) -> Option<Mode> {
        let mut text = Text { ..*self };
        match text.word()? {
            [b'P', b'A', b'S', b'V'] if family == Family::V4 => {
                text.expect(b'\r')?;
                text.expect(b'\n')?;
                Some(Mode::Passive)
            }
            [b'E', b'P', b'S', b'V'] => {
                if text.peek(0)? == b' ' {
                    text.at += 1;
                    text.expect(number_of(family))?;
                }
                text.expect(b'\r')?;
                Some(Mode::ExtendedPassive)
            }
            _ => None,
        }
    }

    /// What follows PORT.
    fn port(&mut self) -> Option<(Addr, u16)> {
        self.skip_to_numbers(b' ')?;
        self.six_numbers()
    }

    /// Goes on to the first digit, or behind the first run of `bracket`.
    fn skip_to_numbers(&mut self, bracket: u8) -> Option<()> {
        loop {
            match self.peek(0)? {
                b'0'..=b'9' => return Some(()),
                octet if octet == bracket => return self.skip_run(bracket),
                _ => self.at += 1,
            }
        }
    }

    /// Goes on behind a run of `octet`, which may be empty.
    fn skip_run(&mut self, octet: u8) -> Option<()> {
        while self.peek(0)? == octet {
            self.at += 1;
        }
        Some(())
    }

    /// What follows EPRT.
    fn extended_port(&mut self, family: Family) -> Option<(Addr, u16)> {
        self.expect(b' ')?;
        self.skip_run(b' ')?;
        let mark = self.mark()?;
        self.expect(number_of(family))?;
        self.expect(mark)?;
        let addr = self.address(family, mark)?;
        let port = self.port_number(mark)?;
        Some((addr, port))
    }

    /// What follows 227.
    fn passive(&mut self) -> Option<Announced> {
        self.skip_to_numbers(b'(')?;
        let from = self.at;
        let (addr, port) = self.six_numbers()?;
        Some(Announced { addr: Some(addr), port, place: Place { from, to: self.at } })
    }

    /// What follows 229.
    fn extended_passive(&mut self, family: Family) -> Option<Announced> {
        while self.next()? != b'(' {}
        self.skip_run(b'(')?;
        let from = self.at;
        let mark = self.mark()?;
        // Family and address are both there, or neither is.
        let addr = if self.peek(0)? == mark {
            self.at += 1;
            self.expect(mark)?;
            None
        } else {
            self.expect(number_of(family))?;
            self.expect(mark)?;
            Some(self.address(family, mark)?)
        };
        let port = self.port_number(mark)?;
        Some(Announced { addr, port, place: Place { from, to: self.at } })
    }

    /// The octet that stands between the parts of an extended address. A digit
    /// would be taken for a part of them.
    fn mark(&mut self) -> Option<u8> {
        self.next().filter(|octet| (33..=126).contains(octet) && !octet.is_ascii_digit())
    }

    /// An address and a port in six numbers up to 255 (recorded), each 0 where no digit
    /// stands, with something else behind them.
    fn six_numbers(&mut self) -> Option<(Addr, u16)> {
        let mut numbers = [0_u8; 6];
        let mut left = numbers.len();
        for number in &mut numbers {
            while let digit @ b'0'..=b'9' = self.peek(0)? {
                *number = number.checked_mul(10)?.checked_add(digit - b'0')?;
                self.at += 1;
            }
            left -= 1;
            if left != 0 {
                self.expect(b',')?;
            }
        }
        let [a, b, c, d, high, low] = numbers;
        Some((Addr::v4([a, b, c, d]), u16::from_be_bytes([high, low])))
    }

    /// An address, and the `mark` behind it.
    fn address(&mut self, family: Family, mark: u8) -> Option<Addr> {
        /// The longest IPv6 address, with an IPv4 address at its end.
        const LONGEST: usize = 45;
        let mut octets = [0; LONGEST];
        let mut len = 0;
        loop {
            let octet = self.next()?;
            if octet == mark {
                break;
            }
            *octets.get_mut(len)? = octet;
            len += 1;
        }
        let octets = octets.get(..len)?;
        match family {
            Family::V4 => v4_address(octets),
            Family::V6 => {
                let addr: Ipv6Addr = core::str::from_utf8(octets).ok()?.parse().ok()?;
                Some(Addr::v6(addr.octets()))
            }
        }
    }

    /// A port from 1 to 65535, and the `mark` behind it.
    fn port_number(&mut self, mark: u8) -> Option<u16> {
        let mut port = 0_u16;
        loop {
            match self.next()? {
                octet if octet == mark => break,
                digit @ b'0'..=b'9' => {
                    port = port.checked_mul(10)?.checked_add(u16::from(digit - b'0'))?;
                }
                _ => return None,
            }
        }
        (port != 0).then_some(port)
    }
}

/// The number of a family in extended commands (RFC 2428, section 2).
const fn number_of(family: Family) -> u8 {
    match family {
        Family::V4 => b'1',
        Family::V6 => b'2',
    }
}

/// Four numbers up to 255 with dots between, in whatever length.
fn v4_address(text: &[u8]) -> Option<Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = text.split(|octet| *octet == b'.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| !part.is_empty())?;
        for digit in part {
            let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
            *octet = octet.checked_mul(10)?.checked_add(digit)?;
        }
    }
    parts.next().is_none().then(|| Addr::v4(octets))
}
