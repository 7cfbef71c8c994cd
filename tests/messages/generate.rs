//! Messages as clients and servers make them, or nearly so.

use domain::base::iana::{Class, Rtype};
use domain::base::message_builder::{HashCompressor, StaticCompressor, TreeCompressor};
use domain::base::name::Name;
use domain::base::rdata::UnknownRecordData;
use domain::base::wire::Composer;
use domain::base::{MessageBuilder, ToName as _, Ttl};
use domain::dep::octseq::OctetsBuilder;
use domain::rdata::{Cname, Mx};

use support::random::Random;

/// A message with QR=0 as clients and servers make them, or nearly so.
pub(crate) fn generated(random: &mut Random) -> Vec<u8> {
    match random.index(4) {
        0 => built(random, Vec::new()),
        1 => built(random, StaticCompressor::new(Vec::new())),
        2 => built(random, TreeCompressor::new(Vec::new())),
        _ => built(random, HashCompressor::new(Vec::new())),
    }
}

pub(crate) fn built<Target: Composer + AsRef<[u8]> + AsMut<[u8]>>(
    random: &mut Random,
    target: Target,
) -> Vec<u8>
where
    <Target as OctetsBuilder>::AppendError: std::fmt::Debug,
{
    let names: Vec<_> = (0..4).map(|_| random_name(random)).collect();
    let names: Vec<_> = names.iter().flat_map(Name::iter_suffixes).collect();
    let mut builder = MessageBuilder::from_target(target).unwrap();
    builder.header_mut().set_id(random.next_u64() as u16);
    let header = builder.header_mut();
    header.set_rd(random.chance(500));
    header.set_cd(random.chance(250));
    header.set_ad(random.chance(250));
    header.set_tc(random.chance(125));
    header.set_rcode(domain::base::iana::Rcode::checked_from_int(random.index(6) as u8).unwrap());
    if random.chance(50) {
        header.set_opcode(domain::base::iana::Opcode::UPDATE);
    }
    let mut builder = builder.question();
    let questions = if random.chance(50) { random.index(3) } else { 1 };
    for _ in 0..questions {
        let qtype = *random.choice(&[1, 1, 1, 15, 16, 28, 65, 251, 252, 255, 65_280]);
        builder.push((random.choice(&names), Rtype::from_int(qtype), Class::IN)).unwrap();
    }
    let is_odd = random.chance(250);
    let mut builder = builder.answer();
    for _ in 0..record_count(random) {
        let (owner, ttl) = (random.choice(&names), Ttl::from_secs(random.next_u64() as u32));
        match random.index(4) {
            0 => builder.push((owner, ttl, Cname::new(random.choice(&names)))).unwrap(),
            1 => builder.push((owner, ttl, Mx::new(10, random.choice(&names)))).unwrap(),
            _ => builder.push((owner, ttl, data(random, is_odd))).unwrap(),
        }
    }
    let mut builder = builder.authority();
    for _ in 0..record_count(random) {
        builder.push((random.choice(&names), Ttl::HOUR, data(random, is_odd))).unwrap();
    }
    let mut builder = builder.additional();
    for _ in 0..record_count(random) / 2 {
        builder.push((random.choice(&names), Ttl::HOUR, data(random, is_odd))).unwrap();
    }
    let root = Name::<Vec<u8>>::root_vec();
    if random.chance(667) {
        let owner = if random.chance(33) { random.choice(&names).to_name() } else { root.clone() };
        let class = Class::from_int(*random.choice(&[0, 511, 512, 1_232, 4_096, 65_535]));
        let version = u32::from(random.chance(100));
        let extended = u32::from(random.chance(100));
        let ttl = extended << 24 | version << 16 | (random.next_u64() as u32 & 0xffff);
        let data = options(random);
        let data = UnknownRecordData::from_octets(Rtype::OPT, data).unwrap();
        builder.push((owner, class, Ttl::from_secs(ttl), data)).unwrap();
    }
    if random.chance(200) {
        builder.push((random.choice(&names), Ttl::HOUR, data(random, is_odd))).unwrap();
    }
    if random.chance(167) {
        let rtype = *random.choice(&[Rtype::TSIG, Rtype::SIG]);
        let data = UnknownRecordData::from_octets(rtype, vec![0; 20]).unwrap();
        builder.push((root, Class::ANY, Ttl::ZERO, data)).unwrap();
    }
    let message = builder.finish();
    message.as_ref().to_vec()
}

/// A name with few different labels, so that names have ends in common, and now and then odd ones.
pub(crate) fn random_name(random: &mut Random) -> Name<Vec<u8>> {
    let mut name = Vec::new();
    for _ in 0..random.index(6) {
        let label = match random.index(12) {
            0 => {
                let len = 1 + random.index(63);
                random.octets(len)
            }
            1 => vec![b'L'; 63],
            _ => random.choice(&["www", "a", "example", "CoM", "_dns"]).as_bytes().to_vec(),
        };
        if name.len() + label.len() + 2 <= 255 {
            name.push(label.len() as u8);
            name.extend(label);
        }
    }
    name.push(0);
    Name::from_octets(name).unwrap()
}

/// `message` with one to three things wrong, if chance will not have it that nothing changes.
pub(crate) fn damaged(random: &mut Random, message: &[u8], corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut message = message.to_vec();
    for _ in 0..=random.index(3) {
        if message.is_empty() {
            break;
        }
        let at = random.index(message.len());
        match random.index(7) {
            0 => message[at] ^= 1 << random.index(8),
            1 => message[at] = random.next_u64() as u8,
            2 => message.truncate(at),
            3 => {
                // The counts decide what is read as what.
                let field = 4 + random.index(8);
                if let Some(count) = message.get_mut(field) {
                    *count = if field.is_multiple_of(2) { 0 } else { random.index(5) as u8 };
                }
            }
            4 => {
                let other = random.choice(corpus);
                let from = random.index(other.len());
                message.truncate(at);
                message.extend_from_slice(&other[from..]);
            }
            5 => {
                // A pointer, most likely to something.
                let target = 0xc000 | random.index(message.len() + 2).min(0x3fff) as u16;
                if let Some(field) = message.get_mut(at..at + 2) {
                    field.copy_from_slice(&target.to_be_bytes());
                }
            }
            _ => {
                let len = 1 + random.index(20);
                let inserted = random.octets(len);
                message.splice(at..at, inserted);
            }
        }
    }
    message
}

pub(crate) fn record_count(random: &mut Random) -> usize {
    match random.below(10) {
        0..5 => 0,
        5..9 => random.index(5),
        _ => random.index(60),
    }
}

/// Record data of any type, of those with a meaning here only if `is_odd`.
pub(crate) fn data(random: &mut Random, is_odd: bool) -> UnknownRecordData<Vec<u8>> {
    let rtype = match random.below(30) {
        0 if is_odd => 41,
        1 if is_odd => 250,
        2 if is_odd => 24,
        3 => random.next_u64() as u16 | 0x100,
        _ => random.pick(&[1, 28, 16, 48, 65, 24, 65_280]),
    };
    let data = match rtype {
        41 => options(random),
        24 if is_odd => vec![0; 20],
        24 => vec![1; 20],
        _ => {
            let len = if random.chance(50) { 300 } else { 40 };
            let len = random.index(len);
            random.octets(len)
        }
    };
    UnknownRecordData::from_octets(Rtype::from_int(rtype), data).unwrap()
}

/// The data of an OPT record, seldom with an option that overruns it.
pub(crate) fn options(random: &mut Random) -> Vec<u8> {
    let mut data = Vec::new();
    for _ in 0..random.below(3) {
        let len = if random.chance(100) { 700 } else { 20 };
        let len = random.index(len);
        data.extend_from_slice(&(random.below(20) as u16).to_be_bytes());
        data.extend_from_slice(&(len as u16).to_be_bytes());
        data.extend(random.octets(len));
    }
    if random.chance(33) {
        data.truncate(data.len().saturating_sub(1));
    }
    data
}
