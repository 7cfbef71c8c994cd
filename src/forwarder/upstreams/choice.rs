//! The choice of the upstream that is asked.

use std::time::{Duration, Instant};

use super::Upstreams;
use super::connection::{Condition, Over, Renewal, UpstreamConn};
use super::upstream::{Attempt, PATIENCE, Upstream};
use crate::forwarder::action::{UpstreamConnId, UpstreamIndex, UpstreamSet};
use crate::forwarder::collections::arena::Id;
use crate::forwarder::collections::sort::sort_by_key;
use crate::forwarder::limits::{Hedge, Order};

impl Upstreams {
    /// Puts the upstreams in the order in which they are preferred now.
    pub(crate) fn rank(&mut self, now: Instant) {
        let Self { ranking, list, conns, .. } = self;
        match self.order {
            // The order in which they were given.
            Order::Ordered => {}
            Order::Fastest => sort_by_key(ranking, |&index| {
                (list[index].experience.round_trip.estimate(now), index)
            }),
            Order::Spread => sort_by_key(ranking, |&index| {
                let upstream = &list[index];
                let open = upstream.open.and_then(|open| conns.get(open));
                (open.map_or(0, |conn| conn.in_flight.unanswered()), upstream.sends, index)
            }),
        }
    }

    /// What is to be done next for `queued` queries that wait for one of `among`, which were put in order.
    /// No attempt is made at those that were `tried` just now.
    pub(crate) fn choose(
        &self,
        now: Instant,
        among: UpstreamSet,
        tried: UpstreamSet,
        queued: usize,
    ) -> Ask {
        let nothing_up = !among.iter().any(|index| self.list[index].is_usable());
        let ranked = self.ranking.iter().filter(|index| among.contains(**index));
        let candidates = ranked.map(|&index| self.candidate(now, index, (among, tried), queued));
        let manner = Manner { order: self.order, asks_any_early: self.hedge == Hedge::Any };
        choose(manner, now, nothing_up, candidates)
    }

    fn candidate(
        &self,
        now: Instant,
        index: UpstreamIndex,
        (among, tried): (UpstreamSet, UpstreamSet),
        queued: usize,
    ) -> Candidate {
        let upstream = &self.list[index];
        let Upstream { operator, .. } = *upstream;
        let wants_attempt = || !tried.contains(index) && self.wants_attempt(now, index, queued);
        let allowance = upstream.experience.allowance(now);
        let open = self.serving(now, upstream, allowance);
        let Some((conn_id, conn)) = open.and_then(|id| Some((id, self.conns.get(id)?))) else {
            let attempt = if self.is_passed_over(now, upstream, among) {
                Attempt::No
            } else {
                upstream.attempt(now, wants_attempt)
            };
            let is_usable = upstream.is_usable();
            return Candidate { index, operator, is_usable, conn: None, attempt };
        };
        let condition = self.condition(now, conn, allowance);
        let renewal = match conn.renewal(now, allowance) {
            Renewal::Wanted if !upstream.experience.replacements.allow_one(now) => Renewal::No,
            Renewal::Wanted | Renewal::Needed if !wants_attempt() => Renewal::No,
            Renewal::No if self.lacks_spare(now, upstream) && wants_attempt() => Renewal::Wanted,
            renewal => renewal,
        };
        let attempt = match condition {
            Condition::Busy | Condition::Quiet => upstream.attempt(now, wants_attempt),
            _ => Attempt::No,
        };
        // Without another connection the quiet one is the best there is, for as much as it takes.
        let condition = match attempt {
            Attempt::No if condition == Condition::Quiet => self.capacity(conn, allowance),
            _ => condition,
        };
        let conn = Some((conn_id, condition, renewal));
        Candidate { index, operator, is_usable: upstream.is_usable(), conn, attempt }
    }

    pub(crate) fn is_something_usable(&self) -> bool {
        self.list.iter().any(Upstream::is_usable)
    }

    /// How long a query may stay queued, if that is less than its whole time: with nothing up, long
    /// enough to see one attempt; a quick SERVFAIL protects the resolver in front of us. Where another
    /// attempt mends nothing, as with certificates, no longer than an attempt is under way.
    pub(crate) fn queue_timeout(&self) -> Option<Duration> {
        let mut only_lasting = true;
        for upstream in self.list.iter() {
            let outage = upstream.outage()?;
            if !outage.stage.is_lasting() {
                only_lasting = false;
                if !outage.is_long {
                    return None;
                }
            }
        }
        let no_attempt = self.list.iter().all(|upstream| upstream.attempts.is_empty());
        Some(if only_lasting && no_attempt { Duration::ZERO } else { PATIENCE })
    }

    /// When what waits for this upstream alone may be taken by others: they wait no longer for a connection
    /// than what goes to anyone. `None` while there is one, and if there are no others.
    pub(crate) fn only_patience_ends_at(
        &self,
        now: Instant,
        index: UpstreamIndex,
    ) -> Option<Instant> {
        let upstream = &self.list[index];
        if upstream.open.is_some_and(|open| !self.is_busy(now, open)) {
            return None;
        }
        upstream.patience_ends_at().filter(|_| self.another(index, UpstreamSet::EMPTY).is_some())
    }

    /// A usable upstream other than `index` and those of the bits in `avoided`.
    pub(crate) fn another(
        &self,
        index: UpstreamIndex,
        avoided: UpstreamSet,
    ) -> Option<UpstreamIndex> {
        let is_wanted = |(other, upstream): &(UpstreamIndex, &Upstream)| {
            upstream.is_usable() && !avoided.contains(*other)
        };
        self.list.others(index).find(is_wanted).map(|(other, _)| other)
    }

    /// The upstreams that may get copies of what is late at upstream `index`; none, if no copies may be made.
    pub(crate) fn hedge_targets(
        &self,
        index: UpstreamIndex,
    ) -> impl Iterator<Item = (UpstreamIndex, &Upstream)> {
        let operator = self.list[index].operator;
        let allows_one = self.hedge != Hedge::Off && self.hedges.allows_one();
        self.list.others(index).filter(move |(_, upstream)| {
            let is_wanted = self.hedge == Hedge::Any || upstream.operator == operator;
            allows_one && is_wanted && upstream.is_usable()
        })
    }

    /// The one of these that gets a copy: of the same operator if there is one.
    pub(crate) fn hedge_target(&self, now: Instant, index: UpstreamIndex) -> Option<UpstreamIndex> {
        let operator = self.list[index].operator;
        let same = self.hedge_targets(index).find(|(_, other)| other.operator == operator);
        let other = same.or_else(|| match self.order {
            Order::Fastest => self
                .hedge_targets(index)
                .min_by_key(|(_, upstream)| upstream.experience.round_trip.estimate(now)),
            Order::Ordered | Order::Spread => self.hedge_targets(index).next(),
        });
        other.map(|(other, _)| other)
    }

    /// A query that is late on this connection, each once, and who gets a copy.
    pub(crate) fn pop_late(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
    ) -> Option<(Id, UpstreamIndex)> {
        let index = self.conns.get(conn_id)?.upstream;
        let other = self.hedge_target(now, index)?;
        let after = self.list[index].experience.round_trip.late_after();
        let conn = self.conns.get_mut(conn_id).filter(|conn| conn.phase.is_trusted())?;
        let late = conn.sent.pop_late(now, after)?;
        let query = conn.in_flight.query(late);
        debug_assert!(query.is_some(), "what may be late is unanswered");
        Some((query?, other))
    }

    /// A query that is overdue on this connection, each once, and the upstream.
    pub(crate) fn pop_overdue(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
    ) -> Option<(UpstreamIndex, Id)> {
        let conn = self.conns.get_mut(conn_id).filter(|conn| conn.phase.is_trusted())?;
        let after = self.list[conn.upstream].experience.round_trip.stall_after();
        let overdue = conn.sent.pop_overdue(now, after)?;
        let query = conn.in_flight.query(overdue);
        debug_assert!(query.is_some(), "what may be overdue is unanswered");
        Some((conn.upstream, query?))
    }

    /// Who else is asked a query that is overdue at upstream `index`, and is not to go to those it avoids. A query that
    /// was sent there `first` goes to another operator, if there is one, when that tells whether this upstream fails
    /// or nobody answers such names; addresses of one operator may fail together.
    pub(crate) fn overdue_target(
        &mut self,
        now: Instant,
        index: UpstreamIndex,
        first: Option<(UpstreamIndex, u32)>,
        avoided: UpstreamSet,
    ) -> Option<UpstreamIndex> {
        let Upstream { operator, ref experience, .. } = self.list[index];
        if experience.promptness.wants_probe(now)
            && let Some((_, number)) = first.filter(|(first, _)| *first == index)
        {
            let is_another = |(other, upstream): &(UpstreamIndex, &Upstream)| {
                upstream.is_usable() && upstream.operator != operator && !avoided.contains(*other)
            };
            let of_another = self.list.others(index).find(is_another).map(|(other, _)| other);
            if let Some(other) = of_another.or_else(|| self.another(index, avoided)) {
                self.list[index].experience.promptness.note_probe(now, number);
                return Some(other);
            }
        }
        self.second_try(now, index, avoided)
    }

    /// Who could be asked what is overdue at upstream `index`, usable or not.
    pub(crate) fn helpers(&self, now: Instant, index: UpstreamIndex) -> UpstreamSet {
        let Upstream { operator, ref experience, .. } = self.list[index];
        let is_any = self.hedge == Hedge::Any || experience.promptness.wants_probe(now);
        let others = self.list.others(index);
        others.filter(|(_, it)| is_any || it.operator == operator).map(|(other, _)| other).collect()
    }

    /// Whom else a query is asked that upstream `index` failed to resolve, as far as the budget goes. `Err`: those
    /// of other operators, all of which failed.
    pub(crate) fn second_opinion(
        &mut self,
        index: UpstreamIndex,
    ) -> Result<UpstreamIndex, UpstreamSet> {
        let operator = self.list[index].operator;
        let others = || self.list.others(index).filter(|(_, it)| it.operator != operator);
        match others().find(|(_, it)| it.is_usable()) {
            Some((other, _)) if self.retries.try_take() => Ok(other),
            None if self.retries.allows_one() => Err(others().map(|(other, _)| other).collect()),
            _ => Err(UpstreamSet::EMPTY),
        }
    }

    /// A query ends that was sent to upstream `index` first, as number `number` there, and was not answered by it.
    /// If it is overdue on one of these connections, that is held against the upstream. Connections that fell silent
    /// are judged as a whole, not by what was sent on them.
    pub(crate) fn note_overdue(
        &mut self,
        now: Instant,
        (index, number): (UpstreamIndex, u32),
        mut sendings: impl Iterator<Item = (UpstreamConnId, u16)>,
        name: impl FnOnce() -> u32,
        by_another: bool,
    ) {
        let after = self.list[index].experience.round_trip.stall_after();
        let is_overdue = |(conn_id, message_id)| match self.conns.get(conn_id) {
            Some(conn) if conn.upstream == index && conn.phase.is_trusted() => {
                // What was sent again after a stall has no time of its own, and has waited for long.
                conn.sent.start(message_id).is_none_or(|start| now >= start + after)
            }
            _ => false,
        };
        if sendings.any(is_overdue) {
            let promptness = &mut self.list[index].experience.promptness;
            promptness.note_late(now, number, name(), by_another);
        }
    }

    /// When the next query on this connection is late, if that matters.
    pub(crate) fn next_hedge(&self, conn: &UpstreamConn) -> Option<Instant> {
        if !conn.phase.is_trusted() {
            return None;
        }
        let next =
            conn.sent.next_late(self.list[conn.upstream].experience.round_trip.late_after())?;
        self.hedge_targets(conn.upstream).next().map(|_| next)
    }

    /// The upstream that is asked a query that is overdue at upstream `index`; none of `avoided`.
    pub(crate) fn second_try(
        &self,
        now: Instant,
        index: UpstreamIndex,
        avoided: UpstreamSet,
    ) -> Option<UpstreamIndex> {
        let first = &self.list[index];
        let others = self.list.others(index).filter(|(other, _)| !avoided.contains(*other));
        let suited = others.filter_map(|(other, upstream)| {
            let helper = Helper {
                standing: Standing::of(upstream),
                is_same_operator: upstream.operator == first.operator,
            };
            let suitability = suitability(helper, !first.is_usable(), self.hedge)?;
            Some((suitability, self.slowness(now, upstream), other))
        });
        suited.min_by_key(|(suitability, slowness, _)| (*suitability, *slowness)).map(|(.., it)| it)
    }

    /// What counts among upstreams that suit equally well.
    fn slowness(&self, now: Instant, upstream: &Upstream) -> Duration {
        match self.order {
            Order::Fastest => upstream.experience.round_trip.estimate(now),
            Order::Ordered | Order::Spread => Duration::ZERO,
        }
    }
}

/// What is to be done for queries that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The queries are sent on this connection, as many as it takes.
    Send(UpstreamConnId),
    /// This connection is to take no more, for its service is over.
    Leave(UpstreamConnId, Over),
    /// This upstream needs a connection more.
    Connect(UpstreamIndex),
    /// The connection of this upstream serves, but another is to take its place.
    Replace(UpstreamIndex),
    /// Nobody takes one now. Even if nothing happens, that is to be asked again at this time.
    Wait(Option<Instant>),
}

/// How upstreams are chosen.
#[derive(Clone, Copy, Debug)]
struct Manner {
    order: Order,
    /// Another operator is asked as early as another address of the same.
    asks_any_early: bool,
}

/// What is known of an upstream that may be asked.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    index: UpstreamIndex,
    operator: u8,
    is_usable: bool,
    /// The connection that takes its queries.
    conn: Option<(UpstreamConnId, Condition, Renewal)>,
    /// Whether to connect, where there is no connection that takes more.
    attempt: Attempt,
}

/// The upstream that is asked, of those that are given by preference.
///
/// The first that takes queries gets them. While an attempt at a preferred one is young, queries
/// wait for it, or are sent to others that are connected; once it is slow, the next of the same operator is
/// connected to, too, and when patience ends all others: whichever is open first gets the queries. With `nothing_up` all are tried, each at its pace.
fn choose(
    Manner { order, asks_any_early }: Manner,
    now: Instant,
    nothing_up: bool,
    candidates: impl Iterator<Item = Candidate>,
) -> Ask {
    let mut look_at: Option<Instant> = None;
    let mut look = |at: Instant| {
        look_at = Some(look_at.map_or(at, |other| other.min(at)));
        Ask::Wait(look_at)
    };
    let mut result = Ask::Wait(None);
    // While an attempt of this operator is young or slow, what others may do is less.
    let mut awaited: Option<u8> = None;
    let mut is_young = false;
    for Candidate { index, operator, is_usable, conn, attempt } in candidates {
        if !is_usable && !nothing_up {
            continue;
        }
        let is_other = awaited.is_some_and(|awaited| awaited != operator) && !asks_any_early;
        if is_other && order == Order::Ordered {
            continue;
        }
        match conn {
            None | Some((_, Condition::Busy | Condition::Quiet, Renewal::No)) => {}
            Some((conn, Condition::Over(over), _)) => return Ask::Leave(conn, over),
            Some((.., Renewal::Needed)) => return Ask::Connect(index),
            Some((.., Renewal::Wanted)) => return Ask::Replace(index),
            Some((conn, Condition::Takes, _)) => return Ask::Send(conn),
            Some((_, Condition::Full | Condition::Starting, _))
                if order == Order::Ordered && !nothing_up =>
            {
                return result;
            }
            Some((_, Condition::Full | Condition::Starting | Condition::NoIds, _)) => continue,
        }
        match attempt {
            _ if is_young || is_other => {}
            Attempt::Wanted => return Ask::Connect(index),
            Attempt::NotBefore(at) => result = look(at),
            // The new connection would be of no use if queries did not wait for it at all.
            Attempt::UnderWay { is_slow_at, .. } if order == Order::Spread && now < is_slow_at => {
                return look(is_slow_at);
            }
            Attempt::UnderWay { is_slow_at, patience_ends_at: Some(at) } if now < at => {
                result = look(if now < is_slow_at { is_slow_at.min(at) } else { at });
                is_young = now < is_slow_at;
                if is_young && order == Order::Ordered {
                    return result;
                }
                // Meanwhile others serve that are connected, and from when it is slow those of its operator are
                // connected to (RFC 8305 section 5).
                awaited = awaited.or(Some(operator));
            }
            Attempt::No | Attempt::UnderWay { .. } => {}
        }
    }
    result
}

/// What is known of an upstream beside the one that a query is overdue at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Helper {
    standing: Standing,
    /// The upstream belongs to the operator who knows the query already.
    is_same_operator: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Usable,
    /// Connected, but it answers too few in time.
    Poor,
    Failed,
}

impl Standing {
    fn of(upstream: &Upstream) -> Self {
        match upstream.outage() {
            None => Self::Usable,
            Some(outage) if outage.proof.is_poor() && upstream.open.is_some() => Self::Poor,
            Some(_) => Self::Failed,
        }
    }
}

/// How well an upstream suits for a query that is overdue at another one, the least the best; `None`: it
/// is not asked.
///
/// An upstream of the same operator learns nothing new. Another one is asked if that is wanted of
/// late queries anyway, or to take over for an upstream that failed. One that answers too few is better
/// than nothing.
fn suitability(helper: Helper, has_failed: bool, hedge: Hedge) -> Option<u8> {
    match (helper.standing, helper.is_same_operator) {
        (Standing::Usable, true) => Some(0),
        (Standing::Usable, false) if has_failed || hedge == Hedge::Any => Some(1),
        (Standing::Poor, true) => Some(2),
        (Standing::Usable | Standing::Poor | Standing::Failed, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::collections::conn_table::ConnTable;
    use crate::forwarder::tests::base;

    /// An upstream in two letters, what its connection is and what an attempt: `-` there is none, `t` takes
    /// more, `f` full, `s` starting, `i` without message IDs, `b` busy, `n` needs another beside it, `r` is to be
    /// replaced, `o` over; `-` none, `w` wanted, `y` young, `s` slow, `l` too long under way, `O` under way at one
    /// that works on few at a time, `p` in its pause. A third letter `!` is for one that failed.
    fn candidate(now: Instant, index: usize, story: &str, conn: UpstreamConnId) -> Candidate {
        let mut letters = story.chars();
        let condition = match letters.next().unwrap() {
            '-' => None,
            't' => Some((Condition::Takes, Renewal::No)),
            'f' => Some((Condition::Full, Renewal::No)),
            's' => Some((Condition::Starting, Renewal::No)),
            'i' => Some((Condition::NoIds, Renewal::No)),
            'b' => Some((Condition::Busy, Renewal::No)),
            'n' => Some((Condition::NoIds, Renewal::Needed)),
            'r' => Some((Condition::Takes, Renewal::Wanted)),
            'o' => Some((Condition::Over(Over::Stalled), Renewal::Wanted)),
            other => panic!("{other}"),
        };
        let under_way = |slow: i64, patience: Option<i64>| Attempt::UnderWay {
            is_slow_at: at(now, slow),
            patience_ends_at: patience.map(|patience| at(now, patience)),
        };
        let attempt = match letters.next().unwrap() {
            '-' => Attempt::No,
            'w' => Attempt::Wanted,
            'y' => under_way(2, Some(15)),
            's' => under_way(-2, Some(13)),
            'l' => under_way(-13, Some(-1)),
            'O' => under_way(-2, None),
            'p' => Attempt::NotBefore(at(now, if index == 0 { 20 } else { 21 })),
            other => panic!("{other}"),
        };
        let conn = condition.map(|(condition, renewal)| (conn, condition, renewal));
        let last = letters.next();
        let (is_usable, operator) = (last != Some('!'), if last == Some('=') { 0 } else { index });
        let index = UpstreamIndex::new(index);
        Candidate { index, operator: operator as u8, is_usable, conn, attempt }
    }

    /// So many tenths of a second from now.
    fn at(now: Instant, tenths: i64) -> Instant {
        let distance = Duration::from_millis(100 * tenths.unsigned_abs());
        if tenths < 0 { now.checked_sub(distance).unwrap() } else { now + distance }
    }

    const ALL: &[Order] = &[Order::Ordered, Order::Fastest, Order::Spread];
    const OTHERS: &[Order] = &[Order::Fastest, Order::Spread];

    /// With these orders, and these upstreams, this is done.
    type Case<'a> = (&'a [Order], &'a str, &'a str);

    fn check(cases: &[Case<'_>]) {
        let now = base();
        let mut conns: ConnTable<UpstreamConnId, ()> = ConnTable::with_capacity(3);
        let ids = [(); 3].map(|()| conns.insert(()));
        let number = |conn| ids.iter().position(|id| *id == conn).unwrap();
        for (orders, stories, expected) in cases {
            let stories = stories.split(' ').zip(ids).enumerate();
            let candidates = stories.map(|(index, (story, id))| candidate(now, index, story, id));
            let candidates: Vec<Candidate> = candidates.collect();
            let nothing_up = !candidates.iter().any(|candidate| candidate.is_usable);
            for &order in *orders {
                let manner = Manner { order, asks_any_early: false };
                let seen = match choose(manner, now, nothing_up, candidates.iter().copied()) {
                    Ask::Send(conn) => format!("send {}", number(conn)),
                    Ask::Leave(conn, _) => format!("leave {}", number(conn)),
                    Ask::Connect(index) => format!("connect {}", index.index()),
                    Ask::Replace(index) => format!("replace {}", index.index()),
                    Ask::Wait(None) => "wait".to_owned(),
                    Ask::Wait(Some(at)) => format!("wait {}", (at - now).as_millis() / 100),
                };
                assert_eq!(seen, *expected, "{order:?} {candidates:?}");
            }
        }
    }

    #[test]
    fn who_is_asked() {
        use Order::{Fastest, Ordered, Spread};

        check(&[
            // The first that takes more.
            (ALL, "t- t-", "send 0"),
            (ALL, "t-! t-", "send 1"),
            (ALL, "-w! -w! t-", "send 2"),
            // One attempt after the other, for as long as queries wait.
            (ALL, "-w t-", "connect 0"),
            (&[Ordered], "-y t-", "wait 2"),
            (&[Fastest], "-y t-", "send 1"),
            (&[Spread], "-y t-", "wait 2"),
            (&[Ordered], "-s t-", "wait 13"),
            (OTHERS, "-s t-", "send 1"),
            (OTHERS, "-s -w", "wait 13"),
            (OTHERS, "-s -w t-", "send 2"),
            (ALL, "-l -w t-", "connect 1"),
            (ALL, "-l t-", "send 1"),
            (ALL, "-l -l", "wait"),
            (ALL, "-- -w", "connect 1"),
            (ALL, "-- --", "wait"),
            // The preferred one takes more soon, or not before an ID is free.
            (&[Ordered], "f- t-", "wait"),
            (&[Ordered], "s- t-", "wait"),
            (OTHERS, "f- t-", "send 1"),
            (OTHERS, "s- t-", "send 1"),
            (&[Ordered], "-l f- t-", "wait"),
            (ALL, "i- t-", "send 1"),
            (OTHERS, "f- -w", "connect 1"),
            // What is too much for one that works on few at a time.
            (ALL, "bw t-", "connect 0"),
            (ALL, "bO t-", "send 1"),
            (ALL, "bO -w", "connect 1"),
            (ALL, "b- t-", "send 1"),
            // Connections that wear out, or are over.
            (ALL, "n- t-", "connect 0"),
            (ALL, "r- t-", "replace 0"),
            (ALL, "o- t-", "leave 0"),
            (ALL, "t- o-", "send 0"),
        ]);
    }

    #[test]
    fn who_is_asked_while_an_address_is_slow_to_connect() {
        use Order::Ordered;

        check(&[
            // Once it is slow, another of the same operator is connected to.
            (ALL, "-y -w=", "wait 2"),
            (ALL, "-s -w=", "connect 1"),
            (ALL, "-s t-=", "send 1"),
            (&[Ordered], "-s t- t-=", "send 2"),
            (OTHERS, "-s t- t-=", "send 1"),
            (ALL, "-s -w -w=", "connect 2"),
            (ALL, "-s -s= -w=", "connect 2"),
            (ALL, "-s -y= -w=", "wait 2"),
            (&[Ordered], "-s -y= t-=", "wait 2"),
            (ALL, "-s -l= -w", "wait 13"),
        ]);
    }

    #[test]
    fn who_is_asked_while_nothing_is_up() {
        check(&[
            // Nothing is up: all are tried, each at its pace.
            (ALL, "-w! -w!", "connect 0"),
            (ALL, "-p! -w!", "connect 1"),
            (ALL, "--! -w!", "connect 1"),
            (ALL, "-p! -p!", "wait 20"),
            (ALL, "--! -p!", "wait 21"),
            (ALL, "-p! t-!", "send 1"),
            (ALL, "f-! -w!", "connect 1"),
            (ALL, "f-! -p!", "wait 21"),
            (ALL, "f-! t-!", "send 1"),
            (ALL, "o-! -p!", "leave 0"),
        ]);
    }

    #[test]
    fn another_operator_is_asked_if_that_is_wanted_or_needed() {
        use Standing::{Failed, Poor, Usable};

        let cases = [
            // what it is, of the same operator, whether the first one failed, --hedge, how well it suits
            (Usable, true, false, Hedge::Off, Some(0)),
            (Usable, true, false, Hedge::Same, Some(0)),
            (Usable, true, false, Hedge::Any, Some(0)),
            (Usable, true, true, Hedge::Off, Some(0)),
            (Usable, false, false, Hedge::Off, None),
            (Usable, false, false, Hedge::Same, None),
            (Usable, false, false, Hedge::Any, Some(1)),
            (Usable, false, true, Hedge::Off, Some(1)),
            (Usable, false, true, Hedge::Same, Some(1)),
            (Poor, true, false, Hedge::Off, Some(2)),
            (Poor, true, true, Hedge::Same, Some(2)),
            (Poor, false, true, Hedge::Any, None),
            (Failed, true, false, Hedge::Any, None),
            (Failed, true, true, Hedge::Any, None),
            (Failed, false, true, Hedge::Any, None),
        ];
        for (standing, is_same_operator, has_failed, hedge, expected) in cases {
            let helper = Helper { standing, is_same_operator };
            let seen = suitability(helper, has_failed, hedge);
            assert_eq!(seen, expected, "{helper:?} {has_failed} {hedge:?}");
        }
    }
}
