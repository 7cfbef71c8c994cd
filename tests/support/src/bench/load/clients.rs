//! The sockets that ask.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::Instant;

use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};

use super::window::client_and_id;
use super::{Plan, Transport};
use crate::bench::datagrams::{BATCH_MAX, Batch, Received};
use crate::bench::frames::{Frames, LENGTH_LEN};
use crate::bench::queries::Queries;
use crate::bench::tls::{READ_MAX, write};

pub(super) struct Clients {
    target: SocketAddr,
    queries: Queries,
    sockets: Sockets,
}

enum Sockets {
    Udp { sockets: Vec<UdpSocket>, received: Received, batch: Batch },
    Tcp { connections: Vec<Connection>, buffer: Box<[u8]> },
}

struct Connection {
    socket: TcpStream,
    frames: Frames,
    output: Vec<u8>,
}

impl Clients {
    /// Connects them; the token of each is its number.
    pub(super) fn new(plan: &Plan, queries: Queries, registry: &Registry) -> io::Result<Self> {
        let target = plan.target;
        let clients = 0..usize::from(plan.clients);
        let sockets = match plan.transport {
            Transport::Udp => Sockets::Udp {
                sockets: clients
                    .map(|number| {
                        let mut socket = connect_datagrams(target, number)?;
                        registry.register(&mut socket, Token(number), Interest::READABLE)?;
                        Ok(socket)
                    })
                    .collect::<io::Result<_>>()?,
                received: Received::new(),
                batch: Batch::new(),
            },
            Transport::Tcp => Sockets::Tcp {
                connections: clients
                    .map(|number| Connection::open(target, registry, number))
                    .collect::<io::Result<_>>()?,
                buffer: vec![0; READ_MAX].into(),
            },
        };
        Ok(Self { target, queries, sockets })
    }

    /// Gives what waits for a client to `sink`, with the time; false if its connection is closed.
    pub(super) fn receive(
        &mut self,
        client: usize,
        mut sink: impl FnMut(Instant, &[u8]),
    ) -> io::Result<bool> {
        match &mut self.sockets {
            Sockets::Udp { sockets, received, .. } => loop {
                let count = match received.receive(&sockets[client]) {
                    Ok(count) => count,
                    // What was sent found nobody, and is lost.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                    Err(error) => return Err(error),
                };
                let now = Instant::now();
                for number in 0..count {
                    sink(now, received.datagram(number).1);
                }
                if count < BATCH_MAX {
                    return Ok(true);
                }
            },
            Sockets::Tcp { connections, buffer } => {
                let Connection { socket, frames, .. } = &mut connections[client];
                loop {
                    match socket.read(buffer) {
                        Ok(0) => return Ok(false),
                        Ok(len) => {
                            let now = Instant::now();
                            frames.receive(&buffer[..len], |frame| sink(now, &frame[LENGTH_LEN..]));
                            if len < buffer.len() {
                                return Ok(true);
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(_) => return Ok(false),
                    }
                }
            }
        }
    }

    /// Sends the queries of these numbers, and tells when each went.
    pub(super) fn ask(&mut self, numbers: Range<u64>, mut sent: impl FnMut(u64, Instant)) {
        let count = match &self.sockets {
            Sockets::Udp { sockets, .. } => sockets.len(),
            Sockets::Tcp { connections, .. } => connections.len(),
        };
        for start in numbers.clone().take(count) {
            let (client, _) = client_and_id(start, count as u64);
            let now = Instant::now();
            for number in (start..numbers.end).step_by(count) {
                let (_, id) = client_and_id(number, count as u64);
                let message = match &mut self.sockets {
                    Sockets::Udp { batch, .. } => batch.push(self.queries.message()),
                    Sockets::Tcp { connections, .. } => {
                        let output = &mut connections[client].output;
                        let start = output.len() + LENGTH_LEN;
                        output.extend_from_slice(self.queries.frame());
                        &mut output[start..]
                    }
                };
                Queries::set(message, id, number);
                sent(number, now);
            }
            self.flush(client);
        }
    }

    /// Sends what waits. What cannot be sent is lost, and counted as such when its time is over; a
    /// connection that is closed says so when it is read.
    pub(super) fn flush(&mut self, client: usize) {
        match &mut self.sockets {
            Sockets::Udp { sockets, batch, .. } => {
                batch.send(&sockets[client]);
            }
            Sockets::Tcp { connections, .. } => {
                let Connection { socket, output, .. } = &mut connections[client];
                write(socket, output).ok();
            }
        }
    }

    /// Opens a connection anew; what was in flight on it is lost.
    pub(super) fn reconnect(&mut self, client: usize, registry: &Registry) -> io::Result<()> {
        if let Sockets::Tcp { connections, .. } = &mut self.sockets {
            connections[client] = Connection::open(self.target, registry, client)?;
        }
        Ok(())
    }
}

impl Connection {
    fn open(target: SocketAddr, registry: &Registry, number: usize) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
        if let Some(source) = source(target, number) {
            socket.bind(&source.into())?;
        }
        socket.connect(&target.into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket.into());
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut socket, Token(number), both)?;
        Ok(Self { socket, frames: Frames::default(), output: Vec::new() })
    }
}

fn connect_datagrams(target: SocketAddr, number: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(target), Type::DGRAM, None)?;
    if let Some(source) = source(target, number) {
        socket.bind(&source.into())?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.connect(&target.into())?;
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket.into()))
}

/// On loopback each client has an address of its own, as clients have elsewhere: forwarders have limits
/// for each address.
fn source(target: SocketAddr, number: usize) -> Option<SocketAddr> {
    let [high, low] = (number as u16 + 1).to_be_bytes();
    let address = Ipv4Addr::new(127, 1, high, low);
    (target.is_ipv4() && target.ip().is_loopback()).then(|| (address, 0).into())
}

/// No answer is lost here.
const RECEIVE_BUFFER: usize = 1 << 21;
