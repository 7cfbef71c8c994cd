//! What is to be written, until it is.

use std::collections::VecDeque;

use super::DatagramPath;

/// Octets to be written to one stream.
#[derive(Debug, Default)]
pub(super) struct StreamOutput {
    bytes: Vec<u8>,
    written: usize,
}

impl StreamOutput {
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where to append.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        // What was written is moved over only when it is the larger part, so that a peer that takes
        // little at a time costs no copy of everything each time.
        if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        &mut self.bytes
    }

    pub(super) fn advance(&mut self, n: usize) {
        self.written = self.bytes.len().min(self.written + n);
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(STREAM_IDLE_BYTES_MAX);
            self.written = 0;
        }
    }
}

/// Datagrams to be sent, all in one buffer that is used again every turn.
#[derive(Debug, Default)]
pub(super) struct DatagramOutput {
    bytes: Vec<u8>,
    datagrams: VecDeque<Datagram>,
}

#[derive(Debug)]
struct Datagram {
    path: DatagramPath,
    start: usize,
    len: usize,
}

impl DatagramOutput {
    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Adds the datagram that `write` appends to the buffer; returns its length.
    pub(super) fn push(&mut self, path: DatagramPath, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let first = self.datagrams.front().map_or(self.bytes.len(), |datagram| datagram.start);
        if first > self.bytes.len() / 2 {
            self.bytes.drain(..first);
            for datagram in &mut self.datagrams {
                datagram.start -= first;
            }
        }
        let start = self.bytes.len();
        write(&mut self.bytes);
        let len = self.bytes.len() - start;
        self.datagrams.push_back(Datagram { path, start, len });
        len
    }

    /// Drops the oldest until at most `bytes_max` octets are left; returns how many.
    pub(super) fn shed(&mut self, bytes_max: usize) -> u64 {
        let mut dropped = 0;
        while let Some(datagram) = self.datagrams.front()
            && self.bytes.len() - datagram.start > bytes_max
        {
            self.datagrams.pop_front();
            dropped += 1;
        }
        dropped
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (DatagramPath, &[u8])> {
        self.datagrams.iter().map(|datagram| {
            (datagram.path, &self.bytes[datagram.start..datagram.start + datagram.len])
        })
    }

    pub(super) fn advance(&mut self, n: usize) {
        self.datagrams.drain(..n.min(self.datagrams.len()));
        if self.datagrams.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(DATAGRAMS_IDLE_BYTES_MAX);
        }
    }
}

/// Memory an empty stream keeps: a turn's queries to an upstream fit; what one 64 KiB answer took is
/// given back.
const STREAM_IDLE_BYTES_MAX: usize = 16 * 1024;

/// Memory kept for datagrams: a turn's answers fit.
const DATAGRAMS_IDLE_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    #[test]
    fn a_stream_keeps_what_was_not_written() {
        let mut output = StreamOutput::default();
        output.buffer().extend_from_slice(b"abcdef");
        output.advance(2);
        assert_eq!(output.pending(), b"cdef");
        output.advance(2);
        output.buffer().extend_from_slice(b"gh");
        assert_eq!(output.pending(), b"efgh");
        output.advance(4);
        assert!(output.is_empty());
    }

    #[test]
    fn a_large_answer_does_not_keep_its_memory() {
        let mut output = StreamOutput::default();
        output.buffer().resize(65_537, 0);
        output.advance(65_537);
        assert!(output.bytes.capacity() <= STREAM_IDLE_BYTES_MAX);
    }

    #[test]
    fn datagrams_leave_in_order_and_the_oldest_is_shed() {
        let mut output = DatagramOutput::default();
        for text in ["one", "two", "three", "four"] {
            output.push(path(), |bytes| bytes.extend_from_slice(text.as_bytes()));
        }
        output.advance(1);
        assert_eq!(texts(&output), ["two", "three", "four"]);
        assert_eq!(output.shed(9), 1);
        assert_eq!(texts(&output), ["three", "four"]);
        output.push(path(), |bytes| bytes.extend_from_slice(b"five"));
        output.push(path(), |bytes| bytes.extend_from_slice(b"six"));
        assert_eq!(texts(&output), ["three", "four", "five", "six"]);
        output.advance(3);
        output.push(path(), |bytes| bytes.extend_from_slice(b"seven"));
        assert_eq!(texts(&output), ["six", "seven"]);
        output.advance(9);
        assert!(output.is_empty());
    }

    fn texts(output: &DatagramOutput) -> Vec<&str> {
        output.iter().filter_map(|(_, bytes)| std::str::from_utf8(bytes).ok()).collect()
    }

    fn path() -> DatagramPath {
        let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 1024));
        DatagramPath { listener: 0, client, local: None, interface: 0 }
    }
}
