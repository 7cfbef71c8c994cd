//! Outputs: what the forwarder asks for, done in the simulated network.

use std::hash::Hash;
use std::time::Duration;

use dot_proxy::forwarder::{Action, ClientId, ConnId, Manner, UpstreamConnId, UpstreamIndex};

use super::client::{Fin, State};
use support::message::KEEPALIVE;
use support::view::View;

use super::dns;
use super::events::PARTIAL_MAX;
use super::oracle::To;
use super::path::Path;
use super::server::{Ask, Attempt, Direction, Link, Seen, Step};
use super::world::{Socket, What, World};

impl World {
    pub(super) fn drain(&mut self) {
        let mut taken = 0;
        while let Some(action) = self.forwarder.poll_action() {
            taken += 1;
            assert!(taken < 1_000_000, "the forwarder never stops acting: {action:?}");
            self.digest_action(&action);
            if self.trace {
                self.note(format_args!("    {action:?}"));
            }
            self.execute(action);
        }
        self.send_datagrams();
        let log = String::from_utf8(self.forwarder.query_log().to_vec());
        let log = log.expect("the query log is escaped");
        for line in log.split_terminator('\n') {
            assert!(!line.chars().any(char::is_control), "control character in {line:?}");
            self.query_log.push(line.to_owned());
        }
        assert!(log.is_empty() || log.ends_with('\n'), "half a line in the query log: {log:?}");
        self.forwarder.clear_query_log();
    }

    /// Digests what an action means to the network, so that the core may name its connections as it likes.
    fn digest_action(&mut self, action: &Action) {
        let number = |conn: &ConnId| match self.sockets.get(*conn) {
            Some(Socket::Client { client, .. }) => Some((false, client)),
            Some(Socket::Upstream { link, .. }) => Some((true, link)),
            None => None,
        };
        let of_client = |client: &ClientId| number(&ConnId::Client(*client));
        let (kind, of, how) = match action {
            Action::Close { conn, manner, .. } => ("close", number(conn), format!("{manner:?}")),
            Action::Connect { upstream, .. } => ("connect", None, upstream.to_string()),
            Action::Log(notice) => ("log", None, notice.to_string()),
            Action::InspectPath(conn) => ("inspect", number(&(*conn).into()), String::new()),
            Action::Read(conn) => ("read", of_client(conn), String::new()),
            Action::ShutdownWrite(conn) => ("shut down", of_client(conn), String::new()),
            Action::Transmit(conn) => ("transmit", number(conn), String::new()),
        };
        (kind, of, how).hash(&mut self.digest);
    }

    fn execute(&mut self, action: Action) {
        match action {
            Action::Close { conn, manner, .. } => self.close(conn, manner),
            Action::Connect { conn, upstream } => self.connect(conn, upstream),
            Action::InspectPath(conn) => {
                if let Some(Socket::Upstream { link, .. }) = self.sockets.get(conn.into()) {
                    let at = self.at();
                    let is_losing = self.links[link].path.inspect(at);
                    self.oracle.copies.note_look(at, is_losing);
                    self.forwarder.handle_path(self.now, conn, is_losing);
                }
            }
            Action::Log(notice) => {
                self.notices.push((self.at(), notice));
            }
            Action::Read(conn) => {
                let client = self.client_of(conn);
                let at = self.at();
                let client_now = &mut self.clients[client];
                client_now.partial_since = client_now.partial_since.map(|_| at);
                self.schedule(Duration::ZERO, What::ClientReadable { client });
            }
            Action::ShutdownWrite(conn) => {
                let client = self.client_of(conn);
                let unsent = self.forwarder.output(conn.into()).len();
                assert_eq!(unsent, 0, "shut down with {unsent} octets unsent");
                let owes = self.oracle.owes(To::Stream(client));
                let is_offender = self.clients[client].offender;
                assert!(!owes || is_offender, "client {client} is shut down with answers owed");
                let client_now = &mut self.clients[client];
                client_now.saw_end = true;
                client_now.dealings.ended = true;
                if client_now.polite {
                    self.schedule(Duration::from_millis(5), What::ClientFin { client });
                }
            }
            Action::Transmit(conn) => match self.socket(conn) {
                Socket::Client { client, .. } => self.write_client(client),
                Socket::Upstream { link, .. } => self.write_link(link),
            },
        }
    }

    fn close(&mut self, conn: ConnId, manner: Manner) {
        let at = self.at();
        if self.sockets.get(conn).is_none() {
            // An attempt that was given up before it began.
            return;
        }
        match self.socket(conn) {
            Socket::Upstream { link, .. } => {
                self.links[link].conn = None;
                self.links[link].closed = Some((at, manner));
                self.links[link].outbound.clear();
                self.links[link].path.discard(Direction::FromServer);
            }
            Socket::Client { client, .. } => {
                let gives_way = self.waiting.favours_newcomer;
                // What was written for one that gives way may not have left.
                self.clients[client].offender |= gives_way;
                let blameless = self.clients[client].state == State::Open
                    && !self.clients[client].offender
                    && !gives_way;
                // The forwarder has no output any more of one that it closes.
                let unsent = self.clients[client].looked;
                let owes = self.oracle.owes(To::Stream(client));
                // A part of a message is held as much as an answer is, until its time is over.
                let partial_since = self.clients[client].partial_since;
                let holds = unsent > 0 || partial_since.is_some_and(|s| at < s + PARTIAL_MAX);
                if blameless && manner == Manner::Abort && (holds || owes) {
                    self.check_shed(client);
                } else if blameless {
                    assert_eq!(unsent, 0, "client {client} is closed with octets unsent");
                    assert!(!owes, "client {client} is closed with answers owed");
                    let is_last_call_over = self.ended_at.is_some_and(|end| end + LAST_CALL <= at);
                    let is_lost = self.clients[client].waits_since.is_some()
                        && !self.clients[client].dealings.ended
                        && !is_last_call_over
                        && self.are_places_free();
                    assert!(!is_lost, "client {client} is closed before all that it sent is read");
                    let may_ask = self.clients[client].fin != Fin::Told && !is_last_call_over;
                    let is_early = may_ask && self.clients[client].is_fresh(at);
                    assert!(!is_early, "client {client} is closed before it could ask");
                }
                self.oracle.forgive(client);
                self.clients[client].conn = None;
                if self.clients[client].state == State::Open {
                    self.clients[client].state = State::Closed;
                }
            }
        }
        *self.sockets.place(conn) = None;
    }

    /// A client that kept the rules is closed for what all hold, if no other was slower to take its
    /// answers.
    fn check_shed(&mut self, shed: usize) {
        let at = self.at();
        let client = &mut self.clients[shed];
        client.offender = true;
        let slow = [client.stuck_since, client.partial_since].into_iter().flatten();
        let since = slow.min().unwrap_or(at);
        let slower = self.clients.iter().position(|other| {
            let is_open =
                other.conn.is_some_and(|conn| !self.forwarder.output(conn.into()).is_empty());
            // Among clients that took something within this time, the one that holds most goes first.
            let is_stuck = |stuck: Duration| stuck < since && stuck + READING_TIMEOUT <= at;
            is_open && other.stuck_since.is_some_and(is_stuck)
        });
        assert!(slower.is_none(), "client {shed} is closed, although {slower:?} is slower");
        self.blameless_shed += 1;
    }

    fn connect(&mut self, conn: UpstreamConnId, upstream: UpstreamIndex) {
        let upstream = upstream.index();
        let number = self.links.len();
        let at = self.at();
        let manner = (self.path)(upstream, at);
        let round_trip = 2 * manner.delay;
        let path = Path::new(manner, number as u64);
        self.links.push(Link::new(upstream, conn, at, path));
        self.put(conn.into(), Socket::Upstream { conn, link: number });
        let attempt = (self.servers[upstream].attempt)(number, at, &mut self.rng);
        let Attempt { established, end } = attempt;
        if let Some(after) = established {
            self.schedule(after + round_trip, What::Established { link: number });
        }
        match end {
            Some((after, Ok(()))) => {
                self.schedule(after + 2 * round_trip, What::Connected { link: number });
            }
            Some((after, Err((stage, detail)))) => {
                let what = What::AttemptFails { link: number, stage, detail };
                self.schedule(after + 2 * round_trip, what);
            }
            None => {}
        }
    }

    pub(super) fn write_client(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(conn) = client.conn else { return };
        if client.state == State::Reset {
            return;
        }
        let output = self.forwarder.output(conn.into());
        if output.len() < client.looked {
            // The connection is about to be closed.
            return;
        }
        let fresh = output[client.looked..].to_vec();
        client.looked = output.len();
        client.response.extend(fresh);
        while let Some(message) = dns::take_frame(&mut self.clients[number].response) {
            message.hash(&mut self.digest);
            self.note(format_args!("    response to client {number}: {}", said(&message)));
            self.oracle.responded(self.at(), To::Stream(number), &message);
        }
        let client = &mut self.clients[number];
        let mut taken = client.looked;
        if let Some(room) = &mut client.room {
            taken = taken.min(*room);
            *room -= taken;
        } else if self.roughness.short_writes && taken > 0 {
            taken = self.rng.within(1, taken);
            if taken < client.looked && !client.dealings.writable_due {
                client.dealings.writable_due = true;
                let after = self.rng.up_to(Duration::from_millis(5));
                self.schedule(after, What::ClientWritable { client: number });
            }
        }
        let at = self.at();
        let client = &mut self.clients[number];
        client.looked -= taken;
        if client.looked == 0 {
            client.stuck_since = None;
        } else if taken > 0 || client.stuck_since.is_none() {
            client.stuck_since = Some(at);
        }
        if taken > 0 {
            self.forwarder.advance_output(self.now, conn.into(), taken);
        }
    }

    pub(super) fn write_link(&mut self, number: usize) {
        let link = &mut self.links[number];
        let Some(conn) = link.conn else { return };
        if link.told_end {
            return;
        }
        assert!(link.connected.is_some(), "link {number} transmits before its handshake is done");
        let output = self.forwarder.output(conn.into());
        let mut taken = output.len();
        if let Some(room) = &mut link.room {
            taken = taken.min(*room);
            *room -= taken;
        } else if self.roughness.short_writes && taken > 0 {
            taken = self.rng.within(1, taken);
            if taken < output.len() && !link.due.writable {
                link.due.writable = true;
                let after = self.rng.up_to(Duration::from_millis(2));
                self.schedule(after, What::LinkWritable { link: number });
            }
        }
        if taken == 0 {
            return;
        }
        let bytes = self.forwarder.output(conn.into())[..taken].to_vec();
        bytes.hash(&mut self.digest);
        self.forwarder.advance_output(self.now, conn.into(), taken);
        let at = self.at();
        let link = &mut self.links[number];
        link.written.extend(&bytes);
        while let Some(message) = dns::take_frame(&mut link.written) {
            link.asked += 1;
            link.last_asked = Some(at);
            if self.round_trip.is_some() {
                let name = dns::name_of(dns::first_question(&message));
                self.ways_round.note_sent(at, number, name);
            }
        }
        let arrives_at = link.path.send(Direction::ToServer, at, bytes);
        self.expect_arrival(number, arrives_at);
        self.receive(number);
    }

    /// A server reads what arrived.
    pub(super) fn receive(&mut self, number: usize) {
        let at = self.at();
        let arrived = self.links[number].path.take(Direction::ToServer, at);
        self.links[number].inbound.extend(arrived);
        while let link = &mut self.links[number]
            && !link.forgotten
            && link.end.is_none()
            && link.room.is_none()
            && let Some(message) = dns::take_frame(&mut link.inbound)
        {
            self.receive_query(number, &message);
        }
    }

    /// A query arrives at a server.
    fn receive_query(&mut self, number: usize, message: &[u8]) {
        let at = self.at();
        let question = dns::first_question(message);
        let name = dns::name_of(question);
        let id = u16::from_be_bytes([message[0], message[1]]);
        self.note(format_args!("    link {number} gets {name} as {id}"));
        self.oracle.reached(at, question);
        let link = &mut self.links[number];
        let earlier = link.outstanding.insert(id, question.to_vec());
        if let Some(earlier) = earlier
            && !link.misleading.remove(&id)
        {
            panic!("link {number}: ID {id} of {} reused for {name}", dns::name_of(&earlier));
        }
        let asks_keepalive =
            View::read(message).is_some_and(|query| query.option(KEEPALIVE).is_some());
        link.seen.push(Seen {
            at,
            id,
            name: name.clone(),
            has_opt: dns::has_option(message, 0),
            asks_keepalive,
            length: message.len(),
        });
        self.serial += 1;
        let ask = Ask {
            at,
            link: number,
            nth: link.seen.len(),
            name: &name,
            message,
            serial: self.serial,
            answered: link.answered,
        };
        let steps = (self.servers[link.server].reply)(&ask, &mut self.rng);
        for Step { after, what } in steps {
            self.schedule(after, What::Serve { link: number, what });
        }
    }

    fn send_datagrams(&mut self) {
        let at = self.at();
        let mut waiting = 0;
        for (path, message) in self.forwarder.datagrams() {
            waiting += 1;
            if waiting > self.datagrams_judged {
                (path, message).hash(&mut self.digest);
                self.note(format_args!("    response to {}: {}", path.client, said(message)));
                self.oracle.responded(at, To::Datagram(path), message);
            }
        }
        self.datagrams_judged = waiting;
        if waiting == 0 || self.datagrams_blocked {
            return;
        }
        let mut sent = waiting;
        if self.roughness.short_writes && self.rng.chance(100) {
            sent = self.rng.within(0, waiting);
            self.datagrams_blocked = true;
            let after = self.rng.up_to(Duration::from_millis(5));
            self.schedule(after, What::DatagramsWritable);
        }
        self.forwarder.advance_datagrams(0, sent, 0);
        self.datagrams_judged -= sent;
    }

    pub(super) fn put(&mut self, conn: ConnId, socket: Socket) {
        let earlier = self.sockets.place(conn).replace(socket);
        assert!(earlier.is_none(), "key {} names two sockets", conn.key());
    }

    fn socket(&self, conn: ConnId) -> Socket {
        let socket = self.sockets.get(conn);
        let named = match socket {
            Some(Socket::Client { conn, .. }) => Some(conn.into()),
            Some(Socket::Upstream { conn, .. }) => Some(conn.into()),
            None => None,
        };
        assert_eq!(named, Some(conn), "an action for a connection that is closed");
        socket.expect("it has a name")
    }

    fn client_of(&self, conn: ClientId) -> usize {
        match self.socket(conn.into()) {
            Socket::Client { client, .. } => client,
            Socket::Upstream { .. } => panic!("{conn:?} is no client's"),
        }
    }
}

/// A response in a trace.
fn said(message: &[u8]) -> String {
    let Some(response) = View::read_front(message) else {
        return format!("{message:02x?}");
    };
    let name = dns::name_of(response.question());
    format!("{name} ID {} RCODE {}", response.id(), response.header_rcode())
}

/// How long who had just connected may still ask when the program ends.
const LAST_CALL: Duration = Duration::from_millis(50);

/// A client that took none of its answers for so long does not read.
const READING_TIMEOUT: Duration = Duration::from_secs(1);
