//! The slow path of the eBPF plane: what its programs cannot do, a thread of
//! the daemon does by the same core, over the same tables.
//!
//! The programs put such packets whole into a ring. Fragments are put together
//! here; what is longer than its way is cut. What comes out is sent by packet
//! sockets, or handed to the host by its [door](super::door).

mod tables;
mod worker;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};

use super::StartError;
use super::object::Maps;
use worker::{Request, Worker};

/// The handle of the slow path; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct SlowPath {
    /// `None` once it is being dropped.
    requests: Option<Sender<Request>>,
    wake: Arc<OwnedFd>,
    worker: Option<JoinHandle<()>>,
}

impl SlowPath {
    /// Starts a thread in the calling thread's network namespace.
    pub(super) fn start(maps: Maps) -> Result<Self, StartError> {
        let worker = Worker::new(maps)?;
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let wake = eventfd(0, flags).map_err(|error| StartError::Thread(error.into()))?;
        let wake = Arc::new(wake);
        let (requests, inbox) = channel();
        let woken = Arc::clone(&wake);
        let handle = thread::Builder::new()
            .name("slow-path".to_owned())
            .spawn(move || worker.run(&inbox, &woken))
            .map_err(StartError::Thread)?;
        Ok(Self { requests: Some(requests), wake, worker: Some(handle) })
    }

    /// Has the thread do something after the packets that were deferred
    /// before, and returns the outcome; `None` if the thread is gone.
    fn ask<R: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Worker) -> R + Send + 'static,
    ) -> Option<R> {
        let (answer, outcome) = sync_channel(1);
        let request: Request = Box::new(move |worker| {
            // The other end waits for it, below.
            let _ = answer.send(what(worker));
        });
        self.requests.as_ref()?.send(request).ok()?;
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        outcome.recv().ok()
    }

    /// Returns when every packet that was deferred before is dealt with.
    pub(super) fn settle(&self) {
        self.ask(|_| ());
    }

    /// Does what has become due, after the clock was moved.
    pub(super) fn catch_up(&self) {
        self.ask(Worker::catch_up);
    }

    /// Takes in that the host's network has changed.
    pub(super) fn refresh(&self) {
        self.ask(Worker::refresh);
    }

    /// Lines for what an administrator should know.
    pub(super) fn report(&self) -> Vec<String> {
        self.ask(|worker| worker.report())
            .unwrap_or_else(|| vec!["the slow path has stopped: fragments are lost".to_owned()])
    }
}

impl Drop for SlowPath {
    fn drop(&mut self) {
        self.ask(Worker::stop);
        self.requests = None;
        if let Some(worker) = self.worker.take() {
            // Its panic was reported where it happened.
            let _ = worker.join();
        }
    }
}
