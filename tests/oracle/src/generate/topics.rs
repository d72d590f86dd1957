//! The topics that scenarios are about. Together they are what is covered.

use super::service::{Method, Protocol};
use super::shape::{Edit, Shape};

/// What a scenario is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Topic {
    /// Name, for `--only`.
    pub(crate) name: &'static str,
    /// What is looked at.
    pub(crate) about: &'static str,
    /// What its scenarios are made of.
    pub(crate) shape: Shape,
}

pub(crate) const EVERY: &[Protocol] = &[Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
pub(crate) const EVERY_WAY: &[Method] = &[Method::Nat, Method::Nat, Method::Dr, Method::Tunnel];
const TUNNELS: &[Method] = &[
    Method::Mixed("-i"),
    Method::Mixed("-i --tun-type gue --tun-port 6080 --tun-nocsum"),
    Method::Mixed("-i --tun-type gue --tun-port 6080 --tun-csum"),
    Method::Mixed("-i --tun-type gue --tun-port 6080 --tun-remcsum"),
    Method::Mixed("-i --tun-type gre --tun-nocsum"),
    Method::Mixed("-i --tun-type gre --tun-csum"),
];

/// All topics.
pub(crate) const TOPICS: &[Topic] = &[
    Topic {
        name: "tcp",
        about: "lives of TCP connections, in turn and out of turn",
        shape: Shape { odd: 25, methods: EVERY_WAY, ..Shape::PLAIN },
    },
    Topic {
        name: "schedulers",
        about: "who gets which connection, while weights change",
        shape: Shape {
            protocols: EVERY,
            methods: EVERY_WAY,
            schedulers: &["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf"],
            fresh: 70,
            edits: 6,
            kinds: &[Edit::Weight, Edit::Weight, Edit::Scheduler],
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "udp",
        about: "datagrams both ways",
        shape: Shape { protocols: &[Protocol::Udp], methods: EVERY_WAY, again: 20, ..Shape::PLAIN },
    },
    Topic {
        name: "sctp",
        about: "lives of SCTP associations, in turn and out of turn",
        shape: Shape { protocols: &[Protocol::Sctp], methods: EVERY_WAY, odd: 20, ..Shape::PLAIN },
    },
    Topic {
        name: "reuse",
        about: "clients that use a port again, under each rule for it",
        shape: Shape {
            protocols: &[Protocol::Tcp, Protocol::Sctp],
            settings: &[("conn_reuse_mode", &["0", "1", "2", "3"])],
            again: 50,
            reuses: true,
            // Others look at loads.
            schedulers: &["rr", "wrr"],
            clients: 3,
            fresh: 15,
            odd: 20,
            edits: 2,
            kinds: &[Edit::Weight, Edit::Setting],
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "persistence",
        about: "templates, with masks and services for any port",
        shape: Shape {
            protocols: EVERY,
            methods: EVERY_WAY,
            options: &["-p 300", "-p 360 -M 255.255.255.0", "-p 3600"],
            settings: &[("expire_quiescent_template", &["0", "1"])],
            any_port: 40,
            fresh: 50,
            clients: 40,
            edits: 5,
            kinds: &[Edit::Weight, Edit::DeleteServer, Edit::AddServer],
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "thresholds",
        about: "destinations that are overloaded and recover",
        shape: Shape {
            protocols: EVERY,
            thresholds: 80,
            fresh: 60,
            edits: 4,
            kinds: &[Edit::Weight],
            schedulers: &["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf"],
            listings: 3,
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "edits",
        about: "destinations and services that go and come while packets flow",
        shape: Shape {
            protocols: EVERY,
            methods: EVERY_WAY,
            settings: &[("expire_nodest_conn", &["0", "0", "1"])],
            schedulers: &["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf"],
            edits: 12,
            kinds: &[
                Edit::Weight,
                Edit::DeleteServer,
                Edit::AddServer,
                Edit::AddServer,
                Edit::Scheduler,
                Edit::DeleteService,
                Edit::AddService,
                Edit::AddService,
                Edit::Zero,
            ],
            listings: 3,
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "ops",
        about: "one-packet scheduling beside services without it",
        shape: Shape {
            protocols: &[Protocol::Udp],
            methods: EVERY_WAY,
            options: &["-o", "-o", ""],
            schedulers: &["rr", "wrr", "lc", "wlc"],
            again: 30,
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "sloppy",
        about: "packets in the middle of connections that nobody saw begin",
        shape: Shape {
            protocols: &[Protocol::Tcp, Protocol::Sctp],
            methods: EVERY_WAY,
            settings: &[("sloppy_tcp", &["0", "1"]), ("sloppy_sctp", &["0", "1"])],
            fresh: 50,
            odd: 60,
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "hashes",
        about: "schedulers that choose by addresses, while destinations come and go",
        shape: Shape {
            protocols: EVERY,
            methods: EVERY_WAY,
            schedulers: &[
                "sh",
                "sh -b sh-fallback",
                "sh -b sh-port",
                "sh -b sh-fallback,sh-port",
                "dh",
                "mh",
                "mh -b mh-fallback",
                "mh -b mh-port",
                "mh -b mh-fallback,mh-port",
            ],
            fresh: 70,
            quiescent: 15,
            edits: 6,
            kinds: &[Edit::Weight, Edit::DeleteServer, Edit::AddServer, Edit::Scheduler],
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "rate-of-drops",
        about: "packets that are dropped one in so many",
        shape: Shape {
            protocols: EVERY,
            // The kernel looks at the rate when the mode is set, and then each second.
            settings: &[("am_droprate", &["1", "2", "5", "10"]), ("drop_packet", &["3"])],
            fresh: 60,
            edits: 2,
            kinds: &[Edit::Weight],
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "secure",
        about: "lives of TCP connections under secure_tcp",
        shape: Shape {
            settings: &[("secure_tcp", &["3"])],
            odd: 25,
            methods: EVERY_WAY,
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "tunnels",
        about: "tunnels of every kind, between addresses of either family, and short links",
        shape: Shape {
            protocols: EVERY,
            methods: TUNNELS,
            settings: &[("pmtu_disc", &["0", "1"])],
            mtus: &[1500, 1500, 1400, 1280],
            odd: 30,
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "ttl",
        about: "packets with few hops left",
        shape: Shape { protocols: EVERY, methods: EVERY_WAY, tired: 40, ..Shape::PLAIN },
    },
];
