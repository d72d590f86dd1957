//! The topics for which long time matters, for guests in which it passes quickly.

use super::shape::{Edit, Shape};
use super::topics::{EVERY, EVERY_WAY, Topic};

/// The topics that only a guest with virtual time plays, besides the others.
pub(crate) const LONG: &[Topic] = &[
    Topic {
        name: "timers",
        about: "connections of every state that end by their timers, which change meanwhile",
        shape: Shape {
            protocols: EVERY,
            methods: EVERY_WAY,
            odd: 25,
            waits: 5,
            pauses: &[1, 4, 8, 12, 20, 35, 65, 130, 320, 910],
            edits: 4,
            kinds: &[Edit::Timeouts],
            listings: 5,
            packets: (60, 250),
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "templates",
        about: "templates that are renewed and run out, while their connections last or end",
        shape: Shape {
            protocols: EVERY,
            methods: EVERY_WAY,
            options: &["-p 30", "-p 60 -M 255.255.255.0", "-p 300", "-p 1000"],
            settings: &[("expire_quiescent_template", &["0", "1"])],
            any_port: 40,
            clients: 12,
            fresh: 40,
            waits: 4,
            pauses: &[5, 20, 40, 70, 130, 130, 400, 1100],
            edits: 5,
            kinds: &[
                Edit::Weight,
                Edit::Weight,
                Edit::DeleteServer,
                Edit::AddServer,
                Edit::Setting,
                Edit::Timeouts,
            ],
            quiescent: 15,
            listings: 4,
            packets: (60, 250),
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "trash",
        about: "destinations that come back while connections point at them, and long after",
        shape: Shape {
            protocols: EVERY,
            methods: EVERY_WAY,
            settings: &[
                ("expire_nodest_conn", &["0", "0", "1"]),
                ("expire_quiescent_template", &["0", "1"]),
            ],
            options: &["", "", "-p 60"],
            waits: 4,
            pauses: &[5, 30, 70, 130, 320, 950, 1400],
            edits: 10,
            kinds: &[
                Edit::Weight,
                Edit::DeleteServer,
                Edit::DeleteServer,
                Edit::AddServer,
                Edit::AddServer,
                Edit::AddServer,
                Edit::DeleteService,
                Edit::AddService,
                Edit::Setting,
            ],
            listings: 4,
            packets: (60, 250),
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "caches",
        about: "what lblc and lblcr remember, and forget when it was not used for long",
        shape: Shape {
            protocols: EVERY,
            methods: EVERY_WAY,
            schedulers: &["lblc", "lblcr"],
            settings: &[
                ("lblc_expiration", &["300", "300", "86400"]),
                ("lblcr_expiration", &["300", "300", "86400"]),
            ],
            forgets: Some(300),
            fresh: 60,
            waits: 4,
            pauses: &[10, 65, 310, 1300, 1900, 2500],
            edits: 3,
            kinds: &[Edit::Weight],
            listings: 3,
            packets: (60, 250),
            ..Shape::PLAIN
        },
    },
    Topic {
        name: "late-reuse",
        about: "clients that use a port again, soon, and after hours",
        shape: Shape {
            protocols: EVERY,
            methods: EVERY_WAY,
            settings: &[("conn_reuse_mode", &["0", "1", "2", "3"])],
            again: 50,
            reuses: true,
            schedulers: &["rr", "wrr"],
            clients: 3,
            fresh: 15,
            odd: 20,
            waits: 3,
            pauses: &[5, 15, 65, 130, 320, 920, 8000],
            edits: 3,
            kinds: &[Edit::Weight, Edit::Setting, Edit::Timeouts],
            packets: (60, 250),
            ..Shape::PLAIN
        },
    },
];
