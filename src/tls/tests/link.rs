//! A client and a server with a wire between them that moves what it is told to.

use super::*;

/// A client and a server, and the two directions between them.
pub(in crate::tls) struct Link {
    pub(in crate::tls) client: TlsStream,
    pub(super) server: ServerConnection,
    pub(in crate::tls) to_server: Wire,
    pub(super) to_client: Wire,
    /// What the client is to send.
    pub(in crate::tls) to_write: Vec<u8>,
    /// What the server is to send when the handshake is done.
    pub(super) answer: Vec<u8>,
    pub(super) client_got: Vec<u8>,
    pub(super) server_got: Vec<u8>,
    pub(super) closed: bool,
    pub(super) server_closed: bool,
    pub(in crate::tls) failure: Option<Failure>,
    pub(super) server_failure: Option<Error>,
}

impl Link {
    pub(in crate::tls) fn new(
        client: TlsStream,
        server: &Arc<ServerConfig>,
        piece: usize,
        choppy: bool,
    ) -> Self {
        Self {
            client,
            server: ServerConnection::new(Arc::clone(server)).unwrap(),
            to_server: Wire::new(piece, choppy),
            to_client: Wire::new(piece, choppy),
            to_write: Vec::new(),
            answer: Vec::new(),
            client_got: Vec::new(),
            server_got: Vec::new(),
            closed: false,
            server_closed: false,
            failure: None,
            server_failure: None,
        }
    }

    /// A connection over which a query goes.
    pub(in crate::tls) fn established(
        connector: &mut Connector,
        server: &Arc<ServerConfig>,
    ) -> Handshake {
        Self::established_at(Instant::now(), connector, server)
    }

    pub(in crate::tls) fn established_at(
        now: Instant,
        connector: &mut Connector,
        server: &Arc<ServerConfig>,
    ) -> Handshake {
        let stream = connector.start(now).unwrap();
        Self::finished_at(now, connector, stream, server).client.handshake().unwrap()
    }

    pub(in crate::tls) fn finished_at(
        now: Instant,
        connector: &mut Connector,
        stream: TlsStream,
        server: &Arc<ServerConfig>,
    ) -> Self {
        let mut link = Self::new(stream, server, 100_000, false);
        link.to_write = b"query".to_vec();
        while link.client.is_handshaking() {
            link.turn();
            assert_eq!(link.failure, None);
        }
        connector.handle_connected(now, &link.client);
        link.run();
        assert_eq!(link.failure, None);
        assert_eq!(link.server_got, b"query");
        link
    }

    /// The reason why a connection with a query to send failed before the server saw any of it.
    pub(in crate::tls) fn refused(
        connector: &mut Connector,
        server: &Arc<ServerConfig>,
    ) -> Failure {
        let mut link = Self::new(start(connector), server, 100, true);
        link.to_write = b"query".to_vec();
        link.run();
        assert_eq!(link.client.send(b"query"), 0);
        assert_eq!(link.server_got, b"");
        assert_eq!(link.client.handshake(), None);
        link.failure.expect("the server was accepted")
    }

    /// Runs until nothing moves any more.
    pub(in crate::tls) fn run(&mut self) {
        let mut quiet = 0;
        while quiet < 8 {
            let before = (self.to_server.moved, self.to_client.moved);
            self.turn();
            let moved = before != (self.to_server.moved, self.to_client.moved);
            quiet = if moved { 0 } else { quiet + 1 };
        }
    }

    pub(in crate::tls) fn turn(&mut self) {
        if self.failure.is_some() || self.closed {
            return;
        }
        let taken = self.client.send(&self.to_write);
        self.to_write.drain(..taken);
        self.client.flush(&mut self.to_server).unwrap();
        self.serve();
        let (got, handshaking) = (&mut self.client_got, self.client.is_handshaking());
        let result = self.client.receive(&mut self.to_client, 8_192, |octets| {
            assert!(!handshaking);
            got.extend(octets);
        });
        match result {
            Ok(progress) => self.closed = progress.closed,
            Err(failure) => {
                self.failure = Some(failure);
                self.to_server.choppy = false;
                self.client.close(&mut self.to_server);
                self.serve();
            }
        }
    }

    pub(super) fn serve(&mut self) {
        while self.server_failure.is_none() && !self.to_server.octets.is_empty() {
            self.server.read_tls(&mut self.to_server.octets).unwrap();
            match self.server.process_new_packets() {
                Ok(state) => self.server_closed |= state.peer_has_closed(),
                Err(error) => self.server_failure = Some(error),
            }
            let mut got = vec![0; 20_000];
            while let Ok(len @ 1..) = self.server.reader().read(&mut got) {
                self.server_got.extend(&got[..len]);
            }
        }
        if !self.server.is_handshaking() && self.server_failure.is_none() {
            let taken = self.server.writer().write(&self.answer).unwrap();
            self.answer.drain(..taken);
        }
        while self.server.wants_write() {
            self.server.write_tls(&mut self.to_client.octets).unwrap();
        }
    }
}

/// One direction of a connection, which moves `piece` octets at a time at most. A choppy one is
/// interrupted, then blocks, before each piece.
pub(in crate::tls) struct Wire {
    pub(in crate::tls) octets: VecDeque<u8>,
    pub(super) room: usize,
    pub(super) piece: usize,
    pub(super) choppy: bool,
    pub(super) ended: bool,
    pub(super) calls: usize,
    pub(super) moved: usize,
}

impl Wire {
    pub(super) fn new(piece: usize, choppy: bool) -> Self {
        let octets = VecDeque::new();
        Self { octets, room: usize::MAX, piece, choppy, ended: false, calls: 0, moved: 0 }
    }

    fn disturb(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.calls % 3 {
            1 if self.choppy => Err(io::ErrorKind::Interrupted.into()),
            2 if self.choppy => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.disturb()?;
        let len = to.len().min(self.piece).min(self.octets.len());
        if len == 0 && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.moved += len;
        self.octets.read(&mut to[..len])
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.disturb()?;
        let len = from.len().min(self.piece).min(self.room);
        if len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= len;
        self.moved += len;
        self.octets.write(&from[..len])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) struct Broken(pub(super) io::ErrorKind);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.into())
    }
}

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(self.0.into())
    }
}
