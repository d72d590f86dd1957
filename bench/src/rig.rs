//! The rig: a host that sends, a director, and a host that all destinations
//! are on, in network namespaces on two veth pairs.

use anyhow::Result;
use ipvs_bench_programs::records::Floor;
use ipvs_lab::{End, Link, MacAddr, Namespace, Offload, Route, veth};

use crate::packet::{Addresses, DESTS};

/// The namespaces and their interfaces.
#[derive(Debug)]
pub(crate) struct Rig {
    /// Where packets are made.
    pub(crate) clients: Namespace,
    /// What is measured.
    pub(crate) director: Namespace,
    /// Where packets are counted.
    pub(crate) servers: Namespace,
    /// Of the clients' host.
    pub(crate) client_link: Link,
    /// Of the director, towards the clients.
    pub(crate) outside: Link,
    /// Of the director, towards the destinations.
    pub(crate) inside: Link,
    /// Of the destinations' host.
    pub(crate) server_link: Link,
    /// Who has which address.
    pub(crate) addresses: Addresses,
}

/// How frames get into the director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// To an XDP program.
    Xdp,
    /// To the kernel's stack, through its ordinary receive path.
    Stack,
}

impl Rig {
    /// Lays the network out.
    pub(crate) fn new(addresses: Addresses, entry: Entry) -> Result<Self> {
        Self::with_queues(addresses, entry, None)
    }

    /// The same with interfaces of so many queues.
    pub(crate) fn with_queues(
        addresses: Addresses,
        entry: Entry,
        queues: Option<u32>,
    ) -> Result<Self> {
        let clients = Namespace::for_lab("bench-clients")?;
        let director = Namespace::for_lab("bench-director")?;
        let servers = Namespace::for_lab("bench-servers")?;
        let end = |namespace, name, mac| {
            let end = End::new(namespace, name).mac(mac);
            queues.map_or(end, |queues| end.queues(queues))
        };
        let (client_link, outside) = veth(
            end(&clients, "g0", MacAddr::local(1, 1)),
            end(&director, "c0", MacAddr::local(1, 2)),
            None,
        )?;
        let (inside, server_link) = veth(
            end(&director, "s0", MacAddr::local(2, 1)),
            end(&servers, "k0", MacAddr::local(2, 2)),
            None,
        )?;
        let rig = Self {
            clients,
            director,
            servers,
            client_link,
            outside,
            inside,
            server_link,
            addresses,
        };
        rig.address()?;
        for link in [&rig.client_link, &rig.outside, &rig.inside, &rig.server_link] {
            link.disable_offloads()?;
        }
        if entry == Entry::Stack {
            // Without it a veth interface takes no frame from a redirect (and a
            // network card has it on).
            rig.outside.set_offload(Offload::GenericReceive, true)?;
            rig.inside.set_offload(Offload::GenericReceive, true)?;
        }
        Ok(rig)
    }

    fn address(&self) -> Result<()> {
        let addresses = &self.addresses;
        let prefix = addresses.director_inside.prefix_len();
        self.client_link.add_address(addresses.client_side)?;
        self.outside.add_address(addresses.director_outside)?;
        self.inside.add_address(addresses.director_inside)?;
        self.director.forward_packets()?;
        let gateway = addresses.client_side.addr();
        self.director.add_route(Route::via(addresses.clients, gateway))?;
        // Nobody is asked for an address: the sink would count the questions, and the
        // kernel would forget the answers.
        self.outside.add_neighbour(gateway, MacAddr::local(1, 1))?;
        for number in 0..DESTS {
            let dest = addresses.dest(number);
            self.server_link.add_address(ipvs_lab::IpNet::new(dest, prefix)?)?;
            self.inside.add_neighbour(dest, MacAddr::local(2, 2))?;
        }
        Ok(())
    }

    /// The addresses of a frame from the clients' host to the director.
    pub(crate) fn macs(&self) -> Result<[MacAddr; 2]> {
        Ok([self.client_link.mac()?, self.outside.mac()?])
    }

    /// How a frame gets from the director to the destinations.
    pub(crate) fn floor(&self) -> Result<Floor> {
        let addresses: [[u8; 6]; 2] = [self.server_link.mac()?.0, self.inside.mac()?.0];
        Ok(Floor { ifindex: self.inside.index(), addresses: zerocopy::transmute!(addresses) })
    }
}

/// Does `work` with this thread in `namespace`.
///
/// Not on a thread of its own: this one is bound to its CPU, and interfaces are
/// named in the namespace of who asks.
pub(crate) fn inside<T>(namespace: &Namespace, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let home = Namespace::current("home")?;
    namespace.enter()?;
    let done = work();
    home.enter()?;
    done
}
