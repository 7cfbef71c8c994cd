//! What networks ask, metered a second time, by which the forwarder is judged.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use dot_proxy::forwarder::{Prefix, Rate};

/// What each network has asked of what it may. It knows every network by itself, so that it agrees with rates
/// that have places for many more networks than ask.
#[derive(Debug)]
pub(super) struct Meter {
    rate: Option<Rate>,
    datagrams: HashMap<Prefix, Level>,
    messages: HashMap<Prefix, Level>,
}

/// What of a network's queries over one transport still counts.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// When none of them does any more.
    over_at: Duration,
    /// Datagrams above the rate since it was last so.
    above: u64,
    /// All that were taken.
    taken: u64,
}

/// What is due to a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    Answer,
    Truncation,
    Nothing,
}

impl Meter {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self { rate, datagrams: HashMap::new(), messages: HashMap::new() }
    }

    /// The network of an address, if it is limited.
    pub(super) fn network(&self, source: IpAddr) -> Option<Prefix> {
        let rate = self.rate.as_ref()?;
        let source = source.to_canonical();
        let (whole, len) = match source {
            IpAddr::V4(_) => (32, rate.v4_len),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => (128, 128),
            IpAddr::V6(_) => (128, rate.v6_len),
        };
        let itself = Prefix::of(source, whole)?;
        let is_exempt = rate.exempt.iter().any(|exempt| itself.is_within(exempt));
        Prefix::of(source, len).filter(|_| !is_exempt)
    }

    /// A datagram comes from a source that is served.
    pub(super) fn take_by_datagram(&mut self, at: Duration, source: IpAddr) -> Allowance {
        let Some(network) = self.network(source) else {
            return Allowance::Answer;
        };
        let (interval, most) = (self.interval(), self.burst_time());
        let level = self.datagrams.entry(network).or_default();
        if level.over_at <= at {
            *level = Level { over_at: at, above: 0, ..*level };
        }
        if level.over_at + interval <= at + most {
            level.over_at += interval;
            level.taken += 1;
            return Allowance::Answer;
        }
        level.above += 1;
        if level.above % 2 == 1 { Allowance::Truncation } else { Allowance::Nothing }
    }

    /// A message is taken over TCP, be it above the rate or not.
    pub(super) fn take_on_stream(&mut self, at: Duration, source: IpAddr) {
        if let Some(network) = self.network(source) {
            let interval = self.interval();
            let level = self.messages.entry(network).or_default();
            level.over_at = level.over_at.max(at) + interval;
            level.taken += 1;
        }
    }

    /// How many messages may be read from here over TCP; `None` if that is not limited.
    pub(super) fn left_on_stream(&self, at: Duration, source: IpAddr) -> Option<usize> {
        let network = self.network(source)?;
        let left = self.burst_time().saturating_sub(self.used(at, network));
        Some((left.as_nanos() / self.interval().as_nanos()) as usize)
    }

    /// How many messages were taken over TCP in all.
    pub(super) fn taken_on_stream(&self, network: Prefix) -> u64 {
        self.messages.get(&network).map_or(0, |level| level.taken)
    }

    /// How many more must be in so long a time after `at`, if some wait all the time: the forwarder looks ten
    /// times a second, and what is left to a network does not grow beyond its burst meanwhile.
    pub(super) fn due_on_stream(&self, at: Duration, length: Duration, network: Prefix) -> u64 {
        let time = length.saturating_sub(self.used(at, network));
        (time.as_nanos() / (self.interval() + LOOK).as_nanos()) as u64
    }

    fn used(&self, at: Duration, network: Prefix) -> Duration {
        let level = self.messages.get(&network).copied().unwrap_or_default();
        level.over_at.saturating_sub(at)
    }

    fn interval(&self) -> Duration {
        let per_second = self.rate.as_ref().map_or(1, |rate| rate.per_second);
        Duration::from_nanos(1_000_000_000 / u64::from(per_second))
    }

    fn burst_time(&self) -> Duration {
        self.interval() * self.rate.as_ref().map_or(1, |rate| rate.burst)
    }
}

/// The longest time between two looks at what is left to a network, with what a turn is late.
const LOOK: Duration = Duration::from_millis(120);
