//! A byte-level view of DNS messages (RFC 1035 section 4).
//!
//! Messages are forwarded as octets, so nothing here decodes one: it is walked once, what the
//! forwarder has to know is noted as numbers and offsets, and what has to be answered here is
//! written from the octets of the query. Any octets may be given; none makes a function panic,
//! allocate in proportion to what they claim, or take more than a bounded number of steps per octet.

use super::compression;
use super::edns::{
    self, EXTRA_TEXT_MAX, OPT_LEN_MIN, OPTION_HEADER_LEN, Options, OwnOptions, TYPE_OPT,
};
pub use super::edns::{Ede, Opt};
pub use super::presentation::{Class, NameDisplay, Rcode, Rtype};
pub use super::wire::HEADER_LEN;
use super::wire::{Header, QUESTION_FIXED_LEN, Question, RecordStart, name_end};

/// Checks a message of a client.
///
/// `truncated` says that the end of a datagram was lost because it was longer than the buffer it
/// was received in. It is answered with TC, so that the client asks again over TCP.
pub fn parse_query(message: &[u8], truncated: bool) -> Result<ParsedQuery, Refusal> {
    let Some(header) = Header::read(message) else {
        return Err(Refusal::Drop);
    };
    if header.flags & QR != 0 {
        return Err(Refusal::Drop);
    }
    let mut refusal = LocalResponse {
        rcode: Rcode::FORMERR,
        question_end: HEADER_LEN,
        opt: None,
        ede: None,
        keepalive: None,
        truncated: false,
        records: LocalRecords::default(),
    };
    if header.flags & OPCODE != 0 {
        let opt = opt_behind_questions(message, &header);
        return Err(Refusal::Respond(LocalResponse { rcode: Rcode::NOTIMP, opt, ..refusal }));
    }
    if header.qdcount != 1 {
        refusal.opt = opt_behind_questions(message, &header);
        return Err(Refusal::Respond(refusal));
    }
    let Some(question) = Question::read(message) else {
        return Err(Refusal::Respond(refusal));
    };
    refusal.question_end = question.end;

    let records = Records::read(message, question.end, &header);
    refusal.opt = records.opt;
    if truncated {
        return Err(Refusal::Respond(LocalResponse {
            rcode: Rcode::NOERROR,
            truncated: true,
            ..refusal
        }));
    }
    if !records.complete || !records.opt_valid || !records.signature_valid {
        return Err(Refusal::Respond(refusal));
    }
    if records.opt.is_some_and(|opt| opt.version > 0) {
        return Err(Refusal::Respond(LocalResponse { rcode: Rcode::BADVERS, ..refusal }));
    }
    if matches!(question.qtype, Rtype::AXFR | Rtype::IXFR) {
        // The answer is a stream of messages (RFC 5936), which nothing here keeps apart.
        return Err(Refusal::Respond(LocalResponse {
            rcode: Rcode::REFUSED,
            ede: Some(Ede {
                code: Ede::NOT_SUPPORTED,
                text: "dot-proxy does not forward zone transfers",
            }),
            ..refusal
        }));
    }
    if records.end != message.len()
        || records.signature.is_none() && !records.is_opt_removable(message)
    {
        return Err(Refusal::Respond(refusal));
    }
    Ok(ParsedQuery {
        id: header.id,
        qtype: question.qtype,
        qclass: question.qclass,
        question_end: question.end,
        opt: records.opt,
        signature: records.signature,
    })
}

/// The OPT record of a message with any number of questions. Who sent one gets one back, whatever else is
/// wrong (RFC 6891 section 6.1.1).
fn opt_behind_questions(message: &[u8], header: &Header) -> Option<Opt> {
    let mut end = HEADER_LEN;
    for _ in 0..header.qdcount {
        end = name_end(message, end)? + QUESTION_FIXED_LEN;
    }
    Records::read(message, end, header).opt
}

/// A query that can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedQuery {
    /// The client's message ID.
    pub id: u16,
    /// The type asked for.
    pub qtype: Rtype,
    /// The class asked for.
    pub qclass: Class,
    /// Where the question ends; it starts behind the header, at [`HEADER_LEN`].
    pub question_end: usize,
    /// Its OPT record, of version 0.
    pub opt: Option<Opt>,
    /// The signature at its end. Nothing but a TSIG's message ID may be changed in a signed message.
    pub signature: Option<Signature>,
}

impl ParsedQuery {
    /// A response to this query that is made here.
    pub fn local_response<'a>(&self, rcode: Rcode, ede: Option<Ede<'a>>) -> LocalResponse<'a> {
        LocalResponse {
            rcode,
            question_end: self.question_end,
            opt: self.opt,
            ede,
            keepalive: None,
            truncated: false,
            records: LocalRecords::default(),
        }
    }
}

/// What a message is signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// SIG(0), which covers the message ID (RFC 2931 section 3.1).
    Sig0,
    /// TSIG, which keeps the original message ID of its own (RFC 8945 section 4.2).
    Tsig,
}

/// Why a message of a client is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no query, and an answer could start a loop.
    Drop,
    /// It is answered here.
    Respond(LocalResponse<'static>),
}

/// What [`local_response`] says beside what it copies from the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalResponse<'a> {
    /// The RCODE. One above 15 needs an OPT record; without, the response says SERVFAIL.
    pub rcode: Rcode,
    /// Where the query's question ends; [`HEADER_LEN`] to answer without it.
    pub question_end: usize,
    /// The query's OPT record; the response has one if it is there (RFC 6891 section 6.1.1).
    pub opt: Option<Opt>,
    /// What to tell the person who asked, if the client understands EDNS.
    pub ede: Option<Ede<'a>>,
    /// How long the client's connection may idle, in units of 100 ms, if the client understands EDNS
    /// (RFC 7828 section 3.3).
    pub keepalive: Option<u16>,
    /// TC: the client should ask again over TCP.
    pub truncated: bool,
    /// Records to answer with. What is larger with them than the client takes is truncated.
    pub records: LocalRecords<'a>,
}

/// The answer and authority sections of a response that is made here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalRecords<'a> {
    /// Both sections, as they follow the question. Those of ours are few and short: with the longest
    /// question they fit in 512 octets.
    pub octets: &'a [u8],
    /// Records in the answer section.
    pub ancount: u16,
    /// Records in the authority section.
    pub nscount: u16,
    /// They are ours: the response is authoritative (AA).
    pub is_ours: bool,
}

/// Appends a response to `query` that is made here, of at most `limit` octets (512 or more).
///
/// ID, OPCODE, RD, CD and the question in the client's spelling come from the query. A response to another
/// opcode than QUERY has no flag but QR, as flags mean nothing under an opcode that is not known (RFC 8906
/// section 3.1.4). `udp_size` is what our OPT record advertises. A query without a whole header gets no
/// response.
pub fn local_response(
    out: &mut Vec<u8>,
    query: &[u8],
    response: &LocalResponse<'_>,
    udp_size: u16,
    limit: usize,
) {
    let Some(header) = Header::read(query) else {
        return;
    };
    let question = query.get(HEADER_LEN..response.question_end).unwrap_or_default();
    let rcode = match response.rcode {
        Rcode(16..) if response.opt.is_none() => Rcode::SERVFAIL,
        rcode => rcode,
    };
    let mut flags = QR | header.flags & OPCODE | rcode.0 & RCODE;
    if header.flags & OPCODE == 0 {
        flags |= RA | header.flags & (RD | CD);
    }
    let opt_len = if response.opt.is_some() { OPT_LEN_MIN } else { 0 };
    let records = response.records;
    let fits = HEADER_LEN + question.len() + records.octets.len() + opt_len <= limit;
    let records = if fits { records } else { LocalRecords::default() };
    if response.truncated || !fits {
        flags |= TC;
    }
    if records.is_ours && !records.octets.is_empty() {
        flags |= AA;
    }
    Header {
        id: header.id,
        flags,
        qdcount: u16::from(!question.is_empty()),
        ancount: records.ancount,
        nscount: records.nscount,
        arcount: u16::from(response.opt.is_some()),
    }
    .append(out);
    out.extend_from_slice(question);
    out.extend_from_slice(records.octets);
    if let Some(opt) = response.opt {
        let extended_rcode = (rcode.0 >> 4) as u8;
        let used = HEADER_LEN + question.len() + records.octets.len();
        let room = limit.saturating_sub(used).max(OPT_LEN_MIN);
        let options = OwnOptions { keepalive: response.keepalive, ede: response.ede };
        edns::append_opt(out, udp_size, extended_rcode, opt.dnssec_ok, options, room);
    }
}

/// Checks a response of an upstream against the query of its message ID.
///
/// `query` is compared by its question only, which ends at `question_end`; the ID is not compared.
pub fn check_response(response: &[u8], query: &[u8], question_end: usize) -> ResponseCheck {
    let Some(header) = Header::read(response) else {
        return ResponseCheck::Malformed("malformed answer: it is shorter than a header");
    };
    if header.flags & QR == 0 {
        return ResponseCheck::Malformed("malformed answer: it is not a response (QR is 0)");
    }
    if header.flags & OPCODE != 0 {
        return ResponseCheck::Malformed("malformed answer: its opcode is not QUERY");
    }
    if header.qdcount == 0 {
        let rcode = Records::read(response, HEADER_LEN, &header).rcode(&header);
        return if header.ancount == 0 && rcode != Rcode::NOERROR {
            ResponseCheck::ErrorWithoutQuestion(rcode)
        } else {
            ResponseCheck::Malformed("malformed answer: it has no question")
        };
    }
    if header.qdcount != 1 || !same_question(response, query, question_end) {
        return ResponseCheck::Malformed("malformed answer: it answers another question");
    }
    let records = Records::read(response, question_end, &header);
    if !records.complete
        || !records.opt_valid
        || !records.signature_valid
        || !records.is_opt_removable(response)
    {
        return ResponseCheck::Unreadable;
    }
    ResponseCheck::Answer(ResponseInfo {
        rcode: records.rcode(&header),
        question_end,
        end: records.end,
        opt: records.opt,
        signature: records.signature,
    })
}

/// What a message of an upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCheck {
    /// The response to the query.
    Answer(ResponseInfo),
    /// An error that comes without the question, as from servers that could not read it.
    ErrorWithoutQuestion(Rcode),
    /// No response to the query, and the reason: the connection is out of step or the server broken.
    Malformed(&'static str),
    /// The response to the query, but its records cannot be read, or its OPT record is not where and
    /// what RFC 6891 section 6.1.1 wants, or its signature is not the last record (RFC 8945 section 5.2).
    Unreadable,
}

/// What the forwarder has to know of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseInfo {
    /// The RCODE, with the upper bits of the OPT record.
    pub rcode: Rcode,
    /// Where the question ends.
    pub question_end: usize,
    /// Where the last record ends. What stands behind it is no part of the message.
    pub end: usize,
    /// Its OPT record.
    pub opt: Option<Opt>,
    /// The signature at its end.
    pub signature: Option<Signature>,
}

/// Appends header and question of `response` with TC set, and as many of its whole answer records as
/// fit in `limit` octets. `arcount` says how many records the caller appends.
pub(super) fn append_cut(
    out: &mut Vec<u8>,
    response: &[u8],
    info: &ResponseInfo,
    limit: usize,
    arcount: u16,
) {
    let Some(header) = Header::read(response) else {
        return;
    };
    let mut ancount = 0;
    let mut end = info.question_end;
    while ancount < header.ancount
        && end < limit
        && let Some(record) = RecordStart::read(response, end)
        && record.end() <= limit
    {
        end = record.end();
        ancount += 1;
    }
    Header {
        id: header.id,
        flags: header.flags | TC,
        qdcount: u16::from(info.question_end > HEADER_LEN),
        ancount,
        nscount: 0,
        arcount,
    }
    .append(out);
    // No name depends on what comes after it, so what was cut off is missed by nothing.
    out.extend_from_slice(response.get(HEADER_LEN..end).unwrap_or_default());
}

/// The message ID; `None` if the message is shorter than a header.
pub fn id(message: &[u8]) -> Option<u16> {
    Header::read(message).map(|header| header.id)
}

/// Writes the message ID. A message too short for one is left as it is.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(field) = message.first_chunk_mut() {
        *field = id.to_be_bytes();
    }
}

/// Whether both messages have the query's question, which ends at `end`. Names are compared without
/// regard to ASCII case (RFC 4343).
fn same_question(response: &[u8], query: &[u8], end: usize) -> bool {
    let (Some(ours), Some(theirs)) = (query.get(HEADER_LEN..end), response.get(HEADER_LEN..end))
    else {
        return false;
    };
    if ours == theirs {
        return !ours.is_empty();
    }
    // No length octet is a letter, so labels of other lengths do not compare equal.
    let name_len = ours.len().saturating_sub(QUESTION_FIXED_LEN);
    ours[name_len..] == theirs[name_len..]
        && ours[..name_len].eq_ignore_ascii_case(&theirs[..name_len])
}

/// What a walk over the three record sections found.
struct Records {
    /// Where the last record ends that could be read.
    end: usize,
    /// Every record that the header counts could be read.
    complete: bool,
    /// The first OPT record; if only its RDATA could not be read, it is here all the same, because
    /// the response to the query must have one too.
    opt: Option<Opt>,
    /// At most one OPT record, in the additional section, of the root, with readable options
    /// (RFC 6891 section 6.1.1).
    opt_valid: bool,
    signature: Option<Signature>,
    /// At most one signature, and nothing behind it (RFC 8945 section 5.2).
    signature_valid: bool,
}

impl Records {
    fn read(message: &[u8], start: usize, header: &Header) -> Self {
        let mut found = Self {
            end: start,
            complete: false,
            opt: None,
            opt_valid: true,
            signature: None,
            signature_valid: true,
        };
        let counts = [header.ancount, header.nscount, header.arcount];
        for (section, count) in counts.into_iter().enumerate() {
            let is_additional = section == 2;
            for _ in 0..count {
                let Some(start) = RecordStart::read(message, found.end) else {
                    return found;
                };
                let rdata = start.rdata(message);
                found.signature_valid &= found.signature.is_none();
                match start.rtype {
                    TYPE_OPT => found.note_opt(message, &start, rdata, is_additional),
                    TYPE_TSIG => found.note_signature(Signature::Tsig, is_additional),
                    // A SIG record that covers no type signs the message (RFC 2931 section 3).
                    TYPE_SIG if rdata.is_some_and(|rdata| rdata.starts_with(&[0, 0])) => {
                        found.note_signature(Signature::Sig0, is_additional);
                    }
                    _ => {}
                }
                if rdata.is_none() {
                    return found;
                }
                found.end = start.end();
            }
        }
        found.complete = true;
        found
    }

    fn note_opt(
        &mut self,
        message: &[u8],
        start: &RecordStart,
        rdata: Option<&[u8]>,
        is_additional: bool,
    ) {
        let offset = self.end;
        self.opt_valid &= self.opt.is_none()
            && is_additional
            && message.get(offset) == Some(&0)
            && Options::new(rdata.unwrap_or_default()).all(|option| option.is_ok());
        self.opt.get_or_insert(Opt::new(offset, start.end() - offset, start.class, start.ttl));
    }

    fn note_signature(&mut self, signature: Signature, is_additional: bool) {
        self.signature_valid &= is_additional;
        self.signature = Some(signature);
    }

    /// Whether the records behind the OPT record can do without it. If not, something in them is no
    /// name that any server would write.
    fn is_opt_removable(&self, message: &[u8]) -> bool {
        let (Some(opt), Some(message)) = (self.opt, message.get(..self.end)) else {
            return true;
        };
        opt.range().end == self.end || compression::is_movable(message, &opt.range())
    }

    fn rcode(&self, header: &Header) -> Rcode {
        let extended = self.opt.map_or(0, |opt| opt.extended_rcode);
        Rcode(u16::from(extended) << 4 | header.flags & RCODE)
    }
}

const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const AA: u16 = 0x0400;
pub(super) const TC: u16 = 0x0200;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;
const CD: u16 = 0x0010;
const RCODE: u16 = 0x000f;

const TYPE_SIG: u16 = 24;
const TYPE_TSIG: u16 = 250;

/// A response that is made here has at most so many octets: question and records fit in 512.
pub(super) const LOCAL_LEN_MAX: usize =
    512 + OPT_LEN_MIN + 2 * OPTION_HEADER_LEN + 2 + 2 + EXTRA_TEXT_MAX;

#[cfg(test)]
mod tests {
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

    /// The order of the checks, each row with everything wrong that is checked after it.
    #[test]
    fn refused_queries() {
        type Case = (&'static str, Vec<u8>, Option<(Rcode, usize, bool)>);
        let end = query(b"", 0).len();
        let axfr = |mut query: Vec<u8>| {
            query[end - 3] = 252;
            query
        };
        let trailing = |query: &[u8]| [query, b"x"].concat();
        let edns1: &[u8] = b"\0\0\x29\x04\xd0\0\x01\x80\0\0\0";
        let opt_of_a: &[u8] = b"\x01a\0\0\x29\x04\xd0\0\0\x80\0\0\0";
        let overrun: &[u8] = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x04\0\x0a\0\x01";
        let cut_opt: &[u8] = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x09";
        let respond = |rcode, question_end, has_opt| Some((rcode, question_end, has_opt));
        let formerr = Rcode::FORMERR;
        let cases: [Case; 33] = [
            ("empty", vec![], None),
            ("11 octets", query(b"", 0)[..11].to_vec(), None),
            ("QR=1", with_flags(&query(b"", 0), 0x8100), None),
            ("QR=1, opcode", with_flags(&query(b"", 0), 0xa800), None),
            (
                "opcode",
                with_flags(&trailing(&axfr(with_records(&[edns1], [0, 0, 1]))), 0x2900),
                respond(Rcode::NOTIMP, 12, true),
            ),
            (
                "opcode, OPT cut before its RDATA",
                with_flags(&query(&OPT[..9], 1), 0x2900),
                respond(Rcode::NOTIMP, 12, false),
            ),
            (
                "opcode, header only",
                vec![0, 0, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                respond(Rcode::NOTIMP, 12, false),
            ),
            ("no question", with_qdcount(&query(OPT, 1), 0), respond(formerr, 12, false)),
            (
                "no question, OPT",
                [&query(b"", 1)[..5], &[0], &query(b"", 1)[6..12], OPT].concat(),
                respond(formerr, 12, true),
            ),
            ("two questions", with_qdcount(&query(OPT, 1), 2), respond(formerr, 12, false)),
            (
                "two questions, OPT",
                with_qdcount(&query(&[b"\xc0\x0c\0\x1c\0\x01", OPT].concat(), 1), 2),
                respond(formerr, 12, true),
            ),
            (
                "two questions, the second cut, OPT",
                with_qdcount(&query(&[b"\x40\0\x1c\0\x01", OPT].concat(), 1), 2),
                respond(formerr, 12, false),
            ),
            ("question cut in the name", query(b"", 0)[..20].to_vec(), respond(formerr, 12, false)),
            ("question cut", query(b"", 0)[..end - 1].to_vec(), respond(formerr, 12, false)),
            (
                "compressed question",
                [&query(b"", 0)[..12], b"\x01a\xc0\x04\0\x01\0\x01"].concat(),
                respond(formerr, 12, false),
            ),
            (
                "label type",
                [&query(b"", 0)[..12], b"\x41a\0\0\x01\0\x01"].concat(),
                respond(formerr, 12, false),
            ),
            ("question of 256 octets", question_of(256), respond(formerr, 12, false)),
            ("record missing", query(b"", 1), respond(formerr, end, false)),
            ("record missing after OPT", query(OPT, 2), respond(formerr, end, true)),
            ("RDATA cut", query(&A[..A.len() - 1], 1), respond(formerr, end, false)),
            ("OPT cut in its RDATA", query(cut_opt, 1), respond(formerr, end, true)),
            ("OPT cut before it", query(&cut_opt[..10], 1), respond(formerr, end, false)),
            (
                "two OPTs",
                trailing(&axfr(with_records(&[edns1, OPT], [0, 0, 2]))),
                respond(formerr, end, true),
            ),
            ("OPT as answer", with_records(&[OPT], [1, 0, 0]), respond(formerr, end, true)),
            ("OPT in authority", with_records(&[OPT], [0, 1, 0]), respond(formerr, end, true)),
            ("OPT of a.", query(opt_of_a, 1), respond(formerr, end, true)),
            ("option overrun", query(overrun, 1), respond(formerr, end, true)),
            ("TSIG, OPT", with_records(&[TSIG, OPT], [0, 0, 2]), respond(formerr, end, true)),
            ("TSIG in authority", with_records(&[TSIG], [0, 1, 0]), respond(formerr, end, false)),
            (
                "EDNS version 1",
                trailing(&axfr(query(edns1, 1))),
                respond(Rcode::BADVERS, end, true),
            ),
            ("AXFR", trailing(&axfr(query(OPT, 1))), respond(Rcode::REFUSED, end, true)),
            ("trailing octet", trailing(&query(OPT, 1)), respond(formerr, end, true)),
            (
                "name in the OPT",
                with_records(&[OPT, NAME_IN_OPT], [0, 0, 2]),
                respond(formerr, end, true),
            ),
        ];
        for (what, query, expected) in cases {
            let found = match parse_query(&query, false).expect_err(what) {
                Refusal::Drop => None,
                Refusal::Respond(response) => {
                    assert!(!response.truncated, "{what}");
                    assert_eq!(response.ede.is_some(), response.rcode == Rcode::REFUSED, "{what}");
                    Some((response.rcode, response.question_end, response.opt.is_some()))
                }
            };
            assert_eq!(found, expected, "{what}");
        }
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
        // What is dropped or not implemented stays so.
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
        let response = respond(&query, &parsed.local_response(Rcode::BADVERS, None));
        assert_eq!(response[2..4], [0x81, 0x80]);
        assert_eq!(response[12 + question.len()..], *b"\0\0\x29\x04\xd0\x01\0\x80\0\0\0");

        // No OPT asked for, so no EDE and no extended RCODE.
        let without = LocalResponse { opt: None, ..parsed.local_response(Rcode::BADVERS, ede) };
        let response = respond(&query, &without);
        assert_eq!(response, [b"\x12\x34\x81\x82\0\x01\0\0\0\0\0\0", question].concat());

        // Of the flags only RD and CD are copied, of another opcode's none.
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
    fn checked_responses() {
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
    fn a_response_is_cut_between_records() {
        let query = query(b"", 0);
        let end = query.len();
        let many: Vec<_> = std::iter::repeat_n(A, 40).chain([NS]).collect();
        let response = response(&many, [40, 1, 0]);
        let ResponseCheck::Answer(info) = check_response(&response, &query, end) else { panic!() };
        // One that fits to the octet stays, and one octet less loses it.
        for (limit, kept) in [(end + 35 * A.len(), 35), (end + 35 * A.len() - 1, 34), (0, 0)] {
            let mut out = b"before".to_vec();
            append_cut(&mut out, &response, &info, limit, 1);
            let counts = [0, 1, 0, kept, 0, 0, 0, 1];
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
}
