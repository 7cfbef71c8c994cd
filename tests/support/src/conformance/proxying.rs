//! RFC 5625: what a DNS proxy passes on, and how much of it. Statements 1 to 10 and 12.

use std::time::Duration;

use super::client::Client;
use crate::answers;
use crate::forwarder::outcome::Outcome;
use crate::forwarder::stage::Stage;
use crate::forwarder::subject::Subject;
use crate::message::{self, A, FORMERR, NOERROR, QR, RA, RD, SERVFAIL, TC, TXT};
use crate::view::View;
use crate::{Act, Query};

const TKEY: u16 = 249;
const ANY: u16 = 255;
const NS: u16 = 2;
const PRIVATE_TYPE: u16 = 65_280;

const DNSSEC_OK: u16 = 0x8000;

/// The first query with this name that came to the server, in whatever spelling.
pub fn sent(stage: &Stage, name: &str) -> Option<Vec<u8>> {
    let log = stage.servers[0].log();
    let named = |query: &[u8]| message::question(query).is_some_and(|(asked, ..)| asked == name);
    log.queries.iter().map(|(_, query)| query).find(|query| named(query)).cloned()
}

/// RCODE of a response that can be read.
pub fn rcode(response: Option<&Vec<u8>>) -> Option<u16> {
    response.and_then(|octets| View::read(octets)).map(|view| view.rcode())
}

/// Whether it is an answer with records.
pub fn is_answer(response: Option<&Vec<u8>>) -> bool {
    let view = response.and_then(|octets| View::read(octets));
    view.is_some_and(|view| view.rcode() == NOERROR && view.count(0) > 0)
}

/// Records that a forwarder might be tempted to sort, to compress, to expand or to leave out.
fn odd_answer(query: &[u8]) -> Vec<u8> {
    let uncompressed = |name: &str, rtype: u16, data: &[u8]| {
        [&message::wire_name(name)[..], &message::record(rtype, data)[2..]].concat()
    };
    let with_class = |mut record: Vec<u8>, class: u16| {
        record[4..6].copy_from_slice(&class.to_be_bytes());
        record
    };
    let with_ttl = |mut record: Vec<u8>, ttl: u32| {
        record[6..10].copy_from_slice(&ttl.to_be_bytes());
        record
    };
    let records = [
        message::record(A, &[192, 0, 2, 9]),
        message::record(A, &[192, 0, 2, 1]),
        with_ttl(message::record(A, &[192, 0, 2, 5]), 7),
        uncompressed("Other.EXAMPLE", A, &[192, 0, 2, 1]),
        message::record(PRIVATE_TYPE, b"\xc0\x0c?"),
        with_class(message::record(TXT, b"\x03odd"), 0xfffe),
    ];
    let authorities = [uncompressed("Example", 2, &[0xc0, 12])];
    answers::assemble(query, NOERROR, &records, &authorities)
}

pub fn transparency(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| vec![Act::Send(odd_answer(query.message))])
    })?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let queries = [
        ("spelling", Query::new("sPeLLing.S1.ExAmPlE", A)),
        ("AD and CD", Query::new("flags.s1.example", A).flags(RD | 0x30)),
        ("an unknown option", Query::new("option.s1.example", A).opt(1232).option(65_001, b"x")),
        ("DO", Query::new("do.s1.example", A).opt(1232).edns_flags(DNSSEC_OK)),
        ("no RD", Query::new("rd.s1.example", A).flags(0)),
        ("reserved flags", Query::new("z.s1.example", A).opt(1232).edns_flags(0x7fff)),
        ("the root", Query::new("", NS)),
        ("octets that are no text", Query::new("", A).labels(&[b"\0\x1b[\xff", b"a.b", b"\\ \""])),
        (
            "the longest name",
            Query::new("", A).labels(&[&[b'a'; 63], &[b'b'; 63], &[b'c'; 63], &[b'd'; 61]]),
        ),
    ];
    for (what, query) in queries {
        let name = message::question(&query.bytes()).expect("a query").0;
        let response = client.ask(&query);
        let octets = query.bytes();
        let query = View::read(&octets).expect("a query");
        let forwarded = sent(&stage, &name);
        let forwarded = forwarded.as_ref().and_then(|sent| View::read(sent));
        let same = forwarded.is_some_and(|sent| sent.without_opt() == query.without_opt());
        outcome.promise(same, || format!("{what}: the query was changed"));
        let answer = odd_answer(&octets);
        let answer = View::read(&answer).expect("an answer");
        let response = response.as_ref().and_then(|octets| View::read(octets));
        let same = response.is_some_and(|got| got.without_opt() == answer.without_opt());
        outcome.promise(same, || format!("{what}: the answer was changed"));
    }
    Ok(outcome)
}

pub fn flags(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    // RA, Z, AD and CD; then AA and TC, and an RCODE.
    let patterns = (0..16).map(|bits| bits << 4).chain([0x0400, 0x0200, 0x000f]);
    for bits in patterns {
        let query = Query::new(&format!("f{bits:x}.s2.example"), A).flags(RD | bits);
        let response = client.ask(&query);
        outcome.promise(is_answer(response.as_ref()), || {
            format!("flags {bits:04x}: RCODE {:?}", rcode(response.as_ref()))
        });
    }
    Ok(outcome)
}

pub fn compression(subject: &dyn Subject) -> Result<Outcome, String> {
    let full = |query: &[u8]| {
        let name = &query[12..message::question_end(query).expect("a query") - 4];
        [name, &message::record(A, &[192, 0, 2, 1])[2..]].concat()
    };
    let stage = Stage::one(subject, |setup| {
        setup.handler(move |query| {
            let record = match query.name.split('.').next() {
                Some("plain") => full(query.message),
                _ => message::record(A, &[192, 0, 2, 1]),
            };
            vec![Act::Send(answers::assemble(query.message, NOERROR, &[record], &[]))]
        })
    })?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for name in ["plain.s3.example", "pointer.s3.example"] {
        let response = client.ask(&Query::new(name, A));
        outcome.promise(is_answer(response.as_ref()), || format!("{name}: not answered"));
    }
    // A record of a type that means nothing in a query, once with a compressed owner.
    for (id, name, owner) in
        [(0x501, "owner.s3.example", None), (0x502, "compressed.s3.example", Some([0xc0, 12]))]
    {
        let query = Query::new(name, A).id(id).bytes();
        let owner = owner.map_or_else(|| message::wire_name(name), Vec::from);
        let mut query = [&query[..], &owner, &message::record(PRIVATE_TYPE, b"x")[2..]].concat();
        query[11] = 1;
        let response = client.exchange(&query);
        outcome.promise(is_answer(response.as_ref()), || format!("{name}: not answered"));
    }
    for (id, target) in [(0x503_u16, 12_u8), (0x504, 0), (0x505, 40)] {
        let mut query = message::header(id, RD, [1, 0, 0, 0]);
        query.extend([0xc0, target, 0, 1, 0, 1]);
        let response = client.exchange(&query);
        outcome.promise(rcode(response.as_ref()) == Some(FORMERR), || {
            format!("a pointer to {target} as QNAME: RCODE {:?}", rcode(response.as_ref()))
        });
    }
    Ok(outcome)
}

pub fn types(subject: &dyn Subject) -> Result<Outcome, String> {
    let data = b"\x00\xc0\x0c\xff";
    let stage = Stage::one(subject, |setup| {
        setup.handler(move |query| {
            let (_, qtype, qclass) = message::question(query.message).expect("a query");
            let rtype = if (TKEY..=ANY).contains(&qtype) { PRIVATE_TYPE } else { qtype };
            let mut record = message::record(rtype, data);
            record[4..6].copy_from_slice(&qclass.to_be_bytes());
            vec![Act::Send(answers::assemble(query.message, NOERROR, &[record], &[]))]
        })
    })?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let types = [0, 32, TKEY, 253, 254, ANY, 260, PRIVATE_TYPE, 65_534, 65_535].map(|t| (t, 1));
    let classes = [3, 4, 254, 255, 65_280].map(|class| (PRIVATE_TYPE, class));
    for (qtype, qclass) in types.into_iter().chain(classes) {
        let name = format!("t{qtype}.c{qclass}.s4.example");
        let response = client.ask(&Query::new(&name, qtype).class(qclass));
        let forwarded = sent(&stage, &name).and_then(|query| message::question(&query));
        outcome.promise(forwarded == Some((name, qtype, qclass)), || {
            format!("TYPE{qtype} CLASS{qclass}: not forwarded")
        });
        let view = response.as_ref().and_then(|octets| View::read(octets));
        let whole = view.is_some_and(|view| {
            view.rcode() == NOERROR && view.records.first().is_some_and(|r| view.data(r) == data)
        });
        outcome.promise(whole, || format!("TYPE{qtype} CLASS{qclass}: not answered as it was"));
    }
    Ok(outcome)
}

pub fn truncation(subject: &dyn Subject) -> Result<Outcome, String> {
    /// Client's size (0: no OPT), octets of the answer, whether it arrives whole.
    const CASES: [(u16, usize, bool); 10] = [
        (0, 480, true),
        (0, 600, false),
        (0, 4_000, false),
        (0, 65_000, false),
        (512, 600, false),
        (1_232, 600, true),
        (1_232, 1_200, true),
        (1_232, 1_300, false),
        (4_096, 1_200, true),
        (4_096, 65_000, false),
    ];

    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| {
            let mut answer = query.answer();
            if let ([Act::Send(answer)], true) = (&mut answer[..], query.name.starts_with("tc.")) {
                answer[2] |= TC.to_be_bytes()[0];
            }
            answer
        })
    })?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for (size, octets, whole) in CASES {
        let name = format!("size-{octets}.c{size}.s5.example");
        let query = |name: &str| match size {
            0 => Query::new(name, TXT),
            size => Query::new(name, TXT).opt(size),
        };
        let case = format!("{octets} octets for a client that takes {size}");
        let response = client.ask(&query(&name));
        let length = response.as_ref().map_or(0, Vec::len);
        let truncated = response.as_ref().is_some_and(|r| message::flags(r) & TC != 0);
        outcome.promise(response.is_some(), || format!("{case}: no answer"));
        outcome.promise(truncated != whole, || format!("{case}: TC is {truncated}"));
        let fits = length <= usize::from(size.max(512));
        outcome.promise(fits, || format!("{case}: {length} octets sent"));
        let response = client.ask_tcp(&query(&name));
        let length = response.as_ref().map_or(0, Vec::len);
        let whole = response.is_some_and(|r| r.len() >= octets && message::flags(&r) & TC == 0);
        outcome.promise(whole, || format!("{case}: {length} octets over TCP"));
    }
    let response = client.ask(&Query::new("tc.s5.example", TXT).opt(1_232));
    let kept = response.is_some_and(|response| message::flags(&response) & TC != 0);
    outcome.promise(kept, || "TC of the upstream was cleared".to_owned());
    Ok(outcome)
}

pub fn tcp_first(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let response = client.ask_tcp(&Query::new("tcp.s6.example", A));
    outcome.promise(is_answer(response.as_ref()), || "a first query over TCP".to_owned());
    let response = client.ask(&Query::new("udp.s6.example", A));
    outcome.promise(is_answer(response.as_ref()), || "the same port over UDP".to_owned());
    Ok(outcome)
}

pub fn edns_queries(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for version in 0..=255 {
        let query = Query::new(&format!("v{version}.s7.example"), A).opt(1232);
        let response = client.ask(&query.edns_version(version));
        outcome.promise(response.is_some(), || format!("version {version}: no answer"));
        if outcome.broken.len() > 5 {
            break;
        }
    }
    for (code, data) in options() {
        let name = format!("o{code}.s7.example");
        let query = Query::new(&name, A).opt(1232).edns_flags(DNSSEC_OK).option(code, data);
        let response = client.ask(&query);
        outcome.promise(is_answer(response.as_ref()), || format!("option {code}: not answered"));
        let forwarded = sent(&stage, &name);
        let opt_ttl = forwarded.as_ref().and_then(|query| Some(View::read(query)?.opt()?.ttl));
        let has_do = opt_ttl.is_some_and(|ttl| ttl & u32::from(DNSSEC_OK) != 0);
        outcome.promise(has_do, || format!("option {code}: DO did not arrive"));
    }
    Ok(outcome)
}

/// Options as clients send them.
fn options() -> [(u16, &'static [u8]); 9] {
    [
        (3, b""),
        (5, b"\x08\x0d"),
        (8, b"\0\x01\x18\0\xc0\0\x02"),
        (9, b""),
        (10, b"8 octets"),
        (12, b"\0\0\0\0"),
        (13, b"\x07example\0"),
        (65_001, b"for local use"),
        (65_534, b""),
    ]
}

pub fn four_kilobytes(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut outcome = Outcome::default();
    let query = Query::new("size-4000.s8.example", TXT).opt(4_096);
    let response = Client::new(&stage).ask(&query);
    let length = response.as_ref().map_or(0, Vec::len);
    let whole = response.is_some_and(|r| r.len() >= 4_000 && message::flags(&r) & TC == 0);
    outcome.promise(whole, || format!("{length} octets of 4,000 for a client that takes 4,096"));
    Ok(outcome)
}

/// A message with this record behind it.
pub fn signed(message: &[u8], record: &[u8]) -> Vec<u8> {
    let mut message = [message, record].concat();
    message[11] += 1;
    message
}

/// A TSIG record with a made-up MAC, for a message that had this ID when it was signed.
pub fn tsig(original_id: u16) -> Vec<u8> {
    let mut data = message::wire_name("hmac-sha256");
    data.extend([0, 0, 0x60, 0, 0, 0, 1, 0x2c, 0, 32]);
    data.extend([0x5a; 32]);
    data.extend(original_id.to_be_bytes());
    data.extend([0; 4]);
    rr("key.example", 250, 255, &data)
}

/// A SIG(0) record with a made-up signature.
fn sig0() -> Vec<u8> {
    let mut data = vec![0, 0, 13, 0, 0, 0, 0, 0];
    data.extend([0x60, 0, 1, 0, 0x60, 0, 0, 0, 0x12, 0x34]);
    data.extend(message::wire_name("key.example"));
    data.extend([0x5a; 64]);
    rr("", 24, 255, &data)
}

/// A record with TTL 0.
fn rr(owner: &str, rtype: u16, class: u16, data: &[u8]) -> Vec<u8> {
    let mut record = message::wire_name(owner);
    record.extend(rtype.to_be_bytes());
    record.extend(class.to_be_bytes());
    record.extend([0; 4]);
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

/// An answer of a server that signs what it says.
fn signed_answer(query: &[u8], original_id: u16) -> Vec<u8> {
    let end = message::question_end(query).expect("a query");
    let mut answer = message::header(message::id(query), QR | RD | RA, [1, 1, 0, 0]);
    answer.extend(&query[12..end]);
    answer.extend(message::record(A, &[192, 0, 2, 1]));
    signed(&answer, &tsig(original_id))
}

pub fn tsig_queries(subject: &dyn Subject) -> Result<Outcome, String> {
    const ID: u16 = 0x1234;

    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| vec![Act::Send(signed_answer(query.message, ID))])
    })?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for (name, opt) in [("plain.s9.example", false), ("opt.s9.example", true)] {
        let query = Query::new(name, A).id(ID);
        let query = if opt { query.opt(1_232).option(10, b"8 octets") } else { query };
        let query = signed(&query.bytes(), &tsig(ID));
        for (how, response) in
            [("UDP", client.exchange(&query)), ("TCP", client.exchange_tcp(&query))]
        {
            let forwarded = sent(&stage, name);
            let same = forwarded.is_some_and(|sent| sent[2..] == query[2..]);
            outcome.promise(same, || format!("{name}, {how}: the signed query was changed"));
            let same = response.is_some_and(|got| got == signed_answer(&query, ID));
            outcome.promise(same, || format!("{name}, {how}: the signed answer was changed"));
        }
    }
    let query = Query::new("tkey.s9.example", TKEY);
    let response = client.ask(&query);
    let proxied = response.is_some() && sent(&stage, "tkey.s9.example").is_some();
    outcome.promise(proxied, || "TKEY is not proxied".to_owned());
    // The one unsigned query whose answer may be signed (RFC 8945 section 5.3).
    let same = response.is_some_and(|got| got[2..] == signed_answer(&query.bytes(), ID)[2..]);
    outcome.promise(same, || "the signed answer to TKEY was changed".to_owned());
    Ok(outcome)
}

pub fn sig0_queries(subject: &dyn Subject) -> Result<Outcome, String> {
    const ID: u16 = 0x7777;

    // Both are in flight at the same time, if they may be.
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| {
            let mut answer =
                message::header(message::id(query.message), QR | RD | RA, [1, 1, 0, 0]);
            let end = message::question_end(query.message).expect("a query");
            answer.extend(&query.message[12..end]);
            answer.extend(message::record(A, &[192, 0, 2, 1]));
            vec![Act::After(Duration::from_millis(300), vec![Act::Send(answer)])]
        })
    })?;
    let mut outcome = Outcome::default();
    let mut clients = [Client::new(&stage), Client::new(&stage)];
    let names = ["a.s9.example", "b.s9.example"];
    let queries = names.map(|name| signed(&Query::new(name, A).id(ID).bytes(), &sig0()));
    for (client, query) in clients.iter_mut().zip(&queries) {
        client.send(query);
    }
    for ((client, query), name) in clients.iter_mut().zip(&queries).zip(names) {
        let response = client.receive(|octets| octets.len() > 12 && message::id(octets) == ID);
        let own = response.is_some_and(|octets| {
            octets[12..].starts_with(&message::wire_name(name))
                && message::flags(&octets) & 15 == NOERROR
        });
        outcome.promise(own, || format!("{name}: not answered"));
        let forwarded = sent(&stage, name);
        let id = forwarded.as_ref().map(|sent| message::id(sent));
        outcome.promise(forwarded.is_some_and(|sent| sent == *query), || {
            format!("{name}: the header is signed, and was changed; ID {ID:#x} became {id:x?}")
        });
    }
    Ok(outcome)
}

pub fn message_ids(subject: &dyn Subject) -> Result<Outcome, String> {
    const CLIENTS: usize = 50;
    const ID: u16 = 5;

    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| vec![Act::After(Duration::from_secs(1), query.answer())])
    })?;
    let mut outcome = Outcome::default();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::new(&stage)).collect();
    let name = |n: usize| format!("n{n}.s10.example");
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&Query::new(&name(n), A).id(ID).bytes());
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let response = client.receive(|_| true);
        let own = response.is_some_and(|octets| {
            message::id(&octets) == ID && message::question(&octets) == Some((name(n), A, 1))
        });
        outcome.promise(own, || format!("{} got no answer, or another's", name(n)));
    }
    let log = stage.servers[0].log();
    let mut ids: Vec<_> =
        log.queries.iter().map(|(connection, query)| (*connection, message::id(query))).collect();
    let sent = ids.len();
    ids.sort_unstable();
    ids.dedup();
    outcome.promise(ids.len() == sent, || format!("{sent} queries with {} IDs", ids.len()));
    Ok(outcome)
}

pub fn what_is_dropped(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| {
            // The name was asked for by nobody.
            let mut answer = answers::answer(query.message).expect("a query");
            if query.name.starts_with("wrong.") {
                answer[13] ^= 1;
            }
            vec![Act::Send(answer)]
        })
    })?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let query = Query::new("dropped.s12.example", A).id(0x300).bytes();
    let response = Query::new("dropped.s12.example", A).id(0x301).flags(QR | RD).bytes();
    for (n, (what, octets)) in
        [("QR=1", &response[..]), ("11 octets", &query[..11]), ("nothing", &[])]
            .into_iter()
            .enumerate()
    {
        let answered = client.is_answered(octets, &format!("probe{n}.s12.example"));
        outcome.promise(!answered, || format!("{what}: answered"));
    }
    let response = client.ask(&Query::new("wrong.s12.example", A));
    outcome.promise(rcode(response.as_ref()) == Some(SERVFAIL), || {
        format!("a wrong answer, twice: RCODE {:?}", rcode(response.as_ref()))
    });
    let tries = stage.servers[0].log().queries_for("wrong.s12.example");
    outcome.promise(tries > 1, || format!("a wrong answer: {tries} tries"));
    Ok(outcome)
}
