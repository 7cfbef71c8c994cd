//! Facts in: what happens in the simulated network, told to the forwarder.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use dot_proxy::forwarder::{
    AccessDenial, Closed, DatagramPath, Prefix, UpstreamIdentity, UpstreamIndex, UpstreamUpdate,
};

use support::view::View;

use super::client::{Dealings, Fin, State, TcpClient};
use super::dns::{self, Due};
use super::oracle::To;
use super::path::NEVER;
use super::rates::Allowance;
use super::server::{Direction, Do};
use super::story::path_from;
use super::world::{Socket, What, World};

impl World {
    pub(super) fn deliver(&mut self, what: What) {
        if self.trace && !matches!(what, What::LinkIdle { .. }) {
            self.note(format_args!("{}", brief(&what)));
        }
        match what {
            What::AttemptFails { link, stage, detail } => {
                let closed = Closed::Failed { stage, detail: detail.into() };
                self.tell_end(link, closed);
            }
            What::ClientBytes { client, bytes } => {
                self.clients[client].unread.extend(bytes);
                self.read_client(client);
            }
            What::ClientConnects { client } => {
                self.backlog.push_back(client);
                self.accept();
            }
            What::ClientFin { client } => {
                if self.clients[client].fin == Fin::None {
                    self.clients[client].fin = Fin::Arrived;
                }
                self.read_client(client);
            }
            What::ClientReadable { client } => self.read_client(client),
            What::ClientReads { client } => {
                self.clients[client].room = None;
                self.write_client(client);
            }
            What::ClientResets { client } => self.reset_client(client),
            What::ClientWritable { client } => {
                self.clients[client].dealings.writable_due = false;
                self.write_client(client);
            }
            What::Connected { link } => self.connect_link(link),
            What::Datagram { path, message, cut } => self.deliver_datagram(path, &message, cut),
            What::DatagramsWritable => self.datagrams_blocked = false,
            What::Established { link } => {
                if let Some(conn) = self.links[link].conn {
                    self.forwarder.handle_established(self.now, conn);
                }
            }
            What::Freeze { length } => self.frozen_for += length,
            What::LinkIdle { link, since } => self.close_idle_link(link, since),
            What::LinkReadable { link } => {
                self.links[link].due.readable = false;
                self.read_link(link);
            }
            What::LinkGoesOn { link } => {
                self.receive(link);
                self.read_link(link);
            }
            What::LinkWritable { link } => {
                self.links[link].due.writable = false;
                self.write_link(link);
            }
            What::NetworkChange { server, lost } => self.change_network(server, lost),
            What::Resume => self.forwarder.handle_resume(self.now),
            What::ClockSet => self.forwarder.handle_clock_set(self.now),
            What::Serve { link, what } => self.serve(link, what),
            What::ServerDies { server } => self.kill_server(server),
            What::ServersRead => self.have_servers_read(),
            What::Shutdown => self.shut_down(),
            What::Upstreams { asked } => self.ask_upstreams(&asked),
            What::Subnets { subnets } => {
                self.subnets = subnets;
                self.expect_strangers_to_go();
                self.forwarder.handle_subnets(self.now, &self.subnets);
            }
        }
    }

    fn shut_down(&mut self) {
        let at = self.at();
        self.ended_at = Some(at);
        // What others than newcomers have sent and was not read is discarded.
        for client in &mut self.clients {
            client.dealings.ended |= !client.is_fresh(at);
        }
        self.forwarder.handle_shutdown(self.now);
    }

    fn deliver_datagram(&mut self, path: DatagramPath, message: &[u8], cut: bool) {
        let (at, to, source) = (self.at(), To::Datagram(path), path.client.ip());
        let is_served = self.serves(source);
        let allowance =
            if is_served { self.meter.take_by_datagram(at, source) } else { Allowance::Nothing };
        let before = self.forwarder.counts();
        self.forwarder.handle_datagram(self.now, path, message, cut);
        let after = self.forwarder.counts();
        let is_refused = after.refused > before.refused;
        assert_eq!(is_refused, !is_served, "{source} is served or not");
        let is_above = is_served && allowance != Allowance::Answer;
        assert_eq!(
            after.above_rate > before.above_rate,
            is_above,
            "{source}: {allowance:?} is due"
        );
        if is_served && allowance != Allowance::Nothing {
            self.oracle.asked(at, to, message, cut || allowance == Allowance::Truncation);
        } else if !is_served
            && self.access.denial == AccessDenial::Refused
            && after.queries > before.queries
        {
            // Stories say how many are.
            self.oracle.refused(at, to, message);
        }
    }

    fn reset_client(&mut self, client: usize) {
        self.backlog.retain(|waiting| *waiting != client);
        if let Some(conn) = self.clients[client].conn {
            self.clients[client].state = State::Reset;
            self.oracle.forgive(client);
            self.forwarder.handle_closed(self.now, conn.into(), Closed::Reset);
        }
    }

    fn connect_link(&mut self, link: usize) {
        if let Some(conn) = self.links[link].conn {
            self.links[link].connected = Some(self.at());
            self.forwarder.handle_connected(self.now, conn);
            self.watch_idle(link);
        }
    }

    /// A server is gone without a word.
    fn kill_server(&mut self, server: usize) {
        let at = self.at();
        for link in self.links.iter_mut().filter(|link| link.server == server) {
            link.forget(at);
        }
    }

    /// Servers that stopped reading go on.
    fn have_servers_read(&mut self) {
        for link in 0..self.links.len() {
            self.links[link].room = None;
            if self.links[link].is_open() {
                self.receive(link);
                self.write_link(link);
            }
        }
    }

    /// Closes a link on which nothing has happened since then.
    fn close_idle_link(&mut self, link: usize, since: Duration) {
        let link_now = &self.links[link];
        let is_idle = link_now.active == since && link_now.outstanding.is_empty();
        if is_idle && link_now.is_open() {
            self.serve(link, Do::Close(Closed::Eof));
        }
    }

    /// Other servers are asked, each with an operator of its own.
    fn ask_upstreams(&mut self, asked: &[(usize, bool)]) {
        let updates = asked.iter().map(|(server, is_new)| UpstreamUpdate {
            index: UpstreamIndex::new(*server),
            identity: UpstreamIdentity {
                shown: format!("192.0.2.{server}#dns{server}.example").into(),
                operator: *server as u8,
            },
            is_new: *is_new,
        });
        self.forwarder.handle_upstreams(self.now, updates.collect());
    }

    /// The way to a server is another one, on which its connections may be lost.
    fn change_network(&mut self, server: usize, lost: bool) {
        let at = self.at();
        let mut conns = Vec::new();
        for link in self.links.iter_mut().filter(|link| lost && link.server == server) {
            link.forget(at);
            conns.extend(link.conn);
        }
        let upstream = UpstreamIndex::new(server);
        self.forwarder.handle_network_change(self.now, upstream, &conns);
    }

    /// Who is not served any more is closed, whatever it is owed.
    pub(super) fn expect_strangers_to_go(&mut self) {
        for client in 0..self.clients.len() {
            self.clients[client].offender |= !self.serves(self.clients[client].peer.ip());
        }
    }

    /// Whether the longest prefix around an address is one of those that are served.
    pub(super) fn serves(&self, source: IpAddr) -> bool {
        let longest_first = (0..=128).rev().filter_map(|len| Prefix::of(source, len));
        let kinds = longest_first.map(|prefix| {
            let is_denied = self.access.denied.contains(&prefix);
            let is_allowed = self.access.allowed.contains(&prefix);
            let is_near = self.subnets.contains(&prefix);
            (is_denied || is_allowed || is_near).then_some(!is_denied)
        });
        kinds.flatten().next().unwrap_or_default()
    }

    /// When the next client can be accepted that waits.
    pub(super) fn accept_at(&self) -> Option<Instant> {
        let waits = self.ended_at.is_none() && !self.backlog.is_empty();
        waits.then(|| self.forwarder.accept_at(self.now, false)).flatten()
    }

    /// All clients leave, and those that wait to be accepted give up.
    pub fn empty_places(&mut self) {
        self.backlog.clear();
        for client in 0..self.clients.len() {
            if self.clients[client].conn.is_some() {
                self.schedule(Duration::ZERO, What::ClientResets { client });
            }
        }
    }

    pub(super) fn accept(&mut self) {
        while self.ended_at.is_none()
            && let Some(&client) = self.backlog.front()
        {
            let at = self.at();
            let all_in_use = self.are_all_in_use();
            if !self.forwarder.poll_accept(self.now, false) {
                self.waiting.since.get_or_insert(at);
                let since = *self.waiting.surely_since.get_or_insert(at);
                assert!(all_in_use, "a newcomer waits with places free, or with somebody idle");
                let crowded = (0..self.clients.len()).any(|client| {
                    self.clients[client].conn.is_some() && self.weight(client, 0) > 1
                });
                assert!(!crowded || at < since + WAIT_MAX, "a newcomer waits behind a crowd");
                return;
            }
            self.waiting.surely_since = None;
            if !all_in_use {
                self.waiting.since = None;
            }
            self.backlog.pop_front();
            let has_waited = self.waiting.since.is_some_and(|since| since + WAIT_MAX <= at);
            let has_least = !self.others_have_more(client);
            let peer = self.clients[client].peer;
            let Some(conn) = self.forwarder.handle_accept(self.now, peer) else {
                let is_crowded_out = all_in_use && has_waited && has_least;
                let is_served = self.serves(peer.ip());
                assert!(!is_served || is_crowded_out, "{peer} is refused a place");
                continue;
            };
            assert!(self.serves(peer.ip()), "{peer} is accepted");
            self.clients[client].conn = Some(conn);
            self.clients[client].state = State::Open;
            self.clients[client].fresh_since = Some(at);
            self.put(conn.into(), Socket::Client { conn, client });
            self.read_client(client);
            // What was closed to make room.
            self.waiting.favours_newcomer = all_in_use && has_waited;
            self.drain();
            self.waiting.favours_newcomer = false;
        }
        self.waiting.since = None;
        self.waiting.surely_since = None;
        self.forwarder.handle_none_waiting(false);
    }

    /// No place is free, and whoever has one is owed something or may be about to ask.
    fn are_all_in_use(&mut self) -> bool {
        let connected: Vec<_> =
            (0..self.clients.len()).filter(|n| self.clients[*n].conn.is_some()).collect();
        connected.len() >= self.limits.clients_max
            && connected.into_iter().all(|client| {
                // A client that broke the rules may have been told to go, and has a second for that.
                self.clients[client].is_fresh(self.at())
                    || self.clients[client].offender
                    || !self.is_idle(client)
            })
    }

    /// How many connections of this client's network count when places are few, if it has so many more: of this
    /// host's own only those beyond nine tenths of all.
    fn weight(&self, client: usize, more: usize) -> usize {
        let network = network(self.clients[client].peer.ip());
        let held = self.connected().filter(|other| self::network(other.peer.ip()) == network);
        let held = held.count() + more;
        let own = self.limits.clients_max - (self.limits.clients_max / 10).max(1);
        if network.is_loopback() { held.saturating_sub(own) } else { held }
    }

    /// Whether there are connections that may give way to one of this client: of a network, or of an address of
    /// the same, that would have more even then.
    fn others_have_more(&self, client: usize) -> bool {
        let peer = self.clients[client].peer.ip();
        let would_have = self.weight(client, 1);
        let of_address = |ip| self.connected().filter(|other| other.peer.ip() == ip).count();
        (0..self.clients.len()).filter(|other| self.clients[*other].conn.is_some()).any(|other| {
            let ip = self.clients[other].peer.ip();
            if network(ip) == network(peer) {
                of_address(ip) > of_address(peer) + 1
            } else {
                self.weight(other, 0) > would_have
            }
        })
    }

    fn connected(&self) -> impl Iterator<Item = &TcpClient> {
        self.clients.iter().filter(|client| client.conn.is_some())
    }

    fn is_idle(&mut self, number: usize) -> bool {
        let client = &self.clients[number];
        let is_open = client.state == State::Open && !client.dealings.ended;
        let owes = self.oracle.owes(To::Stream(number));
        // What cannot be read is about to be closed.
        is_open
            && !owes
            && client.conn.is_some_and(|conn| {
                self.forwarder.output(conn.into()).is_empty()
                    && self.forwarder.poll_read(self.now, conn) > 0
            })
    }

    fn read_client(&mut self, number: usize) {
        let at = self.at();
        while let client = &mut self.clients[number]
            && let Some(conn) = client.conn
            && client.state == State::Open
            && let most = self.forwarder.poll_read(self.now, conn)
            && most > 0
        {
            if client.unread.is_empty() {
                if client.fin == Fin::Arrived {
                    client.fin = Fin::Told;
                    client.dealings.ended = true;
                    self.forwarder.handle_closed(self.now, conn.into(), Closed::Eof);
                }
                return;
            }
            self.check_rate(number, most);
            let client = &mut self.clients[number];
            client.waits_since = None;
            let length = self.roughness.read_length(client.unread.len().min(most), &mut self.rng);
            let bytes: Vec<u8> = client.unread.drain(..length).collect();
            // Stopped for long, the forwarder may give a client up before it reads the rest.
            let is_late = client.partial_since.is_some_and(|since| since + PARTIAL_MAX <= at);
            client.offender |= is_late;
            client.dealings.excused |= is_late;
            client.partial.extend(&bytes);
            let mut is_whole = false;
            while let Some(message) = dns::take_frame(&mut self.clients[number].partial) {
                is_whole = true;
                self.clients[number].fresh_since = None;
                if self.clients[number].dealings.ended {
                    continue;
                }
                self.note(format_args!("  client {number} asks {}", asked(&message)));
                if !self.clients[number].dealings.excused {
                    self.meter.take_on_stream(at, self.clients[number].peer.ip());
                }
                self.oracle.asked(self.at(), To::Stream(number), &message, false);
                self.clients[number].dealings.ended = dns::due(&message) == Due::Silence;
            }
            if self.clients[number].dealings.excused {
                self.oracle.excuse(number);
            }
            let client = &mut self.clients[number];
            // At the end nothing is taken behind what came with its first query.
            client.dealings.ended |= is_whole && self.ended_at.is_some();
            let is_new = is_whole || client.partial_since.is_none();
            client.partial_since = match client.partial.is_empty() {
                true => None,
                false if is_new => Some(at),
                false => client.partial_since,
            };
            self.forwarder.handle_stream(self.now, conn.into(), &bytes);
        }
        let client = &mut self.clients[number];
        let Some(conn) = client.conn else { return };
        if !client.unread.is_empty() {
            client.waits_since.get_or_insert(at);
        } else if client.fin == Fin::Arrived && client.state == State::Open {
            // The end of a client is seen even while nothing is read of it.
            client.fin = Fin::Told;
            client.dealings.ended = true;
            self.forwarder.handle_closed(self.now, conn.into(), Closed::Eof);
        }
    }

    /// So many octets may be read of a client: those of about as many messages as are left to its network, if
    /// that has had no other client that may have read what was left to both.
    fn check_rate(&self, number: usize, octets: usize) {
        let client = &self.clients[number];
        let source = client.peer.ip();
        let Some(left) = self.meter.left_on_stream(self.at(), source) else {
            return;
        };
        let Dealings { ended, excused, .. } = client.dealings;
        if !ended && !excused {
            assert!(left > 0, "client {number} is read, and nothing is left to its network");
            let octets_max = left * 40;
            let is_right = !client.partial.is_empty() || octets <= octets_max;
            assert!(is_right, "client {number}: {octets} octets are read, for {left} messages");
        }
    }

    /// Lets time pass, in which whoever waits to be read, as its network has asked too much, is read at its
    /// rate.
    pub fn run_at_rate(&mut self, length: Duration) {
        let waits = |client: &TcpClient| {
            let is_good = client.state == State::Open && !client.offender && client.room.is_none();
            client.waits_since.is_some()
                && client.conn.is_some()
                && is_good
                && !client.dealings.ended
        };
        let at = self.at();
        let waiting: Vec<_> = self
            .clients
            .iter()
            .enumerate()
            .filter(|(_, client)| waits(client))
            .filter_map(|(n, client)| {
                let network = self.meter.network(client.peer.ip())?;
                let due = self.meter.due_on_stream(at, length, network);
                Some((n, network, self.meter.taken_on_stream(network) + due))
            })
            .collect();
        self.run_for(length);
        for (n, network, due) in waiting {
            let taken = self.meter.taken_on_stream(network);
            let is_read = !waits(&self.clients[n]) || taken + 2 >= due;
            assert!(is_read, "client {n} waits, and its network was read {taken} of {due} times");
        }
    }

    fn read_link(&mut self, number: usize) {
        let at = self.at();
        loop {
            let link = &mut self.links[number];
            let Some(conn) = link.conn else { return };
            if link.forgotten || link.told_end || link.pace.is_some() && link.due.readable {
                return;
            }
            let was_behind = !link.outbound.is_empty();
            link.outbound.extend(link.path.take(Direction::FromServer, at));
            if link.outbound.is_empty() {
                if link.path.is_empty(Direction::FromServer)
                    && let Some(end) = link.end.take()
                {
                    self.tell_end(number, end);
                }
                return;
            }
            let mut length = self.roughness.read_length(link.outbound.len(), &mut self.rng);
            let pace = link.pace;
            length = pace.map_or(length, |(octets, _)| octets.min(link.outbound.len()));
            let bytes: Vec<u8> = link.outbound.drain(..length).collect();
            link.note_read(at, was_behind);
            self.forwarder.handle_stream(self.now, conn.into(), &bytes);
            if let Some((_, pause)) = pace {
                self.links[number].due.readable = true;
                return self.schedule(pause, What::LinkReadable { link: number });
            }
            let pauses =
                self.roughness.read_max != usize::MAX && self.links[number].outbound.len() < 500;
            if pauses && self.rng.chance(100) {
                return self.read_link_later(number);
            }
        }
    }

    fn read_link_later(&mut self, number: usize) {
        if !self.links[number].due.readable {
            self.links[number].due.readable = true;
            let after = self.rng.up_to(Duration::from_millis(2));
            self.schedule(after, What::LinkReadable { link: number });
        }
    }

    fn tell_end(&mut self, number: usize, how: Closed) {
        let link = &mut self.links[number];
        if let Some(conn) = link.conn
            && !link.told_end
        {
            link.told_end = true;
            self.note(format_args!("link {number} ends: {how:?}"));
            self.forwarder.handle_closed(self.now, conn.into(), how);
        }
    }

    /// A server does something to a connection.
    pub fn serve(&mut self, number: usize, what: Do) {
        let link = &mut self.links[number];
        if link.conn.is_none() || link.forgotten || link.end.is_some() || link.told_end {
            return;
        }
        link.active = self.now - self.base;
        match what {
            Do::Answer(message) => {
                let id = message.get(..2).map_or(0, |id| u16::from_be_bytes([id[0], id[1]]));
                let question = link.outstanding.remove(&id);
                let names_none =
                    View::read_front(&message).is_some_and(|m| m.question().is_empty());
                if question.is_none() && names_none {
                    link.misleading.insert(id);
                }
                self.oracle.made(question.as_deref(), &message);
                link.answered += 1;
                self.send_back(number, dns::framed(&message));
                self.watch_idle(number);
            }
            Do::Close(Closed::Eof) => {
                link.end = Some(Closed::Eof);
                self.send_back(number, Vec::new());
            }
            Do::Close(how) => {
                let at = self.now - self.base;
                let arrives_at = link.path.send(Direction::FromServer, at, Vec::new());
                if arrives_at <= at {
                    return self.tell_end(number, how);
                }
                link.end = Some(how);
                self.expect_arrival(number, arrives_at);
            }
            Do::Forget => link.forget(self.now - self.base),
            Do::Hold(direction, length) => link.path.hold(direction, self.now - self.base, length),
            Do::Octets(octets) => {
                self.send_back(number, octets);
            }
            Do::Pace(octets, pause) => link.pace = Some((octets, pause)),
            Do::Return(message) => {
                // From a socket each, or one could have two queries under one ID that differ in EDNS.
                let port = 50_000 + (self.serial % 10_000) as u16;
                self.serial += 1;
                let path = path_from(SocketAddr::from((Ipv4Addr::new(10, 2, 0, 1), port)));
                self.schedule(Duration::ZERO, What::Datagram { path, message, cut: false });
            }
            Do::StopReading => link.room = Some(16 * 1024),
        }
    }

    /// A server sends octets.
    fn send_back(&mut self, number: usize, octets: Vec<u8>) {
        let at = self.at();
        let arrives_at = self.links[number].path.send(Direction::FromServer, at, octets);
        self.expect_arrival(number, arrives_at);
        self.read_link(number);
    }

    /// Octets arrive at one end of a connection then.
    pub(super) fn expect_arrival(&mut self, link: usize, arrives_at: Duration) {
        let after = arrives_at.saturating_sub(self.at());
        if after > Duration::ZERO && arrives_at != NEVER {
            self.schedule(after, What::LinkGoesOn { link });
        }
    }

    fn watch_idle(&mut self, number: usize) {
        let link = &mut self.links[number];
        link.active = self.now - self.base;
        if let Some(after) = self.servers[link.server].idle_close {
            let since = link.active;
            self.schedule(after, What::LinkIdle { link: number, since });
        }
    }
}

/// `what` in a trace, without the octets.
fn brief(what: &What) -> String {
    match what {
        What::ClientBytes { client, bytes } => {
            format!("client {client} sends {} octets", bytes.len())
        }
        What::Datagram { path, message, .. } => {
            format!("{} asks {}", path.client, asked(message))
        }
        What::Serve { link, what: Do::Answer(message) } => {
            let id = message.get(..2).map(|id| u16::from_be_bytes([id[0], id[1]]));
            format!("link {link} answers ID {id:?}, {} octets", message.len())
        }
        What::Serve { link, what: Do::Octets(octets) } => {
            format!("link {link} sends {} octets", octets.len())
        }
        What::Serve { link, what: Do::Return(message) } => {
            format!("link {link} leads back for {}", asked(message))
        }
        other => format!("{other:?}"),
    }
}
/// A message of a client in a trace.
fn asked(message: &[u8]) -> String {
    let id = message.get(..2).map(|id| u16::from_be_bytes([id[0], id[1]]));
    match dns::due(message) {
        Due::Upstream => format!("{} ID {id:?}", dns::name_of(dns::first_question(message))),
        other => format!("{other:?} ID {id:?}"),
    }
}

/// An IPv4 address, or the /64 of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        _ if address.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 72 << 72).into(),
        IpAddr::V4(_) => address,
    }
}

/// So long newcomers wait for places that a crowd has.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// How long a partial frame may last.
pub(super) const PARTIAL_MAX: Duration = Duration::from_secs(10);
