//! A client that is connected: its requests in, its answers out, and nobody
//! waits for it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ipvs_core::snapshot::Control;
use ipvs_netlink::{Access, Conversation};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Longest request, in octets; a client of the kernel's family sends a few hundred.
const LONGEST: usize = 64 * 1024;
/// How long a client may leave its answers unread, and a transaction unfinished.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the client stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    /// It does.
    Yes,
    /// It has hung up, or has to go.
    No,
}

/// A connected client.
///
/// While it leaves answers unread, no further request of it is read: what
/// waits for it is never more than one datagram's answers.
#[derive(Debug)]
pub(crate) struct Peer {
    socket: OwnedFd,
    conversation: Conversation,
    unsent: VecDeque<Vec<u8>>,
    /// When the last datagram came in or went out, or the first had to wait.
    progress: Instant,
}

impl Peer {
    pub(crate) fn new(socket: OwnedFd, access: Access, now: Instant) -> Self {
        let conversation = Conversation::new(access);
        Self { socket, conversation, unsent: VecDeque::new(), progress: now }
    }

    /// What the client is waited for.
    pub(crate) fn interest(&self) -> PollFlags {
        if self.unsent.is_empty() { PollFlags::IN } else { PollFlags::OUT }
    }

    /// Whether the client is in a transaction, which takes memory.
    pub(crate) fn is_in_transaction(&self) -> bool {
        self.conversation.is_in_transaction()
    }

    /// Whether the client may begin a transaction.
    pub(crate) fn let_begin(&mut self, may: bool) {
        self.conversation.let_begin(may);
    }

    /// Whether the client reads its answers and goes on with its transaction, or at least
    /// did so lately.
    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        let is_waited_for = !self.unsent.is_empty() || self.is_in_transaction();
        !is_waited_for || now.duration_since(self.progress) < PATIENCE
    }

    /// Goes on with the client, whose socket is ready for what it was waited for.
    pub(crate) fn go_on(&mut self, control: &mut dyn Control, now: Instant) -> Stay {
        if self.unsent.is_empty() { self.answer(control, now) } else { self.flush(now) }
    }

    /// Reads one datagram and answers it.
    fn answer(&mut self, control: &mut dyn Control, now: Instant) -> Stay {
        let mut request = vec![0; LONGEST];
        let len = match recv(&self.socket, request.as_mut_slice(), RecvFlags::TRUNC) {
            Ok((_, 0)) => return Stay::No,
            Ok((_, len)) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Stay::Yes,
            Err(error) => {
                tracing::debug!(%error, "a client is gone");
                return Stay::No;
            }
        };
        if len > LONGEST {
            tracing::warn!(octets = len, "a client sent a request that is too long: hung up");
            return Stay::No;
        }
        request.truncate(len);
        self.progress = now;
        let mut stay = Stay::Yes;
        let Self { socket, conversation, unsent, .. } = self;
        conversation.serve(&request, control, &mut |datagram| {
            if stay == Stay::Yes {
                stay = send_behind(socket, unsent, datagram);
            }
        });
        stay
    }

    /// Sends what waits, as far as the client takes it.
    fn flush(&mut self, now: Instant) -> Stay {
        while let Some(datagram) = self.unsent.front() {
            match send(&self.socket, datagram, SendFlags::NOSIGNAL) {
                Ok(_) => {
                    self.unsent.pop_front();
                    self.progress = now;
                }
                Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => break,
                Err(_) => return Stay::No,
            }
        }
        Stay::Yes
    }
}

/// Sends a datagram behind those that wait.
fn send_behind(socket: &OwnedFd, unsent: &mut VecDeque<Vec<u8>>, datagram: &[u8]) -> Stay {
    if unsent.is_empty() {
        match send(socket, datagram, SendFlags::NOSIGNAL) {
            Ok(_) => return Stay::Yes,
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => {}
            Err(_) => return Stay::No,
        }
    }
    unsent.push_back(datagram.to_vec());
    Stay::Yes
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipvs_core::command::Command;
    use ipvs_core::service::ServiceKey;
    use ipvs_core::snapshot::{ConnStatus, DestStatus, Refused, ServiceStatus, Timeouts};
    use ipvs_core::verdict::Reason;
    use ipvs_netlink::Client;
    use ipvs_netlink::client::{LocalTransport, Transport};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    /// A director with much to say.
    struct Talker;

    impl Control for Talker {
        fn apply(&mut self, _: &[Command]) -> Result<(), Refused> {
            Ok(())
        }
        fn services(&mut self, _: &mut dyn FnMut(ServiceStatus)) {}
        fn service(&mut self, _: &ServiceKey) -> Option<ServiceStatus> {
            None
        }
        fn dests(&mut self, _: &ServiceKey, _: &mut dyn FnMut(DestStatus)) -> bool {
            false
        }
        fn connections(&mut self, _: &mut dyn FnMut(ConnStatus)) {}
        fn timeouts(&mut self) -> Timeouts {
            Timeouts { tcp: 1, tcp_fin: 2, udp: 3 }
        }
        fn table_size(&self) -> u32 {
            4096
        }
        fn describe(&mut self, each: &mut dyn FnMut(&str)) {
            let line = "words ".repeat(1000);
            (0..500).for_each(|_| each(&line));
        }
        fn packets_by_reason(&mut self, _: &mut dyn FnMut(Reason, u64)) {}
    }

    fn pair() -> (Peer, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Peer::new(ours, Access::Admin, Instant::now()), theirs)
    }

    /// Keeps what a client sends.
    struct Recorder<'a>(LocalTransport<'a>, Vec<Vec<u8>>);

    impl Transport for &mut Recorder<'_> {
        fn send(&mut self, message: &[u8]) -> std::io::Result<()> {
            self.1.push(message.to_vec());
            self.0.send(message)
        }
        fn receive(&mut self, buffer: &mut Vec<u8>) -> std::io::Result<()> {
            self.0.receive(buffer)
        }
    }

    /// The requests that a client makes to get the status, as datagrams.
    fn status_requests() -> Vec<Vec<u8>> {
        recorded(|client| drop(client.status().unwrap()))
    }

    /// What a client sends to do something, as datagrams.
    fn recorded(what: impl FnOnce(&mut Client<&mut Recorder<'_>>)) -> Vec<Vec<u8>> {
        let mut talker = Talker;
        let mut recorder = Recorder(LocalTransport::new(&mut talker), Vec::new());
        what(&mut Client::new(&mut recorder).unwrap());
        recorder.1
    }

    fn read(theirs: &OwnedFd) -> Option<usize> {
        let mut buffer = vec![0; 1 << 20];
        recv(theirs, buffer.as_mut_slice(), RecvFlags::TRUNC).ok().map(|(_, len)| len)
    }

    #[test]
    fn a_client_that_does_not_read_is_parted_with_after_a_while() {
        let (mut peer, theirs) = pair();
        let start = Instant::now();
        let dump = status_requests().pop().unwrap();
        send(&theirs, &dump, SendFlags::empty()).unwrap();
        send(&theirs, &dump, SendFlags::empty()).unwrap();
        assert_eq!(peer.go_on(&mut Talker, start), Stay::Yes, "nobody waited for the reader");
        assert_eq!(peer.interest(), PollFlags::OUT, "the rest has to wait");
        let waiting = peer.unsent.len();
        assert_eq!(peer.go_on(&mut Talker, start), Stay::Yes);
        assert_eq!(peer.unsent.len(), waiting, "no further request is answered meanwhile");
        assert!(peer.is_alive(start + PATIENCE / 2));
        assert!(!peer.is_alive(start + PATIENCE));
    }

    /// The requests that a client makes to have edits made at once, as datagrams.
    fn transaction() -> Vec<Vec<u8>> {
        recorded(|client| client.apply_all(&[Command::Flush]).unwrap())
    }

    #[test]
    fn a_client_that_does_not_finish_its_transaction_is_parted_with_after_a_while() {
        let (mut peer, theirs) = pair();
        let start = Instant::now();
        let go_on = |peer: &mut Peer, request: &[u8], now| {
            send(&theirs, request, SendFlags::empty()).unwrap();
            assert_eq!(peer.go_on(&mut Talker, now), Stay::Yes);
            while read(&theirs).is_some() {}
        };
        let requests = transaction();
        let (commit, before) = requests.split_last().unwrap();
        for request in before {
            go_on(&mut peer, request, start);
        }
        assert!(peer.is_in_transaction());
        assert!(peer.is_alive(start + PATIENCE / 2));
        assert!(!peer.is_alive(start + PATIENCE));
        go_on(&mut peer, commit, start + PATIENCE / 2);
        assert!(!peer.is_in_transaction());
        assert!(peer.is_alive(start + 9 * PATIENCE), "nothing is waited for");
    }

    #[test]
    fn a_slow_client_gets_everything_in_the_end() {
        let (mut peer, theirs) = pair();
        let now = Instant::now();
        send(&theirs, &status_requests().pop().unwrap(), SendFlags::empty()).unwrap();
        let mut octets = 0;
        assert_eq!(peer.go_on(&mut Talker, now), Stay::Yes);
        while let Some(len) = read(&theirs) {
            octets += len;
            assert_eq!(peer.go_on(&mut Talker, now), Stay::Yes);
        }
        assert!(octets > 500 * 6000, "only {octets} octets came");
        assert_eq!(peer.interest(), PollFlags::IN);
    }

    #[test]
    fn nonsense_is_survived_and_the_next_request_answered() {
        let (mut peer, theirs) = pair();
        let now = Instant::now();
        for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 40], &[0; 16], &[7]] {
            send(&theirs, nonsense, SendFlags::empty()).unwrap();
            assert_eq!(peer.go_on(&mut Talker, now), Stay::Yes);
        }
        while read(&theirs).is_some() {}
        send(&theirs, &status_requests()[0], SendFlags::empty()).unwrap();
        assert_eq!(peer.go_on(&mut Talker, now), Stay::Yes);
        assert!(read(&theirs).is_some());
    }

    #[test]
    fn a_client_with_too_long_a_request_is_parted_with() {
        let (mut peer, theirs) = pair();
        send(&theirs, &vec![0; LONGEST + 1], SendFlags::empty()).unwrap();
        assert_eq!(peer.go_on(&mut Talker, Instant::now()), Stay::No);
    }

    #[test]
    fn a_client_that_hung_up_is_parted_with() {
        let (mut peer, theirs) = pair();
        drop(theirs);
        assert_eq!(peer.go_on(&mut Talker, Instant::now()), Stay::No);
    }
}
