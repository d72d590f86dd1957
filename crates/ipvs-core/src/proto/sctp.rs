//! SCTP states as IPVS keeps them, by the first chunk of a packet.

use ipvs_wire::Headers;
use ipvs_wire::transport::sctp::{ABORT as ABORT_CHUNK, INIT as INIT_CHUNK};

/// No packet yet.
pub const NONE: u8 = 0;
/// The client sent INIT.
pub const INIT1: u8 = 1;
/// The client sent INIT again.
pub const INIT: u8 = 2;
/// The destination sent INIT ACK.
pub const COOKIE_SENT: u8 = 3;
/// The client echoed the cookie.
pub const COOKIE_REPLIED: u8 = 4;
/// The destination sent INIT, the client is to answer.
pub const COOKIE_WAIT: u8 = 5;
/// The client sent INIT ACK.
pub const COOKIE: u8 = 6;
/// The destination echoed the cookie.
pub const COOKIE_ECHOED: u8 = 7;
/// Established.
pub const ESTABLISHED: u8 = 8;
/// The destination sent SHUTDOWN.
pub const SHUTDOWN_SENT: u8 = 9;
/// The client sent SHUTDOWN.
pub const SHUTDOWN_RECEIVED: u8 = 10;
/// The destination sent SHUTDOWN ACK.
pub const SHUTDOWN_ACK_SENT: u8 = 11;
/// Aborted before it was established.
pub const REJECTED: u8 = 12;
/// Closed.
pub const CLOSED: u8 = 13;

/// Timeouts by state, in milliseconds: the kernel's.
pub const TIMEOUTS: [u32; 16] = [
    2_000, 4_000, 61_000, 61_000, 61_000, 61_000, 61_000, 61_000, 900_000, 61_000, 61_000, 61_000,
    4_000, 61_000, 0, 0,
];

/// Number of states.
const STATES: usize = 14;

/// One line of the table: the next state for each present one.
type Row = [u8; STATES];

/// Present states across, in the order of their numbers; one group of ten rows
/// (DATA and all others, INIT, INIT ACK, COOKIE ECHO, COOKIE ACK, SHUTDOWN,
/// SHUTDOWN ACK, SHUTDOWN COMPLETE, ERROR, ABORT) for each side (IN, OUT,
/// IN-ONLY).
#[rustfmt::skip]
const ROWS: [Row; 30] = {
    const I1: u8 = INIT1;
    const IN: u8 = INIT;
    const CS: u8 = COOKIE_SENT;
    const CR: u8 = COOKIE_REPLIED;
    const CW: u8 = COOKIE_WAIT;
    const CO: u8 = COOKIE;
    const CE: u8 = COOKIE_ECHOED;
    const ES: u8 = ESTABLISHED;
    const SS: u8 = SHUTDOWN_SENT;
    const SR: u8 = SHUTDOWN_RECEIVED;
    const SA: u8 = SHUTDOWN_ACK_SENT;
    const RJ: u8 = REJECTED;
    const CL: u8 = CLOSED;
    [
        [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN],
        [CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL],
        [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],
        [CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL],
        [CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL],
        [CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL],
        [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL],

        [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW],
        [CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL],
        [ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL],
        [SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL],
        [SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL],
        [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL],

        [ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL],
        [I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN],
        [CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL],
        [ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL],
        [ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL],
        [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],
        [CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL],
        [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL],
        [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL],
    ]
};

/// [`ROWS`] laid out so that a masked index is always inside.
static TABLE: [u8; 1024] = flat();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn flat() -> [u8; 1024] {
    let mut flat = [CLOSED; 1024];
    let mut row = 0;
    while row < ROWS.len() {
        let mut state = 0;
        while state < STATES {
            flat[(row / 10) * 256 + (row % 10) * 16 + state] = ROWS[row][state];
            state += 1;
        }
        row += 1;
    }
    flat
}

/// The state after the packet. `side` is 0 IN, 1 OUT, 2 IN-ONLY.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "the index is masked to the table's 1024 entries")]
pub(super) fn next(side: u8, state: u8, h: &Headers) -> u8 {
    // A cookie chunk bundled with ABORT is an ABORT.
    let chunk = if h.second_event == ABORT_CHUNK { ABORT_CHUNK } else { h.event };
    let event: u16 = match chunk {
        INIT_CHUNK => 1,
        2 => 2,
        10 => 3,
        11 => 4,
        7 => 5,
        8 => 6,
        14 => 7,
        9 => 8,
        ABORT_CHUNK => 9,
        _ => 0,
    };
    let index = (u16::from(side & 3) << 8) | (event << 4) | u16::from(state & 15);
    // As for TCP: the mask is for the verifier.
    TABLE[core::hint::black_box(u32::from(index)) as usize & 1023]
}

#[inline(always)]
pub(super) const fn is_active(state: u8) -> bool {
    state == ESTABLISHED
}

#[inline(always)]
pub(super) const fn is_opening(h: &Headers) -> bool {
    h.event == INIT_CHUNK && h.has_transport
}

#[inline(always)]
pub(super) const fn may_start(h: &Headers, sloppy: bool) -> bool {
    h.event == INIT_CHUNK || (sloppy && h.event != ABORT_CHUNK)
}

pub(super) const fn state_name(state: u8) -> &'static str {
    match state {
        NONE => "NONE",
        INIT1 => "INIT1",
        INIT => "INIT",
        COOKIE_SENT => "C-SENT",
        COOKIE_REPLIED => "C-REPLIED",
        COOKIE_WAIT => "C-WAIT",
        COOKIE => "COOKIE",
        COOKIE_ECHOED => "C-ECHOED",
        ESTABLISHED => "ESTABLISHED",
        SHUTDOWN_SENT => "S-SENT",
        SHUTDOWN_RECEIVED => "S-RECEIVED",
        SHUTDOWN_ACK_SENT => "S-ACK-SENT",
        REJECTED => "REJECTED",
        CLOSED => "CLOSED",
        _ => "?",
    }
}
