//! The end of the program, once a signal asks for it.

use std::time::{Duration, Instant};

use super::Reactor;
use crate::host::signals::Request;
use crate::shell::listener::Listener;
use crate::shell::sockets::Socket;

/// Whether the program is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    No,
    /// SIGTERM came: service goes on until this moment.
    Draining(Instant),
    /// The end is to begin in this turn.
    Asked,
    /// The program ends at this moment, whatever is owed.
    Until(Instant),
}

impl Reactor {
    pub(super) fn handle_termination(&mut self) {
        match self.termination.take(self.cx.now) {
            Some(Request::Drain) => {
                log::info!("SIGTERM: serving on for {} s (--drain)", self.drain.as_secs());
                self.ending = Ending::Draining(self.cx.now + self.drain);
            }
            Some(Request::End) => {
                if matches!(self.ending, Ending::Draining(_)) {
                    log::info!("another signal: the end begins now, before --drain is over");
                }
                self.ending = Ending::Asked;
            }
            None => {}
        }
    }

    /// Has the end begin once the service that goes on after SIGTERM has had its time.
    pub(super) fn end_drain(&mut self) {
        if let Ending::Draining(until) = self.ending
            && until <= self.cx.now
        {
            self.termination.end_drain();
            self.ending = Ending::Asked;
        }
    }

    /// Takes what had arrived before the signal, once, and nothing after that.
    pub(super) fn shut_down(&mut self) {
        self.reporter.stopping(self.cx.now);
        self.listeners.iter_mut().for_each(Listener::leave);
        self.listeners.iter_mut().for_each(Listener::look_again);
        self.receive_datagrams(LAST_BATCHES_MAX);
        self.accept_again = None;
        self.accept_clients(LAST_ACCEPTS_MAX);
        self.listeners.iter_mut().for_each(Listener::stop);
        self.cx.forwarder.handle_termination();
        for socket in self.sockets.clients.iter_mut() {
            if socket.read_unasked(&mut self.cx) {
                self.unread.push(socket.id().into());
            }
        }
        self.cx.forwarder.handle_shutdown(self.cx.now);
        match self.cx.forwarder.counts().queries_held {
            0 => log::info!("ending: nothing is under way"),
            held => log::info!(
                "ending once what is under way is answered ({held}), within 5 s; another signal ends it at once, with \
                 exit code 1"
            ),
        }
        self.ending = Ending::Until(self.cx.now + SHUTDOWN_TIMEOUT);
    }

    pub(super) fn is_finished(&self) -> bool {
        let Ending::Until(at) = self.ending else {
            return false;
        };
        if self.cx.forwarder.is_drained() {
            return true;
        }
        if self.cx.now < at {
            return false;
        }
        let counts = self.cx.forwarder.counts();
        let (queries, conns) = (counts.queries_held, counts.conns_held);
        let unsent = self.cx.forwarder.datagrams().count();
        // Clients that were answered and did not close are nobody's loss.
        let level = if queries + unsent > 0 { log::Level::Warn } else { log::Level::Debug };
        log::log!(
            level,
            "ended with {queries} queries, {unsent} datagrams and {conns} connections unfinished"
        );
        true
    }
}

/// Batches received after a signal: more than a receive buffer of 4 MiB holds. A flood cannot put the end
/// off.
const LAST_BATCHES_MAX: usize = 128;

/// Clients accepted after a signal: more than the backlog.
const LAST_ACCEPTS_MAX: usize = 4096;

/// From the signal to the end at the latest: a query has its answer 4.5 s after it came, and the process
/// must have ended 5 s after the signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(4900);
