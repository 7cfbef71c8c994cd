//! Why an upstream is not usable, and what to do about it.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use crate::config::UpstreamSpec;
use crate::forwarder::Stage;
use crate::forwarder::message::Rcode;
use crate::host::os_error::system_error;
use crate::tls::{self, Presented};

/// What went wrong.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    /// What was expected and what was seen.
    pub(super) detail: String,
    /// What to do, if `detail` does not say it.
    pub(super) advice: String,
}

impl Failure {
    pub(super) fn new(stage: Stage, detail: impl Into<String>) -> Self {
        Self { stage, detail: detail.into(), advice: String::new() }
    }

    /// The server took a question and is at fault.
    pub(super) fn of_answer(detail: impl Into<String>) -> Self {
        let advice = "the server, or what stands behind it, is at fault: ask its operator, or try another upstream";
        Self { stage: Stage::Read, detail: detail.into(), advice: advice.into() }
    }

    /// Why there is no connection.
    pub(super) fn of_connect(error: &io::Error, address: SocketAddr) -> Self {
        let port = address.port();
        let (detail, advice) = match error.kind() {
            ErrorKind::TimedOut => return Self::of_late_connect(address),
            ErrorKind::ConnectionRefused => (
                system_error(error),
                format!(
                    "nothing listens on port {port} there, or a firewall refuses it: see whether address and port \
                     are right"
                ),
            ),
            ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::AddrNotAvailable => {
                let network = if address.is_ipv6() { "IPv6" } else { "network" };
                (
                    system_error(error),
                    format!(
                        "this host has no way there: leave the upstream out where there is no {network}, or see what \
                         ip route get {} says",
                        address.ip()
                    ),
                )
            }
            _ => (system_error(error), String::new()),
        };
        Self { stage: Stage::Connect, detail: detail.into(), advice }
    }

    /// There is no connection yet.
    pub(super) fn of_late_connect(address: SocketAddr) -> Self {
        let advice = format!(
            "a firewall drops TCP to port {}, as many networks do with 853, or the server is down: try it from \
             another network",
            address.port()
        );
        Self { stage: Stage::Connect, detail: "timed out".into(), advice }
    }

    /// The answer has another RCODE than the question deserves.
    pub(super) fn of_rcode(rcode: Rcode, text: Option<&str>) -> Self {
        let because =
            text.map_or(String::new(), |text| format!(" ({})", tls::fit_for_terminal(text)));
        let advice = match rcode {
            Rcode::REFUSED => "it does not serve this host: its operator has to allow it",
            Rcode::SERVFAIL => "it cannot resolve names now: its own log may say why",
            _ => "it may be no resolver, as every one of them knows the answer",
        };
        let detail = format!("NOERROR was expected for . NS, and {rcode} came{because}");
        Self { stage: Stage::Read, detail, advice: advice.into() }
    }

    /// A web server.
    pub(super) fn http_in_tls() -> Self {
        let detail = "the server speaks HTTP in TLS; DNS was expected";
        Self { stage: Stage::Read, detail: detail.into(), advice: WEB_SERVER.into() }
    }

    /// Whether what the server says in clear text may tell what to do.
    pub(super) fn is_explained_in_clear(&self, presented: Option<&Presented>) -> bool {
        self.advice.is_empty() && self.stage == Stage::Tls && presented.is_none()
    }

    /// Adds what to do, with what was heard in clear text.
    pub(super) fn advise(
        &mut self,
        spec: &UpstreamSpec,
        presented: Option<&Presented>,
        now: u64,
        heard: Option<String>,
    ) {
        if !self.advice.is_empty() {
            return;
        }
        self.advice = match (self.stage, presented, heard) {
            (Stage::Certificate, Some(presented), _) => of_certificate(spec, presented, now),
            (Stage::Negotiation, ..) => WEB_SERVER.into(),
            (Stage::Tls, None, Some(line)) if line.starts_with("HTTP/") => {
                format!("it answers HTTP: {line}: {WEB_SERVER}")
            }
            (Stage::Tls, None, Some(line)) => {
                format!("in clear text it says {line}: give the port of DNS over TLS")
            }
            _ => String::new(),
        }
    }
}

impl From<tls::Failure> for Failure {
    fn from(failure: tls::Failure) -> Self {
        Self::new(failure.stage, failure.detail)
    }
}

/// What to do about a certificate that is not accepted, besides what its failure says.
fn of_certificate(spec: &UpstreamSpec, presented: &Presented, now: u64) -> String {
    let mut advice = Vec::new();
    let Some(name) = &spec.name else {
        return "see whether its owner has changed its key, before you write another pin".into();
    };
    if !presented.is_for(name) {
        let ip = spec.address.ip().to_string();
        let right = presented.dns_name().or_else(|| presented.is_for(&ip).then_some(ip));
        if let Some(right) = right {
            let right = UpstreamSpec { name: Some(right.into()), ..spec.clone() };
            advice.push(format!(
                "if that is the server you mean, write --upstream {}",
                right.written()
            ));
        }
    }
    if presented.not_before().is_some_and(|time| now < time) {
        advice.push("set the clock of this host, or have the server's looked at".into());
    }
    if presented.not_after().is_some_and(|time| now > time) {
        advice.push(
            "have its owner renew it, or set the clock of this host, if that is wrong".into(),
        );
    }
    advice.join("; ")
}

const WEB_SERVER: &str = "a web server, perhaps a page of this network to log in at (captive portal), has this port: \
                          DNS over TLS is on 853";
