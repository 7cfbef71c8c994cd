//! Queries of which each has a name of its own, and what is answered.

use crate::message::{A, HEADER_LEN, Query, framed, question_end};

/// Makes queries for type A.
pub struct Queries {
    /// A query behind its length, with the ID 0 and the number 0.
    template: Vec<u8>,
}

impl Queries {
    /// Names of one run have `tag` in them, by which they are new to a cache that saw other runs.
    pub fn new(tag: u32, edns: bool) -> Self {
        let query = Query::new(&format!("{}.{tag:08x}.example.com", "0".repeat(DIGITS)), A).id(0);
        let query = if edns { query.opt(1232) } else { query };
        Self { template: framed(&query.bytes()) }
    }

    /// A query of which ID and number are to be [set](Self::set).
    pub fn message(&self) -> &[u8] {
        &self.template[2..]
    }

    /// The same behind its length.
    pub fn frame(&self) -> &[u8] {
        &self.template
    }

    /// Makes a message from [`Self::message`] the query of this number.
    pub fn set(message: &mut [u8], id: u16, number: u64) {
        message[..2].copy_from_slice(&id.to_be_bytes());
        message[DIGITS_AT..DIGITS_AT + DIGITS].copy_from_slice(&digits(number));
    }
}

/// Whether this is an answer, with a record in it, to the query of this number.
pub fn judge(response: &[u8], number: u64) -> Verdict {
    if response.get(DIGITS_AT..DIGITS_AT + DIGITS) != Some(&digits(number)) || response[2] & QR == 0
    {
        return Verdict::Wrong;
    }
    if response[3] & RCODE == NOERROR && response[6..8] != [0, 0] {
        Verdict::Answered
    } else {
        Verdict::Failed
    }
}

/// What a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Answered,
    /// An error, or an answer without a record.
    Failed,
    /// Not the response to this query.
    Wrong,
}

/// Appends the answer to a query behind its length, as such: a record for type A and, if the query has
/// OPT, OPT without options. False if the query makes no sense.
pub fn answer(frame: &[u8], output: &mut Vec<u8>) -> bool {
    let Some(query) = frame.get(2..) else { return false };
    let Some(end) = question_end(query) else { return false };
    let is_address = query[end - 4..end] == [0, TYPE_A, 0, CLASS_IN];
    let edns = query[11] != 0;
    let len = end + if is_address { ADDRESS.len() } else { 0 } + if edns { OPT.len() } else { 0 };
    output.extend_from_slice(&(len as u16).to_be_bytes());
    output.extend_from_slice(&[query[0], query[1], QR | query[2] & RD, RA]);
    output.extend_from_slice(&[0, 1, 0, u8::from(is_address), 0, 0, 0, u8::from(edns)]);
    output.extend_from_slice(&query[HEADER_LEN..end]);
    if is_address {
        output.extend_from_slice(&ADDRESS);
    }
    if edns {
        output.extend_from_slice(&OPT);
    }
    true
}

/// In hexadecimal, the number of a query as it is in its name.
fn digits(number: u64) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    for (i, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * i)) as usize & 15];
    }
    digits
}

/// In the first label, behind its length.
const DIGITS_AT: usize = HEADER_LEN + 1;
const DIGITS: usize = 12;
const QR: u8 = 0x80;
const RD: u8 = 1;
const RA: u8 = 0x80;
const RCODE: u8 = 0x0f;
const NOERROR: u8 = 0;
const TYPE_A: u8 = 1;
const CLASS_IN: u8 = 1;
/// The name of the question, A, IN, for 300 s, 192.0.2.1.
const ADDRESS: [u8; 16] = [0xc0, 12, 0, TYPE_A, 0, CLASS_IN, 0, 0, 1, 44, 0, 4, 192, 0, 2, 1];
/// Payloads of 1,232 octets, version 0, no options.
const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_for_its_query_alone() {
        for edns in [false, true] {
            let queries = Queries::new(7, edns);
            let mut frame = queries.frame().to_vec();
            assert_eq!(&frame[2..], queries.message());
            Queries::set(&mut frame[2..], 0x1234, 0xabc);

            let mut output = Vec::new();
            assert!(answer(&frame, &mut output));

            let (len, response) = output.split_first_chunk().expect("a length");
            assert_eq!(usize::from(u16::from_be_bytes(*len)), response.len());
            assert_eq!(response[..2], [0x12, 0x34]);
            assert_eq!(judge(response, 0xabc), Verdict::Answered);
            assert_eq!(judge(response, 0xabd), Verdict::Wrong);
            assert_eq!(judge(&frame[2..], 0xabc), Verdict::Wrong, "a query");
            assert_eq!(response.ends_with(&OPT), edns);
            let mut servfail = response.to_vec();
            servfail[3] |= 2;
            assert_eq!(judge(&servfail, 0xabc), Verdict::Failed);
        }
    }

    #[test]
    fn what_is_no_query_is_not_answered() {
        let queries = Queries::new(7, false);
        for len in 0..queries.frame().len() {
            assert!(!answer(&queries.frame()[..len], &mut Vec::new()), "{len} octets");
        }
    }
}
