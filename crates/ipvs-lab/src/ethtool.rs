//! Offloads of an interface, by the ethtool ioctl.

use std::{fmt, io};

use crate::{Namespace, sys};

/// Something that the kernel leaves to an interface, or does before a packet is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Checksums of received packets are trusted (`rx`).
    RxChecksum,
    /// Checksums of sent packets are left unfilled (`tx`).
    TxChecksum,
    /// A packet may be handed over in several pieces (`sg`).
    ScatterGather,
    /// TCP segments larger than the MTU are sent (`tso`).
    TcpSegmentation,
    /// Large segments are kept whole until the driver (`gso`).
    GenericSegmentation,
    /// Received segments are merged (`gro`).
    GenericReceive,
}

impl Offload {
    /// All of them, in an order in which they can be turned off one by one.
    pub const ALL: [Self; 6] = [
        Self::TcpSegmentation,
        Self::GenericSegmentation,
        Self::GenericReceive,
        Self::ScatterGather,
        Self::TxChecksum,
        Self::RxChecksum,
    ];

    /// The numbers of linux/ethtool.h that read and write it.
    const fn commands(self) -> (u32, u32) {
        match self {
            Self::RxChecksum => (0x14, 0x15),
            Self::TxChecksum => (0x16, 0x17),
            Self::ScatterGather => (0x18, 0x19),
            Self::TcpSegmentation => (0x1e, 0x1f),
            Self::GenericSegmentation => (0x23, 0x24),
            Self::GenericReceive => (0x2b, 0x2c),
        }
    }

    pub(crate) fn set(self, namespace: &Namespace, link: &str, on: bool) -> io::Result<()> {
        let (_, write) = self.commands();
        sys::ethtool_value(namespace.control(), link, write, u32::from(on)).map(|_same| ())
    }

    pub(crate) fn is_on(self, namespace: &Namespace, link: &str) -> io::Result<bool> {
        let (read, _) = self.commands();
        sys::ethtool_value(namespace.control(), link, read, 0).map(|value| value != 0)
    }
}

impl fmt::Display for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RxChecksum => "rx checksumming",
            Self::TxChecksum => "tx checksumming",
            Self::ScatterGather => "scatter-gather",
            Self::TcpSegmentation => "TCP segmentation offload",
            Self::GenericSegmentation => "generic segmentation offload",
            Self::GenericReceive => "generic receive offload",
        })
    }
}
