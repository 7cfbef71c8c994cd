//! Datagrams of clients, from and to the listeners.

use std::io;
use std::net::SocketAddr;

use super::{Reactor, log_unserved};
use crate::forwarder::DatagramPath;
use crate::shell::listener::Listener;
use crate::shell::origin::Origin;
use crate::shell::sockets::Context;

impl Reactor {
    /// Sends the core's datagrams, those of each listener in order. A listener that takes no more holds up
    /// its own alone: answers to sources that nobody has wait in the kernel until the link layer gives up.
    pub(super) fn send_datagrams(&mut self) -> io::Result<()> {
        while let Some(listener) = self.next_sender() {
            let index = usize::from(listener);
            let datagrams = self.cx.forwarder.datagrams();
            let batch = datagrams.filter(|(path, _)| path.listener == listener);
            let registry = self.poll.registry();
            let (now, token) = (self.cx.now, Origin::Udp(index).token());
            let buffers = &mut self.datagrams;
            let sent = self.listeners[index].send(now, registry, token, buffers, batch)?;
            self.cx.forwarder.advance_datagrams(listener, sent.taken, sent.skipped);
        }
        Ok(())
    }

    /// The listener that has the oldest datagram to send, of those that take datagrams.
    fn next_sender(&self) -> Option<u16> {
        let mut listeners = self.cx.forwarder.datagrams().map(|(path, _)| path.listener);
        listeners.find(|index| !self.listeners[usize::from(*index)].is_blocked())
    }

    pub(super) fn receive_datagrams(&mut self, batches_max: usize) {
        let Context { forwarder, now, .. } = &mut self.cx;
        for listener in &mut self.listeners {
            if listener.is_readable() {
                let mut own = 0;
                let sink = |path: DatagramPath, message: &[u8], truncated| {
                    if is_from_listener(&self.addresses, path) {
                        own += 1;
                        return;
                    }
                    log_unserved(forwarder, path.client);
                    forwarder.handle_datagram(*now, path, message, truncated);
                };
                let ignored = listener.receive(*now, &mut self.datagrams, batches_max, sink);
                forwarder.handle_ignored_datagrams(ignored + own);
            }
        }
    }

    pub(super) fn log_receive_buffer(&self) {
        let Some(granted) = self.listeners.iter().map(Listener::receive_buffer).min() else {
            return;
        };
        let asked = self.cx.limits.datagram_receive_asked;
        if granted < asked {
            log::info!(
                "UDP receive buffer: {granted} octets granted of {asked}; \
                 net.core.rmem_max limits it"
            );
        } else {
            log::debug!("UDP receive buffer: {granted} octets");
        }
    }
}

/// Whether a datagram says that it comes from a listener, so that its answer would be a query: from its
/// address and port, or from its port at the address that was asked, or at loopback, where it has all
/// addresses.
fn is_from_listener(listeners: &[SocketAddr], path: DatagramPath) -> bool {
    let source = path.client;
    listeners.iter().filter(|own| own.port() == source.port()).any(|own| {
        let is_here = path.local == Some(source.ip()) || source.ip().is_loopback();
        own.ip() == source.ip() || own.ip().is_unspecified() && is_here
    })
}

/// Batches received from one listener before the others get their turn.
pub(super) const BATCHES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_from_a_listener_is_known_by_address_and_port() {
        let listeners =
            ["127.0.0.1:53", "10.0.0.1:53", "[fd00::1]:53", "0.0.0.0:5300", "[::]:5300"];
        let listeners = listeners.map(|text| text.parse().expect("an address"));
        for (source, local, expected) in [
            ("10.0.0.1:53", Some("10.0.0.1"), true),
            ("10.0.0.1:53", Some("127.0.0.1"), true),
            ("[fd00::1]:53", None, true),
            ("127.0.0.1:53", None, true),
            // Another port, or another host's.
            ("10.0.0.1:54", Some("10.0.0.1"), false),
            ("10.0.0.9:53", Some("10.0.0.1"), false),
            ("127.0.0.2:53", None, false),
            // Of a listener on all addresses: the one that was asked, and loopback.
            ("10.0.0.2:5300", Some("10.0.0.2"), true),
            ("127.9.9.9:5300", Some("10.0.0.2"), true),
            ("[::1]:5300", Some("fd00::2"), true),
            ("[fd00::2]:5300", Some("fd00::2"), true),
            ("10.0.0.9:5300", Some("10.0.0.2"), false),
            ("10.0.0.2:5301", Some("10.0.0.2"), false),
        ] {
            let client = source.parse().expect("an address");
            let local = local.map(|local| local.parse().expect("an address"));
            let path = DatagramPath { listener: 0, client, local, interface: 1 };
            assert_eq!(is_from_listener(&listeners, path), expected, "{source} to {local:?}");
        }
    }
}
