//! What TCP knows of the path of a connection.
#![allow(unsafe_code, reason = "TCP_INFO has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What TCP waits for on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Segments that were sent, and are sent again or known to be lost.
    lost: u32,
    /// Segments that ever came before one that was sent earlier.
    out_of_order: u32,
}

impl Path {
    /// As TCP sees it now (tcp(7), `TCP_INFO`). What an old kernel does not tell is 0.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let mut info = [0_u32; WORDS];
        let mut len = size_of_val(&info) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` octets to `info`, which is so long and outlives the call, and their
        // number to `len`. Any octets are numbers.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self::read(&info))
    }

    fn read(info: &[u32; WORDS]) -> Self {
        let [_, _, retransmits, _] = info[0].to_ne_bytes();
        let [sacked, lost, again] = [info[SACKED], info[SACKED + 1], info[SACKED + 2]];
        let lost = u32::from(retransmits) + sacked + lost + again;
        Self { lost, out_of_order: info[OUT_OF_ORDER] }
    }

    /// Whether a segment is missing, where the last look saw `earlier`. Without one, what came out of order may have
    /// done so long ago.
    pub(crate) fn is_losing(self, earlier: Option<Self>) -> bool {
        let is_news = |earlier: Self| self.out_of_order > earlier.out_of_order;
        self.lost > 0 || earlier.is_some_and(is_news)
    }
}

/// Octets 28 to 40 of `struct tcp_info`: `tcpi_sacked`, `tcpi_lost` and `tcpi_retrans`.
const SACKED: usize = 7;

/// Octets 224 to 228: `tcpi_rcv_ooopack`, since Linux 5.4.
const OUT_OF_ORDER: usize = 56;

const WORDS: usize = OUT_OF_ORDER + 1;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_connection_on_loopback_loses_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let stream = TcpStream::connect(address).expect("it listens");
        let path = Path::of(stream.as_fd()).expect("TCP tells");
        assert_eq!(path, Path { lost: 0, out_of_order: 0 });
        assert!(!path.is_losing(None));
    }

    #[test]
    fn what_is_not_tcp_is_an_error() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        assert!(Path::of(socket.as_fd()).is_err());
    }

    #[test]
    fn segments_that_were_missing_before_count_no_more() {
        let seen = |lost, out_of_order| {
            let mut info = [0; WORDS];
            (info[SACKED + 1], info[OUT_OF_ORDER]) = (lost, out_of_order);
            Path::read(&info)
        };
        assert!(seen(1, 0).is_losing(Some(seen(1, 0))), "it is not there yet");
        assert!(!seen(0, 3).is_losing(None));
        assert!(seen(0, 3).is_losing(Some(seen(0, 2))));
        assert!(!seen(0, 3).is_losing(Some(seen(0, 3))));
    }

    #[test]
    fn what_is_sent_again_is_lost() {
        let mut info = [0; WORDS];
        info[0] = u32::from_ne_bytes([1, 0, 2, 0]);
        assert!(Path::read(&info).is_losing(None));
    }
}
