//! What is edited in messages on their way, each way.

use std::collections::BTreeSet;

use domain::base::Message;
use domain::base::opt::{ExtendedError, TcpKeepalive};
use dot_proxy::forwarder::message::edit::{
    self, Ecs, Edns, Family, QueryEdit, RcodeNeedsOpt, ResponseEdit,
};
use dot_proxy::forwarder::message::{
    self, Opt, ParsedQuery, ResponseCheck, ResponseInfo, Signature,
};

use super::generate::{damaged, generated};
use super::plan::{Compression, HEADER_LEN, OptPlan, Plan};
use super::view::{Record, View};
use support::random::{Random, for_each_case};

/// RFC 8467 section 4.1, for every length of a name and each mix of options.
#[test]
fn queries_of_every_length() {
    let labels = |len: usize| {
        let mut name = Vec::new();
        while name.len() + 1 < len {
            let left = len - 1 - name.len();
            // Not 64 octets where that leaves a single one, which no label has.
            let label = if left == 65 { 62 } else { left.min(64) - 1 };
            name.push(label as u8);
            name.extend(std::iter::repeat_n(b'a', label));
        }
        name.push(0);
        name
    };
    let sections = Plan::random(&mut Random::new(4), 0).sections;
    let trailing: Vec<_> = sections.into_iter().flatten().take(2).collect();
    assert_eq!(trailing.len(), 2);
    // No name has two octets.
    for len in (1..=255).filter(|len| *len != 2) {
        for bits in 0..0x200_u16 {
            let has = |bit: u16| bits >> bit & 1 == 1;
            let mut options = Vec::new();
            if has(0) {
                options.push((8, b"\0\x01\x18\0\xc0\0\x02".to_vec()));
            }
            if has(1) {
                options.push((10, vec![7; 8]));
            }
            if has(2) {
                options.push((65_001, vec![1; 3]));
            }
            let dnssec_ok = if has(3) { 0x80 } else { 0 };
            let opt = OptPlan { place: 0, fixed: [2, 0, 0, 0, dnssec_ok, 0], options };
            let additional = if has(5) { trailing.clone() } else { vec![] };
            let sections = [vec![], vec![], additional];
            let plan = Plan { id: 0x1234, flags: 0x0100, qname: labels(len), sections };
            let opt = has(4).then_some(opt);
            let choices = QueryEdit {
                edns: Edns::Ours,
                keepalive: has(6),
                ecs: if has(7) { Ecs::Pass } else { Ecs::Strip },
                family: if has(8) { Family::Ipv6 } else { Family::Ipv4 },
            };
            if opt.is_none() && bits & 0xf != 0 {
                continue;
            }
            query_is_edited(&plan, opt.as_ref(), Compression::All, choices);
        }
    }
}

#[test]
fn generated_queries() {
    let mut shapes = BTreeSet::new();
    for_each_case("edited::generated_queries", 6_000, |random| {
        let (plan, opt) = planned(random, 0x0100);
        let choices = random_query_edit(random);
        let opt = opt.map(|opt| OptPlan { fixed: edns_0(opt.fixed), ..opt });
        let compression = random_compression(random);
        shapes.insert((compression.extent(), shape(&plan.write(opt.as_ref(), Compression::None))));
        query_is_edited(&plan, opt.as_ref(), compression, choices);
    });
    assert_eq!(shapes.len(), 3 * SHAPES);
}

/// A query of `plan` and `opt` goes upstream as it should.
fn query_is_edited(
    plan: &Plan,
    opt: Option<&OptPlan>,
    compression: Compression,
    choices: QueryEdit,
) {
    let query = plan.write(opt, compression);
    let parsed = message::parse_query(&query, false).unwrap();
    assert_eq!(parsed.opt.is_some(), opt.is_some());
    let mut out = b"before".to_vec();
    edit::append_query(&mut out, &query, &parsed, 0xabcd, choices);
    assert_eq!(&out[..6], b"before");
    let out = &out[6..];

    let has_opt = match choices.edns {
        Edns::Ours => true,
        Edns::Clients => opt.is_some(),
        Edns::Absent => false,
    };
    let expected = has_opt.then(|| {
        let mut expected = opt.cloned().unwrap_or(OptPlan {
            place: 0,
            fixed: [0x04, 0xd0, 0, 0, 0, 0],
            options: vec![],
        });
        expected.options.retain(|(code, _)| is_kept(*code, choices.ecs));
        if choices.edns == Edns::Clients {
            return expected;
        }
        if choices.ecs == Ecs::Strip {
            let family = if choices.family == Family::Ipv4 { 1 } else { 2 };
            expected.options.push((8, vec![0, family, 0, 0]));
        }
        if choices.keepalive {
            expected.options.push((11, vec![]));
        }
        let rest = query.len() - opt.map_or(0, |opt| opt.octets().len());
        expected.options.push((12, vec![]));
        let mut padding = vec![0; (128 - (rest + expected.octets().len()) % 128) % 128];
        expected.options.pop();
        let came = opt.map_or(&[][..], |opt| &opt.options).iter().filter(|(code, _)| *code == 12);
        let hops = came.map(|(_, came)| {
            let hops = came.strip_prefix(b"dotproxy").and_then(<[u8]>::first);
            hops.map_or(1, |hops| hops.saturating_add(1))
        });
        if let Some(hops) = hops.max() {
            let count = [&b"dotproxy"[..], &[hops]];
            if padding.len() < 9 {
                padding.extend([0; 128]);
            }
            padding[..9].copy_from_slice(&count.concat());
        }
        expected.options.push((12, padding));
        expected
    });
    assert!(choices.edns != Edns::Ours || out.len().is_multiple_of(128));
    assert_eq!(out[..2], [0xab, 0xcd]);
    same_but_opt(plan, &query, parsed.opt, out, expected.as_ref());
    // The message is a query to every reader.
    assert!(message::parse_query(out, false).is_ok());
}

#[test]
fn generated_responses() {
    let mut cut = 0;
    let mut refused = 0;
    let mut shapes = BTreeSet::new();
    for_each_case("edited::generated_responses", 12_000, |random| {
        let (mut plan, opt) = planned(random, 0x8180);
        plan.flags |= if random.chance(125) { 0x0200 } else { 0 };
        plan.flags |= random.index(6) as u16;
        let opt = opt.map(|opt| match random.index(4) {
            0 => opt,
            _ => OptPlan { fixed: edns_0(opt.fixed), ..opt },
        });
        let compression = random_compression(random);
        let extent = compression.extent();
        let response = plan.write(opt.as_ref(), compression);
        shapes.insert((extent, shape(&response)));
        let info = info(&plan, &response);
        let choices = random_response_edit(random);
        let query = random_query(random, info.question_end);

        // What stands behind the last record is left out.
        let len = random.index(4);
        let trailing = random.octets(len);
        let whole = [&response[..], &trailing].concat();
        assert_eq!(
            message::check_response(&whole, &response, info.question_end),
            ResponseCheck::Answer(info)
        );
        let mut out = b"before".to_vec();
        let result = edit::append_response(&mut out, &whole, &info, &response, &query, choices);
        assert_eq!(&out[..6], b"before");
        let out = &out[6..];
        if query.opt.is_none() && opt.as_ref().is_some_and(|opt| opt.fixed[2] != 0) {
            assert_eq!((result, out.len()), (Err(RcodeNeedsOpt), 0));
            refused += 1;
            return;
        }
        assert_eq!(result, Ok(()));
        assert!(out.len() <= choices.limit);
        assert_eq!(out[..2], query.id.to_be_bytes());

        // Asked in another spelling, it differs in nothing but that.
        let respelled = respelled(random, &response[..info.question_end]);
        let mut again = Vec::new();
        edit::append_response(&mut again, &whole, &info, &respelled, &query, choices).unwrap();
        assert_eq!(again[HEADER_LEN..info.question_end], respelled[HEADER_LEN..]);
        again[HEADER_LEN..info.question_end]
            .copy_from_slice(&response[HEADER_LEN..info.question_end]);
        assert!(again == out, "{again:x?}\n{out:x?}");

        let expected = query.opt.map(|_| response_opt(opt.as_ref(), choices));
        let rest = response.len() - opt.as_ref().map_or(0, |opt| opt.octets().len());
        let fits = |opt: &OptPlan| rest + opt.octets().len() <= choices.limit;
        let with_keepalive = expected.clone().map(|mut expected| {
            expected.options.extend(choices.keepalive.map(|t| (11, t.to_be_bytes().to_vec())));
            expected
        });
        let expected = match (&expected, with_keepalive) {
            (_, Some(full)) if fits(&full) => Some(full),
            (Some(bare), _) if fits(bare) => Some(bare.clone()),
            (Some(_), _) if opt.is_none() && rest <= choices.limit => None,
            (None, _) if rest <= choices.limit => None,
            _ => {
                cut += 1;
                is_cut(&plan, &response, opt.as_ref(), &query, choices, out);
                return;
            }
        };
        same_but_opt(&plan, &response, info.opt, out, expected.as_ref());
    });
    assert!(cut > 500 && refused > 100, "{cut} are cut, {refused} need an OPT record");
    assert_eq!(shapes.len(), 3 * SHAPES);
}

/// Messages that the library wrote, in each of its ways to compress names, it reads the same when they
/// are edited, each way.
#[test]
fn messages_of_the_library() {
    let (mut queries, mut responses) = ([0; 2], [0; 2]);
    let mut shapes = [BTreeSet::new(), BTreeSet::new()];
    for_each_case("edited::messages_of_the_library", 12_000, |random| {
        let mut octets = generated(random);
        let choices = random_query_edit(random);
        if let Ok(parsed) = message::parse_query(&octets, false)
            && parsed.signature.is_none()
        {
            let mut out = Vec::new();
            edit::append_query(&mut out, &octets, &parsed, 0xabcd, choices);
            let moved = same_records(&octets, parsed.opt, &out);
            queries[usize::from(moved)] += 1;
            shapes[0].insert(shape(&octets));
        }
        octets[2] |= 0x80;
        let end = View::of(&octets).and_then(|view| view.question).map_or(HEADER_LEN, |q| q.end);
        // What becomes of those that are signed is looked at by itself.
        if let ResponseCheck::Answer(info) = message::check_response(&octets, &octets, end)
            && info.signature.is_none()
        {
            let query = random_query(random, end);
            let choices = ResponseEdit { limit: 65_535, ..random_response_edit(random) };
            let mut out = Vec::new();
            if edit::append_response(&mut out, &octets, &info, &octets, &query, choices).is_ok() {
                let moved = same_records(&octets, info.opt, &out);
                responses[usize::from(moved)] += 1;
                shapes[1].insert(shape(&octets));
            }
        }
    });
    let [[queries, moved], [responses, moved_there]] = [queries, responses];
    assert!(queries > 3_000 && moved > 500, "{queries} queries, and {moved} with OPT not last");
    assert!(responses > 4_000 && moved_there > 500, "{responses} responses, and {moved_there}");
    assert_eq!(shapes.map(|shapes| shapes.len()), [SHAPES; 2]);
}

/// The sections that have records other than OPT, and whether there is an OPT record: none, the last record,
/// or one that others follow.
fn shape(octets: &[u8]) -> ([bool; 3], u8) {
    let view = View::of(octets).unwrap();
    let has = |section| view.records.iter().any(|r| r.section == section && r.rtype != 41);
    let opt = view.opts().next().map_or(0, |opt| if opt.end == view.end { 1 } else { 2 });
    ([0, 1, 2].map(has), opt)
}

/// All shapes: of the eight with or without records in the three sections, the four with
/// additional records have one more way to have an OPT record.
const SHAPES: usize = 4 * 2 + 4 * 3;

/// The OPT record that a client gets, without keepalive.
fn response_opt(opt: Option<&OptPlan>, choices: ResponseEdit) -> OptPlan {
    let [size_high, size_low] = choices.udp_size.to_be_bytes();
    let mut expected = opt.cloned().unwrap_or(OptPlan { place: 0, fixed: [0; 6], options: vec![] });
    expected.options.retain(|(code, _)| is_kept(*code, choices.ecs));
    expected.fixed[0] = size_high;
    expected.fixed[1] = size_low;
    expected.fixed[3] = 0;
    expected
}

/// `out` is what of the response fits.
fn is_cut(
    plan: &Plan,
    response: &[u8],
    opt: Option<&OptPlan>,
    query: &ParsedQuery,
    choices: ResponseEdit,
    out: &[u8],
) {
    let answers = plan.sections[0].len();
    let ends = plan.read(response, answers).ends;
    assert_eq!(out[2..4], (plan.flags | 0x0200).to_be_bytes());
    let counts = |ancount: u16, arcount| [1, ancount, 0, arcount].map(u16::to_be_bytes).concat();
    if query.opt.is_none() {
        let fit = ends.iter().rposition(|end| *end <= choices.limit).unwrap();
        assert_eq!(out[4..HEADER_LEN], counts(fit as u16, 0));
        plan.check(out, fit, None);
        return;
    }
    assert_eq!(out[4..HEADER_LEN], counts(0, 1));
    let mut expected = response_opt(opt, choices);
    let room = choices.limit - plan.question_end();
    if expected.octets().len() > room {
        expected.options.clear();
    } else if let Some(timeout) = choices.keepalive
        && expected.octets().len() + 6 <= room
    {
        expected.options.push((11, timeout.to_be_bytes().to_vec()));
    }
    plan.check(out, 0, Some(&expected));
}

/// `out` is `input`, of `plan`, but that its OPT record is as expected and at the end. The ID is looked
/// at elsewhere.
fn same_but_opt(
    plan: &Plan,
    input: &[u8],
    opt: Option<Opt>,
    out: &[u8],
    expected: Option<&OptPlan>,
) {
    assert_eq!(out[2..4], plan.flags.to_be_bytes());
    let counts = |has_opt| plan.counts(has_opt).map(u16::to_be_bytes).concat();
    assert_eq!(out[4..HEADER_LEN], counts(expected.is_some()));
    let found = plan.check(out, usize::MAX, expected);

    // Undone, the octets of the input are back, pointers and all.
    let mut undone = out[..*found.ends.last().unwrap()].to_vec();
    undone[..2].copy_from_slice(&plan.id.to_be_bytes());
    undone[4..HEADER_LEN].copy_from_slice(&counts(opt.is_some()));
    if let Some(opt) = opt {
        for at in found.pointers {
            let pointer = u16::from_be_bytes([undone[at], undone[at + 1]]);
            if usize::from(pointer & 0x3fff) >= opt.offset {
                let pointer = pointer + opt.len as u16;
                undone[at..at + 2].copy_from_slice(&pointer.to_be_bytes());
            }
        }
        let record = &input[opt.offset..][..opt.len];
        undone.splice(opt.offset..opt.offset, record.iter().copied());
    }
    assert!(undone == input, "{undone:x?}\n{input:x?}");
}

/// Nothing but the ID changes in a signed message; a response that is cut has no signature.
#[test]
fn signed_messages() {
    for_each_case("edited::signed_messages", 2_000, |random| {
        let (plan, opt) = planned(random, 0x0100);
        let signature = *random.choice(&[Signature::Tsig, Signature::Sig0]);
        let mut message = plan.write(opt.as_ref(), random_compression(random));
        let mut query = random_query(random, plan.question_end());
        query.signature = Some(signature);
        let mut out = b"before".to_vec();
        edit::append_query(&mut out, &message, &query, 0xabcd, random_query_edit(random));
        message[..2].copy_from_slice(&[0xab, 0xcd]);
        assert_eq!(out, [b"before", &message[..]].concat());

        message[2] |= 0x80;
        let choices = random_response_edit(random);
        let info = info(&plan, &message);
        let mut out = b"before".to_vec();
        let result = edit::append_response(&mut out, &message, &info, &message, &query, choices);
        assert_eq!(result, Ok(()));
        message[..2].copy_from_slice(&query.id.to_be_bytes());
        if message.len() > choices.limit {
            message.truncate(plan.question_end());
            message[2] |= 0x02;
            message[4..HEADER_LEN].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        }
        assert_eq!(out, [b"before", &message[..]].concat());
    });
}

#[test]
fn damaged_messages() {
    let made = |seed| {
        let random = &mut Random::new(seed);
        let (plan, opt) = planned(random, 0x0100);
        if random.chance(500) {
            plan.write(opt.as_ref(), random_compression(random))
        } else {
            generated(random)
        }
    };
    let corpus: Vec<_> = (0..400).map(made).collect();
    let (mut queries, mut responses, mut moved) = (0, 0, 0);
    for_each_case("edited::damaged_messages", 60_000, |random| {
        let (original, other) = (random.choice(&corpus), random.choice(&corpus));
        let mut octets = damaged(random, original, &corpus);
        let choices = random_query_edit(random);
        if let Ok(parsed) = message::parse_query(&octets, false) {
            let mut out = Vec::new();
            edit::append_query(&mut out, &octets, &parsed, 0xabcd, choices);
            let again = message::parse_query(&out, false).unwrap();
            assert_eq!((again.id, again.signature), (0xabcd, parsed.signature));
            if parsed.signature.is_none() {
                let has_opt = match choices.edns {
                    Edns::Ours => true,
                    Edns::Clients => parsed.opt.is_some(),
                    Edns::Absent => false,
                };
                assert_eq!(again.opt.is_some(), has_opt);
                assert!(choices.edns != Edns::Ours || out.len().is_multiple_of(128));
                moved += u32::from(same_records(&octets, parsed.opt, &out));
            }
            queries += 1;
            // A query made from another message need only break nothing.
            edit::append_query(&mut out, other, &parsed, 0xabcd, choices);
        }
        if let Some(flags) = octets.get_mut(2) {
            *flags = *flags & 0x07 | 0x80;
        }
        let choices = ResponseEdit { limit: 65_535, ..random_response_edit(random) };
        let end = View::of(&octets).and_then(|view| view.question).map_or(HEADER_LEN, |q| q.end);
        // What becomes of those that are signed is looked at by itself.
        if let ResponseCheck::Answer(info) = message::check_response(&octets, &octets, end)
            && info.signature.is_none()
        {
            let query = random_query(random, end);
            let mut out = Vec::new();
            let result = edit::append_response(&mut out, &octets, &info, &octets, &query, choices);
            if result.is_ok() {
                let ResponseCheck::Answer(again) = message::check_response(&out, &octets, end)
                else {
                    panic!("{out:x?}")
                };
                assert_eq!((again.rcode, again.end), (info.rcode, out.len()));
                assert_eq!(again.opt.is_some(), query.opt.is_some());
                moved += u32::from(same_records(&octets, info.opt, &out));
            }
            responses += 1;
            let choices = random_response_edit(random);
            let result = edit::append_response(&mut out, other, &info, other, &query, choices);
            assert!(result.is_ok() || query.opt.is_none());
        }
    });
    assert!(queries > 4_000 && responses > 5_000, "{queries} queries, {responses} responses");
    assert!(moved > 500, "{moved} had records behind the OPT record");
}

/// Both messages have the same records but for the OPT record; true if some were moved.
fn same_records(input: &[u8], opt: Option<Opt>, out: &[u8]) -> bool {
    let (before, after) = (View::of(input).unwrap(), View::of(out).unwrap());
    let no_opt = |view: &View| view.records.iter().filter(|record| record.rtype != 41).count();
    assert_eq!(no_opt(&before), no_opt(&after));
    let before_and_after = before.records.iter().filter(|record| record.rtype != 41);
    for (record, kept) in before_and_after.zip(&after.records) {
        let parts = |record: &Record| (record.section, record.rtype, record.class, record.ttl);
        assert_eq!(parts(record), parts(kept));
        assert_eq!(record.owner.as_slice(), kept.owner.as_slice());
        assert_eq!(record.rdata.len(), kept.rdata.len());
        if !record.aims_ahead(input)
            && let Ok(data) = record.data(input)
        {
            assert_eq!(Ok(data), kept.data(out));
        }
    }
    opt.is_some_and(|opt| opt.offset + opt.len < before.end)
}

/// What is read of options.
#[test]
fn options_read() {
    for_each_case("edited::options_read", 4_000, |random| {
        let (plan, opt) = planned(random, 0x8180);
        let Some(mut opt) = opt else { return };
        for (code, data) in &mut opt.options {
            if *code == 11 && random.chance(750) {
                data.resize(2, 1);
            }
            // The library reads nothing behind one that it does not understand.
            if *code == 15 {
                data.resize(data.len().max(2), 0);
                data.iter_mut().skip(2).for_each(|octet| *octet = b'a');
            }
        }
        let octets = plan.write(Some(&opt), random_compression(random));
        let found = info(&plan, &octets).opt.unwrap();
        let message = Message::from_slice(&octets).unwrap();
        let record = message.opt().unwrap();

        let timeouts = opt.options.iter().filter(|(code, data)| *code == 11 && data.len() == 2);
        let timeout = timeouts.map(|(_, data)| u16::from_be_bytes([data[0], data[1]])).next();
        assert_eq!(found.keepalive_timeout(&octets), timeout);
        if let Some(Ok(first)) = record.opt().iter::<TcpKeepalive>().next()
            && let Some(first) = first.timeout()
        {
            assert_eq!(timeout, Some(first.into()));
        }
        assert_eq!(found.asks_keepalive(&octets), opt.options.iter().any(|(code, _)| *code == 11));

        let codes: Vec<_> = found.ede_codes(&octets).collect();
        let errors = record.opt().iter::<ExtendedError<&[u8]>>().flatten();
        let expected: Vec<_> = errors.map(|ede| ede.code().to_int()).collect();
        assert_eq!(codes, expected);
    });
}

fn planned(random: &mut Random, flags: u16) -> (Plan, Option<OptPlan>) {
    let plan = Plan::random(random, flags);
    let last = plan.sections[2].len();
    let place = if random.chance(500) { last } else { random.index(last + 1) };
    let opt = random.chance(800).then(|| OptPlan::random(random, place));
    (plan, opt)
}

fn random_compression(random: &mut Random) -> Compression {
    match random.index(3) {
        0 => Compression::None,
        1 => Compression::Some(random.fork()),
        _ => Compression::All,
    }
}

fn random_query_edit(random: &mut Random) -> QueryEdit {
    QueryEdit {
        edns: *random.choice(&[Edns::Ours, Edns::Ours, Edns::Ours, Edns::Clients, Edns::Absent]),
        keepalive: random.chance(500),
        ecs: *random.choice(&[Ecs::Pass, Ecs::Strip]),
        family: *random.choice(&[Family::Ipv4, Family::Ipv6]),
    }
}

fn random_response_edit(random: &mut Random) -> ResponseEdit {
    ResponseEdit {
        limit: *random.choice(&[512, 512, 900, 1_232, 4_096, 65_535, 65_535]),
        udp_size: *random.choice(&[1_232, 4_096]),
        keepalive: random.chance(333).then(|| random.next_u64() as u16),
        ecs: *random.choice(&[Ecs::Pass, Ecs::Strip]),
    }
}

/// What a response is to, unsigned.
fn random_query(random: &mut Random, question_end: usize) -> ParsedQuery {
    let opt = Opt {
        offset: question_end,
        len: 11,
        udp_size: 512,
        extended_rcode: 0,
        version: 0,
        dnssec_ok: false,
    };
    ParsedQuery {
        id: random.next_u64() as u16,
        qtype: message::Rtype(1),
        qclass: message::Class(1),
        question_end,
        opt: random.chance(500).then_some(opt),
        signature: None,
    }
}

/// The start of a message, up to the end of its question, with the case of some letters changed.
fn respelled(random: &mut Random, start: &[u8]) -> Vec<u8> {
    let mut start = start.to_vec();
    let name_end = start.len() - 4;
    for octet in &mut start[HEADER_LEN..name_end] {
        if octet.is_ascii_alphabetic() && random.chance(500) {
            *octet ^= 0x20;
        }
    }
    start
}

fn info(plan: &Plan, response: &[u8]) -> ResponseInfo {
    match message::check_response(response, response, plan.question_end()) {
        ResponseCheck::Answer(info) => info,
        check => panic!("{check:?}"),
    }
}

fn is_kept(code: u16, ecs: Ecs) -> bool {
    !(matches!(code, 10..=12) || code == 8 && ecs == Ecs::Strip)
}

/// An OPT record's fixed part with version 0, without upper bits of an RCODE.
fn edns_0(fixed: [u8; 6]) -> [u8; 6] {
    [fixed[0], fixed[1], 0, 0, fixed[4], fixed[5]]
}
