//! What of EDNS an upstream puts up with, by experience.
//!
//! Some servers answer an error to what is added to queries here: padding, keepalive, an empty client
//! subnet, or the OPT record at all (RFC 6891 section 7). Such a query is asked again with less, step by
//! step, and what is then answered teaches how later ones are sent. Nothing is learned of an error that a
//! query gets whatever it is sent with.
//!
//! The error may also be one zone's: resolvers pass on what an authority, or another forwarder, says. What
//! one zone's errors teach would take padding and DNSSEC from all names, so they teach nothing of an upstream
//! that has answered a query with what they object to, until many domains say the same.

use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, Instant};

use crate::forwarder::message::Rcode;
use crate::forwarder::message::edit::Edns;

/// What was learned of an upstream, and what of that was told.
#[derive(Debug, Default)]
pub(crate) struct Tolerance {
    learned: Option<(Edns, Instant)>,
    /// The most that a query had which was answered.
    proven: Option<Edns>,
    /// Hashes of the domains whose answers in a row contradict that, each once.
    doubts: [u32; DOUBTS_MAX],
    doubts_len: usize,
    /// The log has a line for this.
    logged: Edns,
}

impl Tolerance {
    /// With how much of EDNS queries are sent.
    pub(crate) fn edns(&self, now: Instant) -> Edns {
        match self.learned {
            Some((edns, since)) if now < since + KNOWN_FOR => edns,
            _ => Edns::Ours,
        }
    }

    /// Whether an answer to a query that nobody objected to says anything new.
    pub(crate) fn wants_proof(&self) -> bool {
        self.proven != Some(Edns::Ours) || self.doubts_len > 0
    }

    /// The upstream answered a query that had so much. What contradicts that is forgotten.
    pub(crate) fn prove(&mut self, edns: Edns) {
        let most = self.proven.map_or(edns, |proven| proven.min(edns));
        self.proven = Some(most);
        if edns == most {
            self.doubts_len = 0;
        }
        self.learned.take_if(|(learned, _)| contradicts(*learned, Some(edns)));
    }

    /// The upstream answers what is sent with so much, and not what is sent with more, for a name of the
    /// domain with this hash. True if that is to be told.
    pub(crate) fn learn(&mut self, now: Instant, edns: Edns, domain: u32) -> bool {
        if contradicts(edns, self.proven) {
            if self.doubt(domain) < DOUBTS_MAX {
                return false;
            }
            self.proven = None;
            self.doubts_len = 0;
        }
        self.learned = Some((edns.max(self.edns(now)), now));
        let is_news = edns > self.logged;
        self.logged = self.logged.max(edns);
        is_news
    }

    /// Returns how many domains say so.
    fn doubt(&mut self, domain: u32) -> usize {
        if !self.doubts[..self.doubts_len].contains(&domain)
            && let Some(free) = self.doubts.get_mut(self.doubts_len)
        {
            *free = domain;
            self.doubts_len += 1;
        }
        self.doubts_len
    }

    pub(crate) fn forget(&mut self) {
        *self = Self { logged: self.logged, ..Self::default() };
    }
}

/// Whether an upstream cannot be one that answers no more than so much, as it answered this.
fn contradicts(lesson: Edns, proven: Option<Edns>) -> bool {
    proven.is_some_and(|proven| proven < lesson)
}

/// What the query had of EDNS that was sent with so much, and answered with this; nothing, if that is no
/// proof that the upstream puts up with it.
pub(crate) fn proof(sent: Edns, rcode: Rcode, client_has_opt: bool) -> Option<Edns> {
    let had = match sent {
        Edns::Clients if !client_has_opt => Edns::Absent,
        sent => sent,
    };
    is_answer(rcode).then_some(had)
}

/// A hash of the last two labels of the name at the start of `question`: what one holder answers for, more
/// or less. Who holds a domain has names in it without end.
pub(crate) fn domain_hash(question: &[u8]) -> u32 {
    let (mut rest, mut domain, mut parent) = (question, question, question);
    while let Some((&len, labels)) = rest.split_first()
        && len > 0
    {
        (domain, parent) = (parent, rest);
        rest = labels.get(usize::from(len)..).unwrap_or_default();
    }
    let mut hasher = DefaultHasher::new();
    for octet in &domain[..domain.len() - rest.len()] {
        hasher.write_u8(octet.to_ascii_lowercase());
    }
    hasher.finish() as u32
}

/// Whether the RCODE may be about EDNS. BADVERS is none for version 0, the only one that is sent, but some
/// servers say it to whatever they do not know.
pub(crate) fn is_objection(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::FORMERR | Rcode::NOTIMP | Rcode::BADVERS)
}

/// With what a query is asked again after an objection; with nothing, if what it was sent with was all
/// its client's own, and an OPT record was not in it.
pub(crate) fn plainer(sent: Edns, client_has_opt: bool) -> Option<Edns> {
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
pub(crate) fn lesson(sent: Edns, rcode: Rcode, is_bare: impl FnOnce() -> bool) -> Option<Edns> {
    let teaches = match sent {
        Edns::Ours => false,
        Edns::Clients => true,
        Edns::Absent => is_bare(),
    };
    (teaches && is_answer(rcode)).then_some(sent)
}

fn is_answer(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
}

/// Servers are mended, and the padding is missed.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

/// So many domains in a row, without a proof between them, are a server that was replaced by an older one:
/// each of its queries costs a round trip more until then. One that serves anybody else has a proof between.
const DOUBTS_MAX: usize = 8;

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
        assert!(tolerance.learn(t0, Clients, 0));
        assert!(!tolerance.learn(t0, Clients, 0));
        assert_eq!(tolerance.edns(t0 + KNOWN_FOR / 2), Clients);
        assert!(tolerance.learn(t0 + KNOWN_FOR / 2, Absent, 0), "another thing to tell");
        // One that was sent before that was learned.
        assert!(!tolerance.learn(t0 + KNOWN_FOR / 2, Clients, 0));
        assert_eq!(tolerance.edns(t0 + KNOWN_FOR), Absent);
        assert_eq!(tolerance.edns(t0 + KNOWN_FOR * 3 / 2), Ours);
        assert!(!tolerance.learn(t0 + 2 * KNOWN_FOR, Clients, 0));
        assert_eq!(
            tolerance.edns(t0 + 2 * KNOWN_FOR),
            Clients,
            "what was forgotten does not count"
        );
        tolerance.forget();
        assert_eq!(tolerance.edns(t0 + 2 * KNOWN_FOR), Ours);
    }

    #[test]
    fn what_an_answer_proves() {
        let cases = [
            (Ours, Rcode::NOERROR, false, Some(Ours)),
            (Ours, Rcode::NXDOMAIN, true, Some(Ours)),
            (Ours, Rcode::SERVFAIL, true, None),
            (Clients, Rcode::NOERROR, true, Some(Clients)),
            (Clients, Rcode::NOERROR, false, Some(Absent)),
            (Absent, Rcode::NOERROR, true, Some(Absent)),
        ];
        for (sent, rcode, client_has_opt, expected) in cases {
            assert_eq!(proof(sent, rcode, client_has_opt), expected, "{sent:?} {rcode}");
        }
    }

    #[test]
    fn a_lesson_holds_against_no_proof() {
        let cases = [
            (Clients, None, false),
            (Clients, Some(Ours), true),
            (Clients, Some(Clients), false),
            (Clients, Some(Absent), false),
            (Absent, None, false),
            (Absent, Some(Ours), true),
            (Absent, Some(Clients), true),
            (Absent, Some(Absent), false),
        ];
        for (lesson, proven, expected) in cases {
            assert_eq!(contradicts(lesson, proven), expected, "{lesson:?} {proven:?}");
        }
    }

    /// Of queries, by their domains: `+` is one that was answered with all that is added, `o` one that was
    /// answered with its client's OPT record, and any other one that was answered with less, after an
    /// objection.
    #[test]
    fn a_proof_holds_until_many_domains_in_a_row_contradict_it() {
        let cases = [
            ("a", Clients),
            ("+aaaaaaaaaaaaaaaa", Ours),
            ("+abcdefg", Ours),
            ("+abcdefgh", Clients),
            ("+abcdefg+h", Ours),
            ("+abcdefgogh", Clients),
            ("+abcdefg+abcdefgh", Clients),
            // It was in flight when that was learned.
            ("a+", Ours),
            ("+abcdefgh+", Ours),
            ("ao", Clients),
            ("aob", Clients),
        ];
        for (story, expected) in cases {
            let mut tolerance = Tolerance::default();
            for domain in story.bytes() {
                match domain {
                    b'+' => tolerance.prove(Ours),
                    b'o' => tolerance.prove(Clients),
                    _ => {
                        tolerance.learn(base(), Clients, domain.into());
                        tolerance.prove(Absent);
                    }
                }
            }
            assert_eq!(tolerance.edns(base()), expected, "{story}");
            tolerance.forget();
            tolerance.learn(base(), Clients, 0);
            assert_eq!(tolerance.edns(base()), Clients, "{story}, and the network changed");
        }
    }

    #[test]
    fn domains_are_told_apart_by_two_labels() {
        let hash = |name: &str| {
            let mut question = Vec::new();
            for label in name.split('.').filter(|label| !label.is_empty()) {
                question.push(label.len() as u8);
                question.extend_from_slice(label.as_bytes());
            }
            question.extend_from_slice(&[0, 0, 1, 0, 1]);
            domain_hash(&question)
        };
        for same in ["a.example", "www.a.example", "x.y.z.A.Example"] {
            assert_eq!(hash(same), hash("a.example"), "{same}");
        }
        let apart = ["", "example", "a.example", "b.example", "a.test", "ae.xample"];
        for (n, one) in apart.iter().enumerate() {
            assert!(apart[n + 1..].iter().all(|other| hash(one) != hash(other)), "{one}");
        }
        // Nothing that is passed on is like this.
        for broken in [&b""[..], b"\x03ab", b"\xff"] {
            domain_hash(broken);
        }
    }
}
