use super::*;

#[test]
fn queries_that_pass() {
    // Every header flag pattern with QR=0 and OPCODE QUERY (RFC 5625 section 4.1).
    for flags in 0..=0x07ff {
        let query = with_flags(&query(b"", 0), flags);
        let parsed = parse_query(&query, false).unwrap();
        assert_eq!((parsed.id, parsed.question_end), (0x1234, query.len()), "{flags:#06x}");
        assert_eq!((parsed.qtype, parsed.qclass), (Rtype(1), Class(1)));
        assert_eq!((parsed.opt, parsed.signature), (None, None));
    }
    // Every type but two, in any class (RFC 5625 section 4.3).
    for qtype in 0..=u16::MAX {
        let mut query = query(b"", 0);
        let end = query.len();
        query[end - 4..].copy_from_slice(&[(qtype >> 8) as u8, qtype as u8, 0xff, 0xfe]);
        match parse_query(&query, false) {
            Ok(parsed) => {
                assert_eq!((parsed.qtype, parsed.qclass), (Rtype(qtype), Class(0xfffe)));
            }
            Err(Refusal::Respond(response)) => {
                assert!(matches!(Rtype(qtype), Rtype::AXFR | Rtype::IXFR));
                assert_eq!(response.rcode, Rcode::REFUSED);
                assert_eq!(response.ede.unwrap().code, 21);
            }
            Err(Refusal::Drop) => panic!("{qtype}"),
        }
    }
}

#[test]
fn what_a_query_ends_with() {
    type Case<'a> = (&'a [&'a [u8]], [u16; 3], Option<Opt>, Option<Signature>);
    let end = query(b"", 0).len();
    let opt = Opt {
        offset: end,
        len: OPT.len(),
        udp_size: 1_232,
        extended_rcode: 0,
        version: 0,
        dnssec_ok: true,
    };
    let moved = Opt { offset: end + A.len(), ..opt };
    let cases: [Case<'_>; 7] = [
        (&[OPT], [0, 0, 1], Some(opt), None),
        (&[A, OPT], [0, 0, 2], Some(moved), None),
        (&[A, OPT], [0, 1, 1], Some(moved), None),
        (&[OPT, TSIG], [0, 0, 2], Some(opt), Some(Signature::Tsig)),
        (&[SIG0], [0, 0, 1], None, Some(Signature::Sig0)),
        (&[SIG, A], [0, 0, 2], None, None),
        (&[SIG], [1, 0, 0], None, None),
    ];
    for (records, counts, opt, signature) in cases {
        let query = with_records(records, counts);
        let parsed = parse_query(&query, false).unwrap();
        assert_eq!((parsed.opt, parsed.signature), (opt, signature), "{query:x?}");
    }
}

/// What a query is refused with: RCODE, the end of the question, and whether there is an OPT record. `None`: it
/// is dropped.
type Refused = (&'static str, Vec<u8>, Option<(Rcode, usize, bool)>);

fn assert_refused<const N: usize>(cases: [Refused; N]) {
    for (what, query, expected) in cases {
        let found = match parse_query(&query, false).expect_err(what) {
            Refusal::Drop => None,
            Refusal::Respond(response) => {
                assert!(!response.truncated, "{what}");
                let has_ede = [Rcode::REFUSED, Rcode::BADVERS].contains(&response.rcode);
                assert_eq!(response.ede.is_some(), has_ede, "{what}");
                Some((response.rcode, response.question_end, response.opt.is_some()))
            }
        };
        assert_eq!(found, expected, "{what}");
    }
}

/// A query for a zone transfer.
fn axfr(mut query: Vec<u8>) -> Vec<u8> {
    let end = self::query(b"", 0).len();
    query[end - 3] = 252;
    query
}

fn trailing(query: &[u8]) -> Vec<u8> {
    [query, b"x"].concat()
}

const EDNS1: &[u8] = b"\0\0\x29\x04\xd0\0\x01\x80\0\0\0";

/// The order of the checks, each row with everything wrong that is checked after it.
#[test]
fn queries_refused_for_header_or_question() {
    let end = query(b"", 0).len();
    let formerr = Rcode::FORMERR;
    assert_refused([
        ("empty", vec![], None),
        ("11 octets", query(b"", 0)[..11].to_vec(), None),
        ("QR=1", with_flags(&query(b"", 0), 0x8100), None),
        ("QR=1, opcode", with_flags(&query(b"", 0), 0xa800), None),
        (
            "opcode",
            with_flags(&trailing(&axfr(with_records(&[EDNS1], [0, 0, 1]))), 0x2900),
            Some((Rcode::NOTIMP, 12, true)),
        ),
        (
            "opcode, OPT cut before its RDATA",
            with_flags(&query(&OPT[..9], 1), 0x2900),
            Some((Rcode::NOTIMP, 12, false)),
        ),
        (
            "opcode, header only",
            vec![0, 0, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            Some((Rcode::NOTIMP, 12, false)),
        ),
        ("no question", with_qdcount(&query(OPT, 1), 0), Some((formerr, 12, false))),
        (
            "no question, OPT",
            [&query(b"", 1)[..5], &[0], &query(b"", 1)[6..12], OPT].concat(),
            Some((formerr, 12, true)),
        ),
        ("two questions", with_qdcount(&query(OPT, 1), 2), Some((formerr, 12, false))),
        (
            "two questions, OPT",
            with_qdcount(&query(&[b"\xc0\x0c\0\x1c\0\x01", OPT].concat(), 1), 2),
            Some((formerr, 12, true)),
        ),
        (
            "two questions, the second cut, OPT",
            with_qdcount(&query(&[b"\x40\0\x1c\0\x01", OPT].concat(), 1), 2),
            Some((formerr, 12, false)),
        ),
        ("question cut in the name", query(b"", 0)[..20].to_vec(), Some((formerr, 12, false))),
        ("question cut", query(b"", 0)[..end - 1].to_vec(), Some((formerr, 12, false))),
        (
            "compressed question",
            [&query(b"", 0)[..12], b"\x01a\xc0\x04\0\x01\0\x01"].concat(),
            Some((formerr, 12, false)),
        ),
        (
            "label type",
            [&query(b"", 0)[..12], b"\x41a\0\0\x01\0\x01"].concat(),
            Some((formerr, 12, false)),
        ),
        ("question of 256 octets", question_of(256), Some((formerr, 12, false))),
    ]);
}

/// The order of the checks, each row with everything wrong that is checked after it.
#[test]
fn queries_refused_for_their_records() {
    let end = query(b"", 0).len();
    let opt_of_a: &[u8] = b"\x01a\0\0\x29\x04\xd0\0\0\x80\0\0\0";
    let overrun: &[u8] = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x04\0\x0a\0\x01";
    let cut_opt: &[u8] = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x09";
    let formerr = Rcode::FORMERR;
    assert_refused([
        ("record missing", query(b"", 1), Some((formerr, end, false))),
        ("record missing after OPT", query(OPT, 2), Some((formerr, end, true))),
        ("RDATA cut", query(&A[..A.len() - 1], 1), Some((formerr, end, false))),
        ("OPT cut in its RDATA", query(cut_opt, 1), Some((formerr, end, true))),
        ("OPT cut before it", query(&cut_opt[..10], 1), Some((formerr, end, false))),
        (
            "two OPTs",
            trailing(&axfr(with_records(&[EDNS1, OPT], [0, 0, 2]))),
            Some((formerr, end, true)),
        ),
        ("OPT as answer", with_records(&[OPT], [1, 0, 0]), Some((formerr, end, true))),
        ("OPT in authority", with_records(&[OPT], [0, 1, 0]), Some((formerr, end, true))),
        ("OPT of a.", query(opt_of_a, 1), Some((formerr, end, true))),
        ("option overrun", query(overrun, 1), Some((formerr, end, true))),
        ("TSIG, OPT", with_records(&[TSIG, OPT], [0, 0, 2]), Some((formerr, end, true))),
        ("TSIG in authority", with_records(&[TSIG], [0, 1, 0]), Some((formerr, end, false))),
        ("EDNS version 1", trailing(&axfr(query(EDNS1, 1))), Some((Rcode::BADVERS, end, true))),
        ("AXFR", trailing(&axfr(query(OPT, 1))), Some((Rcode::REFUSED, end, true))),
        ("trailing octet", trailing(&query(OPT, 1)), Some((formerr, end, true))),
        (
            "name in the OPT",
            with_records(&[OPT, NAME_IN_OPT], [0, 0, 2]),
            Some((formerr, end, true)),
        ),
    ]);
    for sigs in [[SIG0, OPT], [SIG0, TSIG], [TSIG, TSIG]] {
        let query = with_records(&sigs, [0, 0, 2]);
        assert!(matches!(parse_query(&query, false), Err(Refusal::Respond(_))), "{sigs:x?}");
    }
}

#[test]
fn a_question_of_255_octets_passes() {
    assert_eq!(parse_query(&question_of(255), false).unwrap().question_end, 12 + 255 + 4);
}

#[test]
fn a_cut_datagram_is_answered_with_tc() {
    let whole = query(&[OPT, &[0; 4_000]].concat(), 2);
    for (query, has_opt) in [(&whole[..], true), (&whole[..query(b"", 0).len()], false)] {
        let Err(Refusal::Respond(response)) = parse_query(query, true) else { panic!() };
        assert!(response.truncated);
        assert_eq!((response.rcode, response.opt.is_some()), (Rcode::NOERROR, has_opt));

        let mut out = Vec::new();
        local_response(&mut out, query, &response, 1_232, 512);
        assert_eq!(out[2..4], [0x83, 0x80]);
        assert_eq!(out[4..12], [0, 1, 0, 0, 0, 0, 0, u8::from(has_opt)]);
    }
    // A message that is dropped or not implemented stays so.
    assert_eq!(parse_query(&with_flags(&whole, QR), true), Err(Refusal::Drop));
    let Err(Refusal::Respond(response)) = parse_query(&with_flags(&whole, 0x2000), true) else {
        panic!()
    };
    assert_eq!((response.rcode, response.truncated), (Rcode::NOTIMP, false));
}

#[test]
fn local_responses() {
    let query = query(OPT, 1);
    let parsed = parse_query(&query, false).unwrap();
    let question = &query[12..parsed.question_end];
    let ede = Some(Ede { code: 23, text: "no answer" });
    let respond = |query: &[u8], response: &LocalResponse<'_>| {
        let mut out = b"before".to_vec();
        local_response(&mut out, query, response, 1_232, 512);
        out.split_off(6)
    };

    let response = respond(&query, &parsed.local_response(Rcode::SERVFAIL, ede));
    let opt = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x0f\0\x0f\0\x0b\0\x17no answer";
    let header = b"\x12\x34\x81\x82\0\x01\0\0\0\0\0\x01";
    assert_eq!(response, [header, question, opt].concat());

    // RFC 6891 section 6.1.3: the RCODE of the header is 0.
    let Err(Refusal::Respond(badvers)) = parse_query(&self::query(EDNS1, 1), false) else {
        panic!()
    };
    let response = respond(&query, &badvers);
    assert_eq!(response[2..4], [0x81, 0x80]);
    let opt = b"\0\0\x29\x04\xd0\x01\0\x80\0\0\x0f\0\x0f\0\x0b\0\0dot-proxy";
    assert_eq!(response[12 + question.len()..], *opt);

    // No OPT asked for, so no EDE and no extended RCODE.
    let without = LocalResponse { opt: None, ..parsed.local_response(Rcode::BADVERS, ede) };
    let response = respond(&query, &without);
    assert_eq!(response, [b"\x12\x34\x81\x82\0\x01\0\0\0\0\0\0", question].concat());

    // RD and CD are the only flags that are copied; with another opcode no flag is.
    for (flags, expected) in
        [(0x7ff, 0x8190_u16), (0x6ef, 0x8080), (0x7fff, 0xf804), (0x10, 0x8090)]
    {
        let query = with_flags(&query, flags);
        let response = match parse_query(&query, false) {
            Ok(parsed) => parsed.local_response(Rcode::NOERROR, None),
            Err(Refusal::Respond(response)) => response,
            Err(Refusal::Drop) => panic!(),
        };
        assert_eq!(respond(&query, &response)[2..4], expected.to_be_bytes(), "{flags:#06x}");
    }
    assert_eq!(respond(&query[..11], &without), b"");
}

#[test]
fn responses_that_pass() {
    let query = query(OPT, 1);
    let parsed = parse_query(&query, false).unwrap();
    let check = |response: &[u8]| check_response(response, &query, parsed.question_end);
    let answer = response(&[A, A, NS, OPT], [2, 1, 1]);
    let end = parsed.question_end;
    let info = ResponseInfo {
        rcode: Rcode::NOERROR,
        question_end: end,
        end: end + 2 * A.len() + NS.len() + OPT.len(),
        opt: Some(Opt {
            offset: end + 2 * A.len() + NS.len(),
            len: OPT.len(),
            udp_size: 1_232,
            extended_rcode: 0,
            version: 0,
            dnssec_ok: true,
        }),
        signature: None,
        stripped: Stripped::Nothing,
    };
    assert_eq!(check(&answer), ResponseCheck::Answer(info));

    let mut other_case = answer.clone();
    other_case[12..end - 4].make_ascii_uppercase();
    assert_ne!(other_case, answer);
    assert_eq!(check(&other_case), ResponseCheck::Answer(info));

    let mut other_id = answer.clone();
    set_id(&mut other_id, 0xabcd);
    assert_eq!((id(&other_id), other_id[7]), (Some(0xabcd), 2));
    assert_eq!(check(&other_id), ResponseCheck::Answer(info));

    let truncated = ResponseInfo { rcode: Rcode(3), ..info };
    assert_eq!(check(&with_flags(&answer, 0x8303)), ResponseCheck::Answer(truncated));

    let extended = b"\0\0\x29\x04\xd0\x01\0\0\0\0\0";
    let ResponseCheck::Answer(extended) =
        check(&with_flags(&response(&[extended], [0, 0, 1]), 0x8007))
    else {
        panic!()
    };
    assert_eq!(extended.rcode, Rcode(23));
    for (records, signature) in [
        (&[A, OPT, TSIG][..], Some(Signature::Tsig)),
        (&[A, TSIG], Some(Signature::Tsig)),
        (&[A, SIG0], Some(Signature::Sig0)),
        (&[A, SIG], None),
    ] {
        let response = response(records, [1, 0, records.len() as u16 - 1]);
        let ResponseCheck::Answer(info) = check(&response) else { panic!("{response:x?}") };
        assert_eq!(info.signature, signature, "{response:x?}");
    }
    let more = [&answer[..], b"x"].concat();
    assert!(matches!(check(&more), ResponseCheck::Answer(_)), "octets after the last record");
}

#[test]
fn responses_to_something_else() {
    let query = query(OPT, 1);
    let end = parse_query(&query, false).unwrap().question_end;
    let check = |response: &[u8]| check_response(response, &query, end);
    let answer = response(&[A, A, NS, OPT], [2, 1, 1]);
    let changed = |at: usize| {
        let mut message = answer.clone();
        message[at] ^= 1;
        message
    };
    let malformed = [
        ("header cut", answer[..11].to_vec()),
        ("QR=0", with_flags(&answer, 0x0100)),
        ("opcode", with_flags(&answer, 0xa000)),
        ("length of a label", changed(12)),
        ("letter", changed(13)),
        ("type", changed(end - 3)),
        ("class", changed(end - 1)),
        ("question cut", answer[..end - 1].to_vec()),
        ("two questions", with_qdcount(&answer, 2)),
        ("no question", with_flags(&answer, 0x8000)[..12].to_vec()),
        ("no question, NOERROR", vec![0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("no question, an answer", vec![0, 0, 0x80, 2, 0, 0, 0, 1, 0, 0, 0, 0]),
    ];
    for (what, response) in malformed {
        assert!(matches!(check(&response), ResponseCheck::Malformed(_)), "{what}");
    }

    let bare = [0, 0, 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(check(&bare), ResponseCheck::ErrorWithoutQuestion(Rcode::SERVFAIL));
    let bare = b"\0\0\x80\0\0\0\0\0\0\0\0\x01\0\0\x29\x04\xd0\x01\0\0\0\0\0";
    assert_eq!(check(bare), ResponseCheck::ErrorWithoutQuestion(Rcode::BADVERS));
}

#[test]
fn responses_whose_records_cannot_be_read() {
    let query = query(OPT, 1);
    let end = parse_query(&query, false).unwrap().question_end;
    let check = |response: &[u8]| check_response(response, &query, end);
    let answer = response(&[A, A, NS, OPT], [2, 1, 1]);
    let unreadable = [
        ("cut", answer[..answer.len() - 1].to_vec()),
        ("records missing", answer[..end].to_vec()),
        ("two OPTs", response(&[OPT, OPT], [0, 0, 2])),
        ("OPT as answer", response(&[OPT], [1, 0, 0])),
        ("name in the OPT", response(&[OPT, NAME_IN_OPT], [0, 0, 2])),
        ("TSIG, OPT", response(&[TSIG, OPT], [0, 0, 2])),
        ("TSIG, A", response(&[TSIG, A], [0, 0, 2])),
        ("SIG(0), A", response(&[SIG0, A], [0, 0, 2])),
        ("two TSIGs", response(&[TSIG, TSIG], [0, 0, 2])),
        ("SIG(0), TSIG", response(&[SIG0, TSIG], [0, 0, 2])),
        ("TSIG as answer", response(&[TSIG], [1, 0, 0])),
        ("TSIG in authority", response(&[TSIG], [0, 1, 0])),
    ];
    for (what, response) in unreadable {
        assert_eq!(check(&response), ResponseCheck::Unreadable, "{what}");
    }
}

#[test]
fn a_response_is_cut_between_records() {
    let query = query(b"", 0);
    let end = query.len();
    let many: Vec<_> = std::iter::repeat_n(A, 40).chain([NS]).collect();
    let response = response(&many, [40, 1, 0]);
    let ResponseCheck::Answer(info) = check_response(&response, &query, end) else { panic!() };
    // One that fits to the octet stays, and one octet less loses it.
    for (limit, kept) in [(end + 35 * A.len(), 35), (end + 35 * A.len() - 1, 34), (0, 0)] {
        let mut out = b"before".to_vec();
        append_cut(&mut out, &response, &info, limit);
        let counts = [0, 1, 0, kept, 0, 0, 0, 0];
        let header = [&[0x12, 0x34, 0x83, 0x80], &counts[..]].concat();
        let records = A.repeat(kept.into());
        assert_eq!(out[6..], [&header, &query[12..], &records].concat());
    }
}

const A: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01";
const NS: &[u8] = b"\xc0\x14\0\x02\0\x01\0\0\0\x3c\0\x05\x02ns\xc0\x14";
/// UDP size 1232, DO, an empty NSID option.
const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x04\0\x03\0\0";
/// Behind the question.
const NAME_IN_OPT: &[u8] = b"\xc0\x1d\0\x01\0\x01\0\0\0\x3c\0\0";
const SIG: &[u8] = b"\0\0\x18\0\x01\0\0\0\0\0\x03\0\x01\x05";
const SIG0: &[u8] = b"\0\0\x18\0\xff\0\0\0\0\0\x03\0\0\x05";
const TSIG: &[u8] = b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x01x";

/// A query for `example.com. IN A` with `records` in its additional section.
fn query(records: &[u8], arcount: u8) -> Vec<u8> {
    let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, arcount];
    [&header, &b"\x07example\x03com\0\0\x01\0\x01"[..], records].concat()
}

fn with_records(records: &[&[u8]], counts: [u16; 3]) -> Vec<u8> {
    let mut message = query(&records.concat(), 0);
    for (field, count) in message[6..12].chunks_mut(2).zip(counts) {
        field.copy_from_slice(&count.to_be_bytes());
    }
    message
}

fn response(records: &[&[u8]], counts: [u16; 3]) -> Vec<u8> {
    with_flags(&with_records(records, counts), 0x8180)
}

fn with_flags(message: &[u8], flags: u16) -> Vec<u8> {
    [&message[..2], &flags.to_be_bytes(), &message[4..]].concat()
}

fn with_qdcount(message: &[u8], qdcount: u8) -> Vec<u8> {
    [&message[..4], &[0, qdcount], &message[6..]].concat()
}

/// A query whose name has `len` octets.
fn question_of(len: usize) -> Vec<u8> {
    let mut message = query(b"", 0)[..12].to_vec();
    let mut left = len - 1;
    while left > 0 {
        // Not 63 where that leaves a single octet, which no label has.
        let label = if left == 65 { 62 } else { left.min(64) - 1 };
        message.push(label as u8);
        message.extend(std::iter::repeat_n(b'a', label));
        left -= label + 1;
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}
