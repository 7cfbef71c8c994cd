//! A byte-level view of DNS messages (RFC 1035 section 4).
//!
//! Messages are forwarded as octets, so no message is decoded. A message is walked once, and what the
//! forwarder has to know of it is noted as numbers and offsets. Answers that are made here are written from
//! the octets of the query. Any octets may be given; none makes a function panic,
//! allocate in proportion to what they claim, or take more than a bounded number of steps per octet.

pub(crate) mod compression;
pub mod edit;
pub mod frame;
pub(crate) mod hops;
pub(crate) mod opt;
pub(crate) mod private;
pub(crate) mod record;
pub(crate) mod special;
pub(crate) mod types;

use opt::{EXTRA_TEXT_MAX, OPT_LEN_MIN, OPTION_HEADER_LEN, Options, OwnOptions, TYPE_OPT};
pub use opt::{Ede, Opt};
pub use private::Stripped;
pub use record::HEADER_LEN;
use record::{Header, QUESTION_FIXED_LEN, Question, RecordStart, name_end};
pub use types::{Class, NameDisplay, Rcode, Rtype};

/// Checks a message of a client.
///
/// `truncated` says that the end of a datagram was lost because the datagram was longer than the buffer it
/// was received in. The answer has TC set, so that the client asks again over TCP.
pub fn parse_query(message: &[u8], truncated: bool) -> Result<ParsedQuery, Refusal> {
    let Some(header) = Header::read(message) else {
        return Err(Refusal::Drop);
    };
    if header.flags & QR != 0 {
        return Err(Refusal::Drop);
    }
    let mut refusal = LocalResponse::new(Rcode::FORMERR, HEADER_LEN, None);
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
        let cut = LocalResponse { rcode: Rcode::NOERROR, truncated: true, ..refusal };
        return Err(Refusal::Respond(cut));
    }
    if !records.complete || !records.opt_valid || !records.signature_valid {
        return Err(Refusal::Respond(refusal));
    }
    if records.opt.is_some_and(|opt| opt.version > 0) {
        let ede = Some(Ede::PROGRAM);
        return Err(Refusal::Respond(LocalResponse { rcode: Rcode::BADVERS, ede, ..refusal }));
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

/// The OPT record of a message with any number of questions. A client that sent an OPT record gets one back,
/// whatever else is wrong (RFC 6891 section 6.1.1).
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
    /// The OPT record, of version 0.
    pub opt: Option<Opt>,
    /// The signature at the end of the query. Nothing but the message ID may be changed in a query with a TSIG,
    /// and nothing at all in one with a SIG(0).
    pub signature: Option<Signature>,
}

impl ParsedQuery {
    /// A response to this query that is made here.
    pub fn local_response<'a>(&self, rcode: Rcode, ede: Option<Ede<'a>>) -> LocalResponse<'a> {
        LocalResponse { ede, ..LocalResponse::new(rcode, self.question_end, self.opt) }
    }
}

/// The kind of signature that a message has.
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
    /// The message is no query, and an answer could start a loop.
    Drop,
    /// The message is answered here.
    Respond(LocalResponse<'static>),
}

/// The parts of a [`local_response`] that are not copied from the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalResponse<'a> {
    /// The RCODE. One above 15 needs an OPT record; without, the response says SERVFAIL.
    pub rcode: Rcode,
    /// Where the query's question ends; [`HEADER_LEN`] to answer without it.
    pub question_end: usize,
    /// The query's OPT record; the response has one if it is there (RFC 6891 section 6.1.1).
    pub opt: Option<Opt>,
    /// An error to tell the person who asked, if the client understands EDNS.
    pub ede: Option<Ede<'a>>,
    /// How long the client's connection may idle, in units of 100 ms, if the client understands EDNS
    /// (RFC 7828 section 3.3).
    pub keepalive: Option<u16>,
    /// TC: the client should ask again over TCP.
    pub truncated: bool,
    /// Records to answer with. A response that is larger with them than the client takes is truncated.
    pub records: LocalRecords<'a>,
}

impl LocalResponse<'_> {
    fn new(rcode: Rcode, question_end: usize, opt: Option<Opt>) -> Self {
        Self {
            rcode,
            question_end,
            opt,
            ede: None,
            keepalive: None,
            truncated: false,
            records: LocalRecords::default(),
        }
    }
}

/// The answer and authority sections of a response that is made here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalRecords<'a> {
    /// Both sections, as they follow the question. Records that are made here are few and short: with the
    /// longest question they fit in 512 octets.
    pub octets: &'a [u8],
    /// Records in the answer section.
    pub ancount: u16,
    /// Records in the authority section.
    pub nscount: u16,
    /// Whether the records are made here, which makes the response authoritative (AA).
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
        opt::append_opt(out, udp_size, extended_rcode, opt.dnssec_ok, options, room);
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
        stripped: Stripped::Nothing,
    })
}

/// The verdict on a message of an upstream.
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

/// The facts about a response that the forwarder has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseInfo {
    /// The RCODE, with the upper bits of the OPT record.
    pub rcode: Rcode,
    /// Where the question ends.
    pub question_end: usize,
    /// Where the last record ends. Octets behind it are no part of the message.
    pub end: usize,
    /// The OPT record.
    pub opt: Option<Opt>,
    /// The signature at the end of the response.
    pub signature: Option<Signature>,
    /// What of it the client is not to get, as is found out later.
    pub stripped: Stripped,
}

/// Appends header and question of `response` with TC set, and as many of its whole answer records as
/// fit in `limit` octets.
pub(crate) fn append_cut(out: &mut Vec<u8>, response: &[u8], info: &ResponseInfo, limit: usize) {
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
        arcount: 0,
    }
    .append(out);
    // No name depends on octets behind it, so nothing misses the octets that were cut off.
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
#[inline]
pub(crate) fn same_question(response: &[u8], query: &[u8], end: usize) -> bool {
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

/// The findings of a walk over the three record sections.
struct Records {
    /// Where the last record ends that could be read.
    end: usize,
    /// Whether every record that the header counts could be read.
    complete: bool,
    /// The first OPT record; if only its RDATA could not be read, it is here all the same, because
    /// the response to the query must have one too.
    opt: Option<Opt>,
    /// Whether there is at most one OPT record, in the additional section, of the root, with readable options
    /// (RFC 6891 section 6.1.1).
    opt_valid: bool,
    signature: Option<Signature>,
    /// Whether there is at most one signature, and nothing behind it (RFC 8945 section 5.2).
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
        let first_additional = usize::from(header.ancount) + usize::from(header.nscount);
        for number in 0..first_additional + usize::from(header.arcount) {
            let is_additional = number >= first_additional;
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
            && Options::new(rdata.unwrap_or_default()).are_whole();
        self.opt.get_or_insert(Opt::new(offset, start.end() - offset, start.class, start.ttl));
    }

    fn note_signature(&mut self, signature: Signature, is_additional: bool) {
        self.signature_valid &= is_additional;
        self.signature = Some(signature);
    }

    /// Whether the records behind the OPT record can do without it. If they cannot, something in them is no
    /// name that any server would write.
    fn is_opt_removable(&self, message: &[u8]) -> bool {
        let Some(opt) = self.opt.filter(|opt| opt.range().end != self.end) else {
            return true;
        };
        message.get(..self.end).is_none_or(|message| compression::is_movable(message, &opt.range()))
    }

    fn rcode(&self, header: &Header) -> Rcode {
        let extended = self.opt.map_or(0, |opt| opt.extended_rcode);
        Rcode(u16::from(extended) << 4 | header.flags & RCODE)
    }
}

const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const AA: u16 = 0x0400;
pub(crate) const TC: u16 = 0x0200;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;
const CD: u16 = 0x0010;
const RCODE: u16 = 0x000f;

const TYPE_SIG: u16 = 24;
const TYPE_TSIG: u16 = 250;

/// Octets of the longest response that is made here: question and records fit in 512.
pub(crate) const LOCAL_LEN_MAX: usize =
    512 + OPT_LEN_MIN + 2 * OPTION_HEADER_LEN + 2 + 2 + EXTRA_TEXT_MAX;

#[cfg(test)]
mod tests;
