//! Messages in a stream, each behind its length (RFC 1035 section 4.2.2).

/// What came of a message that is not complete.
#[derive(Default)]
pub(super) struct Frames {
    partial: Vec<u8>,
}

impl Frames {
    /// Gives each complete message in what came before and in `octets` to `sink`, behind its length.
    pub(super) fn receive(&mut self, mut octets: &[u8], mut sink: impl FnMut(&[u8])) {
        while !self.partial.is_empty() && !octets.is_empty() {
            let wanted = frame_len(&self.partial).unwrap_or(LENGTH_LEN);
            let (first, rest) = octets.split_at(octets.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(first);
            octets = rest;
            if frame_len(&self.partial) == Some(self.partial.len()) {
                sink(&self.partial);
                self.partial.clear();
            }
        }
        while let Some(len) = frame_len(octets)
            && let Some((frame, rest)) = octets.split_at_checked(len)
        {
            sink(frame);
            octets = rest;
        }
        self.partial.extend_from_slice(octets);
    }
}

/// The length of the frame that begins here, with that of its length.
fn frame_len(octets: &[u8]) -> Option<usize> {
    let length = octets.first_chunk::<LENGTH_LEN>()?;
    Some(LENGTH_LEN + usize::from(u16::from_be_bytes(*length)))
}

pub(super) const LENGTH_LEN: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_however_they_are_cut() {
        let messages: [&[u8]; 4] = [b"a", b"", b"bcd", b"efghi"];
        let stream: Vec<u8> =
            messages.iter().flat_map(|m| [&[0, m.len() as u8], *m].concat()).collect();
        for size in 1..=stream.len() {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for piece in stream.chunks(size) {
                frames.receive(piece, |frame| seen.push(frame[LENGTH_LEN..].to_vec()));
            }
            assert_eq!(seen, messages, "in pieces of {size}");
        }
    }
}
