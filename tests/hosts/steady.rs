//! A client that goes on asking, whatever becomes of its queries.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use support::message::{A, NOERROR};
use support::server::LIMIT;
use support::{Query, Response};

/// A query and what became of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) sent: Instant,
    /// Until the response.
    pub(crate) delay: Duration,
    pub(crate) rcode: u16,
}

impl Asked {
    pub(crate) fn answered(&self) -> Instant {
        self.sent + self.delay
    }
}

/// Sends so many queries over UDP, one each `pace`, and gives them in that order once all have their
/// response. `before` is called with the number of each before it is sent.
#[track_caller]
pub(crate) fn ask_steadily(
    server: SocketAddr,
    count: u16,
    pace: Duration,
    mut before: impl FnMut(u16),
) -> Vec<Asked> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.connect(server).expect("a loopback address");
    let mut sent = Vec::new();
    let mut asked = vec![None; count.into()];
    let mut octets = [0; 4096];
    let mut next = Instant::now();
    let mut lost_at = next + LIMIT;
    while asked.contains(&None) {
        if sent.len() < asked.len() && next <= Instant::now() {
            let number = sent.len() as u16;
            before(number);
            let query = Query::new(&format!("steady{number}.example"), A).id(number).bytes();
            sent.push(Instant::now());
            socket.send(&query).expect("room for a datagram");
            next += pace;
            lost_at = Instant::now() + LIMIT;
        }
        let until = if sent.len() < asked.len() { next } else { lost_at };
        let wait = until.saturating_duration_since(Instant::now());
        // No time at all means to wait for ever.
        socket.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).expect("a time");
        match socket.recv(&mut octets) {
            Ok(len) => {
                let response = Response::read(&octets[..len]);
                let number = usize::from(response.id);
                let sent = *sent.get(number).expect("a response to what was asked");
                let reply = Asked { sent, delay: sent.elapsed(), rcode: response.rcode };
                let before = asked[number].replace(reply);
                assert!(before.is_none(), "a second response to query {number}");
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let missing = || asked.iter().filter(|one| one.is_none()).count();
                assert!(Instant::now() < lost_at, "{} queries have no response", missing());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("no datagram from {server}: {error}"),
        }
    }
    asked.into_iter().flatten().collect()
}

/// Every one has NOERROR. Gives the longest delay.
#[track_caller]
pub(crate) fn assert_all_answered(asked: &[Asked]) -> Duration {
    for (number, one) in asked.iter().enumerate() {
        assert_eq!(one.rcode, NOERROR, "query {number}: {one:?}");
    }
    asked.iter().map(|one| one.delay).max().expect("queries")
}
