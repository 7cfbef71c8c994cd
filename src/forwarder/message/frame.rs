//! DNS messages on a stream: each after its length in two octets (RFC 1035 section 4.2.2).

/// Cuts a stream into messages.
///
/// The pieces of a stream may end anywhere, within the length too (RFC 7766 section 8).
#[derive(Debug, Default)]
pub struct Deframer {
    /// The start of a frame whose rest has not arrived, with its length; or the whole frame that
    /// the last call handed out.
    partial: Vec<u8>,
    handed_out: bool,
}

impl Deframer {
    /// Takes the next whole message off the front of `input`.
    ///
    /// `None`: all of `input` was taken and the rest of a frame, if one began, has to arrive. An
    /// empty frame is an empty message. A message that lies wholly in `input` is not copied.
    pub fn next<'m, 'i: 'm>(&'m mut self, input: &mut &'i [u8]) -> Option<&'m [u8]> {
        if self.handed_out {
            self.handed_out = false;
            self.partial.clear();
            self.partial.shrink_to(KEPT_CAPACITY_MAX);
        }
        if self.partial.is_empty()
            && let Some((message, rest)) = split(input)
        {
            *input = rest;
            return Some(message);
        }
        if input.is_empty() {
            return None;
        }
        self.fill(input, LENGTH_LEN);
        let length = self.partial.first_chunk()?;
        let frame_len = LENGTH_LEN + usize::from(u16::from_be_bytes(*length));
        self.fill(input, frame_len);
        if self.partial.len() < frame_len {
            return None;
        }
        self.handed_out = true;
        Some(&self.partial[LENGTH_LEN..])
    }

    /// Octets held of a frame that is not complete, those of its length included; 0 between frames.
    pub fn partial_len(&self) -> usize {
        if self.handed_out { 0 } else { self.partial.len() }
    }

    /// Octets of memory that the deframer takes, used or not.
    pub(crate) fn capacity(&self) -> usize {
        self.partial.capacity()
    }

    /// Octets missing of a frame that is not complete, if its length is known.
    pub(crate) fn missing(&self) -> Option<usize> {
        let length = self.partial.first_chunk().filter(|_| !self.handed_out)?;
        let frame_len = LENGTH_LEN + usize::from(u16::from_be_bytes(*length));
        Some(frame_len.saturating_sub(self.partial.len()))
    }

    /// The first field of the message that is not complete, its ID, how many octets of its frame
    /// arrived, and how many there will be.
    pub(crate) fn begun(&self) -> Option<(u16, usize, usize)> {
        let [l0, l1, i0, i1] = *self.partial.first_chunk().filter(|_| !self.handed_out)?;
        let frame_len = LENGTH_LEN + usize::from(u16::from_be_bytes([l0, l1]));
        Some((u16::from_be_bytes([i0, i1]), self.partial.len(), frame_len))
    }

    /// Moves octets from `input` until `frame_len` are held.
    fn fill(&mut self, input: &mut &[u8], frame_len: usize) {
        let held = self.partial.len();
        let missing = frame_len.saturating_sub(held);
        let (taken, rest) = input.split_at(missing.min(input.len()));
        *input = rest;
        let needed = held + taken.len();
        if needed > self.partial.capacity() {
            // The buffer grows with the octets that arrived, so that a length alone claims no memory; by a
            // part of them, so that little is claimed for nothing; and not past the end of the frame.
            let some_more = needed + needed / GROWTH + GROWTH_MIN;
            self.partial.reserve_exact(frame_len.min(some_more) - held);
        }
        self.partial.extend_from_slice(taken);
    }
}

/// Appends what `write` appends as one frame. It must not be longer than 65,535 octets.
pub fn append_with(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_LEN]);
    write(out);
    let message_len = out.len() - start - LENGTH_LEN;
    debug_assert!(u16::try_from(message_len).is_ok(), "{message_len} octets in one frame");
    out[start..start + LENGTH_LEN].copy_from_slice(&(message_len as u16).to_be_bytes());
}

/// The first message of `input` and what follows it, if the message is whole.
fn split(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Octets of the length in front of each message.
pub const LENGTH_LEN: usize = 2;

/// A message of any length fits behind its two octets of length (RFC 1035 section 4.2.2).
pub(crate) const FRAME_LEN_MAX: usize = LENGTH_LEN + 65_535;

/// A buffer grows by this part of what it holds.
pub(crate) const GROWTH: usize = 8;

/// A buffer grows by these octets on top.
pub(crate) const GROWTH_MIN: usize = 512;

/// Octets of the buffer for partial frames that stay with a connection: enough for the messages seen every
/// day, and little beside the connection itself.
pub(crate) const KEPT_CAPACITY_MAX: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunking_gives_the_same_messages() {
        let messages: [&[u8]; 5] = [b"", b"a", b"bcd", b"", b"ef"];
        let stream = frames(&messages);
        // Bit i of `cuts` cuts before octet i + 1.
        for cuts in 0_u32..1 << (stream.len() - 1) {
            let mut deframer = Deframer::default();
            let mut found = Vec::new();
            let mut start = 0;
            for end in 1..=stream.len() {
                if end < stream.len() && cuts & (1 << (end - 1)) == 0 {
                    continue;
                }
                let mut input = &stream[start..end];
                while let Some(message) = deframer.next(&mut input) {
                    found.push(message.to_vec());
                }
                assert!(input.is_empty(), "cuts {cuts:#b}");
                let before = boundary_before(&messages, end);
                assert_eq!(
                    deframer.partial_len(),
                    end - before,
                    "cuts {cuts:#b}, after {end} octets"
                );
                let length = stream[before..end].first_chunk().map(|l| u16::from_be_bytes(*l));
                let missing =
                    length.map(|length| LENGTH_LEN + usize::from(length) - (end - before));
                assert_eq!(deframer.missing(), missing, "cuts {cuts:#b}, after {end} octets");
                start = end;
            }
            assert_eq!(found, messages, "cuts {cuts:#b}");
        }
    }

    #[test]
    fn chunks_of_every_size_give_the_same_messages() {
        let long = vec![7; 3_000];
        let longest = vec![8; 65_535];
        let messages: [&[u8]; 4] = [&long, b"", &longest, b"short"];
        let stream = frames(&messages);
        for size in (1..300).chain([4_096, 16_384, 70_000]) {
            let mut deframer = Deframer::default();
            let mut found = 0;
            for mut input in stream.chunks(size) {
                while let Some(message) = deframer.next(&mut input) {
                    assert!(message == messages[found], "chunks of {size}, message {found}");
                    found += 1;
                }
            }
            assert_eq!(found, messages.len(), "chunks of {size}");
            assert_eq!(deframer.partial_len(), 0);
        }
    }

    #[test]
    fn whole_messages_are_not_copied() {
        let stream = frames(&[b"first", b"second"]);
        let mut deframer = Deframer::default();
        let mut input = &stream[..];

        let first = deframer.next(&mut input).unwrap();
        assert!(std::ptr::eq(first, &raw const stream[2..7]));
        let second = deframer.next(&mut input).unwrap();
        assert!(std::ptr::eq(second, &raw const stream[9..]));
        assert_eq!(deframer.partial.capacity(), 0);
    }

    #[test]
    fn memory_follows_what_arrived() {
        let stream = frames(&[&vec![1; 60_000], b"next"]);
        let mut deframer = Deframer::default();
        let mut input = &stream[..3];
        assert_eq!(deframer.next(&mut input), None);
        assert!(deframer.partial.capacity() <= 4 + GROWTH_MIN);

        for mut input in stream[3..60_001].chunks(1_000) {
            assert_eq!(deframer.next(&mut input), None);
            let len = deframer.partial.len();
            assert!(deframer.partial.capacity() <= len + len / GROWTH + GROWTH_MIN);
            assert!(deframer.partial.capacity() <= 60_002);
        }
        let mut input = &stream[60_001..];
        assert_eq!(deframer.next(&mut input).map(<[u8]>::len), Some(60_000));
        assert_eq!(deframer.partial_len(), 0, "nothing is missing of a message handed out");
        assert_eq!(deframer.next(&mut input), Some(&b"next"[..]));
        assert_eq!(deframer.next(&mut input), None);
        assert!(deframer.partial.capacity() <= KEPT_CAPACITY_MAX);
    }

    #[test]
    fn frames_are_appended_behind_what_is_there() {
        let mut out = b"before".to_vec();
        append(&mut out, b"abc");
        append_with(&mut out, |_| ());
        assert_eq!(out, b"before\0\x03abc\0\0");
    }

    fn frames(messages: &[&[u8]]) -> Vec<u8> {
        let mut stream = Vec::new();
        for message in messages {
            append(&mut stream, message);
        }
        stream
    }

    /// Where the last frame ends that lies wholly in the first `end` octets.
    fn boundary_before(messages: &[&[u8]], end: usize) -> usize {
        let ends = messages.iter().scan(0, |at, message| {
            *at += LENGTH_LEN + message.len();
            Some(*at)
        });
        ends.take_while(|at| *at <= end).last().unwrap_or(0)
    }

    fn append(out: &mut Vec<u8>, message: &[u8]) {
        append_with(out, |out| out.extend_from_slice(message));
    }
}
