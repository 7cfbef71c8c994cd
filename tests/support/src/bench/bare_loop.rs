//! The least a forwarder can do: give each query an ID of its own, send what came over one TLS
//! connection, and give each response back with the ID its query had. No checks, no padding, no
//! limits, no time; a response nobody asked for goes to whoever had its ID last.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as BlockingStream, UdpSocket as BlockingSocket};
use std::path::Path;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use slab::Slab;
use socket2::SockRef;

use super::datagrams::{BATCH_MAX, Batch, Client, NOBODY, Received};
use super::frames::{Frames, LENGTH_LEN};
use super::tls::{self, READ_MAX, Ready};

pub struct BareLoop {
    poll: Poll,
    datagrams: UdpSocket,
    listener: TcpListener,
    upstream: TcpStream,
    tls: ClientConnection,
    frames: Frames,
    clients: Slab<TcpClient>,
    asked: Asked,
    received: Received,
    responses: Batch,
    /// TCP clients for whom there is something to write.
    answered: Vec<usize>,
    buffer: Box<[u8]>,
}

struct TcpClient {
    socket: TcpStream,
    frames: Frames,
    output: Vec<u8>,
    is_answered: bool,
}

/// The askers, by the ID that the upstream sees.
struct Asked {
    origins: Box<[Origin]>,
    next: u16,
    /// Queries that are to be sent.
    frames: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Origin {
    client: Client,
    /// `u32::MAX` if it asked over UDP.
    tcp_client: u32,
    id: [u8; 2],
}

impl Asked {
    fn ask(&mut self, client: Client, tcp_client: u32, message: &[u8]) {
        let Some(id) = message.first_chunk() else { return };
        let own = self.next;
        self.next = (own + 1) % ORIGINS;
        self.origins[usize::from(own)] = Origin { client, tcp_client, id: *id };
        self.frames.extend_from_slice(&(message.len() as u16).to_be_bytes());
        self.frames.extend_from_slice(&own.to_be_bytes());
        self.frames.extend_from_slice(&message[2..]);
    }
}

impl BareLoop {
    /// Listens over UDP and TCP, and connects to an upstream whose certificate is verified.
    pub fn start(
        listen: SocketAddr,
        upstream: SocketAddr,
        name: &str,
        ca_file: &Path,
    ) -> Result<Self, String> {
        let (upstream, tls) = connect(upstream, name, ca_file)?;
        Self::listen(listen, upstream, tls)
            .map_err(|error| format!("cannot listen on {listen}: {error}"))
    }

    fn listen(
        listen: SocketAddr,
        mut upstream: TcpStream,
        tls: ClientConnection,
    ) -> io::Result<Self> {
        let mut listener = TcpListener::bind(listen)?;
        let datagrams = BlockingSocket::bind(listener.local_addr()?)?;
        datagrams.set_nonblocking(true)?;
        SockRef::from(&datagrams).set_recv_buffer_size(RECEIVE_BUFFER)?;
        let mut datagrams = UdpSocket::from_std(datagrams);
        let poll = Poll::new()?;
        let registry = poll.registry();
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        registry.register(&mut datagrams, DATAGRAMS, Interest::READABLE)?;
        registry.register(&mut upstream, UPSTREAM, both)?;
        let nobody = Origin { client: NOBODY, tcp_client: OVER_UDP, id: [0; 2] };
        let origins = vec![nobody; usize::from(ORIGINS)].into();
        Ok(Self {
            poll,
            datagrams,
            listener,
            upstream,
            tls,
            frames: Frames::default(),
            clients: Slab::new(),
            asked: Asked { origins, next: 0, frames: Vec::new() },
            received: Received::new(),
            responses: Batch::new(),
            answered: Vec::new(),
            buffer: vec![0; READ_MAX].into(),
        })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Forwards; returns only if the upstream closes or the system refuses something.
    pub fn run(mut self) -> io::Error {
        let mut events = Events::with_capacity(256);
        loop {
            if let Err(error) = self.turn(&mut events) {
                return error;
            }
        }
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &*events {
            match event.token() {
                DATAGRAMS => self.receive_datagrams()?,
                UPSTREAM => {
                    if event.is_readable() {
                        self.receive_responses()?;
                    }
                    tls::flush(&mut self.tls, &mut self.upstream)?;
                }
                LISTENER => self.accept()?,
                Token(key) => self.serve(key, event.is_readable()),
            }
        }
        if !self.asked.frames.is_empty() {
            self.tls.writer().write_all(&self.asked.frames)?;
            self.asked.frames.clear();
            tls::flush(&mut self.tls, &mut self.upstream)?;
        }
        if !self.responses.is_empty() {
            self.responses.send(&self.datagrams);
        }
        for key in self.answered.drain(..) {
            let Some(client) = self.clients.get_mut(key) else { continue };
            client.is_answered = false;
            if tls::write(&mut client.socket, &mut client.output).is_err() {
                self.clients.remove(key);
            }
        }
        Ok(())
    }

    fn receive_datagrams(&mut self) -> io::Result<()> {
        loop {
            let count = self.received.receive(&self.datagrams)?;
            for number in 0..count {
                let (client, message) = self.received.datagram(number);
                self.asked.ask(client, OVER_UDP, message);
            }
            if count < BATCH_MAX {
                return Ok(());
            }
        }
    }

    fn receive_responses(&mut self) -> io::Result<()> {
        let Self { tls, upstream, frames, clients, asked, responses, answered, buffer, .. } = self;
        let ready = tls::receive(tls, upstream, buffer, |octets| {
            frames.receive(octets, |frame| {
                let Some(own) = frame[LENGTH_LEN..].first_chunk() else { return };
                let own = u16::from_be_bytes(*own);
                let Origin { client, tcp_client, id } = asked.origins[usize::from(own % ORIGINS)];
                if tcp_client == OVER_UDP {
                    let message = responses.push_to(client, &frame[LENGTH_LEN..]);
                    message[..2].copy_from_slice(&id);
                } else if let Some(client) = clients.get_mut(tcp_client as usize) {
                    let start = client.output.len() + LENGTH_LEN;
                    client.output.extend_from_slice(frame);
                    client.output[start..start + 2].copy_from_slice(&id);
                    if !client.is_answered {
                        client.is_answered = true;
                        answered.push(tcp_client as usize);
                    }
                }
            });
        })?;
        match ready {
            Ready::Open => Ok(()),
            Ready::Closed => Err(io::Error::other("the upstream closed the connection")),
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            SockRef::from(&socket).set_tcp_nodelay(true)?;
            let entry = self.clients.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(entry.key()), interest)?;
            entry.insert(TcpClient {
                socket,
                frames: Frames::default(),
                output: Vec::new(),
                is_answered: false,
            });
        }
    }

    fn serve(&mut self, key: usize, is_readable: bool) {
        let Self { clients, asked, buffer, .. } = self;
        let Some(client) = clients.get_mut(key) else { return };
        let mut result = Ok(true);
        if is_readable {
            result = receive(&mut client.socket, buffer, |octets| {
                client.frames.receive(octets, |frame| {
                    asked.ask(NOBODY, key as u32, &frame[LENGTH_LEN..]);
                });
            });
        }
        if !client.output.is_empty() && !client.is_answered {
            result = result
                .and_then(|open| tls::write(&mut client.socket, &mut client.output).map(|()| open));
        }
        if !matches!(result, Ok(true)) {
            clients.remove(key);
        }
    }
}

/// Gives what waits to `sink`; false if the peer closed.
fn receive(
    socket: &mut TcpStream,
    buffer: &mut [u8],
    mut sink: impl FnMut(&[u8]),
) -> io::Result<bool> {
    loop {
        match socket.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(len) => {
                sink(&buffer[..len]);
                if len < buffer.len() {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn connect(
    address: SocketAddr,
    name: &str,
    ca_file: &Path,
) -> Result<(TcpStream, ClientConnection), String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("{}: {error}", ca_file.display());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(ca_file).map_err(|error| unreadable(&error))? {
        let root = root.map_err(|error| unreadable(&error))?;
        roots.add(root).map_err(|error| unreadable(&error))?;
    }
    let server_name = ServerName::try_from(name.to_owned())
        .map_err(|_| format!("{name:?} is not a DNS name or an IP address"))?;
    let handshake = || -> io::Result<_> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"dot".to_vec()];
        let mut tls =
            ClientConnection::new(Arc::new(config), server_name).map_err(io::Error::other)?;
        tls.set_buffer_limit(None);
        let mut socket = BlockingStream::connect(address)?;
        socket.set_nodelay(true)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        socket.set_nonblocking(true)?;
        Ok((TcpStream::from_std(socket), tls))
    };
    handshake().map_err(|error| format!("cannot connect to {address}#{name}: {error}"))
}

const DATAGRAMS: Token = Token(usize::MAX - 1);
const LISTENER: Token = Token(usize::MAX - 2);
const UPSTREAM: Token = Token(usize::MAX - 3);

const OVER_UDP: u32 = u32::MAX;

/// More than are in flight at a time in any case of the benchmark; fewer than all IDs, so that they stay
/// in the processor's cache.
const ORIGINS: u16 = 8192;

/// What dot-proxy asks for, too.
const RECEIVE_BUFFER: usize = 1 << 20;
