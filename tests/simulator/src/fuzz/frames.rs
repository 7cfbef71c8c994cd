//! A stream is cut into messages, in pieces of any size.

use super::Choices;
use dot_proxy::forwarder::message::frame::{Deframer, LENGTH_LEN, append_with};

/// How many pieces, their lengths, then the stream.
pub fn frame(octets: &[u8]) {
    let mut choices = Choices::new(octets);
    let count = choices.octet();
    let lengths: Vec<_> = (0..count).map(|_| usize::from(choices.octet())).collect();
    let stream = choices.rest();

    // All at once, by another way of counting.
    let mut expected = Vec::new();
    let mut rest = stream;
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length));
        let Some(message) = behind.get(..length) else { break };
        expected.push(message.to_vec());
        rest = &behind[length..];
    }

    let mut deframer = Deframer::default();
    let mut messages = Vec::new();
    let mut left = stream;
    let mut lengths = lengths.into_iter();
    while !left.is_empty() {
        let length = lengths.next().unwrap_or(left.len()).clamp(1, left.len());
        let (mut piece, behind) = left.split_at(length);
        left = behind;
        while let Some(message) = deframer.next(&mut piece) {
            messages.push(message.to_vec());
        }
        assert!(piece.is_empty(), "everything is taken");
    }
    assert_eq!(messages, expected);
    assert_eq!(deframer.partial_len(), rest.len());

    let mut again = Vec::new();
    for message in &messages {
        append_with(&mut again, |out| out.extend_from_slice(message));
    }
    assert_eq!(again, stream[..stream.len() - rest.len()]);
    assert_eq!(again.len(), messages.iter().map(|m| LENGTH_LEN + m.len()).sum::<usize>());
}
