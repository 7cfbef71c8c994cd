//! Reading a socket with few system calls.

use std::io::{self, ErrorKind, Read};

/// What a socket holds at the moment, through a buffer, so that a reader who takes little at a time
/// costs few system calls.
///
/// A read that does not fill the buffer has emptied the socket, and epoll tells of whatever comes
/// later: nothing is gained by asking for that, which would be as many calls again. There are two
/// exceptions, and whoever knows of one reads on: the end of the stream is not told twice, and a read
/// ends at urgent data, whatever is behind it.
pub(crate) struct Burst<'a, R> {
    io: &'a mut R,
    buffer: &'a mut [u8],
    /// What of the buffer is still to be taken.
    start: usize,
    end: usize,
    /// Octets that may still be read from the socket.
    budget: usize,
    to_the_end: bool,
    more: bool,
}

impl<'a, R: Read> Burst<'a, R> {
    /// At most `max` octets and a bufferful. `to_the_end`: an event has told of an end, an error
    /// or urgent data.
    pub(crate) fn new(io: &'a mut R, buffer: &'a mut [u8], max: usize, to_the_end: bool) -> Self {
        Self { io, buffer, start: 0, end: 0, budget: max, to_the_end, more: true }
    }

    /// The socket may hold more, and no event will tell.
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }
}

impl<R: Read> Read for Burst<'_, R> {
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Gives what it is told to, then would block; counts the calls.
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
            // Up to the bound and what the buffer holds.
            (&[8, 8, 8, 8], false, 24, 3, true),
        ];
        for (gives, to_the_end, octets, calls, more) in cases {
            let mut socket = Socket { gives: gives.iter().copied().collect(), calls: 0 };
            let mut buffer = [0; 8];
            let mut burst = Burst::new(&mut socket, &mut buffer, 20, to_the_end);
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
}
