//! Changes of a message on its way: of the message ID and, unless the message is signed, of the OPT record
//! and the spelling of the question.
//!
//! EDNS is spoken hop by hop, and this program is what RFC 6891 section 6.2.6 calls an intelligent
//! forwarder: padding, keepalive, cookies and client subnets belong to one of its two sides. Everything else,
//! unknown options included, passes as it is (RFC 5625 section 3), except that a client gets the question in
//! its own spelling. Only the ID of a signed message changes (RFC 8945 section 5.5).
//!
//! A message whose OPT record is the last record is copied in one pass. Where other records follow the OPT
//! record, they move up, the pointers in their names are adapted, and the OPT record comes last.

use std::net::IpAddr;

use super::compression;
use super::hops::{self, MARK};
use super::opt::{
    DNSSEC_OK, OPT_LEN_MIN, OPTION_COOKIE, OPTION_ECS, OPTION_HEADER_LEN, OPTION_KEEPALIVE,
    OPTION_PADDING, Opt, TYPE_OPT,
};
use super::record;
use crate::forwarder::message::{self, ParsedQuery, ResponseInfo, Rtype, Stripped};

/// Appends `query` as an upstream gets it, with the message ID `id`.
///
/// An unsigned query gets an OPT record at its end, which is the client's without the options that belong to
/// the client's hop, or a new one. Padding is the last option, so that the length tells little about the name
/// (RFC 8467 section 4.1); it is of zeros, unless the query came padded. An upstream that objects to OPT
/// records or to options gets fewer of them. Options that do not fit into a message are left out. For a query
/// with a SIG(0), `id` must be the client's, as the ID is signed too.
pub fn append_query(
    out: &mut Vec<u8>,
    query: &[u8],
    parsed: &ParsedQuery,
    id: u16,
    edit: QueryEdit,
) {
    let mut draft = Draft::new(out, MESSAGE_LEN_MAX);
    if parsed.signature.is_some() {
        draft.out.extend_from_slice(query);
        draft.set_id(id);
        return;
    }
    draft.copy_without_opt(query, parsed.opt.as_ref());
    let has_opt = match edit.edns {
        Edns::Ours => true,
        Edns::Clients => parsed.opt.is_some(),
        Edns::Absent => false,
    };
    if has_opt && draft.room() >= OPT_LEN_MIN {
        let fixed = match parsed.opt.and_then(|opt| query.get(opt.offset..)?.first_chunk()) {
            Some(fixed) => *fixed,
            None => ADDED_OPT,
        };
        draft.start_opt(fixed);
        draft.copy_options(query, parsed.opt.as_ref(), edit.ecs);
        if edit.edns == Edns::Ours {
            if edit.ecs == Ecs::Strip {
                // SOURCE and SCOPE PREFIX-LENGTH 0, without an address (RFC 7871 section 7.1.2).
                draft.push_option(OPTION_ECS, &[0, edit.family as u8, 0, 0]);
            }
            if edit.keepalive {
                draft.push_option(OPTION_KEEPALIVE, &[]);
            }
            draft.push_padding(hops::hops(query, parsed.opt.as_ref()));
        }
        draft.finish_opt();
    }
    draft.set_id(id);
}

/// The choices that [`append_query`] is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryEdit {
    /// How much of EDNS the query is sent with.
    pub edns: Edns,
    /// Ask how long the upstream leaves the connection open when it is idle: on the first unsigned
    /// query of each (RFC 7828 section 3.2.1).
    pub keepalive: bool,
    /// Whether the client's subnet passes.
    pub ecs: Ecs,
    /// The client's address family.
    pub family: Family,
}

/// How much of EDNS a query goes upstream with: each is less than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Edns {
    /// An OPT record, with options that are added here.
    #[default]
    Ours,
    /// The client's OPT record, if it sent one, without the options of its hop, and nothing that is added here.
    Clients,
    /// No OPT record. The client's is taken out, too.
    Absent,
}

/// Whether EDNS Client Subnet options (RFC 7871) pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecs {
    /// The options pass, and none is added.
    Pass,
    /// The options are removed both ways, and upstreams are told to keep the client's address to themselves.
    Strip,
}

/// An address family, as EDNS Client Subnet counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4 = 1,
    /// IPv6.
    Ipv6 = 2,
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

/// Appends `response` as the client of `query` gets it, with the client's message ID and its octets of the
/// question: some clients vary the case of letters to tell forged answers, and some servers write the
/// question in small letters. Names that point into the question are then spelled like it.
///
/// The response has an OPT record if the client sent one: the upstream's without the options of the
/// upstream's hop, or a new one where that fits. A response larger than the client takes is cut, with TC set.
/// A client with EDNS then gets the question and the OPT record, without its options if they do not fit. A
/// client without EDNS gets as many whole answer records as fit and nothing behind them, as some stubs have no
/// TCP and use the records they get. A signed response is cut to its question, as it cannot be signed again
/// (RFC 8945 section 5.3). Octets behind the last record are left out, unless query or response is signed. So are
/// the records that the client is not to get.
pub fn append_response(
    out: &mut Vec<u8>,
    response: &[u8],
    info: &ResponseInfo,
    query: &[u8],
    parsed: &ParsedQuery,
    edit: ResponseEdit,
) -> Result<(), RcodeNeedsOpt> {
    let mut draft = Draft::new(out, edit.limit);
    let kept = match info.stripped {
        Stripped::Beside { end, with_authority } => Some((end, with_authority)),
        Stripped::Nothing | Stripped::Everything => None,
    };
    if parsed.signature.is_some() || info.signature.is_some() && kept.is_none() {
        if response.len() > edit.limit {
            message::append_cut(draft.out, response, info, 0);
        } else {
            draft.out.extend_from_slice(response);
            if info.signature.is_some() {
                // The signature covers the question as the upstream spelled it.
                draft.set_id(parsed.id);
                return Ok(());
            }
        }
        draft.address_to(query, parsed);
        return Ok(());
    }
    let client_has_opt = parsed.opt.is_some();
    if needs_opt(info, parsed) {
        return Err(RcodeNeedsOpt);
    }
    let opt = info.opt.as_ref();
    let message = response.get(..info.end).unwrap_or(response);
    let len = || message.len().saturating_sub(opt.map_or(0, |opt| opt.len));
    let len_min = kept.map_or_else(len, |(end, _)| end);
    // An OPT record that the upstream did not send is not worth an answer.
    let must_have_opt = client_has_opt && opt.is_some();
    if len_min + if must_have_opt { OPT_LEN_MIN } else { 0 } <= edit.limit {
        match kept {
            Some((end, with_authority)) => draft.copy_start(message, end, with_authority),
            None => draft.copy_without_opt(message, opt),
        }
        if client_has_opt && draft.room() >= OPT_LEN_MIN {
            draft.append_response_opt(response, opt, parsed, edit);
        }
        if !draft.is_over() {
            draft.address_to(query, parsed);
            return Ok(());
        }
        draft.out.truncate(draft.start);
        draft.left_out = false;
    }
    let answers_limit = if client_has_opt { 0 } else { edit.limit };
    message::append_cut(draft.out, response, info, answers_limit);
    if client_has_opt {
        draft.append_response_opt(response, opt, parsed, edit);
        if draft.is_over() {
            draft.drop_options();
        }
    }
    draft.address_to(query, parsed);
    Ok(())
}

/// Whether the RCODE has upper bits, which the client of `query` does not look for.
pub fn needs_opt(info: &ResponseInfo, query: &ParsedQuery) -> bool {
    query.signature.is_none()
        && query.opt.is_none()
        && info.opt.is_some_and(|opt| opt.extended_rcode != 0)
}

/// Whether the response is signed although `query` is not. No server may sign one but the answer to TKEY
/// (RFC 8945 section 5.3), and a signed response cannot be edited for the client's hop.
pub fn has_unasked_signature(info: &ResponseInfo, query: &ParsedQuery) -> bool {
    info.signature.is_some() && query.signature.is_none() && query.qtype != Rtype::TKEY
}

/// The facts about a client that [`append_response`] has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseEdit {
    /// The most octets that the client takes, 512 or more.
    pub limit: usize,
    /// The size that our OPT record advertises.
    pub udp_size: u16,
    /// How long we leave the client's connection open when it is idle, in units of 100 ms: for a client
    /// that has EDNS and asked for it over TCP (RFC 7828 section 3.3).
    pub keepalive: Option<u16>,
    /// Whether the upstream's client subnet passes.
    pub ecs: Ecs,
}

/// The RCODE has upper bits, which are in the OPT record, and the client would not look there. It gets
/// SERVFAIL instead, made here; without them, BADVERS would read as NOERROR. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RcodeNeedsOpt;

/// A message that is being appended.
struct Draft<'a> {
    out: &'a mut Vec<u8>,
    /// Where it starts.
    start: usize,
    /// Where the RDATA of the OPT record starts that is being written.
    rdata_start: usize,
    /// The most octets it may have.
    limit: usize,
    /// An option would have made it longer.
    left_out: bool,
}

impl<'a> Draft<'a> {
    fn new(out: &'a mut Vec<u8>, limit: usize) -> Self {
        let start = out.len();
        Self { out, start, rdata_start: start, limit, left_out: false }
    }

    fn len(&self) -> usize {
        self.out.len() - self.start
    }

    fn room(&self) -> usize {
        self.limit.saturating_sub(self.len())
    }

    /// The message cannot be sent whole.
    fn is_over(&self) -> bool {
        self.left_out || self.len() > self.limit
    }

    /// Appends `message`, which has nothing behind its last record, without its OPT record.
    fn copy_without_opt(&mut self, message: &[u8], opt: Option<&Opt>) {
        let Some(opt) = opt else {
            self.out.extend_from_slice(message);
            return;
        };
        let gap = opt.range();
        self.out.extend_from_slice(message.get(..gap.start).unwrap_or(message));
        if gap.end < message.len() {
            compression::append_moved(self.out, message, &gap);
        }
        self.add_to_arcount(-1);
    }

    /// Appends `message` up to the end of its answers, or of its authority section, and says that there is nothing
    /// behind.
    #[cold]
    fn copy_start(&mut self, message: &[u8], end: usize, with_authority: bool) {
        self.out.extend_from_slice(message.get(..end).unwrap_or(message));
        let first = if with_authority { ARCOUNT } else { NSCOUNT };
        let counts = self.out.get_mut(self.start + first..self.start + super::HEADER_LEN);
        counts.unwrap_or_default().fill(0);
    }

    /// Appends what an OPT record has in front of the length of its data.
    fn start_opt(&mut self, fixed: [u8; OPT_FIXED_LEN]) {
        self.out.extend_from_slice(&fixed);
        self.out.extend_from_slice(&[0, 0]);
        self.rdata_start = self.out.len();
        self.add_to_arcount(1);
    }

    /// Appends the options of `opt` that do not belong to one hop.
    fn copy_options(&mut self, message: &[u8], opt: Option<&Opt>, ecs: Ecs) {
        let Some(opt) = opt else {
            return;
        };
        for (code, data) in opt.options(message) {
            let is_kept = is_kept(code, ecs);
            if is_kept && self.room() >= OPTION_HEADER_LEN + data.len() {
                self.append_option(code, data);
            } else if is_kept {
                // Options of 64 KiB are not copied to a datagram first.
                self.left_out = true;
            }
        }
    }

    /// Appends an option if it fits.
    fn push_option(&mut self, code: u16, data: &[u8]) {
        if self.room() >= OPTION_HEADER_LEN + data.len() {
            self.append_option(code, data);
        }
    }

    fn append_option(&mut self, code: u16, data: &[u8]) {
        let ([c0, c1], [l0, l1]) = (code.to_be_bytes(), (data.len() as u16).to_be_bytes());
        self.out.extend_from_slice(&[c0, c1, l0, l1]);
        self.out.extend_from_slice(data);
    }

    /// Appends a padding option that makes the message a multiple of the block, where it fits. It says how
    /// many hops over TLS the query has behind it, if it has any.
    fn push_padding(&mut self, hops: u8) {
        let len = self.len() + OPTION_HEADER_LEN;
        let least = if hops > 0 { len + HOPS_LEN } else { len };
        let padded = least.next_multiple_of(PADDING_BLOCK).min(MESSAGE_LEN_MAX);
        let Some(padding) = padded.checked_sub(len) else {
            return;
        };
        let ([c0, c1], [l0, l1]) = (OPTION_PADDING.to_be_bytes(), (padding as u16).to_be_bytes());
        self.out.extend_from_slice(&[c0, c1, l0, l1]);
        let start = self.out.len();
        self.out.resize(start + padding, 0);
        if hops > 0
            && let Some(count) = self.out.get_mut(start..start + HOPS_LEN)
        {
            count[..MARK.len()].copy_from_slice(MARK);
            count[MARK.len()] = hops;
        }
    }

    fn finish_opt(&mut self) {
        let len = (self.out.len() - self.rdata_start) as u16;
        self.out[self.rdata_start - 2..self.rdata_start].copy_from_slice(&len.to_be_bytes());
    }

    fn drop_options(&mut self) {
        self.out.truncate(self.rdata_start);
        self.finish_opt();
    }

    /// Appends the OPT record of a response, which is `opt` of `response` if the upstream sent one. A new OPT
    /// record copies DO from the query (RFC 3225 section 3).
    fn append_response_opt(
        &mut self,
        response: &[u8],
        opt: Option<&Opt>,
        query: &ParsedQuery,
        edit: ResponseEdit,
    ) {
        let mut fixed = ADDED_OPT;
        if let Some(&[_, _, _, _, _, extended_rcode, _, flags_high, flags_low]) =
            opt.and_then(|opt| response.get(opt.offset..)?.first_chunk())
        {
            fixed[5..].copy_from_slice(&[extended_rcode, 0, flags_high, flags_low]);
        } else if query.opt.is_some_and(|opt| opt.dnssec_ok) {
            fixed[7] = DNSSEC_OK;
        }
        fixed[3..5].copy_from_slice(&edit.udp_size.to_be_bytes());
        self.start_opt(fixed);
        self.copy_options(response, opt, edit.ecs);
        if let Some(timeout) = edit.keepalive {
            self.push_option(OPTION_KEEPALIVE, &timeout.to_be_bytes());
        }
        self.finish_opt();
    }

    /// Writes the message ID of `query` and its octets of the question, over as many octets.
    fn address_to(&mut self, query: &[u8], parsed: &ParsedQuery) {
        let message = &mut self.out[self.start..];
        message::set_id(message, parsed.id);
        let question = message::HEADER_LEN..parsed.question_end;
        if let Some(theirs) = query.get(question.clone())
            && let Some(ours) = message.get_mut(question)
        {
            ours.copy_from_slice(theirs);
        }
    }

    fn set_id(&mut self, id: u16) {
        message::set_id(&mut self.out[self.start..], id);
    }

    fn add_to_arcount(&mut self, difference: i16) {
        record::add_to_arcount(&mut self.out[self.start..], difference);
    }
}

/// Whether an option passes from one hop to the other.
fn is_kept(code: u16, ecs: Ecs) -> bool {
    match code {
        OPTION_COOKIE | OPTION_KEEPALIVE | OPTION_PADDING => false,
        OPTION_ECS => ecs == Ecs::Pass,
        _ => true,
    }
}

/// Whether a query's OPT record, without the options that do not pass, says no more than that its client has
/// EDNS: a size, and perhaps DO.
pub(crate) fn is_bare(query: &[u8], opt: &Opt, ecs: Ecs) -> bool {
    let fixed: Option<&[u8; OPT_FIXED_LEN]> = query.get(opt.offset..).and_then(<[u8]>::first_chunk);
    matches!(fixed, Some([_, _, _, _, _, 0, 0, 0 | 0x80, 0]))
        && opt.options(query).all(|(code, _)| !is_kept(code, ecs))
}

/// Octets of an OPT record in front of the length of its data.
const OPT_FIXED_LEN: usize = OPT_LEN_MIN - 2;

/// The start of an OPT record that the client did not send. It says that 1,232 octets are taken over UDP,
/// which is not used towards upstreams, and it has no flags.
const ADDED_OPT: [u8; OPT_FIXED_LEN] = [0, 0, TYPE_OPT as u8, 0x04, 0xd0, 0, 0, 0, 0];

/// Where the header counts the records of the last two sections.
const NSCOUNT: usize = 8;
const ARCOUNT: usize = 10;

/// Octets of the longest message, whose length takes two octets (RFC 1035 section 4.2.2).
const MESSAGE_LEN_MAX: usize = 65_535;

/// The length of a query is a multiple of this (RFC 8467 section 4.1).
const PADDING_BLOCK: usize = 128;

/// Octets of padding that say how many hops a query has behind it.
const HOPS_LEN: usize = MARK.len() + 1;

/// Octets that a query may grow by: OPT record, subnet, keepalive and padding.
pub(crate) const QUERY_GROWTH_MAX: usize =
    OPT_LEN_MIN + 3 * OPTION_HEADER_LEN + 4 + (PADDING_BLOCK - 1) + HOPS_LEN;

/// Octets that a response may grow by: OPT record and keepalive.
pub(crate) const RESPONSE_GROWTH_MAX: usize = OPT_LEN_MIN + OPTION_HEADER_LEN + 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::message::{HEADER_LEN, ResponseCheck, check_response, parse_query};

    #[test]
    fn a_plain_query_gets_an_opt_record() {
        let out = queried(&query(b"", 0), FIRST);
        let (start, padding) = out.split_at(out.len() - 72);
        let mut expected = query(b"\0\0\x29\x04\xd0\0\0\0\0\0\x58", 1);
        expected[..2].copy_from_slice(&[0xab, 0xcd]);
        expected.extend(b"\0\x08\0\x04\0\x01\0\0\0\x0b\0\0\0\x0c\0\x48");
        assert_eq!(start, expected);
        assert_eq!(padding, [0; 72]);
        assert_eq!(out.len(), 128);
    }

    #[test]
    fn a_querys_opt_record_is_kept_but_for_this_hop() {
        let options =
            b"\0\x0c\0\x02\0\0\0\x08\0\x04\0\x02\0\0\xfd\xe9\0\x01x\0\x0a\0\x08cookies!\0\x0b\0\0";
        let without_opt = query(b"", 0);
        let query = query(&[b"\0\0\x29\x10\0\0\0\xc0\x01\0\x23", &options[..]].concat(), 1);
        let later = QueryEdit { keepalive: false, family: Family::Ipv6, ..FIRST };
        let kept = b"\0\0\x29\x10\0\0\0\xc0\x01\0";
        let cases = [
            (FIRST, &b"\xfd\xe9\0\x01x\0\x08\0\x04\0\x01\0\0\0\x0b\0\0\0\x0c"[..]),
            (later, b"\xfd\xe9\0\x01x\0\x08\0\x04\0\x02\0\0\0\x0c"),
            (QueryEdit { ecs: Ecs::Pass, ..later }, b"\0\x08\0\x04\0\x02\0\0\xfd\xe9\0\x01x\0\x0c"),
        ];
        for (edit, expected) in cases {
            let out = queried(&query, edit);
            assert_eq!(out.len(), 128);
            assert_eq!(out[QUESTION_END..][..10], *kept);
            assert_eq!(out[QUESTION_END + 11..][..expected.len()], *expected, "{edit:?}");
        }
        let absent = queried(&query, QueryEdit { edns: Edns::Absent, ..FIRST });
        assert_eq!(absent[2..], without_opt[2..]);
    }

    #[test]
    fn what_comes_padded_is_sent_with_a_count() {
        let with = |padding: &[u8]| {
            let rdlen = 4 + padding.len() as u8;
            let opt = [&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, rdlen, 0, 12, 0, rdlen - 4], padding];
            query(&opt.concat(), 1)
        };
        for (came, sent) in [
            (&b""[..], &b"dotproxy\x01"[..]),
            (b"\0\0\0", b"dotproxy\x01"),
            (b"dotproxy\x02\0", b"dotproxy\x03"),
            (b"dotproxy\xff", b"dotproxy\xff"),
        ] {
            let out = queried(&with(came), FIRST);
            let (start, padding) = out.split_at(out.len() - 72);
            assert_eq!((out.len(), &start[start.len() - 4..]), (128, &b"\0\x0c\0\x48"[..]));
            assert_eq!(padding, [sent, &[0; 63]].concat(), "{came:x?}");
        }
        // Without room for the count there is another block.
        let long = |len: u8| {
            let local = [&[0xfd, 0xe9, 0, len][..], &vec![1; len.into()]].concat();
            let opt = [&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 8 + len], &local[..], b"\0\x0c\0\0"];
            queried(&query(&opt.concat(), 1), FIRST)
        };
        assert_eq!([59, 60, 68, 69].map(|len| long(len).len()), [128, 256, 256, 256]);
        assert_eq!(long(59)[119..], *b"dotproxy\x01");
        assert_eq!(long(60)[120..130], *b"dotproxy\x01\0");
    }

    #[test]
    fn a_query_without_anything_of_ours() {
        let without_opt = query(b"", 0);
        let edit = QueryEdit { edns: Edns::Clients, ..FIRST };
        assert_eq!(queried(&without_opt, edit)[2..], without_opt[2..]);
        let fixed = b"\0\0\x29\x10\0\0\0\x80\0\0";
        let ecs = &b"\0\x08\0\x04\0\x02\0\0"[..];
        let hop = b"\0\x0c\0\x02\0\0\0\x0a\0\x08cookies!\0\x0b\0\0";
        let local = &b"\xfd\xe9\0\x01x"[..];
        let with =
            |options: &[u8]| query(&[&fixed[..], &[options.len() as u8], options].concat(), 1);
        for (options, ecs_choice, passed, bare) in [
            (&[][..], Ecs::Strip, &[][..], true),
            (&[ecs, hop], Ecs::Strip, &[], true),
            (&[ecs, hop], Ecs::Pass, ecs, false),
            (&[ecs, hop, local], Ecs::Strip, local, false),
        ] {
            let query = with(&options.concat());
            let sent = queried(&query, QueryEdit { ecs: ecs_choice, ..edit });
            assert_eq!(sent[2..], with(passed)[2..], "{options:x?}");
            let opt = parse_query(&query, false).unwrap().opt.unwrap();
            assert_eq!(is_bare(&query, &opt, ecs_choice), bare, "{options:x?}");
        }
        let flags = query(b"\0\0\x29\x10\0\0\0\x40\0\0\0", 1);
        let opt = parse_query(&flags, false).unwrap().opt.unwrap();
        assert!(!is_bare(&flags, &opt, Ecs::Strip), "a flag that nobody knows");
    }

    /// Near the greatest length, padding gives way first.
    #[test]
    fn padding_of_large_queries() {
        // The query without padding has `len` octets with an OPT record of ours.
        let of_len = |len: usize| {
            let rdata = len - QUESTION_END - OPT_LEN_MIN - 11;
            let record = [&[0, 0, 1, 0, 1, 0, 0, 0, 0], &(rdata as u16).to_be_bytes()[..]].concat();
            let mut query = query(&record, 1);
            query.resize(query.len() + rdata, 1);
            query
        };
        let edit = QueryEdit { keepalive: false, ecs: Ecs::Pass, ..FIRST };
        let cases = [
            (60_000, 60_032),
            (65_404, 65_408),
            (65_405, 65_535),
            (65_531, 65_535),
            // No room for an option, then none for an OPT record.
            (65_532, 65_532),
            (65_535, 65_535),
            (65_536, 65_525),
            (65_546, 65_535),
        ];
        for (len, expected) in cases {
            let out = queried(&of_len(len), edit);
            assert_eq!(out.len(), expected, "{len}");
            let parsed = parse_query(&out, false).unwrap();
            assert_eq!(parsed.opt.is_some(), len <= 65_535);
            let padding = parsed.opt.map(|opt| opt.options(&out).map(|(code, _)| code).collect());
            let expected = (len <= 65_535).then_some(vec![OPTION_PADDING; (len <= 65_531).into()]);
            assert_eq!(padding, expected, "{len}");
        }
        // The client's address goes first of all untold, then keepalive is asked for, then padding.
        for (room, codes) in [
            (7, &[OPTION_KEEPALIVE][..]),
            (11, &[OPTION_ECS]),
            (12, &[OPTION_ECS, OPTION_KEEPALIVE]),
        ] {
            let out = queried(&of_len(65_535 - room), FIRST);
            let opt = parse_query(&out, false).unwrap().opt.unwrap();
            let found: Vec<_> = opt.options(&out).map(|(code, _)| code).collect();
            assert_eq!(found, codes, "{room}");
        }
    }

    #[test]
    fn responses_to_clients_with_and_without_edns() {
        const ANSWER: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01";
        let upstreams = b"\0\0\x29\xff\xff\0\x07\x80\x02\0\x12\0\x0c\0\x03\0\0\0\xfd\xe9\0\x01x\0\x0b\0\x02\x01\x2c";
        let with_opt = response(&[ANSWER, upstreams].concat(), [1, 1]);
        let without = response(ANSWER, [1, 0]);
        let edns = parse_query(&query(b"\0\0\x29\x02\0\0\0\0\0\0\0", 1), false).unwrap();
        let plain = parse_query(&query(b"", 0), false).unwrap();
        let over_tcp = ResponseEdit { keepalive: Some(100), limit: 65_535, ..BY_DATAGRAM };
        let ours = b"\0\0\x29\x10\0\0\0\x80\x02\0\x05\xfd\xe9\0\x01x";
        let cases: [(&[u8], _, _, Vec<u8>); 6] = [
            (&with_opt, plain, BY_DATAGRAM, without.clone()),
            (&without, plain, BY_DATAGRAM, without.clone()),
            (&with_opt, edns, BY_DATAGRAM, response(&[ANSWER, ours].concat(), [1, 1])),
            (
                &with_opt,
                edns,
                over_tcp,
                response(
                    &[ANSWER, b"\0\0\x29\x10\0\0\0\x80\x02\0\x0b\xfd\xe9\0\x01x\0\x0b\0\x02\0\x64"]
                        .concat(),
                    [1, 1],
                ),
            ),
            (
                &without,
                edns,
                BY_DATAGRAM,
                response(&[ANSWER, b"\0\0\x29\x10\0\0\0\0\0\0\0"].concat(), [1, 1]),
            ),
            (
                &without,
                edns,
                over_tcp,
                response(
                    &[ANSWER, b"\0\0\x29\x10\0\0\0\0\0\0\x06\0\x0b\0\x02\0\x64"].concat(),
                    [1, 1],
                ),
            ),
        ];
        for (response, query, edit, expected) in cases {
            assert_eq!(responded(response, &query, edit), Ok(expected), "{edit:?}");
        }
        // One that is made here copies DO.
        let dnssec = parse_query(&query(b"\0\0\x29\x02\0\0\0\x80\0\0\0", 1), false).unwrap();
        let made = response(&[ANSWER, b"\0\0\x29\x10\0\0\0\x80\0\0\0"].concat(), [1, 1]);
        assert_eq!(responded(&without, &dnssec, BY_DATAGRAM), Ok(made));
        // One that the upstream did not send is not worth truncating the answer for.
        let limit = without.len() + OPT_LEN_MIN - 1;
        let edit = ResponseEdit { limit, ..BY_DATAGRAM };
        assert_eq!(responded(&without, &edns, edit), Ok(without.clone()));
        // An OPT record that the upstream sent is worth it.
        let cut = responded(&with_opt, &edns, edit).unwrap();
        assert_eq!((cut[2] & 0x02, cut.len()), (0x02, QUESTION_END + ours.len()));
    }

    /// As those beside the answers that have private addresses.
    #[test]
    fn answers_without_what_is_beside_them() {
        const ANSWER: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01";
        const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x06\0\x0f\0\x02\0\x03";
        const TSIG: &[u8] = b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x01x";
        let mut response = response(&[ANSWER, ANSWER, OPT, ANSWER, TSIG].concat(), [1, 3]);
        (response[2], response[9]) = (0x87, 1);
        let plain = parse_query(&query(b"", 0), false).unwrap();
        let edns = parse_query(&query(b"\0\0\x29\x02\0\0\0\0\0\0\0", 1), false).unwrap();
        let ResponseCheck::Answer(mut info) = check_response(&response, &response, QUESTION_END)
        else {
            panic!()
        };
        let end = QUESTION_END + ANSWER.len();
        info.stripped = Stripped::Beside { end, with_authority: false };
        let mut start = response[..end].to_vec();
        start[8..12].fill(0);
        let respond = |parsed: &ParsedQuery, limit| {
            let mut out = b"before".to_vec();
            let edit = ResponseEdit { limit, ..BY_DATAGRAM };
            append_response(&mut out, &response, &info, &response, parsed, edit).unwrap();
            out.split_off(6)
        };
        assert_eq!(respond(&plain, 512), start);
        assert_eq!(respond(&plain, start.len()), start);
        let cut = respond(&plain, start.len() - 1);
        assert_eq!((cut[2], cut[7], cut.len()), (0x87 | 2, 0, QUESTION_END));
        let with_opt = respond(&edns, 512);
        start[11] = 1;
        let opt = b"\0\0\x29\x10\0\0\0\x80\0\0\x06\0\x0f\0\x02\0\x03";
        assert_eq!(with_opt, [&start[..], opt].concat());
        // The authority section is left, if that is not what it is about.
        info.stripped = Stripped::Beside { end: end + ANSWER.len(), with_authority: true };
        let mut start = response[..end + ANSWER.len()].to_vec();
        start[10..12].copy_from_slice(&[0, 1]);
        let mut out = Vec::new();
        append_response(&mut out, &response, &info, &response, &edns, BY_DATAGRAM).unwrap();
        assert_eq!(out, [&start[..], opt].concat());
    }

    #[test]
    fn upper_bits_of_the_rcode_are_not_lost() {
        let badvers = response(b"\0\0\x29\x04\xd0\x01\0\0\0\0\0", [0, 1]);
        let edns = parse_query(&query(b"\0\0\x29\x02\0\0\0\0\0\0\0", 1), false).unwrap();
        let plain = parse_query(&query(b"", 0), false).unwrap();
        assert_eq!(responded(&badvers, &plain, BY_DATAGRAM), Err(RcodeNeedsOpt));
        let passed = responded(&badvers, &edns, BY_DATAGRAM).unwrap();
        assert_eq!(passed[QUESTION_END..], *b"\0\0\x29\x10\0\x01\0\0\0\0\0");
    }

    /// A signed response is left as it is, since nobody but the signer may change it.
    #[test]
    fn the_question_comes_back_as_the_client_spelled_it() {
        const ANSWER: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01";
        const TSIG: &[u8] = b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x01x";
        let plain = parse_query(&query(b"", 0), false).unwrap();
        let edns = parse_query(&query(b"\0\0\x29\x02\0\0\0\0\0\0\0", 1), false).unwrap();
        let signed = parse_query(&query(TSIG, 1), false).unwrap();
        let mut asked = query(b"", 0);
        asked[HEADER_LEN..QUESTION_END - 4].copy_from_slice(b"\x07eXaMpLe\x03cOm\0");
        let answer = response(ANSWER, [1, 0]);
        let signed_answer = response(&[ANSWER, TSIG].concat(), [1, 1]);
        let long = response(&ANSWER.repeat(40), [40, 0]);
        let signed_long = response(&[&ANSWER.repeat(40)[..], TSIG].concat(), [40, 1]);
        for (what, response, parsed, is_restored) in [
            ("plain", &answer, plain, true),
            ("with EDNS", &answer, edns, true),
            ("cut", &long, plain, true),
            ("cut, with EDNS", &long, edns, true),
            ("signed", &signed_answer, signed, false),
            ("signed, cut", &signed_long, signed, true),
            ("not signed, although the query is", &answer, signed, true),
        ] {
            let ResponseCheck::Answer(info) = check_response(response, &asked, QUESTION_END) else {
                panic!("{what}")
            };
            let mut out = Vec::new();
            append_response(&mut out, response, &info, &asked, &parsed, BY_DATAGRAM).unwrap();
            let expected = if is_restored { &asked } else { response };
            assert_eq!(out[HEADER_LEN..QUESTION_END], expected[HEADER_LEN..QUESTION_END], "{what}");
            assert!(is_restored || out[2..] == response[2..], "{what}: changed");
            assert_eq!(out[..2], [0x12, 0x34], "{what}");
        }
    }

    /// RFC 8945 section 5.3.
    #[test]
    fn a_signature_that_nobody_asked_for() {
        const TSIG: &[u8] = b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x01x";
        const SIG0: &[u8] = b"\0\0\x18\0\xff\0\0\0\0\0\x03\0\0\x05";
        let tkey = |query: &[u8]| {
            let mut query = query.to_vec();
            query[QUESTION_END - 3] = 249;
            query
        };
        let cases = [
            (query(b"", 0), response(b"", [0, 0]), false),
            (query(b"", 0), response(TSIG, [0, 1]), true),
            (query(b"", 0), response(SIG0, [0, 1]), true),
            (query(TSIG, 1), response(TSIG, [0, 1]), false),
            (query(SIG0, 1), response(SIG0, [0, 1]), false),
            // A client that signs can tell by itself.
            (query(TSIG, 1), response(b"", [0, 0]), false),
            (tkey(&query(b"", 0)), tkey(&response(TSIG, [0, 1])), false),
        ];
        for (query, response, expected) in cases {
            let parsed = parse_query(&query, false).unwrap();
            let ResponseCheck::Answer(info) = check_response(&response, &query, QUESTION_END)
            else {
                panic!("{response:x?}")
            };
            assert_eq!(has_unasked_signature(&info, &parsed), expected, "{response:x?}");
            if !expected && info.signature.is_some() {
                let mut out = Vec::new();
                append_response(&mut out, &response, &info, &query, &parsed, BY_DATAGRAM).unwrap();
                assert_eq!(out, response, "nothing but the ID may change");
            }
        }
    }

    #[test]
    fn families() {
        for (address, expected) in [
            ("192.0.2.1", Family::Ipv4),
            ("2001:db8::1", Family::Ipv6),
            ("::ffff:192.0.2.1", Family::Ipv4),
        ] {
            assert_eq!(Family::from(address.parse::<IpAddr>().unwrap()), expected, "{address}");
        }
    }

    fn queried(query: &[u8], edit: QueryEdit) -> Vec<u8> {
        let mut out = b"before".to_vec();
        append_query(&mut out, query, &parse_query(query, false).unwrap(), 0xabcd, edit);
        out.split_off(6)
    }

    fn responded(
        response: &[u8],
        query: &ParsedQuery,
        edit: ResponseEdit,
    ) -> Result<Vec<u8>, RcodeNeedsOpt> {
        let mut ours = response.to_vec();
        message::set_id(&mut ours, 0xabcd);
        let ResponseCheck::Answer(info) = check_response(&ours, &ours, query.question_end) else {
            panic!("{response:x?}")
        };
        let mut out = b"before".to_vec();
        let result = append_response(&mut out, &ours, &info, response, query, edit);
        result.map(|()| out.split_off(6))
    }

    const FIRST: QueryEdit =
        QueryEdit { edns: Edns::Ours, keepalive: true, ecs: Ecs::Strip, family: Family::Ipv4 };

    const BY_DATAGRAM: ResponseEdit =
        ResponseEdit { limit: 512, udp_size: 4_096, keepalive: None, ecs: Ecs::Strip };

    const QUESTION_END: usize = 29;

    /// A query for `example.com. IN A` with `records` in its additional section.
    fn query(records: &[u8], arcount: u8) -> Vec<u8> {
        let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, arcount];
        [&header, &b"\x07example\x03com\0\0\x01\0\x01"[..], records].concat()
    }

    /// A response to it, with so many answers and additional records.
    fn response(records: &[u8], [ancount, arcount]: [u8; 2]) -> Vec<u8> {
        let mut response = query(records, arcount);
        response[2..4].copy_from_slice(&[0x81, 0x80]);
        response[7] = ancount;
        response
    }
}
