//! Responses by datagram that come late, and not too many of them to one network at a time.

use std::time::{Duration, Instant};

use slab::Slab;

use super::action::DatagramPath;
use super::collections::boxed::boxed;
use super::queries::fair_share::BucketId;

/// When each response by datagram leaves whose query is not young any more, whatever it says: a few to a network at
/// once, and then so many a millisecond. Those that wait for that are held here.
///
/// Who forges an address can ask names whose servers hold their answers back and send them all at once, so that
/// the queries of seconds come to a pulse that blocks the way to that address (`DNSBomb`, CVE-2024-33655). What fails,
/// or ends so that others need not wait, would make one too, and so would all that is said to retransmissions.
/// A resolver in front of this program gets what it has waited for a few milliseconds later.
#[derive(Debug)]
pub(super) struct LateAnswers {
    waiting: Slab<Waiting>,
    networks: Box<[Pace; BucketId::REMOTE]>,
    /// When it is tried again to send what waits.
    due: Option<Instant>,
    /// How many are still to be sent, with those that are to be sent several times.
    unsent: usize,
    bytes: usize,
    /// Octets of all that waits above which nothing but the shortest is taken.
    bytes_max: usize,
}

/// A response that waits.
#[derive(Debug)]
struct Waiting {
    path: DatagramPath,
    message: Box<[u8]>,
    /// How often it is to be sent.
    times: u8,
    next: u32,
}

/// How fast late responses leave for a network, and those that wait, oldest first.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// From then on as many may leave at once as ever; each that leaves puts it off.
    rested_at: Option<Instant>,
    /// [`NONE`] if none waits.
    first: u32,
    last: u32,
    /// How many wait, and their octets.
    held: u32,
    bytes: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rested_at: None, first: NONE, last: NONE, held: 0, bytes: 0 }
    }
}

impl Pace {
    /// Whether one may leave now, which then has left.
    fn take(&mut self, now: Instant) -> bool {
        let rested_at = self.rested_at.map_or(now, |at| at.max(now));
        let may_leave = rested_at <= now + EACH * (AT_ONCE - 1);
        if may_leave {
            self.rested_at = Some(rested_at + EACH);
        }
        may_leave
    }
}

impl LateAnswers {
    /// For so many responses that wait, and so many octets of those that are not short.
    pub(super) fn new(places: usize, bytes_max: usize) -> Self {
        Self {
            waiting: Slab::with_capacity(places),
            networks: boxed(Pace::default()),
            due: None,
            unsent: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// Octets that it takes at most.
    pub(super) const fn octets(places: usize, bytes_max: usize) -> usize {
        size_of::<[Pace; BucketId::REMOTE]>()
            + places * (size_of::<Waiting>() + size_of::<usize>() + ALLOCATION + SHORT)
            + bytes_max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many are still to be sent.
    pub(super) fn unsent(&self) -> usize {
        self.unsent
    }

    /// Whether a response to the network of this bucket may leave at once, which then has left. Not before those that
    /// wait.
    pub(super) fn take(&mut self, now: Instant, bucket: usize) -> bool {
        let pace = &mut self.networks[bucket];
        pace.first == NONE && pace.take(now)
    }

    /// Whether there is room for a response of so many octets to this network to wait. `dropped` counts those of
    /// others that are given up for it.
    pub(super) fn has_room(&mut self, bucket: usize, len: usize, dropped: &mut u64) -> bool {
        self.make_room(bucket, len, self.bytes_max, dropped)
    }

    /// Whether there is room for one that says as little as can be said.
    pub(super) fn has_room_for_short(
        &mut self,
        bucket: usize,
        len: usize,
        dropped: &mut u64,
    ) -> bool {
        let bytes_max = self.bytes_max + self.waiting.capacity() * SHORT;
        self.make_room(bucket, len, bytes_max, dropped)
    }

    /// While too much waits, the network that has most gives up its oldest, for one that would still have less.
    fn make_room(
        &mut self,
        bucket: usize,
        len: usize,
        bytes_max: usize,
        dropped: &mut u64,
    ) -> bool {
        loop {
            let has_place = self.waiting.len() < self.waiting.capacity();
            if has_place && self.bytes + len <= bytes_max {
                return true;
            }
            let weight = |pace: &Pace| if has_place { pace.bytes } else { pace.held };
            let coming = if has_place { len as u32 } else { 1 };
            let own = weight(&self.networks[bucket]) + coming;
            let heaviest = (0..BucketId::REMOTE).max_by_key(|it| weight(&self.networks[*it]));
            let heaviest = heaviest.filter(|it| weight(&self.networks[*it]) > own);
            let Some(heaviest) = heaviest else { return false };
            let key = self.take_first(heaviest);
            *dropped += u64::from(self.remove(heaviest, key));
        }
    }

    /// Takes the oldest that waits for this network, of which there is one, out of its queue.
    fn take_first(&mut self, bucket: usize) -> u32 {
        let pace = &mut self.networks[bucket];
        let key = pace.first;
        pace.first = std::mem::replace(&mut self.waiting[key as usize].next, NONE);
        if pace.first == NONE {
            pace.last = NONE;
        }
        key
    }

    /// Removes what is in no queue any more. Returns how often it was still to be sent.
    fn remove(&mut self, bucket: usize, key: u32) -> u8 {
        let Waiting { message, times, .. } = self.waiting.remove(key as usize);
        let pace = &mut self.networks[bucket];
        pace.held -= 1;
        pace.bytes -= message.len() as u32;
        self.bytes -= message.len();
        self.unsent -= usize::from(times);
        times
    }

    /// Has a response to the network of this bucket wait, to be sent so many times.
    pub(super) fn push(
        &mut self,
        now: Instant,
        bucket: usize,
        path: DatagramPath,
        message: Box<[u8]>,
        times: u8,
    ) {
        self.bytes += message.len();
        self.unsent += usize::from(times);
        let pace = &mut self.networks[bucket];
        pace.held += 1;
        pace.bytes += message.len() as u32;
        let key = self.waiting.insert(Waiting { path, message, times, next: NONE });
        self.append(bucket, key as u32);
        self.due.get_or_insert(now + PAUSE);
    }

    fn append(&mut self, bucket: usize, key: u32) {
        let pace = &mut self.networks[bucket];
        match std::mem::replace(&mut pace.last, key) {
            NONE => pace.first = key,
            last => self.waiting[last as usize].next = key,
        }
    }

    /// Sends what may leave now. What is sent several times waits behind the others in between.
    pub(super) fn send(&mut self, now: Instant, mut send: impl FnMut(DatagramPath, &[u8])) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        for bucket in 0..BucketId::REMOTE {
            while self.networks[bucket].first != NONE && self.networks[bucket].take(now) {
                let key = self.take_first(bucket);
                let waiting = &mut self.waiting[key as usize];
                send(waiting.path, &waiting.message);
                self.unsent -= 1;
                waiting.times -= 1;
                if waiting.times == 0 {
                    self.remove(bucket, key);
                } else {
                    self.append(bucket, key);
                }
            }
        }
        self.due = (!self.is_empty()).then(|| now + PAUSE);
    }

    /// When the next ones leave.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.due
    }
}

/// A pulse is one where the way to a host is not used for anything else, some milliseconds at a time. So no 5 ms see
/// more than 64 late responses to one network, these at once and 40 one by one: of 1,232 octets each, 126 Mbit/s, and
/// 79 Mbit/s if it goes on.
const AT_ONCE: u32 = 24;

/// The time that each takes of a network's.
const EACH: Duration = Duration::from_micros(125);

/// Between attempts to send what waits: as fine as timers are. A few that come late cost nothing, as more may leave
/// at once than in this time.
const PAUSE: Duration = Duration::from_millis(1);

/// Octets of a response that has the question alone, for nearly every name.
const SHORT: usize = 64;

/// Stands for no response.
const NONE: u32 = u32::MAX;

/// What the allocator takes beside what is asked of it.
const ALLOCATION: usize = 16;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::forwarder::tests::{Random, base};

    fn path(port: u16) -> DatagramPath {
        let client = (Ipv4Addr::LOCALHOST, port).into();
        DatagramPath { listener: 0, client, local: None, interface: 0 }
    }

    fn us(microseconds: u64) -> Duration {
        Duration::from_micros(microseconds)
    }

    /// How many of these left at once; the others wait, each to be sent so many times.
    fn ask(
        late: &mut LateAnswers,
        now: Instant,
        bucket: usize,
        ports: [u16; 2],
        times: u8,
    ) -> usize {
        let mut left = 0;
        for port in ports[0]..ports[1] {
            if late.take(now, bucket) {
                left += 1;
            } else {
                assert!(late.has_room(bucket, 80, &mut 0));
                late.push(now, bucket, path(port), Box::new([0; 80]), times);
            }
        }
        left
    }

    fn send(late: &mut LateAnswers, now: Instant) -> Vec<u16> {
        let mut ports = Vec::new();
        late.send(now, |path, message| {
            assert!([60, 80].contains(&message.len()));
            ports.push(path.client.port());
        });
        ports
    }

    #[test]
    fn responses_to_one_network_leave_some_at_once_and_the_others_one_by_one_in_order() {
        let (mut late, t0) = (LateAnswers::new(1000, 1_000_000), base());
        assert_eq!(ask(&mut late, t0, 0, [0, 60], 1), 24);
        assert_eq!(ask(&mut late, t0, 1, [60, 85], 1), 24, "another network");
        assert_eq!((late.next_timeout(), late.unsent()), (Some(t0 + us(1000)), 37));
        assert_eq!(send(&mut late, t0 + us(999)), []);
        let ports = (24..32).chain([84]).collect::<Vec<_>>();
        assert_eq!(send(&mut late, t0 + us(1000)), ports);
        // What comes now waits behind what waits.
        assert_eq!(ask(&mut late, t0 + us(1200), 0, [90, 91], 1), 0);
        assert_eq!(late.next_timeout(), Some(t0 + us(2000)));
        assert_eq!(send(&mut late, t0 + us(2000)), (32..40).collect::<Vec<_>>());
        // However long nothing was sent, no more leave at once than ever.
        let ports = (40..60).chain([90]).collect::<Vec<_>>();
        assert_eq!(send(&mut late, t0 + us(900_000)), ports);
        assert_eq!((late.is_empty(), late.bytes, late.next_timeout()), (true, 0, None));
        assert_eq!(ask(&mut late, t0 + us(900_000), 0, [0, 9], 1), 3, "of 24");
    }

    #[test]
    fn what_is_sent_several_times_holds_up_nobody() {
        let (mut late, t0) = (LateAnswers::new(1000, 1_000_000), base());
        assert_eq!(ask(&mut late, t0, 0, [0, 24], 1), 24);
        assert_eq!(ask(&mut late, t0, 0, [24, 26], 3), 0);
        assert_eq!(ask(&mut late, t0, 0, [26, 27], 1), 0);
        assert_eq!(late.unsent(), 7);
        assert_eq!(send(&mut late, t0 + us(1000)), [24, 25, 26, 24, 25, 24, 25]);
        assert_eq!((late.is_empty(), late.unsent(), late.bytes), (true, 0, 0));
    }

    #[test]
    fn no_span_of_5_ms_sees_a_pulse_and_little_of_the_pace_is_lost() {
        for seed in 0..64 {
            let mut random = Random::new(seed);
            let (mut late, t0) = (LateAnswers::new(3000, 1_000_000), base());
            let (mut now, mut left) = (us(0), Vec::new());
            while now < us(100_000) {
                // Wake-ups are up to 2 ms late.
                now += us(1 + random.below(3000));
                left.extend(send(&mut late, t0 + now).iter().map(|_| now));
                for _ in 0..random.below(60) {
                    if late.take(t0 + now, 0) {
                        left.push(now);
                    } else if late.has_room(0, 80, &mut 0) {
                        late.push(t0 + now, 0, path(1), Box::new([0; 80]), 1);
                    }
                }
            }
            let pulse = |at: &Duration| {
                let span = *at..*at + us(5000);
                left.iter().filter(|it| span.contains(*it)).count()
            };
            let most = left.iter().map(pulse).max();
            assert!(most.is_some_and(|most| (50..=64).contains(&most)), "{most:?} with {seed}");
            assert!(left.len() > 700, "{} of 824 with {seed}", left.len());
        }
    }

    #[test]
    fn the_network_that_has_most_gives_up_for_another() {
        let t0 = base();
        // By number, and by octets.
        for (places, bytes_max) in [(64, 1_000_000), (1_000, 64 * 60)] {
            let mut late = LateAnswers::new(places, bytes_max);
            let mut held = [0_u64; 2];
            let mut dropped = 0;
            while late.has_room(3, 60, &mut dropped) {
                late.push(t0, 3, path(held[0] as u16), Box::new([0; 60]), 1);
                held[0] += 1;
            }
            assert!(held[0] >= 64 && dropped == 0, "one alone may have all: {held:?}");
            while late.has_room(4, 60, &mut dropped) {
                late.push(t0, 4, path(1), Box::new([0; 60]), 1);
                held[1] += 1;
            }
            assert_eq!((dropped, held[1]), (held[1], held[0] / 2), "{places}");
            assert_eq!(late.unsent() as u64, held[0]);
            // The oldest went.
            let first = send(&mut late, t0 + us(1000)).first().copied();
            assert_eq!(first.map(u64::from), Some(dropped));
            while !late.is_empty() {
                let at = late.next_timeout().unwrap();
                late.send(at, |_, _| {});
            }
            assert_eq!((late.unsent(), late.bytes), (0, 0));
            assert!(late.networks.iter().all(|pace| (pace.held, pace.bytes) == (0, 0)));
        }
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_octets() {
        type HasRoom = fn(&mut LateAnswers, usize, usize, &mut u64) -> bool;

        let t0 = base();
        for (places, bytes_max, whole, short) in
            [(100, 1_000_000, 100, 100), (1000, 60 * 50 - 1, 49, 1000), (10, 0, 0, 10)]
        {
            let mut late = LateAnswers::new(places, bytes_max);
            let [whole, short] = [whole, short]
                .map(|count: usize| if count == places { late.waiting.capacity() } else { count });
            let fill = |late: &mut LateAnswers, has_room: HasRoom| {
                while has_room(late, 7, 60, &mut 0) {
                    late.push(t0, 7, path(1), Box::new([0; 60]), 1);
                }
                late.waiting.len()
            };
            assert_eq!(fill(&mut late, LateAnswers::has_room), whole);
            assert_eq!(fill(&mut late, LateAnswers::has_room_for_short), short);
            assert_eq!(late.waiting.len(), late.waiting.capacity());
        }
    }
}
