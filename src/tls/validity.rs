//! When a certificate begins and ends.

use std::str;

/// Seconds from 1970 to the end of this certificate (RFC 5280 section 4.1.2.5). `None`: it is not read, as it is
/// malformed; whether it is any good is for others to say.
pub(super) fn not_after(certificate: &[u8]) -> Option<u64> {
    let (_, _, behind) = element(validity(certificate)?)?;
    time(behind)
}

/// Seconds from 1970 to the beginning, as in [`not_after`]; `None` also for a beginning before 1970.
pub(super) fn not_before(certificate: &[u8]) -> Option<u64> {
    time(validity(certificate)?)
}

/// The beginning and the end of a certificate in DER.
fn validity(certificate: &[u8]) -> Option<&[u8]> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    // Its version, where it is not the first.
    let (tag, _, behind) = element(rest)?;
    if tag == VERSION {
        rest = behind;
    }
    // The serial number, the algorithm and the issuer.
    for _ in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    let (_, validity, _) = element(rest)?;
    Some(validity)
}

/// The time that is the first element in DER, in seconds from 1970.
fn time(octets: &[u8]) -> Option<u64> {
    let (tag, time, _) = element(octets)?;
    let text = str::from_utf8(time).ok()?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = (number(text.get(..2)?)?, text.get(2..)?);
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => (number(text.get(..4)?)?, text.get(4..)?),
        _ => return None,
    };
    let field = |at: usize| number(rest.get(at..at + 2)?);
    let day = days_before(year, field(0)?)?.checked_add(field(2)?)?.checked_sub(1)?;
    Some(((day * 24 + field(4)?) * 60 + field(6)?) * 60 + field(8)?)
}

/// The tag and the content of a first element in DER, and what is behind it.
pub(super) fn element(octets: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = octets.split_first_chunk()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f).min(4))?;
        (len.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), rest)
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Days from 1970 to the first of this month.
fn days_before(year: u64, month: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let days = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    let of_months = DAYS_BEFORE[month as usize - 1] + u64::from(month > 2 && is_leap);
    Some(days + of_months)
}

/// Days before the first of each month.
const DAYS_BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn ends_are_found_in_certificates() {
        let key = KeyPair::generate().unwrap();
        for (year, month, day, expected) in [
            (2026, 11, 28, 1_795_824_000),
            (2024, 2, 29, 1_709_164_800),
            (2024, 3, 1, 1_709_251_200),
            // The first and the last of what has two digits of a year, and one with four.
            (1970, 1, 1, 0),
            (2000, 3, 1, 951_868_800),
            (2049, 12, 31, 2_524_521_600),
            (2050, 1, 1, 2_524_608_000),
            (2100, 3, 1, 4_107_542_400),
        ] {
            let mut params = CertificateParams::new(["dot.example".to_owned()]).unwrap();
            params.not_before = date_time_ymd(1970, 1, 1);
            params.not_after = date_time_ymd(year, month, day);
            let certificate = params.self_signed(&key).unwrap();
            assert_eq!(not_after(certificate.der()), Some(expected), "{year}-{month}-{day}");
            assert_eq!(not_before(certificate.der()), Some(0));
            // Cut anywhere, it does no harm.
            for len in 0..certificate.der().len() {
                let _ends = not_after(&certificate.der()[..len]);
            }
        }
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
