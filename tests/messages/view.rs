//! Messages as the `domain` crate reads them.

use std::ops::Range;

use domain::base::iana::Rtype;
use domain::base::name::{Name, ParsedName};
use domain::base::rdata::{ComposeRecordData as _, ParseAnyRecordData as _};
use domain::base::record::RecordHeader;
use domain::base::wire::ParseError;
use domain::base::{Message, ToName as _};
use domain::dep::octseq::Parser;
use domain::rdata::AllRecordData;
use dot_proxy::forwarder::message::{HEADER_LEN, Opt, Signature};

type Data<'a> = AllRecordData<&'a [u8], ParsedName<&'a [u8]>>;

/// A message as `domain` reads it.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) flags: u16,
    pub(crate) counts: [u16; 4],
    /// The only question, if it is readable, which one that is compressed is not.
    pub(crate) question: Option<Question>,
    /// The readable records, and a last one that is an OPT record cut off in its data.
    pub(crate) records: Vec<Record>,
    pub(crate) complete: bool,
    pub(crate) end: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) qname: Name<Vec<u8>>,
    pub(crate) qtype: u16,
    pub(crate) qclass: u16,
    pub(crate) end: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) section: usize,
    pub(crate) owner: Name<Vec<u8>>,
    pub(crate) start: usize,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) rdata: Range<usize>,
    pub(crate) end: usize,
}

impl View {
    pub(crate) fn of(octets: &[u8]) -> Option<Self> {
        let message = Message::from_slice(octets).ok()?;
        let counts = message.header_counts();
        let mut view = Self {
            flags: u16::from_be_bytes([octets[2], octets[3]]),
            counts: [counts.qdcount(), counts.ancount(), counts.nscount(), counts.arcount()],
            question: None,
            records: Vec::new(),
            complete: false,
            end: HEADER_LEN,
        };
        let mut questions = message.question();
        while let start = questions.pos()
            && let Some(question) = questions.next()
        {
            let Some(question) = question.ok().filter(|_| pointers_aim_back(octets, start)) else {
                return Some(view);
            };
            let qname: Name<Vec<u8>> = question.qname().to_name();
            let (qtype, qclass) = (question.qtype().to_int(), question.qclass().to_int());
            if view.counts[0] == 1 {
                view.question = Some(Question { qname, qtype, qclass, end: questions.pos() });
            }
        }
        view.end = questions.pos();
        view.read_records(octets, message);
        Some(view)
    }

    pub(crate) fn read_records(&mut self, octets: &[u8], message: &Message<[u8]>) {
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
            match section.next_section().unwrap() {
                Some(next) => section = next,
                None => break,
            }
        }
        self.complete = true;
    }

    /// Notes the record at `start`, whose data the message does not hold, if it is an OPT record.
    pub(crate) fn read_cut_opt(&mut self, octets: &[u8], section: usize, start: usize) {
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

    pub(crate) fn opts(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.rtype == 41)
    }

    pub(crate) fn opt(&self, octets: &[u8]) -> Option<Opt> {
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

    /// What the message is signed with, by its last signature.
    pub(crate) fn signature(&self, octets: &[u8]) -> Option<Signature> {
        self.records.iter().filter_map(|record| record.signature(octets)).next_back()
    }

    /// At most one signature, and nothing behind it (RFC 8945 section 5.2).
    pub(crate) fn signed_in_place(&self, octets: &[u8]) -> bool {
        let mut signatures = self.records.iter().filter(|r| r.signature(octets).is_some());
        match (signatures.next(), signatures.next()) {
            (None, _) => true,
            (Some(one), None) => one.section == 2 && Some(one) == self.records.last(),
            (Some(_), Some(_)) => false,
        }
    }

    pub(crate) fn opt_valid(&self, octets: &[u8]) -> bool {
        self.opts().count() <= 1
            && self.opts().all(|record| {
                record.section == 2
                    && octets[record.start] == 0
                    && domain::base::opt::Opt::from_slice(&octets[record.rdata.clone()]).is_ok()
            })
    }
}

impl Record {
    /// The data as its type has it, names expanded.
    pub(crate) fn data(&self, octets: &[u8]) -> Result<Vec<u8>, ParseError> {
        // The library does not know the names in RP, AFSDB, RT, SIG, PX, NXT and KX. It reads pointers
        // in IPSECKEY, SVCB, HTTPS, TKEY and TSIG too, which must not have them.
        if matches!(self.rtype, 17 | 18 | 21 | 24 | 26 | 30 | 36 | 45 | 64 | 65 | 249 | 250) {
            return Err(ParseError::form_error("of no type that can be compared"));
        }
        let mut parser = Parser::from_ref(octets);
        parser.seek(self.rdata.start)?;
        let mut parser = parser.parse_parser(self.rdata.len())?;
        let data = Data::parse_any_rdata(Rtype::from_int(self.rtype), &mut parser)?;
        let mut expanded = Vec::new();
        data.compose_rdata(&mut expanded).unwrap();
        Ok(expanded)
    }

    /// Whether its data has something that looks like a pointer that does not aim back. The library
    /// follows such, but they mean nothing.
    pub(crate) fn aims_ahead(&self, octets: &[u8]) -> bool {
        let mut places = self.rdata.clone();
        places.any(|at| octets[at] >= 0xc0 && !pointers_aim_back(octets, at))
    }

    pub(crate) fn signature(&self, octets: &[u8]) -> Option<Signature> {
        match self.rtype {
            250 => Some(Signature::Tsig),
            24 if octets[self.rdata.clone()].starts_with(&[0, 0]) => Some(Signature::Sig0),
            _ => None,
        }
    }
}

/// What is asked of compression pointers beyond what `domain` asks: each aims behind the header, at
/// labels that end before those which the pointer follows, and there are at most 127.
pub(crate) fn pointers_aim_back(octets: &[u8], start: usize) -> bool {
    let mut segment = start..octets.len();
    for _ in 0..=127 {
        let mut at = segment.start;
        while let Some(&len @ 1..0xc0) = octets.get(at) {
            at += 1 + usize::from(len);
        }
        let is_pointer = octets.get(at) != Some(&0);
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
