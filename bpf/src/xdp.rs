//! The XDP entry point: frames as the driver has them.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::generated as helpers;
use ipvs_core::director::{self, Arrival};
use ipvs_core::verdict::{Stage, Verdict};
use ipvs_wire::{Buffer, Outer, ethernet};

use crate::bytes::{self, Read};
use crate::tables::{self, Maps};
use crate::{kernel, maps};

/// A frame before the kernel's stack has it.
struct XdpFrame {
    ctx: *mut xdp_md,
}

impl XdpFrame {
    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the context is this program's.
        unsafe { (*self.ctx).data as usize }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: the context is this program's.
        unsafe { (*self.ctx).data_end as usize }
    }
}

impl Read for XdpFrame {
    #[inline(always)]
    fn read<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        bytes::load(self.data(), self.end(), at)
    }
}

impl Buffer for XdpFrame {
    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.read(at)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: u32, octets: [u8; N]) -> Option<()> {
        bytes::store(self.data(), self.end(), at, octets)
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self, at: u32) -> Option<[u32; N]> {
        bytes::load_words(self.data(), self.end(), at)
    }

    #[inline(always)]
    fn store_words<const N: usize>(&mut self, at: u32, words: [u32; N]) -> Option<()> {
        bytes::store_words(self.data(), self.end(), at, words)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        bytes::distance(self.data(), self.end())
    }

    #[inline(always)]
    fn insert(&mut self, at: u32, count: u32, _outer: Outer) -> Option<()> {
        // SAFETY: the context is this program's.
        if unsafe { helpers::bpf_xdp_adjust_head(self.ctx, -(count as i32)) } != 0 {
            return None;
        }
        match at {
            ethernet::HEADER_LEN => {
                let header: [u8; 14] = self.load(count)?;
                self.store(0, header)
            }
            _ => {
                let header: [u8; 18] = self.load(count)?;
                self.store(0, header)
            }
        }
    }

    #[inline(always)]
    fn remove(&mut self, at: u32, count: u32) -> Option<()> {
        // SAFETY: the context is this program's.
        let shrink = |count| unsafe { helpers::bpf_xdp_adjust_head(self.ctx, count) == 0 };
        match at {
            ethernet::HEADER_LEN => {
                let header: [u8; 14] = self.load(0)?;
                if !shrink(count as i32) {
                    return None;
                }
                self.store(0, header)
            }
            _ => {
                let header: [u8; 18] = self.load(0)?;
                if !shrink(count as i32) {
                    return None;
                }
                self.store(0, header)
            }
        }
    }

    #[inline(always)]
    fn truncate(&mut self, len: u32) -> Option<()> {
        let more = self.len() as i32 - len as i32;
        if more <= 0 {
            return Some(());
        }
        // SAFETY: the context is this program's.
        (unsafe { helpers::bpf_xdp_adjust_tail(self.ctx, -more) } == 0).then_some(())
    }

    #[inline(always)]
    fn sum(&self, at: u32, count: u32) -> Option<u16> {
        bytes::sum(self, at, count)
    }

    #[inline(always)]
    fn crc32c(&self, at: u32, count: u32, zeroed: u32) -> Option<u32> {
        bytes::crc32c(self, at, count, zeroed)
    }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn ipvs_xdp(ctx: *mut xdp_md) -> u32 {
    let Some(settings) = tables::settings() else { return xdp_action::XDP_PASS };
    // SAFETY: the context is this program's.
    let ifindex = unsafe { (*ctx).ingress_ifindex };
    let maps = Maps::<false> { ctx: ctx.cast(), ifindex, settings };
    let Some(scratch) = maps::scratch() else { return xdp_action::XDP_PASS };
    let mut frame = XdpFrame { ctx };
    let arrival = Arrival::by(ifindex);
    let verdict = director::handle(&mut frame, &maps, scratch, arrival, kernel::now(settings));
    act(ctx, ifindex, verdict)
}

/// Goes on with an ICMP packet that [`ipvs_xdp`] has read.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn ipvs_xdp_icmp(ctx: *mut xdp_md) -> u32 {
    go_on(ctx, Stage::Icmp)
}

/// Goes on with a packet of no known connection.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn ipvs_xdp_admission(ctx: *mut xdp_md) -> u32 {
    go_on(ctx, Stage::Admission)
}

/// Goes on with a packet of the connection that [`ipvs_xdp_admission`] has found.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn ipvs_xdp_forwarding(ctx: *mut xdp_md) -> u32 {
    go_on(ctx, Stage::Forwarding)
}

/// Goes on with a packet that is answered by an error.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn ipvs_xdp_refusal(ctx: *mut xdp_md) -> u32 {
    go_on(ctx, Stage::Refusal)
}

/// One stage of a packet's way.
#[inline(always)]
fn go_on(ctx: *mut xdp_md, stage: Stage) -> u32 {
    let Some(settings) = tables::settings() else { return xdp_action::XDP_PASS };
    // SAFETY: the context is this program's.
    let ifindex = unsafe { (*ctx).ingress_ifindex };
    let maps = Maps::<false> { ctx: ctx.cast(), ifindex, settings };
    let Some(scratch) = maps::scratch() else { return xdp_action::XDP_PASS };
    let mut frame = XdpFrame { ctx };
    let now = kernel::now(settings);
    let verdict = director::go_on(stage, &mut frame, &maps, scratch, ifindex, now);
    act(ctx, ifindex, verdict)
}

/// Does what the verdict says on a frame that came in by `ifindex`.
#[inline(always)]
fn act(ctx: *mut xdp_md, ifindex: u32, verdict: Verdict) -> u32 {
    match verdict {
        Verdict::GoOn(stage) => {
            maps::go_on_by_xdp(ctx.cast(), stage);
            xdp_action::XDP_PASS
        }
        // The TC program behind it can do what this one cannot.
        Verdict::Pass(_) | Verdict::Resolve { .. } | Verdict::Defer(_) | Verdict::Deliver => {
            xdp_action::XDP_PASS
        }
        Verdict::Drop(_) => xdp_action::XDP_DROP,
        Verdict::Send { ifindex: out, .. } if out == ifindex => xdp_action::XDP_TX,
        // SAFETY: the helper has no precondition.
        Verdict::Send { ifindex: out, .. } => unsafe { helpers::bpf_redirect(out, 0) as u32 },
    }
}
