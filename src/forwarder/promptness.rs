//! Whether an upstream answers in time.

use std::time::{Duration, Instant};

/// Which queries an upstream did not answer in time, and for how long it was not asked for that.
///
/// A resolver that lost a part of its own way out answers what it has at once, and the rest never: its
/// connections never fall silent. So what counts is how many of the queries that it was sent one after
/// the other had no answer in time. They are told apart by when they were sent: those without an answer
/// end later than others, and in a pause of the clients with none in between. A name counts once, however
/// often it is asked: one that nobody answers says nothing about whom it is asked of.
#[derive(Debug, Default)]
pub(super) struct Promptness {
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
    /// The last pause, and when it ended.
    pause: Option<(Duration, Instant)>,
}

impl Promptness {
    /// A query is sent to it; returns which one it is.
    pub(super) fn note_sent(&mut self) -> u32 {
        self.sent = self.sent.wrapping_add(1);
        self.sent
    }

    /// The query of this number was not answered in time; `name` is the hash of its name.
    pub(super) fn note_late(&mut self, number: u32, name: u32) {
        if self.names.contains(&name) {
            return;
        }
        self.names[self.noted % self.names.len()] = name;
        self.late[self.noted % LATE_MIN] = number;
        self.noted += 1;
        // Numbers may have begun anew between them.
        let distances = self.late.map(|late| number.wrapping_sub(late).cast_signed());
        let span = distances.iter().max().zip(distances.iter().min());
        self.is_poor = self.noted >= LATE_MIN
            && span.is_some_and(|(max, min)| max.wrapping_sub(*min).cast_unsigned() < LAST);
    }

    /// Whether it is better not asked while another upstream is usable, since the last that was noted; told
    /// once.
    pub(super) fn take_poor(&mut self) -> bool {
        std::mem::take(&mut self.is_poor)
    }

    /// What was seen may hold no longer.
    pub(super) fn forget(&mut self) {
        *self = Self { sent: self.sent, pause: self.pause, ..Self::default() };
    }

    /// For how long it is left alone: longer each time, unless it was well for long since the last.
    pub(super) fn next_pause(&mut self, now: Instant) -> Duration {
        let pause = match self.pause {
            Some((pause, end)) if now < end + PAUSE_KNOWN_FOR => (pause * 2).min(PAUSE_MAX),
            _ => PAUSE_MIN,
        };
        self.pause = Some((pause, now + pause));
        pause
    }
}

/// Of so many queries that were sent one after the other...
pub(super) const LAST: u32 = 20;

/// ... these without an answer in time are too many. An upstream that never answers one query in a hundred
/// is not taken for one that fails even at 1,000 a second: six would come together by chance once in a
/// day, seven once in six weeks.
pub(super) const LATE_MIN: usize = 7;

/// Copies of queries in a row that it must answer to be asked again: one that answers half of them gets
/// through once in a thousand times.
pub(super) const ANSWERS_WANTED: u8 = 10;

const PAUSE_MIN: Duration = Duration::from_secs(5);

/// Whoever comes and goes costs each time what it leaves unanswered.
const PAUSE_MAX: Duration = Duration::from_secs(300);

const PAUSE_KNOWN_FOR: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    /// `+` is a query that was answered, a letter the name of one that was not.
    fn tell(promptness: &mut Promptness, first: u32, story: &str) -> bool {
        let mut was_poor = false;
        for (number, outcome) in story.bytes().enumerate() {
            if outcome != b'+' {
                promptness.note_late(first.wrapping_add(number as u32), outcome.into());
            }
            was_poor |= promptness.take_poor();
        }
        was_poor
    }

    #[test]
    fn poor_is_who_leaves_many_names_in_a_row_unanswered() {
        let cases = [
            ("", false),
            ("abcdef", false),
            ("abcdefg", true),
            ("a+b+c+d+e+f+g", true),
            ("a++b++c++d++e++f++g", true),
            ("a++b++c++d++e++f+++g", true),
            ("a++b++c++d++e++f++++g", false),
            ("+++++++++++++++abcdefg", true),
            ("abcdef++++++++++++++++g", false),
            // What nobody answers is asked again and again.
            ("aaaaaaaaaaaaaaaaaaaa", false),
            ("a+ab+abc+abcd+abcde+abcdef+abcdef", false),
        ];
        for (story, is_poor) in cases {
            for first in [0, u32::MAX - 5] {
                let mut promptness = Promptness::default();
                assert_eq!(tell(&mut promptness, first, story), is_poor, "{story}");
                assert!(!promptness.take_poor(), "it is told once");
            }
        }
    }

    #[test]
    fn what_was_sent_counts_wherever_in_between_it_ended() {
        let mut promptness = Promptness::default();
        for number in [6, 0, 18, 3, 9, 15] {
            promptness.note_late(number, number + 1);
            assert!(!promptness.take_poor());
        }
        promptness.note_late(12, 13);
        assert!(promptness.take_poor());
    }

    #[test]
    fn a_name_counts_again_when_enough_others_have_and_when_all_is_forgotten() {
        let mut promptness = Promptness::default();
        tell(&mut promptness, 0, "a+++++++++++++++bcdefg");
        assert!(!tell(&mut promptness, 50, "abcdefg"), "these have counted");
        promptness.forget();
        assert!(tell(&mut promptness, 100, "abcdefg"));
        tell(&mut promptness, 200, "hijklmnopqrstuvwxyz0123");
        assert!(tell(&mut promptness, 300, "abcdefg"));
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
