//! What a server says in a TLS handshake, from its first octet on.

use std::io::{self, ErrorKind, Read};
use std::time::Instant;

use dot_proxy::tls::{self, Identity, KeyExchange, TlsLimits, TlsStream};

use super::Choices;

const LIMITS: TlsLimits =
    TlsLimits { output_max: 16 << 10, handshake_max: 10 << 10, tickets_max: 2 };

/// Octets that a server sends.
pub fn handshake(octets: &[u8]) {
    let mut stream = start();
    hello(&mut stream);
    answer(&mut stream, octets);
}

/// A server's share of the hybrid key exchange, its length in front, in a `ServerHello` that is right otherwise;
/// then what follows that.
pub fn share(octets: &[u8]) {
    const GROUP: u16 = 0x11ec;
    const AES_128_GCM: u16 = 0x1301;

    let mut choices = Choices::new(octets);
    let length = usize::from(choices.word()) % 16_000;
    let share = choices.take(length);
    let mut stream = start();
    let hello = hello(&mut stream);
    // Type, length, version and random are before it, in a record.
    let session = &hello[5 + 38..5 + 38 + 33];
    let word = |number: usize| (number as u16).to_be_bytes();
    let share = [&GROUP.to_be_bytes(), &word(share.len())[..], share].concat();
    let extensions = [&[0, 43, 0, 2, 3, 4, 0, 51], &word(share.len())[..], &share[..]].concat();
    let body = [
        &[3, 3][..],
        &[9; 32],
        session,
        &AES_128_GCM.to_be_bytes(),
        &[0],
        &word(extensions.len()),
        &extensions,
    ]
    .concat();
    let message = [&[2, 0], &word(body.len())[..], &body].concat();
    let record = [&[22, 3, 3], &word(message.len())[..], &message, choices.rest()].concat();
    answer(&mut stream, &record);
}

fn start() -> TlsStream {
    let server = Identity { name: Some("dot.example"), pins: &[], sni: true };
    let connectors =
        tls::connectors(&tls::Files::default(), [server].into_iter(), KeyExchange::Hybrid, LIMITS);
    let mut connectors = connectors.expect("roots that are built in");
    connectors.remove(0).start(Instant::now()).expect("a source of random octets")
}

/// The record that the stream begins with.
fn hello(stream: &mut TlsStream) -> Vec<u8> {
    let mut hello = Vec::new();
    assert_eq!(stream.flush(&mut hello), Ok(true));
    hello
}

/// What the stream makes of it: at most an error in words, never a handshake that is done.
fn answer(stream: &mut TlsStream, octets: &[u8]) {
    let mut wire = Wire(octets);
    while let Ok(progress) =
        stream.receive(&mut wire, 4_096, |_| panic!("nothing is authenticated"))
        && progress.more
    {}
    assert!(stream.handshake().is_none(), "nobody has a certificate");
    stream.close(&mut Vec::new());
}

/// Octets that have arrived; no more follow for now.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.0.read(out)
    }
}
