//! What was found out about an upstream, in words and in JSON.

use std::fmt::{Display, Write};
use std::time::Duration;

use super::failure::Failure;
use crate::config::UpstreamSpec;
use crate::host::log_format::{Quoted, Rfc3339};
use crate::tls::pin::Pin;
use crate::tls::{self, Presented};

/// What was found out about an upstream, as far as it went.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) spec: UpstreamSpec,
    /// The time of day when it was looked at, in seconds from 1970.
    pub(super) now: u64,
    pub(super) connect: Option<Duration>,
    pub(super) tls: Option<Tls>,
    pub(super) certificate: Option<Presented>,
    /// From the beginning to the first answer.
    pub(super) cold: Option<Duration>,
    /// From another question to its answer.
    pub(super) warm: Option<Duration>,
    /// How long a connection may be idle, in units of 100 ms; `None`: it was not said.
    pub(super) keepalive: Option<u16>,
    /// Octets of an answer that is padded.
    pub(super) padded: Option<usize>,
    /// Whether answers overtake each other; `None`: all were too quick to tell.
    pub(super) out_of_order: Option<bool>,
    pub(super) resumption: Option<Resumption>,
    pub(super) failure: Option<Failure>,
}

/// A TLS handshake that came to its end.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) version: &'static str,
    pub(super) cipher_suite: String,
    pub(super) key_exchange: &'static str,
    pub(super) has_alpn: bool,
    pub(super) took: Duration,
}

/// What became of a second connection.
#[derive(Debug)]
pub(super) enum Resumption {
    /// The session was taken up, and an answer came after so long, from the beginning.
    Resumed(Duration),
    /// The server gave no ticket.
    NoTicket,
    /// The server did not take its ticket.
    Refused,
    Failed(Failure),
}

impl Report {
    pub(super) fn new(spec: &UpstreamSpec, now: u64) -> Self {
        Self {
            spec: spec.clone(),
            now,
            connect: None,
            tls: None,
            certificate: None,
            cold: None,
            warm: None,
            keepalive: None,
            padded: None,
            out_of_order: None,
            resumption: None,
            failure: None,
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.failure.is_none()
    }

    /// Whether the server is the one that is meant, as far as its certificate and key go.
    fn is_verified(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the certificate is valid now, by its dates and the clock, as far as both are known.
    pub(super) fn is_in_time(&self) -> bool {
        self.certificate.as_ref().is_none_or(|certificate| {
            certificate.not_before().is_none_or(|start| start <= self.now)
                && certificate.not_after().is_none_or(|end| self.now <= end)
        })
    }

    /// The value of `--upstream` that has the server known by the key that it showed.
    fn pinned(&self, pin: Pin) -> String {
        let mut spec = UpstreamSpec { pins: [pin].into(), ..self.spec.clone() };
        if !self.is_verified() {
            spec.name = None;
            spec.sni = true;
        }
        spec.written()
    }

    /// Days from now to the end of the certificate; below zero: since.
    fn days_left(&self) -> Option<i64> {
        let end = self.certificate.as_ref()?.not_after()?;
        Some((end.cast_signed() - self.now.cast_signed()).div_euclid(DAY))
    }

    /// A block of lines for a person.
    pub(super) fn words(&self) -> String {
        let how = if self.is_usable() { "usable" } else { "not usable" };
        let mut out = format!("{}: {how}\n", self.spec);
        let mut line = |label: &str, text: &dyn Display| {
            // Writing to a string does not fail.
            writeln!(out, "  {label:LABEL_WIDTH$}{text}").ok();
        };
        if let Some(failure) = &self.failure {
            line("failed", &format_args!("{}: {}", failure.stage, failure.detail));
            if !failure.advice.is_empty() {
                line("what to do", &failure.advice);
            }
        }
        if let Some(took) = self.connect {
            line("connected", &format_args!("in {}", Millis(took)));
        }
        if let Some(tls) = &self.tls {
            let alpn = if tls.has_alpn { "ALPN dot" } else { "no ALPN" };
            let Tls { version, cipher_suite, key_exchange, took, .. } = tls;
            line(
                "TLS",
                &format_args!(
                    "{version}, {cipher_suite}, {key_exchange}, {alpn}, in {}",
                    Millis(*took)
                ),
            );
        }
        self.certificate_words(&mut line);
        if let (Some(cold), Some(warm)) = (self.cold, self.warm) {
            let (cold, warm) = (Millis(cold), Millis(warm));
            line("answers", &format_args!("after {cold} with connecting, then after {warm}"));
        } else if let Some(cold) = self.cold {
            line("answers", &format_args!("after {} with connecting", Millis(cold)));
        }
        if self.cold.is_some() {
            self.extras_words(&mut line);
        }
        out
    }

    fn certificate_words(&self, line: &mut impl FnMut(&str, &dyn Display)) {
        let Some(certificate) = &self.certificate else { return };
        line("names", &tls::list(&certificate.names(), "none"));
        line("issuer", &certificate.issuer());
        if let (Some(end), Some(days)) = (certificate.not_after(), self.days_left()) {
            let until = tls::shown_date(end);
            match certificate.not_before() {
                Some(start) if start > self.now => {
                    line("valid", &format_args!("from {} until {until}", tls::shown_date(start)));
                }
                _ if days < 0 => line("valid", &format_args!("until {until}: no more")),
                _ => line("valid", &format_args!("until {until}, {days} days left")),
            }
        }
        let pins = certificate.pins();
        let Some((own, issuers)) = pins.split_first() else { return };
        let warning = if self.is_verified() { "" } else { UNVERIFIED };
        line("pin", &format_args!("--upstream {}{warning}", self.pinned(*own)));
        if self.is_verified() && self.spec.name.is_some() {
            for issuer in issuers {
                line("issuer's pin", issuer);
            }
        }
    }

    fn extras_words(&self, line: &mut impl FnMut(&str, &dyn Display)) {
        match &self.resumption {
            Some(Resumption::Resumed(took)) => {
                line(
                    "resumption",
                    &format_args!("yes: an answer after {} with connecting", Millis(*took)),
                );
            }
            Some(Resumption::NoTicket) => line("resumption", &"no: it gave no ticket"),
            Some(Resumption::Refused) => line("resumption", &"no: it did not take its ticket"),
            Some(Resumption::Failed(Failure { stage, detail, .. })) => {
                line("resumption", &format_args!("not known: {stage}: {detail}"));
            }
            None => {}
        }
        match self.keepalive {
            Some(time) => line("keepalive", &format_args!("{} s", Tenths(time))),
            None => line("keepalive", &"not said (RFC 7828)"),
        }
        match self.padded {
            Some(octets) => line("padding", &format_args!("answers have {octets} octets")),
            None => line("padding", &"none: the length of answers tells something of the name"),
        }
        let order = match self.out_of_order {
            Some(true) => "answers overtake those that take longer",
            Some(false) => "answers wait for those that take longer",
            None if self.warm.is_none() => "not known: the connection ended",
            None => "not known: all answers were quick",
        };
        line("order", &order);
    }

    /// An object of JSON. It has the same members for every upstream; what is not known is null.
    pub(super) fn json(&self) -> String {
        let mut object = Object::default();
        let certificate = self.certificate.as_ref();
        let tls = self.tls.as_ref();
        let pins = certificate.map(Presented::pins).unwrap_or_default();
        let date = |time: Option<u64>| time.map(|time| quoted(Rfc3339(Duration::from_secs(time))));
        let resumed = match &self.resumption {
            Some(Resumption::Resumed(took)) => (Some(true), Some(*took)),
            Some(Resumption::NoTicket | Resumption::Refused) => (Some(false), None),
            Some(Resumption::Failed(_)) | None => (None, None),
        };
        object.add("upstream", Some(quoted(&self.spec)));
        object.add("address", Some(quoted(self.spec.address)));
        object.add("usable", Some(self.is_usable()));
        object.add("connect_ms", self.connect.map(Number));
        object.add("handshake_ms", tls.map(|tls| Number(tls.took)));
        object.add("tls_version", tls.map(|tls| quoted(tls.version)));
        object.add("cipher_suite", tls.map(|tls| quoted(&tls.cipher_suite)));
        object.add("key_exchange", tls.map(|tls| quoted(tls.key_exchange)));
        object.add("alpn", tls.filter(|tls| tls.has_alpn).map(|_| quoted("dot")));
        object.add("verified", Some(self.is_verified()));
        object.add("names", certificate.map(|it| array(it.names().iter().map(quoted))));
        object.add("issuer", certificate.map(|it| quoted(it.issuer())));
        object.add("not_before", date(certificate.and_then(Presented::not_before)));
        object.add("not_after", date(certificate.and_then(Presented::not_after)));
        object.add("days_left", self.days_left());
        object.add("pins", certificate.map(|_| array(pins.iter().map(quoted))));
        object.add("pinned", pins.first().map(|pin| quoted(self.pinned(*pin))));
        object.add("cold_ms", self.cold.map(Number));
        object.add("warm_ms", self.warm.map(Number));
        object.add("resumed", resumed.0);
        object.add("resumed_ms", resumed.1.map(Number));
        object.add("keepalive_s", self.keepalive.map(Tenths));
        object.add("padded_octets", self.padded);
        object.add("out_of_order", self.out_of_order);
        object.add(
            "failure",
            self.failure.as_ref().map(|failure| {
                let mut object = Object::default();
                object.add("stage", Some(quoted(failure.stage.word())));
                object.add("detail", Some(quoted(&failure.detail)));
                object.add("advice", Some(quoted(&failure.advice)));
                object.end()
            }),
        );
        object.end()
    }
}

/// All reports as one document of JSON, with its line feed.
pub(super) fn document(reports: &[Report], hints: &[String]) -> String {
    let mut object = Object::default();
    object.add("usable", Some(reports.iter().all(Report::is_usable)));
    object.add("upstreams", Some(array(reports.iter().map(Report::json))));
    object.add("hints", Some(array(hints.iter().map(quoted))));
    object.end() + "\n"
}

/// An object of JSON (RFC 8259 section 4) that is being written.
#[derive(Default)]
struct Object(String);

impl Object {
    /// Adds a member. The value is JSON already.
    fn add(&mut self, name: &str, value: Option<impl Display>) {
        let comma = if self.0.is_empty() { '{' } else { ',' };
        let value = value.map_or_else(|| "null".to_owned(), |value| value.to_string());
        // Writing to a string does not fail.
        write!(self.0, "{comma}\"{name}\":{value}").ok();
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn array(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(","))
}

fn quoted(text: impl Display) -> String {
    Quoted(&text.to_string()).to_string()
}

/// Milliseconds as a number of JSON.
struct Number(Duration);

impl Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1_000, micros % 1_000)
    }
}

/// Milliseconds for a person: "0.04 ms", "1.2 ms", "12 ms".
struct Millis(Duration);

impl Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_micros() {
            micros @ 0..1_000 => write!(f, "0.{:02} ms", micros / 10),
            micros @ 1_000..10_000 => write!(f, "{}.{} ms", micros / 1_000, micros / 100 % 10),
            micros => write!(f, "{} ms", micros / 1_000),
        }
    }
}

/// A number of tenths. No floating-point number is written anywhere, as what writes one is large.
pub(super) struct Tenths(pub(super) u16);

impl Display for Tenths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0 / 10, self.0 % 10) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, tenths) => write!(f, "{whole}.{tenths}"),
        }
    }
}

const LABEL_WIDTH: usize = 14;

/// Seconds.
const DAY: i64 = 86_400;

const UNVERIFIED: &str = " - only if its owner says that this is its key: nobody verified it, and such a pin trusts \
                          whoever answered";
