//! What a `ClientHello` offers (RFC 8446 section 4.1.2).

const HANDSHAKE: u8 = 22;

pub struct Hello {
    pub suites: Vec<u16>,
    pub compression: Vec<u8>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    /// From the records it came in.
    pub fn read(mut records: &[u8]) -> Option<Self> {
        let mut message = Vec::new();
        while let [HANDSHAKE, _, _, high, low, rest @ ..] = records {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            message.extend(rest.get(..length)?);
            records = &rest[length..];
        }
        // Type, length, version and random.
        let mut rest = message.get(38..)?;
        let _session = vector(&mut rest, 1)?;
        let suites = vector(&mut rest, 2)?;
        let compression = vector(&mut rest, 1)?.to_vec();
        let mut all = vector(&mut rest, 2)?;
        let mut extensions = Vec::new();
        while let [high, low, rest @ ..] = all {
            all = rest;
            extensions.push((u16::from_be_bytes([*high, *low]), vector(&mut all, 2)?.to_vec()));
        }
        let suites = words(suites);
        Some(Self { suites, compression, extensions })
    }

    pub fn extension(&self, number: u16) -> Option<&[u8]> {
        self.extensions.iter().find(|(seen, _)| *seen == number).map(|(_, data)| &data[..])
    }

    /// The versions of the extension that has them (RFC 8446 section 4.2.1).
    pub fn versions(&self) -> Option<Vec<u16>> {
        let mut data = self.extension(43)?;
        Some(words(vector(&mut data, 1)?))
    }

    /// The groups of key exchanges (RFC 8446 section 4.2.7).
    pub fn groups(&self) -> Option<Vec<u16>> {
        let mut data = self.extension(10)?;
        Some(words(vector(&mut data, 2)?))
    }

    /// The groups of its shares, and their lengths (RFC 8446 section 4.2.8).
    pub fn shares(&self) -> Option<Vec<(u16, usize)>> {
        let mut data = self.extension(51)?;
        let mut all = vector(&mut data, 2)?;
        let mut shares = Vec::new();
        while let [high, low, rest @ ..] = all {
            all = rest;
            shares.push((u16::from_be_bytes([*high, *low]), vector(&mut all, 2)?.len()));
        }
        Some(shares)
    }

    /// The first ticket (RFC 8446 section 4.2.11).
    pub fn ticket(&self) -> Option<Vec<u8>> {
        let mut data = self.extension(41)?;
        let mut identities = vector(&mut data, 2)?;
        Some(vector(&mut identities, 2)?.to_vec())
    }
}

/// Takes a vector whose length has this many octets.
fn vector<'a>(from: &mut &'a [u8], length_octets: usize) -> Option<&'a [u8]> {
    let length = from.get(..length_octets)?;
    let length = length.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
    let data = from.get(length_octets..length_octets + length)?;
    *from = &from[length_octets + length..];
    Some(data)
}

fn words(octets: &[u8]) -> Vec<u16> {
    octets.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]])).collect()
}
