//! Values that are whole numbers.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::sizes;

pub(super) fn seconds(value: &str) -> Result<Duration, String> {
    whole_number(value, &IDLE_SECONDS, " seconds").map(Duration::from_secs)
}

pub(super) fn drain(value: &str) -> Result<Duration, String> {
    whole_number(value, &DRAIN_SECONDS, " seconds").map(Duration::from_secs)
}

pub(super) fn clients(value: &str) -> Result<usize, String> {
    whole_number(value, &TCP_CLIENTS, "")
}

pub(super) fn wait_limit(value: &str) -> Result<usize, String> {
    if value.eq_ignore_ascii_case("off") {
        return Ok(usize::MAX);
    }
    let most = *sizes::QUERIES_MAX.last().unwrap_or(&0);
    whole_number(value, &(1..=most), "").map_err(|problem| format!("{problem}, or off"))
}

pub(super) fn udp_size(value: &str) -> Result<u16, String> {
    whole_number(value, &UDP_SIZES, "")
}

/// `unit` follows a number.
pub(super) fn whole_number<T>(
    value: &str,
    range: &RangeInclusive<T>,
    unit: &str,
) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let (min, max) = (range.start(), range.end());
    let of = if unit.is_empty() { "" } else { " of" };
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        // What no integer holds is a number all the same.
        _ if value.bytes().all(|octet| octet.is_ascii_digit()) => {
            Err(format!("is out of range: {min} to {max}{unit}"))
        }
        _ => Err(format!("is not a number{of}{unit}; write a whole number from {min} to {max}")),
    }
}

/// Below 1 s a connection would hardly outlive a round trip; connections to upstreams are replaced
/// after about an hour anyway.
pub(super) const IDLE_SECONDS: RangeInclusive<u64> = 1..=3600;

/// Load balancers notice within seconds; longer than an hour, nobody means.
pub(super) const DRAIN_SECONDS: RangeInclusive<u64> = 0..=3600;

/// What every client takes (RFC 1035 section 4.2.1), and what RFC 5625 section 4.4.3 asks for.
pub(super) const UDP_SIZES: RangeInclusive<u16> = 512..=4096;

/// DNS over TCP is not optional (RFC 7766 section 5), so the least is 1. Ten thousand connections may keep
/// 180 MB of buffers, and every close looks through those of its address.
pub(super) const TCP_CLIENTS: RangeInclusive<usize> = 1..=10_000;
