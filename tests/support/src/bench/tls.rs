//! What both ends of a TLS connection have in common: octets in, octets out, as few calls as may be.

use std::io::{self, BufRead, Read, Write};

use mio::net::TcpStream;
use rustls::{ConnectionCommon, SideData};

/// What a socket came to.
#[derive(PartialEq, Eq)]
pub(super) enum Ready {
    Open,
    Closed,
}

/// Reads what waits and gives what it decrypts to `sink`. `buffer` is scratch memory; a read that does
/// not fill it is the last.
pub(super) fn receive<D: SideData>(
    tls: &mut ConnectionCommon<D>,
    socket: &mut TcpStream,
    buffer: &mut [u8],
    mut sink: impl FnMut(&[u8]),
) -> io::Result<Ready> {
    loop {
        let len = match socket.read(buffer) {
            Ok(0) => return Ok(Ready::Closed),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Ready::Open),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut rest = &buffer[..len];
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let mut reader = tls.reader();
            while let Ok(chunk) = reader.fill_buf()
                && !chunk.is_empty()
            {
                let len = chunk.len();
                sink(chunk);
                reader.consume(len);
            }
            if state.peer_has_closed() {
                return Ok(Ready::Closed);
            }
        }
        if len < buffer.len() {
            return Ok(Ready::Open);
        }
    }
}

/// Writes what waits, as far as the socket takes it.
pub(super) fn flush<D: SideData>(
    tls: &mut ConnectionCommon<D>,
    socket: &mut TcpStream,
) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The same for octets that are not encrypted; what was written is taken from the front.
pub(super) fn write(socket: &mut impl Write, octets: &mut Vec<u8>) -> io::Result<()> {
    let mut written = 0;
    let mut result = Ok(());
    while written < octets.len() {
        match socket.write(&octets[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    octets.drain(..written);
    result
}

/// Octets read at once: what waits on a connection is rarely more.
pub(super) const READ_MAX: usize = 1 << 16;
