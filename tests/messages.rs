//! The view of messages against that of the `domain` crate, on generated and on damaged messages.
//!
//! Every case has a seed of its own, which a failure prints; `MESSAGES_SEED=n` sets the first one.
#![expect(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

use std::fmt::Write as _;
use std::ops::Range;
use std::str::FromStr as _;

use domain::base::iana::{Class, Rtype};
use domain::base::message_builder::{HashCompressor, StaticCompressor, TreeCompressor};
use domain::base::name::Name;
use domain::base::rdata::UnknownRecordData;
use domain::base::record::RecordHeader;
use domain::base::wire::Composer;
use domain::base::{Message, MessageBuilder, ToName as _, Ttl};
use domain::dep::octseq::{OctetsBuilder, Parser};
use domain::rdata::{Cname, Mx};
use dot_proxy::forwarder::message::{
    self, Ede, HEADER_LEN, LocalResponse, NameDisplay, Opt, ParsedQuery, Rcode, Refusal,
    ResponseCheck, ResponseInfo, Signature,
};

/// Whatever a client sends is judged as the model judges it, and answered in a way that can be read.
#[test]
fn generated_queries() {
    let mut accepted = 0;
    for_each_case("generated_queries", 4_000, |random| {
        let query = generated(random);
        accepted += u32::from(message::parse_query(&query, false).is_ok());
        query_agrees(random, &query);
    });
    assert!((1_000..3_000).contains(&accepted), "{accepted} of 4000 are queries");
}

#[test]
fn generated_responses() {
    let mut accepted = 0;
    for_each_case("generated_responses", 4_000, |random| {
        let mut response = generated(random);
        response[2] |= 0x80;
        accepted += u32::from(response_agrees(random, &response, &response));
    });
    assert!((2_000..3_800).contains(&accepted), "{accepted} of 4000 are responses");
}

#[test]
fn damaged_messages() {
    let mut corpus = Vec::new();
    for_each_case("corpus", 200, |random| corpus.push(generated(random)));
    let mut accepted = 0;
    for_each_case("damaged_messages", 60_000, |random| {
        let original = random.choice(&corpus);
        let mut message = damaged(random, original, &corpus);
        query_agrees(random, &message);
        if let Some(flags) = message.get_mut(2)
            && random.chance(9, 10)
        {
            *flags = *flags & 0x07 | 0x80;
        }
        let query = if random.chance(1, 2) { original.clone() } else { message.clone() };
        accepted += u32::from(response_agrees(random, &message, &query));
    });
    assert!((5_000..40_000).contains(&accepted), "{accepted} of 60000 are still responses");
}

#[test]
fn octets_at_random() {
    for_each_case("octets_at_random", 20_000, |random| {
        let len = random.below(80);
        let message = random.octets(len);
        query_agrees(random, &message);
        response_agrees(random, &message, &message);
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
            truncated: false,
        }))
    };
    if view.flags & 0x7800 != 0 {
        return respond(Rcode::NOTIMP, HEADER_LEN, None);
    }
    let Some(question) = &view.question else {
        return respond(Rcode::FORMERR, HEADER_LEN, None);
    };
    let opt = view.opt(message);
    if truncated {
        return Err(Refusal::Respond(LocalResponse {
            rcode: Rcode::NOERROR,
            question_end: question.end,
            opt,
            ede: None,
            truncated: true,
        }));
    }
    let signatures: Vec<_> =
        view.records.iter().filter(|record| record.signature(message).is_some()).collect();
    let signed_in_place = match signatures[..] {
        [] => true,
        [one] => one.section == 2 && one.start == view.records.last().unwrap().start,
        _ => false,
    };
    if !view.complete || !view.opt_valid(message) || !signed_in_place {
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
            signature: signatures.first().and_then(|record| record.signature(message)),
        })
    }
}

fn query_agrees(random: &mut Random, query: &[u8]) {
    let truncated = random.chance(1, 8);
    let expected = model(query, truncated);
    let found = message::parse_query(query, truncated);
    let ede = Ede { code: Ede::NETWORK_ERROR, text: "the upstream said nothing for a while" };
    let (response, found) = match found {
        Ok(parsed) => (Some(parsed.local_response(Rcode::SERVFAIL, Some(ede))), found),
        Err(Refusal::Drop) => (None, found),
        Err(Refusal::Respond(response)) => {
            assert_eq!(response.ede.is_some(), response.rcode == Rcode::REFUSED);
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
    let mut out = b"before".to_vec();
    message::local_response(&mut out, query, response, 1_232, limit);
    let out = out.split_off(6);
    assert!(out.len() <= limit);

    let message = Message::from_slice(&out).unwrap();
    let (header, counts) = (message.header(), message.header_counts());
    assert_eq!(out[..2], query[..2]);
    assert!(header.qr() && header.ra() && !header.aa() && !header.ad() && !header.z());
    assert_eq!(header.opcode().to_int(), query[2] >> 3 & 15);
    assert_eq!((header.rd(), header.tc()), (query[2] & 1 == 1, response.truncated));
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
        let found = opt.opt().first::<domain::base::opt::ExtendedError<&[u8]>>();
        let expected = response.ede.map(|ede| (ede.code, ede.text));
        let found = found
            .as_ref()
            .map(|ede| (ede.code().to_int(), ede.text().map_or("", |text| text.unwrap())));
        assert_eq!(found, expected);
    }
}

/// Checks `response` as one to the question of `query`; true if it is.
fn response_agrees(random: &mut Random, response: &[u8], query: &[u8]) -> bool {
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
    } else if !view.complete || !view.opt_valid(response) {
        assert_eq!(found, ResponseCheck::Unreadable, "{response:x?}");
    } else {
        let info = ResponseInfo {
            rcode: Rcode(rcode),
            ancount: counts[1],
            question_end,
            answer_end: view.answer_end,
            opt: view.opt(response),
        };
        assert_eq!(found, ResponseCheck::Answer(info), "{response:x?}");
        truncation_is_sound(random, response, &view, &info);
        return true;
    }
    false
}

fn truncation_is_sound(random: &mut Random, response: &[u8], view: &View, info: &ResponseInfo) {
    let (client_has_opt, signed) = (random.chance(1, 2), random.chance(1, 8));
    let limit = 512 + random.below(1_000);
    let mut out = b"before".to_vec();
    message::truncate(&mut out, response, info, limit, client_has_opt, signed);
    let out = out.split_off(6);
    assert!(out.len() <= limit);

    let cut = View::of(&out).unwrap();
    assert!(cut.complete && cut.end == out.len() && cut.opt_valid(&out), "{out:x?}");
    assert_eq!((&out[..2], cut.flags), (&response[..2], view.flags | 0x0200));
    assert_eq!(out[HEADER_LEN..info.question_end], response[HEADER_LEN..info.question_end]);
    let [qdcount, ancount, nscount, arcount] = cut.counts;
    assert_eq!((qdcount, nscount), (1, 0));
    if signed {
        assert_eq!((ancount, arcount), (0, 0));
    } else if client_has_opt {
        assert_eq!((ancount, arcount), (0, u16::from(info.opt.is_some())));
        if let (Some(opt), Some(kept)) = (info.opt, cut.opt(&out)) {
            // One that does not fit is replaced by one without options, of version 0.
            let bare = Opt { len: 11, version: 0, ..opt };
            let expected = if opt.len <= limit - info.question_end { opt } else { bare };
            assert_eq!(Opt { offset: opt.offset, ..kept }, expected);
        }
    } else {
        assert_eq!(arcount, 0);
        for (kept, record) in cut.records.iter().zip(&view.records) {
            assert_eq!(kept, record, "the records are the first ones, where they were");
        }
        assert_eq!(cut.records.len(), usize::from(ancount));
        if ancount < info.ancount {
            assert!(view.records[usize::from(ancount)].end > limit, "the next one would fit");
        }
    }
}

/// The presentation form of the name at the start of `octets`.
fn assert_printable(octets: &[u8]) -> String {
    let mut text = String::new();
    write!(text, "{}", NameDisplay(octets)).unwrap();
    assert!(text.bytes().all(|octet| (0x21..=0x7e).contains(&octet)), "{text:?}");
    assert!(text.ends_with('.'));
    text
}

/// A message as `domain` reads it.
#[derive(Debug)]
struct View {
    flags: u16,
    counts: [u16; 4],
    /// There is one question, and it is readable and not compressed.
    question: Option<Question>,
    answer_end: usize,
    /// The readable records, and a last one that is an OPT record cut off in its data.
    records: Vec<Record>,
    complete: bool,
    end: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Question {
    qname: Name<Vec<u8>>,
    qtype: u16,
    qclass: u16,
    end: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Record {
    section: usize,
    owner: Name<Vec<u8>>,
    start: usize,
    rtype: u16,
    class: u16,
    ttl: u32,
    rdata: Range<usize>,
    end: usize,
}

impl View {
    fn of(octets: &[u8]) -> Option<Self> {
        let message = Message::from_slice(octets).ok()?;
        let counts = message.header_counts();
        let mut view = Self {
            flags: u16::from_be_bytes([octets[2], octets[3]]),
            counts: [counts.qdcount(), counts.ancount(), counts.nscount(), counts.arcount()],
            question: None,
            answer_end: HEADER_LEN,
            records: Vec::new(),
            complete: false,
            end: HEADER_LEN,
        };
        let mut questions = message.question();
        if view.counts[0] == 1
            && let Some(Ok(question)) = questions.next()
        {
            let qname: Name<Vec<u8>> = question.qname().to_name();
            // A compressed name has another length than what is written.
            if HEADER_LEN + qname.as_slice().len() + 4 == questions.pos() {
                let (qtype, qclass) = (question.qtype().to_int(), question.qclass().to_int());
                view.question = Some(Question { qname, qtype, qclass, end: questions.pos() });
            }
        }
        if view.counts[0] > 1 || view.counts[0] == 1 && view.question.is_none() {
            return Some(view);
        }
        view.end = questions.pos();
        view.answer_end = view.end;
        view.read_records(octets, message);
        Some(view)
    }

    fn read_records(&mut self, octets: &[u8], message: &Message<[u8]>) {
        let mut section = message.answer().unwrap();
        for index in 0.. {
            loop {
                let start = section.pos();
                match section.next() {
                    None => break,
                    Some(Ok(record)) if pointers_aim_back(octets, start) => {
                        let end = section.pos();
                        self.records.push(Record {
                            section: index,
                            owner: record.owner().to_name(),
                            start,
                            rtype: record.rtype().to_int(),
                            class: record.class().to_int(),
                            ttl: record.ttl().as_secs(),
                            rdata: end - usize::from(record.rdlen())..end,
                            end,
                        });
                        self.end = end;
                    }
                    Some(_) => {
                        self.read_cut_opt(octets, index, start);
                        return;
                    }
                }
            }
            if index == 0 {
                self.answer_end = self.end;
            }
            match section.next_section().unwrap() {
                Some(next) => section = next,
                None => break,
            }
        }
        self.complete = true;
    }

    /// Notes the record at `start`, whose data the message does not hold, if it is an OPT record.
    fn read_cut_opt(&mut self, octets: &[u8], section: usize, start: usize) {
        let mut parser = Parser::from_ref(octets);
        parser.seek(start).unwrap();
        let header = RecordHeader::parse_ref(&mut parser);
        if let Ok(header) = header
            && header.rtype() == Rtype::OPT
            && pointers_aim_back(octets, start)
        {
            let rdata_start = parser.pos();
            self.records.push(Record {
                section,
                owner: header.owner().to_name(),
                start,
                rtype: header.rtype().to_int(),
                class: header.class().to_int(),
                ttl: header.ttl().as_secs(),
                rdata: rdata_start..rdata_start,
                end: rdata_start + usize::from(header.rdlen()),
            });
        }
    }

    fn opts(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.rtype == 41)
    }

    fn opt(&self, octets: &[u8]) -> Option<Opt> {
        let record = self.opts().next()?;
        let [extended_rcode, version, flags, _] = record.ttl.to_be_bytes();
        let opt = Opt {
            offset: record.start,
            len: record.end - record.start,
            udp_size: record.class.max(512),
            extended_rcode,
            version,
            dnssec_ok: flags & 0x80 != 0,
        };
        if self.complete && self.opt_valid(octets) {
            // The library finds the same one, by its own means.
            let found = Message::from_slice(octets).unwrap().opt().unwrap();
            assert_eq!(opt.udp_size, found.udp_payload_size().max(512));
            assert_eq!((opt.version, opt.dnssec_ok), (found.version(), found.dnssec_ok()));
        }
        Some(opt)
    }

    fn opt_valid(&self, octets: &[u8]) -> bool {
        self.opts().count() <= 1
            && self.opts().all(|record| {
                record.section == 2
                    && octets[record.start] == 0
                    && domain::base::opt::Opt::from_slice(&octets[record.rdata.clone()]).is_ok()
            })
    }
}

impl Record {
    fn signature(&self, octets: &[u8]) -> Option<Signature> {
        match self.rtype {
            250 => Some(Signature::Tsig),
            24 if octets[self.rdata.clone()].starts_with(&[0, 0]) => Some(Signature::Sig0),
            _ => None,
        }
    }
}

/// What is asked of compression pointers beyond what `domain` asks: each aims behind the header, at
/// labels that end before those which the pointer follows, and there are at most 127. Given is a name
/// that `domain` accepts.
fn pointers_aim_back(octets: &[u8], start: usize) -> bool {
    let mut segment = start..octets.len();
    for _ in 0..=127 {
        let mut at = segment.start;
        while (1..0xc0).contains(&octets[at]) {
            at += 1 + usize::from(octets[at]);
        }
        let is_pointer = octets[at] != 0;
        if at + usize::from(is_pointer) >= segment.end {
            return false;
        }
        if !is_pointer {
            return true;
        }
        let target = usize::from(u16::from_be_bytes([octets[at] & 0x3f, octets[at + 1]]));
        if target < HEADER_LEN || target >= segment.start {
            return false;
        }
        segment = target..segment.start;
    }
    false
}

/// A message with QR=0 as clients and servers make them, or nearly so.
fn generated(random: &mut Random) -> Vec<u8> {
    match random.below(4) {
        0 => built(random, Vec::new()),
        1 => built(random, StaticCompressor::new(Vec::new())),
        2 => built(random, TreeCompressor::new(Vec::new())),
        _ => built(random, HashCompressor::new(Vec::new())),
    }
}

fn built<Target: Composer + AsRef<[u8]> + AsMut<[u8]>>(
    random: &mut Random,
    target: Target,
) -> Vec<u8>
where
    <Target as OctetsBuilder>::AppendError: std::fmt::Debug,
{
    let names: Vec<_> = (0..4).map(|_| random_name(random)).collect();
    let names: Vec<_> = names.iter().flat_map(Name::iter_suffixes).collect();
    let mut builder = MessageBuilder::from_target(target).unwrap();
    builder.header_mut().set_id(random.next() as u16);
    let header = builder.header_mut();
    header.set_rd(random.chance(1, 2));
    header.set_cd(random.chance(1, 4));
    header.set_ad(random.chance(1, 4));
    header.set_tc(random.chance(1, 8));
    header.set_rcode(domain::base::iana::Rcode::checked_from_int(random.below(6) as u8).unwrap());
    if random.chance(1, 20) {
        header.set_opcode(domain::base::iana::Opcode::UPDATE);
    }
    let mut builder = builder.question();
    let questions = if random.chance(1, 20) { random.below(3) } else { 1 };
    for _ in 0..questions {
        let qtype = *random.choice(&[1, 1, 1, 15, 16, 28, 65, 251, 252, 255, 65_280]);
        builder.push((random.choice(&names), Rtype::from_int(qtype), Class::IN)).unwrap();
    }
    let is_odd = random.chance(1, 4);
    let mut builder = builder.answer();
    for _ in 0..random.record_count() {
        let (owner, ttl) = (random.choice(&names), Ttl::from_secs(random.next() as u32));
        match random.below(4) {
            0 => builder.push((owner, ttl, Cname::new(random.choice(&names)))).unwrap(),
            1 => builder.push((owner, ttl, Mx::new(10, random.choice(&names)))).unwrap(),
            _ => builder.push((owner, ttl, random.data(is_odd))).unwrap(),
        }
    }
    let mut builder = builder.authority();
    for _ in 0..random.record_count() {
        builder.push((random.choice(&names), Ttl::HOUR, random.data(is_odd))).unwrap();
    }
    let mut builder = builder.additional();
    for _ in 0..random.record_count() / 2 {
        builder.push((random.choice(&names), Ttl::HOUR, random.data(is_odd))).unwrap();
    }
    let root = Name::<Vec<u8>>::root_vec();
    if random.chance(2, 3) {
        let owner =
            if random.chance(1, 30) { random.choice(&names).to_name() } else { root.clone() };
        let class = Class::from_int(*random.choice(&[0, 511, 512, 1_232, 4_096, 65_535]));
        let version = u32::from(random.chance(1, 10));
        let extended = u32::from(random.chance(1, 10));
        let ttl = extended << 24 | version << 16 | (random.next() as u32 & 0xffff);
        let data = random.options();
        let data = UnknownRecordData::from_octets(Rtype::OPT, data).unwrap();
        builder.push((owner, class, Ttl::from_secs(ttl), data)).unwrap();
    }
    if random.chance(1, 5) {
        builder.push((random.choice(&names), Ttl::HOUR, random.data(is_odd))).unwrap();
    }
    if random.chance(1, 6) {
        let rtype = *random.choice(&[Rtype::TSIG, Rtype::SIG]);
        let data = UnknownRecordData::from_octets(rtype, vec![0; 20]).unwrap();
        builder.push((root, Class::ANY, Ttl::ZERO, data)).unwrap();
    }
    let message = builder.finish();
    message.as_ref().to_vec()
}

/// A name with few different labels, so that names have ends in common, and now and then odd ones.
fn random_name(random: &mut Random) -> Name<Vec<u8>> {
    let mut name = Vec::new();
    for _ in 0..random.below(6) {
        let label = match random.below(12) {
            0 => {
                let len = 1 + random.below(63);
                random.octets(len)
            }
            1 => vec![b'L'; 63],
            _ => random.choice(&["www", "a", "example", "CoM", "_dns"]).as_bytes().to_vec(),
        };
        if name.len() + label.len() + 2 <= 255 {
            name.push(label.len() as u8);
            name.extend(label);
        }
    }
    name.push(0);
    Name::from_octets(name).unwrap()
}

/// `message` with one to three things wrong, if chance will not have it that nothing changes.
fn damaged(random: &mut Random, message: &[u8], corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut message = message.to_vec();
    for _ in 0..=random.below(3) {
        if message.is_empty() {
            break;
        }
        let at = random.below(message.len());
        match random.below(7) {
            0 => message[at] ^= 1 << random.below(8),
            1 => message[at] = random.next() as u8,
            2 => message.truncate(at),
            3 => {
                // The counts decide what is read as what.
                let field = 4 + random.below(8);
                if let Some(count) = message.get_mut(field) {
                    *count = if field.is_multiple_of(2) { 0 } else { random.below(5) as u8 };
                }
            }
            4 => {
                let other = random.choice(corpus);
                let from = random.below(other.len());
                message.truncate(at);
                message.extend_from_slice(&other[from..]);
            }
            5 => {
                // A pointer, most likely to something.
                let target = 0xc000 | random.below(message.len() + 2).min(0x3fff) as u16;
                if let Some(field) = message.get_mut(at..at + 2) {
                    field.copy_from_slice(&target.to_be_bytes());
                }
            }
            _ => {
                let len = 1 + random.below(20);
                let inserted = random.octets(len);
                message.splice(at..at, inserted);
            }
        }
    }
    message
}

/// Runs `case` with a different seed each time, and tells the seed of one that panics.
fn for_each_case(name: &'static str, count: u64, mut case: impl FnMut(&mut Random)) {
    const SEED: u64 = 0x00d0_7b05;
    let first = match std::env::var("MESSAGES_SEED") {
        Ok(seed) => seed.parse().expect("MESSAGES_SEED is a decimal number"),
        Err(_) => SEED,
    };
    for seed in first..first + count {
        let _told = ToldIfPanicking { name, seed };
        case(&mut Random::new(seed));
    }
}

struct ToldIfPanicking {
    name: &'static str,
    seed: u64,
}

impl Drop for ToldIfPanicking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: replay with MESSAGES_SEED={}", self.name, self.seed);
        }
    }
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Seeds in a row must not give similar numbers, and 0 would give nothing but 0.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn chance(&mut self, times: usize, of: usize) -> bool {
        self.below(of) < times
    }

    fn choice<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn octets(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn record_count(&mut self) -> usize {
        match self.below(10) {
            0..5 => 0,
            5..9 => self.below(5),
            _ => self.below(60),
        }
    }

    /// Record data of any type, of those with a meaning here only if `is_odd`.
    fn data(&mut self, is_odd: bool) -> UnknownRecordData<Vec<u8>> {
        let rtype = match self.below(30) {
            0 if is_odd => 41,
            1 if is_odd => 250,
            2 if is_odd => 24,
            3 => self.next() as u16 | 0x100,
            _ => *self.choice(&[1, 28, 16, 46, 65, 24, 65_280]),
        };
        let data = match rtype {
            41 => self.options(),
            24 if is_odd => vec![0; 20],
            24 => vec![1; 20],
            _ => {
                let len = if self.chance(1, 20) { 300 } else { 40 };
                let len = self.below(len);
                self.octets(len)
            }
        };
        UnknownRecordData::from_octets(Rtype::from_int(rtype), data).unwrap()
    }

    /// The data of an OPT record, seldom with an option that overruns it.
    fn options(&mut self) -> Vec<u8> {
        let mut data = Vec::new();
        for _ in 0..self.below(3) {
            let len = if self.chance(1, 10) { 700 } else { 20 };
            let len = self.below(len);
            data.extend_from_slice(&(self.below(20) as u16).to_be_bytes());
            data.extend_from_slice(&(len as u16).to_be_bytes());
            data.extend(self.octets(len));
        }
        if self.chance(1, 30) {
            data.truncate(data.len().saturating_sub(1));
        }
        data
    }
}
