//! DNS messages for tests: octets are built by hand, and read with a DNS library.

use domain::base::iana::OptRcode;
use domain::base::message::RecordSection;
use domain::base::opt::{AllOptData, TcpKeepalive};
use domain::base::{Message, Name, ParsedName, Rtype};
use domain::rdata::AllRecordData;

pub const A: u16 = 1;
pub const SOA: u16 = 6;
pub const MX: u16 = 15;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const OPT: u16 = 41;
pub const AXFR: u16 = 252;

pub const NOERROR: u16 = 0;
pub const FORMERR: u16 = 1;
pub const SERVFAIL: u16 = 2;
pub const NXDOMAIN: u16 = 3;
pub const NOTIMP: u16 = 4;
pub const REFUSED: u16 = 5;
pub const BADVERS: u16 = 16;

/// Codes of EDNS options.
pub const KEEPALIVE: u16 = 11;
pub const PADDING: u16 = 12;
pub const EDE: u16 = 15;

pub const HEADER_LEN: usize = 12;
pub const QR: u16 = 0x8000;
pub const AA: u16 = 0x0400;
pub const TC: u16 = 0x0200;
pub const RD: u16 = 0x0100;
pub const RA: u16 = 0x0080;
pub const AD: u16 = 0x0020;

/// A query to be written.
#[derive(Clone)]
pub struct Query {
    id: u16,
    flags: u16,
    /// The name as on the wire.
    name: Vec<u8>,
    qtype: u16,
    qclass: u16,
    opt: Option<Opt>,
}

/// An OPT record to be written.
#[derive(Clone)]
pub struct Opt {
    pub size: u16,
    pub version: u8,
    /// The second half of the TTL: DO and the reserved flags.
    pub flags: u16,
    pub options: Vec<u8>,
}

impl Opt {
    pub fn new(size: u16) -> Self {
        Self { size, version: 0, flags: 0, options: Vec::new() }
    }

    pub fn option(&mut self, code: u16, data: &[u8]) {
        self.options.extend(code.to_be_bytes());
        self.options.extend(u16::try_from(data.len()).expect("a short option").to_be_bytes());
        self.options.extend(data);
    }

    pub fn append(&self, message: &mut Vec<u8>) {
        message.push(0);
        message.extend(OPT.to_be_bytes());
        message.extend(self.size.to_be_bytes());
        message.extend([0, self.version]);
        message.extend(self.flags.to_be_bytes());
        message.extend(u16::try_from(self.options.len()).expect("options").to_be_bytes());
        message.extend(&self.options);
    }
}

impl Query {
    /// ID 0x1234, RD set, class IN, no OPT.
    pub fn new(name: &str, qtype: u16) -> Self {
        Self { id: 0x1234, flags: RD, name: wire_name(name), qtype, qclass: 1, opt: None }
    }

    /// Labels that need not be text; the root label is added.
    pub fn labels(mut self, labels: &[&[u8]]) -> Self {
        self.name.clear();
        for label in labels {
            self.name.push(u8::try_from(label.len()).expect("a label of at most 63 octets"));
            self.name.extend(*label);
        }
        self.name.push(0);
        self
    }

    /// Another name of plain labels.
    pub fn name(mut self, name: &str) -> Self {
        self.name = wire_name(name);
        self
    }

    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// The whole second word of the header.
    pub fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    pub fn class(mut self, qclass: u16) -> Self {
        self.qclass = qclass;
        self
    }

    /// An OPT record with this UDP payload size.
    pub fn opt(mut self, size: u16) -> Self {
        self.opt = Some(Opt::new(size));
        self
    }

    pub fn edns_version(mut self, version: u8) -> Self {
        self.opt.as_mut().expect("opt() comes first").version = version;
        self
    }

    /// The second half of the OPT's TTL: DO and the reserved flags.
    pub fn edns_flags(mut self, flags: u16) -> Self {
        self.opt.as_mut().expect("opt() comes first").flags = flags;
        self
    }

    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.opt.as_mut().expect("opt() comes first").option(code, data);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let counts = [1, 0, 0, u16::from(self.opt.is_some())];
        let mut message = header(self.id, self.flags, counts);
        message.extend(&self.name);
        message.extend(self.qtype.to_be_bytes());
        message.extend(self.qclass.to_be_bytes());
        if let Some(opt) = &self.opt {
            opt.append(&mut message);
        }
        message
    }
}

/// A response as a DNS library reads it, to the last record.
#[derive(Debug)]
pub struct Response {
    pub id: u16,
    pub flags: u16,
    /// With the upper bits of the OPT record, if there is one.
    pub rcode: u16,
    /// Name without the last dot, type and class.
    pub question: Option<(String, u16, u16)>,
    /// Number of answer records.
    pub answers: usize,
    /// Number of authority records.
    pub authorities: usize,
    /// Number of additional records but for OPT.
    pub additionals: usize,
    pub opt: Option<ResponseOpt>,
}

#[derive(Debug)]
pub struct ResponseOpt {
    pub version: u8,
    pub udp_size: u16,
    /// TIMEOUT of edns-tcp-keepalive (RFC 7828).
    pub keepalive: Option<u16>,
    /// INFO-CODE and EXTRA-TEXT (RFC 8914).
    pub errors: Vec<(u16, String)>,
}

impl Response {
    /// Panics on anything that is not a well-formed response.
    pub fn read(octets: &[u8]) -> Self {
        let message = Message::from_octets(octets).expect("at least a header");
        let flags = flags(octets);
        assert!(flags & QR != 0, "a response has QR set: {octets:02x?}");

        let question = message
            .question()
            .map(|question| question.expect("a readable question"))
            .map(|q| (q.qname().to_string(), q.qtype().to_int(), q.qclass().to_int()))
            .next();
        let (_, answer, authority, additional) = message.sections().expect("readable sections");
        let records = |section: RecordSection<'_, &[u8]>| {
            section
                .map(|record| record.expect("a readable record"))
                .inspect(|record| {
                    record
                        .to_any_record::<AllRecordData<&[u8], ParsedName<&[u8]>>>()
                        .expect("readable record data");
                })
                .filter(|record| record.rtype() != Rtype::OPT)
                .count()
        };

        let opt = message.opt();
        let rcode = message.opt_rcode();
        Self {
            id: id(octets),
            flags,
            rcode: if rcode == OptRcode::NOERROR { 0 } else { rcode.to_int() },
            question,
            answers: records(answer),
            authorities: records(authority),
            additionals: records(additional),
            opt: opt.map(|opt| ResponseOpt {
                version: opt.version(),
                udp_size: opt.udp_payload_size(),
                keepalive: opt
                    .opt()
                    .first::<TcpKeepalive>()
                    .map(|option| option.timeout().expect("a response says how long").into()),
                errors: opt
                    .opt()
                    .iter::<AllOptData<&[u8], Name<&[u8]>>>()
                    .filter_map(|option| match option.expect("a readable option") {
                        AllOptData::ExtendedError(error) => Some(error),
                        _ => None,
                    })
                    .map(|error| {
                        let text = error.text_slice().unwrap_or_default();
                        (error.code().to_int(), String::from_utf8_lossy(text).into_owned())
                    })
                    .collect(),
            }),
        }
    }

    pub fn is_truncated(&self) -> bool {
        self.flags & TC != 0
    }
}

/// Four section counts behind an ID and flags.
pub fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut header = Vec::with_capacity(12);
    for word in [id, flags].into_iter().chain(counts) {
        header.extend(word.to_be_bytes());
    }
    header
}

/// A name of plain labels, with or without the last dot.
pub fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).expect("a label of at most 63 octets"));
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// A record of the name that was asked for, TTL 300.
pub fn record(rtype: u16, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, 12];
    record.extend(rtype.to_be_bytes());
    record.extend(1_u16.to_be_bytes());
    record.extend(300_u32.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

pub fn id(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// The two octets at `at`, if they are there.
pub fn word(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

pub fn flags(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[2], message[3]])
}

/// The same message under another ID.
pub fn with_id(message: &[u8], id: u16) -> Vec<u8> {
    let mut message = message.to_vec();
    message[..2].copy_from_slice(&id.to_be_bytes());
    message
}

/// The length and the message, as on TCP (RFC 1035 section 4.2.2).
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("a message of at most 65,535 octets");
    [&length.to_be_bytes()[..], message].concat()
}

/// The end of the question section of a message with one question; `None` if it cannot be read.
pub fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1 + length;
        if length == 0 {
            return (at + 4 <= message.len()).then_some(at + 4);
        }
    }
}

/// Name in lower case without the last dot, type and class of a message with one question.
pub fn question(message: &[u8]) -> Option<(String, u16, u16)> {
    let end = question_end(message)?;
    let mut labels = Vec::new();
    let mut at = 12;
    while message[at] != 0 {
        let length = usize::from(message[at]);
        let label = &message[at + 1..at + 1 + length];
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += 1 + length;
    }
    let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    Some((labels.join("."), word(end - 4), word(end - 2)))
}
