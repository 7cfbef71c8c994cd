//! Whether a connection is quiet: answers are due on it, and unusually long nothing came.
//!
//! One connection has one retransmission timer. A segment that is lost twice holds up every answer behind it for
//! 200 ms and more, and a connection that was silently forgotten holds up all it is given. What is sent meanwhile
//! need not share that.

use std::time::{Duration, Instant};

use super::connection::{Phase, Silence, UpstreamConn};
use super::upstream::Upstream;
use super::{Place, Upstreams};
use crate::forwarder::action::{Action, UpstreamConnId, UpstreamIndex};
use crate::forwarder::collections::arena::Id;
use crate::forwarder::outbox::Outbox;

impl Upstreams {
    fn tolerated(&self, conn: &UpstreamConn) -> Tolerated {
        self.list[conn.upstream].experience.round_trip.tolerated()
    }

    /// Has the shell look at a connection that owes answers for unusually long. True if the connection is known to be
    /// quiet, and more of what waits on it may be copied.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        outbox: &mut Outbox,
    ) -> bool {
        let is_due = |conn: &UpstreamConn| conn.look_at.is_some_and(|at| at <= now);
        let Some(conn) = self.conns.get_mut(conn_id).filter(|conn| is_due(conn)) else {
            return false;
        };
        let tolerated = self.list[conn.upstream].experience.round_trip.tolerated();
        conn.look_at = conn.next_look(tolerated);
        if !is_due(conn) {
            return false;
        }
        conn.looked_at = Some(now);
        conn.look_at = conn.next_look(tolerated);
        match &mut conn.quiet {
            // The name that was tried may be slow.
            Some(quiet) => quiet.is_tried = false,
            None => outbox.push(Action::InspectPath(conn_id)),
        }
        conn.quiet.is_some()
    }

    /// The connection waits for segments that were lost, or not. True if it is quiet, and was not: new queries go
    /// another way.
    pub(crate) fn note_path(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        is_losing: bool,
    ) -> bool {
        let tolerated = self.conns.get(conn_id).map(|conn| self.tolerated(conn));
        let Some((conn, tolerated)) = self.conns.get_mut(conn_id).zip(tolerated) else {
            return false;
        };
        let is_possible = match conn.phase {
            // One that never answered has no habit: it stalls.
            Phase::Open => is_losing || conn.answers > 0,
            Phase::Retired { stalled: false, .. } => is_losing,
            _ => false,
        };
        let is_quiet = |owed: Owed| owed.is_quiet(now, tolerated, is_losing);
        if conn.quiet.is_some() || !is_possible || !conn.owed().is_some_and(is_quiet) {
            return false;
        }
        let next = conn.sent.oldest().map(|(id, _)| id);
        conn.quiet = Some(Quiet { is_losing, is_tried: false, is_shown: false, next });
        self.list[conn.upstream].experience.has_been_quiet = true;
        if !is_losing && conn.arrival(now).is_none() {
            conn.silence = Some(Silence { of_several: false, answered_elsewhere: None });
        }
        if is_losing {
            self.list[conn.upstream].experience.lossy_at = Some(now);
        }
        true
    }

    /// A query that waits on this quiet connection, each once, the oldest first, as far as the budget of copies goes;
    /// and the upstream. Copies go to the same upstream, whatever `--hedge` says of others.
    pub(crate) fn pop_held_up(&mut self, conn_id: UpstreamConnId) -> Option<(UpstreamIndex, Id)> {
        let conn = self.conns.get_mut(conn_id)?;
        let quiet = conn.quiet.as_mut()?;
        // One copy tells whether the connection is at fault, or the names are slow. More would share a connection
        // with it: a server that answers the first few of each would leave them without an answer, too.
        let may_be_copied = match *quiet {
            Quiet { is_losing: true, .. } => self.rescues.allows_one(),
            Quiet { is_shown: true, .. } => true,
            Quiet { is_tried, .. } => !is_tried && self.hedges.allows_one(),
        };
        let id = quiet.next.filter(|_| may_be_copied)?;
        quiet.next = conn.sent.younger(id);
        Some((conn.upstream, conn.in_flight.query(id)?))
    }

    /// Whether what waits on this connection may be sent on another one to the same upstream: a copy for which there
    /// is none would come back to the connection that it is in flight on.
    pub(crate) fn has_way_round(&self, now: Instant, conn_id: UpstreamConnId) -> bool {
        self.conns.get(conn_id).is_some_and(|conn| {
            let upstream = &self.list[conn.upstream];
            let mut others = upstream.conns.iter().filter(|other| **other != conn_id);
            let may_connect = || {
                self.wants_attempt(now, conn.upstream, 1)
                    && !matches!(self.place_for_attempt(conn.upstream), Place::Nowhere)
            };
            !upstream.attempts.is_empty()
                || others.any(|other| self.takes_more(now, *other))
                || may_connect()
        })
    }

    /// A copy of what waits on this connection is answered, and the connection is quiet all the same: what else waits on
    /// it is copied, too.
    pub(crate) fn note_shown(&mut self, conn_id: UpstreamConnId) {
        if let Some(quiet) = self.conns.get_mut(conn_id).and_then(|conn| conn.quiet.as_mut()) {
            quiet.is_shown = true;
        }
    }

    /// Takes one of the copies that may be made of what waits on this quiet connection, and counts it, unless it is known
    /// that the connection is at fault.
    pub(crate) fn try_rescue(&mut self, conn_id: UpstreamConnId, outbox: &mut Outbox) -> bool {
        let quiet = self.conns.get_mut(conn_id).and_then(|conn| conn.quiet.as_mut());
        let budget = match quiet {
            Some(Quiet { is_losing: true, .. }) => &mut self.rescues,
            Some(Quiet { is_shown: true, .. }) => return true,
            Some(Quiet { is_tried, .. }) => {
                *is_tried = true;
                &mut self.hedges
            }
            None => return false,
        };
        let is_taken = budget.try_take();
        outbox.counts.rescued += u64::from(is_taken);
        is_taken
    }

    /// Whether another connection is to stand ready and does not, and one may be made for that.
    pub(crate) fn lacks_spare(&self, now: Instant, upstream: &Upstream) -> bool {
        upstream.experience.wants_spare(now)
            && upstream.experience.replacements.allow_one(now)
            && self.conns_of_use(upstream) < 2
    }

    /// Connections of an upstream that are of use, those that are being made included.
    pub(crate) fn conns_of_use(&self, upstream: &Upstream) -> usize {
        let is_of_use = |conn: &&UpstreamConnId| match self.conns.get(**conn) {
            Some(conn) => !matches!(conn.phase, Phase::Retired { .. }),
            None => false,
        };
        upstream.conns.iter().filter(is_of_use).count()
    }
}

/// A connection that owes answers and on which unusually long nothing came. It gets no new queries until something
/// does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quiet {
    /// TCP waits for segments that were lost.
    pub(crate) is_losing: bool,
    /// One of its queries was copied since it was looked at.
    pub(crate) is_tried: bool,
    /// A copy was answered elsewhere, and nothing came here all the same.
    pub(crate) is_shown: bool,
    /// The oldest that was not looked at for being copied: late queries have a mark of their own, as they are copied
    /// for another reason, and to others.
    pub(crate) next: Option<u16>,
}

/// What waits on a connection, and since when nothing came. A query does not count that was sent before one that
/// is answered: its name is slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owed {
    /// When the oldest query without an answer was sent.
    pub(crate) oldest: Instant,
    /// When the third oldest was, if so many wait.
    pub(crate) third: Option<Instant>,
    /// Many wait, and were not asked for at once.
    pub(crate) many: bool,
    /// When the last octet came.
    pub(crate) last_received: Instant,
}

/// How long nothing comes before that says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tolerated {
    /// Since the third of several queries was sent, where TCP waits for segments: the shortest of these.
    pub(crate) unusual: Duration,
    /// Since something came, likewise.
    hush: Duration,
    /// With one answer due, likewise.
    pub(crate) long: Duration,
    /// With several answers due, although TCP has all that was sent.
    too_long: Duration,
    /// With many answers due, although TCP has all that was sent.
    too_long_for_many: Duration,
}

impl Tolerated {
    /// Where an answer takes so long as a rule, and a round trip of TCP.
    pub(crate) fn of(usual: Duration, round_trip: Duration) -> Self {
        let round_trip = round_trip.min(usual);
        Self {
            unusual: UNUSUAL_MIN.max(usual + usual / 2),
            hush: HUSH_MIN.max(round_trip + round_trip / 2),
            long: LONG_MIN.max(3 * usual),
            too_long: TOO_LONG_MIN.max(3 * usual),
            too_long_for_many: TOO_LONG_FOR_MANY_MIN.max(3 * usual),
        }
    }
}

impl Owed {
    /// When TCP is to be asked next, after it was `looked_at`: less often the longer the silence is, and when it is too
    /// long.
    pub(crate) fn next_look(&self, tolerated: Tolerated, looked_at: Option<Instant>) -> Instant {
        let first = self.look_at(tolerated);
        let since = self.oldest.max(self.last_received);
        let again = |at: Instant| at + tolerated.unusual.max((at - since) / 2);
        let Some(looked_at) = looked_at.filter(|at| *at >= since) else {
            return first;
        };
        let next = first.max(again(looked_at));
        let too_long = self.too_long_at(tolerated).filter(|at| looked_at < *at);
        too_long.map_or(next, |at| at.min(next))
    }

    /// When TCP is to be asked whether it waits for segments. Names may be slow: that many are at the same time,
    /// and nothing else is answered meanwhile, is rare.
    fn look_at(&self, tolerated: Tolerated) -> Instant {
        let any = self.oldest.max(self.last_received) + tolerated.long;
        let several = |third| {
            let hush = self.last_received + tolerated.hush;
            any.min(hush.max(third + tolerated.unusual))
        };
        self.third.map_or(any, several)
    }

    /// Whether the connection is quiet, where TCP waits for segments or not.
    pub(crate) fn is_quiet(&self, now: Instant, tolerated: Tolerated, is_losing: bool) -> bool {
        if is_losing {
            return self.look_at(tolerated) <= now;
        }
        self.too_long_at(tolerated).is_some_and(|at| at <= now)
    }

    /// Whether nothing came for so long that it is no pause of the server's.
    pub(crate) fn is_silent_for_long(&self, now: Instant) -> bool {
        self.oldest.max(self.last_received) + TOO_LONG_MIN <= now
    }

    /// From when on it is quiet although TCP has all that was sent. The names of a page are asked for at once, and may
    /// all be slow; what goes on being asked for has names of all kinds.
    fn too_long_at(&self, tolerated: Tolerated) -> Option<Instant> {
        let third = self.third?;
        Some(if self.many {
            self.oldest.max(self.last_received) + tolerated.too_long_for_many
        } else {
            third.max(self.last_received) + tolerated.too_long
        })
    }
}

/// Connections to an upstream at a time, where others are quiet.
pub(crate) const QUIET_CONNS_MAX: usize = 4;

/// Paths that lose segments do so for a while, as long as a shower or a video call.
pub(crate) const SPARE_FOR: Duration = Duration::from_secs(300);

/// Some servers answer from memory within a millisecond, and ask others for what is not there.
const UNUSUAL_MIN: Duration = Duration::from_millis(30);

/// A segment that is lost once is there again a round trip after the next has come.
const HUSH_MIN: Duration = Duration::from_millis(10);

/// The shortest time after which TCP sends again what nothing followed (Linux: `TCP_RTO_MIN`, 200 ms), and a
/// round trip.
const LONG_MIN: Duration = Duration::from_millis(250);

/// Three names at a time that a resolver has to ask far away for.
const TOO_LONG_MIN: Duration = Duration::from_millis(750);

/// So that who waits for the first of them is answered within 400 ms, and a handshake.
const TOO_LONG_FOR_MANY_MIN: Duration = Duration::from_millis(350);

/// So many names say more than one does, which may be slow: the third of them counts.
pub(crate) const SEVERAL: usize = 3;

/// So many say more than those, if they were not asked for at once.
pub(crate) const MANY: usize = 6;

/// Who asks for the names of a page has done so by then.
pub(crate) const SPREAD: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    #[test]
    fn when_a_connection_is_quiet() {
        // The usual time to an answer, with a round trip of half of it, when the oldest and the third oldest were sent,
        // whether there are many, when the last octet came, when TCP is asked, and from when on the connection is quiet
        // if it waits for segments, and if it does not, in milliseconds.
        type Case = (u64, u64, Option<u64>, bool, u64, u64, Option<u64>);

        let t0 = base();
        let at = |ms| t0 + Duration::from_millis(ms);
        let cases: [Case; 13] = [
            // One query: its name may be slow.
            (20, 100, None, false, 0, 350, None),
            (20, 100, None, false, 200, 450, None),
            (600, 100, None, false, 0, 1900, None),
            // Several: from when the third was sent, and something came.
            (20, 100, Some(110), false, 0, 140, Some(860)),
            (20, 100, Some(110), false, 120, 140, Some(870)),
            (20, 100, Some(110), false, 150, 165, Some(900)),
            // Two that wait for long, and one that does not.
            (20, 100, Some(600), false, 0, 350, Some(1350)),
            // Many: from when the first was sent, and something came.
            (20, 100, Some(110), true, 0, 140, Some(450)),
            (20, 100, Some(110), true, 150, 165, Some(500)),
            (600, 100, Some(110), true, 0, 1010, Some(1900)),
            // The usual time is more than the least.
            (100, 100, Some(100), false, 0, 250, Some(850)),
            (600, 100, Some(100), false, 0, 1000, Some(1900)),
            (1500, 100, Some(100), false, 0, 2350, Some(4600)),
        ];
        for case in cases {
            let (usual, oldest, third, many, last_received, look_at, too_long_at) = case;
            let usual = Duration::from_millis(usual);
            let tolerated = Tolerated::of(usual, usual / 2);
            let (oldest, third, last_received) = (at(oldest), third.map(at), at(last_received));
            let owed = Owed { oldest, third, many, last_received };
            assert_eq!(owed.look_at(tolerated), at(look_at), "{case:?}");
            let is_quiet = |ms, is_losing| owed.is_quiet(at(ms), tolerated, is_losing);
            assert!(is_quiet(look_at, true) && !is_quiet(look_at - 1, true), "{case:?}");
            match too_long_at {
                Some(ms) => assert!(is_quiet(ms, false) && !is_quiet(ms - 1, false), "{case:?}"),
                None => assert!(!is_quiet(60_000, false), "{case:?}"),
            }
        }
    }
}
