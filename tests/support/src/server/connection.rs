//! One connection of a server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustls::HandshakeKind;
use rustls::crypto::SupportedKxGroup;
use rustls::server::{Acceptor, ServerConfig, ServerConnection};
use socket2::{SockFilter, SockRef};

use super::super::message;
use super::behaviour::{Act, End, Greeting, Received, Setup};
use super::log::{Ended, Handshake, SharedLog};

/// A connection and what is still to be done on it.
pub(super) struct Connection {
    number: usize,
    socket: TcpStream,
    closes_back: bool,
    tls: Tls,
    /// Decrypted and not yet a whole frame.
    input: Vec<u8>,
    /// To be encrypted, so that many messages may share a record.
    output: Vec<u8>,
    /// Acts that were put off.
    due: Vec<(Instant, Vec<Act>)>,
    /// Nothing is read before.
    deaf_until: Option<Instant>,
    /// The last time a query came or an answer went.
    active: Instant,
    queries: usize,
    phase: Phase,
    reading: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// To be ended when everything is written.
    Ending(End),
    /// We have sent our FIN, or forgot the connection: what comes is thrown away until the other side's FIN.
    Finished,
    /// To be dropped.
    Over,
}

enum Tls {
    /// TLS is not spoken here, or not any more.
    None,
    Hello(Box<Acceptor>),
    Open(Box<ServerConnection>),
}

impl Connection {
    pub(super) fn new(number: usize, socket: TcpStream, greeting: Greeting, setup: &Setup) -> Self {
        // A socket that the other side has reset meanwhile may refuse these; reading tells.
        drop(socket.set_nonblocking(true));
        drop(socket.set_nodelay(true));
        let mut connection = Self {
            number,
            socket,
            closes_back: setup.closes_back,
            tls: Tls::Hello(Box::default()),
            input: Vec::new(),
            output: Vec::new(),
            due: Vec::new(),
            deaf_until: None,
            active: Instant::now(),
            queries: 0,
            phase: Phase::Serving,
            reading: true,
        };
        match greeting {
            Greeting::Mute => connection.tls = Tls::None,
            Greeting::Raw(octets) => {
                connection.tls = Tls::None;
                // A few octets into an empty socket buffer.
                drop(connection.socket.write_all(&octets));
                connection.perform(setup, Act::End(End::Fin));
            }
            Greeting::Reset => connection.perform(setup, Act::End(End::Reset)),
            Greeting::Tls => {}
            Greeting::TlsAfter(delay) => connection.deaf_until = Some(Instant::now() + delay),
        }
        connection
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Reads what there is, and does what the handler wants done about it.
    pub(super) fn serve(&mut self, config: &Arc<ServerConfig>, setup: &mut Setup, log: &SharedLog) {
        for query in self.read(config, log) {
            log.record(|log| {
                log.connections[self.number].queries += 1;
                log.queries.push((self.number, query.clone()));
            });
            let name = message::question(&query).map_or_else(String::new, |(name, ..)| name);
            let received =
                Received { connection: self.number, number: self.queries, message: &query, name };
            self.queries += 1;
            for act in (setup.handler)(&received) {
                self.perform(setup, act);
            }
        }
        self.write(setup);
    }

    /// What it waits for; nothing if it is only waiting for time to pass.
    pub(super) fn interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        if self.reading && self.deaf_until.is_none() {
            interest |= PollFlags::IN;
        }
        if let Tls::Open(tls) = &self.tls
            && tls.wants_write()
        {
            interest |= PollFlags::OUT;
        }
        interest
    }

    /// When [`Self::perform_due`] has something to do.
    pub(super) fn next_due(&self, idle: Option<Duration>) -> Option<Instant> {
        let idle_end = idle.filter(|_| self.may_idle()).map(|idle| self.active + idle);
        let put_off = self.due.iter().map(|(at, _)| *at);
        put_off.chain(idle_end).chain(self.deaf_until).min()
    }

    fn may_idle(&self) -> bool {
        self.queries > 0 && self.due.is_empty() && self.phase == Phase::Serving
    }

    pub(super) fn perform_due(&mut self, now: Instant, setup: &Setup, log: &SharedLog) {
        if self.deaf_until.is_some_and(|until| until <= now) {
            self.deaf_until = None;
        }
        if let Some((idle, end)) = setup.idle
            && self.may_idle()
            && self.active + idle <= now
        {
            log.record(|log| {
                let log = &mut log.connections[self.number];
                log.idled_out = log.ended.is_none();
            });
            self.perform(setup, Act::End(end));
        }
        let due = std::mem::take(&mut self.due);
        let (mut now_due, later): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|(at, _)| *at <= now);
        self.due = later;
        now_due.sort_by_key(|(at, _)| *at);
        for act in now_due.into_iter().flat_map(|(_, acts)| acts) {
            self.perform(setup, act);
        }
        self.write(setup);
    }

    pub(super) fn perform(&mut self, setup: &Setup, act: Act) {
        if self.phase != Phase::Serving {
            return;
        }
        match act {
            Act::After(delay, acts) => self.due.push((Instant::now() + delay, acts)),
            Act::End(end @ (End::Forget | End::Unreachable)) => {
                if end == End::Unreachable {
                    // BPF_RET with 0 octets: of no segment anything is kept.
                    let drop_all = SockFilter::new(0x06, 0, 0, 0);
                    let filtered = SockRef::from(&self.socket).attach_filter(&[drop_all]);
                    filtered.expect("a filter of one instruction");
                }
                self.tls = Tls::None;
                self.reading = false;
                self.phase = Phase::Finished;
            }
            Act::End(End::Reset) => {
                self.write(setup);
                // An error means that the socket is dead already.
                drop(SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)));
                self.phase = Phase::Over;
            }
            Act::End(end) => {
                self.phase = Phase::Ending(end);
                self.write(setup);
            }
            Act::Raw(octets) => self.send(&octets),
            Act::Send(message) => {
                self.send(&message::framed(&message));
                if setup.record_per_message {
                    self.write(setup);
                }
            }
            Act::StopReading => self.reading = false,
        }
    }

    fn send(&mut self, octets: &[u8]) {
        self.active = Instant::now();
        self.output.extend(octets);
    }

    pub(super) fn write(&mut self, setup: &Setup) {
        if let Tls::Open(tls) = &mut self.tls {
            for chunk in self.output.chunks(setup.octets_per_record) {
                tls.writer().write_all(chunk).expect("a buffer without a limit");
            }
            self.output.clear();
            if self.phase == Phase::Ending(End::Notify) {
                tls.send_close_notify();
            }
            let mut socket = Trickle { socket: &self.socket, most: setup.octets_per_write };
            while tls.wants_write() {
                match tls.write_tls(&mut socket) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                    Err(_) => {
                        self.phase = Phase::Over;
                        return;
                    }
                }
            }
        }
        if let Phase::Ending(_) = self.phase {
            // No close: unread input would make it a reset and destroy what was written.
            drop(self.socket.shutdown(Shutdown::Write));
            self.tls = Tls::None;
            self.phase = Phase::Finished;
        }
    }

    /// Reads what there is and gives the whole messages.
    fn read(&mut self, config: &Arc<ServerConfig>, log: &SharedLog) -> Vec<Vec<u8>> {
        let mut octets = [0; 4096];
        loop {
            match (&self.socket).read(&mut octets) {
                Ok(0) => {
                    self.peer_ended(log, Ended::Fin);
                    break;
                }
                Ok(n) => {
                    let first = octets[0];
                    log.record(|log| {
                        log.connections[self.number].first_octet.get_or_insert(first);
                    });
                    if let Err(error) = self.decrypt(&octets[..n], config, log) {
                        log.record(|log| log.connections[self.number].tls_error = Some(error));
                        self.phase = Phase::Over;
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.peer_ended(log, Ended::Reset);
                    break;
                }
            }
        }
        self.take_frames()
    }

    fn decrypt(
        &mut self,
        mut octets: &[u8],
        config: &Arc<ServerConfig>,
        log: &SharedLog,
    ) -> Result<(), String> {
        while !octets.is_empty() {
            match &mut self.tls {
                Tls::None => return Ok(()),
                Tls::Hello(acceptor) => {
                    let before = octets;
                    let read = acceptor.read_tls(&mut octets);
                    let read = read.map_err(|error| error.to_string())?;
                    log.record(|log| {
                        log.connections[self.number].hello.extend(&before[..read]);
                    });
                    let accepted = match acceptor.accept() {
                        Ok(None) => continue,
                        Ok(Some(accepted)) => accepted,
                        Err((error, mut alert)) => {
                            // The alert is a courtesy; the connection is over anyway.
                            drop(alert.write_all(&mut &self.socket));
                            return Err(error.to_string());
                        }
                    };
                    let hello = accepted.client_hello();
                    let server_name = hello.server_name().map(str::to_owned);
                    let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                    log.record(|log| {
                        log.connections[self.number].server_name = server_name;
                        log.connections[self.number].alpn_offered = alpn;
                    });
                    match accepted.into_connection(Arc::clone(config)) {
                        Ok(mut tls) => {
                            tls.set_buffer_limit(None);
                            self.tls = Tls::Open(Box::new(tls));
                        }
                        Err((error, mut alert)) => {
                            drop(alert.write_all(&mut &self.socket));
                            return Err(error.to_string());
                        }
                    }
                }
                Tls::Open(_) => {
                    if !self.decrypt_records(&mut octets, log)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Decrypts what is in front of `octets`. False: nothing counts any more.
    fn decrypt_records(&mut self, octets: &mut &[u8], log: &SharedLog) -> Result<bool, String> {
        let Tls::Open(tls) = &mut self.tls else { return Ok(false) };
        let read = tls.read_tls(octets).map_err(|error| error.to_string())?;
        if read == 0 {
            // Nothing counts after close_notify (RFC 8446 section 6.1).
            return Ok(false);
        }
        let was_handshaking = tls.is_handshaking();
        let state = tls.process_new_packets().map_err(|error| error.to_string());
        if was_handshaking && !tls.is_handshaking() {
            let handshake = Handshake {
                resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
                version: tls.protocol_version().expect("the handshake is over"),
                group: tls.negotiated_key_exchange_group().map(SupportedKxGroup::name),
                alpn: tls.alpn_protocol().map(<[u8]>::to_vec),
            };
            log.record(|log| {
                log.connections[self.number].handshake = Some(handshake);
            });
        }
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                // The alert is a courtesy; the connection is over anyway.
                drop(tls.write_tls(&mut &self.socket));
                return Err(error);
            }
        };
        let plain = state.plaintext_bytes_to_read();
        if plain > 0 {
            let start = self.input.len();
            self.input.resize(start + plain, 0);
            tls.reader().read_exact(&mut self.input[start..]).expect("decrypted octets");
            self.active = Instant::now();
            log.record(|log| {
                log.connections[self.number].application_octets += plain;
            });
        }
        if state.peer_has_closed() {
            log.record(|log| {
                log.connections[self.number].ended.get_or_insert(Ended::Notify);
            });
        }
        Ok(true)
    }

    fn peer_ended(&mut self, log: &SharedLog, how: Ended) {
        log.record(|log| {
            log.connections[self.number].ended.get_or_insert(how);
        });
        self.reading = false;
        if self.closes_back {
            self.phase = Phase::Over;
        }
    }

    fn take_frames(&mut self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let mut at = 0;
        while let Some(prefix) = self.input.get(at..at + 2) {
            let end = at + 2 + usize::from(u16::from_be_bytes([prefix[0], prefix[1]]));
            let Some(message) = self.input.get(at + 2..end) else {
                break;
            };
            messages.push(message.to_vec());
            at = end;
        }
        self.input.drain(..at);
        messages
    }
}

/// A socket that takes no more than `most` octets at a time.
struct Trickle<'a> {
    socket: &'a TcpStream,
    most: usize,
}

impl Write for Trickle<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut socket = self.socket;
        socket.write(&octets[..octets.len().min(self.most)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
