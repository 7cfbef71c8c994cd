//! Counts of queries by what they were and what became of them, for metrics.
//!
//! They cost every query a few dozen instructions, so each is an addition to a place in an array.

use std::time::Duration;

use super::action::Stage;
use super::message::{Rcode, Rtype};

/// What became of queries so far. Each response counts, those to retransmissions included.
#[derive(Clone, Debug)]
pub struct Measures {
    is_on: bool,
    results: [[u64; Answered::ALL.len()]; 2],
    /// By RCODE, and the last of those that are greater.
    rcodes: [u64; CODES],
    /// By type, and the last of those that are greater.
    types: [u64; CODES],
    /// Queries by the first of [`TIMES`] that their response was not later than, or none of them.
    times: [u64; TIMES.len() + 1],
    /// Nanoseconds that queries waited for their responses.
    waited: u128,
    failures: [u64; Reason::ALL.len()],
    /// Queries whose first useful answer came to a copy that was sent because the other was late.
    pub hedges_won: u64,
    /// TCP connections of clients that were accepted.
    pub clients_accepted: u64,
}

/// How a message that calls for a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// With an upstream's response.
    Upstream,
    /// With a response made here that is no failure.
    Here,
    /// With a SERVFAIL made here.
    Failed,
    /// With TC alone, so that it is asked again over TCP.
    CutShort,
    /// Without a response, as its client had gone.
    Gone,
}

impl Answered {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Upstream, Self::Here, Self::Failed, Self::CutShort, Self::Gone];

    /// The word for a label.
    pub fn word(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Here => "local",
            Self::Failed => "servfail",
            Self::CutShort => "truncated",
            Self::Gone => "client_gone",
        }
    }
}

/// Why a query got a SERVFAIL that was made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The upstream that speaks for all was not usable since an attempt failed in this phase.
    Stage(Stage),
    /// No answer came in time.
    Timeout,
    /// The connections that it was sent on were lost.
    Lost,
    /// The upstream's answer was no good.
    BadAnswer,
    /// No connection could take it in time.
    Waiting,
    /// There was no room for it.
    Full,
    /// It had gone round through upstreams.
    Loop,
    /// The program was ending.
    Ending,
    /// Nothing could be proved of a special name.
    Unproven,
    /// The upstream said SERVFAIL in a way that could not be passed on as it was.
    Upstream,
}

impl Reason {
    const ALL: [(Self, &'static str); 15] = [
        (Self::Stage(Stage::Connect), "connect"),
        (Self::Stage(Stage::Tls), "tls"),
        (Self::Stage(Stage::Certificate), "certificate"),
        (Self::Stage(Stage::Negotiation), "negotiation"),
        (Self::Stage(Stage::Read), "read"),
        (Self::Stage(Stage::Write), "write"),
        (Self::Timeout, "timeout"),
        (Self::Lost, "lost"),
        (Self::BadAnswer, "bad_answer"),
        (Self::Waiting, "waiting"),
        (Self::Full, "full"),
        (Self::Loop, "loop"),
        (Self::Ending, "ending"),
        (Self::Unproven, "unproven"),
        (Self::Upstream, "upstream"),
    ];
}

impl Default for Measures {
    fn default() -> Self {
        Self {
            is_on: false,
            results: Default::default(),
            rcodes: [0; CODES],
            types: [0; CODES],
            times: Default::default(),
            waited: 0,
            failures: Default::default(),
            hedges_won: 0,
            clients_accepted: 0,
        }
    }
}

impl Measures {
    /// Responses by transport, `udp` or `tcp`, and by how the query ended.
    pub fn results(&self) -> impl Iterator<Item = (&'static str, Answered, u64)> {
        ["udp", "tcp"].into_iter().zip(&self.results).flat_map(|(transport, counts)| {
            Answered::ALL.into_iter().zip(counts).map(move |(it, count)| (transport, it, *count))
        })
    }

    /// Responses by RCODE, the last for all others.
    pub fn rcodes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        by_word(&self.rcodes, &RCODES)
    }

    /// Queries by type, the last for all others.
    pub fn types(&self) -> impl Iterator<Item = (&'static str, u64)> {
        by_word(&self.types, &TYPES)
    }

    /// SERVFAILs made here, by reason.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL.iter().map(|(_, word)| *word).zip(self.failures.iter().copied())
    }

    /// How many forwarded queries had their response within some fixed times.
    pub fn within(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut sum = 0;
        TIMES.into_iter().zip(self.times).map(move |(nanos, count)| {
            sum += count;
            (Duration::from_nanos(nanos), sum)
        })
    }

    /// How many forwarded queries had a response, and for how long all of them waited.
    pub fn waited(&self) -> (u64, Duration) {
        (self.times.iter().sum(), Duration::from_micros((self.waited / 1_000) as u64))
    }

    /// Counts from now on.
    pub(super) fn turn_on(&mut self) {
        self.is_on = true;
    }

    /// Whether anybody wants the counts.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// A message was answered, or went without a response.
    #[inline]
    pub(super) fn note(&mut self, over_tcp: bool, qtype: Rtype, how: Answered, rcode: Rcode) {
        self.results[usize::from(over_tcp)][how as usize] += 1;
        if how != Answered::Gone {
            self.rcodes[usize::from(rcode.0).min(CODES - 1)] += 1;
        }
        self.types[usize::from(qtype.0).min(CODES - 1)] += 1;
    }

    /// A query that was taken in had its response after this time.
    #[inline]
    pub(super) fn note_time(&mut self, took: Duration) {
        let nanos = took.as_secs().wrapping_mul(1_000_000_000) + u64::from(took.subsec_nanos());
        self.waited += u128::from(nanos);
        self.times[place_of_time(nanos)] += 1;
    }

    /// A SERVFAIL was made here.
    #[cold]
    pub(super) fn note_failure(&mut self, reason: Reason) {
        let place = Reason::ALL.iter().position(|(known, _)| *known == reason);
        if let Some(count) = place.and_then(|place| self.failures.get_mut(place)) {
            *count += 1;
        }
    }
}

/// The counts of these codes, and all others in one.
fn by_word<'a>(
    counts: &'a [u64; CODES],
    words: &'static [(u16, &str)],
) -> impl Iterator<Item = (&'static str, u64)> + 'a {
    let known = words.iter().map(|(code, word)| (*word, counts[usize::from(*code)]));
    let others = || {
        let sum_known: u64 = known.clone().map(|(_, count)| count).sum();
        counts.iter().sum::<u64>() - sum_known
    };
    let others = others();
    known.chain([(OTHER, others)])
}

/// The first of [`TIMES`] that this one is not later than.
#[inline]
fn place_of_time(nanos: u64) -> usize {
    let bits = nanos.checked_ilog2().unwrap_or(0) as usize;
    let place = usize::from(PLACES_BY_BITS[bits]);
    place + usize::from(TIMES.get(place).is_some_and(|time| *time < nanos))
}

/// By its highest bit, the first of [`TIMES`] that a number may be not later than. No two of them have the same.
const PLACES_BY_BITS: [u8; 64] = {
    let mut places = [0; 64];
    let (mut bits, mut place) = (0, 0);
    while bits < places.len() {
        places[bits] = place;
        if (place as usize) < TIMES.len() && TIMES[place as usize].ilog2() as usize == bits {
            place += 1;
        }
        bits += 1;
    }
    places
};

/// RCODEs that are told apart.
const RCODES: [(u16, &str); 7] = [
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (16, "BADVERS"),
];

/// Types that are told apart: a fixed few, as a client chooses the type.
const TYPES: [(u16, &str); 12] = [
    (1, "A"),
    (28, "AAAA"),
    (65, "HTTPS"),
    (12, "PTR"),
    (15, "MX"),
    (16, "TXT"),
    (2, "NS"),
    (6, "SOA"),
    (5, "CNAME"),
    (33, "SRV"),
    (43, "DS"),
    (48, "DNSKEY"),
];

const OTHER: &str = "other";

/// One more than the greatest code that is told apart.
const CODES: usize = 67;

/// Times to a response are told apart by these: from a resolver next door to the deadline.
const TIMES: [u64; 12] = [
    MILLISECOND,
    2_500_000,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    1_000 * MILLISECOND,
    2_500 * MILLISECOND,
    5_000 * MILLISECOND,
];

/// In nanoseconds.
const MILLISECOND: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_word() {
        for (code, word) in RCODES {
            assert_eq!(&*Rcode(code).to_string(), word);
        }
        for (code, word) in TYPES {
            assert_eq!(&*Rtype(code).to_string(), word);
        }
        let all = RCODES.iter().chain(&TYPES);
        assert!(all.into_iter().all(|(code, _)| usize::from(*code) < CODES - 1));
        for (reason, word) in Reason::ALL {
            if let Reason::Stage(stage) = reason {
                assert_eq!(stage.word(), word);
            }
        }
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, place);
        }
        for (place, how) in Answered::ALL.into_iter().enumerate() {
            assert_eq!(how as usize, place);
        }
    }

    #[test]
    fn a_time_belongs_to_the_first_that_it_is_not_later_than() {
        for (place, time) in TIMES.into_iter().enumerate() {
            for (nanos, expected) in [(time - 1, place), (time, place), (time + 1, place + 1)] {
                assert_eq!(place_of_time(nanos), expected, "{nanos}");
            }
        }
        assert_eq!((place_of_time(0), place_of_time(u64::MAX)), (0, TIMES.len()));
        for nanos in (0..6_000_000_000).step_by(1_234_567) {
            assert_eq!(place_of_time(nanos), TIMES.iter().filter(|time| **time < nanos).count());
        }
    }

    #[test]
    fn times_are_counted_up_to_each_bound() {
        let mut measures = Measures::default();
        for micros in [0, 999, 1_000, 1_001, 24_000, 5_000_000, 5_000_001] {
            measures.note_time(Duration::from_micros(micros));
        }
        let within: Vec<_> =
            measures.within().map(|(time, count)| (time.as_micros(), count)).collect();
        assert_eq!(within.len(), TIMES.len());
        assert_eq!(within[..5], [(1_000, 3), (2_500, 4), (5_000, 4), (10_000, 4), (25_000, 5)]);
        assert_eq!(within.last(), Some(&(5_000_000, 6)));
        assert_eq!(measures.waited(), (7, Duration::from_micros(10_027_001)));
    }

    #[test]
    fn what_is_noted_is_found_where_it_belongs() {
        let mut measures = Measures::default();
        measures.note(false, Rtype::AAAA, Answered::Upstream, Rcode::NXDOMAIN);
        measures.note(true, Rtype(257), Answered::Failed, Rcode::SERVFAIL);
        measures.note(true, Rtype::A, Answered::Gone, Rcode::NOERROR);
        measures.note_failure(Reason::Stage(Stage::Certificate));
        let results: Vec<_> = measures.results().filter(|(.., count)| *count > 0).collect();
        let expected = [
            ("udp", Answered::Upstream, 1),
            ("tcp", Answered::Failed, 1),
            ("tcp", Answered::Gone, 1),
        ];
        assert_eq!(results, expected);
        let some = |counts: Vec<(&'static str, u64)>| -> Vec<&str> {
            counts.into_iter().filter(|(_, count)| *count > 0).map(|(word, _)| word).collect()
        };
        assert_eq!(some(measures.rcodes().collect()), ["SERVFAIL", "NXDOMAIN"]);
        assert_eq!(some(measures.types().collect()), ["A", "AAAA", "other"]);
        assert_eq!(some(measures.failures().collect()), ["certificate"]);
    }
}
