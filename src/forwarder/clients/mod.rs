//! How many clients are connected, how long they may be idle, and how much they may hold.

pub(crate) mod access;
pub(crate) mod client;
pub(crate) mod response_size;

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::forwarder::action::{ClientId, Manner};
use crate::forwarder::collections::conn_table::ConnTable;
use crate::forwarder::collections::timeouts::Timeouts;
use crate::forwarder::limits::Service;
use crate::forwarder::message::frame;
use crate::forwarder::message::{LOCAL_LEN_MAX, Opt};
use crate::forwarder::report::OnceAMinute;
use crate::forwarder::{Ede, Fact, Forwarder, Limits, Outcome};
use access::Strangers;
use client::Client;

/// What is known of all connected clients, which are named by the keys of their connections.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) conns: ConnTable<ClientId, Client>,
    /// Sources that are not served.
    pub(crate) strangers: Strangers,
    len: usize,
    /// What all hold: answers not taken yet, and partial messages.
    pub(crate) bytes: usize,
    /// How many there are of each network.
    by_network: HashMap<IpAddr, usize, BuildHasherDefault<DefaultHasher>>,
    per_address_max: usize,
    /// Networks with more than that.
    crowds: usize,
    pub(crate) timers: ClientTimers,
    /// Since when the shell has been told, each time it asked, that a newcomer has to wait.
    declined_since: Option<Instant>,
    /// The one that may be accepted now had to.
    waited: bool,
    told_of_room: OnceAMinute,
    told_of_waiting: OnceAMinute,
    told_of_refusal: OnceAMinute,
}

#[derive(Debug)]
pub(crate) struct ClientTimers {
    /// Open with nothing owed and nothing unsent: since the last whole message or the last answer.
    pub(crate) idle: Timeouts,
    /// Of these, those that have sent no whole message yet: since they were accepted. One whose first
    /// second is over may still be among them.
    pub(crate) fresh: Timeouts,
    /// A partial message: since its first octet, whatever trickles in after it.
    pub(crate) partial: Timeouts,
    /// Output waits: since some of it was last taken.
    pub(crate) unsent: Timeouts,
    /// Shut down on our side.
    pub(crate) lingering: Timeouts,
    /// Not read for the length of answers that do not come: since something last came or went.
    pub(crate) held_back: Timeouts,
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
    pub(crate) fn new(limits: &Limits) -> Self {
        let timeouts = || Timeouts::with_capacity(limits.client_keys_max());
        Self {
            conns: ConnTable::with_capacity(limits.client_keys_max()),
            strangers: Strangers::default(),
            len: 0,
            bytes: 0,
            // Twice as many, as in `Joinable`.
            by_network: HashMap::with_capacity_and_hasher(
                2 * limits.clients_max,
                BuildHasherDefault::default(),
            ),
            per_address_max: limits.clients_per_address_max,
            crowds: 0,
            timers: ClientTimers {
                idle: timeouts(),
                fresh: timeouts(),
                partial: timeouts(),
                unsent: timeouts(),
                lingering: timeouts(),
                held_back: timeouts(),
            },
            declined_since: None,
            waited: false,
            told_of_room: OnceAMinute::default(),
            told_of_waiting: OnceAMinute::default(),
            told_of_refusal: OnceAMinute::default(),
        }
    }

    /// Octets that it takes.
    pub(crate) fn octets(limits: &Limits) -> usize {
        let places = (2 * limits.clients_max * 8 / 7 + 1).next_power_of_two();
        let entry = size_of::<(IpAddr, usize)>() + 1;
        let table = ConnTable::<ClientId, Client>::octets(limits.client_keys_max());
        table + places * entry + 16 + 6 * Timeouts::octets(limits.client_keys_max())
    }

    /// A client was accepted.
    pub(crate) fn add(&mut self, now: Instant, key: usize, address: IpAddr) {
        self.len += 1;
        let count = self.by_network.entry(network(address)).or_default();
        *count += 1;
        let was_above = is_above(address, *count - 1, self.per_address_max);
        self.crowds += usize::from(is_above(address, *count, self.per_address_max) && !was_above);
        self.timers.idle.arm(key, now);
        self.timers.fresh.arm(key, now);
    }

    pub(crate) fn remove(&mut self, key: usize, address: IpAddr) {
        self.timers.idle.disarm(key);
        self.timers.fresh.disarm(key);
        self.timers.partial.disarm(key);
        self.timers.unsent.disarm(key);
        self.timers.lingering.disarm(key);
        self.timers.held_back.disarm(key);
        self.len -= 1;
        let network = network(address);
        if let Some(count) = self.by_network.get_mut(&network) {
            *count -= 1;
            let is_above_now = is_above(address, *count, self.per_address_max);
            self.crowds -=
                usize::from(is_above(address, *count + 1, self.per_address_max) && !is_above_now);
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
    }

    /// How many connections the network of this address has.
    fn of_network(&self, address: IpAddr) -> usize {
        self.by_network.get(&network(address)).copied().unwrap_or_default()
    }

    /// Those that could make room for another, longest idle first.
    fn may_go(&self) -> impl Iterator<Item = usize> {
        let idle = &self.timers.idle;
        let longest = idle.oldest().map(|(key, _)| key);
        let all = std::iter::successors(longest, |key| idle.younger(*key));
        all.filter(|key| !self.timers.fresh.is_armed(*key))
    }

    /// Those that hold something or are owed something.
    fn busy(&self) -> usize {
        self.len - self.timers.idle.len()
    }
}

/// How many octets the next answer to a client may have: as many as the longest of the last few.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerLen(usize);

impl AnswerLen {
    pub(crate) fn note(&mut self, len: usize) {
        self.0 = len.max(self.0.midpoint(len));
    }

    /// None came for a while.
    pub(crate) fn doubt(&mut self) {
        self.0 = (self.0 / 2).max(ANSWER_LEN_LEAST);
    }

    pub(crate) fn may_be_doubted(self) -> bool {
        self.0 > ANSWER_LEN_LEAST
    }
}

impl Default for AnswerLen {
    fn default() -> Self {
        Self(ANSWER_LEN_FIRST)
    }
}

impl Forwarder {
    /// From when on the next client may be accepted, as things stand; `None`: not until a client is done.
    /// Behind the others in the backlog of its listener it loses nothing but time, where a connection
    /// that is closed may have brought its query already. But behind those of a network with more than its
    /// limit it would lose that, too, once they fill the backlog: then it is accepted to be judged.
    pub fn accept_at(&self, now: Instant) -> Option<Instant> {
        let usual = self.place_at(now);
        let judged = self.clients.declined_since.filter(|_| self.clients.crowds > 0);
        let judged = judged.map(|since| since + PATIENCE);
        usual.into_iter().chain(judged).min()
    }

    /// From when on there is a place, or one whose client is idle.
    fn place_at(&self, now: Instant) -> Option<Instant> {
        let ClientTimers { idle, fresh, .. } = &self.clients.timers;
        if self.clients.len < self.limits.clients_max || idle.len() > fresh.len() {
            return Some(now);
        }
        fresh.next(FRESH_TIMEOUT)
    }

    /// Whether a client may be accepted now. To be asked before each, and only if one may be waiting.
    pub fn poll_accept(&mut self, now: Instant) -> bool {
        if self.place_at(now).is_some_and(|at| at <= now) {
            self.clients.waited = self.clients.declined_since.take().is_some();
            return true;
        }
        self.clients.waited = false;
        self.clients.declined_since.get_or_insert(now);
        self.accept_at(now).is_some_and(|at| at <= now)
    }

    /// No client waits to be accepted any more.
    pub fn handle_none_waiting(&mut self) {
        self.clients.declined_since = None;
    }

    /// Makes room for a client from this address if there is no place left: of one that is idle, or else
    /// of one whose network has more than its limit, if the newcomer's has not. It is refused otherwise.
    pub(crate) fn admit_client(&mut self, now: Instant, newcomer: IpAddr) -> bool {
        if std::mem::take(&mut self.clients.waited) && self.clients.told_of_waiting.is_due(now) {
            let fact = Fact::ClientWaited {
                client: newcomer.to_canonical(),
                clients_max: self.limits.clients_max,
                crowd: self.crowd(),
                per_address_max: self.limits.clients_per_address_max,
            };
            self.outbox.log(fact);
        }
        if self.clients.len < self.limits.clients_max {
            return true;
        }
        while self.clients.timers.fresh.pop(now, FRESH_TIMEOUT).is_some() {}
        let limit = self.limits.clients_per_address_max;
        let newcomers = self.clients.of_network(newcomer);
        let idle = self.clients.may_go().take(LOOKED_AT);
        let idle = idle.filter_map(|key| self.connected(self.clients.conns.id_at(key)?));
        let idle = makes_room(newcomer, newcomers, limit, idle);
        let goes = idle.or_else(|| gives_way(newcomer, newcomers, limit, self.all_connected()));
        let Some(Connected { id, address, held, .. }) = goes else {
            self.refuse_client(now, newcomer);
            return false;
        };
        if self.clients.told_of_room.is_due(now) {
            self.outbox.log(Fact::ClientMadeRoom {
                client: address.to_canonical(),
                was_idle: idle.is_some(),
                newcomer: newcomer.to_canonical(),
                clients_max: self.limits.clients_max,
                of_client: Some(held).filter(|held| is_above(address, *held, limit)),
                per_address_max: limit,
            });
        }
        self.outbox.counts.made_room += 1;
        self.close_client(now, id, Manner::Orderly);
        // What it was owed may have made room for others.
        self.dispatch(now);
        true
    }

    fn refuse_client(&mut self, now: Instant, newcomer: IpAddr) {
        self.outbox.counts.crowded_out += 1;
        if self.clients.told_of_refusal.is_due(now) {
            self.outbox.log(Fact::ClientRefused {
                client: newcomer.to_canonical(),
                held: self.clients.of_network(newcomer),
                clients_max: self.limits.clients_max,
                per_address_max: self.limits.clients_per_address_max,
            });
        }
    }

    /// Who has most of those with more than their limit, and how many. It looks at all clients.
    fn crowd(&self) -> Option<(IpAddr, usize)> {
        if self.clients.crowds == 0 {
            return None;
        }
        let limit = self.limits.clients_per_address_max;
        let crowds =
            self.all_connected().filter(|client| is_above(client.address, client.held, limit));
        let most = crowds.max_by_key(|client| client.held)?;
        Some((most.address.to_canonical(), most.held))
    }

    fn all_connected(&self) -> impl Iterator<Item = Connected> {
        self.clients.conns.iter().filter_map(|(id, _)| self.connected(id))
    }

    fn connected(&self, id: ClientId) -> Option<Connected> {
        let client = self.clients.conns.get(id)?;
        let address = client.peer.ip();
        let held = self.clients.of_network(address);
        Some(Connected { id, address, held, is_owed: !client.is_settled() })
    }

    /// For how long a client may be idle now (RFC 7766 section 6.2.3): with more than half of the
    /// places taken the time falls evenly, down to a tenth when all are, but not below the time in which
    /// its first query may be on its way.
    pub(crate) fn client_idle_time(&self) -> Duration {
        let half = self.limits.clients_max / 2;
        let others = (self.limits.clients_max - half).max(1);
        let free = others - self.clients.len.saturating_sub(half).min(others);
        let tenth = self.limits.client_idle_timeout / 10;
        (tenth + tenth * 9 * free as u32 / others as u32).max(FRESH_TIMEOUT)
    }

    /// What a client on a stream is told of the time its connection may idle, in units of 100 ms
    /// (RFC 7828 section 3.3): that time, if its query asks; and 0, whether it asks or not, when it had
    /// better go once it has its answers. Who is idle is owed none, and is closed without a word.
    pub(crate) fn keepalive(&self, opt: Option<Opt>, query: &[u8]) -> Option<u16> {
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
        self.service != Service::Serving || self.clients.len + spare > self.limits.clients_max
    }

    /// How many more queries are taken of this client now; one at least of one that holds nothing.
    ///
    /// Its answers may be far longer than its queries, and once those are sent upstream nothing holds
    /// the answers back. So what it is owed counts as held before it comes, at a length that
    /// experience gives: one that reads long answers has few queries in flight, and is not closed
    /// for what it holds.
    pub(crate) fn client_room(&self, client: &Client) -> usize {
        let limits = &self.limits;
        if self.service != Service::Serving {
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
    /// one that holds much leaves as much for the others. An answer no longer than the failure may be
    /// only has to fit: to fail it would save next to nothing.
    pub(in crate::forwarder) fn affordable<'a>(
        &mut self,
        now: Instant,
        conn_id: ClientId,
        outcome: Outcome<'a>,
    ) -> Outcome<'a> {
        let Outcome::Answer { response, .. } = outcome else {
            return outcome;
        };
        let len = frame::LENGTH_LEN + response.len();
        if let Some(client) = self.clients.conns.get_mut(conn_id) {
            client.answers.note(len);
        }
        while let Some(client) = self.clients.conns.get(conn_id) {
            let held = client.held_bytes() + len;
            let needed = if response.len() <= LOCAL_LEN_MAX { len } else { held };
            let left = self.limits.client_bytes_max.saturating_sub(self.clients.bytes);
            if held <= ANSWERS_LEN_MIN || needed <= left {
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
    pub(crate) fn shed_client_bytes(&mut self, now: Instant) {
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
        if let Some(id) = self.clients.conns.id_at(key) {
            self.outbox.counts.shed += 1;
            self.close_client(now, id, Manner::Abort);
        }
    }

    /// For partial messages of clients that are not read at the moment, which have no timer.
    fn heaviest_client(&self) -> Option<usize> {
        let clients = self.clients.conns.iter();
        clients
            .map(|(id, client)| (client.held_bytes(), id.serial(), id))
            .max()
            .map(|(.., id)| id.key())
    }
}

/// A client among those that may have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connected {
    id: ClientId,
    address: IpAddr,
    /// How many connections its network has.
    held: usize,
    /// Answers, some of which may be written.
    is_owed: bool,
}

/// Which of the idle clients makes room for one more, when all places are taken. `idle` has them longest
/// idle first.
///
/// The limit for each network decides who goes, not whether: a network with more is the first to lose
/// what it does not use, and for its own newcomers its own before those of others.
fn makes_room(
    newcomer: IpAddr,
    newcomers: usize,
    limit: usize,
    idle: impl Iterator<Item = Connected>,
) -> Option<Connected> {
    let newcomer_is_above = is_above(newcomer, newcomers + 1, limit);
    idle.min_by_key(|client| {
        if newcomer_is_above && network(client.address) == network(newcomer) {
            0
        } else if is_above(client.address, client.held, limit) {
            1
        } else {
            2
        }
    })
}

/// Which client gives way to one that has waited for long, while none is idle: one of a network with more
/// than its limit, and only if the newcomer's stays within its own. Who is owed nothing goes first, then
/// who has most, and of theirs the youngest, which has waited least for its answers.
fn gives_way(
    newcomer: IpAddr,
    newcomers: usize,
    limit: usize,
    clients: impl Iterator<Item = Connected>,
) -> Option<Connected> {
    if is_above(newcomer, newcomers + 1, limit) {
        return None;
    }
    clients
        .filter(|client| is_above(client.address, client.held, limit))
        .max_by_key(|client| (!client.is_owed, client.held, client.id.serial()))
}

/// Whether so many connections are more than this address should have while there are no places left.
fn is_above(address: IpAddr, held: usize, limit: usize) -> bool {
    held > limit && !address.to_canonical().is_loopback()
}

/// Who counts as one: an IPv4 address, or the /64 of an IPv6 address, of which one host may have as many
/// as it likes (RFC 8981).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
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

/// A connection that has asked nothing yet is not idle: its first query follows the handshake within this
/// time, a lost packet included.
const FRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long newcomers wait for a place where a network has more than its limit: longer than most answers
/// take, and well below the second after which a SYN is sent again (RFC 6298 section 2) that found the
/// backlog full.
const PATIENCE: Duration = Duration::from_millis(250);

/// Of the clients that are idle for longest, so many are looked at for one that makes room: all but with
/// limits that somebody has raised.
const LOOKED_AT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_makes_room() {
        // The newcomer, how many its network has, the idle ones and how many theirs have, who goes.
        type Case<'a> = (&'a str, usize, &'a [(&'a str, usize)], Option<usize>);
        let cases: [Case<'_>; 14] = [
            ("10.0.0.1", 0, &[], None),
            ("10.0.0.1", 9, &[], None),
            ("10.0.0.1", 0, &[("10.0.0.2", 1), ("10.0.0.3", 1)], Some(0)),
            // One that has more than its limit goes first, but not one that has just that.
            ("10.0.0.1", 0, &[("10.0.0.2", 1), ("10.0.0.3", 4)], Some(1)),
            ("10.0.0.1", 0, &[("10.0.0.2", 1), ("10.0.0.3", 3)], Some(0)),
            ("10.0.0.1", 0, &[("10.0.0.2", 4), ("10.0.0.3", 9)], Some(0)),
            // Whoever has its limit makes room for its own, ...
            ("10.0.0.1", 3, &[("10.0.0.2", 9), ("10.0.0.1", 3), ("10.0.0.1", 3)], Some(1)),
            ("10.0.0.1", 2, &[("10.0.0.2", 1), ("10.0.0.1", 2)], Some(0)),
            ("::ffff:10.0.0.1", 3, &[("10.0.0.2", 1), ("10.0.0.1", 3)], Some(1)),
            // ... but is not shut out where others leave theirs unused.
            ("10.0.0.1", 9, &[("10.0.0.2", 1)], Some(0)),
            // Loopback has no limit.
            ("127.0.0.1", 9, &[("10.0.0.2", 1), ("127.0.0.1", 9)], Some(0)),
            ("10.0.0.1", 0, &[("10.0.0.2", 1), ("::1", 9)], Some(0)),
            // A network is a /64.
            ("fd00::1", 3, &[("fd00:0:0:1::1", 1), ("fd00::2", 3)], Some(1)),
            ("fd00::1", 3, &[("fd00:0:0:1::1", 1), ("fd00:0:0:2::1", 1)], Some(0)),
        ];
        let mut table: ConnTable<ClientId, ()> = ConnTable::with_capacity(8);
        let ids = [(); 8].map(|()| table.insert(()));
        for (newcomer, newcomers, idle, goes) in cases {
            let others = ids.into_iter().zip(idle).map(|(id, (ip, held))| Connected {
                id,
                address: ip.parse().unwrap(),
                held: *held,
                is_owed: false,
            });
            let found = makes_room(newcomer.parse().unwrap(), newcomers, 3, others);
            let found = found.map(|client| client.id);
            assert_eq!(found, goes.map(|n| ids[n]), "{newcomer}, {newcomers} of them, {idle:?}");
        }
    }

    #[test]
    fn who_gives_way_while_none_is_idle() {
        // The newcomer, how many its network has, the clients in the order in which they came, how many
        // theirs have and whether they are owed something, who goes.
        type Case<'a> = (&'a str, usize, &'a [(&'a str, usize, bool)], Option<usize>);
        let cases: [Case<'_>; 12] = [
            ("10.0.0.1", 0, &[], None),
            // With all within their limits everybody waits.
            ("10.0.0.1", 0, &[("10.0.0.2", 3, true), ("10.0.0.3", 3, false)], None),
            // The youngest, ...
            ("10.0.0.1", 0, &[("10.0.0.2", 4, true), ("10.0.0.2", 4, true)], Some(1)),
            ("10.0.0.1", 0, &[("10.0.0.2", 4, true), ("10.0.0.3", 1, true)], Some(0)),
            // ... of those that have most, ...
            ("10.0.0.1", 0, &[("10.0.0.2", 5, true), ("10.0.0.3", 4, true)], Some(0)),
            // ... but first who is owed nothing.
            ("10.0.0.1", 0, &[("10.0.0.2", 4, false), ("10.0.0.2", 9, true)], Some(0)),
            ("10.0.0.1", 0, &[("10.0.0.2", 4, true), ("10.0.0.3", 1, false)], Some(0)),
            // For nobody who has its limit itself.
            ("10.0.0.1", 2, &[("10.0.0.2", 4, true)], Some(0)),
            ("10.0.0.1", 3, &[("10.0.0.2", 9, false)], None),
            ("fd00::1", 3, &[("fd00::2", 4, false), ("10.0.0.2", 4, false)], None),
            // Loopback has no limit.
            ("127.0.0.1", 9, &[("127.0.0.1", 9, false), ("10.0.0.2", 4, true)], Some(1)),
            ("10.0.0.1", 0, &[("::1", 9, false), ("::ffff:127.0.0.1", 9, true)], None),
        ];
        let mut table: ConnTable<ClientId, ()> = ConnTable::with_capacity(8);
        let ids = [(); 8].map(|()| table.insert(()));
        for (newcomer, newcomers, clients, goes) in cases {
            let all = ids.into_iter().zip(clients).map(|(id, (ip, held, is_owed))| Connected {
                id,
                address: ip.parse().unwrap(),
                held: *held,
                is_owed: *is_owed,
            });
            let found = gives_way(newcomer.parse().unwrap(), newcomers, 3, all);
            let found = found.map(|client| client.id);
            assert_eq!(found, goes.map(|n| ids[n]), "{newcomer}, {newcomers} of them, {clients:?}");
        }
    }
}
