//! How much each network may ask.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
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
        3 * exempt * size_of::<Prefix>()
            + Ranges::octets(exempt)
            + buckets(self.places) * size_of::<Bucket>()
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
    /// The networks that the log named lately.
    logged: [Option<(Prefix, Instant)>; LINES_MAX],
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
            logged: [None; LINES_MAX],
            rate,
        }
    }

    /// A datagram came from here.
    pub(crate) fn take_by_datagram(&mut self, now: Instant, source: IpAddr) -> Allowance {
        if self.exempt.contains(source) {
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
    pub(crate) fn take_on_stream(&mut self, now: Instant, source: IpAddr) {
        if !self.exempt.contains(source) {
            let (at, interval) = (self.nanoseconds(now), self.interval());
            let bucket = self.bucket_mut(at, source, Transport::Tcp);
            bucket.full_at = bucket.full_at.max(at) + interval;
        }
    }

    /// How many messages may be read from here over TCP.
    pub(crate) fn left_on_stream(&mut self, now: Instant, source: IpAddr) -> usize {
        if self.exempt.contains(source) {
            return usize::MAX;
        }
        let at = self.nanoseconds(now);
        let bucket = self.bucket(at, self.hash(source, Transport::Tcp), Transport::Tcp);
        let used = self.buckets[bucket].full_at.saturating_sub(at);
        (self.burst_time().saturating_sub(used) / self.interval()) as usize
    }

    /// Says that the network of this source has asked more than it may, if a line is due.
    pub(crate) fn log(
        &mut self,
        now: Instant,
        source: IpAddr,
        over_tcp: bool,
        outbox: &mut Outbox,
    ) {
        if let Some(network) = self.take_line(now, source) {
            let Rate { per_second, burst, .. } = self.rate;
            outbox.log(Notice::AboveRate { network, over_tcp, per_second, burst });
        }
    }

    /// The network of a source, if the log may name it now: each once a minute, and few in all.
    fn take_line(&mut self, now: Instant, source: IpAddr) -> Option<Prefix> {
        let network = self.rate.network(source)?;
        let is_recent = |(_, at): &(Prefix, Instant)| now < *at + MINUTE;
        let mut recent = self.logged.iter().flatten().filter(|line| is_recent(line));
        if recent.any(|(other, _)| *other == network) {
            return None;
        }
        let place = self.logged.iter_mut().find(|line| !line.as_ref().is_some_and(is_recent))?;
        *place = Some((network, now));
        Some(network)
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

    fn hash(&self, source: IpAddr, transport: Transport) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, self.rate.network(source), transport).hash(&mut hasher);
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

    fn bucket_mut(&mut self, at: u64, source: IpAddr, transport: Transport) -> &mut Bucket {
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

/// Networks that the log names in a minute.
const LINES_MAX: usize = 10;

const MINUTE: Duration = Duration::from_secs(60);

const SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
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
            got[rates.take_by_datagram(now, ip(source)) as usize] += 1;
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
        assert_eq!(rates.left_on_stream(t0, ip("10.1.1.1")), usize::MAX);
        let source = ip("203.0.113.1");
        assert_eq!(rates.left_on_stream(t0, source), 1);
        rates.take_on_stream(t0, source);
        assert_eq!(rates.left_on_stream(t0, source), 0);
        // What was read beyond the rate is waited for.
        rates.take_on_stream(t0, source);
        for (at, left) in [(999, 0), (1_999, 0), (2_000, 1), (9_000, 1)] {
            assert_eq!(rates.left_on_stream(t0 + ms(at), source), left, "after {at} ms");
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
                    rates.take_by_datagram(now, source.to_be_bytes().into());
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
                rates.take_by_datagram(now, source.to_be_bytes().into()) == Allowance::Answer,
            );
        }
        assert_eq!(all, 64 + 64 / WAYS * 20);
    }

    #[test]
    fn a_forged_flood_takes_nothing_from_tcp() {
        let (mut rates, t0) = (rates(10, 20, 64), base());
        for source in 0..100_000_u32 {
            rates.take_by_datagram(t0, source.to_be_bytes().into());
        }
        for client in 0..8_u8 {
            let client = IpAddr::from([203, 0, 113, client]);
            assert!(rates.left_on_stream(t0, client) > 0, "{client}");
        }
    }

    #[test]
    fn link_local_addresses_are_hosts_of_their_own() {
        let (mut rates, t0) = (rates(1, 1, 256), base());
        for (source, expected) in [("fe80::1", 1), ("fe80::1", 0), ("fe80::2", 1)] {
            assert_eq!(ask(&mut rates, t0, source, 1)[0], expected, "{source}");
        }
    }

    #[test]
    fn the_log_names_each_network_once_a_minute_and_few_in_all() {
        let (mut rates, t0) = (rates(10, 20, 64), base());
        let named = |rates: &mut Rates, at: u64, source: &str| {
            rates.take_line(t0 + ms(at), ip(source)).map(|network| network.to_string())
        };
        assert_eq!(named(&mut rates, 0, "2001:db8::1").as_deref(), Some("2001:db8::/56"));
        assert_eq!(named(&mut rates, 59_999, "2001:db8::2"), None);
        assert_eq!(named(&mut rates, 60_000, "2001:db8::2").as_deref(), Some("2001:db8::/56"));
        let lines =
            (0..30).filter_map(|n| named(&mut rates, 61_000 + n, &format!("203.0.113.{n}")));
        assert_eq!(lines.count(), LINES_MAX - 1);
        assert_eq!(named(&mut rates, 120_000, "203.0.113.29").as_deref(), Some("203.0.113.29/32"));
    }
}
