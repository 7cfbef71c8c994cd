//! TCP streams: what epoll has said of them, reading with few system calls, and writing so that the
//! kernel holds little more than it was asked to.

use std::io::{self, ErrorKind, Read, Write};

use mio::event::Event;
use mio::net::TcpStream;
use rustix::net::{SendFlags, send};

/// A TCP stream and its readiness: epoll reports edges, so whether more may be read, and whether the last
/// write was refused, is remembered here.
pub(crate) struct Stream {
    pub(crate) tcp: TcpStream,
    /// A read may find something.
    pub(crate) readable: bool,
    /// An event has told of the end of the stream, of an error or of urgent data: a short read does not
    /// say that nothing is left.
    pub(crate) ended: bool,
    /// The kernel takes no more octets until an event says otherwise.
    pub(crate) blocked: bool,
    /// Octets of the segment that has begun.
    begun: usize,
}

impl Stream {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp, readable: false, ended: false, blocked: false, begun: 0 }
    }

    /// Takes note of what an event allows.
    pub(crate) fn handle_event(&mut self, event: &Event) {
        // An error or hang-up is found by reading. Urgent data, which no DNS program sends, ends a read
        // early: what is behind it would wait for ever.
        let ended = event.is_read_closed() || event.is_error() || event.is_priority();
        self.ended |= ended;
        self.readable |= ended || event.is_readable();
        self.blocked &= !event.is_writable();
    }

    /// A writer of segments of up to `segment_max` octets.
    pub(crate) fn writer(&mut self, segment_max: usize) -> SegmentWriter<'_> {
        SegmentWriter { stream: &self.tcp, begun: &mut self.begun, segment_max }
    }
}

/// What a socket holds at the moment, read through a buffer, so that a reader who takes little at a time
/// costs few system calls.
///
/// A read that does not fill the buffer has emptied the socket, and epoll tells of whatever comes
/// later: to ask for that gains nothing, and would be as many calls again. There are two exceptions, and
/// whoever knows of one reads on: the end of the stream is not told twice, and a read ends at urgent
/// data, whatever is behind it.
pub(crate) struct BurstReader<'a, R> {
    io: &'a mut R,
    buffer: &'a mut [u8],
    /// The part of the buffer that is still to be taken.
    start: usize,
    end: usize,
    /// Octets that may still be read from the socket.
    budget: usize,
    to_the_end: bool,
    more: bool,
}

impl<'a, R: Read> BurstReader<'a, R> {
    /// A reader of at most `max` octets and a bufferful. `to_the_end`: an event has told of an end, an
    /// error or urgent data.
    pub(crate) fn new(io: &'a mut R, buffer: &'a mut [u8], max: usize, to_the_end: bool) -> Self {
        Self { io, buffer, start: 0, end: 0, budget: max, to_the_end, more: true }
    }

    /// Whether the socket may hold more, of which no event will tell.
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }
}

impl<R: Read> Read for BurstReader<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end {
            if !self.more || self.budget == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let len = match self.io.read(self.buffer) {
                Ok(len) => len,
                Err(error) => {
                    self.more = error.kind() == ErrorKind::Interrupted;
                    return Err(error);
                }
            };
            self.more = self.to_the_end || len == self.buffer.len();
            self.budget = self.budget.saturating_sub(len);
            (self.start, self.end) = (0, len);
        }
        let len = out.len().min(self.end - self.start);
        out[..len].copy_from_slice(&self.buffer[self.start..self.start + len]);
        self.start += len;
        Ok(len)
    }
}

/// A stream that is written to in segments of bounded length.
///
/// The kernel looks at the limit of a send buffer before it begins a new segment, and lets the last one
/// grow to 64 KiB whatever the limit is. So a segment is ended before that (`MSG_EOR`): the buffer is
/// passed by one segment at most. Small writes still share one.
pub(crate) struct SegmentWriter<'a> {
    stream: &'a TcpStream,
    /// Octets of the segment that has begun.
    begun: &'a mut usize,
    segment_max: usize,
}

impl Write for SegmentWriter<'_> {
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
pub(crate) const SEGMENT_BOOKKEEPING: usize = 2048;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net;

    use super::*;

    /// A socket that gives what it is told to, then would block, and counts the calls.
    struct Socket {
        gives: VecDeque<usize>,
        calls: usize,
    }

    impl Read for Socket {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.calls += 1;
            let len = self.gives.pop_front().ok_or(ErrorKind::WouldBlock)?;
            out[..len].fill(7);
            Ok(len)
        }
    }

    #[test]
    fn a_read_that_does_not_fill_the_buffer_is_the_last() {
        // What the socket gives, whether its end was told, and what is taken, in how many calls.
        type Case = (&'static [usize], bool, usize, usize, bool);
        let cases: [Case; 6] = [
            (&[], false, 0, 1, false),
            (&[5], false, 5, 1, false),
            (&[8, 8, 3], false, 19, 3, false),
            (&[8, 8], false, 16, 3, false),
            // An end, after octets and without any.
            (&[5, 0], true, 5, 2, true),
            // Octets up to the bound and what the buffer holds.
            (&[8, 8, 8, 8], false, 24, 3, true),
        ];
        for (gives, to_the_end, octets, calls, more) in cases {
            let mut socket = Socket { gives: gives.iter().copied().collect(), calls: 0 };
            let mut buffer = [0; 8];
            let mut burst = BurstReader::new(&mut socket, &mut buffer, 20, to_the_end);
            let mut taken = 0;
            let mut out = [0; 3];
            while let Ok(len @ 1..) = burst.read(&mut out) {
                assert_eq!(out[..len], [7; 3][..len]);
                taken += len;
            }
            assert_eq!((taken, burst.has_more()), (octets, more), "{gives:?}");
            assert_eq!(socket.calls, calls, "{gives:?}");
        }
    }

    #[test]
    fn octets_arrive_in_order_however_they_are_written() {
        let octets: Vec<u8> = (0..=250).cycle().take(1 << 18).collect();
        for piece in [1, 100, 4_095, 4_096, 4_097, 100_000] {
            let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut stream = Stream::new(TcpStream::from_std(stream));

            let (mut written, mut read) = (0, vec![0; octets.len()]);
            let mut received = 0;
            while received < octets.len() {
                let end = octets.len().min(written + piece);
                match stream.writer(4096).write(&octets[written..end]) {
                    Ok(len) => {
                        assert!(len > 0 || written == octets.len());
                        written += len;
                        assert_eq!(stream.begun, written % 4096);
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
