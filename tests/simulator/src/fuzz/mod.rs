//! What is done with octets that a fuzzer made. Each body panics when something does not hold.

mod edit;
mod forwarder;
mod frames;
mod handshake;
mod message;

pub use edit::edit;
pub use forwarder::forwarder;
pub use frames::frame;
pub use handshake::{handshake, share};
pub use message::message;

/// Octets from the front, 0 when there are no more.
pub struct Choices<'a> {
    octets: &'a [u8],
}

impl<'a> Choices<'a> {
    pub fn new(octets: &'a [u8]) -> Self {
        Self { octets }
    }

    pub fn is_over(&self) -> bool {
        self.octets.is_empty()
    }

    pub fn octet(&mut self) -> u8 {
        let (first, rest) = self.octets.split_first().unwrap_or((&0, &[]));
        self.octets = rest;
        *first
    }

    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.octet(), self.octet()])
    }

    /// At most so many octets.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.octets.split_at(most.min(self.octets.len()));
        self.octets = rest;
        taken
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.octets)
    }
}
