//! Octets that wait to be written to a stream.

/// Octets to be written to one stream, in little more memory than they need.
#[derive(Debug)]
pub(crate) struct StreamOutput {
    bytes: Vec<u8>,
    written: usize,
    /// Memory that is kept when there is nothing to write.
    kept: usize,
}

impl StreamOutput {
    pub(crate) fn new(kept: usize) -> Self {
        Self { bytes: Vec::new(), written: 0, kept }
    }

    /// Octets of memory that `len` octets take at most.
    pub(crate) const fn octets(len: usize, kept: usize) -> usize {
        len + len / SLACK + kept + CHUNK
    }

    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets of memory that the output takes, used or not.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Where to append up to `most` octets.
    pub(crate) fn buffer(&mut self, most: usize) -> &mut Vec<u8> {
        if self.bytes.len() + most > self.bytes.capacity() {
            self.make_room(most);
        }
        &mut self.bytes
    }

    #[cold]
    fn make_room(&mut self, most: usize) {
        // Not for every small part that was written.
        if self.written > self.len() / (4 * SLACK) {
            self.drop_written();
        }
        let needed = self.bytes.len() + most;
        if needed > self.bytes.capacity() {
            // The buffer grows by a part of what it holds, so that many small answers are not moved each time.
            let capacity = (needed + self.bytes.len() / (2 * SLACK)).next_multiple_of(CHUNK);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
    }

    pub(crate) fn advance(&mut self, n: usize) {
        self.written = self.bytes.len().min(self.written + n);
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(self.kept);
            self.written = 0;
        } else if self.bytes.capacity() > Self::octets(self.len(), self.kept) {
            self.drop_written();
            let len = self.bytes.len();
            self.bytes.shrink_to((len + len / (2 * SLACK)).max(self.kept));
        }
    }

    fn drop_written(&mut self) {
        self.bytes.drain(..self.written);
        self.written = 0;
    }
}

/// The part of what a stream has to write that may be claimed on top of it.
const SLACK: usize = 8;

/// Memory is claimed in pieces of this size.
pub(crate) const CHUNK: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::Random;

    #[test]
    fn a_stream_keeps_what_was_not_written() {
        let mut output = StreamOutput::new(0);
        output.buffer(6).extend_from_slice(b"abcdef");
        output.advance(2);
        assert_eq!(output.pending(), b"cdef");
        output.advance(2);
        output.buffer(2).extend_from_slice(b"gh");
        assert_eq!(output.pending(), b"efgh");
        output.advance(4);
        assert!(output.is_empty());
    }

    #[test]
    fn a_large_answer_does_not_keep_its_memory() {
        let mut output = StreamOutput::new(4096);
        output.buffer(65_537).resize(65_537, 0);
        assert_eq!(output.capacity(), 65_537_usize.next_multiple_of(CHUNK));
        output.advance(65_537);
        assert!(output.capacity() <= 4096);
    }

    /// Whatever is appended and taken: no octet changes, and the memory stays within its bound.
    #[test]
    fn memory_follows_what_waits() {
        for seed in 0..32 {
            let mut random = Random::new(seed);
            let mut output = StreamOutput::new(2048);
            let (mut appended, mut taken) = (0_u64, 0_u64);
            for _ in 0..2000 {
                if random.below(3) > 0 {
                    let len = match random.below(20) {
                        0 => random.below(65_000),
                        _ => random.below(300),
                    };
                    let buffer = output.buffer(len as usize + 40);
                    buffer.extend((appended..appended + len).map(|n| n as u8));
                    appended += len;
                } else {
                    let len = random.below(output.len() as u64 + 1);
                    let pending = output.pending().iter().zip(taken..);
                    assert!(pending.take(len as usize).all(|(octet, n)| *octet == n as u8));
                    taken += len;
                    output.advance(len as usize);
                }
                assert_eq!(output.len() as u64, appended - taken);
                let most = StreamOutput::octets(output.len() + 40, 2048);
                assert!(output.capacity() <= most, "{} of {most}", output.capacity());
            }
        }
    }
}
