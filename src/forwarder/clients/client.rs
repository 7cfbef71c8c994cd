//! One client that is connected, and what it is owed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::response_size::ResponseSize;
use super::{Clients, FRESH_TIMEOUT};
use crate::forwarder::action::{Action, ClientId, Closed, Manner};
use crate::forwarder::collections::arena::Id;
use crate::forwarder::collections::output::StreamOutput;
use crate::forwarder::collections::sort::sort_by_key;
use crate::forwarder::message::frame::{self, Deframer};
use crate::forwarder::outbox::Outbox;

/// A client's TCP connection (RFC 7766).
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) peer: SocketAddr,
    phase: Phase,
    deframer: Deframer,
    pub(super) output: StreamOutput,
    /// The queries it is owed answers to.
    queries: Vec<Id>,
    /// The shell was told not to read it.
    paused: bool,
    /// [`Action::Transmit`] is queued.
    pub(super) transmitting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The client sent its last query (RFC 7766 section 6.2.4) and is owed answers.
    HalfClosed,
    /// No more input is taken, as it was no DNS, too slow or too late; answers are owed.
    Draining,
    /// Everything is written and our side is shut down: input is discarded until its end, since a
    /// close with unread input sends RST and destroys what was written.
    Lingering,
}

impl Client {
    pub(super) fn held_bytes(&self) -> usize {
        self.output.len() + self.deframer.partial_len()
    }

    pub(super) fn queries_owed(&self) -> usize {
        self.queries.len()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.queries.is_empty() && self.output.is_empty()
    }
}

impl Clients {
    /// A client was accepted.
    pub(crate) fn insert(&mut self, now: Instant, peer: SocketAddr) -> ClientId {
        let id = self.conns.insert(Client {
            peer,
            phase: Phase::Open,
            deframer: Deframer::default(),
            output: StreamOutput::new(self.limits.output_kept),
            queries: Vec::new(),
            paused: false,
            transmitting: false,
        });
        self.len += 1;
        self.networks.add(peer);
        self.timers.idle.arm(id.key(), now);
        self.timers.fresh.arm(id.key(), now);
        id
    }

    /// Octets came: takes out what is known of its messages, to be brought back to [`Self::end_input`].
    /// `None` if nothing is taken of it any more.
    pub(crate) fn begin_input(&mut self, id: ClientId) -> Option<Deframer> {
        let client = self.conns.get_mut(id).filter(|client| client.phase == Phase::Open)?;
        let deframer = std::mem::take(&mut client.deframer);
        self.bytes -= deframer.partial_len();
        Some(deframer)
    }

    /// A whole message came. Only those count against idleness (RFC 7766 section 6.2.3), and each partial
    /// one has its own time. False if the client was closed meanwhile.
    pub(crate) fn note_message(&mut self, now: Instant, id: ClientId) -> bool {
        let Some(client) = self.conns.get(id) else {
            return false;
        };
        if let Some(rates) = &mut self.rates {
            rates.take_on_stream(now, client.peer);
            if self.timers.above_rate.is_armed(id.key()) {
                // It had its turn: the others of its network are next.
                self.timers.above_rate.arm(id.key(), now);
            }
        }
        self.timers.partial.disarm(id.key());
        self.timers.fresh.disarm(id.key());
        true
    }

    /// The time for which a client above its rate is idle begins anew: what it has sent may wait to be read.
    fn begin_idle_time(&mut self, now: Instant, key: usize) {
        if self.timers.idle.is_armed(key) {
            self.timers.idle.arm(key, now);
        }
    }

    /// How many messages its network may still send. If none, that is looked at again soon, and until then the
    /// client waits for its turn, whatever else happens.
    fn allowed(&mut self, now: Instant, id: ClientId) -> usize {
        let (Some(rates), Some(client)) = (&mut self.rates, self.conns.get(id)) else {
            return usize::MAX;
        };
        let waits = self.timers.above_rate.is_armed(id.key());
        if waits && client.paused {
            return 0;
        }
        let allowed = rates.left_on_stream(now, client.peer);
        if allowed == 0 && client.phase == Phase::Open && !waits {
            self.timers.above_rate.arm(id.key(), now);
        }
        allowed
    }

    /// Looks at all that wait for their turn, when that of the first is due: looked at one by one, whoever is first to
    /// come by after a pause would have all that is left in it, again and again.
    fn take_turns(&mut self, now: Instant, outbox: &mut Outbox) {
        if self.timers.above_rate.next(RATE_PAUSE).is_none_or(|at| now < at) {
            return;
        }
        for _ in 0..self.timers.above_rate.len() {
            let first = self.timers.above_rate.pop(now, Duration::ZERO);
            if let Some(id) = first.and_then(|key| self.conns.id_at(key)) {
                self.take_turn(now, id, outbox);
            }
        }
    }

    /// A client that waits for its turn is read, if its network may send again. It keeps its place in the queue until
    /// it has sent something, so that of several that share what is left none goes without.
    fn take_turn(&mut self, now: Instant, id: ClientId, outbox: &mut Outbox) {
        let Some(client) = self.conns.get(id).filter(|client| client.paused) else {
            return;
        };
        let left = match &mut self.rates {
            Some(rates) => {
                self.timers.above_rate.arm(id.key(), now);
                rates.left_on_stream(now, client.peer)
            }
            // There was a limit until the configuration was read again.
            None => usize::MAX,
        };
        self.begin_idle_time(now, id.key());
        self.advance_reading(now, id, left, outbox);
    }

    /// All whole messages were taken, up to one that is no DNS if there was one.
    pub(crate) fn end_input(
        &mut self,
        now: Instant,
        id: ClientId,
        deframer: Deframer,
        is_dns: bool,
        outbox: &mut Outbox,
    ) {
        let Some(client) = self.conns.get_mut(id) else {
            return;
        };
        let partial = &mut self.timers.partial;
        if !is_dns || deframer.partial_len() == 0 {
            partial.disarm(id.key());
        } else if !partial.is_armed(id.key()) {
            partial.arm(id.key(), now);
        }
        self.bytes += deframer.partial_len();
        client.deframer = deframer;
        if !is_dns || self.is_last_call && !client.is_settled() {
            client.phase = Phase::Draining;
        }
        self.advance_phase(now, id, outbox);
    }

    /// The client ended its connection, or its side of it. Returns the queries that nobody waits for now.
    pub(crate) fn ended(
        &mut self,
        now: Instant,
        id: ClientId,
        how: &Closed,
        outbox: &mut Outbox,
    ) -> Vec<Id> {
        let Some(client) = self.conns.get_mut(id) else {
            return Vec::new();
        };
        match (how, client.phase) {
            (Closed::Eof, Phase::Open | Phase::Draining) => {
                client.phase = Phase::HalfClosed;
                self.timers.partial.disarm(id.key());
                self.advance_phase(now, id, outbox);
                Vec::new()
            }
            (Closed::Eof, Phase::HalfClosed) => Vec::new(),
            (Closed::Eof, Phase::Lingering)
            | (Closed::Reset | Closed::Failed { .. } | Closed::Impostor { .. }, _) => {
                self.close(id, Manner::Orderly, outbox)
            }
        }
    }

    /// Responds with what `write` appends, at most `len_max` octets, in one write with its length (RFC 7766
    /// section 8).
    pub(crate) fn respond(
        &mut self,
        now: Instant,
        id: ClientId,
        len_max: usize,
        outbox: &mut Outbox,
        write: impl FnOnce(&mut Vec<u8>, ResponseSize),
    ) {
        let Some(client) = self.conns.get_mut(id) else {
            return;
        };
        let before = client.output.len();
        let size = ResponseSize::on_stream(client.peer.ip(), self.limits.udp_size_max);
        let buffer = client.output.buffer(frame::LENGTH_LEN + len_max);
        frame::append_with(buffer, |out| write(out, size));
        let grown = client.output.len() - before;
        debug_assert!(grown <= frame::LENGTH_LEN + len_max);
        self.bytes += grown;
        if !client.transmitting {
            client.transmitting = true;
            outbox.push(Action::Transmit(id.into()));
        }
        if before == 0 {
            self.timers.unsent.arm(id.key(), now);
            self.timers.idle.disarm(id.key());
        }
    }

    /// A query is owed an answer. Returns its place in the list of what the client is owed.
    pub(crate) fn owe(&mut self, id: ClientId, query: Id) -> usize {
        let Some(client) = self.conns.get_mut(id) else {
            return 0;
        };
        client.queries.push(query);
        self.timers.idle.disarm(id.key());
        client.queries.len() - 1
    }

    /// The query in place `index` of what the client is owed is answered. Returns the one that has this
    /// place from now on.
    pub(crate) fn no_longer_owe(
        &mut self,
        now: Instant,
        id: ClientId,
        index: usize,
        outbox: &mut Outbox,
    ) -> Option<Id> {
        let client = self.conns.get_mut(id)?;
        client.queries.swap_remove(index);
        // Many clients may once have been owed much.
        let places = client.queries.capacity();
        if places > QUERIES_KEPT && client.queries.len() < places / 4 {
            client.queries.shrink_to(QUERIES_KEPT.max(2 * client.queries.len()));
        }
        let moved = client.queries.get(index).copied();
        self.advance_phase(now, id, outbox);
        moved
    }

    /// The first `n` octets of its output were written.
    pub(crate) fn advance_output(
        &mut self,
        now: Instant,
        id: ClientId,
        n: usize,
        outbox: &mut Outbox,
    ) {
        let Some(client) = self.conns.get_mut(id) else {
            return;
        };
        let before = client.output.len();
        client.output.advance(n);
        self.bytes -= before - client.output.len();
        if client.output.is_empty() {
            self.timers.unsent.disarm(id.key());
        } else {
            self.timers.unsent.arm(id.key(), now);
        }
        self.advance_phase(now, id, outbox);
    }

    /// How many octets may be read of it now, with so many messages `allowed`: about as many as queries are taken.
    /// 0 while it holds as much as one client may, until [`Action::Read`].
    fn read_max(&self, client: &Client, allowed: usize) -> usize {
        match client.phase {
            Phase::Open => match self.queries_left(client).min(allowed) {
                0 => 0,
                // The rest of a message that began, or one message, and then the others.
                left => client.deframer.missing().unwrap_or(QUERY_LEN) + (left - 1) * QUERY_LEN,
            },
            Phase::HalfClosed => 0,
            Phase::Draining | Phase::Lingering => usize::MAX,
        }
    }

    /// How many octets may be read of it now; the shell was told if there are none.
    pub(crate) fn poll_read(&mut self, now: Instant, id: ClientId, outbox: &mut Outbox) -> usize {
        let allowed = self.allowed(now, id);
        let Some(client) = self.conns.get(id) else {
            return 0;
        };
        let octets = self.read_max(client, allowed);
        if octets > 0 {
            return octets;
        }
        if allowed == 0
            && client.phase == Phase::Open
            && let Some(rates) = &mut self.rates
        {
            rates.log(now, client.peer, true, outbox);
            self.begin_idle_time(now, id.key());
        }
        if let Some(client) = self.conns.get_mut(id) {
            client.paused = true;
            // A client that is not read cannot be slow to send.
            self.timers.partial.disarm(id.key());
        }
        0
    }

    /// [`Action::Transmit`] was taken. False if the client was closed.
    pub(crate) fn note_transmitting(&mut self, id: ClientId) -> bool {
        self.conns.get_mut(id).is_some_and(|client| std::mem::take(&mut client.transmitting))
    }

    /// What is to be written to it.
    pub(crate) fn output(&self, id: ClientId) -> &[u8] {
        self.conns.get(id).map_or(&[], |client| client.output.pending())
    }

    /// One client whose time is over was closed: the queries that nobody waits for now.
    pub(crate) fn pop_timeout(&mut self, now: Instant, outbox: &mut Outbox) -> Option<Vec<Id>> {
        self.take_turns(now, outbox);
        if let Some(rates) = &mut self.rates {
            rates.handle_timeout(now, outbox);
        }
        // Each that goes leaves the others more time.
        if let Some(key) = self.timers.idle.pop(now, self.idle_time()) {
            return Some(self.close_at(key, Manner::Orderly, outbox));
        }
        while let Some(key) = self.timers.partial.pop(now, PARTIAL_TIMEOUT) {
            let Some(id) = self.conns.id_at(key) else {
                continue;
            };
            let Some(client) = self.conns.get_mut(id) else {
                continue;
            };
            if client.is_settled() {
                return Some(self.close(id, Manner::Abort, outbox));
            }
            client.phase = Phase::Draining;
        }
        if let Some(key) = self.timers.unsent.pop(now, UNSENT_TIMEOUT) {
            return Some(self.close_at(key, Manner::Abort, outbox));
        }
        let key = self.timers.lingering.pop(now, LINGERING_TIMEOUT)?;
        Some(self.close_at(key, Manner::Orderly, outbox))
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let timers = &self.timers;
        // At the end the log has nothing more to say of rates.
        let rates = self.rates.as_ref().filter(|_| !self.is_leaving);
        let all = [
            rates.and_then(|rates| rates.next_timeout()),
            timers.idle.next(self.idle_time()),
            timers.partial.next(PARTIAL_TIMEOUT),
            timers.unsent.next(UNSENT_TIMEOUT),
            timers.lingering.next(LINGERING_TIMEOUT),
            timers.above_rate.next(RATE_PAUSE),
        ];
        all.into_iter().flatten().min()
    }

    /// No more queries are taken but the first of clients that have just connected; every client is closed once it
    /// has its answers.
    pub(crate) fn drain(&mut self, now: Instant, outbox: &mut Outbox) {
        self.is_leaving = true;
        self.is_last_call = true;
        let mut ids: Vec<ClientId> = self.conns.iter().map(|(id, _)| id).collect();
        sort_by_key(&mut ids, |id| id.serial());
        for id in ids {
            let Some(client) = self.conns.get_mut(id) else {
                continue;
            };
            let fresh_since = self.timers.fresh.start(id.key());
            match client.phase {
                Phase::Open if !client.is_settled() => client.phase = Phase::Draining,
                Phase::Open if fresh_since.is_some_and(|since| now < since + FRESH_TIMEOUT) => {
                    self.timers.idle.arm(id.key(), now);
                }
                Phase::Open | Phase::Lingering => {
                    let owed = self.close(id, Manner::Orderly, outbox);
                    debug_assert!(owed.is_empty(), "{id:?} has its answers");
                }
                Phase::HalfClosed | Phase::Draining => {}
            }
        }
    }

    /// Whether a client that had just connected when [`Self::drain`] was called may still send its first query.
    pub(crate) fn may_ask(&self) -> bool {
        self.is_last_call && !self.timers.idle.is_empty()
    }

    fn close_at(&mut self, key: usize, manner: Manner, outbox: &mut Outbox) -> Vec<Id> {
        self.conns.id_at(key).map_or_else(Vec::new, |id| self.close(id, manner, outbox))
    }

    /// What follows from fewer queries owed or less output held.
    fn advance_phase(&mut self, now: Instant, id: ClientId, outbox: &mut Outbox) {
        let allowed = self.allowed(now, id);
        self.advance_reading(now, id, allowed, outbox);
    }

    /// The same with so many messages `allowed`.
    #[inline]
    fn advance_reading(&mut self, now: Instant, id: ClientId, allowed: usize, outbox: &mut Outbox) {
        let Some(client) = self.conns.get(id) else {
            return;
        };
        let key = id.key();
        let wants_read = self.read_max(client, allowed) > 0;
        let settled = client.is_settled();
        match client.phase {
            Phase::Open => {
                if settled && !self.timers.idle.is_armed(key) {
                    self.timers.idle.arm(key, now);
                }
                if wants_read && !client.paused {
                    return;
                }
            }
            Phase::HalfClosed if settled => {
                let owed = self.close(id, Manner::Orderly, outbox);
                debug_assert!(owed.is_empty(), "{id:?} has its answers");
                return;
            }
            Phase::Draining if settled => {
                self.timers.idle.disarm(key);
                self.timers.lingering.arm(key, now);
                outbox.push(Action::ShutdownWrite(id));
                if let Some(client) = self.conns.get_mut(id) {
                    client.phase = Phase::Lingering;
                }
            }
            Phase::HalfClosed | Phase::Draining | Phase::Lingering => {}
        }
        let Some(client) = self.conns.get_mut(id) else {
            return;
        };
        let was_paused = std::mem::replace(&mut client.paused, !wants_read);
        if was_paused && wants_read {
            outbox.push(Action::Read(id));
            if client.deframer.partial_len() > 0 {
                self.timers.partial.arm(key, now);
            }
        } else if !wants_read {
            // A client that is not read cannot be slow to send.
            self.timers.partial.disarm(key);
        }
    }

    /// Takes the client out. Returns the queries that nobody waits for now.
    #[must_use]
    pub(crate) fn close(&mut self, id: ClientId, manner: Manner, outbox: &mut Outbox) -> Vec<Id> {
        let Some(client) = self.conns.close(id) else {
            return Vec::new();
        };
        outbox.push(Action::Close { conn: id.into(), manner, why: None });
        self.bytes -= client.held_bytes();
        self.len -= 1;
        self.networks.remove(client.peer);
        self.timers.disarm(id.key());
        client.queries
    }
}

/// Places in the list of what a client is owed that stay with it.
pub(crate) const QUERIES_KEPT: usize = 64;

/// A message arrives within this of its first octet, or the client is too slow to serve.
const PARTIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that takes none of its answers for this long is closed.
const UNSENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that was told the end may take to end its side.
const LINGERING_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause between two looks at whether a client may be read that has asked too much: it is read at its
/// rate, a tenth of a second's queries at a time.
const RATE_PAUSE: Duration = Duration::from_millis(100);

/// A query of ordinary length, with the two octets in front of it: what is read for each that is
/// taken. The shortest has 19, so one reading may bring twice as many.
const QUERY_LEN: usize = 40;
