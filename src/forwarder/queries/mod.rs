//! Queries: what clients asked and is not answered yet.

pub(crate) mod fair_share;
pub(crate) mod query;
pub(crate) mod retransmissions;
pub(crate) mod waiting;

use std::time::{Duration, Instant};

use super::action::{
    ClientId, DatagramPath, RouteIndex, UpstreamConnId, UpstreamIndex, UpstreamSet,
};
use super::collections::arena::{Arena, Id};
use super::collections::sort::sort_by_key;
use super::collections::timeouts::Timeouts;
use super::limits::Limits;
use super::loss::{LastFailure, Lost, Met, NO_ANSWER};
use super::message::edit::Edns;
use super::message::opt::Ede;
use super::network::Network;
use super::report::Counts;
use fair_share::{BucketId, Contenders, Shares};
use query::{HeldAnswer, Messages, Origin, Query, SENDS_MAX, Sending, Sendings};
use retransmissions::Retransmissions;
use waiting::{Next, Waiting};

/// All queries, and what is known of them by key.
#[derive(Debug)]
pub(crate) struct Queries {
    limits: Limits,
    table: Arena<Query>,
    messages: Messages,
    by_arrival: Timeouts,
    /// The oldest of those that are not known to have waited for long.
    young: Option<usize>,
    waiting: Waiting,
    /// When waiting queries are looked at again although nothing happens.
    look_at: Option<Instant>,
    /// Queries with an answer that is held while a better one may come.
    held: Timeouts,
    /// What clients hold of the table.
    shares: Shares,
    /// What retransmissions join.
    joinable: Retransmissions,
}

impl Queries {
    pub(crate) fn new(limits: &Limits, seed: u64) -> Self {
        let queries_max = limits.queries_max;
        Self {
            table: Arena::with_capacity(queries_max),
            messages: Messages::new(queries_max, limits.query_bytes_max),
            by_arrival: Timeouts::with_capacity(queries_max),
            young: None,
            waiting: Waiting::with_capacity(queries_max),
            look_at: None,
            held: Timeouts::with_capacity(queries_max),
            shares: Shares::new(seed, queries_max),
            joinable: Retransmissions::new(seed, queries_max),
            limits: limits.clone(),
        }
    }

    /// Octets of the tables, beside that of the queries, for so many of them.
    pub(crate) const fn octets(queries: usize) -> usize {
        2 * Timeouts::octets(queries)
            + Waiting::octets(queries)
            + Shares::octets(queries)
            + Retransmissions::octets(queries)
    }

    pub(crate) fn get(&self, id: Id) -> Option<&Query> {
        self.table.get(id)
    }

    fn change(&mut self, id: Id, change: impl FnOnce(&mut Query)) {
        self.table.get_mut(id).map(change);
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.table.len() >= self.limits.queries_max
    }

    /// These bounds count from now on, as far as they size no table.
    pub(crate) fn adopt(&mut self, limits: &Limits) {
        self.limits.adopt(limits);
    }

    /// The upstreams that queries have to do with, or had.
    pub(crate) fn upstreams(&self) -> UpstreamSet {
        let mut all = self.awaited();
        for (_, query) in self.table.iter() {
            let history = &query.history;
            let ids = [
                history.first.map(|(upstream, _)| upstream),
                history.plainer.map(|(upstream, _)| upstream),
                history.last_failure.map(|failure| failure.upstream),
                query.held.as_ref().map(|held| held.upstream),
            ];
            ids.into_iter().flatten().chain(history.avoided.iter()).for_each(|it| all.insert(it));
        }
        all
    }

    /// Every query.
    pub(crate) fn ids(&self) -> Vec<Id> {
        self.table.iter().map(|(id, _)| id).collect()
    }
}

/// From the first octet to the exit.
impl Queries {
    /// A copy of `message`; `None` if there is no room for a long one.
    pub(crate) fn store(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        self.messages.store(message)
    }

    /// Takes back the message of a query that left.
    pub(crate) fn release(&mut self, message: Vec<u8>) {
        self.messages.release(message);
    }

    /// The part of the table that queries count against which clients of this network send by datagram.
    pub(crate) fn bucket_of_datagrams(&self, network: Network) -> BucketId {
        self.shares.of_datagrams(network)
    }

    /// The part of the table that queries count against which they send on streams.
    pub(crate) fn bucket_of_streams(&self, network: Network) -> BucketId {
        self.shares.of_streams(network)
    }

    /// Whether there is a place for a query of `newcomer`. A quarter of all is for others than datagrams of other
    /// hosts, whose addresses may be forged.
    pub(crate) fn place(&self, now: Instant, newcomer: BucketId) -> Place {
        let all = self.limits.queries_max;
        let of_datagrams = all - all / 4;
        let is_remote = newcomer.remote().is_some();
        let (contenders, places) = if is_remote && self.shares.datagrams() >= of_datagrams {
            (Contenders::Datagrams, of_datagrams)
        } else if self.is_full() {
            (Contenders::All, all)
        } else {
            return Place::Free;
        };
        let has_had_its_time = |since| since + HAD_ITS_TIME <= now;
        let since = |key| self.by_arrival.start(key);
        let goes = self.shares.makes_room(newcomer, contenders, places, has_had_its_time, since);
        goes.and_then(|key| self.table.id_at(key)).map_or(Place::None, Place::Of)
    }

    /// Whether there is room for a message of `len` octets.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.messages.has_room(len)
    }

    pub(crate) fn fingerprint(&self, path: &DatagramPath, id: u16) -> u64 {
        self.joinable.fingerprint(path, id)
    }

    /// A stub that retransmits (after 1 to 2.5 s, just when an upstream is at its weakest) joins
    /// the query it repeats: it costs no second slot and no second copy upstream. False if it repeats none.
    pub(crate) fn join(
        &mut self,
        fingerprint: u64,
        from: &DatagramPath,
        message: &[u8],
        counts: &mut Counts,
    ) -> bool {
        let query = self.joinable.find(fingerprint).and_then(|id| self.table.get_mut(id));
        let Some(query) = query.filter(|query| query.message == message) else {
            return false;
        };
        match &mut query.origin {
            Origin::Datagram { path, responses, .. } if path == from => {
                if *responses < RESPONSES_MAX {
                    *responses += 1;
                    counts.owed += 1;
                    counts.queries += 1;
                } else {
                    counts.repeated += 1;
                }
                true
            }
            _ => false,
        }
    }

    /// Takes a query in, which waits nowhere yet.
    #[inline]
    pub(crate) fn insert(&mut self, now: Instant, query: Query) -> Id {
        let id = self.table.insert(query);
        self.by_arrival.arm(id.key(), now);
        self.young.get_or_insert(id.key());
        id
    }

    /// Takes a query of a client in, which waits nowhere yet and counts as the client's.
    #[inline]
    pub(crate) fn insert_of(&mut self, now: Instant, query: Query, client: BucketId) -> Id {
        let fingerprint = match query.origin {
            Origin::Datagram { fingerprint, .. } => Some(fingerprint),
            _ => None,
        };
        let id = self.insert(now, query);
        if let Some(fingerprint) = fingerprint {
            self.joinable.add(fingerprint, id);
        }
        self.shares.add(id.key(), client);
        id
    }

    /// Takes the query out, wherever it is.
    #[inline]
    pub(crate) fn remove(&mut self, id: Id) -> Option<Query> {
        let query = self.table.remove(id)?;
        if self.young == Some(id.key()) {
            self.young = self.by_arrival.younger(id.key());
        }
        self.by_arrival.disarm(id.key());
        self.waiting.remove(id.key());
        self.held.disarm(id.key());
        self.shares.remove(id.key());
        if let Origin::Datagram { fingerprint, .. } = query.origin {
            self.joinable.remove(fingerprint, id);
        }
        Some(query)
    }

    /// When the time of the query is over.
    pub(crate) fn expires_at(&self, query: &Query) -> Instant {
        query.arrived + self.limits.query_timeout
    }

    /// One whose time is over.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<Id> {
        let key = self.by_arrival.pop(now, self.limits.query_timeout)?;
        self.table.id_at(key)
    }

    /// One that has to go as too many that came by datagram from its network wait for long: whoever forges its
    /// address could else have all their answers sent at once to it (`DNSBomb`, CVE-2024-33655).
    pub(crate) fn pop_late(&mut self, now: Instant) -> Option<Id> {
        while let Some(key) = self.young
            && self.by_arrival.start(key)? + LATE_AFTER <= now
        {
            self.young = self.by_arrival.younger(key);
            if let Some(goes) = self.shares.note_late(key, self.limits.late_datagrams_max) {
                return self.table.id_at(goes);
            }
        }
        None
    }

    /// When the next query expires, has waited for long, has held its answer for long enough, has waited for `patience` or is
    /// to be looked at again.
    pub(crate) fn next_timeout(&self, patience: Option<Duration>) -> Option<Instant> {
        let impatient = || {
            let oldest = |route| Some(self.waiting.oldest(Next::Anyone(route))?.1);
            Some(RouteIndex::every().filter_map(oldest).min()? + patience?)
        };
        let young = self.young.and_then(|key| self.by_arrival.start(key));
        let all = [
            self.by_arrival.next(self.limits.query_timeout),
            young.map(|since| since + LATE_AFTER),
            self.held.next(HELD_TIMEOUT),
            impatient(),
            self.look_at.filter(|_| self.waits()),
        ];
        all.into_iter().flatten().min()
    }
}

/// Whether there is a place for one more query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Free,
    /// There is a place once this query is ended.
    Of(Id),
    None,
}

/// What becomes of a query that lost a sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing: an answer is expected still, or hoped for, or it waits already.
    Stays,
    /// The query has no more to wait for.
    Fails,
    /// The query is sent again.
    Again,
}

/// Waiting to be sent.
impl Queries {
    /// A new query waits for whichever upstream takes it.
    pub(crate) fn wait(&mut self, id: Id) {
        if let Some(query) = self.table.get(id) {
            self.waiting.add(id.key(), Next::Anyone(query.route), query.arrived);
        }
    }

    /// The query, or a copy of it, waits for this upstream, behind all others that do.
    pub(crate) fn wait_for(&mut self, id: Id, upstream: UpstreamIndex) {
        if let Some(query) = self.table.get(id) {
            self.waiting.push(id.key(), Next::Only(upstream), query.arrived);
        }
    }

    /// Queries that were sent wait again for whichever upstream takes them, in the order in which they came
    /// and before what came later.
    pub(crate) fn wait_again(&mut self, mut ids: Vec<Id>) {
        // What was done about others may have ended some.
        ids.retain(|id| self.table.get(*id).is_some());
        sort_by_key(&mut ids, |id| (self.table.get(*id).map(|query| query.arrived), id.serial()));
        for route in RouteIndex::every() {
            let of_route = ids.iter().filter_map(|id| {
                let query = self.table.get(*id).filter(|query| query.route == route)?;
                Some((query.arrived, id.key()))
            });
            let keys: Vec<(Instant, usize)> = of_route.collect();
            self.waiting.merge(&keys, Next::Anyone(route));
        }
    }

    /// A query that may bring connections down waits behind all others that wait for any upstream, and as if it
    /// had come now, until it is sent again.
    pub(crate) fn let_others_pass(&mut self, now: Instant, id: Id) {
        if self.table.get(id).is_some()
            && let next @ Next::Anyone(_) = self.next(id)
        {
            self.waiting.push(id.key(), next, now);
        }
    }

    /// To whom the query goes next.
    pub(crate) fn next(&self, id: Id) -> Next {
        self.waiting.next(id.key())
    }

    /// The query waits no longer.
    pub(crate) fn stop_waiting(&mut self, id: Id) {
        self.waiting.remove(id.key());
    }

    /// How many wait for this.
    pub(crate) fn waiting(&self, next: Next) -> usize {
        self.waiting.len(next)
    }

    /// Whether anything waits to be sent now.
    #[inline]
    pub(crate) fn waits(&self) -> bool {
        let anyone = |route| self.waiting(Next::Anyone(route)) > 0;
        RouteIndex::every().any(anyone) || !self.awaited().is_empty()
    }

    /// Waiting queries are to be looked at again at this time, or before.
    pub(crate) fn look_again(&mut self, at: Instant) {
        self.look_at = Some(self.look_at.map_or(at, |other| other.min(at)));
    }

    /// Waiting queries are looked at now.
    pub(crate) fn forget_look(&mut self) {
        self.look_at = None;
    }

    /// Upstreams that something waits for.
    pub(crate) fn awaited(&self) -> UpstreamSet {
        self.waiting.awaited()
    }

    /// The one that is first to be sent. With `in_turn`, where an upstream takes few until it has answered one of them,
    /// networks take turns: names that nobody answers, all asked by one, could else keep it from ever answering.
    pub(crate) fn first_waiting(&mut self, next: Next, in_turn: bool) -> Option<Id> {
        let (first, _) = self.waiting.oldest(next)?;
        let waiting = &self.waiting;
        let turn = || self.shares.in_turn(|key| waiting.next(key) == next);
        let other = in_turn.then(turn).flatten();
        let other = other.filter(|key| !self.shares.are_of_one(*key, first));
        self.table.id_at(other.unwrap_or(first))
    }

    /// One that has waited for longer than `patience` for whichever upstream takes it. It waits no longer.
    /// But one that is in flight on a stalled connection may still be answered there, and waits again when
    /// something can be used.
    pub(crate) fn pop_impatient(&mut self, now: Instant, patience: Duration) -> Option<Id> {
        for route in RouteIndex::every() {
            while let Some((key, since)) = self.waiting.oldest(Next::Anyone(route))
                && since + patience <= now
            {
                let id = self.table.id_at(key)?;
                if self.table.get(id).is_some_and(|query| query.sendings.is_empty()) {
                    self.waiting.remove(key);
                    return Some(id);
                }
                self.waiting.push(key, Next::Later, since);
            }
        }
        None
    }

    /// Something can be used.
    pub(crate) fn end_later(&mut self) {
        let mut ids = Vec::new();
        while let Some((key, _)) = self.waiting.oldest(Next::Later) {
            self.waiting.remove(key);
            ids.extend(self.table.id_at(key));
        }
        if !ids.is_empty() {
            self.wait_again(ids);
        }
    }

    /// The query was sent, to an upstream that was the `first`, if that is given. Returns the older of two sendings
    /// that there were, to be abandoned.
    #[inline]
    pub(crate) fn note_sent(
        &mut self,
        id: Id,
        sending: Sending,
        first: Option<(UpstreamIndex, u32)>,
    ) -> Option<Sending> {
        self.waiting.remove(id.key());
        let query = self.table.get_mut(id)?;
        query.history.first = query.history.first.or(first);
        query.add_sending(sending)
    }

    /// The connection that these were sent on has stalled.
    pub(crate) fn note_stalled(&mut self, conn: UpstreamConnId, ids: &[Id]) {
        for id in ids {
            self.set_stalled(*id, conn, true);
        }
    }

    /// What was sent to this upstream is sent again, as its connection has stalled. Returns whom the query avoids,
    /// and whether that is not the first time; `None` if it is not to be sent.
    pub(crate) fn leave_stalled(
        &mut self,
        now: Instant,
        id: Id,
        upstream: UpstreamIndex,
    ) -> Option<(UpstreamSet, bool)> {
        let query = self.table.get_mut(id)?;
        let failure = LastFailure::new(upstream, NO_ANSWER, Ede::NETWORK_ERROR);
        query.history.last_failure = Some(failure);
        if query.sendings.expects_answer() || !query.may_be_sent() || query.is_trial() {
            return None;
        }
        query.history.stalled_at = Some(now);
        let has_stalled = std::mem::replace(&mut query.history.has_stalled, true);
        Some((query.history.avoided, has_stalled))
    }

    /// Whether the query was sent to this upstream first.
    pub(crate) fn was_first_at(&self, id: Id, upstream: UpstreamIndex) -> bool {
        let first = self.table.get(id).and_then(|query| query.history.first);
        first.is_some_and(|(first, _)| first == upstream)
    }

    /// What becomes of a query that lost a sending, or may have to be sent no more.
    pub(crate) fn fate(&mut self, id: Id) -> Fate {
        let Some(query) = self.table.get(id) else {
            return Fate::Stays;
        };
        if !query.may_be_sent() {
            self.waiting.remove(id.key());
            return if query.is_sent() { Fate::Stays } else { Fate::Fails };
        }
        match query.sendings.expects_answer() {
            true => Fate::Stays,
            false if query.is_trial() || query.held.is_some() => Fate::Fails,
            // A query that waits for one upstream does so for a reason.
            false if self.is_turned_away(id, query) => Fate::Stays,
            false => Fate::Again,
        }
    }

    /// Whether the query waits for a certain upstream, as it brings down others, or is asked there in another
    /// way.
    fn is_turned_away(&self, id: Id, query: &Query) -> bool {
        let Next::Only(upstream) = self.next(id) else {
            return false;
        };
        let is_asked_otherwise = query.history.plainer.is_some_and(|(at, _)| at == upstream);
        !query.history.avoided.is_empty() || is_asked_otherwise
    }

    /// The query brings this upstream down, it seems, and is not sent there if there is another.
    pub(crate) fn avoid(&mut self, id: Id, upstream: UpstreamIndex) -> Option<&Query> {
        let query = self.table.get_mut(id)?;
        query.history.avoided.insert(upstream);
        Some(query)
    }

    /// The query turns to this upstream, where it has lost no connection.
    pub(crate) fn turn_to(&mut self, id: Id, upstream: UpstreamIndex) {
        self.change(id, |query| query.history.losses = 0);
        self.wait_for(id, upstream);
    }

    /// A connection that the query was sent on is gone, or has its answer.
    pub(crate) fn forget_sending(&mut self, id: Id, conn: UpstreamConnId) {
        self.change(id, |query| query.sendings.remove(conn));
    }

    /// From that time on, what waits for this upstream, and for no answer beside it, may be taken by another after
    /// all: by which one, `another` tells, but for those of a set. What is to be asked here and nowhere else stays.
    pub(crate) fn end_patience(
        &mut self,
        now: Instant,
        at: Instant,
        upstream: UpstreamIndex,
        another: impl Fn(UpstreamSet) -> Option<UpstreamIndex>,
    ) {
        if now < at {
            return self.look_again(at);
        }
        let mut again = Vec::new();
        let mut in_vain = 0;
        while let Some(id) = self.first_waiting(Next::Only(upstream), false)
            && let Some(query) = self.table.get(id)
        {
            if in_vain >= TRIES_IN_VAIN_MAX {
                // Queries behind these may go elsewhere.
                self.look_again(now + LOOK_PAUSE);
                break;
            }
            let stays = query.is_trial()
                || query.held.is_some()
                || query.sendings.expects_answer()
                || query.history.plainer.is_some_and(|(at, _)| at == upstream);
            let avoided = query.history.avoided;
            match another(avoided).filter(|_| !stays) {
                None => {
                    self.wait_for(id, upstream);
                    in_vain += 1;
                }
                Some(other) if !avoided.is_empty() => self.wait_for(id, other),
                Some(_) => {
                    self.stop_waiting(id);
                    again.push(id);
                }
            }
        }
        self.wait_again(again);
    }

    /// Whether there is no more than hope for what was sent on this connection.
    pub(crate) fn set_stalled(&mut self, id: Id, conn: UpstreamConnId, stalled: bool) {
        self.change(id, |query| query.sendings.set_stalled(conn, stalled));
    }

    /// A connection was lost that these were in flight on. Returns what they had met before.
    pub(crate) fn note_lost(&mut self, lost: &Lost) -> Met {
        let mut met = Met::default();
        for &id in &lost.unanswered {
            let Some(query) = self.table.get_mut(id) else {
                continue;
            };
            query.sendings.remove(lost.conn);
            let history = &mut query.history;
            let last = history.last_failure.replace(lost.failure);
            if last.is_some_and(|last| last.upstream != lost.failure.upstream) {
                history.losses = 0;
            }
            if lost.victim == Some(id) {
                history.bad += 1;
                met.bad_answers = history.bad;
            }
            history.unanswered += u8::from(lost.victim == Some(id) || lost.was_mute());
            met.losses = met.losses.max(history.losses);
            history.losses = history.losses.saturating_add(u8::from(lost.was_open));
        }
        met
    }

    /// Whether the query has lost so many connections to one upstream that it turns to another.
    pub(crate) fn has_lost_enough(&self, id: Id) -> bool {
        self.table.get(id).is_some_and(|query| query.history.losses >= LOSSES_MAX)
    }

    /// Whether an answer is still expected.
    pub(crate) fn expects_answer(&self, id: Id) -> bool {
        self.table.get(id).is_some_and(|query| query.sendings.expects_answer())
    }

    /// Whether a copy of the query may go out for being late.
    pub(crate) fn may_be_hedged(&self, id: Id) -> bool {
        self.may_be_copied(id) && self.table.get(id).is_some_and(|query| !query.history.hedged)
    }

    /// A copy of the query, which is late, waits for this upstream.
    pub(crate) fn hedge(&mut self, id: Id, upstream: UpstreamIndex) {
        self.change(id, |query| query.history.hedged = true);
        self.wait_for(id, upstream);
    }

    /// What was sent of the query seems to be lost: a copy waits for this upstream, and may go the same way.
    pub(crate) fn ask_again(&mut self, id: Id, upstream: UpstreamIndex) {
        self.change(id, |query| query.history.has_gone_astray = true);
        self.hedge(id, upstream);
    }

    /// A copy of the query, whose connection is quiet, waits for another one to the same upstream.
    pub(crate) fn rescue(&mut self, now: Instant, id: Id, upstream: UpstreamIndex) {
        self.change(id, |query| query.history.stalled_at = Some(now));
        self.wait_for(id, upstream);
    }

    /// Something went wrong with the query, or it came to nothing.
    pub(crate) fn note_failure(&mut self, id: Id, failure: LastFailure) {
        self.change(id, |query| query.history.last_failure = Some(failure));
    }

    /// The query's place among those that its client is owed is this now.
    pub(crate) fn note_owed(&mut self, id: Id, client: ClientId, index: usize) {
        self.change(id, |query| query.origin = Origin::Stream { client, index });
    }

    /// The query is asked of the upstream that objected to it once more, with so much of EDNS. False if it is
    /// not as another copy may be answered otherwise.
    pub(crate) fn ask_plainer(&mut self, id: Id, upstream: UpstreamIndex, edns: Edns) -> bool {
        self.change(id, |query| query.history.plainer = Some((upstream, edns)));
        let is_asked = !self.expects_answer(id);
        if is_asked {
            self.wait_for(id, upstream);
        }
        is_asked
    }

    /// Copies a query for an upstream that has to prove that it answers, if there is room for the copy.
    pub(crate) fn copy_for_trial(
        &mut self,
        now: Instant,
        upstream: UpstreamIndex,
        cause: Id,
    ) -> Option<Id> {
        let query = self.table.get(cause)?;
        // The query is still to be sent itself.
        if query.is_sent_once() || query.history.sends + 1 >= SENDS_MAX || self.is_full() {
            return None;
        }
        let message = self.messages.store(&query.message)?;
        let origin = Origin::Trial { upstream, cause };
        let trial = Query::new(origin, message, query.parsed, query.family, now);
        // The upstreams see one copy more of it.
        self.table.get_mut(cause)?.history.sends += 1;
        let trial = self.insert(now, trial);
        self.wait_for(trial, upstream);
        Some(trial)
    }

    /// Whether a copy of the query may go out beside the one that is out.
    pub(crate) fn may_be_copied(&self, id: Id) -> bool {
        self.table.get(id).is_some_and(|query| {
            query.may_be_sent()
                && !query.is_trial()
                && query.held.is_none()
                && query.sendings.iter().count() == 1
        }) && !matches!(self.next(id), Next::Only(_))
    }
}

/// Answers that are held.
impl Queries {
    /// Whether one more answer may be held.
    pub(crate) fn has_room_to_hold(&self) -> bool {
        self.held.len() < held_max(self.limits.queries_max)
    }

    /// Holds an answer while a better one may come.
    pub(crate) fn hold(&mut self, now: Instant, id: Id, answer: Option<HeldAnswer>) {
        debug_assert!(answer.is_some(), "only an answer is held");
        if let Some(query) = self.table.get_mut(id) {
            query.held = answer.map(Box::new);
            self.held.arm(id.key(), now);
        }
    }

    /// The answer that was held.
    pub(crate) fn take_held(&mut self, id: Id) -> Option<Box<HeldAnswer>> {
        self.table.get_mut(id)?.held.take()
    }

    /// Nobody waits for the query any more. Returns where it was sent; `None` if it was not.
    pub(crate) fn orphan(&mut self, id: Id) -> Option<Sendings> {
        let query = self.table.get_mut(id).filter(|query| query.is_sent())?;
        self.waiting.remove(id.key());
        self.held.disarm(id.key());
        query.origin = Origin::Orphan;
        query.held = None;
        Some(std::mem::take(&mut query.sendings))
    }

    /// A query that has held its answer for long enough.
    pub(crate) fn pop_held(&mut self, now: Instant) -> Option<Id> {
        self.table.id_at(self.held.pop(now, HELD_TIMEOUT)?)
    }
}

/// In this time nearly every query is answered that will be. One that is younger is not given up for a newcomer
/// that has its share: nothing would live long enough to be answered.
const HAD_ITS_TIME: Duration = Duration::from_millis(400);

/// A query that waits for longer waits for long.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// Responses to one query and its retransmissions.
const RESPONSES_MAX: u8 = 4;

/// Answers that are held at a time.
pub(crate) fn held_max(queries_max: usize) -> usize {
    (queries_max / HELD_PART).max(HELD_MIN)
}

/// Copies are made of a few queries in a hundred.
const HELD_PART: usize = 16;
const HELD_MIN: usize = 8;

/// What is at hand is not held back for longer.
const HELD_TIMEOUT: Duration = Duration::from_secs(1);

/// A client can have all its queries wait for one message ID, and each event looks at a few only.
pub(crate) const TRIES_IN_VAIN_MAX: usize = 4;

/// Between looks at what waits for an upstream that cannot be connected to, where some of it has to stay.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Connections that a query loses to one upstream before it turns to another.
const LOSSES_MAX: u8 = 2;

#[cfg(test)]
mod tests {
    use super::query::{NO_ANSWER_SENDS_MAX, SENDS_MAX};
    use crate::forwarder::UpstreamIndex;
    use crate::forwarder::tests::{base, forwarder, query};

    #[test]
    fn what_was_sent_often_enough_is_not_sent_again_even_if_it_waits() {
        for (sends, unanswered) in [(SENDS_MAX, 0), (NO_ANSWER_SENDS_MAX, NO_ANSWER_SENDS_MAX)] {
            let now = base();
            let mut forwarder = forwarder();
            let id = query(&mut forwarder, now);
            if let Some(query) = forwarder.queries.table.get_mut(id) {
                (query.history.sends, query.history.unanswered) = (sends, unanswered);
            }
            let conn = forwarder.upstreams[UpstreamIndex::new(0)].attempts[0];
            forwarder.handle_connected(now, conn);
            assert_eq!(forwarder.output(conn.into()), b"");
            let counts = forwarder.counts();
            assert_eq!((counts.failed, counts.owed, counts.queries_held), (1, 0, 0));
        }
    }
}
