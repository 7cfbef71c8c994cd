//! Writing to TCP so that the kernel holds little more than it was asked to.

use std::io::{self, Write};

use mio::net::TcpStream;
use rustix::net::{SendFlags, send};

/// A stream that is written to in segments of bounded length.
///
/// The kernel looks at the limit of a send buffer before it begins a new segment, and lets the last one
/// grow to 64 KiB whatever the limit is. So a segment is ended before that (`MSG_EOR`): the buffer is
/// passed by one segment at most. Small writes still share one.
pub(crate) struct Outgoing<'a> {
    stream: &'a TcpStream,
    begun: &'a mut usize,
    segment_max: usize,
}

impl<'a> Outgoing<'a> {
    /// `begun`: the octets of the segment that has begun, to be kept for the stream; 0 at first.
    pub(crate) fn new(stream: &'a TcpStream, begun: &'a mut usize, segment_max: usize) -> Self {
        Self { stream, begun, segment_max }
    }
}

impl Write for Outgoing<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let room = self.segment_max - *self.begun;
        let (octets, flags) = if octets.len() < room {
            (octets, SendFlags::empty())
        } else {
            (&octets[..room], SendFlags::EOR)
        };
        let len = send(self.stream, octets, flags | SendFlags::NOSIGNAL)?;
        *self.begun = (*self.begun + len) % self.segment_max;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the kernel counts for a segment beside its octets: 704 today.
pub(crate) const BOOKKEEPING: usize = 2048;

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net;

    use super::*;

    #[test]
    fn octets_arrive_in_order_however_they_are_written() {
        let octets: Vec<u8> = (0..=250).cycle().take(1 << 18).collect();
        for piece in [1, 100, 4_095, 4_096, 4_097, 100_000] {
            let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let stream = TcpStream::from_std(stream);

            let (mut begun, mut written, mut read) = (0, 0, vec![0; octets.len()]);
            let mut received = 0;
            while received < octets.len() {
                let end = octets.len().min(written + piece);
                match Outgoing::new(&stream, &mut begun, 4096).write(&octets[written..end]) {
                    Ok(len) => {
                        assert!(len > 0 || written == octets.len());
                        written += len;
                        assert_eq!(begun, written % 4096);
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                if written == octets.len() || written % 7 == 0 {
                    received += peer.read(&mut read[received..written]).unwrap();
                }
            }
            assert!(read == octets, "pieces of {piece}");
        }
    }
}
