//! A message as its octets are, written apart from the parser of dot-proxy so that the two check each other.
//! What a DNS library would tidy up is what is looked at here.

use std::ops::Range;

use crate::message::{self, AA, AD, EDE, HEADER_LEN, KEEPALIVE, OPT, QR, RA, TC, word};

/// A message that can be walked from end to end.
#[derive(Debug)]
pub struct View<'a> {
    pub octets: &'a [u8],
    /// Where the questions end; behind the header without one.
    question_end: usize,
    pub records: Vec<Record>,
    /// Where the last record ends.
    end: usize,
}

/// One resource record.
#[derive(Debug)]
pub struct Record {
    /// 0 answer, 1 authority, 2 additional.
    pub section: usize,
    start: usize,
    pub rtype: u16,
    pub class: u16,
    pub ttl: u32,
    data: Range<usize>,
}

impl Record {
    /// Where its owner is.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Where its data is.
    pub fn data_start(&self) -> usize {
        self.data.start
    }

    /// Where its data ends.
    pub fn end(&self) -> usize {
        self.data.end
    }
}

impl<'a> View<'a> {
    /// `None` unless every counted record is whole and nothing follows the last.
    pub fn read(octets: &'a [u8]) -> Option<Self> {
        Self::read_front(octets).filter(|view| view.trailing().is_empty())
    }

    /// What [`Self::read`] does, but octets may follow the last record.
    pub fn read_front(octets: &'a [u8]) -> Option<Self> {
        let mut at = HEADER_LEN;
        for _ in 0..word(octets, 4)? {
            at = name_end(octets, at)? + 4;
        }
        let question_end = at;
        let mut records = Vec::new();
        for section in 0..3 {
            for _ in 0..word(octets, 6 + 2 * section)? {
                let (start, fixed) = (at, name_end(octets, at)?);
                let data = fixed + 10..fixed + 10 + usize::from(word(octets, fixed + 8)?);
                at = data.end;
                octets.get(data.clone())?;
                let ttl = u32::from(word(octets, fixed + 4)?) << 16;
                records.push(Record {
                    section,
                    start,
                    rtype: word(octets, fixed)?,
                    class: word(octets, fixed + 2)?,
                    ttl: ttl | u32::from(word(octets, fixed + 6)?),
                    data,
                });
            }
        }
        (at <= octets.len()).then_some(Self { octets, question_end, records, end: at })
    }

    /// What follows the last record.
    pub fn trailing(&self) -> &'a [u8] {
        &self.octets[self.end..]
    }

    pub fn id(&self) -> u16 {
        message::id(self.octets)
    }

    pub fn flags(&self) -> u16 {
        message::flags(self.octets)
    }

    pub fn is_response(&self) -> bool {
        self.flags() & QR != 0
    }

    pub fn is_truncated(&self) -> bool {
        self.flags() & TC != 0
    }

    pub fn is_recursion_available(&self) -> bool {
        self.flags() & RA != 0
    }

    /// With the upper bits that an OPT record has.
    pub fn rcode(&self) -> u16 {
        let upper = self.opt().map_or(0, |opt| (opt.ttl >> 24) as u16);
        upper << 4 | self.flags() & 15
    }

    /// The four bits of the header alone.
    pub fn header_rcode(&self) -> u8 {
        self.octets[3] & 15
    }

    /// OPCODE and RD, which a response copies.
    pub fn copied_flags(&self) -> u8 {
        self.octets[2] & 0x79
    }

    pub fn is_authoritative(&self) -> bool {
        self.flags() & AA != 0
    }

    pub fn is_authenticated(&self) -> bool {
        self.flags() & AD != 0
    }

    /// The question as on the wire; empty if there is none.
    pub fn question(&self) -> &'a [u8] {
        &self.octets[HEADER_LEN..self.question_end]
    }

    /// Records of a section, but for OPT.
    pub fn count(&self, section: usize) -> usize {
        self.records.iter().filter(|r| r.section == section && r.rtype != OPT).count()
    }

    pub fn data(&self, record: &Record) -> &'a [u8] {
        &self.octets[record.data.clone()]
    }

    /// The whole record, from its owner on.
    pub fn record_octets(&self, record: &Record) -> &'a [u8] {
        &self.octets[record.start..record.data.end]
    }

    /// OPT records outside the additional section, or with another owner than the root.
    pub fn has_misplaced_opt(&self) -> bool {
        let misplaced = |r: &Record| r.section != 2 || self.octets[r.start] != 0;
        self.records.iter().any(|r| r.rtype == OPT && misplaced(r))
    }

    pub fn opts(&self) -> usize {
        self.records.iter().filter(|record| record.rtype == OPT).count()
    }

    pub fn opt(&self) -> Option<&Record> {
        self.records.iter().find(|record| record.rtype == OPT)
    }

    pub fn options(&self) -> Vec<(u16, &'a [u8])> {
        let mut data = self.opt().map_or(&[][..], |opt| self.data(opt));
        let mut options = Vec::new();
        while let (Some(code), Some(len)) = (word(data, 0), word(data, 2)) {
            let Some(value) = data.get(4..4 + usize::from(len)) else { break };
            options.push((code, value));
            data = &data[4 + value.len()..];
        }
        options
    }

    pub fn option(&self, code: u16) -> Option<&'a [u8]> {
        self.options().into_iter().find(|(seen, _)| *seen == code).map(|(_, data)| data)
    }

    /// TIMEOUT of edns-tcp-keepalive (RFC 7828), in units of 100 ms.
    pub fn keepalive_timeout(&self) -> Option<u16> {
        word(self.option(KEEPALIVE)?, 0)
    }

    /// INFO-CODE and EXTRA-TEXT of the Extended DNS Error (RFC 8914 section 2).
    pub fn extended_error(&self) -> Option<(u16, String)> {
        let data = self.option(EDE)?;
        Some((word(data, 0)?, String::from_utf8_lossy(&data[2..]).into_owned()))
    }

    /// All between the question and the OPT record, which must be the last.
    pub fn records_octets(&self) -> &'a [u8] {
        &self.octets[self.question_end..self.opt().map_or(self.end, |opt| opt.start)]
    }

    /// All but the ID, the question and the OPT record, which must be the last.
    pub fn transparent(&self) -> Vec<u8> {
        let mut octets = self.without_opt();
        octets.drain(HEADER_LEN - 2..self.question_end - 2);
        octets
    }

    /// All behind the ID up to the OPT record and the count without it.
    pub fn without_opt(&self) -> Vec<u8> {
        let mut octets = [&self.octets[2..self.question_end], self.records_octets()].concat();
        // The low octet of the count of additional records.
        octets[9] -= self.opts() as u8;
        octets
    }
}

/// The labels of a name, compressed or not, and where it ends. What it points to comes before all that was read of
/// it so far.
pub fn labels(octets: &[u8], start: usize) -> Option<(Vec<Vec<u8>>, usize)> {
    let (mut labels, mut end, mut octets_before) = (Vec::new(), None, 1);
    let (mut at, mut from, mut limit) = (start, start, octets.len());
    loop {
        let first = *octets[..limit].get(at)?;
        match first {
            0 => return Some((labels, end.unwrap_or(at + 1))),
            1..0x40 => {
                let label = octets[..limit.max(at)].get(at + 1..at + 1 + usize::from(first));
                octets_before += 1 + usize::from(first);
                if octets_before > 255 {
                    return None;
                }
                labels.push(label?.to_vec());
                at += 1 + usize::from(first);
            }
            0x40..0xc0 => return None,
            _ => {
                let target = usize::from(word(&octets[..limit], at)? & 0x3fff);
                end.get_or_insert(at + 2);
                if target < HEADER_LEN || target >= from {
                    return None;
                }
                limit = from;
                (at, from) = (target, target);
            }
        }
    }
}

/// Behind a name, compressed or not.
fn name_end(octets: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *octets.get(at)? {
            0 => return Some(at + 1),
            label @ 1..0x40 => at += 1 + usize::from(label),
            0x40..0xc0 => return None,
            _ => return Some(at + 2),
        }
    }
}
