//! Clients that connect.

use std::time::Duration;

use mio::net::TcpStream;

use super::{Reactor, log_unserved};
use crate::forwarder::ClientId;
use crate::shell::client::ClientSocket;
use crate::shell::sockets::Socket;

impl Reactor {
    pub(super) fn accept_clients(&mut self, max: usize) {
        if self.accept_again.is_some_and(|at| self.cx.now < at) {
            return;
        }
        self.accept_again = None;
        let first = self.accept_from;
        let mut declined = None;
        for index in (first..self.listeners.len()).chain(0..first) {
            for accepted in 0..max {
                if !self.listeners[index].is_acceptable() {
                    break;
                }
                let only_host = self.listeners[index].is_for_host();
                if !self.cx.forwarder.poll_accept(self.cx.now, only_host) {
                    // A listener that had a place in this turn is the last in the next. Another may be served
                    // although this one is not: of this host's clients and of others not the same are let in.
                    declined.get_or_insert(index + usize::from(accepted > 0));
                    break;
                }
                match self.listeners[index].accept(self.cx.now) {
                    Ok(None) => break,
                    Ok(Some((stream, peer))) => {
                        log_unserved(&self.cx.forwarder, peer);
                        if let Some(client) = self.cx.forwarder.handle_accept(self.cx.now, peer) {
                            self.insert_client(client, stream);
                        }
                        // The core may have closed another for this one: its descriptor is needed.
                        self.act();
                    }
                    Err(_) => {
                        // Most likely no descriptor is free, and trying at once would only spin.
                        self.accept_again = Some(self.cx.now + ACCEPT_PAUSE);
                        break;
                    }
                }
            }
        }
        if let Some(next) = declined {
            self.accept_from = next % self.listeners.len();
        }
        for only_host in [false, true] {
            let mut waiting = self.listeners.iter().filter(|it| it.is_acceptable());
            if !waiting.any(|listener| listener.is_for_host() == only_host) {
                self.cx.forwarder.handle_none_waiting(only_host);
            }
        }
    }

    fn insert_client(&mut self, client: ClientId, stream: TcpStream) {
        let mut socket = ClientSocket::new(client, stream);
        if self.register(client.into(), socket.source()) {
            self.sockets.clients.insert(socket);
        }
    }
}

/// Clients accepted from one listener before the others get their turn.
pub(super) const ACCEPTS_MAX: usize = 64;

/// The pause before clients are accepted again, when no descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
