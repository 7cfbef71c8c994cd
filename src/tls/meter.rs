//! What servers make rustls hold.

use std::io::{self, Read};

/// Counts of what a server has sent.
///
/// rustls holds all of a message until it is complete, and a note of each record that a part of it came
/// in; it sets no limit to the notes, and 64 KiB to the message.
#[derive(Debug, Default)]
pub(super) struct Meter {
    octets: usize,
    /// Records begun.
    records: usize,
    tickets: usize,
    left: Left,
}

/// What is left of the record that has begun.
#[derive(Clone, Copy, Debug)]
enum Left {
    /// So many octets of the header are there; the last two of the header are the length of the record.
    Header(usize, [u8; 2]),
    /// So many octets of the body are missing.
    Body(usize),
}

impl Default for Left {
    fn default() -> Self {
        Self::Header(0, [0; 2])
    }
}

impl Meter {
    /// Counts from zero again: what was counted is used up.
    pub(super) fn reset(&mut self) {
        self.octets = 0;
        self.records = 0;
        self.tickets = 0;
    }

    /// Counts so many more tickets.
    pub(super) fn note_tickets(&mut self, tickets: usize) {
        self.tickets += tickets;
    }

    /// Octets since the last [`Self::reset`].
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// Whether more came than may, of which `octets_max` is the limit in octets.
    pub(super) fn is_over(&self, octets_max: usize) -> bool {
        self.octets > octets_max || self.records > RECORDS_MAX || self.tickets > RECORDS_MAX
    }

    fn note(&mut self, mut octets: &[u8]) {
        self.octets += octets.len();
        while let Some((&first, rest)) = octets.split_first() {
            match &mut self.left {
                Left::Header(there, length) => {
                    self.records += usize::from(*there == 0);
                    *there += 1;
                    *length = [length[1], first];
                    octets = rest;
                    if *there == RECORD_HEADER_LEN {
                        self.left = Left::Body(u16::from_be_bytes(*length).into());
                    }
                }
                Left::Body(left) => {
                    let taken = octets.len().min(*left);
                    *left -= taken;
                    octets = &octets[taken..];
                }
            }
            if matches!(self.left, Left::Body(0)) {
                self.left = Left::default();
            }
        }
    }
}

/// A reader that gives a few octets at a time, so that what they make rustls hold is looked at in between.
pub(super) struct Metered<'a, R> {
    io: &'a mut R,
    meter: &'a mut Meter,
    octets_max: usize,
}

impl<'a, R> Metered<'a, R> {
    /// A reader that gives no more than one octet above `octets_max`.
    pub(super) fn new(io: &'a mut R, meter: &'a mut Meter, octets_max: usize) -> Self {
        Self { io, meter, octets_max }
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.octets_max.saturating_sub(self.meter.octets) + 1;
        let len_max = out.len().min(READ_MAX).min(left);
        let len = self.io.read(&mut out[..len_max])?;
        self.meter.note(&out[..len]);
        Ok(len)
    }
}

/// Octets of the header of a record (RFC 8446 section 5.1).
const RECORD_HEADER_LEN: usize = 5;

/// Octets that rustls makes room for at a time.
pub(super) const READ_MAX: usize = 4096;

/// Octets received since the last answer, at most: a record of the greatest length whose end is missing
/// (RFC 5246 section 6.2.3 allows 18,437), and a few tickets.
pub(super) const UNUSED_MAX: usize = 18_944;

/// TLS records of a handshake, or since the last answer, at most: ordinary servers send ten.
pub(super) const RECORDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_however_they_are_cut() {
        let record =
            |len: u16| [&[23, 3, 3], &len.to_be_bytes()[..], &vec![0xff; len.into()]].concat();
        let stream = [record(1), record(0), record(700), record(5), record(16_640)].concat();
        for piece in [1, 2, 3, 5, 6, 7, 600, 5_000, 50_000] {
            let mut meter = Meter::default();
            for octets in stream[..stream.len() - 1].chunks(piece) {
                meter.note(octets);
            }
            assert_eq!((meter.octets(), meter.records), (stream.len() - 1, 5), "{piece}");
            meter.reset();
            meter.note(&[0xff, 23]);
            assert_eq!((meter.octets(), meter.records), (2, 1), "{piece}");
        }
    }
}
