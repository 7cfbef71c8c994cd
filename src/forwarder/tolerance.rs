//! What of EDNS an upstream puts up with, by experience.
//!
//! Some servers answer an error to what is added to queries here: padding, keepalive, an empty client
//! subnet, or the OPT record at all (RFC 6891 section 7). Such a query is asked again with less, step by
//! step, and what is then answered teaches how later ones are sent. Nothing is learned of an error that a
//! query gets whatever it is sent with.

use std::time::{Duration, Instant};

use super::edit::Edns;
use super::message::Rcode;

/// What was learned of an upstream, and what of that was told.
#[derive(Debug, Default)]
pub(super) struct Tolerance {
    learned: Option<(Edns, Instant)>,
    /// The log has a line for this.
    told: Edns,
}

impl Tolerance {
    /// With how much of EDNS queries are sent.
    pub(super) fn edns(&self, now: Instant) -> Edns {
        match self.learned {
            Some((edns, since)) if now < since + KNOWN_FOR => edns,
            _ => Edns::Ours,
        }
    }

    /// The upstream answers what is sent with so much, and not what is sent with more. True if that is to
    /// be told.
    pub(super) fn learn(&mut self, now: Instant, edns: Edns) -> bool {
        self.learned = Some((edns.max(self.edns(now)), now));
        let is_news = edns > self.told;
        self.told = self.told.max(edns);
        is_news
    }

    pub(super) fn forget(&mut self) {
        self.learned = None;
    }
}

/// Whether the RCODE may be about EDNS. BADVERS is none for version 0, the only one that is sent, but some
/// servers say it to whatever they do not know.
pub(super) fn is_objection(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::FORMERR | Rcode::NOTIMP | Rcode::BADVERS)
}

/// With what a query is asked again after an objection; with nothing, if what it was sent with was all
/// its client's own, and an OPT record was not in it.
pub(super) fn plainer(sent: Edns, client_has_opt: bool) -> Option<Edns> {
    match (sent, client_has_opt) {
        (Edns::Ours, _) => Some(Edns::Clients),
        (Edns::Clients, true) => Some(Edns::Absent),
        (Edns::Clients, false) | (Edns::Absent, _) => None,
    }
}

/// What an answer to a query teaches that was asked again with so much, after an objection to more.
///
/// Another error says nothing. A client's own options may be what a server objects to, and say nothing
/// about other clients' queries: only where its OPT record is bare, it was the record itself.
pub(super) fn lesson(sent: Edns, rcode: Rcode, is_bare: impl FnOnce() -> bool) -> Option<Edns> {
    let teaches = match sent {
        Edns::Ours => false,
        Edns::Clients => true,
        Edns::Absent => is_bare(),
    };
    (teaches && matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN)).then_some(sent)
}

/// Servers are mended, and the padding is missed.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::Edns::{Absent, Clients, Ours};
    use super::*;
    use crate::forwarder::tests::base;

    #[test]
    fn a_query_is_asked_with_less_each_time() {
        let cases = [
            (Ours, false, Some(Clients)),
            (Clients, false, None),
            (Absent, false, None),
            (Ours, true, Some(Clients)),
            (Clients, true, Some(Absent)),
            (Absent, true, None),
        ];
        for (sent, client_has_opt, expected) in cases {
            assert_eq!(plainer(sent, client_has_opt), expected, "{sent:?} {client_has_opt}");
        }
    }

    #[test]
    fn objections() {
        for rcode in (0..24).map(Rcode) {
            assert_eq!(is_objection(rcode), [1, 4, 16].contains(&rcode.0), "{rcode}");
        }
    }

    #[test]
    fn what_an_answer_teaches() {
        let cases = [
            (Ours, Rcode::NOERROR, true, None),
            (Clients, Rcode::NOERROR, true, Some(Clients)),
            (Clients, Rcode::NXDOMAIN, false, Some(Clients)),
            (Clients, Rcode::SERVFAIL, true, None),
            (Clients, Rcode::REFUSED, true, None),
            (Clients, Rcode::FORMERR, true, None),
            (Absent, Rcode::NOERROR, true, Some(Absent)),
            (Absent, Rcode::NOERROR, false, None),
            (Absent, Rcode::NOTIMP, true, None),
        ];
        for (sent, rcode, is_bare, expected) in cases {
            assert_eq!(lesson(sent, rcode, || is_bare), expected, "{sent:?} {rcode} {is_bare}");
        }
    }

    #[test]
    fn it_is_told_once_and_forgotten_after_an_hour() {
        let t0 = base();
        let mut tolerance = Tolerance::default();
        assert_eq!(tolerance.edns(t0), Ours);
        assert!(tolerance.learn(t0, Clients));
        assert!(!tolerance.learn(t0, Clients));
        assert_eq!(tolerance.edns(t0 + KNOWN_FOR / 2), Clients);
        assert!(tolerance.learn(t0 + KNOWN_FOR / 2, Absent), "another thing to tell");
        // One that was sent before that was learned.
        assert!(!tolerance.learn(t0 + KNOWN_FOR / 2, Clients));
        assert_eq!(tolerance.edns(t0 + KNOWN_FOR), Absent);
        assert_eq!(tolerance.edns(t0 + KNOWN_FOR * 3 / 2), Ours);
        assert!(!tolerance.learn(t0 + 2 * KNOWN_FOR, Clients));
        assert_eq!(
            tolerance.edns(t0 + 2 * KNOWN_FOR),
            Clients,
            "what was forgotten does not count"
        );
        tolerance.forget();
        assert_eq!(tolerance.edns(t0 + 2 * KNOWN_FOR), Ours);
    }
}
