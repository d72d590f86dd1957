//! Clients that are slow, hostile, or many.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};

use super::*;
use crate::metrics::Metrics;

const HOST: &str = "127.0.0.1:0";
/// So long that a test would rather hang than pass by it.
const LONG: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_millis(50);

fn bounds() -> Bounds {
    Bounds { connections: 4, head: LONG, snapshot: LONG, connection: LONG }
}

/// A server without a daemon.
fn deaf(bounds: Bounds) -> (Metrics, SocketAddr) {
    Metrics::listen_within(HOST.parse().unwrap(), bounds).unwrap()
}

/// A server whose daemon has nothing to tell, but answers.
fn server(bounds: Bounds) -> SocketAddr {
    let (metrics, address) = deaf(bounds);
    thread::spawn(move || {
        loop {
            poll(&mut [PollFd::from_borrowed_fd(metrics.as_fd(), PollFlags::IN)], None).unwrap();
            metrics.answer_with(Snapshot::default);
        }
    });
    address
}

/// What is answered to these octets, until the server hangs up.
fn answer(to: SocketAddr, octets: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    // It may have heard enough before it has heard all.
    drop(stream.write_all(octets.as_bytes()));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8(answer).unwrap()
}

fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: metrics\r\n{headers}\r\n")
}

#[track_caller]
fn assert_status(answer: &str, status: u16) {
    let begin = format!("HTTP/1.1 {status} ");
    assert!(answer.starts_with(&begin), "no {status}: {answer}");
}

#[test]
fn metrics_are_got_in_the_form_that_is_asked_for() {
    let server = server(bounds());
    let plain = answer(server, &request("GET", "/metrics", ""));
    assert_status(&plain, 200);
    assert!(plain.contains("content-type: text/plain; version=0.0.4"), "{plain}");
    assert!(plain.contains("\nipvs_build_info{version="), "{plain}");
    let accept = "Accept: application/openmetrics-text\r\n";
    let open = answer(server, &request("GET", "/metrics", accept));
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0"), "{open}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    let head = answer(server, &request("HEAD", "/metrics", ""));
    assert_status(&head, 200);
    assert!(head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn nothing_else_is_there_and_nothing_can_be_changed() {
    let server = server(bounds());
    assert_status(&answer(server, &request("GET", "/", "")), 404);
    assert_status(&answer(server, &request("GET", "/metrics/../etc/passwd", "")), 404);
    assert_status(&answer(server, &request("DELETE", "/metrics", "")), 405);
    assert_status(&answer(server, &request("POST", "/metrics", "Content-Length: 0\r\n")), 405);
}

#[test]
fn a_head_that_is_too_long_or_no_http_is_refused() {
    let server = server(bounds());
    let long = format!("X-Long: {}\r\n", "x".repeat(2 * LONGEST_HEAD));
    assert_status(&answer(server, &request("GET", "/metrics", &long)), 431);
    let many = "X-Many: x\r\n".repeat(2 * MOST_HEADERS);
    assert_status(&answer(server, &request("GET", "/metrics", &many)), 431);
    assert_status(&answer(server, "\u{1}\u{2}nonsense\r\n\r\n"), 400);
    assert_status(&answer(server, &request("GET", "/metrics", "")), 200);
}

#[test]
fn one_who_does_not_finish_a_request_is_hung_up_on() {
    let server = server(Bounds { head: SHORT, ..bounds() });
    let begun = answer(server, "GET /metrics HTTP/1.1\r\nHost:");
    assert!(!begun.starts_with("HTTP/1.1 200"), "{begun}");
    assert!(!answer(server, "").starts_with("HTTP/1.1 200"));
}

#[test]
fn one_who_does_not_end_is_hung_up_on() {
    let server = server(Bounds { connection: SHORT, ..bounds() });
    assert_eq!(answer(server, "GET /metrics HTTP/1.1\r\n"), "");
}

#[test]
fn more_than_there_are_places_for_wait_for_one() {
    let server = server(Bounds { connections: 2, ..bounds() });
    let silent = [(); 2].map(|()| TcpStream::connect(server).unwrap());
    let mut third = TcpStream::connect(server).unwrap();
    third.write_all(request("GET", "/metrics", "").as_bytes()).unwrap();
    third.set_read_timeout(Some(SHORT)).unwrap();
    assert!(third.read(&mut [0]).is_err(), "it was answered, and two have the places");
    drop(silent);
    third.set_read_timeout(None).unwrap();
    let mut answer = String::new();
    third.read_to_string(&mut answer).unwrap();
    assert_status(&answer, 200);
}

#[test]
fn one_who_asks_a_daemon_that_has_no_time_is_told() {
    let (metrics, server) = deaf(Bounds { snapshot: SHORT, ..bounds() });
    let get = request("GET", "/metrics", "");
    assert_status(&answer(server, &get), 503);
    // The daemon makes no snapshot for one who has gone.
    let mut snapshots = 0;
    metrics.answer_with(|| {
        snapshots += 1;
        Snapshot::default()
    });
    assert_eq!(snapshots, 0);
}

#[test]
fn many_are_answered_one_after_the_other() {
    let server = server(bounds());
    let clients =
        [(); 32].map(|()| thread::spawn(move || answer(server, &request("GET", "/metrics", ""))));
    for client in clients {
        assert_status(&client.join().unwrap(), 200);
    }
}
