//! Answers by datagram that wait to be sent.

use std::collections::VecDeque;

use super::DatagramPath;
use super::collections::output::CHUNK;

/// Datagrams to be sent, all in one buffer that is used again every turn.
#[derive(Debug)]
pub(super) struct DatagramOutput {
    bytes: Vec<u8>,
    datagrams: VecDeque<Datagram>,
    /// Octets of the datagrams; the others in `bytes` were sent.
    held: usize,
    bytes_max: usize,
    datagrams_max: usize,
}

#[derive(Debug)]
struct Datagram {
    path: DatagramPath,
    start: usize,
    len: usize,
}

impl DatagramOutput {
    /// An output for so many datagrams of so many octets together.
    pub(super) fn new(bytes_max: usize, datagrams_max: usize) -> Self {
        let datagrams = VecDeque::with_capacity(datagrams_max + 1);
        Self { bytes: Vec::new(), datagrams, held: 0, bytes_max, datagrams_max }
    }

    /// Octets of memory that the output takes at most; no datagram is longer than `longest`.
    pub(super) const fn octets(bytes_max: usize, datagrams_max: usize, longest: usize) -> usize {
        bytes_max + bytes_max / 4 + longest + CHUNK + (datagrams_max + 1) * size_of::<Datagram>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Adds the datagram of up to `most` octets that `write` appends to the buffer; returns its length.
    pub(super) fn push(
        &mut self,
        path: DatagramPath,
        most: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        if self.bytes.len() + most > self.bytes.capacity() {
            self.make_room(most);
        }
        let start = self.bytes.len();
        write(&mut self.bytes);
        let len = self.bytes.len() - start;
        self.datagrams.push_back(Datagram { path, start, len });
        self.held += len;
        len
    }

    /// Drops the oldest datagrams until no more are left than may be; returns how many were dropped.
    pub(super) fn shed(&mut self) -> u64 {
        let mut dropped = 0;
        while let Some(datagram) = self.datagrams.front()
            && (self.held > self.bytes_max || self.datagrams.len() > self.datagrams_max)
        {
            self.held -= datagram.len;
            self.datagrams.pop_front();
            dropped += 1;
        }
        dropped
    }

    #[cold]
    fn make_room(&mut self, most: usize) {
        let sent = self.bytes.len() - self.held;
        // Datagrams that were sent make room when they are a fifth of the buffer, so that no more than four octets
        // are moved for each that is pushed, however slowly a socket takes them.
        if sent >= self.bytes.len() / 5 {
            let mut end = 0;
            for datagram in &mut self.datagrams {
                let start = std::mem::replace(&mut datagram.start, end);
                self.bytes.copy_within(start..start + datagram.len, end);
                end += datagram.len;
            }
            self.bytes.truncate(end);
        }
        let needed = self.bytes.len() + most;
        if needed > self.bytes.capacity() {
            let len_max = self.bytes_max + self.bytes_max / 4 + most;
            let doubled = needed.max((2 * self.bytes.capacity()).min(len_max));
            self.bytes.reserve_exact(doubled.next_multiple_of(CHUNK) - self.bytes.len());
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (DatagramPath, &[u8])> {
        self.datagrams.iter().map(|datagram| {
            (datagram.path, &self.bytes[datagram.start..datagram.start + datagram.len])
        })
    }

    /// Drops the first `n` datagrams of this listener.
    pub(super) fn advance(&mut self, listener: u16, mut n: usize) {
        while n > 0
            && let Some(datagram) = self.datagrams.front()
            && datagram.path.listener == listener
        {
            self.held -= datagram.len;
            self.datagrams.pop_front();
            n -= 1;
        }
        if n > 0 {
            // Another listener takes nothing.
            let held = &mut self.held;
            self.datagrams.retain(|datagram| {
                let leaves = n > 0 && datagram.path.listener == listener;
                if leaves {
                    n -= 1;
                    *held -= datagram.len;
                }
                !leaves
            });
        }
        if self.datagrams.is_empty() {
            // The next turn starts from the front again and so uses the same memory.
            self.datagrams.clear();
            self.bytes.clear();
            self.bytes.shrink_to(DATAGRAMS_IDLE_BYTES_MAX);
        }
    }
}

/// Memory kept for datagrams: a turn's answers fit.
const DATAGRAMS_IDLE_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::forwarder::tests::Random;

    #[test]
    fn datagrams_take_no_more_memory_than_they_may() {
        for seed in 0..32 {
            let mut random = Random::new(seed);
            let mut output = DatagramOutput::new(20_000, 60);
            let places = output.datagrams.capacity();
            for _ in 0..3000 {
                if random.below(4) > 0 {
                    let longest = if random.below(8) == 0 { 4096 } else { 400 };
                    let len = random.below(longest) as usize;
                    let path = path(random.below(3) as u16);
                    output.push(path, 4096, |bytes| bytes.resize(bytes.len() + len, len as u8));
                    output.shed();
                } else {
                    output.advance(random.below(3) as u16, random.below(80) as usize);
                }
                assert!(output.iter().all(|(_, m)| m.iter().all(|&octet| octet == m.len() as u8)));
                assert!(output.iter().map(|(_, m)| m.len()).sum::<usize>() <= 20_000);
                assert!(output.datagrams.len() <= 60);
                assert!(output.bytes.capacity() <= 25_000 + 4096 + CHUNK);
                assert_eq!(output.datagrams.capacity(), places);
            }
        }
    }

    #[test]
    fn datagrams_leave_in_order_and_the_oldest_is_shed() {
        let mut output = DatagramOutput::new(12, 4);
        for text in ["one", "two", "three", "four"] {
            output.push(path(0), 5, |bytes| bytes.extend_from_slice(text.as_bytes()));
        }
        output.advance(0, 1);
        assert_eq!(texts(&output), ["two", "three", "four"]);
        assert_eq!(output.shed(), 0);
        output.push(path(0), 5, |bytes| bytes.push(b'5'));
        assert_eq!(output.shed(), 1, "13 octets");
        assert_eq!(texts(&output), ["three", "four", "5"]);
        output.push(path(0), 5, |bytes| bytes.push(b'6'));
        output.push(path(0), 5, |_| ());
        assert_eq!(output.shed(), 1, "five of them");
        assert_eq!(texts(&output), ["four", "5", "6", ""]);
        output.advance(0, 3);
        output.push(path(0), 5, |bytes| bytes.extend_from_slice(b"six"));
        output.advance(0, 1);
        output.push(path(0), 5, |bytes| bytes.extend_from_slice(b"seven"));
        assert_eq!(texts(&output), ["six", "seven"]);
        output.advance(0, 9);
        assert!(output.is_empty());
    }

    #[test]
    fn a_listener_that_takes_no_datagrams_holds_up_no_other() {
        let mut output = DatagramOutput::new(12, 8);
        for (listener, text) in [(1, "one"), (0, "two"), (1, "three"), (0, "4"), (2, "")] {
            output.push(path(listener), 5, |bytes| bytes.extend_from_slice(text.as_bytes()));
        }
        output.advance(0, 1);
        assert_eq!(texts(&output), ["one", "three", "4", ""]);
        output.advance(0, 8);
        output.advance(2, 1);
        assert_eq!(texts(&output), ["one", "three"]);
        output.push(path(0), 5, |bytes| bytes.extend_from_slice(b"five"));
        assert_eq!(output.shed(), 0, "datagrams that were sent do not count");
        output.push(path(0), 5, |bytes| bytes.push(b'6'));
        assert_eq!(output.shed(), 1, "13 octets");
        assert_eq!(texts(&output), ["three", "five", "6"]);
        output.advance(1, 1);
        output.advance(0, 1);
        assert_eq!(texts(&output), ["6"]);
    }

    #[test]
    fn a_listener_that_takes_nothing_has_few_octets_moved() {
        let mut output = DatagramOutput::new(100_000, 4_000);
        let (mut pushed, mut moved) = (0, 0);
        for _ in 0..20_000 {
            let before = output.bytes.len();
            output.push(path(0), 200, |bytes| bytes.resize(bytes.len() + 100, 1));
            if output.bytes.len() < before {
                moved += output.held;
            }
            output.shed();
            pushed += 100;
        }
        assert!(moved <= 5 * pushed, "{moved} octets moved for {pushed}");
    }

    fn texts(output: &DatagramOutput) -> Vec<&str> {
        output.iter().filter_map(|(_, bytes)| std::str::from_utf8(bytes).ok()).collect()
    }

    fn path(listener: u16) -> DatagramPath {
        let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 1024));
        DatagramPath { listener, client, local: None, interface: 0 }
    }
}
