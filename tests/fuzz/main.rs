//! What the fuzzer does for hours (`cargo fuzz`, see tests/README.md), here for a few seconds on octets from
//! seeds.

use simulator::fuzz;
use support::Query;
use support::message::{self, A, AAAA, MX};
use support::private::{HTTPS, SVCB};
use support::random::{Random, for_each_case};

/// A message with a question, an OPT record and a few octets changed.
fn near_message(random: &mut Random) -> Vec<u8> {
    let labels: Vec<_> = (0..random.below(4))
        .map(|_| {
            let length = random.within(1, 20);
            random.octets(length)
        })
        .collect();
    let labels: Vec<_> = labels.iter().map(Vec::as_slice).collect();
    let mut query = Query::new("", A).labels(&labels).opt(1232);
    for _ in 0..random.below(4) {
        let code = random.pick(&[8, 10, 11, 12, 15, 99]);
        query = query.option(code, &some_octets(random, 12));
    }
    let mut message = query.bytes();
    if random.below(3) == 0 {
        // A record that points back.
        let end = message::question_end(&message).expect("a query");
        message.splice(end..end, message::record(MX, &[0, 1, 0xc0, 12]));
        message[7] = 1;
    }
    for _ in 0..random.below(3) {
        let at = random.index(message.len());
        match random.below(3) {
            0 => message[at] = random.next_u64() as u8,
            1 => message[at] ^= 1 << random.below(8),
            _ => message.truncate(at.max(1)),
        }
    }
    message
}

/// Less than `most` octets.
fn some_octets(random: &mut Random, most: usize) -> Vec<u8> {
    let length = random.index(most);
    random.octets(length)
}

/// Runs a body on so many inputs.
fn run(name: &'static str, cases: u64, make: impl Fn(&mut Random) -> Vec<u8>, body: fn(&[u8])) {
    for_each_case(name, cases, |random| body(&make(random)));
}

#[test]
fn message() {
    let make = |random: &mut Random| [vec![2, 0], near_message(random)].concat();
    run("message", 100_000, make, fuzz::message);
    run("message", 20_000, |random| some_octets(random, 100), fuzz::message);
}

/// A record with an address, of the name asked for, of one below it, or of another.
fn some_record(random: &mut Random) -> Vec<u8> {
    let v4: [u8; 4] = random.pick(&[[1, 2, 3, 4], [10, 0, 0, 1], [127, 0, 0, 1], [8, 8, 8, 8]]);
    let mut v6: [u8; 16] = random.pick(&[
        *b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
        *b"\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01",
        *b"\0\0\0\0\0\0\0\0\0\0\xff\xff\0\0\0\0",
        *b"\0\x64\xff\x9b\0\0\0\0\0\0\0\0\0\0\0\0",
        *b"\x20\x01\0\0\0\0\0\0\0\0\x5e\xfe\0\0\0\0",
        [0; 16],
    ]);
    if v6[12..] == [0; 4] {
        v6[12..].copy_from_slice(&v4);
    }
    let hint = |key: u8, hint: &[u8]| {
        [&[0, 1, 0, 0, 1, 0, 1, b'h', 0, key, 0, hint.len() as u8][..], hint].concat()
    };
    let (rtype, mut data) = match random.below(5) {
        0 | 1 => (A, v4.to_vec()),
        2 => (AAAA, v6.to_vec()),
        3 => (HTTPS, hint(4, &v4)),
        _ => (SVCB, hint(6, &v6)),
    };
    if random.below(20) == 0 {
        data.pop();
    }
    let owner: &[u8] = random.pick(&[&[0xc0, 12][..], &[1, b'x', 0xc0, 12], &[0]]);
    let [high, low] = rtype.to_be_bytes();
    let fixed = [high, low, 0, 1, 0, 0, 0, 9, 0, data.len() as u8];
    [owner, &fixed, &data].concat()
}

#[test]
fn edit() {
    let make = |random: &mut Random| {
        let query = near_message(random);
        let size = random.pick(&[512_u16, 1_232, 65_535]);
        let mut octets = vec![random.next_u64() as u8];
        octets.extend(size.to_be_bytes());
        octets.extend((query.len() as u16).to_be_bytes());
        octets.extend(&query);
        // Flags, three counts, and three octets nobody reads.
        let counts = [0; 3].map(|_| random.below(3) as u8);
        octets.extend([1, 0, counts[0], counts[1], counts[2] + 1, 0, 0, 0]);
        for _ in 0..counts.iter().sum() {
            octets.extend(some_record(random));
        }
        octets.extend([0, 0, 41, 4, 208, random.below(2) as u8, 0, 0, 0, 0, 5, 0, 12, 0, 1, 0]);
        octets
    };
    run("edit", 100_000, make, fuzz::edit);
}

#[test]
fn frame() {
    let make = |random: &mut Random| {
        let mut octets = some_octets(random, 40);
        for _ in 0..random.below(6) {
            let message = some_octets(random, 300);
            octets.extend((message.len() as u16).to_be_bytes());
            octets.extend(message);
        }
        octets
    };
    run("frame", 50_000, make, fuzz::frame);
}

#[test]
fn forwarder() {
    run("forwarder", 10_000, |random| some_octets(random, 4_000), fuzz::forwarder);
}

/// Records, most of them of a handshake, with lengths that are right.
fn records(random: &mut Random) -> Vec<u8> {
    let mut octets = Vec::new();
    for _ in 0..random.within(1, 4) {
        let mut body = some_octets(random, 300);
        if random.below(2) == 0 {
            let length = (body.len() as u16).to_be_bytes();
            body = [&[random.pick(&[2, 4, 8, 11, 20]), 0], &length[..], &body].concat();
        }
        octets.extend([random.pick(&[20, 21, 22, 22, 22, 23]), 3, 3]);
        octets.extend((body.len() as u16).to_be_bytes());
        octets.extend(body);
    }
    octets
}

#[test]
fn handshake() {
    run("handshake", 3_000, records, fuzz::handshake);
    run("handshake", 1_000, |random| some_octets(random, 4_000), fuzz::handshake);
}

#[test]
fn share() {
    let make = |random: &mut Random| {
        let length =
            random.pick(&[0, 1, 32, 1_088, 1_119, 1_120, 1_120, 1_120, 1_121, 1_216, 9_000]);
        let mut octets = (length as u16).to_be_bytes().to_vec();
        octets.extend(random.octets(length));
        if random.below(4) == 0 {
            octets[2..].fill(random.next_u64() as u8);
        }
        octets.extend(records(random));
        octets
    };
    run("share", 3_000, make, fuzz::share);
}
