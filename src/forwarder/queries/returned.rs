//! Queries of ours that come back: an upstream may lead, behind a server that ends its TLS, to a listener of
//! this program, and a query would go round until its deadline.
//!
//! A query that is padded, and asks what one in flight asks, may be that one, or another of a forwarder that
//! pads as well. It is sent with more padding than anybody needs, which no other forwarder adds. If one as
//! long as that comes while it is in flight, it is this one that has come back.

use super::query::Query;
use crate::forwarder::message::HEADER_LEN;
use crate::forwarder::message::edit::PADDING_BLOCK;

/// Whether a query is padded so that it is known if it comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mark {
    #[default]
    None,
    /// It is to be sent so.
    Wanted,
    /// It was sent with so many octets.
    Sent(u16),
}

/// Whether a query of a client was sent from here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Returned<'a> {
    No,
    Perhaps,
    /// As this one.
    Surely(&'a Query),
}

/// Compares a message, whose question ends there, with the queries that there are.
pub(super) fn returned<'a>(
    message: &[u8],
    question_end: usize,
    queries: impl Iterator<Item = &'a Query>,
) -> Returned<'a> {
    if !message.len().is_multiple_of(PADDING_BLOCK) {
        return Returned::No;
    }
    let question = message.get(HEADER_LEN..question_end);
    let same = queries.filter(|query| {
        query.is_sent() && query.message.get(HEADER_LEN..query.parsed.question_end) == question
    });
    let mut found = Returned::No;
    for query in same {
        if matches!(query.mark, Mark::Sent(len) if usize::from(len) == message.len()) {
            return Returned::Surely(query);
        }
        found = Returned::Perhaps;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::action::UpstreamConnId;
    use crate::forwarder::collections::conn_table::ConnTable;
    use crate::forwarder::message::edit::{Edns, Family};
    use crate::forwarder::message::parse_query;
    use crate::forwarder::queries::query::{Origin, Sending};
    use crate::forwarder::tests::base;

    /// A query for this name of one label, with padding up to so many octets.
    fn message(label: u8, len: usize) -> Vec<u8> {
        let mut message = b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01\x01_\0\0\x01\0\x01".to_vec();
        message[13] = label;
        let padding = (len - message.len() - 15) as u8;
        message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, padding + 4, 0, 12, 0, padding]);
        message.resize(len, 0);
        message
    }

    #[test]
    fn what_has_come_back_is_known_by_question_and_length() {
        // Queries that there are: name, whether sent, and mark. Then name and length of the one that comes.
        type Case<'a> = (&'a [(u8, bool, Mark)], u8, usize, &'a str);
        let mut conns: ConnTable<UpstreamConnId, ()> = ConnTable::with_capacity(1);
        let conn = conns.insert(());
        let query = |label, is_sent: bool, mark| {
            let message = message(label, 128);
            let parsed = parse_query(&message, false).expect("a query");
            let mut query = Query::new(Origin::Orphan, message, parsed, Family::Ipv4, base());
            if is_sent {
                query.add_sending(Sending { conn, id: 7, edns: Edns::Ours, stalled: false });
            }
            Query { mark, ..query }
        };
        let marked = Mark::Sent(256);
        let cases: [Case<'_>; 10] = [
            (&[], b'a', 128, "no"),
            (&[(b'a', true, Mark::None)], b'a', 127, "no"),
            (&[(b'a', true, Mark::None)], b'b', 128, "no"),
            (&[(b'a', true, Mark::None)], b'A', 128, "no"),
            (&[(b'a', false, Mark::None)], b'a', 128, "no"),
            (&[(b'a', true, Mark::None)], b'a', 128, "perhaps"),
            (&[(b'a', true, Mark::None)], b'a', 256, "perhaps"),
            (&[(b'a', true, marked)], b'a', 128, "perhaps"),
            (&[(b'b', true, marked), (b'a', true, Mark::Wanted)], b'a', 256, "perhaps"),
            (&[(b'a', true, Mark::None), (b'a', true, marked)], b'a', 256, "surely"),
        ];
        for (there, label, len, expected) in cases {
            let there: Vec<_> =
                there.iter().map(|(label, is_sent, mark)| query(*label, *is_sent, *mark)).collect();
            let message = message(label, len);
            let found = match returned(&message, 19, there.iter()) {
                Returned::No => "no",
                Returned::Perhaps => "perhaps",
                Returned::Surely(_) => "surely",
            };
            assert_eq!(found, expected, "{} of {len} octets, {there:?}", char::from(label));
        }
    }
}
