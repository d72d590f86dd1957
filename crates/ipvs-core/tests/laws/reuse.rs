//! Laws of a client's port that is used again while the old connection is in the table.

use ipvs_core::command::Command;
use ipvs_core::dest::ForwardingMethod;
use ipvs_core::tables::Tables as _;
use proptest::prelude::*;

use crate::packet::{ACK, FIN, RST, SYN, Shape, TCP};
use crate::world::{
    Host, OUTSIDE, World, client, dest_key, dest_spec, own_mac, server, service_key, service_spec,
    vip,
};

/// Connections of each destination, in the order of their places.
fn loads(world: &World) -> Vec<u32> {
    let ids: Vec<_> = world.dest_ids().collect();
    ids.iter()
        .map(|id| {
            let load = world.tables().load(*id).unwrap();
            load.active.get() + load.inactive.get()
        })
        .collect()
}

proptest! {
    /// The connection that makes way counts until the new one stands, as in the kernel, which
    /// ends it at its next tick: least-connection schedulers then go to the other server.
    #[test]
    fn the_new_connection_is_scheduled_with_the_old_one_in_the_counts(
        v6: bool,
        nat: bool,
        scheduler in prop::sample::select(vec!["lc", "wlc"]),
        rounds in 1_usize..6,
    ) {
        let method = if nat { ForwardingMethod::Masquerade } else { ForwardingMethod::DirectRoute };
        let key = service_key(TCP, vip(v6, 0), 80);
        let add = |number| Command::AddDest(key, dest_key(server(v6, number), 80), dest_spec(method, 1));
        let commands =
            [Command::AddService(key, service_spec(key.family(), scheduler, 0)), add(11), add(12)];
        let mut world = World::with(&commands, Host::default());
        let send = |world: &mut World, event| {
            let shape = Shape::new(TCP, (client(v6, 1), 40_000), (vip(v6, 0), 80), event);
            let _verdict = world.handle(&mut shape.frame(own_mac(OUTSIDE)), OUTSIDE);
        };
        send(&mut world, SYN);
        let mut before = loads(&world);
        for _ in 0..rounds {
            send(&mut world, FIN | ACK);
            send(&mut world, RST);
            send(&mut world, SYN);
            let after = loads(&world);
            prop_assert_eq!(after.iter().sum::<u32>(), 1, "one connection stands: {:?}", after);
            prop_assert_ne!(&after, &before, "the new one is where the old one was");
            before = after;
        }
    }
}
