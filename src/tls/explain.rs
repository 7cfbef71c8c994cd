//! Errors of TLS in words for the person who runs this program: what was expected, what was seen.

use std::fmt;

use rustls::pki_types::{UnixTime, pem};
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible, PeerMisbehaved};

use super::Failure;
use super::trust::{RSA_BITS_MAX, RSA_BITS_MIN, TooCostly, Unfit, WrongKey};
use crate::forwarder::Stage;

/// What is known of a connection when an error of rustls comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances<'a> {
    pub(super) is_handshaking: bool,
    /// The `ServerHello` made sense.
    pub(super) has_version: bool,
    /// The roots in words, if the certificate must lead to one.
    pub(super) roots: Option<&'a str>,
    /// A server that asks for a certificate of ours is shown one.
    pub(super) shows_certificate: bool,
}

/// The failure that an error of rustls is.
pub(super) fn failure(error: &Error, circumstances: &Circumstances<'_>) -> Failure {
    let stage = stage(error, circumstances.is_handshaking);
    let is_impostor = is_impostor(error, circumstances);
    Failure { is_impostor, ..Failure::new(stage, words(error, stage, circumstances)) }
}

/// Whether somebody else answered than who was to.
fn is_impostor(error: &Error, circumstances: &Circumstances<'_>) -> bool {
    match error {
        Error::InvalidCertificate(
            CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. }
            | CertificateError::UnknownIssuer,
        ) => true,
        Error::InvalidCertificate(CertificateError::Other(error)) => {
            let unfit = error.0.downcast_ref::<Unfit>();
            matches!(unfit, Some(Unfit::SelfSigned { .. })) || error.0.is::<WrongKey>()
        }
        Error::InvalidMessage(_) => circumstances.is_handshaking && !circumstances.has_version,
        _ => false,
    }
}

fn stage(error: &Error, is_handshaking: bool) -> Stage {
    match error {
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => Stage::Certificate,
        _ if !is_handshaking => Stage::Read,
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        )
        | Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol)
        | Error::AlertReceived(
            AlertDescription::NoApplicationProtocol | AlertDescription::ProtocolVersion,
        ) => Stage::Negotiation,
        _ => Stage::Tls,
    }
}

fn words(error: &Error, stage: Stage, circumstances: &Circumstances<'_>) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate_words(error, circumstances.roots),
        Error::NoCertificatesPresented => "the server sent no certificate".into(),
        Error::AlertReceived(alert) => alert_words(*alert, stage, circumstances.shows_certificate),
        Error::DecryptError => "a record of the server could not be decrypted".into(),
        Error::FailedToGetCurrentTime => "the system clock is set before 1970".into(),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "the server sent a TLS message out of turn".into()
        }
        // rustls takes whatever answers for TLS until the ServerHello does not make sense.
        Error::InvalidMessage(_) if !circumstances.has_version => {
            "the server does not speak TLS on this port".into()
        }
        Error::InvalidMessage(what) => {
            format!("the server sent a malformed TLS message: {}", camel_words(what))
        }
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => OLD_TLS.into(),
        Error::PeerIncompatible(why) => {
            format!("the server and we have too little TLS in common: {}", camel_words(why))
        }
        Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol) => {
            "the server chose another protocol than DNS (ALPN \"dot\")".into()
        }
        Error::PeerMisbehaved(how) => {
            format!("the server broke the TLS protocol: {}", camel_words(how))
        }
        Error::PeerSentOversizedRecord => "the server sent too long a TLS record".into(),
        other => other.to_string(),
    }
}

/// What is wrong with a certificate. `roots` is the roots in words, if the certificate must lead to one.
pub(super) fn certificate_words(error: &CertificateError, roots: Option<&str>) -> String {
    let roots = roots.unwrap_or_default();
    match error {
        CertificateError::BadEncoding => "the certificate is malformed".into(),
        // A wrong signature by an issuer is `Unfit::Signature`.
        CertificateError::BadSignature => {
            "the server does not have the key that its certificate shows".into()
        }
        CertificateError::Expired => "the certificate has expired".into(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!(
                "the certificate expired on {}, {}",
                date(*not_after),
                clock_words(*time, RENEW)
            )
        }
        CertificateError::InvalidPurposeContext { presented, .. } => {
            // A number comes as "1, 3, 6".
            let allowed: Vec<_> = presented
                .iter()
                .map(|purpose| match purpose.to_string().replace(", ", ".") {
                    number if number == ANY_PURPOSE => {
                        "any (anyExtendedKeyUsage), which does not count".into()
                    }
                    other => other,
                })
                .collect();
            format!(
                "the certificate is not for a server; its extended key usage allows {}, and \
                 serverAuth was expected",
                list(&allowed, "nothing")
            )
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            name_words(&expected.to_str(), presented)
        }
        CertificateError::NotValidYet => "the certificate is not valid yet".into(),
        CertificateError::NotValidYetContext { time, not_before } => {
            let from = date(*not_before);
            format!("the certificate is not valid before {from}, {}", clock_words(*time, SET_CLOCK))
        }
        CertificateError::Revoked => "the certificate is revoked".into(),
        CertificateError::UnhandledCriticalExtension => CRITICAL_EXTENSION.into(),
        CertificateError::UnknownIssuer => {
            let what_to_do = if are_in_files(roots) {
                "add the certificate of its CA, which `dot-proxy check` names, to the file of --ca-file"
            } else {
                "if its CA is your own, give that with --ca-file FILE"
            };
            format!(
                "the certificate was not issued by {roots}; {what_to_do}, or have the server send those in between"
            )
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the certificate is signed with an algorithm that is not supported".into()
        }
        CertificateError::Other(error) => match error.0.downcast_ref::<Unfit>() {
            Some(why) => unfit_words(*why, roots),
            None if error.0.is::<WrongKey>() || error.0.is::<TooCostly>() => error.to_string(),
            None => match error.0.downcast_ref() {
                Some(error) => path_words(error),
                None => format!("the certificate cannot be verified: {error}"),
            },
        },
        other => format!("the certificate cannot be verified: {}", camel_words(other)),
    }
}

fn unfit_words(why: Unfit, roots: &str) -> String {
    match why {
        Unfit::Rsa { whose, bits } => {
            let sense = if bits < RSA_BITS_MIN { "weak" } else { "long" };
            format!(
                "{whose} RSA key is too {sense}: it has {bits} bits, and {RSA_BITS_MIN} to \
                 {RSA_BITS_MAX} are taken"
            )
        }
        Unfit::SelfSigned { is_ca, pin } => {
            let what = if is_ca {
                CA_CERTIFICATE.into()
            } else {
                format!("the certificate was not issued by {roots}")
            };
            format!(
                "{what}; it is self-signed: write #{pin} in place of the name if its owner says that \
                 this is its key"
            )
        }
        Unfit::Signature => {
            let what_to_do = if are_in_files(roots) {
                "; once its new certificate is there, SIGHUP has it read again"
            } else {
                ""
            };
            format!(
                "a signature is wrong: the issuer has the name, but not the key, of {roots}{what_to_do}"
            )
        }
    }
}

/// Only roots in files are shown with where they are.
fn are_in_files(roots: &str) -> bool {
    roots.contains(" in ")
}

/// What webpki found wrong, of the things that rustls has no name for.
fn path_words(error: &webpki::Error) -> String {
    match error {
        webpki::Error::CaUsedAsEndEntity => CA_CERTIFICATE.into(),
        webpki::Error::EndEntityUsedAsCa => {
            "the certificate is signed with one that is not that of a CA".into()
        }
        webpki::Error::NameConstraintViolation => {
            "the certificate has a name that an issuer above it may not certify (name constraints)"
                .into()
        }
        webpki::Error::PathLenConstraintViolated | webpki::Error::MaximumPathDepthExceeded => {
            "there are more issuers above the certificate than one of them or we allow".into()
        }
        webpki::Error::UnsupportedCertVersion => {
            "the certificate, or one above it, is of an old version of X.509; version 3 was expected: issue \
             it again with a subjectAltName (openssl x509 -req -extfile), which makes it one"
                .into()
        }
        webpki::Error::UnsupportedCriticalExtension => CRITICAL_EXTENSION.into(),
        other => format!("the certificate cannot be verified: {}", camel_words(other)),
    }
}

/// What a server says by an alert.
fn alert_words(alert: AlertDescription, stage: Stage, shows_certificate: bool) -> String {
    let words = camel_words(&alert);
    let what_to_do = match alert {
        AlertDescription::CertificateRequired => CLIENT_CERTIFICATE,
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
            if shows_certificate =>
        {
            "; it does not accept the certificate of --client-cert"
        }
        _ => "",
    };
    match alert {
        _ if !matches!(stage, Stage::Tls | Stage::Negotiation) => {
            format!("the server closed with an alert: {words}{what_to_do}")
        }
        AlertDescription::CloseNotify => CLOSED_DURING_HANDSHAKE.into(),
        AlertDescription::NoApplicationProtocol => {
            "the server does not speak DNS (ALPN \"dot\") on this port".into()
        }
        AlertDescription::ProtocolVersion => OLD_TLS.into(),
        _ => format!("the server refused the handshake: {words} (alert){what_to_do}"),
    }
}

/// What the system clock says, and that it is wrong if it is: in a list of dates that is easily missed. If it may
/// be right, `what_to_do`.
fn clock_words(now: UnixTime, what_to_do: &str) -> String {
    if now.as_secs() < CLOCK_MIN {
        // The names of NTP servers cannot be looked up before the clock is right.
        format!(
            "but the system clock is wrong: it says {}; set it from an NTP server known by its address, or \
             give a pin in place of this server's name",
            date(now)
        )
    } else {
        format!("and the system clock says {}: {what_to_do}", date(now))
    }
}

/// What is wrong with a certificate in PEM form.
pub(super) fn pem_words(error: &pem::Error) -> String {
    match error {
        pem::Error::Base64Decode(_) => "it is not valid base64".into(),
        pem::Error::IllegalSectionStart { .. } => "its BEGIN line is malformed".into(),
        pem::Error::MissingSectionEnd { .. } => "its END line is missing".into(),
        other => other.to_string(),
    }
}

/// The name of a variant as words: "no kx groups in common" of `NoKxGroupsInCommon`, "unknown CA" of
/// `UnknownCA`.
fn camel_words(name: &dyn fmt::Debug) -> String {
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

/// What is wrong with the names of a certificate.
fn name_words(expected: &str, presented: &[String]) -> String {
    if presented.is_empty() {
        return format!(
            "the certificate has no subjectAltName, and the common name does not count; {expected} was expected"
        );
    }
    let names: Vec<_> = presented.iter().map(|name| presented_name(name)).collect();
    if names.iter().any(|name| name == expected) {
        return format!(
            "the certificate has {expected} as the name of a host, and that is an address: it must have it as an \
             iPAddress (RFC 9525 section 6.5)"
        );
    }
    format!("{NAMES}{}{NOT_FOR}{expected}", list(&names, ""))
}

/// A name that the certificate has instead of the one that was expected, of words that say so.
pub(crate) fn other_name(words: &str) -> Option<&str> {
    let (names, _) = words.strip_prefix(NAMES)?.split_once(NOT_FOR)?;
    let first = names.split(", ").next()?;
    (!first.contains(['*', '\\'])).then_some(first)
}

/// The pin of the key that the server has instead of the one that was expected, of words that say so.
pub(crate) fn other_pin(words: &str) -> Option<&str> {
    words.strip_prefix(KEY)?.split(';').next()
}

/// The name in rustls' `DnsName("dns.example")` or `IpAddress(192.0.2.1)`, fit for a terminal and no longer than
/// names are.
pub(super) fn presented_name(presented: &str) -> String {
    let name = presented
        .split_once('(')
        .and_then(|(_, name)| name.strip_suffix(')'))
        .unwrap_or(presented)
        .trim_matches('"');
    fit_for_terminal(name)
}

/// The beginning of a text of others, without what would move a cursor.
pub(crate) fn fit_for_terminal(text: &str) -> String {
    let end = text.char_indices().nth(TEXT_MAX).map_or(text.len(), |(end, _)| end);
    let more = if end < text.len() { "..." } else { "" };
    format!("{}{more}", text[..end].escape_debug())
}

/// The first items and how many more: "a, b, c, d and 3 more".
pub(crate) fn list(items: &[String], none: &str) -> String {
    const SHOWN_MAX: usize = 4;
    match items.split_at_checked(SHOWN_MAX) {
        _ if items.is_empty() => none.into(),
        Some((shown, rest @ [_, ..])) => format!("{} and {} more", shown.join(", "), rest.len()),
        _ => items.join(", "),
    }
}

/// Date and time: "2025-01-31 23:59:59 UTC".
pub(super) fn date(time: UnixTime) -> String {
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

const NAMES: &str = "the certificate is for ";
const NOT_FOR: &str = ", not for ";

/// In front of the pin of the key that was seen.
pub(super) const KEY: &str = "the server's key is ";

/// Characters of a text of others that are shown: a DNS name has no more.
const TEXT_MAX: usize = 253;

const CLOSED_DURING_HANDSHAKE: &str = "closed by the server during the handshake";
/// Of a server that cannot be spoken with until it has another version.
pub(crate) const OLD_TLS: &str = "the server offers no TLS 1.2 or 1.3";

const RENEW: &str = "have its owner renew it, or set the clock of this host, if that is wrong";
const SET_CLOCK: &str = "set the clock of this host, or have the server's looked at";

const CA_CERTIFICATE: &str = "the certificate is that of a CA; one for a server was expected";

const CLIENT_CERTIFICATE: &str =
    "; it wants a client certificate: give one that it trusts with --client-cert and --client-key";

const CRITICAL_EXTENSION: &str = "the certificate, or one above it, has an extension that is marked \
                                  critical and is not understood here";

/// `anyExtendedKeyUsage` (RFC 5280 section 4.2.1.12).
const ANY_PURPOSE: &str = "2.5.29.37.0";

/// 2024-01-01 in seconds since 1970. A clock that says less was never set.
pub(super) const CLOCK_MIN: u64 = 1_704_067_200;

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn what_is_wrong_with_a_path_is_told_in_words() {
        for (error, words) in [
            (
                webpki::Error::CaUsedAsEndEntity,
                "the certificate is that of a CA; one for a server was expected",
            ),
            (
                webpki::Error::UnsupportedCertVersion,
                "the certificate, or one above it, is of an old version of X.509; version 3 was \
                 expected: issue it again with a subjectAltName (openssl x509 -req -extfile), which makes it \
                 one",
            ),
            (
                webpki::Error::UnsupportedCriticalExtension,
                "the certificate, or one above it, has an extension that is marked critical and is \
                 not understood here",
            ),
            (
                webpki::Error::InvalidSerialNumber,
                "the certificate cannot be verified: invalid serial number",
            ),
        ] {
            assert_eq!(path_words(&error), words);
        }
    }

    #[test]
    fn an_unknown_issuer_is_asked_for_where_it_is_missing() {
        let add = "add the certificate of its CA, which `dot-proxy check` names, to the file of --ca-file, or";
        let give = "if its CA is your own, give that with --ca-file FILE, or";
        let again = "; once its new certificate is there, SIGHUP has it read again";
        for (roots, words, of_signature) in [
            ("the 140 built-in roots", give, ""),
            ("the root in /etc/ca.pem", add, again),
            ("the root in ca.pem or the 140 built-in roots", add, again),
        ] {
            let said = certificate_words(&CertificateError::UnknownIssuer, Some(roots));
            let expected = format!("was not issued by {roots}; {words}");
            assert!(said.contains(&expected), "{said}");
            let said = unfit_words(Unfit::Signature, roots);
            assert!(said.ends_with(&format!(" of {roots}{of_signature}")), "{said}");
        }
    }

    #[test]
    fn keys_that_are_too_weak_are_told_as_such() {
        for (whose, bits, words) in [
            (
                "the server's",
                1_024,
                "the server's RSA key is too weak: it has 1024 bits, and 2048 to 8192 are taken",
            ),
            (
                "an issuer's",
                16_384,
                "an issuer's RSA key is too long: it has 16384 bits, and 2048 to 8192 are taken",
            ),
        ] {
            assert_eq!(unfit_words(Unfit::Rsa { whose, bits }, ""), words);
        }
    }

    #[test]
    fn alerts_say_when_and_what_to_do() {
        let (early, late) = (Stage::Tls, Stage::Read);
        let wants = CLIENT_CERTIFICATE;
        for (alert, at, words) in [
            (
                AlertDescription::CertificateRequired,
                late,
                format!("the server closed with an alert: certificate required{wants}"),
            ),
            (
                AlertDescription::BadCertificate,
                late,
                "the server closed with an alert: bad certificate".to_owned(),
            ),
            (
                AlertDescription::HandshakeFailure,
                early,
                "the server refused the handshake: handshake failure (alert)".to_owned(),
            ),
            (
                AlertDescription::CloseNotify,
                early,
                "closed by the server during the handshake".to_owned(),
            ),
        ] {
            assert_eq!(alert_words(alert, at, false), words, "{alert:?}");
        }
    }

    #[test]
    fn what_there_is_instead_is_found_in_the_words() {
        for (words, name) in [
            ("the certificate is for a.example, not for b.example", Some("a.example")),
            (
                "the certificate is for a.example, c.example and 3 more, not for b",
                Some("a.example"),
            ),
            ("the certificate is for *.example, not for b.example", None),
            ("the certificate is for \\u{1b}, not for b.example", None),
            ("the certificate has expired", None),
        ] {
            assert_eq!(other_name(words), name, "{words}");
        }
        let words = "the server's key is sha256/A; it was expected to be sha256/B";
        assert_eq!(other_pin(words), Some("sha256/A"));
        assert_eq!(other_pin("the certificate has expired"), None);
    }

    #[test]
    fn presented_names_are_fit_for_a_terminal() {
        assert_eq!(presented_name("DnsName(\"a.example\")"), "a.example");
        assert_eq!(presented_name("IpAddress(192.0.2.1)"), "192.0.2.1");
        assert_eq!(presented_name("DnsName(\"\u{1b}[2J\n\")"), "\\u{1b}[2J\\n");
        for (len, shown) in [(253, "ü".repeat(253)), (254, "ü".repeat(253) + "...")] {
            assert_eq!(presented_name(&format!("DnsName(\"{}\")", "ü".repeat(len))), shown);
        }
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
