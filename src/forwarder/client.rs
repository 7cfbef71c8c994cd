//! Clients: datagrams, and connections with queries owed.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::arena::Id;
use super::frame::{self, Deframer};
use super::message::{self, Refusal};
use super::output::StreamOutput;
use super::query::Origin;
use super::timeouts::Timeouts;
use super::{
    Action, Closed, Conn, ConnId, DatagramPath, Fact, Forwarder, Manner, Outcome, Room, Source,
    access,
};

/// A client's TCP connection (RFC 7766).
#[derive(Debug)]
pub(super) struct Client {
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
    /// It sent its last query (RFC 7766 section 6.2.4) and is owed answers.
    HalfClosed,
    /// No more input is taken, as it was no DNS, too slow or too late; answers are owed.
    Draining,
    /// Everything is written and our side is shut down: input is discarded until its end, since a
    /// close with unread input sends RST and destroys what was written.
    Lingering,
}

impl Client {
    fn held_bytes(&self) -> usize {
        self.output.len() + self.deframer.partial_len()
    }

    fn is_settled(&self) -> bool {
        self.queries.is_empty() && self.output.is_empty()
    }
}

impl Forwarder {
    pub(super) fn accept_client(&mut self, now: Instant, peer: SocketAddr) -> Option<ConnId> {
        let address = peer.ip().to_canonical();
        if !self.serves(address) || self.shutting_down {
            return None;
        }
        let from_address = self.clients_by_address.get(&address).copied().unwrap_or(0);
        if from_address >= self.limits.clients_per_address_max && !address.is_loopback() {
            self.counts.crowded_out += 1;
            return None;
        }
        if self.clients >= self.limits.clients_max {
            // The one idle for longest makes room; while all are owed answers, the newcomer is
            // refused.
            let Some((idle, _)) = self.client_timers.idle.oldest() else {
                self.counts.crowded_out += 1;
                return None;
            };
            let idle = ConnId(self.conns.id_at(idle)?);
            self.close_client(now, idle, Manner::Orderly);
        }
        let client = Client {
            peer,
            phase: Phase::Open,
            deframer: Deframer::default(),
            output: StreamOutput::default(),
            queries: Vec::new(),
            paused: false,
            transmitting: false,
        };
        let conn_id = ConnId(self.conns.insert(Conn::Client(Box::new(client))));
        self.clients += 1;
        *self.clients_by_address.entry(address).or_insert(0) += 1;
        self.client_timers.idle.arm(conn_id.key(), now);
        Some(conn_id)
    }

    /// Whether this source gets answers; says so once if not.
    pub(super) fn serves(&mut self, source: IpAddr) -> bool {
        if access::is_local(source) {
            return true;
        }
        if self.counts.refused == 0 {
            self.actions.push_back(Action::Log(Fact::SourceRefused));
        }
        self.counts.refused += 1;
        false
    }

    pub(super) fn client_stream(&mut self, now: Instant, conn_id: ConnId, bytes: &[u8]) {
        let Some(Conn::Client(client)) = self.conns.get_mut(conn_id.0) else {
            return;
        };
        if client.phase != Phase::Open {
            return;
        }
        let mut deframer = std::mem::take(&mut client.deframer);
        self.client_bytes -= deframer.partial_len();
        let mut input = bytes;
        let mut is_dns = true;
        while is_dns && let Some(message) = deframer.next(&mut input) {
            if !matches!(self.conns.get(conn_id.0), Some(Conn::Client(_))) {
                // Its answers were too many to hold.
                return;
            }
            // Only whole messages count against idleness (RFC 7766 section 6.2.3), and each
            // partial one has its own time.
            self.client_timers.partial.disarm(conn_id.key());
            is_dns = self.client_message(now, conn_id, message);
        }
        let Some(Conn::Client(client)) = self.conns.get_mut(conn_id.0) else {
            return;
        };
        let key = conn_id.key();
        if !is_dns || deframer.partial_len() == 0 {
            self.client_timers.partial.disarm(key);
        } else if !self.client_timers.partial.is_armed(key) {
            self.client_timers.partial.arm(key, now);
        }
        self.client_bytes += deframer.partial_len();
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
    fn client_message(&mut self, now: Instant, conn_id: ConnId, message: &[u8]) -> bool {
        if self.client_timers.idle.is_armed(conn_id.key()) {
            self.client_timers.idle.arm(conn_id.key(), now);
        }
        match message::parse_query(message, false) {
            Ok(parsed) => self.accept_query(now, Source::Stream(conn_id), message, parsed),
            Err(Refusal::Drop) => {
                self.counts.dropped += 1;
                return false;
            }
            Err(Refusal::Respond(response)) => {
                self.respond_locally(now, Source::Stream(conn_id), message, &response);
            }
        }
        true
    }

    pub(super) fn client_datagram(
        &mut self,
        now: Instant,
        path: DatagramPath,
        message: &[u8],
        truncated: bool,
    ) {
        if !self.serves(path.client.ip()) {
            return;
        }
        match message::parse_query(message, truncated) {
            Ok(parsed) => self.accept_query(now, Source::Datagram(path), message, parsed),
            Err(Refusal::Drop) => self.counts.dropped += 1,
            Err(Refusal::Respond(response)) => {
                self.respond_locally(now, Source::Datagram(path), message, &response);
            }
        }
    }

    pub(super) fn client_closed(&mut self, now: Instant, conn_id: ConnId, how: &Closed) {
        let Some(Conn::Client(client)) = self.conns.get_mut(conn_id.0) else {
            return;
        };
        match (how, client.phase) {
            (Closed::Eof, Phase::Open | Phase::Draining) => {
                client.phase = Phase::HalfClosed;
                self.client_timers.partial.disarm(conn_id.key());
                self.settle_client(now, conn_id);
            }
            (Closed::Eof, Phase::HalfClosed) => {}
            (Closed::Eof, Phase::Lingering) | (Closed::Reset | Closed::Failed { .. }, _) => {
                self.close_client(now, conn_id, Manner::Orderly);
            }
        }
    }

    /// Its query left with `write` as the response, in one write with its length (RFC 7766
    /// section 8).
    pub(super) fn respond_on_stream(
        &mut self,
        now: Instant,
        conn_id: ConnId,
        write: impl FnOnce(&mut Vec<u8>, Room),
    ) -> usize {
        let Some(Conn::Client(client)) = self.conns.get_mut(conn_id.0) else {
            return 0;
        };
        let before = client.output.len();
        let room = Room::on_stream(client.peer.ip());
        frame::append_with(client.output.buffer(), |out| write(out, room));
        let grown = client.output.len() - before;
        self.client_bytes += grown;
        if !client.transmitting {
            client.transmitting = true;
            self.actions.push_back(Action::Transmit(conn_id));
        }
        if before == 0 {
            self.client_timers.unsent.arm(conn_id.key(), now);
        }
        self.shed_client_bytes(now);
        grown - frame::LENGTH_LEN
    }

    /// Notes a query owed an answer.
    pub(super) fn owe(&mut self, conn_id: ConnId, query: Id) {
        let Some(Conn::Client(client)) = self.conns.get_mut(conn_id.0) else {
            return;
        };
        let index = client.queries.len();
        client.queries.push(query);
        self.client_timers.idle.disarm(conn_id.key());
        if let Some(query) = self.queries.get_mut(query) {
            query.origin = Origin::Stream { client: conn_id, index };
        }
    }

    /// The query at `index` of the list is answered.
    pub(super) fn no_longer_owe(&mut self, now: Instant, conn_id: ConnId, index: usize) {
        let Some(Conn::Client(client)) = self.conns.get_mut(conn_id.0) else {
            return;
        };
        client.queries.swap_remove(index);
        if let Some(moved) = client.queries.get(index).copied()
            && let Some(moved) = self.queries.get_mut(moved)
        {
            moved.origin = Origin::Stream { client: conn_id, index };
        }
        self.settle_client(now, conn_id);
    }

    pub(super) fn client_output_advanced(&mut self, now: Instant, conn_id: ConnId) {
        let Some(Conn::Client(client)) = self.conns.get(conn_id.0) else {
            return;
        };
        if client.output.is_empty() {
            self.client_timers.unsent.disarm(conn_id.key());
        } else {
            self.client_timers.unsent.arm(conn_id.key(), now);
        }
        self.settle_client(now, conn_id);
    }

    /// False while it holds as much as one client may: it is read again when there is room.
    pub(super) fn client_wants_read(&self, client: &Client) -> bool {
        match client.phase {
            Phase::Open => {
                client.queries.len() < self.limits.client_queries_max
                    && client.output.len() < self.limits.client_output_max
            }
            Phase::HalfClosed => false,
            Phase::Draining | Phase::Lingering => true,
        }
    }

    pub(super) fn client_timeouts(&mut self, now: Instant) {
        let idle_timeout = self.limits.client_idle_timeout;
        while let Some(conn_id) = self.client_timers.idle.pop(now, idle_timeout) {
            self.close_client_at(now, conn_id, Manner::Orderly);
        }
        while let Some(key) = self.client_timers.partial.pop(now, PARTIAL_TIMEOUT) {
            let Some(conn_id) = self.conns.id_at(key).map(ConnId) else {
                continue;
            };
            let Some(Conn::Client(client)) = self.conns.get_mut(conn_id.0) else {
                continue;
            };
            if client.is_settled() {
                self.close_client(now, conn_id, Manner::Abort);
            } else {
                client.phase = Phase::Draining;
            }
        }
        while let Some(conn_id) = self.client_timers.unsent.pop(now, UNSENT_TIMEOUT) {
            self.close_client_at(now, conn_id, Manner::Abort);
        }
        while let Some(conn_id) = self.client_timers.lingering.pop(now, LINGERING_TIMEOUT) {
            self.close_client_at(now, conn_id, Manner::Orderly);
        }
    }

    pub(super) fn next_client_timeout(&self) -> Option<Instant> {
        let timers = &self.client_timers;
        let all = [
            timers.idle.next(self.limits.client_idle_timeout),
            timers.partial.next(PARTIAL_TIMEOUT),
            timers.unsent.next(UNSENT_TIMEOUT),
            timers.lingering.next(LINGERING_TIMEOUT),
        ];
        all.into_iter().flatten().min()
    }

    /// No more queries are taken; every client is closed once it has its answers.
    pub(super) fn drain_clients(&mut self, now: Instant) {
        let ids: Vec<ConnId> = self.conns.iter().map(|(id, _)| ConnId(id)).collect();
        for conn_id in ids {
            let Some(Conn::Client(client)) = self.conns.get_mut(conn_id.0) else {
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
        if let Some(id) = self.conns.id_at(key) {
            self.close_client(now, ConnId(id), manner);
        }
    }

    /// What follows from fewer queries owed or less output held.
    fn settle_client(&mut self, now: Instant, conn_id: ConnId) {
        let Some(Conn::Client(client)) = self.conns.get(conn_id.0) else {
            return;
        };
        let key = conn_id.key();
        let wants_read = self.client_wants_read(client);
        let settled = client.is_settled();
        match client.phase {
            Phase::Open => {
                if settled && !self.client_timers.idle.is_armed(key) {
                    self.client_timers.idle.arm(key, now);
                }
            }
            Phase::HalfClosed if settled => {
                self.close_client(now, conn_id, Manner::Orderly);
                return;
            }
            Phase::Draining if settled => {
                self.client_timers.idle.disarm(key);
                self.client_timers.lingering.arm(key, now);
                self.actions.push_back(Action::ShutdownWrite(conn_id));
                if let Some(Conn::Client(client)) = self.conns.get_mut(conn_id.0) {
                    client.phase = Phase::Lingering;
                }
            }
            Phase::HalfClosed | Phase::Draining | Phase::Lingering => {}
        }
        let Some(Conn::Client(client)) = self.conns.get_mut(conn_id.0) else {
            return;
        };
        let was_paused = std::mem::replace(&mut client.paused, !wants_read);
        if was_paused && wants_read {
            self.actions.push_back(Action::Read(conn_id));
            if client.deframer.partial_len() > 0 {
                self.client_timers.partial.arm(key, now);
            }
        } else if !wants_read {
            // Nobody is slow whom we do not read.
            self.client_timers.partial.disarm(key);
        }
    }

    /// Above the limit on what all clients hold together, the one that has taken none of its answers
    /// for longest is closed, or else the one that has been sending a message for longest: not the
    /// one that holds most, which may be about to read it.
    fn shed_client_bytes(&mut self, now: Instant) {
        while self.client_bytes > self.limits.client_bytes_max {
            let timers = &self.client_timers;
            let slowest = timers.unsent.oldest().or_else(|| timers.partial.oldest());
            let slowest = slowest.and_then(|(key, _)| self.conns.id_at(key));
            let Some(slowest) = slowest.or_else(|| self.heaviest_client()) else {
                debug_assert!(false, "what is held is held by a client");
                return;
            };
            self.counts.shed += 1;
            self.close_client(now, ConnId(slowest), Manner::Abort);
        }
    }

    /// For partial messages of clients that are not read at the moment, which have no timer.
    fn heaviest_client(&self) -> Option<Id> {
        let clients = self.conns.iter().filter_map(|(id, conn)| match conn {
            Conn::Client(client) => Some((client.held_bytes(), id)),
            Conn::Upstream(_) | Conn::Closing => None,
        });
        clients.max().map(|(_, id)| id)
    }

    /// Takes the client out. What it was owed ends without a response.
    fn close_client(&mut self, now: Instant, conn_id: ConnId, manner: Manner) {
        let Some(entry) = self.conns.get_mut(conn_id.0) else {
            return;
        };
        let Conn::Client(client) = std::mem::replace(entry, Conn::Closing) else {
            debug_assert!(false, "only client connections are closed here");
            return;
        };
        self.actions.push_back(Action::Close { conn: conn_id, manner });
        self.client_timers.disarm(conn_id.key());
        self.client_bytes -= client.held_bytes();
        self.clients -= 1;
        let address = client.peer.ip().to_canonical();
        if let Some(count) = self.clients_by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.clients_by_address.remove(&address);
            }
        }
        for query in client.queries {
            self.finish(now, query, Outcome::Orphaned);
        }
    }
}

/// By key of the connection.
#[derive(Debug, Default)]
pub(super) struct ClientTimers {
    /// Nothing owed: since the last whole message or the last answer.
    idle: Timeouts,
    /// A partial message: since its first octet, whatever trickles in after it.
    partial: Timeouts,
    /// Output waits: since some of it was last taken.
    unsent: Timeouts,
    /// Shut down on our side.
    lingering: Timeouts,
}

impl ClientTimers {
    fn disarm(&mut self, key: usize) {
        self.idle.disarm(key);
        self.partial.disarm(key);
        self.unsent.disarm(key);
        self.lingering.disarm(key);
    }
}

/// A message arrives within this of its first octet, or the client is too slow to serve.
const PARTIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that takes none of its answers for this long is closed.
const UNSENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that was told the end may take to end its side.
const LINGERING_TIMEOUT: Duration = Duration::from_secs(1);
