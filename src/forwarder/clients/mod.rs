//! How many clients are connected, how long they may be idle, and how much they may hold.

pub(crate) mod access;
pub(crate) mod client;
mod networks;
pub(crate) mod rates;
pub(crate) mod response_size;

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::forwarder::action::ClientId;
use crate::forwarder::collections::conn_table::ConnTable;
use crate::forwarder::collections::timeouts::Timeouts;
use crate::forwarder::limits::{Limits, Policy};
use crate::forwarder::message::Opt;
use crate::forwarder::outbox::Outbox;
use crate::forwarder::report::{Notice, OnceAMinute};
use access::{Access, Ranges, Strangers};
use client::Client;
use networks::{Networks, is_above, network};
use rates::{Allowance, Rates};

/// All connected clients.
#[derive(Debug)]
pub(crate) struct Clients {
    limits: Limits,
    /// Addresses that are served.
    served: Ranges,
    /// What networks have asked lately, if that is limited.
    rates: Option<Box<Rates>>,
    conns: ConnTable<ClientId, Client>,
    len: usize,
    /// What all hold: answers not taken yet, and partial messages.
    bytes: usize,
    networks: Networks,
    timers: ClientTimers,
    /// Since when the shell has been told, each time it asked, that a newcomer has to wait.
    declined_since: Option<Instant>,
    /// The one that may be accepted now had to.
    waited: bool,
    /// No client is to stay, and what they have sent is taken, however much they hold.
    is_leaving: bool,
    logged: Logged,
}

/// When the log said what of clients.
#[derive(Debug, Default)]
struct Logged {
    strangers: Strangers,
    room: OnceAMinute,
    waiting: OnceAMinute,
    refusal: OnceAMinute,
}

#[derive(Debug)]
struct ClientTimers {
    /// Open with nothing owed and nothing unsent: since the last whole message or the last answer.
    idle: Timeouts,
    /// Idle clients that have sent no whole message yet: since they were accepted. One whose first second is
    /// over may still be among them.
    fresh: Timeouts,
    /// A partial message: since its first octet, whatever trickles in after it.
    partial: Timeouts,
    /// Output waits: since some of it was last taken.
    unsent: Timeouts,
    /// Shut down on our side.
    lingering: Timeouts,
    /// Not read because its network has asked more than it may: since that was last looked at.
    above_rate: Timeouts,
}

impl ClientTimers {
    fn new(keys: usize) -> Self {
        let timeouts = || Timeouts::with_capacity(keys);
        Self {
            idle: timeouts(),
            fresh: timeouts(),
            partial: timeouts(),
            unsent: timeouts(),
            lingering: timeouts(),
            above_rate: timeouts(),
        }
    }

    const fn octets(keys: usize) -> usize {
        6 * Timeouts::octets(keys)
    }

    /// The client of this key is gone.
    fn disarm(&mut self, key: usize) {
        self.idle.disarm(key);
        self.fresh.disarm(key);
        self.partial.disarm(key);
        self.unsent.disarm(key);
        self.lingering.disarm(key);
        self.above_rate.disarm(key);
    }

    /// Since when this one has taken none of its answers, or has been sending one message.
    fn slow_since(&self, key: usize) -> Option<Instant> {
        let slow = [self.unsent.start(key), self.partial.start(key)];
        slow.into_iter().flatten().min()
    }
}

/// Whether a client may have a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// There is a place.
    Free,
    /// There is a place once this client is closed.
    InPlaceOf(ClientId),
    Refused,
}

impl Clients {
    pub(crate) fn new(limits: &Limits, policy: &Policy, seed: u64) -> Self {
        Self {
            served: policy.access.served(&[]),
            rates: policy.rate.clone().map(|rate| Box::new(Rates::new(rate, seed))),
            conns: ConnTable::with_capacity(limits.client_keys_max()),
            len: 0,
            bytes: 0,
            networks: Networks::new(limits.clients_max, limits.clients_per_address_max),
            timers: ClientTimers::new(limits.client_keys_max()),
            declined_since: None,
            waited: false,
            is_leaving: false,
            logged: Logged::default(),
            limits: limits.clone(),
        }
    }

    /// Octets that it takes.
    pub(crate) fn octets(limits: &Limits) -> usize {
        let keys = limits.client_keys_max();
        ConnTable::<ClientId, Client>::octets(keys)
            + Networks::octets(limits.clients_max)
            + ClientTimers::octets(keys)
    }

    /// Keys that are taken, those of clients that the shell has not closed yet included.
    pub(crate) fn keys(&self) -> usize {
        self.conns.len()
    }

    pub(crate) fn is_connected(&self, id: ClientId) -> bool {
        self.conns.get(id).is_some()
    }

    /// The address of a client that is connected.
    pub(crate) fn address(&self, id: ClientId) -> Option<IpAddr> {
        self.conns.get(id).map(|client| client.peer.ip())
    }

    /// The shell has closed its socket.
    pub(crate) fn free_key(&mut self, id: ClientId) {
        self.conns.free(id);
    }

    /// No client is to stay.
    pub(crate) fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// These addresses are served from now on.
    pub(crate) fn serve(&mut self, served: Ranges) {
        self.served = served;
    }

    pub(crate) fn serves(&self, source: IpAddr) -> bool {
        self.served.contains(source)
    }

    /// A source asked that is not served; says so, once in a while.
    pub(crate) fn note_stranger(
        &mut self,
        now: Instant,
        source: IpAddr,
        access: &Access,
        outbox: &mut Outbox,
    ) {
        outbox.counts.refused += 1;
        if let Some(count) = self.logged.strangers.note(now) {
            outbox.log(Notice::SourceRefused { source, count, why: access.refusal(source).into() });
        }
    }

    /// What a datagram from this address gets; says so if it is not an answer, once in a while.
    pub(crate) fn allowance(
        &mut self,
        now: Instant,
        source: IpAddr,
        outbox: &mut Outbox,
    ) -> Allowance {
        let Some(rates) = &mut self.rates else {
            return Allowance::Answer;
        };
        let allowance = rates.take_by_datagram(now, source);
        if allowance != Allowance::Answer {
            outbox.counts.above_rate += 1;
            rates.log(now, source, false, outbox);
        }
        allowance
    }

    /// Keys of clients that could make room for another, longest idle first.
    fn may_go(&self) -> impl Iterator<Item = usize> {
        let idle = &self.timers.idle;
        let longest = idle.oldest().map(|(key, _)| key);
        let all = std::iter::successors(longest, |key| idle.younger(*key));
        all.filter(|key| !self.timers.fresh.is_armed(*key))
    }

    /// How many clients hold something or are owed something.
    fn busy(&self) -> usize {
        self.len - self.timers.idle.len()
    }

    /// From when on the next client may be accepted, as things stand; `None`: not until a client is done.
    /// Behind the others in the backlog of its listener it loses nothing but time, where a connection
    /// that is closed may have brought its query already. But behind those of a network with more than its
    /// limit it would lose that, too, once they fill the backlog: then it is accepted to be judged.
    pub(crate) fn accept_at(&self, now: Instant) -> Option<Instant> {
        let usual = self.place_at(now);
        let judged = self.declined_since.filter(|_| self.networks.has_crowds());
        let judged = judged.map(|since| since + PATIENCE);
        usual.into_iter().chain(judged).min()
    }

    /// From when on there is a place, or one whose client is idle.
    fn place_at(&self, now: Instant) -> Option<Instant> {
        let ClientTimers { idle, fresh, .. } = &self.timers;
        if self.len < self.limits.clients_max || idle.len() > fresh.len() {
            return Some(now);
        }
        fresh.next(FRESH_TIMEOUT)
    }

    /// Whether a client may be accepted now.
    pub(crate) fn poll_accept(&mut self, now: Instant) -> bool {
        if self.place_at(now).is_some_and(|at| at <= now) {
            self.waited = self.declined_since.take().is_some();
            return true;
        }
        self.waited = false;
        self.declined_since.get_or_insert(now);
        self.accept_at(now).is_some_and(|at| at <= now)
    }

    /// No client waits to be accepted any more.
    pub(crate) fn note_none_waiting(&mut self) {
        self.declined_since = None;
    }

    /// Whether there is a place for a client from this address: if none is left, that of one that is idle,
    /// or else of one whose network has more than its limit, if the newcomer's has not.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        newcomer: IpAddr,
        outbox: &mut Outbox,
    ) -> Admission {
        if std::mem::take(&mut self.waited) && self.logged.waiting.is_due(now) {
            outbox.log(Notice::ClientWaited {
                client: newcomer.to_canonical(),
                clients_max: self.limits.clients_max,
                crowd: self.crowd(),
                per_address_max: self.limits.clients_per_address_max,
            });
        }
        if self.len < self.limits.clients_max {
            return Admission::Free;
        }
        while self.timers.fresh.pop(now, FRESH_TIMEOUT).is_some() {}
        let limit = self.limits.clients_per_address_max;
        let newcomers = self.networks.count(newcomer);
        let idle = self.may_go().take(LOOKED_AT);
        let idle = idle.filter_map(|key| self.connected(self.conns.id_at(key)?));
        let idle = makes_room(newcomer, newcomers, limit, idle);
        let goes = idle.or_else(|| gives_way(newcomer, newcomers, limit, self.all_connected()));
        let Some(Connected { id, address, held, .. }) = goes else {
            self.note_refusal(now, newcomer, outbox);
            return Admission::Refused;
        };
        if self.logged.room.is_due(now) {
            outbox.log(Notice::ClientMadeRoom {
                client: address.to_canonical(),
                was_idle: idle.is_some(),
                newcomer: newcomer.to_canonical(),
                clients_max: self.limits.clients_max,
                of_client: Some(held).filter(|held| is_above(address, *held, limit)),
                per_address_max: limit,
            });
        }
        outbox.counts.made_room += 1;
        Admission::InPlaceOf(id)
    }

    fn note_refusal(&mut self, now: Instant, newcomer: IpAddr, outbox: &mut Outbox) {
        outbox.counts.crowded_out += 1;
        if self.logged.refusal.is_due(now) {
            outbox.log(Notice::ClientRefused {
                client: newcomer.to_canonical(),
                held: self.networks.count(newcomer),
                clients_max: self.limits.clients_max,
                per_address_max: self.limits.clients_per_address_max,
            });
        }
    }

    /// The address with most connections above its limit, and how many; looks at all clients.
    fn crowd(&self) -> Option<(IpAddr, usize)> {
        if !self.networks.has_crowds() {
            return None;
        }
        let limit = self.limits.clients_per_address_max;
        let crowds =
            self.all_connected().filter(|client| is_above(client.address, client.held, limit));
        let most = crowds.max_by_key(|client| client.held)?;
        Some((most.address.to_canonical(), most.held))
    }

    fn all_connected(&self) -> impl Iterator<Item = Connected> {
        self.conns.iter().filter_map(|(id, _)| self.connected(id))
    }

    fn connected(&self, id: ClientId) -> Option<Connected> {
        let client = self.conns.get(id)?;
        let address = client.peer.ip();
        let held = self.networks.count(address);
        Some(Connected { id, address, held, is_owed: !client.is_settled() })
    }

    /// For how long a client may be idle now (RFC 7766 section 6.2.3): with more than half of the
    /// places taken the time falls evenly, down to a tenth when all are, but not below the time in which
    /// its first query may be on its way.
    fn idle_time(&self) -> Duration {
        let half = self.limits.clients_max / 2;
        let others = (self.limits.clients_max - half).max(1);
        let free = others - self.len.saturating_sub(half).min(others);
        let tenth = self.limits.client_idle_timeout / 10;
        (tenth + tenth * 9 * free as u32 / others as u32).max(FRESH_TIMEOUT)
    }

    /// What a client on a stream is told of the time its connection may idle, in units of 100 ms
    /// (RFC 7828 section 3.3): that time, if its query asks; and 0, whether it asks or not, when it had
    /// better go once it has its answers. An idle client is owed no answers, and is closed without a word.
    pub(crate) fn keepalive(&self, opt: Option<Opt>, query: &[u8]) -> Option<u16> {
        let opt = opt.filter(|opt| opt.version == 0)?;
        if self.wants_fewer() {
            return Some(0);
        }
        let asks = opt.asks_keepalive(query);
        asks.then(|| u16::try_from(self.idle_time().as_millis() / 100).unwrap_or(u16::MAX))
    }

    /// Whether so few places for clients are left that some of them should be given up, or no client is
    /// to stay.
    fn wants_fewer(&self) -> bool {
        let spare = (self.limits.clients_max / 10).max(1);
        self.is_leaving || self.len + spare > self.limits.clients_max
    }

    /// How many more queries are taken of this client now; one at least of one that holds nothing.
    ///
    /// A client's answers may be far longer than its queries, and once those are sent upstream nothing holds
    /// the answers back. So each answer that it is owed counts as held before it comes, at a length that
    /// few answers exceed.
    fn queries_left(&self, client: &Client) -> usize {
        let limits = &self.limits;
        if self.is_leaving {
            return limits.queries_max;
        }
        let share = limits.client_bytes_max / self.busy().max(1);
        let left = limits.client_bytes_max.saturating_sub(self.bytes);
        let bytes_max = limits.client_output_max.min(share).min(left);
        let bytes = bytes_max.saturating_sub(client.output.len());
        let answers = bytes.div_ceil(ANSWER_RESERVED).min(limits.client_queries_max);
        let least = usize::from(client.is_settled());
        answers.saturating_sub(client.queries_owed()).max(least)
    }

    /// What is given up where `coming` octets more would be above the limit on what all clients hold
    /// together. `reader` is the client that they are for, if they are an answer that may fail.
    pub(crate) fn above_limit(
        &self,
        now: Instant,
        coming: usize,
        reader: Option<ClientId>,
    ) -> Option<GivenUp> {
        if self.bytes == 0 || self.bytes + coming <= self.limits.client_bytes_max {
            return None;
        }
        let share = self.limits.client_bytes_max / self.busy().max(1);
        let reader = reader.and_then(|id| self.conns.get(id));
        let reader_would_hold = reader.map(|client| client.held_bytes() + coming);
        let holders = self.conns.iter().map(|(id, client)| {
            let since = self.timers.slow_since(id.key());
            Holder { id, held: client.held_bytes(), since }
        });
        gives_up(now, share, reader_would_hold, holders)
    }
}

/// What is given up so that clients hold no more than they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// The client to be closed.
    Client(ClientId),
    /// The answer that does not fit fails.
    Answer,
}

/// A client that holds octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    id: ClientId,
    held: usize,
    /// Since when it has taken none of its answers, or has been sending one message; `None` while it
    /// is not read in the middle of one.
    since: Option<Instant>,
}

/// Who or what has to go where clients would hold too much: first the slowest of those that take
/// nothing. With none of these an answer fails whose client would hold more than its share, since it may
/// be about to read what it has; for others the one goes that holds most above its share, and only for
/// want of such a one the slowest of all.
fn gives_up(
    now: Instant,
    share: usize,
    reader_would_hold: Option<usize>,
    clients: impl Iterator<Item = Holder> + Clone,
) -> Option<GivenUp> {
    let holders = clients.filter(|client| client.held > 0);
    let timed = holders.clone().filter_map(|client| Some((client.since?, client.id)));
    let slowest = timed.min_by_key(|(since, id)| (*since, id.serial()));
    if let Some((since, id)) = slowest
        && since + READING_TIMEOUT <= now
    {
        return Some(GivenUp::Client(id));
    }
    if reader_would_hold.is_some_and(|held| held > share) {
        return Some(GivenUp::Answer);
    }
    let heaviest = holders
        .max_by_key(|client| (client.held, Reverse(client.since), Reverse(client.id.serial())));
    let above = heaviest.filter(|client| client.held > share).map(|client| client.id);
    let slowest = slowest.map(|(_, id)| id);
    // Partial messages of clients that are not read at the moment have no timer.
    let goes = above.or(slowest).or(heaviest.map(|client| client.id));
    goes.map(GivenUp::Client)
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

/// The idle client that makes room for one more, when all places are taken. `idle` has them longest
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

/// The client that gives way to one that has waited for long, while none is idle: one of a network with more
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

/// Octets that are kept free for an answer that is owed: enough for nearly all, signed ones included. With
/// [`Limits`] as they are by default a client alone may have all its queries in flight, and each of 150
/// may have 28.
const ANSWER_RESERVED: usize = 1024;

/// A client that has taken nothing for this long does not read, while others want to.
const READING_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that has asked nothing yet is not idle: its first query follows the handshake within this
/// time, a lost packet included.
const FRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long newcomers wait for a place where a network has more than its limit: longer than most answers
/// take, and well below the second after which a SYN is sent again (RFC 6298 section 2) that found the
/// backlog full.
const PATIENCE: Duration = Duration::from_millis(250);

/// Clients that are looked at for one that makes room, those that are idle for longest: all but with limits
/// that somebody has raised.
const LOOKED_AT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    #[test]
    fn a_client_is_slow_since_it_began_to_be() {
        let base = base();
        let mut timers = ClientTimers::new(1);
        assert_eq!(timers.slow_since(0), None);
        timers.unsent.arm(0, base + PATIENCE);
        assert_eq!(timers.slow_since(0), Some(base + PATIENCE));
        // The client sent part of a message before it ceased to take its answers.
        timers.partial.arm(0, base);
        assert_eq!(timers.slow_since(0), Some(base));
        timers.disarm(0);
        assert_eq!(timers.slow_since(0), None);
    }

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
            // An address that has its limit makes room for its own, ...
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

    #[test]
    fn who_or_what_is_given_up_for_room() {
        // What the reader would hold, with a share of 100; what each client holds and for how many
        // milliseconds it has been slow; what is given up: a client, or the answer.
        type Case<'a> = (Option<usize>, &'a [(usize, Option<u64>)], Option<Result<usize, ()>>);
        let cases: [Case<'_>; 13] = [
            (None, &[], None),
            (Some(500), &[(0, Some(5000))], Some(Err(()))),
            (None, &[(0, Some(5000))], None),
            // Clients that take nothing, the slowest first, whatever others hold or would.
            (None, &[(1, Some(1000)), (900, Some(999))], Some(Ok(0))),
            (Some(500), &[(900, Some(0)), (1, Some(1000)), (1, Some(2000))], Some(Ok(2))),
            // Then the answer to one above its share, ...
            (Some(101), &[(60, Some(999)), (900, Some(0))], Some(Err(()))),
            // ... or else who holds most above it, not who is slower, ...
            (Some(100), &[(60, Some(999)), (101, Some(9)), (900, Some(0))], Some(Ok(2))),
            (None, &[(60, Some(999)), (900, Some(0))], Some(Ok(1))),
            (None, &[(900, Some(5)), (900, Some(9))], Some(Ok(1))),
            (None, &[(60, Some(999)), (900, None)], Some(Ok(1))),
            // ... and the slowest with none above it.
            (Some(100), &[(60, Some(9)), (5, Some(10)), (100, Some(0))], Some(Ok(1))),
            (None, &[(60, None), (5, Some(10))], Some(Ok(1))),
            (None, &[(5, None), (60, None)], Some(Ok(1))),
        ];
        let start = base();
        let now = start + Duration::from_secs(10);
        let mut table: ConnTable<ClientId, ()> = ConnTable::with_capacity(8);
        let ids = [(); 8].map(|()| table.insert(()));
        for (would_hold, clients, expected) in cases {
            let holders = ids.into_iter().zip(clients).map(|(id, (held, slow))| Holder {
                id,
                held: *held,
                since: slow.map(|slow| start + Duration::from_millis(10_000 - slow)),
            });
            let found = gives_up(now, 100, would_hold, holders);
            let expected = expected.map(|goes| match goes {
                Ok(n) => GivenUp::Client(ids[n]),
                Err(()) => GivenUp::Answer,
            });
            assert_eq!(found, expected, "{would_hold:?}, {clients:?}");
        }
    }
}
