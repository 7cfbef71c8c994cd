//! What is read of messages, and what is answered here, against the view of the `domain` crate.

use std::fmt::Write as _;
use std::str::FromStr as _;

use domain::base::Message;
use domain::base::name::Name;
use domain::base::opt::{ExtendedError, TcpKeepalive};
use dot_proxy::forwarder::message::{
    self, Ede, HEADER_LEN, LocalRecords, LocalResponse, NameDisplay, ParsedQuery, Rcode, Refusal,
    ResponseCheck, ResponseInfo, Stripped,
};

use super::generate::{damaged, generated, random_name};
use super::view::View;
use support::random::{Random, for_each_case};

#[test]
fn generated_queries() {
    let mut accepted = 0;
    for_each_case("generated_queries", 4_000, |random| {
        let query = generated(random);
        accepted += u32::from(message::parse_query(&query, false).is_ok());
        query_agrees(random, &query, Origin::Whole);
    });
    assert!((1_000..3_000).contains(&accepted), "{accepted} of 4000 are queries");
}

#[test]
fn generated_responses() {
    let mut accepted = 0;
    for_each_case("generated_responses", 4_000, |random| {
        let mut response = generated(random);
        response[2] |= 0x80;
        accepted += u32::from(response_agrees(&response, &response, Origin::Whole));
    });
    assert!((2_000..3_800).contains(&accepted), "{accepted} of 4000 are responses");
}

#[test]
fn damaged_messages() {
    let corpus: Vec<_> = (0..200).map(|seed| generated(&mut Random::new(seed))).collect();
    let mut accepted = 0;
    for_each_case("damaged_messages", 60_000, |random| {
        let original = random.choice(&corpus);
        let mut message = damaged(random, original, &corpus);
        query_agrees(random, &message, Origin::Damaged);
        if let Some(flags) = message.get_mut(2)
            && random.chance(900)
        {
            *flags = *flags & 0x07 | 0x80;
        }
        let query = if random.chance(500) { original.clone() } else { message.clone() };
        accepted += u32::from(response_agrees(&message, &query, Origin::Damaged));
    });
    assert!((5_000..40_000).contains(&accepted), "{accepted} of 60000 are still responses");
}

#[test]
fn octets_at_random() {
    for_each_case("octets_at_random", 20_000, |random| {
        let len = random.index(80);
        let message = random.octets(len);
        query_agrees(random, &message, Origin::Damaged);
        response_agrees(&message, &message, Origin::Damaged);
        assert_printable(&message);
    });
}

#[test]
fn presentation_can_be_read_back() {
    for_each_case("presentation_can_be_read_back", 4_000, |random| {
        let name = random_name(random);
        let text = assert_printable(name.as_slice());
        assert_eq!(Name::<Vec<u8>>::from_str(&text).unwrap(), name, "{text}");
        // Without regard to case is how names compare; the spelling has to be kept too.
        assert_eq!(Name::<Vec<u8>>::from_str(&text).unwrap().as_slice(), name.as_slice());
    });
}

/// Where a message is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Whole,
    /// Names behind its OPT record may not be what they seem, and then it may be refused for them.
    Damaged,
}

/// What `parse_query` should say, by the octets as `domain` reads them.
fn model(message: &[u8], truncated: bool) -> Result<ParsedQuery, Refusal> {
    let Some(view) = View::of(message) else {
        return Err(Refusal::Drop);
    };
    if view.flags & 0x8000 != 0 {
        return Err(Refusal::Drop);
    }
    let respond = |rcode, question_end, opt| {
        Err(Refusal::Respond(LocalResponse {
            rcode,
            question_end,
            opt,
            ede: None,
            keepalive: None,
            truncated: false,
            records: LocalRecords::default(),
        }))
    };
    if view.flags & 0x7800 != 0 {
        return respond(Rcode::NOTIMP, HEADER_LEN, view.opt(message));
    }
    let Some(question) = &view.question else {
        return respond(Rcode::FORMERR, HEADER_LEN, view.opt(message));
    };
    let opt = view.opt(message);
    if truncated {
        return Err(Refusal::Respond(LocalResponse {
            rcode: Rcode::NOERROR,
            question_end: question.end,
            opt,
            ede: None,
            keepalive: None,
            truncated: true,
            records: LocalRecords::default(),
        }));
    }
    if !view.complete || !view.opt_valid(message) || !view.signed_in_place(message) {
        respond(Rcode::FORMERR, question.end, opt)
    } else if opt.is_some_and(|opt| opt.version != 0) {
        respond(Rcode::BADVERS, question.end, opt)
    } else if [251, 252].contains(&question.qtype) {
        respond(Rcode::REFUSED, question.end, opt)
    } else if view.end != message.len() {
        respond(Rcode::FORMERR, question.end, opt)
    } else {
        Ok(ParsedQuery {
            id: u16::from_be_bytes([message[0], message[1]]),
            qtype: message::Rtype(question.qtype),
            qclass: message::Class(question.qclass),
            question_end: question.end,
            opt,
            signature: view.signature(message),
        })
    }
}

fn query_agrees(random: &mut Random, query: &[u8], origin: Origin) {
    let truncated = random.chance(125);
    let mut expected = model(query, truncated);
    let found = message::parse_query(query, truncated);
    if let (Ok(parsed), Err(Refusal::Respond(response))) = (expected, found)
        && origin == Origin::Damaged
        && parsed.signature.is_none()
        && parsed.opt.is_some_and(|opt| opt.offset + opt.len < query.len())
        && response.rcode == Rcode::FORMERR
    {
        let local = parsed.local_response(Rcode::FORMERR, None);
        expected = Err(Refusal::Respond(local));
    }
    let ede = Ede { code: Ede::NETWORK_ERROR, text: "the upstream said nothing for a while" };
    let (response, found) = match found {
        Ok(parsed) => (Some(parsed.local_response(Rcode::SERVFAIL, Some(ede))), found),
        Err(Refusal::Drop) => (None, found),
        Err(Refusal::Respond(response)) => {
            let has_ede = [Rcode::REFUSED, Rcode::BADVERS].contains(&response.rcode);
            assert_eq!(response.ede.is_some(), has_ede);
            (Some(response), Err(Refusal::Respond(LocalResponse { ede: None, ..response })))
        }
    };
    assert_eq!(found, expected, "{query:x?}");
    if let Some(response) = response {
        local_response_is_sound(random, query, &response);
    }
}

fn local_response_is_sound(random: &mut Random, query: &[u8], response: &LocalResponse<'_>) {
    let limit = *random.choice(&[512, 600, 1_232, 65_535]);
    let keepalive = random.chance(333).then(|| random.next_u64() as u16);
    let response = &LocalResponse { keepalive, ..*response };
    let mut out = b"before".to_vec();
    message::local_response(&mut out, query, response, 1_232, limit);
    let out = out.split_off(6);
    assert!(out.len() <= limit);

    let message = Message::from_slice(&out).unwrap();
    let (header, counts) = (message.header(), message.header_counts());
    assert_eq!(out[..2], query[..2]);
    assert!(header.qr() && !header.aa() && !header.ad() && !header.z());
    assert_eq!(header.opcode().to_int(), query[2] >> 3 & 15);
    // No flag means anything under an opcode that is not known.
    let is_known = header.opcode().to_int() == 0;
    assert_eq!((header.ra(), header.rd()), (is_known, is_known && query[2] & 1 == 1));
    assert_eq!(header.tc(), response.truncated);
    assert!(is_known || !header.cd());
    assert_eq!((counts.ancount(), counts.nscount()), (0, 0));
    assert_eq!(message.opt_rcode().to_int(), response.rcode.0);

    let has_question = response.question_end > HEADER_LEN;
    assert_eq!(counts.qdcount(), u16::from(has_question));
    assert_eq!(counts.arcount(), u16::from(response.opt.is_some()));
    assert_eq!(out[HEADER_LEN..response.question_end], query[HEADER_LEN..response.question_end]);
    let view = View::of(&out).unwrap();
    assert!(view.complete && view.end == out.len() && view.opt_valid(&out));
    if let Some(asked) = response.opt {
        let opt = message.opt().unwrap();
        assert_eq!((opt.version(), opt.udp_payload_size()), (0, 1_232));
        assert_eq!(opt.dnssec_ok(), asked.dnssec_ok);
        let found = opt.opt().first::<ExtendedError<&[u8]>>();
        let expected = response.ede.map(|ede| (ede.code, ede.text));
        let found = found
            .as_ref()
            .map(|ede| (ede.code().to_int(), ede.text().map_or("", |text| text.unwrap())));
        assert_eq!(found, expected);
        let told = opt.opt().first::<TcpKeepalive>().map(|option| option.timeout().unwrap().into());
        assert_eq!(told, keepalive);
    }
}

/// Checks `response` as one to the question of `query`; true if it is.
fn response_agrees(response: &[u8], query: &[u8], origin: Origin) -> bool {
    let question = View::of(query).and_then(|view| view.question);
    let question_end = question.as_ref().map_or(HEADER_LEN, |question| question.end);
    let found = message::check_response(response, query, question_end);
    let Some(view) = View::of(response) else {
        assert!(matches!(found, ResponseCheck::Malformed(_)));
        return false;
    };
    let counts = view.counts;
    let rcode =
        view.opt(response).map_or(0, |opt| u16::from(opt.extended_rcode) << 4) | view.flags & 15;
    if view.flags & 0xf800 != 0x8000 {
        assert!(matches!(found, ResponseCheck::Malformed(_)), "{found:?}");
    } else if counts[0] == 0 && counts[1] == 0 && rcode != 0 {
        assert_eq!(found, ResponseCheck::ErrorWithoutQuestion(Rcode(rcode)));
    } else if question.is_none() || view.question != question {
        assert!(matches!(found, ResponseCheck::Malformed(_)), "{found:?} {response:x?}");
    } else if !view.complete || !view.opt_valid(response) || !view.signed_in_place(response) {
        assert_eq!(found, ResponseCheck::Unreadable, "{response:x?}");
    } else if origin == Origin::Damaged
        && found == ResponseCheck::Unreadable
        && view.opt(response).is_some_and(|opt| opt.offset + opt.len < view.end)
    {
        return false;
    } else {
        let info = ResponseInfo {
            rcode: Rcode(rcode),
            question_end,
            end: view.end,
            opt: view.opt(response),
            signature: view.signature(response),
            stripped: Stripped::Nothing,
        };
        assert_eq!(found, ResponseCheck::Answer(info), "{response:x?}");
        return true;
    }
    false
}

/// The presentation form of the name at the start of `octets`.
fn assert_printable(octets: &[u8]) -> String {
    let mut text = String::new();
    write!(text, "{}", NameDisplay(octets)).unwrap();
    assert!(text.bytes().all(|octet| (0x21..=0x7e).contains(&octet)), "{text:?}");
    assert!(text.ends_with('.'));
    text
}
