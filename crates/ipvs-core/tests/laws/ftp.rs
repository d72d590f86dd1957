//! Laws of the FTP helper: what it takes for an address, that any text is
//! borne, and that both sides see one unbroken stream whatever it rewrites.
//!
//! The tables are what Linux 6.1 was seen to do with the same texts.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipvs_core::command::Command;
use ipvs_core::dest::ForwardingMethod;
use ipvs_core::tables::Tables as _;
use ipvs_core::verdict::{Reason, Verdict};
use ipvs_plane::frame::Frame;
use proptest::prelude::*;

use crate::packet::{ACK, FIN, SYN, Shape, TCP, seen};
use crate::world::{
    Host, INSIDE, OUTSIDE, World, client, dest_key, dest_spec, own_mac, server, service_key,
    service_spec, vip,
};

const PORT: u16 = 40_000;
/// The first sequence numbers of either side.
const CLIENT_ISN: u32 = 1000;
const SERVER_ISN: u32 = 5000;

/// A control connection through a director, established.
struct Control {
    world: World,
    v6: bool,
    /// What each side sends next.
    client_next: u32,
    server_next: u32,
}

/// What left of a segment.
struct Left {
    sequence: u32,
    acknowledged: u32,
    payload: Vec<u8>,
}

impl Control {
    fn new(v6: bool) -> Self {
        let key = service_key(TCP, vip(v6, 0), 21);
        let dest = dest_key(server(v6, 11), 21);
        let world = World::with(
            &[
                Command::AddService(key, service_spec(key.family(), "rr", 0)),
                Command::AddDest(key, dest, dest_spec(ForwardingMethod::Masquerade, 1)),
            ],
            Host::default(),
        );
        let (client_next, server_next) = (CLIENT_ISN + 1, SERVER_ISN + 1);
        let mut control = Self { world, v6, client_next, server_next };
        control.client_sends(CLIENT_ISN, 0, SYN, b"").unwrap();
        control.server_sends(SERVER_ISN, client_next, SYN | ACK, b"").unwrap();
        control.client_sends(client_next, server_next, ACK, b"").unwrap();
        control
    }

    fn client_sends(&mut self, sequence: u32, ack: u32, flags: u8, text: &[u8]) -> Option<Left> {
        let ends = ((client(self.v6, 1), PORT), (vip(self.v6, 0), 21));
        self.pass(OUTSIDE, ends, sequence, ack, flags, text)
    }

    fn server_sends(&mut self, sequence: u32, ack: u32, flags: u8, text: &[u8]) -> Option<Left> {
        let ends = ((server(self.v6, 11), 21), (client(self.v6, 1), PORT));
        self.pass(INSIDE, ends, sequence, ack, flags, text)
    }

    fn pass(
        &mut self,
        entry: u32,
        (source, destination): ((IpAddr, u16), (IpAddr, u16)),
        sequence: u32,
        acknowledged: u32,
        flags: u8,
        text: &[u8],
    ) -> Option<Left> {
        let mut shape = Shape::new(TCP, source, destination, flags);
        (shape.sequence, shape.acknowledged) = (sequence, acknowledged);
        shape.payload = text.to_vec();
        let mut frame: Frame = shape.frame(own_mac(entry));
        match self.world.handle(&mut frame, entry) {
            Verdict::Send { .. } => {}
            Verdict::Drop(_) => return None,
            verdict => panic!("{verdict:?}"),
        }
        let rest = seen(&frame).rest;
        let word = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap());
        Some(Left { sequence: word(0), acknowledged: word(4), payload: rest[16..].to_vec() })
    }

    /// The client says something; it reaches the server as it is.
    fn say(&mut self, text: &[u8]) {
        let left = self.client_sends(self.client_next, self.server_next, ACK, text).unwrap();
        assert_eq!(left.payload, text);
        self.client_next += u32::try_from(text.len()).unwrap();
    }

    /// The server says something; returns what reaches the client.
    fn answer(&mut self, text: &[u8]) -> String {
        let left = self.server_sends(self.server_next, self.client_next, ACK, text).unwrap();
        self.server_next += u32::try_from(text.len()).unwrap();
        String::from_utf8(left.payload).unwrap()
    }

    /// The data connections that are expected: client and destination.
    fn expected(&self) -> BTreeSet<(String, String)> {
        let mut expected = BTreeSet::new();
        self.world.each_conn(|_, conn| {
            let tuple = conn.tuple.get();
            let dest = self.world.tables().dest(conn.dest.get()).unwrap();
            if tuple.destination_port != 21 {
                expected.insert((
                    format!("{}:{}", tuple.source.to_ip(tuple.family()), tuple.source_port),
                    format!(
                        "{}:{}",
                        conn.dest_addr(dest).to_ip(tuple.family()),
                        conn.dest_port.get()
                    ),
                ));
            }
        });
        expected
    }
}

/// The clients' addresses that are expected after a client's words.
fn clients(v6: bool, text: &[u8]) -> Vec<String> {
    let mut control = Control::new(v6);
    control.say(text);
    control.expected().into_iter().map(|(client, _)| client).collect()
}

#[test]
fn port_is_read_as_the_kernel_reads_it() {
    let none: &[&[u8]] = &[
        b"PORT 1,2,3,4,5,6",
        b"PORT x 1,2,3,4,5,6\r\n",
        b"NOOP\r\nPORT 1,2,3,4,5,6\r\n",
        b"PORT 1,2,3,4,5\r\n",
        b"PORT 257,2,3,4,5,6\r\n",
        b"PORT 1,2,3,4,5,262\r\n",
        b"PORT",
    ];
    for text in none {
        assert!(clients(false, text).is_empty(), "{}", text.escape_ascii());
    }
    let some: &[(&[u8], &str)] = &[
        (b"PORT 1,2,3,4,5,6\r\n", "1.2.3.4:1286"),
        (b"PORT1,2,3,4,5,6\r\n", "1.2.3.4:1286"),
        (b"PORT\t1,2,3,4,5,6\r\n", "1.2.3.4:1286"),
        (b"PORTX 1,2,3,4,5,6\r\n", "1.2.3.4:1286"),
        (b"port   1,2,3,4,5,6 \r\n", "1.2.3.4:1286"),
        (b"PORT 1,2,3,4,5,6,7\r\n", "1.2.3.4:1286"),
        (b"PORT 1,,3,4,5,6\r\n", "1.0.3.4:1286"),
        (b"PORT ,2,3,4,5,6\r\n", "0.2.3.4:1286"),
        (b"PORT 1,2,3,4,5,x\r\n", "1.2.3.4:1280"),
        (b"PORT 1,2,3,4,0,0\r\n", "1.2.3.4:0"),
    ];
    for (text, address) in some {
        assert_eq!(clients(false, text), [*address], "{}", text.escape_ascii());
    }
    assert!(clients(true, b"PORT 1,2,3,4,5,6\r\n").is_empty());
}

#[test]
fn eprt_is_read_as_the_kernel_reads_it() {
    let none: &[&[u8]] = &[
        b"EPRT|1|1.2.3.4|1025|\r\n",
        b"EPRT\t|1|1.2.3.4|1025|\r\n",
        b"EPRT |1|1.2.3.4|0|\r\n",
        b"EPRT |1|1.2.3.4|65536|\r\n",
        b"EPRT |1|1.2.3.4|66561|\r\n",
        b"EPRT |1|1.2.3.4||\r\n",
        b"EPRT |1|1.2.3.4|1025\r\n",
        b"EPRT |1|1.2.3.4|10x5|\r\n",
        b"EPRT |2|1.2.3.4|1025|\r\n",
        b"EPRT |01|1.2.3.4|1025|\r\n",
        b"EPRT |1|1.2.3|1025|\r\n",
        b"EPRT |1|1.2.3.300|1025|\r\n",
        b"EPRT |1|1.2.3.4 |1025|\r\n",
        b"EPRT 91911.2.3.15910259\r\n",
        b"NOOP\r\nEPRT |1|1.2.3.4|1025|\r\n",
    ];
    for text in none {
        assert!(clients(false, text).is_empty(), "{}", text.escape_ascii());
    }
    let some: &[(&[u8], &str)] = &[
        (b"EPRT |1|1.2.3.4|1025|\r\n", "1.2.3.4:1025"),
        (b"eprt  !1!1.2.3.4!1025!\r\n", "1.2.3.4:1025"),
        (b"EPRT |1|1.2.3.4|1025|", "1.2.3.4:1025"),
        (b"EPRT |1|1.2.3.4|1025|x", "1.2.3.4:1025"),
        (b"EPRT |1|1.2.3.08|1025|\r\n", "1.2.3.8:1025"),
    ];
    for (text, address) in some {
        assert_eq!(clients(false, text), [*address], "{}", text.escape_ascii());
    }
    assert_eq!(clients(true, b"EPRT |2|2001:db8::7|1025|\r\n"), ["2001:db8::7:1025"]);
    assert!(clients(true, b"EPRT |2|2001::db8::7|1025|\r\n").is_empty());
    assert!(clients(true, b"EPRT |1|1.2.3.4|1025|\r\n").is_empty());
}

/// What becomes of a server's `answer` to `command`, and how many data
/// connections are expected then.
#[track_caller]
fn announces(v6: bool, command: &[u8], answer: &[u8], becomes: &str, expected: usize) {
    let mut control = Control::new(v6);
    control.say(command);
    let words = format!("{} {}", command.escape_ascii(), answer.escape_ascii());
    assert_eq!(control.answer(answer), becomes, "{words}");
    assert_eq!(control.expected().len(), expected, "{words}");
}

#[test]
fn a_passive_announcement_is_rewritten_as_the_kernel_does_it() {
    let same: &[&[u8]] = &[
        b"227 2 ok (10,1,0,11,4,1)\r\n",
        b"227 ok ( 10,1,0,11,4,1)\r\n",
        b"227 ( (10,1,0,11,4,1)\r\n",
        b"227-(10,1,0,11,4,1)\r\n",
        b"227 (266,1,0,11,4,1)\r\n",
        b"227 (10,1,0,11,260,1)\r\n",
        b"227 (10,1,0,11,4,1",
        b"220 a\r\n227 (10,1,0,11,4,1)\r\n",
        b"229 (|||1025|)\r\n",
    ];
    for text in same {
        announces(false, b"PASV\r\n", text, str::from_utf8(text).unwrap(), 0);
    }
    let changed: &[(&[u8], &str)] = &[
        (b"227 ok (10,1,0,11,4,1).\r\n", "227 ok (192,0,2,10,4,1).\r\n"),
        (b"227 ok 10,1,0,11,4,1\r\n", "227 ok 192,0,2,10,4,1\r\n"),
        (b"227 ok =10,1,0,11,4,1)\r\n", "227 ok =192,0,2,10,4,1)\r\n"),
        (b"227 ok ((10,1,0,11,4,1))\r\n", "227 ok ((192,0,2,10,4,1))\r\n"),
        (b"227 (10,1,0,11,4,1)", "227 (192,0,2,10,4,1)"),
        (b"227 (010,001,000,011,004,001)\r\n", "227 (192,0,2,10,4,1)\r\n"),
        (b"227 (10,1,0,11,0,0)\r\n", "227 (192,0,2,10,0,0)\r\n"),
        (b"227 (10,1,0,,4,5)\r\n", "227 (192,0,2,10,4,5)\r\n"),
    ];
    for (text, becomes) in changed {
        announces(false, b"PASV\r\n", text, becomes, 1);
    }
    let enter: &[(&[u8], bool)] = &[
        (b"PASV\r", false),
        (b"PASV\n\n\n", false),
        (b"PASV \r\n", false),
        (b"NOOP\r\n", false),
        (b"pasv\r\n", true),
        (b"XPASV\r\n", true),
        (b"NOOP\r\nPASV\r\n", true),
        (b"xxxxxPASV\r\nx", true),
    ];
    for (command, enters) in enter {
        let number = if *enters { "192,0,2,10" } else { "10,1,0,11" };
        let becomes = format!("227 ({number},4,1)\r\n");
        announces(false, command, b"227 (10,1,0,11,4,1)\r\n", &becomes, usize::from(*enters));
    }
}

#[test]
fn an_extended_announcement_is_rewritten_as_the_kernel_does_it() {
    let same: &[&[u8]] = &[
        b"229 x |||1025|\r\n",
        b"229 (|1||1025|)\r\n",
        b"229 (|||1025)\r\n",
        b"229 (|||0|)\r\n",
        b"229 ( |||1025|)\r\n",
        b"229 (|2|x|1025|)\r\n",
        b"227 (10,1,0,11,4,1)\r\n",
    ];
    for text in same {
        announces(false, b"EPSV\r\n", text, str::from_utf8(text).unwrap(), 0);
    }
    let changed: &[(&[u8], &str)] = &[
        (b"229 x (|||1025|)\r\n", "229 x (|||1025|)\r\n"),
        (b"229 (|||1025|\r\n", "229 (|||1025|\r\n"),
        (b"229 ((|||1025|)\r\n", "229 ((|||1025|)\r\n"),
        (b"229 (!!!1025!)\r\n", "229 (|||1025|)\r\n"),
        (b"229 (|1|10.1.0.11|1025|)\r\n", "229 (|||1025|)\r\n"),
    ];
    for (text, becomes) in changed {
        announces(false, b"EPSV\r\n", text, becomes, 1);
    }
    let enter: &[(&[u8], bool)] = &[
        (b"EPSV\r", false),
        (b"EPSV 2\r\n", false),
        (b"EPSV ALL\r\n", false),
        (b"EPSV 1\n\n\n", false),
        (b"EPSV  1\r\n", false),
        (b"EPSV 1\r", true),
        (b"xepsv\r\n", true),
    ];
    for (command, enters) in enter {
        announces(
            false,
            command,
            b"229 (|||1025|)\r\n",
            "229 (|||1025|)\r\n",
            usize::from(*enters),
        );
    }
    announces(false, b"EPSV\r\n", b"229 (|||66561|)\r\n", "229 (|||66561|)\r\n", 0);
    announces(true, b"EPSV 2\r\n", b"229 (|2|fd01::10b|1025|)\r\n", "229 (|||1025|)\r\n", 1);
    announces(true, b"PASV\r\n", b"227 (10,1,0,11,4,1)\r\n", "227 (10,1,0,11,4,1)\r\n", 0);
}

#[test]
fn an_announcement_counts_for_one_command() {
    let mut control = Control::new(false);
    control.say(b"PASV\r\n");
    assert_eq!(control.answer(b"227 (10,1,0,11,4,1)\r\n"), "227 (192,0,2,10,4,1)\r\n");
    assert_eq!(control.answer(b"227 (10,1,0,11,4,2)\r\n"), "227 (10,1,0,11,4,2)\r\n");
    let mut control = Control::new(false);
    control.say(b"PASV\r\n");
    control.say(b"PORT 198,51,100,1,4,1\r\n");
    assert_eq!(control.answer(b"227 (10,1,0,11,4,2)\r\n"), "227 (10,1,0,11,4,2)\r\n");
}

#[test]
fn data_may_come_from_another_host_than_the_server() {
    let mut control = Control::new(false);
    control.say(b"PASV\r\n");
    control.answer(b"227 (10,1,0,99,4,2)\r\n");
    let other = IpAddr::from([10, 1, 0, 99]);
    let (caller, virtual_end) = ((client(false, 1), 40_100), (vip(false, 0), 1026));
    control.pass(OUTSIDE, (caller, virtual_end), 1, 0, SYN, b"").unwrap();
    let found: Vec<_> = control.expected().into_iter().collect();
    assert_eq!(found, [("198.51.100.1:40100".to_owned(), "10.1.0.99:1026".to_owned())]);
    let mut frame = Shape::new(TCP, (other, 1026), caller, SYN | ACK).frame(own_mac(INSIDE));
    let verdict = control.world.handle(&mut frame, INSIDE);
    assert!(matches!(verdict, Verdict::Send { ifindex: OUTSIDE, .. }), "{verdict:?}");
    assert_eq!(seen(&frame).source, virtual_end);
}

#[test]
fn one_client_port_answers_an_announcement_and_the_next_is_a_stranger() {
    let mut control = Control::new(false);
    control.say(b"EPSV\r\n");
    control.answer(b"229 (|||1026|)\r\n");
    let virtual_end = (vip(false, 0), 1026);
    control.pass(OUTSIDE, ((client(false, 1), 7001), virtual_end), 1, 0, SYN, b"").unwrap();
    let mut frame =
        Shape::new(TCP, (client(false, 1), 7002), virtual_end, SYN).frame(own_mac(OUTSIDE));
    let verdict = control.world.handle(&mut frame, OUTSIDE);
    assert_eq!(verdict, Verdict::Pass(Reason::NotStarting));
    assert_eq!(control.world.tables().expected().unwrap().get(), 0);
}

#[test]
fn only_connections_to_the_ports_that_are_set_are_helped() {
    let mut control = Control::new(false);
    control.world.registry.change_settings(|settings| settings.ftp_ports = [2121; 8]).unwrap();
    control.say(b"PORT 1,2,3,4,5,6\r\n");
    assert_eq!(control.expected().len(), 1, "it was helped when it was made");
    let other = ((client(false, 1), PORT + 1), (vip(false, 0), 21));
    control.pass(OUTSIDE, other, CLIENT_ISN, 0, SYN, b"").unwrap();
    let replies = ((server(false, 11), 21), (client(false, 1), PORT + 1));
    control.pass(INSIDE, replies, SERVER_ISN, CLIENT_ISN + 1, SYN | ACK, b"").unwrap();
    let next = (CLIENT_ISN + 1, SERVER_ISN + 1);
    control.pass(OUTSIDE, other, next.0, next.1, ACK, b"PORT 1,2,3,4,5,7\r\n").unwrap();
    assert_eq!(control.expected().len(), 1);
}

#[test]
fn a_control_connection_outlives_its_data_connections() {
    let mut control = Control::new(false);
    control.say(b"EPSV\r\n");
    control.answer(b"229 (|||1026|)\r\n");
    control.client_sends(control.client_next, control.server_next, FIN | ACK, b"").unwrap();
    control.world.pass_time(61_000);
    control.world.sweep();
    let mut kept = 0;
    control.world.each_conn(|_, _| kept += 1);
    assert_eq!(kept, 2, "closed for a minute, but data is still expected");
    control.world.pass_time(60_000);
    control.world.sweep();
    control.world.pass_time(60_000);
    control.world.sweep();
    control.world.each_conn(|id, _| panic!("{id} is left"));
    assert_eq!(control.world.tables().expected().unwrap().get(), 0);
}

#[test]
fn what_was_never_sent_cannot_be_acknowledged() {
    let mut control = Control::new(false);
    let (next, sent) = (control.client_next, control.server_next);
    assert!(control.client_sends(next, sent + 1, ACK, b"NOOP\r\n").is_none());
    assert!(control.client_sends(next, sent + 1, ACK, b"PORT 1,2,3,4,5,6\r\n").is_none());
    assert_eq!(control.expected().len(), 1, "it has its effect all the same");
    assert!(control.client_sends(next, sent, ACK, b"NOOP\r\n").is_some());
}

/// Words that the helper minds, and others.
fn any_text() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "PASV\r\n",
        "EPSV\r\n",
        "EPSV 2\r\n",
        "PORT ",
        "EPRT ",
        "227 (",
        "229 (",
        "|",
        "|||",
        ",",
        "1",
        "65535",
        "1,2,3,4,5,6",
        "2001:db8::1",
        "1.2.3.4",
        ")",
        "\r\n",
        " ",
    ];
    let word = prop_oneof![
        4 => prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

/// What a server says, and what the client is to hear; `{}` stands for the address.
fn any_answer() -> impl Strategy<Value = (&'static [u8], &'static str)> {
    prop::sample::select(vec![
        (&b"PASV\r\n"[..], "227 Entering Passive Mode ({},4,1).\r\n"),
        (b"PASV\r\n", "227 Voila, {},200,200\r\n"),
        (b"EPSV\r\n", "229 Entering Extended Passive Mode (|||1026|)\r\n"),
        (b"NOOP\r\n", "200 NOOP ok.\r\n"),
        (b"LIST\r\n", "150 Here it comes.\r\n"),
    ])
}

proptest! {
    #[test]
    fn any_text_is_borne(
        v6: bool,
        texts in prop::collection::vec((any::<bool>(), any_text()), 1..8),
    ) {
        let mut control = Control::new(v6);
        for (from_client, text) in texts {
            if from_client {
                control.client_sends(control.client_next, control.server_next, ACK, &text);
                control.client_next += u32::try_from(text.len()).unwrap();
            } else {
                control.server_sends(control.server_next, control.client_next, ACK, &text);
                control.server_next += u32::try_from(text.len()).unwrap();
            }
        }
    }

    /// The client hears every octet once, at the place where the one before
    /// ended, however often a segment is sent; and what it acknowledges is what
    /// the server sent.
    #[test]
    fn both_sides_see_one_unbroken_stream(
        exchange in prop::collection::vec((any_answer(), 1usize..4, 1usize..3), 1..20),
    ) {
        let mut control = Control::new(false);
        let mut heard = SERVER_ISN + 1;
        for ((command, answer), asked, answered) in exchange {
            for _ in 0..asked {
                let left = control.client_sends(control.client_next, heard, ACK, command).unwrap();
                prop_assert_eq!(left.sequence, control.client_next);
                prop_assert_eq!(left.acknowledged, control.server_next);
            }
            control.client_next += u32::try_from(command.len()).unwrap();
            let said = answer.replace("{}", "10,1,0,11");
            let hears = answer.replace("{}", "192,0,2,10");
            for _ in 0..answered {
                let left = control
                    .server_sends(control.server_next, control.client_next, ACK, said.as_bytes())
                    .unwrap();
                prop_assert_eq!(left.sequence, heard);
                prop_assert_eq!(left.payload, hears.as_bytes());
            }
            control.server_next += u32::try_from(said.len()).unwrap();
            heard += u32::try_from(hears.len()).unwrap();
        }
        let left = control.client_sends(control.client_next, heard, ACK, b"").unwrap();
        prop_assert_eq!(left.acknowledged, control.server_next);
    }
}
