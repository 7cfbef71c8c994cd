//! How many clients are connected, how long they may be idle, and how much they may hold.

pub(crate) mod access;
pub(crate) mod client;
pub(crate) mod eviction;
mod networks;
pub(crate) mod rates;
pub(crate) mod response_size;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::forwarder::action::ClientId;
use crate::forwarder::collections::conn_table::ConnTable;
use crate::forwarder::collections::timeouts::Timeouts;
use crate::forwarder::limits::{Limits, Policy};
use crate::forwarder::message::Opt;
use crate::forwarder::outbox::Outbox;
use crate::forwarder::report::{Crowd, Notice, OnceAMinute};
use access::{Access, Ranges, Refusals, Strangers};
use client::Client;
use eviction::{Connected, GivenUp, Holder, Standing, gives_up, gives_way, makes_room};
use networks::{Holding, Networks};
use rates::{Allowance, Rate, Rates};

/// All connected clients.
#[derive(Debug)]
pub(crate) struct Clients {
    limits: Limits,
    /// Addresses that are served.
    served: Ranges,
    refusals: Refusals,
    /// What networks have asked lately, if that is limited.
    rates: Option<Box<Rates>>,
    seed: u64,
    conns: ConnTable<ClientId, Client>,
    len: usize,
    /// What all hold: answers not taken yet, and partial messages.
    bytes: usize,
    networks: Networks,
    timers: ClientTimers,
    /// Since when the shell has been told, each time it asked, that a newcomer has to wait: one that may be of
    /// another host, and one that can only be of this one.
    declined_since: [Option<Instant>; 2],
    /// The one that may be accepted now had to.
    waited: bool,
    /// No client is to stay, and what they have sent is taken, however much they hold.
    is_leaving: bool,
    /// Nothing is taken any more but the first query of clients that had just connected.
    is_last_call: bool,
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
            refusals: Refusals::default(),
            rates: policy.rate.clone().map(|rate| Box::new(Rates::new(rate, seed))),
            seed,
            conns: ConnTable::with_capacity(limits.client_keys_max()),
            len: 0,
            bytes: 0,
            networks: Networks::new(limits.clients_max, limits.clients_per_address_max),
            timers: ClientTimers::new(limits.client_keys_max()),
            declined_since: [None; 2],
            waited: false,
            is_leaving: false,
            is_last_call: false,
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

    /// Clients that are connected.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Octets that all clients hold.
    pub(crate) fn held_octets(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_connected(&self, id: ClientId) -> bool {
        self.conns.get(id).is_some()
    }

    /// The address and port of a client that is connected.
    pub(crate) fn peer(&self, id: ClientId) -> Option<SocketAddr> {
        self.conns.get(id).map(|client| client.peer)
    }

    /// The shell has closed its socket.
    pub(crate) fn free_key(&mut self, id: ClientId) {
        self.conns.free(id);
    }

    /// No client is to stay.
    pub(crate) fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// These addresses are served from now on. Returns the clients that are not.
    pub(crate) fn serve(&mut self, served: Ranges) -> Vec<ClientId> {
        self.served = served;
        let strangers = self.conns.iter().filter(|(_, client)| !self.serves(client.peer.ip()));
        strangers.map(|(id, _)| id).collect()
    }

    /// Networks may ask so much from now on. What they have asked counts, if they are told apart as before.
    pub(crate) fn limit(&mut self, rate: Option<Rate>) {
        let before = self.rates.take();
        self.rates = rate.map(|rate| {
            let mut rates = Rates::new(rate, self.seed);
            if let Some(before) = before {
                rates.take_over(*before);
            }
            Box::new(rates)
        });
    }

    /// These bounds count from now on, as far as they size no table.
    pub(crate) fn adopt(&mut self, limits: &Limits) {
        self.limits.adopt(limits);
    }

    pub(crate) fn serves(&self, source: IpAddr) -> bool {
        self.served.contains(source)
    }

    /// Whether a datagram that is not served gets REFUSED now, which counts as sent then.
    pub(crate) fn may_refuse(&mut self, now: Instant) -> bool {
        self.refusals.try_take(now)
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
            outbox.log(Notice::SourceRefused {
                source,
                count,
                remedy: access.remedy(source).into(),
            });
        }
    }

    /// What a datagram from this address gets; says so if it is not an answer, once in a while.
    pub(crate) fn allowance(
        &mut self,
        now: Instant,
        source: SocketAddr,
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
    /// Where only this host can connect, nobody else waits behind its own.
    pub(crate) fn accept_at(&self, now: Instant, only_host: bool) -> Option<Instant> {
        let usual = self.place_at(now);
        let declined_since = self.declined_since[usize::from(only_host)];
        let judged = declined_since.filter(|_| self.networks.has_crowds(only_host));
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
    pub(crate) fn poll_accept(&mut self, now: Instant, only_host: bool) -> bool {
        let has_place = self.place_at(now).is_some_and(|at| at <= now);
        let declined_since = &mut self.declined_since[usize::from(only_host)];
        if has_place {
            self.waited = declined_since.take().is_some();
            return true;
        }
        self.waited = false;
        declined_since.get_or_insert(now);
        self.accept_at(now, only_host).is_some_and(|at| at <= now)
    }

    /// No client waits to be accepted any more that may be of another host, or only of this one.
    pub(crate) fn note_none_waiting(&mut self, only_host: bool) {
        self.declined_since[usize::from(only_host)] = None;
    }

    /// Whether there is a place for a client from here: if none is left, that of one that is idle, or else of one
    /// whose network has more than the newcomer's.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        newcomer: SocketAddr,
        outbox: &mut Outbox,
    ) -> Admission {
        if std::mem::take(&mut self.waited) && self.logged.waiting.is_due(now) {
            outbox.log(Notice::ClientWaited {
                client: newcomer.ip().to_canonical(),
                clients_max: self.limits.clients_max,
                crowd: self.crowd(),
            });
        }
        if self.len < self.limits.clients_max {
            return Admission::Free;
        }
        while self.timers.fresh.pop(now, FRESH_TIMEOUT).is_some() {}
        let holding = self.networks.holding(newcomer);
        let idle = self.may_go().take(LOOKED_AT);
        let idle = idle.filter_map(|key| self.connected(self.conns.id_at(key)?));
        let is_above = self.networks.is_above(&holding.with_one_more());
        let idle = makes_room(holding.network, is_above, idle);
        let goes = idle.or_else(|| {
            let newcomer = self.standing(holding.with_one_more(), false);
            gives_way(newcomer, self.all_connected())
        });
        let Some(Connected { id, standing }) = goes else {
            self.note_refusal(now, newcomer, holding, outbox);
            return Admission::Refused;
        };
        if self.logged.room.is_due(now)
            && let Some(client) = self.conns.get(id)
        {
            let holding = self.networks.holding(client.peer);
            outbox.log(Notice::ClientMadeRoom {
                client: client.peer.ip().to_canonical(),
                owed: idle.is_none().then(|| client.queries_owed()),
                newcomer: newcomer.ip().to_canonical(),
                clients_max: self.limits.clients_max,
                crowd: (idle.is_none() || standing.is_above).then(|| crowd(holding)),
            });
        }
        outbox.counts.made_room += 1;
        Admission::InPlaceOf(id)
    }

    fn note_refusal(
        &mut self,
        now: Instant,
        newcomer: SocketAddr,
        holding: Holding,
        outbox: &mut Outbox,
    ) {
        outbox.counts.crowded_out += 1;
        if self.logged.refusal.is_due(now) {
            outbox.log(Notice::ClientRefused {
                client: newcomer.ip().to_canonical(),
                clients_max: self.limits.clients_max,
                crowd: crowd(holding),
            });
        }
    }

    /// The network with most connections, and how many, if it may have to give some up; looks at all clients.
    fn crowd(&self) -> Option<Crowd> {
        if !self.networks.has_crowds(false) {
            return None;
        }
        let holdings = self.conns.iter().map(|(_, client)| self.networks.holding(client.peer));
        holdings.max_by_key(|holding| self.networks.weight(holding)).map(crowd)
    }

    fn all_connected(&self) -> impl Iterator<Item = Connected> {
        self.conns.iter().filter_map(|(id, _)| self.connected(id))
    }

    fn connected(&self, id: ClientId) -> Option<Connected> {
        let client = self.conns.get(id)?;
        let holding = self.networks.holding(client.peer);
        Some(Connected { id, standing: self.standing(holding, !client.is_settled()) })
    }

    fn standing(&self, holding: Holding, is_owed: bool) -> Standing {
        Standing {
            network: holding.network,
            is_above: self.networks.is_above(&holding),
            weight: self.networks.weight(&holding),
            of_address: holding.of_address,
            is_owed,
        }
    }

    /// For how long a client may be idle now (RFC 7766 section 6.2.3): with more than half of the
    /// places taken the time falls evenly, down to a tenth when all are, but not below the time in which
    /// its first query may be on its way. At the end that time is shorter.
    fn idle_time(&self) -> Duration {
        if self.is_last_call {
            return LAST_CALL;
        }
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

/// Who has so many of the places, for the log.
fn crowd(holding: Holding) -> Crowd {
    Crowd { network: holding.network.to_string().into(), held: holding.of_network }
}

/// Octets that are kept free for an answer that is owed: enough for nearly all, signed ones included. With
/// [`Limits`] as they are by default a client alone may have all its queries in flight, and each of 150
/// may have 28.
const ANSWER_RESERVED: usize = 1024;

/// A connection that has asked nothing yet is not idle: its first query follows the handshake within this
/// time, a lost packet included.
const FRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client that has just connected may still take to send its first query when the program ends: longer than
/// the way of a query takes on the networks from which a forwarder is asked, and no more than 1 % of the time that
/// there is until the end.
const LAST_CALL: Duration = Duration::from_millis(50);

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
}
