//! The path of a connection to a server: what it takes, loses and keeps back, and what TCP at this end knows of that.

use std::collections::VecDeque;
use std::time::Duration;

use support::Random;

use super::server::Direction;

/// What a path is like. By default it takes no time and loses nothing.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// What it takes one way.
    pub delay: Duration,
    /// So many segments of 1,000 are lost, and so many of those that are sent again, until then.
    pub loss: u64,
    pub loss_ends: Duration,
    /// By direction, from when and until when nothing arrives.
    pub silences: Vec<(Direction, Duration, Duration)>,
}

/// A path, with all that was sent on it.
#[derive(Debug)]
pub(super) struct Path {
    manner: Manner,
    ways: [Way; 2],
    /// Segments that had come out of order when this end was last asked.
    out_of_order_seen: usize,
    /// When this end was told that segments are missing.
    told_at: Vec<Duration>,
    rng: Random,
}

/// One direction of a path.
#[derive(Debug, Default)]
struct Way {
    sent: Vec<Segment>,
    /// When what was sent last is there, with all before it.
    whole_at: Duration,
    /// The next segment is lost, and is there at `whole_at`.
    loses_next: bool,
    /// Octets that have not arrived, in order, and when they do.
    octets: VecDeque<(Duration, Vec<u8>)>,
}

/// What was sent at a time.
#[derive(Clone, Copy, Debug)]
struct Segment {
    at: Duration,
    /// When it came, if it was not lost when it was sent first.
    came_at: Option<Duration>,
    /// When it is there, and all that was sent before it.
    whole_at: Duration,
}

impl Path {
    pub(super) fn new(manner: Manner, seed: u64) -> Self {
        let rng = Random::new(seed);
        Self { manner, ways: Default::default(), out_of_order_seen: 0, told_at: Vec::new(), rng }
    }

    /// Octets are sent. Returns when they arrive; [`NEVER`] is possible.
    pub(super) fn send(&mut self, direction: Direction, at: Duration, octets: Vec<u8>) -> Duration {
        let is_silent = |at| self.manner.is_silent(direction, at);
        let way = &mut self.ways[direction as usize];
        let arrival = |at: Duration| at.saturating_add(self.manner.delay);
        let is_behind = arrival(at) < way.whole_at;
        let is_lost_now = std::mem::take(&mut way.loses_next) && is_behind || is_silent(at);
        let mut came_at = (!is_lost_now).then(|| arrival(at));
        if !is_behind {
            // The first time, and each time that it is sent again.
            let mut tries = self.manner.again(at);
            let mut is_lost = |at| {
                let may_be_lost = self.manner.loss > 0 && at < self.manner.loss_ends;
                may_be_lost && self.rng.chance(self.manner.loss) || is_silent(at)
            };
            let gets_through = if is_lost(at) { tries.find(|at| !is_lost(*at)) } else { Some(at) };
            came_at = came_at.filter(|_| gets_through == Some(at));
            way.whole_at = gets_through.map_or(NEVER, arrival);
        }
        way.sent.push(Segment { at, came_at, whole_at: way.whole_at });
        way.octets.push_back((way.whole_at, octets));
        way.whole_at
    }

    /// The octets that have arrived and were not taken yet.
    pub(super) fn take(&mut self, direction: Direction, at: Duration) -> Vec<u8> {
        let under_way = &mut self.ways[direction as usize].octets;
        let mut octets = Vec::new();
        while let Some((arrives_at, _)) = under_way.front()
            && *arrives_at <= at
        {
            octets.extend(under_way.pop_front().into_iter().flat_map(|(_, octets)| octets));
        }
        octets
    }

    pub(super) fn is_empty(&self, direction: Direction) -> bool {
        self.ways[direction as usize].octets.is_empty()
    }

    /// What was sent from there arrives no more.
    pub(super) fn discard(&mut self, direction: Direction) {
        self.ways[direction as usize].octets.clear();
    }

    /// The next segment of this direction is lost, and again when it is sent again, for so long.
    pub(super) fn hold(&mut self, direction: Direction, at: Duration, length: Duration) {
        let way = &mut self.ways[direction as usize];
        way.loses_next |= way.whole_at <= at;
        way.whole_at = way.whole_at.max(at) + length;
    }

    /// Nothing arrives any more.
    pub(super) fn forget(&mut self, at: Duration) {
        for direction in [Direction::ToServer, Direction::FromServer] {
            self.manner.silences.push((direction, at, NEVER));
        }
    }

    /// Whether TCP at this end says, when it is asked, that segments are missing (`TCP_INFO`).
    pub(super) fn inspect(&mut self, at: Duration) -> bool {
        let out_of_order = self.out_of_order(at).count();
        let is_news = std::mem::replace(&mut self.out_of_order_seen, out_of_order) < out_of_order;
        let is_losing = is_news || self.is_sending_again(at);
        if is_losing {
            self.told_at.push(at);
        }
        is_losing
    }

    /// Whether TCP at this end knew then that segments were missing.
    pub(super) fn misses(&self, at: Duration) -> bool {
        self.is_sending_again(at) || self.out_of_order(at).any(|it| at < it.whole_at)
    }

    /// Whether octets came from the server between these times.
    pub(super) fn brought_between(&self, from: Duration, until: Duration) -> bool {
        let mut sent = self.ways[Direction::FromServer as usize].sent.iter();
        sent.any(|it| from < it.whole_at && it.whole_at < until)
    }

    /// When the first octets come from the server.
    pub(super) fn brings_first_at(&self) -> Option<Duration> {
        self.ways[Direction::FromServer as usize].sent.first().map(|it| it.whole_at)
    }

    /// When octets came from the server, and whether they or what they answer had been held up without this end being
    /// told. No round trip takes longer than this.
    pub(super) fn arrivals(&self, round_trip: Duration) -> impl Iterator<Item = (Duration, bool)> {
        let sent = self.ways[Direction::FromServer as usize].sent.iter();
        sent.map(move |it| {
            let (from, until) = (it.at.saturating_sub(round_trip), it.whole_at);
            let was_told = || self.told_at.iter().any(|at| (from..until).contains(at));
            (until, !self.is_well_between(from, until) && !was_told())
        })
    }

    /// Whether nothing was lost between these times, and nothing missing.
    pub(super) fn is_well_between(&self, from: Duration, until: Duration) -> bool {
        let is_silent = |&(_, begin, end): &(_, Duration, Duration)| begin <= until && from < end;
        let lacks =
            |it: &Segment| it.at <= until && from < it.whole_at && it.came_at != Some(it.whole_at);
        let mut sent = self.ways.iter().flat_map(|way| &way.sent);
        !self.manner.silences.iter().any(is_silent) && !sent.any(lacks)
    }

    /// Segments that came before one that was sent earlier.
    fn out_of_order(&self, at: Duration) -> impl Iterator<Item = &Segment> {
        let sent = self.ways[Direction::FromServer as usize].sent.iter();
        sent.filter(move |it| it.came_at.is_some_and(|came| came <= at && came < it.whole_at))
    }

    /// Something that was sent from here has no acknowledgement, and was sent again, or one came for what was sent
    /// after it.
    fn is_sending_again(&self, at: Duration) -> bool {
        let sent = &self.ways[Direction::ToServer as usize].sent;
        let missing = sent.iter().position(|it| !self.is_acknowledged(it, at));
        missing.is_some_and(|first| {
            let is_due = self.manner.again(sent[first].at).next().is_some_and(|due| due <= at);
            let passed = sent[first..].iter().filter_map(|it| it.came_at);
            let mut passed = passed.filter(|_| sent[first].came_at.is_none());
            sent[first].at <= at && (is_due || passed.any(|came| self.answers(came, at)))
        })
    }

    /// Whether an acknowledgement that leaves the server at that time is here by then.
    fn answers(&self, leaves: Duration, by: Duration) -> bool {
        let is_silent = self.manner.is_silent(Direction::FromServer, leaves);
        !is_silent && leaves.saturating_add(self.manner.delay) <= by
    }

    fn is_acknowledged(&self, segment: &Segment, by: Duration) -> bool {
        let again = self.manner.again(segment.at).take_while(|at| *at <= by);
        let again = again.filter(|at| !self.manner.is_silent(Direction::ToServer, *at));
        let arrivals = again.map(|at| at + self.manner.delay);
        let later = self.ways[0].sent.iter().filter(|it| it.at > segment.at);
        let arrivals = arrivals.chain(later.filter_map(|it| it.came_at));
        let mut acknowledgements = arrivals.filter(|at| *at >= segment.whole_at);
        self.answers(segment.whole_at, by) || acknowledgements.any(|at| self.answers(at, by))
    }
}

impl Manner {
    fn is_silent(&self, direction: Direction, at: Duration) -> bool {
        let mut of_it = self.silences.iter().filter(|(of, ..)| *of == direction);
        of_it.any(|(_, from, until)| (*from..*until).contains(&at))
    }

    /// When what is sent then and not acknowledged is sent again: after 200 ms and a round trip, and twice as long
    /// each time.
    fn again(&self, at: Duration) -> impl Iterator<Item = Duration> + use<> {
        let first = RETRANSMISSION_MIN + 2 * self.delay;
        (1..=RETRANSMISSIONS).map(move |nth| at + first * ((1 << nth) - 1))
    }
}

/// What is sent when nothing arrives any more.
pub(super) const NEVER: Duration = Duration::MAX;

/// Linux: `TCP_RTO_MIN`.
const RETRANSMISSION_MIN: Duration = Duration::from_millis(200);

/// Linux: `net.ipv4.tcp_retries2`.
const RETRANSMISSIONS: u32 = 15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ms;

    const TO: Direction = Direction::ToServer;
    const FROM: Direction = Direction::FromServer;

    fn path(delay: u64, loss: u64, silences: &[(Direction, u64, u64)]) -> Path {
        let silences = silences.iter().map(|(way, from, until)| (*way, ms(*from), ms(*until)));
        let silences = silences.collect();
        let manner = Manner { delay: ms(delay), loss, loss_ends: NEVER, silences };
        Path::new(manner, 1)
    }

    /// When what is sent at these times arrives, in milliseconds.
    fn arrivals(path: &mut Path, direction: Direction, sent: &[u64]) -> Vec<u64> {
        let mut send = |at: &u64| path.send(direction, ms(*at), vec![0]).as_millis() as u64;
        sent.iter().map(&mut send).collect()
    }

    #[test]
    fn a_lost_segment_holds_up_what_follows_until_it_is_sent_again() {
        // Sent at 10, 250, 730 ms, and so on.
        let mut path = path(20, 0, &[(FROM, 0, 300)]);
        assert_eq!(arrivals(&mut path, TO, &[0, 10]), [20, 30]);
        let sent = [10, 200, 400, 749, 750, 751];
        assert_eq!(arrivals(&mut path, FROM, &sent), [750, 750, 750, 769, 770, 771]);
        assert_eq!(path.take(FROM, ms(749)), []);
        assert_eq!(path.take(FROM, ms(750)), [0; 3]);
        assert!(!path.is_empty(FROM) && !path.is_empty(TO));
    }

    #[test]
    fn stalls_are_of_200_ms_and_doubling() {
        let mut path = path(0, 300, &[]);
        let mut seen = std::collections::BTreeMap::<u64, usize>::new();
        for n in 0..1000 {
            let at = n * 3_600_000;
            *seen.entry(arrivals(&mut path, TO, &[at])[0] - at).or_default() += 1;
        }
        let stalls: Vec<_> = seen.keys().copied().take(4).collect();
        assert_eq!(stalls, [0, 200, 600, 1400], "{seen:?}");
        assert!((600..800).contains(&seen[&0]) && (150..270).contains(&seen[&200]), "{seen:?}");
    }

    #[test]
    fn a_silence_that_does_not_end_lets_nothing_through() {
        let mut path = path(20, 0, &[(TO, 100, u64::MAX)]);
        assert_eq!(path.send(TO, ms(99), vec![1]), ms(119));
        assert_eq!(path.send(TO, ms(100), vec![2]), NEVER);
        assert_eq!(path.send(TO, ms(200), vec![3]), NEVER);
        assert_eq!(path.take(TO, ms(1_000_000)), [1]);
    }

    #[test]
    fn tcp_knows_what_is_missing_as_soon_as_it_can() {
        // Nothing is sent.
        let mut it = path(20, 0, &[(TO, 0, 3000), (FROM, 0, 3000)]);
        assert!(!it.inspect(ms(2000)));
        // What is sent is lost, and sent again after 240 ms.
        for direction in [TO, FROM] {
            let mut it = path(20, 0, &[(direction, 0, 1000)]);
            it.send(TO, ms(10), vec![0]);
            let known: Vec<_> = (0..2500).filter(|at| it.inspect(ms(*at))).collect();
            // Sent again at 250, 730 and 1,690 ms, where the answer to that is here 40 ms later.
            assert_eq!((known[0], known.len()), (250, 1730 - 250), "{direction:?}");
        }
        // One segment is lost, and the next is acknowledged.
        let mut it = path(20, 0, &[(TO, 0, 15)]);
        it.send(TO, ms(10), vec![0]);
        it.send(TO, ms(30), vec![0]);
        let known: Vec<_> = (0..2500).filter(|at| it.inspect(ms(*at))).collect();
        assert_eq!((known[0], known.len()), (70, 250 + 40 - 70));
        // Of what is lost on the way here TCP knows from what follows alone, and tells it once.
        let mut it = path(20, 0, &[(FROM, 0, 15)]);
        it.send(FROM, ms(10), vec![0]);
        assert!(!it.inspect(ms(200)));
        it.send(FROM, ms(210), vec![0]);
        let known: Vec<_> = (200..2500).filter(|at| it.inspect(ms(*at))).collect();
        assert_eq!(known, [230]);
    }

    #[test]
    fn answers_are_held_up_unnoticed_until_this_end_is_told() {
        // The second query is lost, and the answer to the third.
        for (asks_at, was_held_up) in [(None, true), (Some(150), false)] {
            let mut it = path(10, 0, &[(TO, 100, 101), (FROM, 1010, 1011)]);
            for (direction, at) in [(TO, 0), (FROM, 10), (TO, 100), (FROM, 330), (TO, 1000)] {
                it.send(direction, ms(at), vec![0]);
            }
            it.send(FROM, ms(1010), vec![0]);
            it.send(TO, ms(1020), vec![0]);
            it.send(FROM, ms(1030), vec![0]);
            if let Some(at) = asks_at {
                assert!(!it.inspect(ms(at)) && it.inspect(ms(325)) && it.inspect(ms(1100)));
            }
            let arrivals: Vec<_> = it.arrivals(ms(20)).collect();
            let late = [ms(340), ms(1240), ms(1240)].map(|at| (at, was_held_up));
            assert_eq!(arrivals, [&[(ms(20), false)][..], &late].concat(), "{asks_at:?}");
        }
    }

    #[test]
    fn what_is_held_is_missing() {
        for direction in [TO, FROM] {
            let mut it = path(0, 0, &[]);
            it.hold(direction, ms(100), ms(500));
            assert_eq!(arrivals(&mut it, direction, &[110, 120, 650]), [600, 600, 650]);
            let known: Vec<_> = (100..700).filter(|at| it.inspect(ms(*at))).collect();
            assert_eq!(known[0], 120, "{direction:?}");
        }
    }

    #[test]
    fn what_was_acknowledged_before_all_was_forgotten_is_not_missing() {
        let mut it = path(20, 0, &[]);
        it.send(TO, ms(0), vec![0]);
        it.forget(ms(30));
        assert!(!it.inspect(ms(5000)));
        it.send(TO, ms(6000), vec![0]);
        assert!(!it.inspect(ms(6239)) && it.inspect(ms(6240)));
    }
}
