//! One resolver that is asked.

use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

use super::experience::Experience;
use crate::forwarder::action::{
    Stage, UPSTREAMS_MAX, UpstreamConnId, UpstreamIdentity, UpstreamIndex,
};
use crate::forwarder::collections::arena::Id;

/// An upstream: its health, and its connections.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) name: Box<str>,
    /// Upstreams with the same number are one operator's.
    pub(crate) operator: u8,
    pub(crate) health: Health,
    /// All its connections, those being closed excepted.
    pub(crate) conns: Vec<UpstreamConnId>,
    /// The attempts under way: one at a time, unless connections carry few queries each; they outlive
    /// the queries that caused them.
    pub(crate) attempts: Vec<UpstreamConnId>,
    /// The connection that takes new queries.
    pub(crate) open: Option<UpstreamConnId>,
    /// When the last attempt began.
    pub(crate) attempted_at: Option<Instant>,
    /// The connection to another upstream of its operator that was there first, when it was slow to connect.
    pub(crate) passed_over_for: Option<UpstreamConnId>,
    /// The log said that it answers one query of a connection at a time.
    pub(crate) logged_in_turn: bool,
    /// When the log last said that it failed.
    pub(crate) logged_at: Option<Instant>,
    /// How its last connection broke that did so.
    broke: Option<Box<str>>,
    /// The number of that reason: another one has another number.
    pub(crate) broke_number: u32,
    pub(crate) experience: Experience,
    /// Queries ever sent to it.
    pub(crate) sends: u64,
    /// Attempts that ever failed, by phase.
    pub(crate) failures: [u64; Stage::ALL.len()],
}

#[derive(Debug)]
pub(crate) enum Health {
    Failed(Outage),
    Usable,
}

/// What an attempt at an upstream does for queries that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// None can be made now.
    No,
    /// One is to be made.
    Wanted,
    /// One may be made at this time.
    NotBefore(Instant),
    /// One is under way. It takes longer than connecting does on an ordinary day from when it is slow, and
    /// the other upstreams are asked, too, when patience ends, if there is any.
    UnderWay { is_slow_at: Instant, patience_ends_at: Option<Instant> },
}

/// Since when and why an upstream is not usable.
#[derive(Debug)]
pub(crate) struct Outage {
    pub(crate) since: Instant,
    /// The log has a line that names it.
    pub(crate) logged: bool,
    /// Failed attempts in a row.
    pub(crate) attempts: u64,
    /// It has failed for longer than a restart takes.
    pub(crate) is_long: bool,
    /// The log has a line about a cause that does not go away by itself.
    pub(crate) logged_lasting: bool,
    pub(crate) stage: Stage,
    pub(crate) detail: Box<str>,
    pub(crate) answered_by: AnsweredBy,
    pub(crate) retry_at: Instant,
    pub(crate) proof: Proof,
    /// The copy of a query that it must answer.
    pub(crate) trial: Option<Id>,
}

/// Who answered the last attempt, if anybody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnsweredBy {
    /// As far as that is known, the upstream.
    Upstream,
    /// Somebody else.
    Impostor,
}

/// What shows that an upstream that failed works again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proof {
    /// The least; each of the others takes what those before it take, too.
    Handshake,
    /// It failed with its handshake done, so that it must answer a query, too.
    Answer,
    /// It failed as it answered too few in time: so many more in a row.
    Answers { missing: u8 },
}

impl Proof {
    /// Whether it takes an answer to the copy of a query.
    pub(crate) fn wants_trial(self) -> bool {
        self != Self::Handshake
    }

    /// Whether the upstream answers, but too few in time.
    pub(crate) fn is_poor(self) -> bool {
        matches!(self, Self::Answers { .. })
    }
}

/// Every upstream, by index. One that is asked no more stays until nothing is known by its index, which another
/// may have then.
#[derive(Debug)]
pub(crate) struct UpstreamList {
    places: Vec<Upstream>,
    asked: Asked,
}

/// The upstreams that are asked, in order of preference.
#[derive(Clone, Copy, Debug)]
struct Asked {
    list: [UpstreamIndex; UPSTREAMS_MAX],
    len: usize,
}

impl Asked {
    fn of(upstreams: impl Iterator<Item = UpstreamIndex>) -> Self {
        let mut asked = Self { list: [UpstreamIndex::new(0); UPSTREAMS_MAX], len: 0 };
        for (place, index) in asked.list.iter_mut().zip(upstreams) {
            *place = index;
            asked.len += 1;
        }
        asked
    }

    fn list(&self) -> &[UpstreamIndex] {
        &self.list[..self.len]
    }
}

impl UpstreamList {
    pub(crate) fn new(upstreams: Vec<UpstreamIdentity>) -> Self {
        let places: Vec<_> = upstreams.into_iter().map(Upstream::new).collect();
        Self { asked: Asked::of((0..places.len()).map(UpstreamIndex::new)), places }
    }

    /// How many are asked.
    pub(crate) fn len(&self) -> usize {
        self.asked.len
    }

    pub(crate) fn is_asked(&self, index: UpstreamIndex) -> bool {
        self.asked.list().contains(&index)
    }

    /// Those that are asked, in order of preference.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = UpstreamIndex> + use<> {
        let Asked { list, len } = self.asked;
        list.into_iter().take(len)
    }

    /// All indexes, those included that are asked no more.
    pub(crate) fn places(&self) -> impl Iterator<Item = UpstreamIndex> + use<> {
        (0..self.places.len()).map(UpstreamIndex::new)
    }

    /// Those that are asked, in order of preference.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Upstream> + Clone {
        self.asked.list().iter().map(|index| &self.places[index.index()])
    }

    /// Every upstream, those included that are asked no more.
    pub(crate) fn every(&self) -> std::slice::Iter<'_, Upstream> {
        self.places.iter()
    }

    pub(crate) fn every_mut(&mut self) -> std::slice::IterMut<'_, Upstream> {
        self.places.iter_mut()
    }

    /// The upstreams that are asked but `index`, those behind it first.
    pub(crate) fn others(
        &self,
        index: UpstreamIndex,
    ) -> impl Iterator<Item = (UpstreamIndex, &Upstream)> {
        let asked = self.asked.list();
        let at = asked.iter().position(|other| *other == index);
        let (before, rest) = asked.split_at(at.unwrap_or(asked.len()));
        let behind = rest.get(1..).unwrap_or_default();
        behind.iter().chain(before).map(|other| (*other, &self.places[other.index()]))
    }

    /// These are asked from now on, in this order.
    pub(crate) fn ask(&mut self, upstreams: impl Iterator<Item = UpstreamIndex>) {
        self.asked = Asked::of(upstreams);
    }

    /// An upstream of which nothing is known takes this place. The connections of the one that was there are its
    /// own.
    pub(crate) fn put(&mut self, index: UpstreamIndex, identity: UpstreamIdentity) {
        let upstream = Upstream::new(identity);
        let Some(place) = self.places.get_mut(index.index()) else {
            debug_assert_eq!(self.places.len(), index.index(), "no place is left out");
            return self.places.push(upstream);
        };
        let conns = std::mem::take(&mut place.conns);
        *place = Upstream { conns, ..upstream };
    }
}

impl Index<UpstreamIndex> for UpstreamList {
    type Output = Upstream;

    fn index(&self, upstream: UpstreamIndex) -> &Upstream {
        &self.places[upstream.index()]
    }
}

impl IndexMut<UpstreamIndex> for UpstreamList {
    fn index_mut(&mut self, upstream: UpstreamIndex) -> &mut Upstream {
        &mut self.places[upstream.index()]
    }
}

impl Upstream {
    fn new(identity: UpstreamIdentity) -> Self {
        Self {
            name: identity.shown,
            operator: identity.operator,
            health: Health::Usable,
            conns: Vec::new(),
            attempts: Vec::new(),
            open: None,
            attempted_at: None,
            passed_over_for: None,
            logged_in_turn: false,
            logged_at: None,
            broke: None,
            broke_number: 0,
            experience: Experience::new(),
            sends: 0,
            failures: [0; Stage::ALL.len()],
        }
    }

    pub(crate) fn is_usable(&self) -> bool {
        matches!(self.health, Health::Usable)
    }

    pub(crate) fn outage(&self) -> Option<&Outage> {
        match &self.health {
            Health::Failed(outage) => Some(outage),
            Health::Usable => None,
        }
    }

    /// A connection broke for this reason.
    pub(crate) fn note_broke(&mut self, detail: Box<str>) {
        if self.broke.as_ref() != Some(&detail) {
            self.broke = Some(detail);
            self.broke_number = self.broke_number.wrapping_add(1);
        }
    }

    /// What went wrong with a connection, with the reason of this number if it broke, and if that is still
    /// known.
    pub(crate) fn explain(&self, what: &'static str, broke_number: u32) -> String {
        match &self.broke {
            Some(detail)
                if matches!(what, BROKE_READING | BROKE_SENDING)
                    && broke_number == self.broke_number =>
            {
                format!("{what}: {detail}")
            }
            _ => what.to_owned(),
        }
    }

    pub(crate) fn outage_mut(&mut self) -> Option<&mut Outage> {
        match &mut self.health {
            Health::Failed(outage) => Some(outage),
            Health::Usable => None,
        }
    }

    /// When the other upstreams are asked too, for want of an open connection here.
    pub(crate) fn patience_ends_at(&self) -> Option<Instant> {
        self.attempts.first()?;
        // Queries have waited for it long enough already.
        let patience = if self.experience.stalled_since_answer { ATTEMPT_SLOW } else { PATIENCE };
        self.attempted_at.map(|at| at + patience)
    }

    /// What an attempt would do for queries that wait, where another `is_wanted` or not.
    pub(crate) fn attempt(&self, now: Instant, is_wanted: impl FnOnce() -> bool) -> Attempt {
        let under_way = self.attempts.first().and(self.attempted_at);
        if let Some(outage) = self.outage() {
            let retry_at = self.retry_with_nothing_up_at(outage);
            return match under_way {
                None if now < retry_at => Attempt::NotBefore(retry_at),
                None if is_wanted() => Attempt::Wanted,
                Some(_) | None => Attempt::No,
            };
        }
        if is_wanted() {
            return Attempt::Wanted;
        }
        let Some(since) = under_way else {
            return Attempt::No;
        };
        // What it cannot answer in time another one can.
        let overflows = self.experience.at_once.max(now).is_some();
        Attempt::UnderWay {
            is_slow_at: since + self.experience.round_trip.connect_slow_after(),
            patience_ends_at: self.patience_ends_at().filter(|_| !overflows),
        }
    }

    /// When a failed upstream may be tried again although nothing is usable: sooner than with its
    /// whole backoff, so that no client waits for long once it returns, but not after what another
    /// second does not mend.
    pub(crate) fn retry_with_nothing_up_at(&self, outage: &Outage) -> Instant {
        match (outage.attempts, self.attempted_at) {
            _ if outage.stage.is_lasting() => outage.retry_at,
            // It answers some at least.
            (_, Some(attempted_at)) if outage.proof.is_poor() => attempted_at + NOTHING_UP_PAUSE,
            (0 | 1, _) | (_, None) => outage.retry_at,
            (_, Some(attempted_at)) => attempted_at + NOTHING_UP_PAUSE,
        }
    }

    /// If it failed, it may be tried again at once.
    pub(crate) fn end_backoff(&mut self, now: Instant) {
        if let Some(outage) = self.outage_mut() {
            outage.retry_at = now;
        }
    }

    /// What was learned of the server or of the way to it may hold no longer.
    pub(crate) fn forget_experience(&mut self) {
        self.broke = None;
        self.experience.forget();
    }

    pub(crate) fn forget(&mut self, conn: UpstreamConnId) {
        self.conns.retain(|other| *other != conn);
        self.attempts.retain(|other| *other != conn);
        self.open.take_if(|open| *open == conn);
    }
}

pub(crate) const BROKE_READING: &str = "connection broke before answering";
pub(crate) const BROKE_SENDING: &str = "connection broke while sending";

/// How long queries wait for one upstream's connection before the next is asked as well.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1500);

/// A few round trips halfway around the world (RFC 8305 section 5).
pub(crate) const ATTEMPT_SLOW: Duration = Duration::from_millis(250);

/// Between attempts while every upstream is down.
pub(crate) const NOTHING_UP_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    fn upstream() -> Upstream {
        Upstream::new(UpstreamIdentity { shown: "192.0.2.1".into(), operator: 0 })
    }

    #[test]
    fn with_nothing_up_it_is_tried_sooner_but_not_at_once() {
        let base = base();
        let at = |ms| base + Duration::from_millis(ms);
        // Why it failed, how often, when it was tried last and is to be tried again, and when it is with
        // nothing up.
        let cases = [
            (Stage::Connect, Proof::Handshake, 1, Some(0), 250, 250),
            (Stage::Connect, Proof::Handshake, 5, Some(0), 4000, 1000),
            (Stage::Connect, Proof::Handshake, 5, None, 4000, 4000),
            (Stage::Read, Proof::Answer, 5, Some(0), 4000, 1000),
            // Another second does not mend a certificate.
            (Stage::Certificate, Proof::Handshake, 9, Some(0), 60_000, 60_000),
            // It answers some, at least.
            (Stage::Read, Proof::Answers { missing: 3 }, 1, Some(0), 30_000, 1000),
        ];
        for case in cases {
            let (stage, proof, attempts, attempted_at, retry_at, expected) = case;
            let mut upstream = upstream();
            upstream.attempted_at = attempted_at.map(at);
            let outage = Outage {
                since: base,
                logged: false,
                attempts,
                is_long: false,
                logged_lasting: false,
                stage,
                detail: "".into(),
                answered_by: AnsweredBy::Upstream,
                retry_at: at(retry_at),
                proof,
                trial: None,
            };
            assert_eq!(upstream.retry_with_nothing_up_at(&outage), at(expected), "{case:?}");
        }
    }
}
