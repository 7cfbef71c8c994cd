//! How long after a query its answer leaves the upstream.

use std::time::Duration;

use crate::Random;
use crate::message::{HEADER_LEN, question_end};

/// The time that an upstream takes for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// The same for every query.
    Fixed(Duration),
    /// Log-normal, as of a resolver with a cache: half within 15 ms, two in a hundred after more than 800 ms.
    /// A name always takes the same time, so that asking again is of no use.
    Spread,
}

impl Delay {
    /// The time for the answer to a query behind its length.
    pub(super) fn of(self, frame: &[u8]) -> Duration {
        match self {
            Self::Fixed(time) => time,
            Self::Spread => spread(&mut Random::new(name_hash(frame))),
        }
    }
}

fn spread(random: &mut Random) -> Duration {
    let seconds = MEDIAN.as_secs_f64() * (SIGMA * normal(random)).exp();
    Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64()))
}

/// Chance around 0 with a variance of 1 (Box and Muller).
fn normal(random: &mut Random) -> f64 {
    // Above 0, as it has a logarithm, and up to 1.
    let mut uniform = || ((random.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
}

/// FNV-1a of the name asked for, however its letters are written.
fn name_hash(frame: &[u8]) -> u64 {
    let query = frame.get(2..).unwrap_or_default();
    let end = question_end(query).map_or(query.len(), |end| end - 4);
    let name = query.get(HEADER_LEN..end).unwrap_or_default();
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    })
}

const MEDIAN: Duration = Duration::from_millis(15);

/// ln(800 ms / 15 ms) / 2.054, which a normal variable exceeds two times in a hundred.
const SIGMA: f64 = 1.936;

/// A resolver gives up on a name after some time. Without this one answer in 700 would come after more
/// than the 5 s that stub resolvers wait.
const LONGEST: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::queries::Queries;

    #[test]
    fn two_in_a_hundred_take_more_than_800_ms() {
        let queries = Queries::new(7, false);
        let mut frame = queries.frame().to_vec();
        let mut times: Vec<_> = (0..100_000)
            .map(|number| {
                Queries::set(&mut frame[2..], number as u16, number);
                let time = Delay::Spread.of(&frame);
                Queries::set(&mut frame[2..], 1, number);
                assert_eq!(Delay::Spread.of(&frame.to_ascii_uppercase()), time);
                time
            })
            .collect();
        times.sort();

        let median = times[times.len() / 2].as_secs_f64();
        assert!((0.0145..0.0155).contains(&median), "{median} s");
        let over = times.iter().filter(|time| time.as_millis() > 800).count();
        assert!((1_850..2_150).contains(&over), "{over} of {}", times.len());
        assert_eq!(times.last(), Some(&LONGEST));
    }
}
