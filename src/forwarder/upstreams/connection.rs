//! One connection to an upstream.

use std::time::{Duration, Instant};

use super::experience::Allowance;
use super::in_flight::{Found, InFlight};
use super::quiet::{MANY, Owed, Quiet, SEVERAL, SPREAD, Tolerated};
use super::replacements;
use super::round_trip::STALL_MAX;
use super::sends::Sends;
use super::turns::Turns;
use super::upstream::NOTHING_UP_PAUSE;
use crate::forwarder::action::{Closed, Stage, UpstreamIndex};
use crate::forwarder::collections::arena::Id;
use crate::forwarder::collections::output::StreamOutput;
use crate::forwarder::collections::random::Random;
use crate::forwarder::limits::Limits;
use crate::forwarder::message::frame::{Deframer, FRAME_LEN_MAX};

/// A connection to an upstream.
#[derive(Debug)]
pub(crate) struct UpstreamConn {
    pub(crate) upstream: UpstreamIndex,
    pub(crate) phase: Phase,
    pub(crate) in_flight: InFlight,
    /// Sends that arm the stall deadline.
    pub(crate) sent: Sends,
    pub(crate) deframer: Deframer,
    pub(crate) output: StreamOutput,
    /// [`crate::forwarder::Action::Transmit`] is queued.
    pub(crate) transmitting: bool,
    /// When the last octet was received, of whatever.
    pub(crate) last_received: Instant,
    /// The connection is quiet.
    pub(crate) quiet: Option<Quiet>,
    /// What was sent before waited for lost segments: how long it took says nothing of the upstream.
    pub(crate) held_up_until: Option<Instant>,
    /// Its silence is not to be looked at before this time, if something waits.
    pub(crate) look_at: Option<Instant>,
    /// When it was looked at last.
    pub(crate) looked_at: Option<Instant>,
    /// When the last answer was received, whole and to something asked. Octets of a frame that does
    /// not end are no sign of life, nor are answers to nothing.
    pub(crate) last_answer: Instant,
    /// The answer that was on its way when the connection stalled, by message ID: it is still waited
    /// for here, and not asked for again at the same upstream.
    pub(crate) arriving: Option<u16>,
    /// The oldest send whose query was given up and after which nothing was answered.
    unanswered_since: Option<Instant>,
    /// Queries given up since the last answer, all sent after it, and none when it was new.
    given_up: u8,
    /// When the last query in flight left.
    pub(crate) idle_since: Instant,
    /// When the connection is so old that it is to be replaced.
    pub(crate) replace_at: Instant,
    /// When a replacement could not be made.
    pub(crate) replacement_failed_at: Option<Instant>,
    /// When its handshake was done.
    pub(crate) opened_at: Instant,
    /// A query on it asked how long the server lets it idle.
    pub(crate) asked_keepalive: bool,
    /// What the server said to that, less what the way to it takes (RFC 7828 section 3.2.2).
    pub(crate) keepalive: Option<Duration>,
    /// Since it stalled, nothing was answered on it.
    pub(crate) silence: Option<Silence>,
    turns: Turns,
    /// Queries sent on it.
    pub(crate) queries: u64,
    /// Matching answers so far. While there are none, its failure is the
    /// upstream's.
    pub(crate) answers: u64,
    /// Unmatched responses since the last matching one.
    pub(crate) unmatched: u8,
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// TCP is being established.
    Connecting {
        until: Instant,
    },
    /// The TLS handshake goes on. `advice` is added to what is told if it takes too long.
    Handshaking {
        until: Instant,
        advice: &'static str,
    },
    Open,
    /// Takes no new queries; closed when none waits on it any more, or then. Once stalled, what
    /// waits on it has been sent elsewhere too.
    Retired {
        until: Instant,
        stalled: bool,
    },
}

impl Phase {
    /// Whether the connection is still being made.
    pub(super) fn is_attempt(&self) -> bool {
        matches!(self, Self::Connecting { .. } | Self::Handshaking { .. })
    }

    /// Whether the connection can be expected to answer what was sent on it.
    pub(crate) fn is_trusted(&self) -> bool {
        matches!(self, Self::Open | Self::Retired { stalled: false, .. })
    }
}

impl UpstreamConn {
    pub(crate) fn new(
        upstream: UpstreamIndex,
        now: Instant,
        limits: &Limits,
        random: &mut Random,
    ) -> Self {
        let ids_max = ids_max(limits);
        Self {
            upstream,
            phase: Phase::Connecting { until: now + CONNECT_TIMEOUT },
            in_flight: InFlight::new(ids_max),
            sent: Sends::new(ids_max),
            deframer: Deframer::default(),
            output: StreamOutput::new(limits.output_kept),
            transmitting: false,
            last_received: now,
            quiet: None,
            held_up_until: None,
            look_at: None,
            looked_at: None,
            last_answer: now,
            arriving: None,
            unanswered_since: None,
            given_up: 0,
            idle_since: now,
            replace_at: now + random.jitter(AGE_MAX, AGE_JITTER),
            replacement_failed_at: None,
            opened_at: now,
            asked_keepalive: false,
            keepalive: None,
            silence: None,
            turns: Turns::new(now),
            queries: 0,
            answers: 0,
            unmatched: 0,
        }
    }

    /// When nothing was answered for `after`, which is too long: from the later of the oldest waiting send and the last
    /// answer. Neither later sends push it back nor queries that are given up before it, or
    /// steady traffic would hide a dead connection for ever.
    pub(crate) fn stalls_at(&self, after: Duration) -> Option<Instant> {
        let (_, oldest) = self.sent.oldest()?;
        let oldest = self.unanswered_since.map_or(oldest, |since| since.min(oldest));
        Some(oldest.max(self.last_answer) + after)
    }

    /// What waits that no answer has passed, and since when nothing came; `None` if nothing waits.
    pub(crate) fn owed(&self) -> Option<Owed> {
        let mut expected = self.sent.expected();
        let oldest = expected.next()?;
        let third = expected.nth(SEVERAL - 2);
        let mut are_many = || expected.nth(MANY - SEVERAL - 1).is_some();
        let are_spread = self.sent.youngest().is_some_and(|start| start >= oldest + SPREAD);
        let many = are_spread && are_many();
        Some(Owed { oldest, third, many, last_received: self.last_received })
    }

    /// When its silence is to be looked at. What waits on one that takes no more waits for lost segments as well.
    pub(crate) fn next_look(&self, tolerated: Tolerated) -> Option<Instant> {
        if !matches!(self.phase, Phase::Open | Phase::Retired { stalled: false, .. }) {
            return None;
        }
        Some(self.owed()?.next_look(tolerated, self.looked_at))
    }

    /// A query is sent with this message ID, and its silence counts.
    pub(crate) fn note_sent(&mut self, now: Instant, id: u16, unusual: Duration) {
        if self.sent.is_empty() && now > self.idle_since {
            // What was given up before a pause says nothing about the path now; without a pause, it
            // is the same silence.
            self.unanswered_since = None;
        }
        self.sent.arm(id, now);
        if let Some(quiet) = &mut self.quiet {
            quiet.next.get_or_insert(id);
        }
        let look_at = now + unusual;
        if self.look_at.is_none_or(|at| look_at < at) {
            self.look_at = Some(look_at);
        }
    }

    pub(crate) fn note_answer(&mut self, now: Instant) {
        self.last_answer = now;
        self.answers += 1;
        self.silence = None;
        self.unmatched = 0;
        self.unanswered_since = None;
        self.given_up = 0;
    }

    /// It gives answers, but to nothing that was asked: a server that is deaf after some queries does not.
    pub(crate) fn has_gone_astray(&self) -> bool {
        self.unmatched > 0
    }

    /// The query left by another way: its ID stays reserved. That says something of the connection if the query has waited
    /// for `long`, as a client may leave at once.
    pub(crate) fn abandon(&mut self, now: Instant, id: u16, long: Duration) {
        self.in_flight.abandon(id);
        if let Some((oldest, start)) = self.sent.oldest()
            && oldest == id
        {
            self.unanswered_since.get_or_insert(start);
        }
        if let Some(quiet) = &mut self.quiet
            && quiet.next == Some(id)
        {
            quiet.next = self.sent.younger(id);
        }
        let is_new = self.is_new(now);
        let is_sign = |start| start >= self.last_answer && start + long <= now;
        if self.sent.disarm(id).is_some_and(is_sign) && !is_new {
            self.given_up = self.given_up.saturating_add(1);
        }
    }

    /// The answer whose first octets are there, if something waits for it. Until they say which it is,
    /// it is taken for that to the oldest query.
    pub(crate) fn arrival(&self, now: Instant) -> Option<Arrival> {
        let (id, received, length) = match self.deframer.partial_len() {
            0 => return None,
            received => self.deframer.begun().or_else(|| {
                let (oldest, _) = self.sent.oldest()?;
                Some((oldest, received, FRAME_LEN_MAX))
            })?,
        };
        let Found::Unanswered(query) = self.in_flight.find(id) else {
            return None;
        };
        let took = now.saturating_duration_since(self.sent.start(id).unwrap_or(self.opened_at));
        let quiet = now.saturating_duration_since(self.last_received);
        Some(Arrival { id, query, pace: Pace::of(took, quiet, received, length) })
    }

    /// When its silence has been longer than that of the names by so much that what waits on it is copied.
    fn silence_shown_at(&self) -> Option<Instant> {
        self.quiet.filter(|quiet| !quiet.is_shown)?;
        self.silence?.answered_elsewhere.map(|at| at + TOGETHER)
    }

    /// When it is known whether the connection is at fault for its silence, and not the names. Until then it may speak
    /// again, and is used again.
    pub(crate) fn silence_known_at(&self) -> Option<Instant> {
        self.silence?.answered_elsewhere.map(|at| at + LAST_WORD_TIMEOUT)
    }

    /// When it is closed for want of queries.
    pub(crate) fn idles_out_at(&self, timeout: Duration) -> Option<Instant> {
        (self.in_flight.unanswered() == 0).then(|| self.idle_since + timeout)
    }

    /// When it needs [`crate::forwarder::Forwarder::handle_timeout`].
    pub(crate) fn next_timeout(&self, patience: Patience) -> Option<Instant> {
        match self.phase {
            Phase::Connecting { until } | Phase::Handshaking { until, .. } => Some(until),
            Phase::Open => {
                let ends = self.stalls_at(patience.stall);
                let ends = ends.or_else(|| self.idles_out_at(patience.idle));
                let next = [ends, self.silence_shown_at(), self.silence_known_at()];
                next.into_iter().flatten().min()
            }
            Phase::Retired { until, stalled: true } => {
                let arriving = self.arriving.map(|_| self.last_received + QUIET_MAX);
                let next = [Some(until), arriving, self.silence_known_at()];
                next.into_iter().flatten().min()
            }
            Phase::Retired { until, stalled: false } => {
                Some(self.stalls_at(patience.stall).map_or(until, |at| at.min(until)))
            }
        }
    }

    /// What is due by now.
    pub(crate) fn due(&self, now: Instant, patience: Patience) -> Option<Due> {
        if self.next_timeout(patience).is_none_or(|at| now < at) {
            return None;
        }
        Some(match self.phase {
            Phase::Connecting { .. } => {
                Due::Attempt(Closed::Failed { stage: Stage::Connect, detail: "timed out".into() })
            }
            Phase::Handshaking { advice, .. } => {
                let detail = format!("timed out{advice}").into();
                Due::Attempt(Closed::Failed { stage: Stage::Tls, detail })
            }
            Phase::Open if self.silence_known_at().is_some_and(|at| at <= now) => Due::Stalled,
            Phase::Open if self.silence_shown_at().is_some_and(|at| at <= now) => Due::Shown,
            Phase::Open if self.stalls_at(patience.stall).is_none() => Due::Idle,
            Phase::Retired { until, .. } if until <= now => Due::End,
            Phase::Open | Phase::Retired { stalled: false, .. } => Due::Stalled,
            Phase::Retired { stalled: true, .. } => match self.silence_known_at() {
                Some(at) if at <= now => Due::Silence,
                _ => Due::Arrival,
            },
        })
    }

    /// What its queries come to says little about it yet.
    fn is_new(&self, now: Instant) -> bool {
        now < self.opened_at + replacements::PAUSE_MIN
    }

    /// Whether another connection is to take its place.
    pub(crate) fn renewal(&self, now: Instant, allowance: Option<Allowance>) -> Renewal {
        let is_worn_out = self.in_flight.is_worn_out() && !self.has_failed_replacement(now);
        if self.is_spent_after(allowance, 1) || is_worn_out {
            Renewal::Needed
        } else if self.wants_replacement(now) {
            Renewal::Wanted
        } else {
            Renewal::No
        }
    }

    pub(crate) fn wants_replacement(&self, now: Instant) -> bool {
        (now >= self.replace_at || self.in_flight.is_worn() || self.given_up >= GIVEN_UP_MAX)
            && !self.is_new(now)
            && self.replacement_failed_at.is_none_or(|at| now >= at + REPLACE_RETRY)
    }

    /// No other could be made beside it, and it is too soon to try again.
    pub(crate) fn has_failed_replacement(&self, now: Instant) -> bool {
        self.replacement_failed_at.is_some_and(|at| now < at + NOTHING_UP_PAUSE)
    }

    /// An answer came with this message ID. Returns for how long it was waited for, if that is known,
    /// whether nothing waited for longer, and how long the server works on each query, if it turns out now
    /// that this is too long, as it works on one at a time.
    pub(crate) fn note_turn(&mut self, now: Instant, id: u16) -> Turn {
        let was_oldest = self.sent.is_oldest(id);
        let sent_at = self.sent.take_answered(id);
        let took = sent_at.map(|sent_at| now.saturating_duration_since(sent_at));
        if self.sent.is_empty() {
            self.look_at = None;
            self.turns.end();
            return Turn { took, was_oldest, each: None };
        }
        let oldest = || self.sent.oldest().map(|(_, start)| start);
        let each = match sent_at.zip(took) {
            Some((sent_at, took)) => self.turns.note(now, sent_at, took, was_oldest, oldest),
            None => self.turns.note_late(now, oldest),
        };
        Turn { took, was_oldest, each }
    }

    /// Whether the connection has carried as many queries as it is to carry.
    pub(crate) fn is_spent(&self, allowance: Option<Allowance>) -> bool {
        self.is_spent_after(allowance, 0)
    }

    fn is_spent_after(&self, allowance: Option<Allowance>, more: u64) -> bool {
        let max = allowance.and_then(|allowance| allowance.queries);
        max.is_some_and(|max| self.queries + more >= max)
    }

    /// Whether as many queries are at the server as may be at a time. Those that were given up are still there.
    pub(crate) fn is_busy(&self, allowance: Option<Allowance>) -> bool {
        let max = allowance.and_then(|allowance| allowance.at_once);
        max.is_some_and(|max| self.in_flight.taken() >= max)
    }

    pub(crate) fn has_room(&self, limits: &Limits) -> bool {
        self.output.len() < limits.upstream_output_max
    }

    /// Octets that it takes, beside its own size, whatever is sent and received on it; without partial
    /// frames and output.
    pub(crate) fn table_octets(limits: &Limits) -> usize {
        let ids_max = ids_max(limits);
        InFlight::octets(ids_max) + Sends::octets(ids_max)
    }

    /// Octets of memory for partial frames and output.
    pub(crate) fn buffer_octets(&self) -> usize {
        self.deframer.capacity() + self.output.capacity()
    }
}

/// For how long nothing may come on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// While it owes answers.
    pub(crate) stall: Duration,
    /// While it owes none.
    pub(crate) idle: Duration,
}

/// What is due of a connection after some time.
#[derive(Debug)]
pub(crate) enum Due {
    /// The attempt ends so.
    Attempt(Closed),
    /// The silence of the connection has been longer than that of the names.
    Shown,
    /// The connection has stalled.
    Stalled,
    /// The connection was idle for too long.
    Idle,
    /// The connection is known to be at fault for its silence.
    Silence,
    /// The answer that was arriving when the connection stalled has ceased to.
    Arrival,
    /// The time of a retired connection is over.
    End,
}

/// What a connection that is open is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// For another query.
    Takes,
    /// For none until the server has read what was sent.
    Full,
    /// For none until something is answered, as the upstream starts slowly: more may be too much for it.
    Starting,
    /// For none until a message ID is free.
    NoIds,
    /// For none until something is answered, as the server works on few queries at a time.
    Busy,
    /// For none until something comes, as that is due for unusually long.
    Quiet,
    /// For none any more.
    Over(Over),
}

/// Why an open connection takes no queries any more, which its timer may not have told yet: a process that was
/// stopped and continues must not send on a stale connection first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The connection was idle for too long.
    Idle,
    /// Nothing was answered on it for too long.
    Stalled,
    /// The connection has carried as many queries as it is to carry, or nobody waits behind what was given up.
    Spent,
}

/// Whether another connection is to take the place of one that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    No,
    /// As soon as that may be done again.
    Wanted,
    /// Soon it can take no more.
    Needed,
}

/// The silence of a connection that answered before it stalled.
///
/// Slow names look the same. It is the connection's fault where what waits on it is answered on the next
/// one, and still not here a moment later, as what was only slow is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    /// Several queries met it.
    pub(crate) of_several: bool,
    /// When the first of them was answered on another connection to the upstream.
    pub(crate) answered_elsewhere: Option<Instant>,
}

/// What an answer says about the order of answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) took: Option<Duration>,
    pub(crate) was_oldest: bool,
    pub(crate) each: Option<Duration>,
}

/// An answer that is arriving.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) id: u16,
    pub(crate) query: Id,
    pub(crate) pace: Pace,
}

/// How an answer arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The answer will be whole in time: a large one on a slow path.
    Steady,
    /// The answer goes on arriving, but will not be whole in time.
    Trickling,
    /// The answer has ceased to arrive.
    Broken,
}

impl Pace {
    /// `received` of `length` octets are there `took` after the query was sent, the last since `quiet`.
    fn of(took: Duration, quiet: Duration, received: usize, length: usize) -> Self {
        if quiet >= QUIET_MAX {
            return Self::Broken;
        }
        let whole = took.as_millis() * length as u128;
        if whole <= WHOLE_TIMEOUT.as_millis() * received as u128 {
            Self::Steady
        } else {
            Self::Trickling
        }
    }
}

/// As many again as may wait: queries that are given up keep their IDs, and those that take their place
/// need new ones.
fn ids_max(limits: &Limits) -> usize {
    (2 * limits.queries_max).min(usize::from(u16::MAX) + 1)
}

/// Given up before they could stall, with no sign of life: the connection may be dead.
const GIVEN_UP_MAX: u8 = 2;

/// Between two octets of an answer that is still arriving: a second, and a round trip.
const QUIET_MAX: Duration = Duration::from_millis(1250);

/// From the answer on another connection to that on this one, if the name was slow: who resolves it for
/// both sends them together.
const TOGETHER: Duration = Duration::from_millis(50);

/// From the answer on another connection to that on this one, if it was lost on the way and is sent again, or the server
/// has paused for a moment.
const LAST_WORD_TIMEOUT: Duration = Duration::from_millis(250);

/// From a query to the last octet of its answer, if that is to be of use.
const WHOLE_TIMEOUT: Duration = RETIRED_TIMEOUT;

/// SYN, and two retransmissions after 1 and 2 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Constrained hosts and loaded servers need seconds for a handshake; giving up sooner throws the
/// work away and begins it again (coredns #2624).
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);

/// No query that was sent on a retired connection outlasts it.
pub(crate) const RETIRED_TIMEOUT: Duration = Duration::from_millis(4500);

/// So that load balancers and new certificates are noticed, while one handshake an hour costs
/// nothing.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// Percent of [`AGE_MAX`] by which connections differ, so that a fleet does not reconnect at once.
const AGE_JITTER: u32 = 10;

/// After a replacement could not be made the old connection serves on for this long.
const REPLACE_RETRY: Duration = Duration::from_secs(60);

const _: () = assert!(STALL_MAX.as_millis() < RETIRED_TIMEOUT.as_millis());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::{base, config};
    use crate::forwarder::upstreams::round_trip::STALL_MIN;

    /// A connection that was opened at that time.
    fn opened(at: Instant) -> UpstreamConn {
        UpstreamConn::new(UpstreamIndex::new(0), at, &config().limits, &mut Random::new(1))
    }

    #[test]
    fn when_a_connection_has_stalled() {
        // When queries are sent, when the last answer came, when a query was given up that was sent, and when
        // the connection stalls, in milliseconds.
        type Case<'a> = (&'a [u64], u64, Option<u64>, Option<u64>);

        let base = base();
        let at = |ms| base + Duration::from_millis(ms);
        let cases: [Case<'_>; 7] = [
            (&[], 0, None, None),
            (&[100], 0, None, Some(1600)),
            // Later queries do not put it off, ...
            (&[100, 900, 1500], 0, None, Some(1600)),
            // ... but answers do, ...
            (&[100, 900], 1000, None, Some(2500)),
            // ... and not that the oldest was given up.
            (&[900, 1500], 0, Some(100), Some(1600)),
            (&[900], 500, Some(100), Some(2000)),
            (&[], 0, Some(100), None),
        ];
        for (sends, answered, given_up, expected) in cases {
            let mut conn = opened(base);
            for (id, &sent) in (0..).zip(sends) {
                conn.note_sent(at(sent), id, Duration::ZERO);
            }
            conn.last_answer = at(answered);
            conn.unanswered_since = given_up.map(at);
            assert_eq!(
                conn.stalls_at(STALL_MIN),
                expected.map(at),
                "{sends:?} {answered} {given_up:?}"
            );
        }
    }

    #[test]
    fn when_a_connection_is_replaced() {
        // The age of a connection in seconds, queries so far, what it carries, how many were given up, how long
        // ago another could not be made, and whether it is replaced.
        type Case = (u64, u64, Option<u64>, u8, Option<u64>, Renewal);

        let base = base();
        let carries = |queries| Some(Allowance { queries: Some(queries), at_once: None });
        let hour = 3_600;
        let cases: [Case; 11] = [
            (0, 0, None, 0, None, Renewal::No),
            (60, 100, None, 0, None, Renewal::No),
            (24 * hour, 100, None, 0, None, Renewal::Wanted),
            // The next query is the last.
            (60, 8, Some(10), 0, None, Renewal::No),
            (60, 9, Some(10), 0, None, Renewal::Needed),
            (0, 9, Some(10), 0, None, Renewal::Needed),
            // What is given up may be the connection's fault, but not at once.
            (60, 9, None, 1, None, Renewal::No),
            (60, 9, None, 2, None, Renewal::Wanted),
            (1, 9, None, 2, None, Renewal::No),
            // It is not tried all the time.
            (24 * hour, 9, None, 2, Some(59), Renewal::No),
            (24 * hour, 9, None, 2, Some(60), Renewal::Wanted),
        ];
        for case in cases {
            let (age, queries, most, given_up, failed, expected) = case;
            let mut conn = opened(base);
            (conn.queries, conn.given_up) = (queries, given_up);
            let now = base + Duration::from_secs(age);
            let failed_at = |ago| base + Duration::from_secs(age.saturating_sub(ago));
            conn.replacement_failed_at = failed.map(failed_at);
            assert_eq!(conn.renewal(now, most.and_then(carries)), expected, "{case:?}");
        }
    }

    #[test]
    fn a_steady_answer_is_told_from_one_that_trickles_and_from_one_that_broke_off() {
        let of = |took, quiet, received, length| {
            let [took, quiet] = [took, quiet].map(Duration::from_millis);
            Pace::of(took, quiet, received, length)
        };
        let cases = [
            // 64 KB at 20, 15 and 14 KB/s.
            (1500, 20, 30_000, 64_000, Pace::Steady),
            (1500, 20, 22_500, 64_000, Pace::Steady),
            (1500, 20, 21_000, 64_000, Pace::Trickling),
            // An octet in 0.7 s, of a large one and of the shortest; one in a second.
            (1500, 100, 4, 60_000, Pace::Trickling),
            (1500, 100, 4, 30, Pace::Trickling),
            (1500, 1000, 3, 60_000, Pace::Trickling),
            // The path died behind its first segment, or but one.
            (1500, 1450, 1_400, 60_000, Pace::Broken),
            (1500, 1300, 58_000, 60_000, Pace::Broken),
        ];
        for (took, quiet, received, length, expected) in cases {
            let pace = of(took, quiet, received, length);
            assert_eq!(pace, expected, "{received} of {length} octets in {took} ms");
        }
    }
}
