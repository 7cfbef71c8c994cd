//! Messages as clients and servers make them, or nearly so.

use domain::base::iana::{Class, Rtype};
use domain::base::message_builder::{HashCompressor, StaticCompressor, TreeCompressor};
use domain::base::name::Name;
use domain::base::rdata::UnknownRecordData;
use domain::base::wire::Composer;
use domain::base::{MessageBuilder, ToName as _, Ttl};
use domain::dep::octseq::OctetsBuilder;
use domain::rdata::{Cname, Mx};

use super::random::Random;

/// A message with QR=0 as clients and servers make them, or nearly so.
pub(crate) fn generated(random: &mut Random) -> Vec<u8> {
    match random.below(4) {
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
    builder.header_mut().set_id(random.next() as u16);
    let header = builder.header_mut();
    header.set_rd(random.chance(1, 2));
    header.set_cd(random.chance(1, 4));
    header.set_ad(random.chance(1, 4));
    header.set_tc(random.chance(1, 8));
    header.set_rcode(domain::base::iana::Rcode::checked_from_int(random.below(6) as u8).unwrap());
    if random.chance(1, 20) {
        header.set_opcode(domain::base::iana::Opcode::UPDATE);
    }
    let mut builder = builder.question();
    let questions = if random.chance(1, 20) { random.below(3) } else { 1 };
    for _ in 0..questions {
        let qtype = *random.choice(&[1, 1, 1, 15, 16, 28, 65, 251, 252, 255, 65_280]);
        builder.push((random.choice(&names), Rtype::from_int(qtype), Class::IN)).unwrap();
    }
    let is_odd = random.chance(1, 4);
    let mut builder = builder.answer();
    for _ in 0..random.record_count() {
        let (owner, ttl) = (random.choice(&names), Ttl::from_secs(random.next() as u32));
        match random.below(4) {
            0 => builder.push((owner, ttl, Cname::new(random.choice(&names)))).unwrap(),
            1 => builder.push((owner, ttl, Mx::new(10, random.choice(&names)))).unwrap(),
            _ => builder.push((owner, ttl, random.data(is_odd))).unwrap(),
        }
    }
    let mut builder = builder.authority();
    for _ in 0..random.record_count() {
        builder.push((random.choice(&names), Ttl::HOUR, random.data(is_odd))).unwrap();
    }
    let mut builder = builder.additional();
    for _ in 0..random.record_count() / 2 {
        builder.push((random.choice(&names), Ttl::HOUR, random.data(is_odd))).unwrap();
    }
    let root = Name::<Vec<u8>>::root_vec();
    if random.chance(2, 3) {
        let owner =
            if random.chance(1, 30) { random.choice(&names).to_name() } else { root.clone() };
        let class = Class::from_int(*random.choice(&[0, 511, 512, 1_232, 4_096, 65_535]));
        let version = u32::from(random.chance(1, 10));
        let extended = u32::from(random.chance(1, 10));
        let ttl = extended << 24 | version << 16 | (random.next() as u32 & 0xffff);
        let data = random.options();
        let data = UnknownRecordData::from_octets(Rtype::OPT, data).unwrap();
        builder.push((owner, class, Ttl::from_secs(ttl), data)).unwrap();
    }
    if random.chance(1, 5) {
        builder.push((random.choice(&names), Ttl::HOUR, random.data(is_odd))).unwrap();
    }
    if random.chance(1, 6) {
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
    for _ in 0..random.below(6) {
        let label = match random.below(12) {
            0 => {
                let len = 1 + random.below(63);
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
    for _ in 0..=random.below(3) {
        if message.is_empty() {
            break;
        }
        let at = random.below(message.len());
        match random.below(7) {
            0 => message[at] ^= 1 << random.below(8),
            1 => message[at] = random.next() as u8,
            2 => message.truncate(at),
            3 => {
                // The counts decide what is read as what.
                let field = 4 + random.below(8);
                if let Some(count) = message.get_mut(field) {
                    *count = if field.is_multiple_of(2) { 0 } else { random.below(5) as u8 };
                }
            }
            4 => {
                let other = random.choice(corpus);
                let from = random.below(other.len());
                message.truncate(at);
                message.extend_from_slice(&other[from..]);
            }
            5 => {
                // A pointer, most likely to something.
                let target = 0xc000 | random.below(message.len() + 2).min(0x3fff) as u16;
                if let Some(field) = message.get_mut(at..at + 2) {
                    field.copy_from_slice(&target.to_be_bytes());
                }
            }
            _ => {
                let len = 1 + random.below(20);
                let inserted = random.octets(len);
                message.splice(at..at, inserted);
            }
        }
    }
    message
}
