//! Answers by datagram that come late, and not too many of them to one network at a time.

use std::time::{Duration, Instant};

use slab::Slab;

use super::action::DatagramPath;
use super::queries::fair_share::BucketId;

/// Late answers that wait, since more than a few of them leave for a network in each window of time.
///
/// Who forges an address can ask names whose servers hold their answers back and send them all at once, so that
/// the queries of seconds come to a pulse that blocks the way to that address (`DNSBomb`, CVE-2024-33655).
/// A resolver in front of this program gets what it has waited for a few milliseconds later.
#[derive(Debug)]
pub(super) struct LateAnswers {
    waiting: Slab<Waiting>,
    /// One that waits for each of the coming windows, which leads to the others: a ring.
    windows: [Option<usize>; WINDOWS_AHEAD],
    /// What was promised to each network.
    promised: Box<[Promised; BucketId::REMOTE]>,
    /// Windows are counted from here.
    epoch: Option<Instant>,
    /// Windows whose answers have left.
    past: u64,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Waiting {
    path: DatagramPath,
    message: Box<[u8]>,
    next: Option<usize>,
}

/// The last window that answers to a network leave in, and how many do.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    window: u64,
    answers: u8,
}

/// When a late answer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// In this window.
    Later(u64),
    /// Too many wait.
    Never,
}

impl LateAnswers {
    /// For so many answers of so many octets together.
    pub(super) fn new(answers_max: usize, bytes_max: usize) -> Self {
        Self {
            waiting: Slab::with_capacity(answers_max),
            windows: [None; WINDOWS_AHEAD],
            promised: Box::new([Promised::default(); BucketId::REMOTE]),
            epoch: None,
            past: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// Octets that it takes at most.
    pub(super) const fn octets(answers_max: usize, bytes_max: usize) -> usize {
        size_of::<[Promised; BucketId::REMOTE]>()
            + answers_max * (size_of::<Waiting>() + size_of::<usize>() + ALLOCATION)
            + bytes_max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// When an answer of up to `len_max` octets leaves for the network of this bucket, `until` then at the latest. It
    /// counts as promised.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        bucket: usize,
        len_max: usize,
        until: Instant,
    ) -> Turn {
        let window = self.window(now);
        if self.is_empty() {
            self.past = window;
        }
        let Promised { window: last, answers } = self.promised[bucket];
        let promised = if last < window {
            Promised { window, answers: 1 }
        } else if answers < ANSWERS_MAX {
            Promised { window: last, answers: answers + 1 }
        } else {
            Promised { window: last + 1, answers: 1 }
        };
        let is_now = promised.window == window;
        let is_in_time = self.start(promised.window).is_some_and(|start| start <= until);
        let has_room = self.waiting.len() < self.waiting.capacity()
            && self.bytes + len_max <= self.bytes_max
            && promised.window < self.past + WINDOWS_AHEAD as u64;
        if !(is_now || has_room && is_in_time) {
            return Turn::Never;
        }
        self.promised[bucket] = promised;
        if is_now { Turn::Now } else { Turn::Later(promised.window) }
    }

    /// Has an answer wait for its window.
    pub(super) fn push(&mut self, window: u64, path: DatagramPath, message: Box<[u8]>) {
        self.bytes += message.len();
        let head = &mut self.windows[window as usize % WINDOWS_AHEAD];
        *head = Some(self.waiting.insert(Waiting { path, message, next: *head }));
    }

    /// An answer whose window has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(DatagramPath, Box<[u8]>)> {
        if self.is_empty() {
            return None;
        }
        let window = self.window(now);
        while self.past <= window {
            let head = &mut self.windows[self.past as usize % WINDOWS_AHEAD];
            if let Some(place) = *head {
                let Waiting { path, message, next } = self.waiting.remove(place);
                *head = next;
                self.bytes -= message.len();
                return Some((path, message));
            }
            self.past += 1;
        }
        None
    }

    /// When the next ones leave.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        let coming = self.past..self.past + WINDOWS_AHEAD as u64;
        let mut taken =
            coming.filter(|window| self.windows[*window as usize % WINDOWS_AHEAD].is_some());
        self.start(taken.next()?)
    }

    fn start(&self, window: u64) -> Option<Instant> {
        Some(self.epoch? + Duration::from_nanos(window * WINDOW.as_nanos() as u64))
    }

    fn window(&mut self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(*self.epoch.get_or_insert(now));
        (since.as_nanos() / WINDOW.as_nanos()) as u64
    }
}

/// A pulse is one where the way to a host is not used for anything else: some milliseconds at a time.
const WINDOW: Duration = Duration::from_millis(5);

/// Late answers to one network in a window: of 1,232 octets each, 126 Mbit/s over several windows. Two may meet.
const ANSWERS_MAX: u8 = 64;

/// No answer waits for more windows than this: 320 ms.
const WINDOWS_AHEAD: usize = 64;

/// What the allocator takes beside what is asked of it.
const ALLOCATION: usize = 16;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::forwarder::tests::base;

    fn path(port: u16) -> DatagramPath {
        let client = (Ipv4Addr::LOCALHOST, port).into();
        DatagramPath { listener: 0, client, local: None, interface: 0 }
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Turns of so many answers, those that wait pushed.
    fn ask(late: &mut LateAnswers, now: Instant, bucket: usize, count: usize) -> [usize; 3] {
        let mut turns = [0; 3];
        for n in 0..count {
            match late.turn(now, bucket, 100, now + ms(1000)) {
                Turn::Now => turns[0] += 1,
                Turn::Later(window) => {
                    turns[1] += 1;
                    late.push(window, path(n as u16), Box::new([0; 80]));
                }
                Turn::Never => turns[2] += 1,
            }
        }
        turns
    }

    fn pop(late: &mut LateAnswers, now: Instant) -> usize {
        std::iter::from_fn(|| late.pop(now)).count()
    }

    #[test]
    fn answers_to_one_network_leave_some_in_each_window() {
        let (mut late, t0) = (LateAnswers::new(1000, 1_000_000), base());
        assert_eq!(ask(&mut late, t0, 0, 64), [64, 0, 0]);
        assert_eq!(late.next_timeout(), None);
        assert_eq!(ask(&mut late, t0 + ms(4), 0, 130), [0, 130, 0]);
        assert_eq!(ask(&mut late, t0 + ms(4), 1, 65), [64, 1, 0], "another network");
        assert_eq!(late.next_timeout(), Some(t0 + ms(5)));
        assert_eq!(pop(&mut late, t0 + ms(4)), 0);
        assert_eq!(pop(&mut late, t0 + ms(5)), 65);
        assert_eq!(late.next_timeout(), Some(t0 + ms(10)));
        // What comes now waits behind what waits.
        assert_eq!(ask(&mut late, t0 + ms(6), 0, 63), [0, 63, 0]);
        assert_eq!([10, 14, 15, 20].map(|at| pop(&mut late, t0 + ms(at))), [64, 0, 64, 1]);
        assert_eq!((late.is_empty(), late.bytes, late.next_timeout()), (true, 0, None));
        assert_eq!(ask(&mut late, t0 + ms(20), 0, 64), [63, 1, 0], "one has left");
    }

    #[test]
    fn nothing_waits_for_longer_than_its_query() {
        let (mut late, t0) = (LateAnswers::new(1000, 1_000_000), base());
        assert_eq!(ask(&mut late, t0, 0, 64), [64, 0, 0]);
        assert_eq!(late.turn(t0, 0, 100, t0 + ms(4)), Turn::Never);
        assert_eq!(late.turn(t0, 0, 100, t0 + ms(5)), Turn::Later(1));
    }

    #[test]
    fn what_waits_is_bounded_in_number_octets_and_time() {
        let t0 = base();
        for (answers_max, bytes_max, waiting) in [
            (100, 1_000_000, 100),
            // The last one might have had 100 octets.
            (1000, 80 * 49 + 100, 50),
            (10_000, 1_000_000, (WINDOWS_AHEAD - 1) * 64),
        ] {
            let mut late = LateAnswers::new(answers_max, bytes_max);
            let answers_max = late.waiting.capacity().min(waiting);
            let turns = ask(&mut late, t0, 0, 10_000);
            assert_eq!(turns, [64, answers_max, 10_000 - 64 - answers_max]);
            // A wake-up that comes too late finds all.
            assert_eq!(pop(&mut late, t0 + ms(10_000)), answers_max);
            assert_eq!(ask(&mut late, t0 + ms(10_000), 0, 65), [64, 1, 0]);
        }
    }
}
