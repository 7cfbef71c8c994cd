//! A forwarder between the clients and the servers of a row.

use std::net::SocketAddr;

use crate::forwarder::asker::Asker;
use crate::forwarder::outcome::Outcome;
use crate::forwarder::subject::{Pins, Running, Subject, Wanted, own_host};
use crate::{Authority, DotServer, Setup, TcpClient};

/// The name in the certificates of the servers.
pub const NAME: &str = "dot.example";

pub struct Stage {
    pub running: Running,
    pub servers: Vec<DotServer>,
    /// The CA, whose file stays as long as the forwarder runs, which may read it again.
    pub authority: Authority,
}

/// Seconds that a row wants of idle timeouts.
#[derive(Clone, Copy, Default)]
pub struct Idle {
    pub client: Option<u32>,
    pub upstream: Option<u32>,
}

impl Stage {
    /// With one good server that was changed.
    pub fn one(subject: &dyn Subject, change: impl FnOnce(Setup) -> Setup) -> Result<Self, String> {
        Self::one_idle(subject, Idle::default(), change)
    }

    pub fn one_idle(
        subject: &dyn Subject,
        idle: Idle,
        change: impl FnOnce(Setup) -> Setup,
    ) -> Result<Self, String> {
        let authority = Authority::new();
        let server = DotServer::start(change(good(&authority, NAME)));
        let running = run(subject, &authority, &[(server.address(), NAME)], idle)?;
        Ok(Self { running, servers: vec![server], authority })
    }

    /// With a server that was changed in front of a good one.
    pub fn two(subject: &dyn Subject, change: impl FnOnce(Setup) -> Setup) -> Result<Self, String> {
        let authority = Authority::new();
        let first = DotServer::start(change(good(&authority, NAME)));
        let second = DotServer::start(good(&authority, NAME));
        let upstreams = [(first.address(), NAME), (second.address(), NAME)];
        let running = run(subject, &authority, &upstreams, Idle::default())?;
        Ok(Self { running, servers: vec![first, second], authority })
    }

    /// With a good server behind an address where there is none.
    pub fn behind(subject: &dyn Subject, first: SocketAddr) -> Result<Self, String> {
        let authority = Authority::new();
        let second = DotServer::start(good(&authority, NAME));
        let upstreams = [(first, NAME), (second.address(), NAME)];
        let running = run(subject, &authority, &upstreams, Idle::default())?;
        Ok(Self { running, servers: vec![second], authority })
    }

    pub fn address(&self) -> SocketAddr {
        self.running.address()
    }

    pub fn asker(&self) -> Asker {
        Asker::new(self.address())
    }

    pub fn tcp(&self) -> TcpClient {
        TcpClient::new(self.address())
    }

    /// What there is to tell when the row is over; it ends the forwarder.
    pub fn outcome(&self, askers: &[&Asker]) -> Outcome {
        let mut outcome = Outcome { lines: self.running.end(), ..Outcome::default() };
        for asker in askers {
            outcome.count(asker);
        }
        for server in &self.servers {
            outcome.count_connections(server);
        }
        outcome
    }
}

/// A server that does everything right, in the way most servers do: several forwarders trip over answers
/// that share a record, which is a row of its own and should not be the result of every other.
pub fn good(authority: &Authority, name: &str) -> Setup {
    Setup { record_per_message: true, ..Setup::new(authority.identity(name)) }
}

/// Starts the forwarder in front of these, on an address of its own.
pub fn run(
    subject: &dyn Subject,
    authority: &Authority,
    upstreams: &[(SocketAddr, &str)],
    idle: Idle,
) -> Result<Running, String> {
    Running::start(subject, &wanted(authority, upstreams, Pins::default(), idle))
}

/// The same with servers that must have one of these keys.
pub fn run_pinned(
    subject: &dyn Subject,
    authority: &Authority,
    upstreams: &[(SocketAddr, &str)],
    pins: Pins<'_>,
) -> Result<Running, String> {
    Running::start(subject, &wanted(authority, upstreams, pins, Idle::default()))
}

fn wanted<'a>(
    authority: &'a Authority,
    upstreams: &'a [(SocketAddr, &'a str)],
    pins: Pins<'a>,
    idle: Idle,
) -> Wanted<'a> {
    const PORT: u16 = 5300;

    Wanted {
        listen: (own_host(), PORT).into(),
        upstreams,
        ca_file: authority.file(),
        pins,
        client_idle: idle.client,
        upstream_idle: idle.upstream,
    }
}
