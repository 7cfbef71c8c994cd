//! A message as its octets are: what a DNS library would tidy up is what is looked at here.

use std::ops::Range;

use crate::message::{self, OPT};

const HEADER: usize = 12;

/// A message that can be read to its last octet.
pub struct View<'a> {
    octets: &'a [u8],
    question_end: usize,
    pub records: Vec<Record>,
}

pub struct Record {
    /// 0 answer, 1 authority, 2 additional.
    pub section: usize,
    start: usize,
    pub rtype: u16,
    pub class: u16,
    pub ttl: u32,
    data: Range<usize>,
}

impl<'a> View<'a> {
    /// `None` if there is more than one question, or something that cannot be read.
    pub fn read(octets: &'a [u8]) -> Option<Self> {
        let count = |at: usize| Some(usize::from(word(octets, at)?));
        let question_end = match count(4)? {
            0 => HEADER,
            1 => name_end(octets, HEADER)? + 4,
            _ => return None,
        };
        let mut records = Vec::new();
        let mut at = question_end;
        for section in 0..3 {
            for _ in 0..count(6 + 2 * section)? {
                let start = at;
                let fixed = name_end(octets, at)?;
                let data = fixed + 10..fixed + 10 + count(fixed + 8)?;
                let ttl = u32::from(word(octets, fixed + 4)?) << 16;
                at = data.end;
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
        (at == octets.len()).then_some(Self { octets, question_end, records })
    }

    pub fn flags(&self) -> u16 {
        message::flags(self.octets)
    }

    /// With the upper bits that an OPT record has.
    pub fn rcode(&self) -> u16 {
        let upper = self.opt().map_or(0, |opt| (opt.ttl >> 24) as u16);
        upper << 4 | self.flags() & 15
    }

    /// As on the wire; empty if there is none.
    pub fn question(&self) -> &'a [u8] {
        &self.octets[HEADER..self.question_end]
    }

    pub fn count(&self, section: usize) -> usize {
        self.records
            .iter()
            .filter(|record| record.section == section && record.rtype != OPT)
            .count()
    }

    pub fn data(&self, record: &Record) -> &'a [u8] {
        &self.octets[record.data.clone()]
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

    /// All behind the ID, as if there were no OPT record; it must be the last one.
    pub fn without_opt(&self) -> Vec<u8> {
        let mut octets = self.octets[2..].to_vec();
        if let Some(opt) = self.opt() {
            octets.drain(opt.start - 2..opt.data.end - 2);
            // The low octet of the count of additional records.
            octets[9] -= 1;
        }
        octets
    }
}

fn word(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?]))
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
