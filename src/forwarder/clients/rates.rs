//! How much each network may ask.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::access::{Prefix, Ranges, shown_prefixes};
use crate::forwarder::outbox::Outbox;
use crate::forwarder::report::Notice;

/// How much each network may ask, over UDP and over TCP each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Queries a second, at least 1.
    pub per_second: u32,
    /// Queries at once after a pause, at least 1.
    pub burst: u32,
    /// Bits of an IPv4 address that say which network it is in.
    pub v4_len: u8,
    /// The same of an IPv6 address.
    pub v6_len: u8,
    /// Networks that may ask as much as they like.
    pub exempt: Vec<Prefix>,
    /// Networks that are told apart at a time, a power of two.
    pub places: usize,
}

impl Rate {
    /// The network of an address.
    pub(crate) fn network(&self, source: IpAddr) -> Option<Prefix> {
        match source.to_canonical() {
            v4 @ IpAddr::V4(_) => Prefix::of(v4, self.v4_len),
            // All neighbours are in one prefix.
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Prefix::of(v6.into(), 128),
            v6 @ IpAddr::V6(_) => Prefix::of(v6, self.v6_len),
        }
    }

    /// Octets that it takes beside the structure, with what is known of networks.
    pub fn octets(&self) -> usize {
        let exempt = self.exempt.len();
        3 * exempt * size_of::<Prefix>() + Ranges::octets(exempt) + Self::table_octets(self.places)
    }

    /// Octets of what is known of so many networks.
    pub const fn table_octets(places: usize) -> usize {
        buckets(places) * size_of::<Bucket>()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_second, burst, v4_len, v6_len, exempt, .. } = self;
        write!(
            f,
            "each network (/{v4_len}, /{v6_len}) may ask {per_second} queries a second, {burst} at once, over \
             UDP and TCP each"
        )?;
        if !exempt.is_empty() {
            write!(f, ", but for {}", shown_prefixes(exempt))?;
        }
        Ok(())
    }
}

/// What networks have asked lately, in a table that does not grow.
///
/// A network has its bucket until that is full again, when it is like one that never asked: so nobody is
/// forgotten, however many sources are forged. A network that finds no free place shares one with others.
#[derive(Debug)]
pub(crate) struct Rates {
    rate: Rate,
    exempt: Ranges,
    seed: u64,
    /// What times are counted from: a bucket that was never used is full then.
    epoch: Option<Instant>,
    /// Sets of [`WAYS`], and behind them those of each set that are shared, one for each transport: datagrams from
    /// forged addresses take nothing from what is shared over TCP.
    buckets: Vec<Bucket>,
    /// The networks that the log names as above the rate.
    named: [Option<Named>; LINES_MAX],
    /// When the log has more to say of the first of them.
    due: Option<Instant>,
    /// Networks that are above the rate over UDP, too, and are not named.
    unnamed: u32,
}

/// A network that the log names as above the rate.
#[derive(Clone, Copy, Debug)]
struct Named {
    network: Prefix,
    over_tcp: bool,
    /// When the log named it last.
    at: Instant,
    /// When it was above the rate last.
    last: Instant,
    /// Datagrams above the rate so far.
    above: u64,
}

/// What is left to a network over one transport.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// A part of the hash of network and transport.
    tag: u32,
    /// Datagrams above the rate since it was full.
    above: u32,
    /// When it is full, in nanoseconds.
    full_at: u64,
}

/// What a datagram gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    Answer,
    /// TC, so that a client whose address is its own asks over TCP.
    Truncation,
    Nothing,
}

#[derive(Clone, Copy, Debug, Hash)]
enum Transport {
    Udp,
    Tcp,
}

impl Rates {
    pub(crate) fn new(rate: Rate, seed: u64) -> Self {
        let exempt: Vec<_> = rate.exempt.iter().map(|prefix| (*prefix, true)).collect();
        Self {
            exempt: Ranges::new(&exempt),
            seed,
            epoch: None,
            buckets: vec![Bucket::default(); buckets(rate.places)],
            named: [None; LINES_MAX],
            due: None,
            unnamed: 0,
            rate,
        }
    }

    /// What networks have asked counts here, too, if only other ones are exempt.
    pub(crate) fn take_over(&mut self, mut before: Self) {
        before.rate.exempt.clone_from(&self.rate.exempt);
        if before.rate == self.rate {
            std::mem::swap(&mut self.exempt, &mut before.exempt);
            *self = before;
        }
    }

    /// A datagram came from here.
    pub(crate) fn take_by_datagram(&mut self, now: Instant, source: SocketAddr) -> Allowance {
        if self.exempt.contains(source.ip()) {
            return Allowance::Answer;
        }
        let (at, most) = (self.nanoseconds(now), self.burst_time() - self.interval());
        let interval = self.interval();
        let bucket = self.bucket_mut(at, source, Transport::Udp);
        if bucket.full_at <= at + most {
            bucket.full_at = bucket.full_at.max(at) + interval;
            return Allowance::Answer;
        }
        bucket.above = bucket.above.wrapping_add(1);
        if bucket.above % 2 == 1 { Allowance::Truncation } else { Allowance::Nothing }
    }

    /// A message came from here over TCP. It is taken in any case.
    pub(crate) fn take_on_stream(&mut self, now: Instant, source: SocketAddr) {
        if !self.exempt.contains(source.ip()) {
            let (at, interval) = (self.nanoseconds(now), self.interval());
            let bucket = self.bucket_mut(at, source, Transport::Tcp);
            bucket.full_at = bucket.full_at.max(at) + interval;
        }
    }

    /// How many messages may be read from here over TCP.
    pub(crate) fn left_on_stream(&mut self, now: Instant, source: SocketAddr) -> usize {
        if self.exempt.contains(source.ip()) {
            return usize::MAX;
        }
        let at = self.nanoseconds(now);
        let bucket = self.bucket(at, self.hash(source, Transport::Tcp), Transport::Tcp);
        let used = self.buckets[bucket].full_at.saturating_sub(at);
        (self.burst_time().saturating_sub(used) / self.interval()) as usize
    }

    /// Takes note that the network of this source has asked more than it may. The log names few networks at a time,
    /// each once a minute while that goes on.
    pub(crate) fn log(
        &mut self,
        now: Instant,
        source: SocketAddr,
        over_tcp: bool,
        outbox: &mut Outbox,
    ) {
        let Some(network) = self.rate.network(source.ip()) else { return };
        let datagrams = u64::from(!over_tcp);
        let mut named = self.named.iter_mut().flatten();
        if let Some(named) = named.find(|named| named.network == network) {
            named.above += datagrams;
            (named.last, named.over_tcp) = (now, over_tcp);
        } else if let Some(free) = self.named.iter_mut().find(|named| named.is_none()) {
            *free = Some(Named { network, over_tcp, at: now, last: now, above: datagrams });
            self.due.get_or_insert(now + MINUTE);
            self.log_above(network, over_tcp, outbox);
        } else if !over_tcp {
            let at = self.nanoseconds(now);
            let bucket = self.bucket(at, self.hash(source, Transport::Udp), Transport::Udp);
            self.unnamed += u32::from(self.buckets[bucket].above == 1);
        }
    }

    fn log_above(&mut self, network: Prefix, over_tcp: bool, outbox: &mut Outbox) {
        let Rate { per_second, burst, .. } = self.rate;
        let others = std::mem::take(&mut self.unnamed);
        outbox.log(Notice::AboveRate { network, over_tcp, per_second, burst, others });
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Names again who is still above the rate after a minute, and says who is not any more.
    pub(crate) fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        for index in 0..self.named.len() {
            let Some(named) = &mut self.named[index] else { continue };
            let &mut Named { network, over_tcp, at, last, above } = named;
            if now < at + MINUTE {
                continue;
            }
            if now < last + PAUSE {
                named.at = now;
                self.log_above(network, over_tcp, outbox);
            } else {
                self.named[index] = None;
                outbox.log(Notice::WithinRate { network, above });
            }
        }
        self.due = self.named.iter().flatten().map(|named| named.at + MINUTE).min();
    }

    /// Time after which one more may be asked.
    fn interval(&self) -> u64 {
        SECOND / u64::from(self.rate.per_second)
    }

    /// Time in which an empty bucket fills.
    fn burst_time(&self) -> u64 {
        self.interval() * u64::from(self.rate.burst)
    }

    fn nanoseconds(&mut self, now: Instant) -> u64 {
        now.saturating_duration_since(*self.epoch.get_or_insert(now)).as_nanos() as u64
    }

    fn hash(&self, source: SocketAddr, transport: Transport) -> u64 {
        // Of addresses that are not link-local it says nothing.
        let interface = match source {
            SocketAddr::V6(source) if source.ip().is_unicast_link_local() => source.scope_id(),
            _ => 0,
        };
        let mut hasher = DefaultHasher::new();
        (self.seed, self.rate.network(source.ip()), interface, transport).hash(&mut hasher);
        hasher.finish()
    }

    /// Where the bucket is of the network with this hash.
    fn bucket(&self, at: u64, hash: u64, transport: Transport) -> usize {
        let sets = self.rate.places / WAYS;
        let set = hash as usize % sets;
        let ways = set * WAYS..(set + 1) * WAYS;
        let is_in_use = |bucket: &Bucket| at < bucket.full_at;
        let is_own = |bucket: &Bucket| is_in_use(bucket) && bucket.tag == tag(hash);
        let own = ways.clone().find(|place| is_own(&self.buckets[*place]));
        let free = || ways.clone().find(|place| !is_in_use(&self.buckets[*place]));
        own.or_else(free).unwrap_or(self.rate.places + 2 * set + transport as usize)
    }

    fn bucket_mut(&mut self, at: u64, source: SocketAddr, transport: Transport) -> &mut Bucket {
        let hash = self.hash(source, transport);
        let place = self.bucket(at, hash, transport);
        let bucket = &mut self.buckets[place];
        if bucket.full_at <= at {
            *bucket = Bucket { tag: tag(hash), above: 0, full_at: at };
        }
        bucket
    }
}

/// The half of a hash that does not say which set it is.
const fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

const fn buckets(places: usize) -> usize {
    places + 2 * (places / WAYS)
}

/// Buckets in which a network may find a place.
const WAYS: usize = 8;

/// Networks that the log names at a time.
const LINES_MAX: usize = 10;

/// Who has not been above the rate for so long asks no more than it may.
const PAUSE: Duration = Duration::from_secs(10);

const MINUTE: Duration = Duration::from_secs(60);

const SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::action::Action;
    use crate::forwarder::tests::{base, config};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(text: &str) -> SocketAddr {
        (ip(text), 53).into()
    }

    fn rates(per_second: u32, burst: u32, places: usize) -> Rates {
        let exempt = vec![Prefix::of(ip("10.0.0.0"), 8).unwrap()];
        Rates::new(Rate { per_second, burst, v4_len: 32, v6_len: 56, exempt, places }, 1)
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Answered, told to use TCP, and dropped of so many datagrams at a time.
    fn ask(rates: &mut Rates, now: Instant, source: &str, count: usize) -> [usize; 3] {
        let mut got = [0; 3];
        for _ in 0..count {
            got[rates.take_by_datagram(now, at(source)) as usize] += 1;
        }
        got
    }

    #[test]
    fn a_network_gets_its_burst_then_its_rate() {
        let (mut rates, t0) = (rates(10, 20, 256), base());
        let source = "203.0.113.1";
        // At so many milliseconds, so many datagrams, and what they get.
        for (at, count, expected) in [
            (0, 20, [20, 0, 0]),
            (0, 5, [0, 3, 2]),
            (99, 1, [0, 0, 1]),
            (100, 3, [1, 1, 1]),
            (600, 10, [5, 3, 2]),
            // Full again, and no fuller.
            (60_000, 30, [20, 5, 5]),
        ] {
            let got = ask(&mut rates, t0 + ms(at), source, count);
            assert_eq!(got, expected, "{count} after {at} ms");
        }
    }

    #[test]
    fn networks_and_transports_have_a_bucket_each() {
        let (mut rates, t0) = (rates(1, 1, 256), base());
        for (source, expected) in [
            ("203.0.113.1", 1),
            ("203.0.113.1", 0),
            ("::ffff:203.0.113.1", 0),
            ("203.0.113.2", 1),
            // A /56.
            ("2001:db8::1", 1),
            ("2001:db8:0:ff::1", 0),
            ("2001:db8:0:100::1", 1),
            // Exempt.
            ("10.1.1.1", 1),
            ("10.1.1.1", 1),
        ] {
            assert_eq!(ask(&mut rates, t0, source, 1)[0], expected, "{source}");
        }
        assert_eq!(rates.left_on_stream(t0, at("10.1.1.1")), usize::MAX);
        let source = at("203.0.113.1");
        assert_eq!(rates.left_on_stream(t0, source), 1);
        rates.take_on_stream(t0, source);
        assert_eq!(rates.left_on_stream(t0, source), 0);
        // What was read beyond the rate is waited for.
        rates.take_on_stream(t0, source);
        for (after, left) in [(999, 0), (1_999, 0), (2_000, 1), (9_000, 1)] {
            assert_eq!(rates.left_on_stream(t0 + ms(after), source), left, "after {after} ms");
        }
    }

    #[test]
    fn a_flood_of_sources_makes_nobody_forgotten() {
        let (mut rates, t0) = (rates(10, 20, 64), base());
        let abuser = "203.0.113.1";
        let mut answered = 0;
        for second in 0..20 {
            for n in 0..20_u32 {
                let now = t0 + ms(1000 * second + 50 * u64::from(n));
                answered += ask(&mut rates, now, abuser, 50)[0];
                for source in 0..100_u32 {
                    let source = 0x2000_0000 + (second as u32 * 2_000 + n * 100 + source) * 7;
                    rates.take_by_datagram(now, (source.to_be_bytes(), 53).into());
                }
            }
        }
        // Its burst, and ten a second.
        assert!((200..=220).contains(&answered), "{answered}");
        assert_eq!(rates.buckets.len(), buckets(64));
        // Sources for which there is no place get, together, what one gets.
        let now = t0 + ms(60_000);
        let mut all = 0;
        for source in 0..100_000_u32 {
            all += usize::from(
                rates.take_by_datagram(now, (source.to_be_bytes(), 53).into()) == Allowance::Answer,
            );
        }
        assert_eq!(all, 64 + 64 / WAYS * 20);
    }

    #[test]
    fn what_was_asked_counts_when_others_become_exempt() {
        let (source, t0) = ("203.0.113.1", base());
        for (burst, left) in [(20, 0), (30, 30)] {
            let mut before = rates(10, 20, 64);
            assert_eq!(ask(&mut before, t0, source, 50)[0], 20);
            let exempt = vec![Prefix::of(ip("192.0.2.0"), 24).unwrap()];
            let mut after = Rates::new(Rate { exempt, ..rates(10, burst, 64).rate }, 1);
            after.take_over(before);
            assert_eq!(ask(&mut after, t0, source, 50)[0], left);
            assert_eq!(ask(&mut after, t0, "192.0.2.1", 50)[0], 50);
            assert_eq!(ask(&mut after, t0, "10.1.2.3", 50)[0], burst as usize);
        }
    }

    #[test]
    fn a_forged_flood_takes_nothing_from_tcp() {
        let (mut rates, t0) = (rates(10, 20, 64), base());
        for source in 0..100_000_u32 {
            rates.take_by_datagram(t0, (source.to_be_bytes(), 53).into());
        }
        for client in 0..8_u8 {
            let client = SocketAddr::from(([203, 0, 113, client], 53));
            assert!(rates.left_on_stream(t0, client) > 0, "{client}");
        }
    }

    #[test]
    fn link_local_addresses_are_hosts_of_their_own_on_each_interface() {
        let (mut rates, t0) = (rates(1, 1, 256), base());
        for (source, is_answered) in [
            ("[fe80::1%2]:53", true),
            ("[fe80::1%2]:53", false),
            ("[fe80::2%2]:53", true),
            ("[fe80::1%3]:53", true),
            ("[2001:db8::1%2]:53", true),
            ("[2001:db8::1%3]:53", false),
        ] {
            let got = rates.take_by_datagram(t0, source.parse().unwrap());
            assert_eq!(got == Allowance::Answer, is_answered, "{source}");
        }
    }

    /// The lines about rates so far, each with its network: how many others are above, or how much it asked.
    fn lines(outbox: &mut Outbox) -> Vec<(String, Result<u32, u64>)> {
        let line = |action| match action {
            Action::Log(Notice::AboveRate { network, others, .. }) => {
                (network.to_string(), Ok(others))
            }
            Action::Log(Notice::WithinRate { network, above }) => (network.to_string(), Err(above)),
            other => panic!("{other:?}"),
        };
        outbox.actions.drain(..).map(line).collect()
    }

    /// Takes a datagram, and has the log say what it has to.
    fn take(rates: &mut Rates, now: Instant, source: &str, outbox: &mut Outbox) {
        if rates.next_timeout().is_some_and(|at| at <= now) {
            rates.handle_timeout(now, outbox);
        }
        if rates.take_by_datagram(now, at(source)) != Allowance::Answer {
            rates.log(now, at(source), false, outbox);
        }
    }

    #[test]
    fn the_log_names_a_network_once_a_minute_and_says_when_that_is_over() {
        let (mut rates, t0) = (rates(1, 1, 64), base());
        let mut outbox = Outbox::new(&config().limits);
        let (source, shown) = ("2001:db8::1", || "2001:db8::/56".to_owned());
        for at in (0..61_000).step_by(100) {
            take(&mut rates, t0 + ms(at), source, &mut outbox);
        }
        assert_eq!(lines(&mut outbox), [(shown(), Ok(0)), (shown(), Ok(0))]);
        assert_eq!(rates.next_timeout(), Some(t0 + ms(120_100)));
        rates.handle_timeout(t0 + ms(120_099), &mut outbox);
        assert_eq!(lines(&mut outbox), []);
        rates.handle_timeout(t0 + ms(120_100), &mut outbox);
        assert_eq!(lines(&mut outbox), [(shown(), Err(549))]);
        assert_eq!(rates.next_timeout(), None);
    }

    #[test]
    fn the_log_names_few_networks_and_counts_the_others() {
        let (mut rates, t0) = (rates(1, 1, 256), base());
        let mut outbox = Outbox::new(&config().limits);
        for n in 0..30 {
            for _ in 0..5 {
                take(&mut rates, t0 + ms(n), &format!("203.0.113.{n}"), &mut outbox);
            }
        }
        assert_eq!(lines(&mut outbox).len(), LINES_MAX);
        take(&mut rates, t0 + ms(59_000), "203.0.113.3", &mut outbox);
        take(&mut rates, t0 + ms(59_000), "203.0.113.3", &mut outbox);
        take(&mut rates, t0 + ms(60_003), "203.0.113.99", &mut outbox);
        let named = lines(&mut outbox);
        // Those of the first milliseconds; one goes on, and there are twenty that had no line.
        let expected = |n: u8| (format!("203.0.113.{n}/32"), if n == 3 { Ok(20) } else { Err(4) });
        assert_eq!(named, [0, 1, 2, 3].map(expected));
    }
}
