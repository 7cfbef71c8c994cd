//! What went wrong, in words for the person who runs this program: what was expected, what was
//! seen.

use std::fmt;

use rustls::pki_types::{UnixTime, pem};
use rustls::{AlertDescription, CertificateError};

use super::FailedAt;
use super::chain::TooCostly;
use super::pins::WrongKey;

/// `trust` is the roots in words, if they count.
pub(super) fn certificate_words(error: &CertificateError, trust: Option<&str>) -> String {
    // Where no root counts, no issuer's signature does.
    let is_own = *error == CertificateError::BadSignature && trust.is_none();
    let trust = trust.unwrap_or_default();
    match error {
        _ if is_own => "the server does not have the key that its certificate shows".into(),
        CertificateError::BadEncoding => "the certificate is malformed".into(),
        CertificateError::BadSignature => format!(
            "a signature is wrong: the issuer has the name, but not the key, of {trust}, which may \
             have been replaced since the start"
        ),
        CertificateError::Expired => "the certificate has expired".into(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("the certificate expired on {}, {}", date(*not_after), clock_words(*time))
        }
        CertificateError::InvalidPurposeContext { presented, .. } => {
            let allowed: Vec<_> = presented.iter().map(ToString::to_string).collect();
            format!(
                "the certificate is not for a server; its extended key usage allows {}",
                list(&allowed, "nothing")
            )
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            if presented.is_empty() {
                return format!(
                    "the certificate has no subjectAltName, and the common name does not count; \
                     {expected} was expected"
                );
            }
            let names: Vec<_> = presented.iter().map(|name| presented_name(name)).collect();
            format!("the certificate is for {}, not for {expected}", list(&names, ""))
        }
        CertificateError::NotValidYet => "the certificate is not valid yet".into(),
        CertificateError::NotValidYetContext { time, not_before } => {
            let from = date(*not_before);
            format!("the certificate is not valid before {from}, {}", clock_words(*time))
        }
        CertificateError::Revoked => "the certificate is revoked".into(),
        CertificateError::UnhandledCriticalExtension => {
            "the certificate has a critical extension that is not understood".into()
        }
        CertificateError::UnknownIssuer => format!(
            "the certificate is self-signed or from an unknown issuer; one that leads to {trust} \
             was expected"
        ),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the certificate is signed with an algorithm that is not supported".into()
        }
        CertificateError::Other(error) if error.to_string() == "CaUsedAsEndEntity" => {
            "the certificate is that of a CA; one for a server was expected".into()
        }
        CertificateError::Other(error) if error.0.is::<WrongKey>() || error.0.is::<TooCostly>() => {
            error.to_string()
        }
        CertificateError::Other(error) => {
            format!("the certificate cannot be verified: {}", camel_words(&error.0))
        }
        other => format!("the certificate cannot be verified: {}", camel_words(other)),
    }
}

pub(super) fn alert_words(alert: AlertDescription, at: FailedAt) -> String {
    let words = camel_words(&alert);
    match alert {
        _ if !matches!(at, FailedAt::Handshake | FailedAt::Negotiation) => {
            format!("the server closed with an alert: {words}")
        }
        AlertDescription::CloseNotify => CLOSED_DURING_HANDSHAKE.into(),
        AlertDescription::NoApplicationProtocol => {
            "the server does not speak DNS (ALPN \"dot\") on this port".into()
        }
        AlertDescription::ProtocolVersion => OLD_TLS.into(),
        _ => format!("the server refused the handshake: {words} (alert)"),
    }
}

/// The sense of a wrong clock is easily missed in a list of dates.
fn clock_words(now: UnixTime) -> String {
    if now.as_secs() < CLOCK_MIN {
        format!("but the system clock is wrong: it says {}", date(now))
    } else {
        format!("and the system clock says {}", date(now))
    }
}

pub(super) fn pem_words(error: &pem::Error) -> String {
    match error {
        pem::Error::Base64Decode(_) => "it is not valid base64".into(),
        pem::Error::IllegalSectionStart { .. } => "its BEGIN line is malformed".into(),
        pem::Error::MissingSectionEnd { .. } => "its END line is missing".into(),
        other => other.to_string(),
    }
}

/// "no kx groups in common" of `NoKxGroupsInCommon`, "unknown CA" of `UnknownCA`.
pub(super) fn camel_words(name: &dyn fmt::Debug) -> String {
    let name = format!("{name:?}");
    let mut words: Vec<String> = Vec::new();
    let mut previous_lower = true;
    let mut chars = name.chars().peekable();
    while let Some(char) = chars.next() {
        let starts_word = char.is_ascii_uppercase()
            && (previous_lower || chars.peek().is_some_and(char::is_ascii_lowercase));
        previous_lower = !char.is_ascii_uppercase();
        match words.last_mut() {
            Some(word) if !starts_word => word.push(char),
            _ => words.push(char.into()),
        }
    }
    for word in &mut words {
        if word.len() == 1 || word.chars().any(|char| char.is_ascii_lowercase()) {
            word.make_ascii_lowercase();
        }
    }
    words.join(" ")
}

/// The name in rustls' `DnsName("dns.example")` or `IpAddress(192.0.2.1)`, fit for a terminal.
fn presented_name(presented: &str) -> String {
    let name = presented
        .split_once('(')
        .and_then(|(_, name)| name.strip_suffix(')'))
        .unwrap_or(presented)
        .trim_matches('"');
    name.escape_debug().to_string()
}

/// "a, b, c, d and 3 more"
fn list(items: &[String], none: &str) -> String {
    const SHOWN_MAX: usize = 4;
    match items.split_at_checked(SHOWN_MAX) {
        _ if items.is_empty() => none.into(),
        Some((shown, rest @ [_, ..])) => format!("{} and {} more", shown.join(", "), rest.len()),
        _ => items.join(", "),
    }
}

/// "2025-01-31 23:59:59 UTC"
fn date(time: UnixTime) -> String {
    let (days, second) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    // The civil calendar, counted in eras of 400 years from 0000-03-01, so that a leap day is the
    // last day of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next_year;
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC", second % 60)
}

pub(super) const CLOSED_DURING_HANDSHAKE: &str = "closed by the server during the handshake";
pub(super) const OLD_TLS: &str = "the server offers no TLS 1.2 or 1.3";

/// 2024-01-01. A clock that says less was never set.
const CLOCK_MIN: u64 = 1_704_067_200;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::PeerIncompatible;

    use super::*;

    #[test]
    fn names_of_errors_become_words() {
        for (error, words) in [
            (&AlertDescription::UnknownPSKIdentity as &dyn fmt::Debug, "unknown PSK identity"),
            (&AlertDescription::UnknownCA, "unknown CA"),
            (&AlertDescription::HandshakeFailure, "handshake failure"),
            (&PeerIncompatible::NoKxGroupsInCommon, "no kx groups in common"),
        ] {
            assert_eq!(camel_words(error), words);
        }
    }

    #[test]
    fn presented_names_are_fit_for_a_terminal() {
        assert_eq!(presented_name("DnsName(\"a.example\")"), "a.example");
        assert_eq!(presented_name("IpAddress(192.0.2.1)"), "192.0.2.1");
        assert_eq!(presented_name("DnsName(\"\u{1b}[2J\n\")"), "\\u{1b}[2J\\n");
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (253_402_300_799, "9999-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(date(UnixTime::since_unix_epoch(Duration::from_secs(seconds))), text);
        }
    }
}
