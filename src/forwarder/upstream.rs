//! One resolver that is asked, and one connection to it.

use std::time::{Duration, Instant};

use super::arena::Id;
use super::frame::Deframer;
use super::in_flight::InFlight;
use super::output::StreamOutput;
use super::timeouts::Timeouts;
use super::{ConnId, Random, Stage};

/// An upstream: its health, and its connections.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) name: Box<str>,
    pub(super) health: Health,
    /// All its connections, those being closed excepted.
    pub(super) conns: Vec<ConnId>,
    /// The attempt under way: one at a time, and it outlives the queries that caused it.
    pub(super) attempt: Option<ConnId>,
    /// The connection that takes new queries.
    pub(super) open: Option<ConnId>,
    /// When the last attempt began.
    pub(super) attempted_at: Option<Instant>,
    /// When the log last said that it failed.
    pub(super) told_at: Option<Instant>,
    /// The pause after the next failure.
    backoff: Duration,
    /// The last connection closed with queries waiting.
    closed_lossy: bool,
    /// Queries found to bring connections down since the last answer.
    pub(super) blames: u8,
    /// Queries in flight allowed, after two connections in a row that closed with queries waiting.
    pub(super) window: Option<usize>,
}

#[derive(Debug)]
pub(super) enum Health {
    Failed(Outage),
    Usable,
}

/// Since when and why an upstream is not usable.
#[derive(Debug)]
pub(super) struct Outage {
    pub(super) since: Instant,
    /// The log has a line about it.
    pub(super) told: bool,
    /// Failed attempts in a row.
    pub(super) attempts: u64,
    pub(super) stage: Stage,
    pub(super) detail: Box<str>,
    pub(super) retry_at: Instant,
    /// It failed with its handshake done: a handshake alone does not prove that it answers.
    pub(super) must_answer: bool,
    /// The copy of a query that it must answer.
    pub(super) trial: Option<Id>,
}

/// A connection to an upstream.
#[derive(Debug)]
pub(super) struct UpstreamConn {
    pub(super) upstream: usize,
    pub(super) phase: Phase,
    pub(super) in_flight: InFlight,
    /// By message ID: sends that arm the stall deadline.
    pub(super) sent: Timeouts,
    pub(super) deframer: Deframer,
    pub(super) output: StreamOutput,
    /// [`super::Action::Transmit`] is queued.
    pub(super) transmitting: bool,
    pub(super) last_received: Instant,
    /// The oldest send whose query was given up and after which nothing was received.
    unanswered_since: Option<Instant>,
    /// When the last query in flight left.
    pub(super) idle_since: Instant,
    /// Its age asks for a replacement from here on.
    pub(super) replace_at: Instant,
    /// When a replacement could not be made.
    pub(super) replacement_failed_at: Option<Instant>,
    /// When its handshake was done.
    pub(super) opened_at: Instant,
    /// Matching answers so far. While there are none, its failure is the
    /// upstream's.
    pub(super) answers: u64,
    /// Unmatched responses since the last matching one.
    pub(super) unmatched: u8,
}

#[derive(Debug)]
pub(super) enum Phase {
    Connecting {
        established: bool,
        deadline: Instant,
    },
    Open,
    /// Takes no new queries; closed when none waits on it any more, or then. Once stalled, what
    /// waits on it has been sent elsewhere too.
    Retired {
        until: Instant,
        stalled: bool,
    },
}

impl Upstream {
    pub(super) fn new(name: Box<str>) -> Self {
        Self {
            name,
            health: Health::Usable,
            conns: Vec::new(),
            attempt: None,
            open: None,
            attempted_at: None,
            told_at: None,
            closed_lossy: false,
            blames: 0,
            backoff: BACKOFF_MIN,
            window: None,
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        matches!(self.health, Health::Usable)
    }

    pub(super) fn outage(&self) -> Option<&Outage> {
        match &self.health {
            Health::Failed(outage) => Some(outage),
            Health::Usable => None,
        }
    }

    pub(super) fn outage_mut(&mut self) -> Option<&mut Outage> {
        match &mut self.health {
            Health::Failed(outage) => Some(outage),
            Health::Usable => None,
        }
    }

    /// When the other upstreams are asked too, for want of an open connection here.
    pub(super) fn patience_ends_at(&self) -> Option<Instant> {
        self.attempt?;
        self.attempted_at.map(|at| at + PATIENCE)
    }

    /// When a failed upstream may be tried again although nothing is usable: sooner than with its
    /// whole backoff, so that no client waits for long once it returns, but not after what another
    /// second does not mend.
    pub(super) fn retry_with_nothing_up_at(&self, outage: &Outage) -> Instant {
        match (outage.attempts, self.attempted_at) {
            _ if outage.stage.is_lasting() => outage.retry_at,
            (0 | 1, _) | (_, None) => outage.retry_at,
            (_, Some(attempted_at)) => attempted_at + NOTHING_UP_PAUSE,
        }
    }

    /// The pause before the next attempt, longer each time.
    pub(super) fn next_backoff(&mut self, stage: Stage, random: &mut Random) -> Duration {
        let max = if stage.is_lasting() { BACKOFF_LASTING_MAX } else { BACKOFF_MAX };
        let pause = self.backoff.min(max);
        self.backoff = (pause * 2).min(max);
        random.jitter(pause, BACKOFF_JITTER)
    }

    /// It answered a query: what went wrong before is forgotten.
    pub(super) fn note_answer(&mut self, window_max: usize) {
        self.backoff = BACKOFF_MIN;
        self.blames = 0;
        self.window = self
            .window
            .map(|window| window.saturating_mul(2))
            .filter(|window| *window < window_max);
    }

    /// A connection closed after this many answers, with queries waiting on it or without.
    ///
    /// After two in a row that did with queries waiting, the next carries no more at a time than the
    /// last one answered, and at least one. A query that brings connections down is then soon alone
    /// on one, while a server that closes every twenty answers costs no time.
    pub(super) fn note_close(&mut self, lossy: bool, answers: u64) {
        if lossy && self.closed_lossy {
            self.window = Some(usize::try_from(answers).unwrap_or(usize::MAX).max(1));
        }
        self.closed_lossy = lossy;
    }

    pub(super) fn forget(&mut self, conn: ConnId) {
        self.conns.retain(|other| *other != conn);
        self.attempt.take_if(|attempt| *attempt == conn);
        self.open.take_if(|open| *open == conn);
    }
}

impl UpstreamConn {
    pub(super) fn new(upstream: usize, now: Instant, ids_max: usize, random: &mut Random) -> Self {
        Self {
            upstream,
            phase: Phase::Connecting { established: false, deadline: now + CONNECT_TIMEOUT },
            in_flight: InFlight::new(ids_max),
            sent: Timeouts::default(),
            deframer: Deframer::default(),
            output: StreamOutput::default(),
            transmitting: false,
            last_received: now,
            unanswered_since: None,
            idle_since: now,
            replace_at: now + random.jitter(AGE_MAX, AGE_JITTER),
            replacement_failed_at: None,
            opened_at: now,
            answers: 0,
            unmatched: 0,
        }
    }

    /// When nothing was heard for too long: from the later of the oldest waiting send and the last
    /// octet received. Neither later sends push it back nor queries that are given up before it, or
    /// steady traffic would hide a dead connection for ever.
    pub(super) fn stalls_at(&self) -> Option<Instant> {
        let (_, oldest) = self.sent.oldest()?;
        let oldest = self.unanswered_since.map_or(oldest, |since| since.min(oldest));
        Some(oldest.max(self.last_received) + STALL_TIMEOUT)
    }

    /// A query is sent with this message ID, and its silence counts.
    pub(super) fn note_sent(&mut self, now: Instant, id: u16) {
        if self.sent.is_empty() && now > self.idle_since {
            // What was given up before a pause says nothing about the path now; without a pause, it
            // is the same silence.
            self.unanswered_since = None;
        }
        self.sent.arm(usize::from(id), now);
    }

    pub(super) fn note_received(&mut self, now: Instant) {
        self.last_received = now;
        self.unanswered_since = None;
    }

    /// The query left by another way: its ID stays reserved.
    pub(super) fn abandon(&mut self, id: u16) {
        self.in_flight.abandon(id);
        if let Some((oldest, start)) = self.sent.oldest()
            && oldest == usize::from(id)
        {
            self.unanswered_since.get_or_insert(start);
        }
        self.sent.disarm(usize::from(id));
    }

    /// When it is closed for want of queries.
    pub(super) fn idles_out_at(&self, timeout: Duration) -> Option<Instant> {
        (self.in_flight.waiting() == 0).then(|| self.idle_since + timeout)
    }

    /// When it needs [`super::Forwarder::handle_timeout`].
    pub(super) fn next_timeout(&self, idle_timeout: Duration) -> Option<Instant> {
        match self.phase {
            Phase::Connecting { deadline, .. } => Some(deadline),
            Phase::Open => self.stalls_at().or_else(|| self.idles_out_at(idle_timeout)),
            Phase::Retired { until, stalled: true } => Some(until),
            Phase::Retired { until, stalled: false } => {
                Some(self.stalls_at().map_or(until, |at| at.min(until)))
            }
        }
    }

    pub(super) fn wants_replacement(&self, now: Instant) -> bool {
        (now >= self.replace_at || self.in_flight.is_worn())
            && self.replacement_failed_at.is_none_or(|at| now >= at + self.replace_pause())
    }

    /// One that serves on can wait.
    fn replace_pause(&self) -> Duration {
        if self.in_flight.is_worn_out() { NOTHING_UP_PAUSE } else { REPLACE_RETRY }
    }

    pub(super) fn has_room(&self) -> bool {
        self.output.len() < OUTPUT_MAX
    }
}

/// Long enough for a resolver that recurses, short enough that the first victim of a forgotten
/// connection is answered by another one before its stub gives up.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_millis(1500);

/// How long queries wait for one upstream's connection before the next is asked as well.
pub(super) const PATIENCE: Duration = Duration::from_millis(1500);

/// SYN, and two retransmissions after 1 and 2 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Constrained hosts and loaded servers need seconds for a handshake; giving up sooner throws the
/// work away and begins it again (coredns #2624).
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);

/// A retired connection outlasts no query that was sent on it.
pub(super) const RETIRED_TIMEOUT: Duration = Duration::from_millis(4500);

/// So that load balancers and new certificates are noticed, while one handshake an hour costs
/// nothing.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// Percent of [`AGE_MAX`] by which connections differ, so that a fleet does not reconnect at once.
const AGE_JITTER: u32 = 10;

/// After a replacement could not be made the old connection serves on for this long.
const REPLACE_RETRY: Duration = Duration::from_secs(60);

const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// A returned upstream is noticed within this.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A certificate or a configuration is not mended within seconds, and each attempt costs a
/// handshake.
const BACKOFF_LASTING_MAX: Duration = Duration::from_secs(60);

/// Percent.
const BACKOFF_JITTER: u32 = 25;

/// Between attempts while every upstream is down.
const NOTHING_UP_PAUSE: Duration = Duration::from_secs(1);

/// What may wait unsent on a connection; more stays queued, where a query past its deadline is
/// never written.
const OUTPUT_MAX: usize = 64 * 1024;

const _: () = {
    assert!(STALL_TIMEOUT.as_millis() < RETIRED_TIMEOUT.as_millis());
    assert!(BACKOFF_MIN.as_millis() < NOTHING_UP_PAUSE.as_millis());
    assert!(BACKOFF_MAX.as_millis() < BACKOFF_LASTING_MAX.as_millis());
};
