//! Why an upstream is not usable, and what to do about it.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use crate::config::{UPSTREAM_PORT, UpstreamSpec};
use crate::forwarder::Stage;
use crate::forwarder::message::Rcode;
use crate::host::os_error::{connect_advice, system_error};
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
        let words = system_error(error);
        let advice = connect_advice(&words, address).unwrap_or_default();
        Self { stage: Stage::Connect, detail: words.into(), advice }
    }

    /// There is no connection yet.
    pub(super) fn of_late_connect(address: SocketAddr) -> Self {
        Self::of_connect(&ErrorKind::TimedOut.into(), address)
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
        Self::new(Stage::Read, HTTP_IN_TLS)
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
        heard: Option<String>,
    ) {
        if !self.advice.is_empty() {
            return;
        }
        let port = spec.address.port();
        self.advice = match (self.stage, presented, heard) {
            (Stage::Certificate, Some(presented), _) => of_certificate(spec, presented),
            (Stage::Negotiation, ..) if self.detail == tls::OLD_TLS => {
                "older versions are not safe: its operator has to update it".into()
            }
            (Stage::Negotiation, ..) => of_web_server(port),
            (Stage::Read, ..) if self.detail == HTTP_IN_TLS => of_web_server(port),
            (Stage::Tls, None, Some(line)) if line.starts_with("HTTP/") => {
                format!("it answers HTTP: {line}: {}", of_web_server(port))
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
fn of_certificate(spec: &UpstreamSpec, presented: &Presented) -> String {
    let mut advice = Vec::new();
    let Some(name) = &spec.name else {
        return OTHER_KEY.into();
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
    if !spec.pins.is_empty() && !presented.pins().iter().any(|pin| spec.pins.contains(pin)) {
        advice.push(OTHER_KEY.into());
    }
    advice.join("; ")
}

/// What to do about what is no server of DNS over TLS.
fn of_web_server(port: u16) -> String {
    let elsewhere = if port == UPSTREAM_PORT { "" } else { "; DNS over TLS is on port 853" };
    format!(
        "a web server, perhaps a page of this network to log in at (captive portal), has this port{elsewhere}"
    )
}

const HTTP_IN_TLS: &str = "the server speaks HTTP in TLS; DNS was expected";

const OTHER_KEY: &str = "compare its pin with what its operator says; if the key was changed on purpose, write this pin \
                         in place of the other";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_port_is_named_where_it_is_another() {
        assert!(of_web_server(853).ends_with("has this port"));
        assert!(of_web_server(443).ends_with("has this port; DNS over TLS is on port 853"));
    }
}
