//! Clients: datagrams, and connections with queries owed.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::AnswerLen;
use super::access;
use crate::forwarder::action::{Action, ClientId, Closed, DatagramPath, Manner};
use crate::forwarder::collections::arena::Id;
use crate::forwarder::collections::output::StreamOutput;
use crate::forwarder::collections::sort::sort_by_key;
use crate::forwarder::limits::Service;
use crate::forwarder::message::frame::{self, Deframer};
use crate::forwarder::message::{self, Refusal};
use crate::forwarder::queries::query::Origin;
use crate::forwarder::{Fact, Forwarder, Room, Source};

/// A client's TCP connection (RFC 7766).
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    phase: Phase,
    deframer: Deframer,
    pub(crate) output: StreamOutput,
    /// The queries it is owed answers to.
    queries: Vec<Id>,
    /// How long its answers are, by experience.
    pub(crate) answers: AnswerLen,
    /// The shell was told not to read it.
    paused: bool,
    /// [`Action::Transmit`] is queued.
    pub(crate) transmitting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// It sent its last query (RFC 7766 section 6.2.4) and is owed answers.
    HalfClosed,
    /// No more input is taken, as it was no DNS, too slow or too late; answers are owed.
    Draining,
    /// Everything is written and our side is shut down: input is discarded until its end, since a
    /// close with unread input sends RST and destroys what was written.
    Lingering,
}

impl Client {
    pub(crate) fn held_bytes(&self) -> usize {
        self.output.len() + self.deframer.partial_len()
    }

    pub(crate) fn queries_owed(&self) -> usize {
        self.queries.len()
    }

    /// Nothing but what its answers may be keeps it from being read.
    fn waits_for_answers(&self) -> bool {
        self.output.is_empty() && self.answers.may_be_doubted()
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.queries.is_empty() && self.output.is_empty()
    }
}

impl Forwarder {
    pub(crate) fn accept_client(&mut self, now: Instant, peer: SocketAddr) -> Option<ClientId> {
        if !self.serves(now, peer.ip())
            || self.service == Service::Ending
            || !self.admit_client(now, peer.ip())
        {
            return None;
        }
        let client = Client {
            peer,
            phase: Phase::Open,
            deframer: Deframer::default(),
            output: StreamOutput::new(self.limits.output_kept),
            queries: Vec::new(),
            answers: AnswerLen::default(),
            paused: false,
            transmitting: false,
        };
        let conn_id = self.clients.conns.insert(client);
        self.clients.add(now, conn_id.key(), peer.ip());
        Some(conn_id)
    }

    /// Whether this source gets answers; says so if not, once in a while.
    pub(crate) fn serves(&mut self, now: Instant, source: IpAddr) -> bool {
        if access::is_local(source) {
            return true;
        }
        self.outbox.counts.refused += 1;
        if let Some(count) = self.clients.strangers.note(now) {
            self.outbox.push(Action::Log(Fact::SourceRefused { source, count }));
        }
        false
    }

    pub(crate) fn client_stream(&mut self, now: Instant, conn_id: ClientId, bytes: &[u8]) {
        let Some(client) = self.clients.conns.get_mut(conn_id) else {
            return;
        };
        if client.phase != Phase::Open {
            return;
        }
        let mut deframer = std::mem::take(&mut client.deframer);
        self.clients.bytes -= deframer.partial_len();
        let mut input = bytes;
        let mut is_dns = true;
        while is_dns && let Some(message) = deframer.next(&mut input) {
            if !matches!(self.clients.conns.get(conn_id), Some(_)) {
                // Its answers were too many to hold.
                return;
            }
            // Only whole messages count against idleness (RFC 7766 section 6.2.3), and each
            // partial one has its own time.
            self.clients.timers.partial.disarm(conn_id.key());
            self.clients.timers.fresh.disarm(conn_id.key());
            is_dns = self.client_message(now, conn_id, message);
        }
        let Some(client) = self.clients.conns.get_mut(conn_id) else {
            return;
        };
        let key = conn_id.key();
        if !is_dns || deframer.partial_len() == 0 {
            self.clients.timers.partial.disarm(key);
        } else if !self.clients.timers.partial.is_armed(key) {
            self.clients.timers.partial.arm(key, now);
        }
        self.clients.bytes += deframer.partial_len();
        client.deframer = deframer;
        if !is_dns {
            client.phase = Phase::Draining;
        }
        self.settle_client(now, conn_id);
        self.shed_client_bytes(now);
        // What another one gave up may have made room.
        self.dispatch(now);
    }

    /// False if this client speaks no DNS.
    fn client_message(&mut self, now: Instant, conn_id: ClientId, message: &[u8]) -> bool {
        match message::parse_query(message, false) {
            Ok(parsed) => self.accept_query(now, Source::Stream(conn_id), message, parsed),
            Err(Refusal::Drop) => {
                self.outbox.counts.dropped += 1;
                return false;
            }
            Err(Refusal::Respond(response)) => {
                self.respond_locally(now, Source::Stream(conn_id), message, &response);
            }
        }
        true
    }

    pub(crate) fn client_datagram(
        &mut self,
        now: Instant,
        path: DatagramPath,
        message: &[u8],
        truncated: bool,
    ) {
        if !self.serves(now, path.client.ip()) {
            return;
        }
        match message::parse_query(message, truncated) {
            Ok(parsed) => self.accept_query(now, Source::Datagram(path), message, parsed),
            Err(Refusal::Drop) => self.outbox.counts.dropped += 1,
            Err(Refusal::Respond(response)) => {
                self.respond_locally(now, Source::Datagram(path), message, &response);
            }
        }
    }

    pub(crate) fn client_closed(&mut self, now: Instant, conn_id: ClientId, how: &Closed) {
        let Some(client) = self.clients.conns.get_mut(conn_id) else {
            return;
        };
        match (how, client.phase) {
            (Closed::Eof, Phase::Open | Phase::Draining) => {
                client.phase = Phase::HalfClosed;
                self.clients.timers.partial.disarm(conn_id.key());
                self.settle_client(now, conn_id);
            }
            (Closed::Eof, Phase::HalfClosed) => {}
            (Closed::Eof, Phase::Lingering) | (Closed::Reset | Closed::Failed { .. }, _) => {
                self.close_client(now, conn_id, Manner::Orderly);
            }
        }
    }

    /// Its query left with `write` as the response, of at most `most` octets, in one write with its
    /// length (RFC 7766 section 8).
    pub(crate) fn respond_on_stream(
        &mut self,
        now: Instant,
        conn_id: ClientId,
        most: usize,
        write: impl FnOnce(&mut Vec<u8>, Room),
    ) {
        let Some(client) = self.clients.conns.get_mut(conn_id) else {
            return;
        };
        let before = client.output.len();
        let room = Room::on_stream(client.peer.ip(), self.limits.udp_size_max);
        let buffer = client.output.buffer(frame::LENGTH_LEN + most);
        frame::append_with(buffer, |out| write(out, room));
        let grown = client.output.len() - before;
        debug_assert!(grown <= frame::LENGTH_LEN + most);
        self.clients.bytes += grown;
        if !client.transmitting {
            client.transmitting = true;
            self.outbox.push(Action::Transmit(conn_id.into()));
        }
        if before == 0 {
            self.clients.timers.unsent.arm(conn_id.key(), now);
            self.clients.timers.idle.disarm(conn_id.key());
        }
        self.shed_client_bytes(now);
    }

    /// Notes a query owed an answer.
    pub(crate) fn owe(&mut self, conn_id: ClientId, query: Id) {
        let Some(client) = self.clients.conns.get_mut(conn_id) else {
            return;
        };
        let index = client.queries.len();
        client.queries.push(query);
        self.clients.timers.idle.disarm(conn_id.key());
        if let Some(query) = self.queries.get_mut(query) {
            query.origin = Origin::Stream { client: conn_id, index };
        }
    }

    /// The query at `index` of the list is answered.
    pub(crate) fn no_longer_owe(&mut self, now: Instant, conn_id: ClientId, index: usize) {
        let Some(client) = self.clients.conns.get_mut(conn_id) else {
            return;
        };
        client.queries.swap_remove(index);
        // Many clients may once have been owed much.
        let places = client.queries.capacity();
        if places > QUERIES_KEPT && client.queries.len() < places / 4 {
            client.queries.shrink_to(QUERIES_KEPT.max(2 * client.queries.len()));
        }
        if let Some(moved) = client.queries.get(index).copied()
            && let Some(moved) = self.queries.get_mut(moved)
        {
            moved.origin = Origin::Stream { client: conn_id, index };
        }
        self.settle_client(now, conn_id);
    }

    pub(crate) fn client_output_advanced(&mut self, now: Instant, conn_id: ClientId) {
        let Some(client) = self.clients.conns.get(conn_id) else {
            return;
        };
        if client.output.is_empty() {
            self.clients.timers.unsent.disarm(conn_id.key());
        } else {
            self.clients.timers.unsent.arm(conn_id.key(), now);
        }
        self.settle_client(now, conn_id);
    }

    /// How many octets may be read of it now: about as many as queries are taken. 0 while it holds as
    /// much as one client may, until [`Action::Read`].
    pub(crate) fn client_read_max(&self, client: &Client) -> usize {
        match client.phase {
            Phase::Open => match self.client_room(client) {
                0 => 0,
                // The rest of a message that began, or one message, and then the others.
                room => client.deframer.missing().unwrap_or(QUERY_LEN) + (room - 1) * QUERY_LEN,
            },
            Phase::HalfClosed => 0,
            Phase::Draining | Phase::Lingering => usize::MAX,
        }
    }

    pub(crate) fn poll_client_read(&mut self, conn_id: ClientId) -> usize {
        let Some(client) = self.clients.conns.get(conn_id) else {
            return 0;
        };
        let most = self.client_read_max(client);
        if most == 0
            && let Some(client) = self.clients.conns.get_mut(conn_id)
        {
            client.paused = true;
            // Nobody is slow whom we do not read.
            self.clients.timers.partial.disarm(conn_id.key());
        }
        most
    }

    pub(crate) fn client_timeouts(&mut self, now: Instant) {
        // Each that goes leaves the others more time.
        while let Some(key) = self.clients.timers.idle.pop(now, self.client_idle_time()) {
            self.close_client_at(now, key, Manner::Orderly);
        }
        while let Some(key) = self.clients.timers.partial.pop(now, PARTIAL_TIMEOUT) {
            let Some(conn_id) = self.clients.conns.id_at(key) else {
                continue;
            };
            let Some(client) = self.clients.conns.get_mut(conn_id) else {
                continue;
            };
            if client.is_settled() {
                self.close_client(now, conn_id, Manner::Abort);
            } else {
                client.phase = Phase::Draining;
            }
        }
        while let Some(conn_id) = self.clients.timers.unsent.pop(now, UNSENT_TIMEOUT) {
            self.close_client_at(now, conn_id, Manner::Abort);
        }
        while let Some(key) = self.clients.timers.held_back.pop(now, HELD_BACK_TIMEOUT) {
            if let Some(id) = self.clients.conns.id_at(key)
                && let Some(client) = self.clients.conns.get_mut(id)
            {
                client.answers.doubt();
                self.settle_client(now, id);
            }
        }
        while let Some(conn_id) = self.clients.timers.lingering.pop(now, LINGERING_TIMEOUT) {
            self.close_client_at(now, conn_id, Manner::Orderly);
        }
    }

    pub(crate) fn next_client_timeout(&self) -> Option<Instant> {
        let timers = &self.clients.timers;
        let all = [
            timers.idle.next(self.client_idle_time()),
            timers.partial.next(PARTIAL_TIMEOUT),
            timers.unsent.next(UNSENT_TIMEOUT),
            timers.held_back.next(HELD_BACK_TIMEOUT),
            timers.lingering.next(LINGERING_TIMEOUT),
        ];
        all.into_iter().flatten().min()
    }

    /// No more queries are taken; every client is closed once it has its answers.
    pub(crate) fn drain_clients(&mut self, now: Instant) {
        let mut ids: Vec<ClientId> = self.clients.conns.iter().map(|(id, _)| id).collect();
        sort_by_key(&mut ids, |id| id.serial());
        for conn_id in ids {
            let Some(client) = self.clients.conns.get_mut(conn_id) else {
                continue;
            };
            match client.phase {
                Phase::Open if !client.is_settled() => client.phase = Phase::Draining,
                Phase::Open | Phase::Lingering => {
                    self.close_client(now, conn_id, Manner::Orderly);
                }
                Phase::HalfClosed | Phase::Draining => {}
            }
        }
    }

    fn close_client_at(&mut self, now: Instant, key: usize, manner: Manner) {
        if let Some(id) = self.clients.conns.id_at(key) {
            self.close_client(now, id, manner);
        }
    }

    /// What follows from fewer queries owed or less output held.
    fn settle_client(&mut self, now: Instant, conn_id: ClientId) {
        let Some(client) = self.clients.conns.get(conn_id) else {
            return;
        };
        let key = conn_id.key();
        let wants_read = self.client_read_max(client) > 0;
        let settled = client.is_settled();
        match client.phase {
            Phase::Open => {
                if settled && !self.clients.timers.idle.is_armed(key) {
                    self.clients.timers.idle.arm(key, now);
                }
                if wants_read && !client.paused {
                    // It was not held back, and is not.
                    debug_assert!(!self.clients.timers.held_back.is_armed(key));
                    return;
                }
            }
            Phase::HalfClosed if settled => {
                self.close_client(now, conn_id, Manner::Orderly);
                return;
            }
            Phase::Draining if settled => {
                self.clients.timers.idle.disarm(key);
                self.clients.timers.lingering.arm(key, now);
                self.outbox.push(Action::ShutdownWrite(conn_id));
                if let Some(client) = self.clients.conns.get_mut(conn_id) {
                    client.phase = Phase::Lingering;
                }
            }
            Phase::HalfClosed | Phase::Draining | Phase::Lingering => {}
        }
        let Some(client) = self.clients.conns.get_mut(conn_id) else {
            return;
        };
        let was_paused = std::mem::replace(&mut client.paused, !wants_read);
        if was_paused && wants_read {
            self.outbox.push(Action::Read(conn_id));
            if client.deframer.partial_len() > 0 {
                self.clients.timers.partial.arm(key, now);
            }
        } else if !wants_read {
            // Nobody is slow whom we do not read.
            self.clients.timers.partial.disarm(key);
        }
        let has_all = client.queries.len() >= self.limits.client_queries_max;
        if !wants_read && !has_all && client.phase == Phase::Open && client.waits_for_answers() {
            self.clients.timers.held_back.arm(key, now);
        } else {
            self.clients.timers.held_back.disarm(key);
        }
    }

    /// Takes the client out. What it was owed ends without a response.
    pub(crate) fn close_client(&mut self, now: Instant, conn_id: ClientId, manner: Manner) {
        let Some(client) = self.clients.conns.close(conn_id) else {
            return;
        };
        self.outbox.push(Action::Close { conn: conn_id.into(), manner, why: None });
        self.clients.bytes -= client.held_bytes();
        self.clients.remove(conn_id.key(), client.peer.ip());
        for query in client.queries {
            self.orphan(now, query);
        }
    }
}

/// Places in the list of what a client is owed that stay with it.
pub(crate) const QUERIES_KEPT: usize = 64;

/// A message arrives within this of its first octet, or the client is too slow to serve.
const PARTIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that takes none of its answers for this long is closed.
const UNSENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where none of the answers has come for this long, the queries behind them wait no longer for what
/// those may hold: a few slow names must not delay all others.
const HELD_BACK_TIMEOUT: Duration = Duration::from_millis(50);

/// How long a client that was told the end may take to end its side.
const LINGERING_TIMEOUT: Duration = Duration::from_secs(1);

/// A query of ordinary length, with the two octets in front of it: what is read for each that is
/// taken. The shortest has 19, so one reading may bring twice as many.
const QUERY_LEN: usize = 40;
