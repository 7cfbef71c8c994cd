//! A query goes upstream, and a response to the client, each with the OPT record of its hop.

use dot_proxy::forwarder::PrivateAnswers;
use dot_proxy::forwarder::message::edit::{self, Ecs, Edns, Family, QueryEdit, ResponseEdit};
use dot_proxy::forwarder::message::{self, HEADER_LEN, ParsedQuery, ResponseCheck, Stripped};
use support::private::{Allowed, Judge};
use support::view::{Record, View, labels};

use super::Choices;
use crate::dns;

const ID: u16 = 0xabcd;

/// Choices, the length of the query, the query, and the records of its response.
pub fn edit(octets: &[u8]) {
    let mut choices = Choices::new(octets);
    let bits = choices.octet();
    let has = |bit: u8| bits & bit != 0;
    let limit = usize::from(choices.word()).max(512);
    let length = usize::from(choices.word());
    let query = choices.take(length);
    let Ok(parsed) = message::parse_query(query, false) else { return };

    let ecs = if has(1) { Ecs::Pass } else { Ecs::Strip };
    let family = if has(2) { Family::Ipv4 } else { Family::Ipv6 };
    let edns = match (has(4), has(16)) {
        (true, _) => Edns::Ours,
        (false, false) => Edns::Absent,
        (false, true) => Edns::Clients,
    };
    let choice = QueryEdit { edns, keepalive: has(8), ecs, family };
    let mut sent = b"before".to_vec();
    edit::append_query(&mut sent, query, &parsed, ID, choice);
    let sent = sent.strip_prefix(b"before").expect("what was there stays");
    assert_eq!(message::id(sent), Some(ID));
    assert!(u16::try_from(sent.len()).is_ok());
    let sent_parsed = message::parse_query(sent, false).expect("a query stays one");
    if parsed.signature.is_some() {
        assert_eq!(sent[2..], query[2..], "signed messages keep everything but the ID");
    } else {
        assert_eq!(sent[2..10], query[2..10]);
        assert_eq!(sent[HEADER_LEN..parsed.question_end], query[HEADER_LEN..parsed.question_end]);
        if edns != Edns::Ours {
            let has_opt = edns == Edns::Clients && parsed.opt.is_some();
            assert_eq!(sent_parsed.opt.is_some(), has_opt);
            assert!(sent.len() <= query.len(), "nothing of ours");
        } else if let Some(opt) = sent_parsed.opt {
            assert_eq!(opt.offset + opt.len, sent.len(), "OPT is the last record");
            let padded = sent.len().is_multiple_of(128) || sent.len() > 65_408;
            assert!(padded, "{} octets", sent.len());
        }
        // What was edited is not edited further, but for the count in its padding.
        if edns == Edns::Ours && !choice.keepalive && sent.len() <= 65_000 {
            let mut again = Vec::new();
            edit::append_query(&mut again, sent, &sent_parsed, ID, choice);
            let hops = dns::hops(sent).saturating_add(1);
            assert_eq!(dns::hops(&again), hops);
            if again.len() == sent.len() {
                let count = [&b"dotproxy"[..], &[hops]].concat();
                let at = again.windows(count.len()).rposition(|octets| octets == count);
                let at = at.expect("the padding says so");
                assert_eq!(again[..at], sent[..at]);
                assert_eq!(again[at + count.len()..], sent[at + count.len()..]);
            } else {
                assert_eq!(again.len(), sent.len() + 128, "room for the count");
            }
        }
    }
    let name = &query[HEADER_LEN..parsed.question_end - 4];
    // Nobody may except the root.
    let except = if has(128) && name.len() > 1 { vec![name.into()] } else { Vec::new() };
    let strip = if has(32) {
        PrivateAnswers::Strip { loopback: has(64), except, except_special: false }
    } else {
        PrivateAnswers::Pass
    };
    edit_response(&mut choices, query, &parsed, sent, (ecs, &strip), limit);
}

/// Who judges what is delivered, if not all is.
fn judge_of(strip: &PrivateAnswers) -> Option<Judge> {
    let PrivateAnswers::Strip { loopback, except, .. } = strip else { return None };
    let zone = except.first().and_then(|zone| labels(zone, 0));
    Some(Judge { loopback: *loopback, except: zone.map(|(labels, _)| labels) })
}

/// The response to `query`, which was sent as `sent`, as it goes to the client.
fn edit_response(
    choices: &mut Choices<'_>,
    query: &[u8],
    parsed: &ParsedQuery,
    sent: &[u8],
    (ecs, strip): (Ecs, &PrivateAnswers),
    limit: usize,
) {
    let mut response = message::id(sent).expect("a header").to_be_bytes().to_vec();
    let counts = choices.take(8);
    response.extend([counts.first().copied().unwrap_or(0) & 0x87 | 0x80]);
    response.extend([counts.get(1).copied().unwrap_or(0), 0, 1]);
    for count in 2..5 {
        response.extend([0, counts.get(count).copied().unwrap_or(0) % 8]);
    }
    response.extend(&query[HEADER_LEN..parsed.question_end]);
    response.extend(choices.rest());
    let ResponseCheck::Answer(mut info) =
        message::check_response(&response, query, parsed.question_end)
    else {
        return;
    };
    info.stripped = strip.strips(&response, &info, query, parsed);
    let judge = judge_of(strip).filter(|_| parsed.signature.is_none());
    if let Some(judge) = &judge {
        let view = View::read_front(&response).expect("what can be walked");
        let allowed = match judge.allowed(&view) {
            Allowed::All => Stripped::Nothing,
            Allowed::Nothing => return assert_eq!(info.stripped, Stripped::Everything),
            Allowed::Before(section) => {
                let is_in = |record: &&Record| record.section < section;
                let kept = view.records.iter().rfind(is_in).map(Record::end);
                let end = kept.expect("answers are in front of it");
                Stripped::Beside { end, with_authority: section == 2 }
            }
        };
        assert_eq!(info.stripped, allowed, "{response:02x?} {judge:?}");
    }
    let choice = ResponseEdit { ecs, limit, udp_size: 1_232, keepalive: None };
    let mut out = b"before".to_vec();
    if edit::append_response(&mut out, &response, &info, query, parsed, choice).is_err() {
        assert_eq!(out, b"before", "nothing is left of what was not delivered");
        return;
    }
    let out = out.strip_prefix(b"before").expect("what was there stays");
    if let Some(judge) = &judge
        && let Some(seen) = View::read(out).filter(|seen| !seen.is_truncated())
    {
        judge.judge(&View::read_front(&response).expect("what can be walked"), &seen);
    }
    assert!(out.len() <= limit, "{} octets of {limit}", out.len());
    assert_eq!(message::id(out), Some(parsed.id));
    assert_eq!(out[HEADER_LEN..parsed.question_end], query[HEADER_LEN..parsed.question_end]);
    match message::check_response(out, query, parsed.question_end) {
        ResponseCheck::Answer(seen) if parsed.signature.is_none() && info.signature.is_none() => {
            assert!(seen.opt.is_none() || parsed.opt.is_some(), "OPT to a client without");
            assert_eq!(seen.end, out.len());
        }
        ResponseCheck::Answer(_) => {}
        check => panic!("{check:?}"),
    }
}
