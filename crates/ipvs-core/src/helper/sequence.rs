//! What is kept of a control connection, and the sequence numbers that a text
//! of changed length shifts.
//!
//! Only servers' texts change, so their sequence numbers are shifted on the
//! way to the client, and the client's acknowledgements back.

use core::cell::Cell;

use ipvs_wire::{Buffer, Headers};

use super::ftp::Mode;
use super::segment::{self, ACKNOWLEDGEMENT, Segment};

/// The words of [`Conn::extra`](crate::conn::Conn::extra) of a helped connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory<'a>(pub(super) &'a [Cell<u32>; 6]);

/// The mode that the connection is in.
const MODE: u32 = 0xff;
/// The mode of the announcement that was rewritten last.
const LAST_MODE: u32 = 0xff00;
/// The server's sequence numbers are known.
const SENT: u32 = 1 << 16;
/// An announcement was rewritten.
const REWROTE: u32 = 1 << 17;

impl<'a> Memory<'a> {
    /// Mode and flags.
    const fn state(self) -> &'a Cell<u32> {
        &self.0[0]
    }

    /// The sequence number of the last announcement whose length changed.
    const fn start(self) -> &'a Cell<u32> {
        &self.0[1]
    }

    /// How far the numbers behind it are shifted.
    const fn after(self) -> &'a Cell<u32> {
        &self.0[2]
    }

    /// How far those up to it are.
    const fn before(self) -> &'a Cell<u32> {
        &self.0[3]
    }

    /// What the server sends next.
    const fn next(self) -> &'a Cell<u32> {
        &self.0[4]
    }

    /// The sequence number of the announcement that was rewritten last.
    const fn last(self) -> &'a Cell<u32> {
        &self.0[5]
    }

    pub(super) fn set_mode(self, mode: Mode) {
        self.state().set(self.state().get() & !MODE | mode as u32);
    }

    /// The mode in which a server's segment is read: an announcement that is
    /// sent again is rewritten again.
    pub(super) fn mode_at(self, sequence: u32) -> Mode {
        let state = self.state().get();
        match Mode::from_number(state & MODE) {
            _ if self.is_last(sequence) => Mode::from_number((state & LAST_MODE) >> 8),
            mode => mode,
        }
    }

    /// Whether the announcement that was rewritten last stood at `sequence`.
    fn is_last(self, sequence: u32) -> bool {
        self.state().get() & REWROTE != 0 && self.last().get() == sequence
    }

    /// The announcement at `sequence` was rewritten and grew by `growth`. What
    /// is sent again changes nothing.
    pub(super) fn rewrote(self, mode: Mode, sequence: u32, growth: i32) {
        if self.is_last(sequence) {
            return;
        }
        self.state().set(self.state().get() & SENT | REWROTE | (mode as u32) << 8);
        self.last().set(sequence);
        let first = self.after().get() == self.before().get();
        if growth != 0 && (first || is_after(sequence, self.start().get())) {
            self.start().set(sequence);
            self.before().set(self.after().get());
            self.after().set(self.after().get().wrapping_add_signed(growth));
        }
    }

    /// Whether any number is shifted.
    fn is_shifted(self) -> bool {
        self.after().get() | self.before().get() != 0
    }

    /// A server's sequence number as the client is to see it.
    pub(super) fn shifted(self, sequence: u32) -> u32 {
        let behind = is_after(sequence, self.start().get());
        sequence.wrapping_add(if behind { self.after().get() } else { self.before().get() })
    }

    /// What the client acknowledges as the server counts it.
    fn shifted_back(self, acknowledged: u32) -> u32 {
        let before = acknowledged.wrapping_sub(self.before().get());
        if is_after(before, self.start().get()) {
            acknowledged.wrapping_sub(self.after().get())
        } else {
            before
        }
    }

    /// Takes note of how far the server sent.
    pub(super) fn note_sent(self, segment: &Segment) {
        let state = self.state().get();
        let next = segment.next_sequence();
        if state & SENT == 0 || is_after(next, self.next().get()) {
            self.next().set(next);
            self.state().set(state | SENT);
        }
    }

    /// Whether the client acknowledges what the server never sent.
    pub(super) fn is_never_sent(self, acknowledged: u32) -> bool {
        self.state().get() & SENT != 0
            && is_after(self.shifted_back(acknowledged), self.next().get())
    }
}

/// Whether one sequence number lies behind another (RFC 9293, section 3.4).
const fn is_after(one: u32, other: u32) -> bool {
    (other.wrapping_sub(one)) >> 31 != 0
}

/// Shifts the acknowledgements in a client's segment back, the selective ones
/// (RFC 2018) too.
pub(super) fn shift_back<B: Buffer>(
    buf: &mut B,
    h: &Headers,
    segment: &Segment,
    memory: Memory<'_>,
) -> Option<()> {
    if !memory.is_shifted() {
        return Some(());
    }
    let acknowledged = memory.shifted_back(segment.acknowledged);
    buf.store(segment.at + ACKNOWLEDGEMENT, acknowledged.to_be_bytes())?;
    shift_selective(buf, segment, memory);
    segment::sum_up(buf, h, 0)
}

/// Shifts the blocks of a SACK option; options that make no sense end the search.
fn shift_selective<B: Buffer>(buf: &mut B, segment: &Segment, memory: Memory<'_>) -> Option<()> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const SACK: u8 = 5;
    let mut at = segment.at + ipvs_wire::transport::tcp::HEADER_LEN;
    while at < segment.payload {
        let [kind] = buf.load(at)?;
        if kind == END {
            break;
        }
        if kind == NO_OPERATION {
            at += 1;
            continue;
        }
        let [len] = buf.load(at + 1)?;
        let end = at + u32::from(len);
        if len < 2 || end > segment.payload {
            break;
        }
        if kind == SACK {
            let mut edge = at + 2;
            while edge + 4 <= end {
                let number = u32::from_be_bytes(buf.load(edge)?);
                buf.store(edge, memory.shifted_back(number).to_be_bytes())?;
                edge += 4;
            }
        }
        at = end;
    }
    Some(())
}
