//! Replays recorded behaviour of the kernel's IPVS on our own planes and tells
//! every difference.
//!
//! * [`case`]: a recorded case, what went in and what came out.
//! * [`subject`]: what is held against it: a director that takes frames and
//!   commands while time is a value.
//! * [`core_subject`]: the core alone, without a host or a clock.
//! * [`host`]: the director's host in the topology of the recordings.
//! * [`marks`]: the firewall's commands that mark packets, as rules of our own.
//! * [`layout`], [`wire`]: the same network for real, in namespaces, and its
//!   other ends.
//! * [`namespace_subject`]: a data plane at work there, be it the one of
//!   [`bpf_subject`] or the one of [`user_subject`].
//! * [`shell`], [`room`], [`applet`]: command lines, the shell that some need, and
//!   our programs in it.
//! * [`plane`]: the planes, and how a case is run on each.
//! * [`mod@replay`]: a case driven through a subject.
//! * [`compare`]: frame against frame, text against text.
//! * [`run`]: many cases at a time.
//! * [`report`]: what people and machines read at the end.

pub mod applet;
pub mod bpf_subject;
pub mod case;
pub mod compare;
pub mod core_subject;
pub mod decode;
pub mod host;
pub mod layout;
pub mod marks;
pub mod namespace_subject;
pub mod plane;
pub mod replay;
pub mod report;
pub mod room;
pub mod run;
pub mod selection;
pub mod shell;
pub mod subject;
pub mod user_subject;
pub mod wire;
