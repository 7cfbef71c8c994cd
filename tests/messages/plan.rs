//! Messages written from a plan that says where their names are, and read back by it. Names are
//! compressed in the data of types too where none should be.

use std::collections::HashMap;

use domain::base::ToName as _;
use domain::base::name::{Name, ParsedName};
use domain::dep::octseq::Parser;

use super::generate::{random_name, record_count};
use support::random::Random;

pub(crate) const HEADER_LEN: usize = 12;

/// All of a message but its OPT record.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) qname: Vec<u8>,
    pub(crate) sections: [Vec<Record>; 3],
}

#[derive(Clone, Debug)]
pub(crate) struct Record {
    owner: Vec<u8>,
    /// Type, class and TTL.
    fixed: Vec<u8>,
    data: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Name(Vec<u8>),
    Octets(Vec<u8>),
}

#[derive(Clone, Debug)]
pub(crate) struct OptPlan {
    /// How many additional records are in front of it.
    pub(crate) place: usize,
    /// UDP size, extended RCODE, version and flags.
    pub(crate) fixed: [u8; 6],
    pub(crate) options: Vec<(u16, Vec<u8>)>,
}

impl Plan {
    pub(crate) fn random(random: &mut Random, flags: u16) -> Self {
        let names: Vec<_> = (0..4).map(|_| random_name(random).as_slice().to_vec()).collect();
        let mut sections = [(); 3].map(|()| {
            let count = record_count(random);
            (0..count).map(|_| Record::random(random, &names)).collect::<Vec<_>>()
        });
        sections[2].truncate(8);
        Self { id: random.next_u64() as u16, flags, qname: names[0].clone(), sections }
    }

    pub(crate) fn write(&self, opt: Option<&OptPlan>, compression: Compression) -> Vec<u8> {
        let mut writer = Writer { out: Vec::new(), places: HashMap::new(), compression };
        writer.out.extend(self.id.to_be_bytes());
        writer.out.extend(self.flags.to_be_bytes());
        let counts = self.counts(opt.is_some());
        writer.out.extend(counts.into_iter().flat_map(u16::to_be_bytes));
        writer.name(&self.qname);
        writer.out.extend([0, 1, 0, 1]);
        for (section, records) in self.sections.iter().enumerate() {
            for (index, record) in records.iter().enumerate() {
                if let Some(opt) = opt
                    && (section, index) == (2, opt.place)
                {
                    writer.out.extend(opt.octets());
                }
                writer.record(record);
            }
        }
        if let Some(opt) = opt
            && opt.place == self.sections[2].len()
        {
            writer.out.extend(opt.octets());
        }
        writer.out
    }

    pub(crate) fn counts(&self, has_opt: bool) -> [u16; 4] {
        let [ancount, nscount, arcount] =
            self.sections.each_ref().map(|records| records.len() as u16);
        [1, ancount, nscount, arcount + u16::from(has_opt)]
    }

    pub(crate) fn question_end(&self) -> usize {
        HEADER_LEN + self.qname.len() + 4
    }

    /// Reads a message that should be this one: header apart, the question, the first `records`
    /// records, and `opt`.
    pub(crate) fn check(&self, octets: &[u8], records: usize, opt: Option<&OptPlan>) -> Found {
        let found = self.read(octets, records);
        let opt = opt.map(OptPlan::octets).unwrap_or_default();
        assert_eq!(&octets[found.ends[found.ends.len() - 1]..], opt, "the end");
        found
    }

    /// What [`Self::check`] does, whatever follows the records.
    pub(crate) fn read(&self, octets: &[u8], records: usize) -> Found {
        let mut reader = Reader { octets, at: HEADER_LEN, pointers: Vec::new() };
        reader.name(&self.qname);
        reader.octets(&[0, 1, 0, 1]);
        let mut ends = vec![reader.at];
        for record in self.sections.iter().flatten().take(records) {
            reader.record(record);
            ends.push(reader.at);
        }
        Found { ends, pointers: reader.pointers }
    }
}

/// Where the question and each record end, and where pointers are.
pub(crate) struct Found {
    pub(crate) ends: Vec<usize>,
    pub(crate) pointers: Vec<usize>,
}

impl Record {
    fn random(random: &mut Random, names: &[Vec<u8>]) -> Self {
        let any_name = |random: &mut Random| {
            // Names below those of others, and those above.
            let mut name = random.choice(names).clone();
            while random.chance(250) && name.len() > 1 {
                name.drain(..=usize::from(name[0]));
            }
            if random.chance(250) && name.len() < 250 {
                name = [b"\x03new", &name[..]].concat();
            }
            name
        };
        let name = |random: &mut Random| Part::Name(any_name(random));
        let octets = |random: &mut Random, len| Part::Octets(random.octets(len));
        let (rtype, data): (u16, _) = match random.index(24) {
            0 => (1, vec![octets(random, 4)]),
            1 => (2, vec![name(random)]),
            2 => (5, vec![name(random)]),
            3 => (6, vec![name(random), name(random), octets(random, 20)]),
            4 => (12, vec![name(random)]),
            5 => (14, vec![name(random), name(random)]),
            6 => (15, vec![octets(random, 2), name(random)]),
            7 => (17, vec![name(random), name(random)]),
            8 => (18, vec![octets(random, 2), name(random)]),
            9 => (21, vec![octets(random, 2), name(random)]),
            10 => (
                24,
                vec![Part::Octets(vec![0, 1]), octets(random, 16), name(random), octets(random, 9)],
            ),
            11 => (26, vec![octets(random, 2), name(random), name(random)]),
            12 => (30, vec![name(random), octets(random, 4)]),
            13 => (33, vec![octets(random, 6), name(random)]),
            14 => {
                let mut front = random.octets(4);
                for _ in 0..3 {
                    let len = random.index(5);
                    front.push(len as u8);
                    front.extend(random.octets(len));
                }
                (35, vec![Part::Octets(front), name(random)])
            }
            15 => (36, vec![octets(random, 2), name(random)]),
            16 => (39, vec![name(random)]),
            17 => (46, vec![octets(random, 18), name(random), octets(random, 40)]),
            18 => (47, vec![name(random), octets(random, 6)]),
            // What looks like pointers is none in types that nobody knows.
            19 => (65_280, vec![Part::Octets([0xc0, 0x0c].repeat(random.index(9)))]),
            20 if random.chance(125) => (16, vec![octets(random, 9_000)]),
            21 => (64, vec![octets(random, 12)]),
            _ => (28, vec![octets(random, 16)]),
        };
        let fixed = [&rtype.to_be_bytes(), &[0, 1][..], &random.octets(4)].concat();
        Self { owner: any_name(random), fixed, data }
    }
}

impl OptPlan {
    pub(crate) fn random(random: &mut Random, place: usize) -> Self {
        let mut options = Vec::new();
        while random.chance(667) && options.len() < 8 {
            let len = if random.chance(33) { 600 } else { 12 };
            let len = random.index(len);
            let code = *random.choice(&[3, 8, 8, 10, 10, 11, 12, 12, 15, 5, 20_292, 65_001]);
            let mut data = random.octets(len);
            if code == 12 && len >= 8 && random.chance(500) {
                data[..8].copy_from_slice(b"dotproxy");
            }
            options.push((code, data));
        }
        let fixed = random.octets(6).try_into().unwrap();
        Self { place, fixed, options }
    }

    pub(crate) fn octets(&self) -> Vec<u8> {
        let mut rdata = Vec::new();
        for (code, data) in &self.options {
            rdata.extend(code.to_be_bytes());
            rdata.extend((data.len() as u16).to_be_bytes());
            rdata.extend(data);
        }
        let rdlen = (rdata.len() as u16).to_be_bytes();
        [&[0, 0, 41], &self.fixed[..], &rdlen, &rdata].concat()
    }
}

/// How many names of those that could be are compressed.
pub(crate) enum Compression {
    None,
    Some(Random),
    All,
}

impl Compression {
    /// Without, with some, with all.
    pub(crate) fn extent(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::Some(_) => 1,
            Self::All => 2,
        }
    }
}

struct Writer {
    out: Vec<u8>,
    places: HashMap<Vec<u8>, u16>,
    compression: Compression,
}

impl Writer {
    fn record(&mut self, record: &Record) {
        self.name(&record.owner);
        self.out.extend(&record.fixed);
        self.out.extend([0, 0]);
        let start = self.out.len();
        for part in &record.data {
            match part {
                Part::Name(name) => self.name(name),
                Part::Octets(octets) => self.out.extend(octets),
            }
        }
        let rdlen = (self.out.len() - start) as u16;
        self.out[start - 2..start].copy_from_slice(&rdlen.to_be_bytes());
    }

    fn name(&mut self, mut name: &[u8]) {
        while name.len() > 1 {
            let compress = match &mut self.compression {
                Compression::None => false,
                Compression::Some(random) => random.chance(667),
                Compression::All => true,
            };
            if compress && let Some(place) = self.places.get(name) {
                self.out.extend((0xc000 | place).to_be_bytes());
                return;
            }
            if self.out.len() < 0x4000 {
                self.places.insert(name.to_vec(), self.out.len() as u16);
            }
            let (label, rest) = name.split_at(1 + usize::from(name[0]));
            self.out.extend(label);
            name = rest;
        }
        self.out.push(0);
    }
}

struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
    pointers: Vec<usize>,
}

impl Reader<'_> {
    fn octets(&mut self, expected: &[u8]) {
        assert_eq!(&self.octets[self.at..][..expected.len()], expected, "at {}", self.at);
        self.at += expected.len();
    }

    fn name(&mut self, expected: &[u8]) {
        let mut parser = Parser::from_ref(self.octets);
        parser.seek(self.at).unwrap();
        let name: Name<Vec<u8>> = ParsedName::parse(&mut parser).unwrap().to_name();
        assert_eq!(name.as_slice(), expected, "at {}", self.at);
        let mut labels_end = self.at;
        while (1..=63).contains(&self.octets[labels_end]) {
            labels_end += 1 + usize::from(self.octets[labels_end]);
        }
        if self.octets[labels_end] != 0 {
            self.pointers.push(labels_end);
        }
        self.at = parser.pos();
    }

    fn record(&mut self, record: &Record) {
        self.name(&record.owner);
        self.octets(&record.fixed);
        let rdlen = u16::from_be_bytes([self.octets[self.at], self.octets[self.at + 1]]);
        self.at += 2;
        let end = self.at + usize::from(rdlen);
        for part in &record.data {
            match part {
                Part::Name(name) => self.name(name),
                Part::Octets(octets) => self.octets(octets),
            }
        }
        assert_eq!(self.at, end, "the length of the data");
    }
}
