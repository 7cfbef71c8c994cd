//! Just enough DNS to ask, to answer and to judge.

use support::Query;
use support::message::{
    self, AD, HEADER_LEN, KEEPALIVE, Opt, PADDING, QR, RA, RD, TXT, record, word,
};
use support::view::View;

pub use support::message::framed;

/// RCODEs (RFC 1035 section 4.1.1).
pub const NOERROR: u8 = 0;
pub const FORMERR: u8 = 1;
pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;
pub const NOTIMP: u8 = 4;
pub const REFUSED: u8 = 5;

pub const A: u16 = 1;
const IXFR: u16 = 251;
const AXFR: u16 = 252;

/// In the flags of OPT.
const DO: u16 = 0x8000;

/// What of a client's OPT record matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    pub size: u16,
    pub dnssec_ok: bool,
}

impl Edns {
    fn record(self) -> Opt {
        let flags = if self.dnssec_ok { DO } else { 0 };
        Opt { flags, ..Opt::new(self.size) }
    }
}

/// The OPT record of a message.
pub fn edns(message: &View<'_>) -> Option<Edns> {
    let opt = message.opt()?;
    Some(Edns { size: opt.class, dnssec_ok: opt.ttl & u32::from(DO) != 0 })
}

/// The serial number that [`answer`] put in, if one of the simulated servers made this.
pub fn serial(message: &View<'_>) -> Option<u64> {
    let texts = message.records.iter().filter(|record| record.rtype == TXT);
    let mut texts = texts.map(|text| message.data(text));
    let text = texts.find(|text| text.len() == 9)?;
    Some(u64::from_be_bytes(text[1..].try_into().ok()?))
}

/// What is due for a message of a client (RFC.md decision 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing at all; over TCP the connection closes.
    Silence,
    /// An answer made here, with or without the question.
    Local { rcode: u8, question: bool },
    /// REFUSED, as its source is not served.
    Refused,
    /// An authoritative answer made here, with so many records in its first two sections.
    Special { rcode: u8, answers: usize, authorities: usize },
    /// An upstream's answer, or SERVFAIL.
    Upstream,
}

/// What is due for `message`, whatever the name is.
pub fn due(message: &[u8]) -> Due {
    if message.len() < 12 || message::flags(message) & QR != 0 {
        return Due::Silence;
    }
    if message[2] & 0x78 != 0 {
        return Due::Local { rcode: NOTIMP, question: false };
    }
    let question_end = match (word(message, 4), plain_name_end(message, 12)) {
        (Some(1), Some(end)) if end + 4 <= message.len() => end + 4,
        _ => {
            return Due::Local { rcode: FORMERR, question: false };
        }
    };
    let unreadable = Due::Local { rcode: FORMERR, question: true };
    let Some(parsed) = View::read(message) else {
        return unreadable;
    };
    if parsed.opts() > 1 || parsed.has_misplaced_opt() {
        return unreadable;
    }
    if parsed.opt().is_some_and(|opt| opt.ttl >> 16 & 0xff != 0) {
        return Due::Local { rcode: NOERROR, question: true };
    }
    match word(message, question_end - 4) {
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
    let query = Query::new(name, kind).id(id);
    match edns {
        Some(edns) => query.opt(edns.size).edns_flags(edns.record().flags).bytes(),
        None => query.bytes(),
    }
}

/// A query with EDNS that asks how long its connection may idle (RFC 7828 section 3.2.1).
pub fn query_with_keepalive(id: u16, name: &str, kind: u16) -> Vec<u8> {
    Query::new(name, kind).id(id).opt(1232).option(KEEPALIVE, &[]).bytes()
}

/// The question section for `name` in class IN.
pub fn question(name: &str, kind: u16) -> Vec<u8> {
    Query::new(name, kind).bytes().split_off(HEADER_LEN)
}

/// A response to `query` that carries `serial`, made larger by TXT records until it has `size`
/// octets, if that is more than it needs. With an error the records are in the authority section.
pub fn answer(query: &[u8], serial: u64, rcode: u8, size: usize) -> Vec<u8> {
    let (mut message, edns) = response(query, RA | u16::from(rcode), [1, 0, 0, 0]);
    push_txt(&mut message, &serial.to_be_bytes());
    let mut records: u16 = 1;
    let opt_length = if edns.is_some() { 11 } else { 0 };
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
    if let Some(edns) = edns {
        message[11] = 1;
        Edns { size: 1232, ..edns }.record().append(&mut message);
    }
    message
}

/// Header and question of a response, and what the query has of EDNS.
fn response(query: &[u8], flags: u16, counts: [u16; 4]) -> (Vec<u8>, Option<Edns>) {
    let asked = View::read(query).expect("the simulated servers answer whole queries");
    let flags = QR | u16::from(asked.copied_flags()) << 8 | flags;
    let mut message = message::header(asked.id(), flags, counts);
    message.extend(asked.question());
    (message, edns(&asked))
}

/// What the root says of a name that it does not have, to a query with EDNS: SOA and NSEC, with a name that
/// needs the question, and their signatures of so many octets.
pub fn denial(query: &[u8], ttl: u32, signature: usize) -> Vec<u8> {
    let (mut message, _) = response(query, RA | AD | u16::from(NXDOMAIN), [1, 0, 4, 1]);
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
    Edns { size: 1232, dnssec_ok: true }.record().append(&mut message);
    message
}

/// A small answer with an address as well.
pub fn answer_with_address(query: &[u8], serial: u64, rcode: u8, address: [u8; 4]) -> Vec<u8> {
    let mut message = answer(query, serial, rcode, 0);
    let end = message.len() - if message[11] == 0 { 0 } else { 11 };
    message.splice(end..end, record(A, &address));
    message[if rcode == NOERROR { 7 } else { 9 }] += 1;
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
    View::read(message).is_some_and(|message| {
        if code == 0 { message.opts() > 0 } else { message.option(code).is_some() }
    })
}

/// A query with EDNS and an option of three octets.
pub fn query_with_option(id: u16, name: &str, kind: u16, code: u16) -> Vec<u8> {
    Query::new(name, kind).id(id).opt(1232).option(code, b"odd").bytes()
}

/// Hops over TLS that a query has behind it, as its padding says: none, if that is of zeros.
pub fn hops(query: &[u8]) -> u8 {
    let query = View::read(query).expect("servers are sent whole queries");
    let padding = query.option(PADDING).and_then(|padding| padding.strip_prefix(b"dotproxy"));
    padding.and_then(<[u8]>::first).copied().unwrap_or_default()
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
    message::header(message::id(query), QR | RD | RA | u16::from(rcode), [0; 4])
}

/// Takes the first whole frame off `stream` and gives its message.
pub fn take_frame(stream: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = 2 + usize::from(word(stream, 0)?);
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

fn push_txt(message: &mut Vec<u8>, text: &[u8]) {
    message.extend(record(TXT, &[&[text.len() as u8], text].concat()));
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
