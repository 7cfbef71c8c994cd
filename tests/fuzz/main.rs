//! What the fuzzer does for hours (`cargo fuzz`, see tests/README.md), here for a few seconds on octets from
//! seeds.

use simulator::fuzz;

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn octets(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }
}

/// Runs a body on so many inputs, and tells the seed of one that panics; `FUZZ_SEED=n` runs that alone.
fn run(cases: u64, make: impl Fn(&mut Random) -> Vec<u8>, body: fn(&[u8])) {
    let one = std::env::var("FUZZ_SEED").ok();
    let one = one.map(|seed| seed.parse().expect("FUZZ_SEED is a decimal number"));
    let seeds = one.map_or(0..cases, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let told = Told(seed);
        let mut random = Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        body(&make(&mut random));
        drop(told);
    }
}

struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with FUZZ_SEED={}", self.0);
        }
    }
}

/// A message with a question, an OPT record and a few octets changed.
fn near_message(random: &mut Random) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for _ in 0..random.below(4) {
        let length = random.below(20) + 1;
        message.push(length as u8);
        message.extend((0..length).map(|_| random.next() as u8));
    }
    message.extend([0, 0, 1, 0, 1]);
    if random.below(3) == 0 {
        // A record that points back.
        message.extend([0xc0, 12, 0, 15, 0, 1, 0, 0, 0, 9, 0, 4, 0, 1, 0xc0, 12]);
        message[7] = 1;
    }
    message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    let options: Vec<u8> = (0..random.below(4))
        .flat_map(|_| {
            let code = [8, 10, 11, 12, 15, 99][random.below(6)];
            let data = random.octets(12);
            [&[0, code, 0, data.len() as u8][..], &data].concat()
        })
        .collect();
    message.extend((options.len() as u16).to_be_bytes());
    message.extend(options);
    for _ in 0..random.below(3) {
        let at = random.below(message.len());
        match random.below(3) {
            0 => message[at] = random.next() as u8,
            1 => message[at] ^= 1 << random.below(8),
            _ => message.truncate(at.max(1)),
        }
    }
    message
}

#[test]
fn message() {
    let make = |random: &mut Random| [vec![2, 0], near_message(random)].concat();
    run(100_000, make, fuzz::message);
    run(20_000, |random| random.octets(100), fuzz::message);
}

#[test]
fn edit() {
    let make = |random: &mut Random| {
        let query = near_message(random);
        let size = [512_u16, 1_232, 65_535][random.below(3)];
        let mut octets = vec![random.next() as u8];
        octets.extend(size.to_be_bytes());
        octets.extend((query.len() as u16).to_be_bytes());
        octets.extend(&query);
        // Flags, three counts, and three octets nobody reads.
        octets.extend([1, 0, random.below(3) as u8, 0, 1, 0, 0, 0]);
        for _ in 0..random.below(3) {
            octets.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]);
        }
        octets.extend([0, 0, 41, 4, 208, random.below(2) as u8, 0, 0, 0, 0, 5, 0, 12, 0, 1, 0]);
        octets
    };
    run(100_000, make, fuzz::edit);
}

#[test]
fn frame() {
    let make = |random: &mut Random| {
        let mut octets = random.octets(40);
        for _ in 0..random.below(6) {
            let message = random.octets(300);
            octets.extend((message.len() as u16).to_be_bytes());
            octets.extend(message);
        }
        octets
    };
    run(50_000, make, fuzz::frame);
}

#[test]
fn forwarder() {
    run(10_000, |random| random.octets(4_000), fuzz::forwarder);
}
