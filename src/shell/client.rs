//! The socket of a client: it moves octets between the kernel and the core.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use mio::event::Event;
use mio::net::TcpStream;

use super::sockets::{Context, Socket};
use super::stream::Stream;
use crate::forwarder::{ClientId, Closed};
use crate::host::os_error::system_error;

/// The socket of a client.
pub(crate) struct ClientSocket {
    client: ClientId,
    stream: Stream,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The core knows of the end of the client's stream; the client may still be written to.
    HalfClosed,
    /// The core knows of a reset.
    Dead,
}

impl ClientSocket {
    /// The socket of a client that was accepted as `client`.
    pub(crate) fn new(client: ClientId, stream: TcpStream) -> Self {
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("client: TCP_NODELAY: {}", system_error(&error));
        }
        Self { client, stream: Stream::new(stream), state: State::Open }
    }

    /// Reads what waits, whether or not an event has told of something new. True: there is still more.
    pub(crate) fn read_unasked(&mut self, cx: &mut Context) -> bool {
        self.stream.readable = true;
        self.read(cx)
    }

    /// Tells the client that nothing more follows.
    pub(crate) fn shutdown_write(&self) {
        if let Err(error) = self.stream.tcp.shutdown(Shutdown::Write) {
            // The client is gone already, as reading will show.
            log::trace!("client: shutdown: {}", system_error(&error));
        }
    }

    /// Reads the end of the stream, if nothing else comes before it.
    fn look_for_end(&mut self, cx: &mut Context) {
        match self.stream.tcp.peek(&mut [0]) {
            Ok(0) => self.end(cx),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.reset(cx),
            Ok(_) | Err(_) => {}
        }
    }

    /// The client sends nothing more.
    fn end(&mut self, cx: &mut Context) {
        self.stream.readable = false;
        self.state = State::HalfClosed;
        cx.forwarder.handle_closed(cx.now, self.client.into(), Closed::Eof);
    }

    fn reset(&mut self, cx: &mut Context) {
        self.state = State::Dead;
        cx.forwarder.handle_closed(cx.now, self.client.into(), Closed::Reset);
    }
}

impl Socket for ClientSocket {
    type Id = ClientId;

    fn id(&self) -> ClientId {
        self.client
    }

    fn source(&mut self) -> &mut TcpStream {
        &mut self.stream.tcp
    }

    fn handle_event(&mut self, cx: &mut Context, event: &Event) -> bool {
        if self.state == State::HalfClosed && event.is_error() {
            self.reset(cx);
        }
        self.stream.handle_event(event);
        let more = self.read(cx);
        self.write(cx);
        more
    }

    fn read(&mut self, cx: &mut Context) -> bool {
        let mut budget = READ_MAX;
        while self.stream.readable && self.state == State::Open {
            // A client that may not be read stays readable: `Action::Read` will ask again.
            let len_max = cx.forwarder.poll_read(cx.now, self.client).min(cx.buffer.len());
            if len_max == 0 {
                // Nor is its end seen then, unless it is all that is left to read.
                if self.stream.ended {
                    self.look_for_end(cx);
                }
                return false;
            }
            if budget == 0 {
                return true;
            }
            match self.stream.tcp.read(&mut cx.buffer[..len_max]) {
                Ok(0) => self.end(cx),
                Ok(len) => {
                    budget = budget.saturating_sub(len);
                    // A short read has emptied the socket, as a `BurstReader` knows, too.
                    self.stream.readable = self.stream.ended || len == len_max;
                    cx.forwarder.handle_stream(cx.now, self.client.into(), &cx.buffer[..len]);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => self.stream.readable = false,
                    _ => self.reset(cx),
                },
            }
        }
        false
    }

    fn write(&mut self, cx: &mut Context) {
        while !self.stream.blocked && self.state != State::Dead {
            let output = cx.forwarder.output(self.client.into());
            if output.is_empty() {
                return;
            }
            match self.stream.writer(cx.limits.segment_max).write(output) {
                Ok(len) => cx.forwarder.advance_output(cx.now, self.client.into(), len),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => self.stream.blocked = true,
                    _ => self.reset(cx),
                },
            }
        }
    }
}

/// Octets read from one client before the others get their turn.
const READ_MAX: usize = 64 * 1024;
