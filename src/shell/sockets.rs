//! The sockets of all connections in two tables, of clients and to upstreams, and what they work on.

use std::time::Instant;

use mio::event::Event;
use mio::net::TcpStream;

use super::client::ClientSocket;
use super::upstream::{UpstreamSocket, UpstreamTarget};
use crate::config::SocketLimits;
use crate::forwarder::{ClientId, ConnId, Forwarder, UpstreamConnId};
use crate::host::network::source::Source;

/// What a socket works on: the core, and what the loop shares between sockets.
pub(crate) struct Context {
    pub(crate) forwarder: Forwarder,
    /// When the turn of the loop began.
    pub(crate) now: Instant,
    /// Upstreams by [index](crate::forwarder::UpstreamIndex).
    pub(crate) targets: Vec<UpstreamTarget>,
    /// Where connections to them leave from.
    pub(crate) source: Source,
    /// A buffer that whatever is read goes through.
    pub(crate) buffer: Box<[u8]>,
    /// Connections to [acknowledge](UpstreamSocket::acknowledge) what was read on.
    pub(crate) unacknowledged: Vec<UpstreamConnId>,
    pub(crate) limits: SocketLimits,
}

/// The TCP socket of a connection.
pub(crate) trait Socket {
    type Id: Key;

    /// The connection whose socket it is.
    fn id(&self) -> Self::Id;

    /// The stream to register.
    fn source(&mut self) -> &mut TcpStream;

    /// Does what an event allows. True: there is more to read, to be asked for with [`Self::read`].
    fn handle_event(&mut self, cx: &mut Context, event: &Event) -> bool;

    /// Reads what is known to wait. True: there is still more.
    fn read(&mut self, cx: &mut Context) -> bool;

    /// Writes the core's output, as much as goes.
    fn write(&mut self, cx: &mut Context);
}

/// A name that the core gives to connections of one kind.
pub(crate) trait Key: Copy + Eq + Into<ConnId> {
    /// The place of the connection in the table of its kind.
    fn place(self) -> usize {
        let conn: ConnId = self.into();
        conn.key()
    }
}

impl Key for ClientId {}
impl Key for UpstreamConnId {}

/// The sockets of all connections.
#[derive(Default)]
pub(crate) struct Sockets {
    pub(crate) clients: Table<ClientSocket>,
    pub(crate) upstreams: Table<UpstreamSocket>,
}

impl Sockets {
    /// Reads what is known to wait. True: there is still more.
    pub(crate) fn read(&mut self, cx: &mut Context, conn: ConnId) -> bool {
        match conn {
            ConnId::Client(client) => self.clients.find(client).is_some_and(|it| it.read(cx)),
            ConnId::Upstream(conn) => self.upstreams.find(conn).is_some_and(|it| it.read(cx)),
        }
    }

    /// Writes the core's output, as much as goes.
    pub(crate) fn write(&mut self, cx: &mut Context, conn: ConnId) {
        match conn {
            ConnId::Client(client) => {
                if let Some(socket) = self.clients.find(client) {
                    socket.write(cx);
                }
            }
            ConnId::Upstream(conn) => {
                if let Some(socket) = self.upstreams.find(conn) {
                    socket.write(cx);
                }
            }
        }
    }
}

/// Sockets of one kind by the core's keys. A place is emptied when the core's close is taken, and the core
/// gives the key away only after that, so an event finds the socket it is for, or none.
pub(crate) struct Table<S>(Vec<Option<S>>);

impl<S> Default for Table<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S: Socket> Table<S> {
    pub(crate) fn insert(&mut self, socket: S) {
        let place = socket.id().place();
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || None);
        }
        self.0[place] = Some(socket);
    }

    /// The socket of a connection.
    pub(crate) fn find(&mut self, id: S::Id) -> Option<&mut S> {
        self.at(id.place()).filter(|socket| socket.id() == id)
    }

    /// The socket in this place.
    pub(crate) fn at(&mut self, place: usize) -> Option<&mut S> {
        self.0.get_mut(place)?.as_mut()
    }

    pub(crate) fn remove(&mut self, id: S::Id) -> Option<S> {
        self.find(id)?;
        self.0[id.place()].take()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &S> {
        self.0.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut S> {
        self.0.iter_mut().flatten()
    }
}

/// Octets of a place for a socket, and of notes that it is to be read and acknowledged, in lists that
/// double.
pub(crate) const OCTETS_EACH: usize = 2 * (SOCKET_OCTETS + 2 * size_of::<ConnId>());

/// Octets of the larger kind of socket; what TLS allocates is counted with its connection.
const SOCKET_OCTETS: usize = {
    let (client, upstream) =
        (size_of::<Option<ClientSocket>>(), size_of::<Option<UpstreamSocket>>());
    if client > upstream { client } else { upstream }
};
