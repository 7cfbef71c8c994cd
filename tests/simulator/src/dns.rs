//! Just enough DNS to ask, to answer and to judge, written apart from the forwarder's own parser so
//! that the two check each other.

/// RCODEs (RFC 1035 section 4.1.1).
pub const NOERROR: u8 = 0;
pub const FORMERR: u8 = 1;
pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;
pub const NOTIMP: u8 = 4;
pub const REFUSED: u8 = 5;

pub const A: u16 = 1;
const TXT: u16 = 16;
const OPT: u16 = 41;
const KEEPALIVE: u16 = 11;
const IXFR: u16 = 251;
const AXFR: u16 = 252;

const QR: u8 = 0x80;
const AA: u8 = 0x04;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
const RA: u8 = 0x80;
const AD: u8 = 0x20;

/// A message that was walked from end to end.
#[derive(Debug)]
pub struct Message<'a> {
    pub bytes: &'a [u8],
    /// Where the question ends; 12 without one.
    question_end: usize,
    records: Vec<Record<'a>>,
    /// Where the last record ends.
    end: usize,
}

/// One resource record.
#[derive(Debug)]
struct Record<'a> {
    /// 0 answer, 1 authority, 2 additional.
    section: usize,
    /// Where it starts.
    start: usize,
    root_owner: bool,
    kind: u16,
    class: u16,
    ttl: u32,
    data: &'a [u8],
}

impl<'a> Message<'a> {
    /// `None` unless every counted record is whole and nothing follows the last.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        Self::parse_response(bytes).filter(|message| message.trailing().is_empty())
    }

    /// As [`Self::parse`], but octets may follow the last record.
    pub fn parse_response(bytes: &'a [u8]) -> Option<Self> {
        let mut at = 12;
        for _ in 0..u16_at(bytes, 4)? {
            at = name_end(bytes, at)? + 4;
        }
        let question_end = at;
        let mut records = Vec::new();
        for section in 0..3 {
            for _ in 0..u16_at(bytes, 6 + 2 * section)? {
                let start = at;
                at = name_end(bytes, at)?;
                let length = usize::from(u16_at(bytes, at + 8)?);
                records.push(Record {
                    section,
                    start,
                    root_owner: bytes[start] == 0,
                    kind: u16_at(bytes, at)?,
                    class: u16_at(bytes, at + 2)?,
                    ttl: u32::from(u16_at(bytes, at + 4)?) << 16
                        | u32::from(u16_at(bytes, at + 6)?),
                    data: bytes.get(at + 10..at + 10 + length)?,
                });
                at += 10 + length;
            }
        }
        (at <= bytes.len()).then_some(Self { bytes, question_end, records, end: at })
    }

    /// What follows the last record.
    pub fn trailing(&self) -> &'a [u8] {
        &self.bytes[self.end..]
    }

    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    pub fn is_response(&self) -> bool {
        self.bytes[2] & QR != 0
    }

    /// OPCODE and RD, which a response copies.
    pub fn copied_flags(&self) -> u8 {
        self.bytes[2] & (0x78 | RD)
    }

    pub fn is_truncated(&self) -> bool {
        self.bytes[2] & TC != 0
    }

    pub fn is_recursion_available(&self) -> bool {
        self.bytes[3] & RA != 0
    }

    /// AA, and not AD.
    pub fn is_our_own(&self) -> bool {
        self.bytes[2] & AA != 0 && self.bytes[3] & AD == 0
    }

    pub fn is_authenticated(&self) -> bool {
        self.bytes[3] & AD != 0
    }

    /// How many records there are in the answer and in the authority section.
    pub fn counts(&self) -> [usize; 2] {
        [0, 1].map(|section| self.records.iter().filter(|r| r.section == section).count())
    }

    pub fn rcode(&self) -> u8 {
        self.bytes[3] & 0x0f
    }

    /// The octets of the question section.
    pub fn question(&self) -> &'a [u8] {
        &self.bytes[12..self.question_end]
    }

    /// The message up to its OPT record, which is the last, without the ID and the question and not
    /// counting the OPT record: what passes through unchanged.
    pub fn transparent(&self) -> Vec<u8> {
        let mut octets = [&self.bytes[2..12], self.records_octets()].concat();
        octets[9] -= self.opts() as u8;
        octets
    }

    /// Everything after the question and before the OPT record.
    pub fn records_octets(&self) -> &'a [u8] {
        &self.bytes[self.question_end..self.opt_start()]
    }

    fn opt_start(&self) -> usize {
        self.records.iter().find(|r| r.kind == OPT).map_or(self.end, |r| r.start)
    }

    pub fn edns(&self) -> Option<Edns> {
        let opt = self.records.iter().find(|r| r.kind == OPT)?;
        Some(Edns { size: opt.class, dnssec_ok: opt.ttl & 0x8000 != 0 })
    }

    /// EXTENDED-RCODE and VERSION (RFC 6891 section 6.1.3).
    pub fn edns_ttl_octets(&self) -> Option<(u8, u8)> {
        let opt = self.records.iter().find(|r| r.kind == OPT)?;
        Some(((opt.ttl >> 24) as u8, (opt.ttl >> 16) as u8))
    }

    /// How many OPT records there are.
    pub fn opts(&self) -> usize {
        self.records.iter().filter(|r| r.kind == OPT).count()
    }

    /// The INFO-CODE of the Extended DNS Error (RFC 8914 section 2), if there is one.
    pub fn extended_error(&self) -> Option<u16> {
        u16_at(self.option(15)?, 0)
    }

    /// Its EXTRA-TEXT; empty if there is none.
    pub fn extra_text(&self) -> String {
        let text = self.option(15).and_then(|data| data.get(2..)).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    fn option(&self, code: u16) -> Option<&'a [u8]> {
        let opt = self.records.iter().find(|r| r.kind == OPT)?;
        let mut options = opt.data;
        while options.len() >= 4 {
            let length = usize::from(u16_at(options, 2)?);
            if u16_at(options, 0)? == code {
                return options.get(4..4 + length);
            }
            options = options.get(4 + length..)?;
        }
        None
    }

    /// Whether it has an edns-tcp-keepalive option (RFC 7828).
    pub fn has_keepalive(&self) -> bool {
        self.option(KEEPALIVE).is_some()
    }

    /// TIMEOUT of that option, in units of 100 ms.
    pub fn keepalive_timeout(&self) -> Option<u16> {
        u16_at(self.option(KEEPALIVE)?, 0)
    }

    /// The serial number that [`answer`] put in, if one of the simulated servers made this.
    pub fn serial(&self) -> Option<u64> {
        let first = self.records.iter().find(|r| r.kind == TXT && r.data.len() == 9)?;
        Some(u64::from_be_bytes(first.data[1..].try_into().ok()?))
    }
}

/// What of a client's OPT record matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    pub size: u16,
    pub dnssec_ok: bool,
}

/// What is due for a message of a client (RFC.md decision 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing at all; over TCP the connection closes.
    Silence,
    /// An answer made here, with or without the question.
    Local { rcode: u8, question: bool },
    /// An authoritative answer made here, with so many records in its first two sections.
    Special { rcode: u8, answers: usize, authorities: usize },
    /// An upstream's answer, or SERVFAIL.
    Upstream,
}

/// What is due for `message`, whatever the name is.
pub fn due(message: &[u8]) -> Due {
    if message.len() < 12 || message[2] & QR != 0 {
        return Due::Silence;
    }
    if message[2] & 0x78 != 0 {
        return Due::Local { rcode: NOTIMP, question: false };
    }
    let question_end = match (u16_at(message, 4), plain_name_end(message, 12)) {
        (Some(1), Some(end)) if end + 4 <= message.len() => end + 4,
        _ => {
            return Due::Local { rcode: FORMERR, question: false };
        }
    };
    let unreadable = Due::Local { rcode: FORMERR, question: true };
    let Some(parsed) = Message::parse(message) else {
        return unreadable;
    };
    let misplaced = |r: &Record<'_>| r.kind == OPT && (r.section != 2 || !r.root_owner);
    if parsed.opts() > 1 || parsed.records.iter().any(misplaced) {
        return unreadable;
    }
    if parsed.edns_ttl_octets().is_some_and(|(_, version)| version != 0) {
        return Due::Local { rcode: NOERROR, question: true };
    }
    match u16_at(message, question_end - 4) {
        Some(AXFR | IXFR) => Due::Local { rcode: REFUSED, question: true },
        _ => Due::Upstream,
    }
}

/// The octets of the first question of `message`, which has one.
pub fn first_question(message: &[u8]) -> &[u8] {
    let end = plain_name_end(message, 12).expect("the question is readable");
    &message[12..end + 4]
}

/// A query for `name`, spelled as given, with a trailing dot.
pub fn query(id: u16, name: &str, kind: u16, edns: Option<Edns>) -> Vec<u8> {
    let mut message = header(id, RD, 0, [1, 0, 0, u16::from(edns.is_some())]);
    message.extend(question(name, kind));
    if let Some(edns) = edns {
        push_opt(&mut message, edns);
    }
    message
}

/// A query with EDNS that asks how long its connection may idle (RFC 7828 section 3.2.1).
pub fn query_with_keepalive(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = query(id, name, kind, Some(Edns { size: 1232, dnssec_ok: false }));
    push_option(&mut message, KEEPALIVE, &[]);
    message
}

/// The question section for `name` in class IN.
pub fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        octets.push(label.len() as u8);
        octets.extend(label.as_bytes());
    }
    octets.push(0);
    octets.extend(kind.to_be_bytes());
    octets.extend([0, 1]);
    octets
}

/// A response to `query` that carries `serial`, made larger by TXT records until it has `size`
/// octets, if that is more than it needs. With an error the records are in the authority section.
pub fn answer(query: &[u8], serial: u64, rcode: u8, size: usize) -> Vec<u8> {
    let asked = Message::parse(query).expect("the simulated servers answer whole queries");
    let mut message = header(asked.id(), QR | asked.copied_flags(), RA | rcode, [1, 0, 0, 0]);
    message.extend(asked.question());
    push_txt(&mut message, &serial.to_be_bytes());
    let mut records: u16 = 1;
    let opt_length = if asked.edns().is_some() { 11 } else { 0 };
    while let missing = size.saturating_sub(message.len() + opt_length)
        && missing > 13
    {
        let data = match (missing - 13).min(200) {
            length if (1..=13).contains(&(missing - 13 - length)) => length - 13,
            length => length,
        };
        push_txt(&mut message, &vec![b'x'; data]);
        records += 1;
    }
    let section = if rcode == NOERROR { 6 } else { 8 };
    message[section..section + 2].copy_from_slice(&records.to_be_bytes());
    if let Some(edns) = asked.edns() {
        message[11] = 1;
        push_opt(&mut message, Edns { size: 1232, ..edns });
    }
    message
}

/// What the root says of a name that it does not have, to a query with EDNS: SOA and NSEC, with a name that
/// needs the question, and their signatures of so many octets.
pub fn denial(query: &[u8], ttl: u32, signature: usize) -> Vec<u8> {
    let asked = Message::parse(query).expect("the simulated servers answer whole queries");
    let mut message =
        header(asked.id(), QR | asked.copied_flags(), RA | AD | NXDOMAIN, [1, 0, 4, 1]);
    message.extend(asked.question());
    let mut push = |owner: &[u8], kind: u8, data: &[u8]| {
        message.extend([owner, &[0, kind, 0, 1], &ttl.to_be_bytes()].concat());
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
    };
    let signature = [&[0; 18][..], b"\0", &vec![7; signature]].concat();
    let soa = [&b"\x01a\xc0\x0c\x01b\0"[..], &[0; 16], &ttl.to_be_bytes()].concat();
    push(b"\0", 6, &soa);
    push(b"\0", 46, &signature);
    push(b"\0", 47, b"\x03aaa\0\0\x01\x40");
    push(b"\0", 46, &signature);
    push_opt(&mut message, Edns { size: 1232, dnssec_ok: true });
    message
}

/// A small answer with an Extended DNS Error, to a query with EDNS.
pub fn answer_with_error(query: &[u8], serial: u64, rcode: u8, code: u16) -> Vec<u8> {
    let mut message = answer(query, serial, rcode, 0);
    push_option(&mut message, 15, &code.to_be_bytes());
    message
}

/// A small answer with an option, to a query with EDNS.
pub fn answer_with_option(query: &[u8], serial: u64, code: u16, data: &[u8]) -> Vec<u8> {
    let mut message = answer(query, serial, NOERROR, 0);
    push_option(&mut message, code, data);
    message
}

/// A small answer that has no OPT record.
pub fn answer_without_edns(query: &[u8], serial: u64, rcode: u8) -> Vec<u8> {
    let mut message = answer(query, serial, rcode, 0);
    if message[11] != 0 {
        message.truncate(message.len() - 11);
        message[11] = 0;
    }
    message
}

/// How a server says that it will not answer.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// With an OPT record, if it was asked with one.
    WithOpt,
    WithoutOpt,
    NoQuestion,
}

/// An error to `query`.
pub fn objection(query: &[u8], serial: u64, rcode: u8, shape: Shape) -> Vec<u8> {
    match shape {
        Shape::WithOpt => answer(query, serial, rcode, 0),
        Shape::WithoutOpt => answer_without_edns(query, serial, rcode),
        Shape::NoQuestion => questionless(query, rcode),
    }
}

/// Whether `message` has an option of this code; or, for 0, an OPT record.
pub fn has_option(message: &[u8], code: u16) -> bool {
    Message::parse(message).is_some_and(|message| {
        if code == 0 { message.opts() > 0 } else { message.option(code).is_some() }
    })
}

/// A query with EDNS and an option of three octets.
pub fn query_with_option(id: u16, name: &str, kind: u16, code: u16) -> Vec<u8> {
    let mut message = query(id, name, kind, Some(Edns { size: 1232, dnssec_ok: false }));
    push_option(&mut message, code, b"odd");
    message
}

/// Writes the question of `message` in small letters.
pub fn respell(message: &mut [u8]) {
    let name_end = 12 + first_question(message).len() - 4;
    message[12..name_end].make_ascii_lowercase();
}

/// Adds an option to a message that ends in an OPT record without any.
fn push_option(message: &mut Vec<u8>, code: u16, data: &[u8]) {
    let length = message.len();
    message[length - 1] = 4 + data.len() as u8;
    message.extend(code.to_be_bytes());
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
}

/// A response to `query` without a question.
pub fn questionless(query: &[u8], rcode: u8) -> Vec<u8> {
    header(u16::from_be_bytes([query[0], query[1]]), QR | RD, RA | rcode, [0; 4])
}

/// `message` behind its length (RFC 1035 section 4.2.2).
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = (message.len() as u16).to_be_bytes().to_vec();
    frame.extend(message);
    frame
}

/// Takes the first whole frame off `stream` and gives its message.
pub fn take_frame(stream: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = 2 + usize::from(u16_at(stream, 0)?);
    if stream.len() < end {
        return None;
    }
    let message = stream[2..end].to_vec();
    stream.drain(..end);
    Some(message)
}

/// The name in a question section, as it is spelled there.
pub fn name_of(question: &[u8]) -> String {
    let mut name = String::new();
    let mut at = 0;
    while let Some(&length) = question.get(at)
        && length > 0
    {
        let end = at + 1 + usize::from(length);
        name.push_str(&String::from_utf8_lossy(&question[at + 1..end]));
        name.push('.');
        at = end;
    }
    name
}

fn header(id: u16, high: u8, low: u8, counts: [u16; 4]) -> Vec<u8> {
    let mut octets = id.to_be_bytes().to_vec();
    octets.extend([high, low]);
    octets.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    octets
}

fn push_txt(message: &mut Vec<u8>, text: &[u8]) {
    message.extend([0xc0, 12, 0, TXT as u8, 0, 1, 0, 0, 1, 44]);
    message.extend((text.len() as u16 + 1).to_be_bytes());
    message.push(text.len() as u8);
    message.extend(text);
}

fn push_opt(message: &mut Vec<u8>, edns: Edns) {
    message.extend([0, 0, OPT as u8]);
    message.extend(edns.size.to_be_bytes());
    message.extend([0, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Where the name that starts at `at` ends; a compression pointer ends it.
fn name_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

fn plain_name_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match *bytes.get(at)? {
            0 => return (at + 1 - start <= 255).then_some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}
