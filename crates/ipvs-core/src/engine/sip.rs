//! The engine `sip`: the Call-ID of a message (RFC 3261, section 20.8).
//!
//! What is taken for one was seen on Linux 6.1: the first header of that name,
//! or of its compact form `i`, in any line but the first; a value of one or two
//! words with `@` between, and the end of the line right behind it.

use ipvs_wire::Buffer;

use super::Data;
use crate::tables::Tables;

/// ipvsadm's name of the engine.
pub const NAME: &str = "sip";

/// The name of the header, the first letter lowest.
const HEADER: u64 = u64::from_le_bytes(*b"call-id\0");
const HEADER_LEN: u32 = 7;

/// Where the search is, octet by octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Place {
    /// In a line of no interest.
    Line = 0,
    /// Behind a carriage return that ends a line.
    Return = 1,
    /// At the beginning of a line.
    Begin = 2,
    /// In the header's name.
    Name = 3,
    /// Behind the name, before the colon.
    Colon = 4,
    /// Before the value.
    Space = 5,
    /// Behind a carriage return before the value, which may go on in the next line.
    FoldReturn = 6,
    /// Behind a line feed before the value.
    Fold = 7,
    /// In the first word.
    Word = 8,
    /// Behind `@`.
    At = 9,
    /// In the second word.
    Host = 10,
    /// The value is whole.
    Found = 11,
    /// There is none.
    Failed = 12,
}

/// Where the search is between two octets. It lies in the caller's memory: the
/// verifier would follow every value that it could have on the stack.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scan {
    place: u32,
    /// Letters of the name that were met.
    matched: u32,
}

impl Place {
    #[inline(always)]
    const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Line,
            1 => Self::Return,
            2 => Self::Begin,
            3 => Self::Name,
            4 => Self::Colon,
            5 => Self::Space,
            6 => Self::FoldReturn,
            7 => Self::Fold,
            8 => Self::Word,
            9 => Self::At,
            10 => Self::Host,
            11 => Self::Found,
            _ => Self::Failed,
        }
    }
}

/// Reads the Call-ID in the `len` octets from `at`; returns whether there is one.
#[inline(always)]
pub(super) fn read<B: Buffer, T: Tables>(
    buf: &B,
    tables: &T,
    at: u32,
    len: u32,
    data: &mut Data,
    scan: &mut Scan,
) -> bool {
    *scan = Scan { place: Place::Line as u32, matched: 0 };
    tables.repeat(len, |turn| {
        let Some([octet]) = buf.load(at + turn) else { return false };
        let next = step(Place::from_number(scan.place), octet, &mut scan.matched);
        let takes = matches!(next, Place::Word | Place::At | Place::Host);
        scan.place = if takes && !data.push(octet) { Place::Failed as u32 } else { next as u32 };
        scan.place < Place::Found as u32
    });
    scan.place == Place::Found as u32
}

/// Where the search is after `octet`. `matched` counts the letters of the name.
#[inline(always)]
fn step(place: Place, octet: u8, matched: &mut u32) -> Place {
    match place {
        Place::Return if octet == b'\n' => Place::Begin,
        Place::Return | Place::Begin => match octet | 0x20 {
            b'c' => {
                *matched = 1;
                Place::Name
            }
            b'i' => Place::Colon,
            _ => Place::Line,
        },
        Place::Name if lower(octet) == letter(*matched) => {
            *matched += 1;
            if *matched == HEADER_LEN { Place::Colon } else { Place::Name }
        }
        Place::Colon if octet == b':' => Place::Space,
        Place::Colon if is_blank(octet) => Place::Colon,
        Place::Line | Place::Name | Place::Colon => match octet {
            b'\r' => Place::Return,
            b'\n' => Place::Begin,
            _ => Place::Line,
        },
        Place::Space | Place::FoldReturn | Place::Fold if is_blank(octet) => Place::Space,
        Place::Space if octet == b'\r' => Place::FoldReturn,
        Place::Space | Place::FoldReturn if octet == b'\n' => Place::Fold,
        Place::Word if octet == b'@' => Place::At,
        Place::Space | Place::Word if is_word(octet) => Place::Word,
        Place::At | Place::Host if is_word(octet) => Place::Host,
        Place::Word | Place::Host if matches!(octet, b'\r' | b'\n') => Place::Found,
        _ => Place::Failed,
    }
}

/// The letter of the header's name behind `matched` of them.
#[inline(always)]
const fn letter(matched: u32) -> u8 {
    let [low, ..] = (HEADER >> ((matched & 7) * 8)).to_le_bytes();
    low
}

#[inline(always)]
const fn is_blank(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

#[inline(always)]
const fn lower(octet: u8) -> u8 {
    if octet.is_ascii_uppercase() { octet | 0x20 } else { octet }
}

/// Whether the octet may stand in a word: letters, those of Latin-1 too, digits
/// and some marks.
#[inline(always)]
const fn is_word(octet: u8) -> bool {
    const WORDS: [u64; 4] = words();
    let bits = match octet >> 6 {
        0 => WORDS[0],
        1 => WORDS[1],
        2 => WORDS[2],
        _ => WORDS[3],
    };
    bits >> (octet & 63) & 1 != 0
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn words() -> [u64; 4] {
    const MARKS: &[u8] = b"-.!%*_+`'~()<>:\\\"/[]?{}";
    let mut words = [0; 4];
    let mut octet = 0_usize;
    while octet < 256 {
        let [low, ..] = octet.to_le_bytes();
        let mut takes = low.is_ascii_alphanumeric() || (low >= 0xc0 && low != 0xd7 && low != 0xf7);
        let mut mark = 0;
        while mark < MARKS.len() {
            takes |= MARKS[mark] == low;
            mark += 1;
        }
        if takes {
            words[octet >> 6] |= 1 << (octet & 63);
        }
        octet += 1;
    }
    words
}
