//! How many clients are connected, how long they may be idle, and how much they may hold.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::client::Client;
use super::message::Opt;
use super::timeouts::Timeouts;
use super::{Conn, ConnId, Ede, Forwarder, Limits, Manner, Outcome, frame};

/// What is known of all connected clients, which are named by the keys of their connections.
#[derive(Debug)]
pub(super) struct Clients {
    len: usize,
    /// What all hold: answers not taken yet, and partial messages.
    pub(super) bytes: usize,
    by_address: HashMap<IpAddr, Vec<usize>, BuildHasherDefault<DefaultHasher>>,
    pub(super) timers: ClientTimers,
}

#[derive(Debug)]
pub(super) struct ClientTimers {
    /// Open with nothing owed and nothing unsent: since the last whole message or the last answer.
    pub(super) idle: Timeouts,
    /// A partial message: since its first octet, whatever trickles in after it.
    pub(super) partial: Timeouts,
    /// Output waits: since some of it was last taken.
    pub(super) unsent: Timeouts,
    /// Shut down on our side.
    pub(super) lingering: Timeouts,
    /// Not read for the length of answers that do not come: since something last came or went.
    pub(super) held_back: Timeouts,
}

impl ClientTimers {
    /// Who has taken none of its answers, or has been sending one message, for longest, and since
    /// when.
    fn slowest(&self) -> Option<(usize, Instant)> {
        let slow = [self.unsent.oldest(), self.partial.oldest()];
        slow.into_iter().flatten().min_by_key(|(_, since)| *since)
    }
}

impl Clients {
    pub(super) fn new(limits: &Limits) -> Self {
        let timeouts = || Timeouts::with_capacity(limits.conns_max());
        Self {
            len: 0,
            bytes: 0,
            // Twice as many, as in `Joinable`.
            by_address: HashMap::with_capacity_and_hasher(
                2 * limits.clients_max,
                BuildHasherDefault::default(),
            ),
            timers: ClientTimers {
                idle: timeouts(),
                partial: timeouts(),
                unsent: timeouts(),
                lingering: timeouts(),
                held_back: timeouts(),
            },
        }
    }

    /// Octets that it takes.
    pub(super) fn octets(limits: &Limits) -> usize {
        let places = (2 * limits.clients_max * 8 / 7 + 1).next_power_of_two();
        let entry = size_of::<(IpAddr, Vec<usize>)>() + 1;
        // A list doubles, and has four places at least.
        let lists = limits.clients_max * 4 * size_of::<usize>();
        places * entry + 16 + lists + 5 * Timeouts::octets(limits.conns_max())
    }

    pub(super) fn add(&mut self, key: usize, address: IpAddr) {
        self.len += 1;
        self.by_address.entry(address.to_canonical()).or_default().push(key);
    }

    pub(super) fn remove(&mut self, key: usize, address: IpAddr) {
        self.timers.idle.disarm(key);
        self.timers.partial.disarm(key);
        self.timers.unsent.disarm(key);
        self.timers.lingering.disarm(key);
        self.timers.held_back.disarm(key);
        self.len -= 1;
        let address = address.to_canonical();
        if let Some(keys) = self.by_address.get_mut(&address) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_address.remove(&address);
            } else if keys.len() < keys.capacity() / 4 {
                keys.shrink_to(2 * keys.len());
            }
        }
    }

    fn at(&self, address: IpAddr) -> &[usize] {
        self.by_address.get(&address.to_canonical()).map_or(&[], Vec::as_slice)
    }

    /// Those that hold something or are owed something.
    fn busy(&self) -> usize {
        self.len - self.timers.idle.len()
    }

    /// Of these, the one idle for longest.
    fn longest_idle(&self, keys: &[usize]) -> Option<usize> {
        let idle = keys.iter().filter_map(|key| Some((self.timers.idle.start(*key)?, *key)));
        idle.min().map(|(_, key)| key)
    }
}

/// How many octets the next answer to a client may have: as many as the longest of the last few.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerLen(usize);

impl AnswerLen {
    pub(super) fn note(&mut self, len: usize) {
        self.0 = len.max(self.0.midpoint(len));
    }

    /// None came for a while.
    pub(super) fn doubt(&mut self) {
        self.0 = (self.0 / 2).max(ANSWER_LEN_LEAST);
    }

    pub(super) fn may_be_doubted(self) -> bool {
        self.0 > ANSWER_LEN_LEAST
    }
}

impl Default for AnswerLen {
    fn default() -> Self {
        Self(ANSWER_LEN_FIRST)
    }
}

impl Forwarder {
    /// Whether one more client from this address is accepted. With all places taken, its address's
    /// or all there are, the one idle for longest makes room; while all are owed something, the
    /// newcomer is refused.
    pub(super) fn admit_client(&mut self, now: Instant, address: IpAddr) -> bool {
        let of_address = self.clients.at(address);
        let idle = if self.is_address_full(address, of_address.len()) {
            self.clients.longest_idle(of_address)
        } else if self.clients.len >= self.limits.clients_max {
            self.clients.timers.idle.oldest().map(|(key, _)| key)
        } else {
            return true;
        };
        let Some(idle) = idle.and_then(|key| self.conns.id_at(key)) else {
            self.counts.crowded_out += 1;
            return false;
        };
        self.close_client(now, ConnId(idle), Manner::Orderly);
        true
    }

    fn is_address_full(&self, address: IpAddr, clients: usize) -> bool {
        clients >= self.limits.clients_per_address_max && !address.to_canonical().is_loopback()
    }

    /// For how long a client may be idle now (RFC 7766 section 6.2.3): with more than half of the
    /// places taken the time falls evenly, down to a tenth when all are.
    pub(super) fn client_idle_time(&self) -> Duration {
        let half = self.limits.clients_max / 2;
        let others = (self.limits.clients_max - half).max(1);
        let free = others - self.clients.len.saturating_sub(half).min(others);
        let tenth = self.limits.client_idle_timeout / 10;
        tenth + tenth * 9 * free as u32 / others as u32
    }

    /// What a client on a stream is told of the time its connection may idle, in units of 100 ms
    /// (RFC 7828 section 3.3): that time, if its query asks; and 0, whether it asks or not, when it had
    /// better go once it has its answers. Who is idle is owed none, and is closed without a word.
    pub(super) fn keepalive(&self, opt: Option<Opt>, query: &[u8]) -> Option<u16> {
        let opt = opt.filter(|opt| opt.version == 0)?;
        if self.sheds_clients() {
            return Some(0);
        }
        let asks = opt.asks_keepalive(query);
        asks.then(|| u16::try_from(self.client_idle_time().as_millis() / 100).unwrap_or(u16::MAX))
    }

    /// Whether so few places for clients are left that some of them should be given up, or no client is
    /// to stay.
    fn sheds_clients(&self) -> bool {
        let spare = (self.limits.clients_max / 10).max(1);
        self.terminating || self.shutting_down || self.clients.len + spare > self.limits.clients_max
    }

    /// How many more queries are taken of this client now; one at least of one that holds nothing.
    ///
    /// Its answers may be far longer than its queries, and once those are sent upstream nothing holds
    /// the answers back. So what it is owed counts as held before it comes, at a length that
    /// experience gives: one that reads long answers has few queries in flight, and is not closed
    /// for what it holds.
    pub(super) fn client_room(&self, client: &Client) -> usize {
        let limits = &self.limits;
        if self.terminating {
            return limits.queries_max;
        }
        let share = limits.client_bytes_max / self.clients.busy().max(1);
        let left = limits.client_bytes_max.saturating_sub(self.clients.bytes);
        let bytes_max = limits.client_output_max.min(share).min(left);
        let bytes = bytes_max.saturating_sub(client.output.len());
        let answers = bytes.div_ceil(client.answers.0).min(limits.client_queries_max);
        let least = usize::from(client.is_settled());
        answers.saturating_sub(client.queries_owed()).max(least)
    }

    /// The outcome itself, or a failure if it is a long answer to a client that would then hold more
    /// than is left for all: who reads what it has is not cut off for what comes on top, and each
    /// one that holds much leaves as much for the others.
    pub(super) fn affordable<'a>(
        &mut self,
        now: Instant,
        conn_id: ConnId,
        outcome: Outcome<'a>,
    ) -> Outcome<'a> {
        let Outcome::Answer { response, .. } = outcome else {
            return outcome;
        };
        let len = frame::LENGTH_LEN + response.len();
        if let Some(Conn::Client(client)) = self.conns.get_mut(conn_id.0) {
            client.answers.note(len);
        }
        while let Some(Conn::Client(client)) = self.conns.get(conn_id.0) {
            let held = client.held_bytes() + len;
            if held <= ANSWERS_LEN_MIN || held + self.clients.bytes <= self.limits.client_bytes_max
            {
                break;
            }
            if let Some((slow, since)) = self.clients.timers.slowest()
                && since + READING_TIMEOUT <= now
            {
                self.shed(now, slow);
                continue;
            }
            return Outcome::Failed(Ede { code: Ede::OTHER, text: UNREAD });
        }
        outcome
    }

    /// Above the limit on what all clients hold together, the one is closed that has taken none of its
    /// answers, or has been sending one message, for longest: not the one that holds most, which may
    /// be about to read it.
    pub(super) fn shed_client_bytes(&mut self, now: Instant) {
        while self.clients.bytes > self.limits.client_bytes_max {
            let slowest = self.clients.timers.slowest().map(|(key, _)| key);
            let Some(slowest) = slowest.or_else(|| self.heaviest_client()) else {
                debug_assert!(false, "what is held is held by a client");
                return;
            };
            self.shed(now, slowest);
        }
    }

    fn shed(&mut self, now: Instant, key: usize) {
        if let Some(id) = self.conns.id_at(key) {
            self.counts.shed += 1;
            self.close_client(now, ConnId(id), Manner::Abort);
        }
    }

    /// For partial messages of clients that are not read at the moment, which have no timer.
    fn heaviest_client(&self) -> Option<usize> {
        let clients = self.conns.iter().filter_map(|(id, conn)| match conn {
            Conn::Client(client) => Some((client.held_bytes(), id)),
            Conn::Upstream(_) | Conn::Closing => None,
        });
        clients.max().map(|(_, id)| id.key())
    }
}

const UNREAD: &str = "too many answers wait to be read";

/// Of a client that has had no answer yet: with [`Limits`] as they are by default it
/// has 16 queries in flight before anything is known.
const ANSWER_LEN_FIRST: usize = 16 * 1024;

/// With less than this, other limits come first.
const ANSWER_LEN_LEAST: usize = 512;

/// What a client may always hold, whatever others do: a few answers of ordinary length.
const ANSWERS_LEN_MIN: usize = 4 * 1024;

/// Who has taken none of its answers for this long does not read, while others want to.
const READING_TIMEOUT: Duration = Duration::from_secs(1);
