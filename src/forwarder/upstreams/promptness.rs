//! Whether an upstream answers in time.

use std::time::{Duration, Instant};

/// Which queries an upstream did not answer in time, and for how long it was not asked for that.
///
/// A resolver that lost a part of its own way out answers what it has at once, and the rest never: its
/// connections never fall silent. So what counts is how many of the queries that it was sent one after
/// the other had no answer in time. They are told apart by when they were sent: those without an answer
/// end later than others, and in a pause of the clients with none in between. A name counts once, however
/// often it is asked: one that nobody answers says nothing about whom it is asked of.
///
/// Nor do many of them, as a laptop asks for away from the network that has them. So where the last of
/// them was answered by nobody, the upstream is only suspected, and one more name is asked of another
/// upstream: if that answers, it is the upstream, and if not, it is the names.
#[derive(Debug, Default)]
pub(crate) struct Promptness {
    /// Queries that it was sent, each once.
    sent: u32,
    /// The numbers of those among them that were noted last.
    late: [u32; LATE_MIN],
    /// How many were noted.
    noted: usize,
    /// Hashes of the names that counted last, which do not count again.
    names: [u32; LAST as usize],
    /// What was noted last makes it one that is better not asked.
    is_poor: bool,
    suspicion: Option<Suspicion>,
    /// The last pause, and when it ended.
    pause: Option<(Duration, Instant)>,
}

/// Too many had no answer in time, but another upstream may have none to them either.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    until: Instant,
    /// The query that another was asked lately to find out, and until when that is waited for.
    probe: Option<(u32, Instant)>,
}

impl Promptness {
    /// A query is sent to it; returns which one it is.
    pub(crate) fn note_sent(&mut self) -> u32 {
        self.sent = self.sent.wrapping_add(1);
        self.sent
    }

    /// The query of this number was not answered in time, or before another upstream answered it; `name`
    /// is the hash of its name.
    pub(crate) fn note_late(&mut self, now: Instant, number: u32, name: u32, by_another: bool) {
        if let Some(Suspicion { probe, .. }) = self.suspicion.filter(|it| now < it.until) {
            if by_another {
                self.is_poor = true;
                self.suspicion = None;
            } else if probe.is_some_and(|(probe, _)| probe == number) {
                self.forget();
            }
            return;
        }
        if self.names.contains(&name) {
            return;
        }
        self.names[self.noted % self.names.len()] = name;
        self.late[self.noted % LATE_MIN] = number;
        self.noted += 1;
        // Numbers may have begun anew between them.
        let distances = self.late.map(|late| number.wrapping_sub(late).cast_signed());
        let span = distances.iter().max().zip(distances.iter().min());
        let are_many = self.noted >= LATE_MIN
            && span.is_some_and(|(max, min)| max.wrapping_sub(*min).cast_unsigned() < LAST);
        self.is_poor |= are_many && by_another;
        self.suspicion = (are_many && !self.is_poor)
            .then(|| Suspicion { until: now + SUSPECTED_FOR, probe: None });
    }

    /// Whether another upstream is to be asked a query, to find out whether it is the names.
    pub(crate) fn wants_probe(&self, now: Instant) -> bool {
        self.suspicion.is_some_and(|Suspicion { until, probe }| {
            now < until && probe.is_none_or(|(_, until)| now >= until)
        })
    }

    /// Another upstream is asked the query of this number, after [`Self::wants_probe`].
    pub(crate) fn note_probe(&mut self, now: Instant, number: u32) {
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.probe = Some((number, now + PROBE_TIMEOUT));
        }
    }

    /// Whether it is better not asked while another upstream is usable, since the last that was noted; told
    /// once.
    pub(crate) fn take_poor(&mut self) -> bool {
        std::mem::take(&mut self.is_poor)
    }

    /// What was seen may hold no longer.
    pub(crate) fn forget(&mut self) {
        *self = Self { sent: self.sent, pause: self.pause, ..Self::default() };
    }

    /// For how long it is left alone: longer each time, unless it was well for long since the last.
    pub(crate) fn next_pause(&mut self, now: Instant) -> Duration {
        let pause = match self.pause {
            Some((pause, end)) if now < end + PAUSE_KNOWN_FOR => (pause * 2).min(PAUSE_MAX),
            _ => PAUSE_MIN,
        };
        self.pause = Some((pause, now + pause));
        pause
    }
}

/// Of so many queries that were sent one after the other...
pub(crate) const LAST: u32 = 20;

/// ... these without an answer in time are too many. An upstream that never answers one query in a hundred
/// is not taken for one that fails even at 1,000 a second: six would come together by chance once in a
/// day, seven once in six weeks.
pub(crate) const LATE_MIN: usize = 7;

/// Copies of queries in a row that it must answer to be asked again: one that answers half of them gets
/// through once in a thousand times.
pub(crate) const ANSWERS_WANTED: u8 = 10;

/// Where there are few queries, the next that it does not answer may take its time.
const SUSPECTED_FOR: Duration = Duration::from_secs(300);

/// By then a query that is overdue has come to its end.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);

const PAUSE_MIN: Duration = Duration::from_secs(5);

/// Whoever comes and goes costs each time what it leaves unanswered.
const PAUSE_MAX: Duration = Duration::from_secs(300);

const PAUSE_KNOWN_FOR: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    /// `+` is a query that was answered, an upper-case letter the name of one that another upstream
    /// answered, any other that of one that nobody did.
    fn tell(promptness: &mut Promptness, first: u32, story: &str) -> &'static str {
        for (number, outcome) in story.bytes().enumerate() {
            if outcome != b'+' {
                let number = first.wrapping_add(number as u32);
                let by_another = outcome.is_ascii_uppercase();
                promptness.note_late(base(), number, outcome.into(), by_another);
            }
            if promptness.take_poor() {
                assert!(!promptness.take_poor(), "it is told once");
                return "poor";
            }
        }
        if promptness.wants_probe(base()) { "suspected" } else { "fine" }
    }

    #[test]
    fn poor_is_who_leaves_many_names_in_a_row_unanswered() {
        let cases = [
            ("", "fine"),
            ("ABCDEF", "fine"),
            ("ABCDEFG", "poor"),
            ("A+B+C+D+E+F+G", "poor"),
            ("A++B++C++D++E++F++G", "poor"),
            ("A++B++C++D++E++F+++G", "poor"),
            ("A++B++C++D++E++F++++G", "fine"),
            ("+++++++++++++++ABCDEFG", "poor"),
            ("ABCDEF++++++++++++++++G", "fine"),
            // What nobody answers is asked again and again.
            ("aaaaaaaaaaaaaaaaaaaa", "fine"),
            ("a+ab+abc+abcd+abcde+abcdef+abcdef", "fine"),
            // Nobody answers many: it may be the names.
            ("abcdefg", "suspected"),
            ("a++b++c++d++e++f+++g", "suspected"),
            ("abcdefghijklm", "suspected"),
            ("ABCDEFg", "suspected"),
            ("abcdefG", "poor"),
            // Whatever lies between them: what waited meanwhile ends in between.
            ("abcdefg++++++++++++++++++++++++++++++++H", "poor"),
        ];
        for (story, expected) in cases {
            for first in [0, u32::MAX - 5] {
                let mut promptness = Promptness::default();
                assert_eq!(tell(&mut promptness, first, story), expected, "{story}");
            }
        }
    }

    #[test]
    fn one_name_asked_of_another_tells_whether_it_is_the_names() {
        let mut promptness = Promptness::default();
        assert_eq!(tell(&mut promptness, 0, "abcdefg"), "suspected");
        promptness.note_probe(base(), 20);
        assert!(!promptness.wants_probe(base()), "one is enough");
        assert_eq!(tell(&mut promptness, 10, "hijk"), "fine", "these were asked of nobody else");
        assert!(promptness.wants_probe(base() + PROBE_TIMEOUT), "its end was not seen");
        assert_eq!(tell(&mut promptness, 20, "z"), "fine");
        assert!(!promptness.wants_probe(base() + PROBE_TIMEOUT));
        assert_eq!(tell(&mut promptness, 30, "abcdef"), "fine", "all is forgotten");
        assert_eq!(tell(&mut promptness, 36, "g"), "suspected");
        promptness.note_probe(base(), 50);
        assert_eq!(tell(&mut promptness, 50, "Y"), "poor");
        assert!(!promptness.wants_probe(base() + PROBE_TIMEOUT));
    }

    #[test]
    fn a_suspicion_ends() {
        let mut promptness = Promptness::default();
        assert_eq!(tell(&mut promptness, 0, "abcdefg"), "suspected");
        let later = base() + SUSPECTED_FOR;
        assert!(!promptness.wants_probe(later));
        promptness.note_late(later, 100, 100, true);
        assert!(!promptness.take_poor());
    }

    #[test]
    fn what_was_sent_counts_wherever_in_between_it_ended() {
        let mut promptness = Promptness::default();
        for number in [6, 0, 18, 3, 9, 15] {
            promptness.note_late(base(), number, number + 1, true);
            assert!(!promptness.take_poor());
        }
        promptness.note_late(base(), 12, 13, true);
        assert!(promptness.take_poor());
    }

    #[test]
    fn a_name_counts_again_when_enough_others_have_and_when_all_is_forgotten() {
        let mut promptness = Promptness::default();
        tell(&mut promptness, 0, "A+++++++++++++++BCDEFG");
        assert_eq!(tell(&mut promptness, 50, "ABCDEFG"), "fine", "these have counted");
        promptness.forget();
        assert_eq!(tell(&mut promptness, 100, "ABCDEFG"), "poor");
        for (name, number) in (1..).zip(200..224) {
            promptness.note_late(base(), number, name, true);
        }
        promptness.take_poor();
        assert_eq!(tell(&mut promptness, 300, "ABCDEFG"), "poor");
    }

    #[test]
    fn pauses_grow_until_it_was_well_for_long() {
        let mut now = base();
        let mut promptness = Promptness::default();
        let mut seen = Vec::new();
        for _ in 0..8 {
            let pause = promptness.next_pause(now);
            promptness.forget();
            seen.push(pause.as_secs());
            now += pause + Duration::from_secs(1);
        }
        assert_eq!(seen, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(promptness.next_pause(now + PAUSE_KNOWN_FOR), PAUSE_MIN);
    }
}
