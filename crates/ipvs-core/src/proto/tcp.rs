//! TCP states as IPVS keeps them: a view from the side, not RFC 9293.

use ipvs_wire::Headers;
use ipvs_wire::transport::tcp::{ACK, FIN, RST, SYN};

/// No packet yet.
pub const NONE: u8 = 0;
/// Established.
pub const ESTABLISHED: u8 = 1;
/// The destination sent a SYN.
pub const SYN_SENT: u8 = 2;
/// The client sent a SYN.
pub const SYN_RECV: u8 = 3;
/// The destination closed first.
pub const FIN_WAIT: u8 = 4;
/// Both sides closed.
pub const TIME_WAIT: u8 = 5;
/// Reset, or something that makes no sense.
pub const CLOSE: u8 = 6;
/// The client closed first.
pub const CLOSE_WAIT: u8 = 7;
/// The destination closed after the client.
pub const LAST_ACK: u8 = 8;
/// An expected connection (FTP data).
pub const LISTEN: u8 = 9;
/// Half open under SYN-flood defence.
pub const SYN_ACK: u8 = 10;

/// Timeouts by state, in milliseconds: the kernel's defaults.
pub const TIMEOUTS: [u32; 16] = [
    2_000, 900_000, 120_000, 60_000, 120_000, 120_000, 10_000, 60_000, 30_000, 120_000, 120_000, 0,
    0, 0, 0, 0,
];

/// Number of states.
const STATES: usize = 11;

/// One line of the table: the next state for each present one.
type Row = [u8; STATES];

/// Present states across, in the order of their numbers; one group of four
/// rows (SYN, FIN, ACK, RST) for each side (IN, OUT, IN-ONLY).
#[rustfmt::skip]
const NORMAL: [Row; 12] = {
    const ES: u8 = ESTABLISHED;
    const SS: u8 = SYN_SENT;
    const SR: u8 = SYN_RECV;
    const FW: u8 = FIN_WAIT;
    const TW: u8 = TIME_WAIT;
    const CL: u8 = CLOSE;
    const CW: u8 = CLOSE_WAIT;
    const LA: u8 = LAST_ACK;
    const LI: u8 = LISTEN;
    [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
        [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR],

        [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],
        [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
        [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],

        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
        [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ]
};

/// The table under defence (`secure_tcp`): a client alone establishes nothing.
const SECURE: [Row; 12] = {
    const ES: u8 = ESTABLISHED;
    const SS: u8 = SYN_SENT;
    const SR: u8 = SYN_RECV;
    const FW: u8 = FIN_WAIT;
    const TW: u8 = TIME_WAIT;
    const CL: u8 = CLOSE;
    const CW: u8 = CLOSE_WAIT;
    const LA: u8 = LAST_ACK;
    const LI: u8 = LISTEN;
    const SA: u8 = SYN_ACK;
    let [_, _, _, _, _, out_fin, out_ack, out_rst, _, only_fin, only_ack, only_rst] = NORMAL;
    [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA],
        [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA],
        [ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
        [SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA],
        out_fin,
        out_ack,
        out_rst,
        [SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA],
        only_fin,
        only_ack,
        only_rst,
    ]
};

/// [`NORMAL`] and [`SECURE`], laid out so that an index of nine bits is always inside.
static TABLE: [u8; 512] = flat();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn flat() -> [u8; 512] {
    let mut flat = [CLOSE; 512];
    let mut row = 0;
    while row < NORMAL.len() {
        let mut state = 0;
        while state < STATES {
            flat[row * 16 + state] = NORMAL[row][state];
            flat[256 + row * 16 + state] = SECURE[row][state];
            state += 1;
        }
        row += 1;
    }
    flat
}

/// The state after the packet. `side` is 0 IN, 1 OUT, 2 IN-ONLY; `secure` says
/// whether `secure_tcp` is in force.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "the index is masked to the table's 512 entries")]
pub(super) fn next(side: u8, state: u8, h: &Headers, secure: bool) -> u8 {
    // The first of these that is set counts, so SYN with ACK is a SYN.
    let event: u16 = if h.event & RST != 0 {
        3
    } else if h.event & SYN != 0 {
        0
    } else if h.event & FIN != 0 {
        1
    } else if h.event & ACK != 0 {
        2
    } else {
        return CLOSE;
    };
    // The verifier of 6.1 finds no bound in what was put together: it needs a mask,
    // which the compiler must not know to be needless.
    let index = (u16::from(secure) << 8)
        | (u16::from(side & 3) << 6)
        | (event << 4)
        | u16::from(state & 15);
    TABLE[core::hint::black_box(u32::from(index)) as usize & 511]
}

/// Half-open connections count as active: seen on 6.1.
#[inline(always)]
pub(super) const fn is_active(state: u8) -> bool {
    matches!(state, ESTABLISHED | SYN_SENT | SYN_RECV | SYN_ACK)
}

/// The SYN bit alone decides, whatever else is set: seen on 6.1.
#[inline(always)]
pub(super) const fn is_opening(h: &Headers) -> bool {
    h.event & SYN != 0
}

#[inline(always)]
pub(super) const fn may_start(h: &Headers, sloppy: bool) -> bool {
    h.event & RST == 0 && (sloppy || h.event & SYN != 0)
}

pub(super) const fn state_name(state: u8) -> &'static str {
    match state {
        NONE => "NONE",
        ESTABLISHED => "ESTABLISHED",
        SYN_SENT => "SYN_SENT",
        SYN_RECV => "SYN_RECV",
        FIN_WAIT => "FIN_WAIT",
        TIME_WAIT => "TIME_WAIT",
        CLOSE => "CLOSE",
        CLOSE_WAIT => "CLOSE_WAIT",
        LAST_ACK => "LAST_ACK",
        LISTEN => "LISTEN",
        SYN_ACK => "SYNACK",
        _ => "ERR!",
    }
}
