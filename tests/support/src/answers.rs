//! What the test server says when nothing else was asked of it: an answer to any name.

use super::message::{self, A, AAAA, NOERROR, NXDOMAIN, Opt, QR, RA, RD, SOA, TXT, record};

/// An answer to any query: A, AAAA and TXT have one record, `nx.` names do not exist, a TXT query for
/// `size-N.` gets an answer of N octets and an OPT record, anything else has no data. `None` for what is no query.
pub fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let (name, qtype, _) = message::question(query)?;
    let first = name.split('.').next().unwrap_or_default();
    if first == "nx" {
        return Some(assemble(query, NXDOMAIN, &[], &[soa()]));
    }
    Some(match qtype {
        A => assemble(query, NOERROR, &[record(A, &[192, 0, 2, 1])], &[]),
        AAAA => {
            let address = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
            assemble(query, NOERROR, &[record(AAAA, &address)], &[])
        }
        TXT => match first.strip_prefix("size-").and_then(|size| size.parse().ok()) {
            // With the OPT record, no more than a message may have.
            Some(octets) => sized(query, usize::min(octets, 65_524)),
            None => assemble(query, NOERROR, &[record(TXT, b"\x0ahello, dot")], &[]),
        },
        _ => assemble(query, NOERROR, &[], &[soa()]),
    })
}

/// An answer of exactly this many octets, not counting the OPT record, made of TXT records; the least is
/// that of an empty answer, and the 12 octets above that cannot be had.
pub fn sized(query: &[u8], octets: usize) -> Vec<u8> {
    /// Owner pointer, type, class, TTL and length, then the length of an empty string.
    const SMALLEST: usize = 13;
    const USUAL: usize = 250;

    let empty = message::question_end(query).expect("a query with one question");
    let mut left = octets.saturating_sub(empty);
    let mut answers = Vec::new();
    while left >= SMALLEST {
        // What is left must hold a record.
        let take = if left >= USUAL + SMALLEST { USUAL } else { left };
        let string = take - SMALLEST;
        let mut data = vec![string as u8];
        data.resize(1 + string, b'x');
        // No two are the same record: of such, one may be left out (RFC 2181 section 5).
        let number = format!("{}.", answers.len());
        let digits = number.len().min(string);
        data[1..=digits].copy_from_slice(&number.as_bytes()[..digits]);
        answers.push(record(TXT, &data));
        left -= take;
    }
    assemble(query, NOERROR, &answers, &[])
}

/// The same from a proxy whose own UDP size is this.
pub fn at_client_told(mut response: Vec<u8>, udp_size: u16) -> Vec<u8> {
    if response[10..12] != [0, 0] {
        let opt = response.len() - OPT_LEN;
        response[opt + 3..opt + 5].copy_from_slice(&udp_size.to_be_bytes());
    }
    response
}

/// Octets of an OPT record without options.
pub const OPT_LEN: usize = 11;

/// A response without records, only header, question and, if asked with one, OPT.
pub fn bare(query: &[u8], rcode: u16) -> Vec<u8> {
    assemble(query, rcode, &[], &[])
}

/// An error from a server that does not like what it was asked with, with an OPT record for one or not.
pub fn objection(query: &[u8], rcode: u16, with_opt: bool) -> Vec<u8> {
    let mut error = bare(query, rcode);
    if !with_opt && error[10..12] != [0, 0] {
        error.truncate(error.len() - OPT_LEN);
        error[10..12].fill(0);
    }
    error
}

/// Whether a query, which has no other record than OPT, has an option of this code; or, for 0, an OPT
/// record.
pub fn has_option(query: &[u8], code: u16) -> bool {
    let end = message::question_end(query).expect("a query with one question");
    let Some(mut options) = query.get(end + OPT_LEN..) else {
        return false;
    };
    while let Some((&[c0, c1, l0, l1], rest)) = options.split_first_chunk() {
        if u16::from_be_bytes([c0, c1]) == code {
            return true;
        }
        options = rest.get(usize::from(u16::from_be_bytes([l0, l1]))..).unwrap_or_default();
    }
    code == 0
}

/// A response with these records. RD is copied, RA set, and OPT there when the query had a record in
/// its additional section.
pub fn assemble(query: &[u8], rcode: u16, answers: &[Vec<u8>], authorities: &[Vec<u8>]) -> Vec<u8> {
    let end = message::question_end(query).expect("a query with one question");
    let with_opt = query[10..12] != [0, 0];
    let flags = QR | RA | (message::flags(query) & RD) | rcode;
    let counts = [1, answers.len() as u16, authorities.len() as u16, u16::from(with_opt)];
    let mut response = message::header(message::id(query), flags, counts);
    response.extend(&query[12..end]);
    response.extend(answers.concat());
    response.extend(authorities.concat());
    if with_opt {
        Opt::new(1232).append(&mut response);
    }
    response
}

/// An answer with one more option in its OPT record; one without OPT stays as it is.
pub fn with_option(mut answer: Vec<u8>, code: u16, data: &[u8]) -> Vec<u8> {
    if answer[10..12] == [0, 0] {
        return answer;
    }
    // OPT is the last record, and has no option yet.
    let length = answer.len() - 2;
    answer[length..].copy_from_slice(&(4 + data.len() as u16).to_be_bytes());
    answer.extend(code.to_be_bytes());
    answer.extend((data.len() as u16).to_be_bytes());
    answer.extend(data);
    answer
}

fn soa() -> Vec<u8> {
    let mut data = [0xc0, 12, 0xc0, 12].to_vec();
    for field in [1_u32, 3600, 1200, 604_800, 300] {
        data.extend(field.to_be_bytes());
    }
    record(SOA, &data)
}
