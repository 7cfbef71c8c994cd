//! What the tests of the real program share, and the suites that run on any forwarder.
//!
//! A DoT server that does as it is told, certificates, DNS clients and the program as a child are what
//! tests are made of. What [`faults`] and [`conformance`] try, they try on any [`forwarder`], which the
//! programs of this package do; `tests/` has what is asked of dot-proxy beyond that. [`mod@bench`] measures.
//! Nothing here depends on dot-proxy itself, so that a change of it costs no time here.
#![allow(
    missing_docs,
    clippy::new_without_default,
    clippy::return_self_not_must_use,
    reason = "tests alone use it, and most names say all that there is to say to them"
)]

pub mod answers;
pub mod authority;
pub mod bench;
pub mod client;
pub mod conformance;
pub mod faults;
pub mod forwarder;
pub mod json;
pub mod key_exchange;
pub mod lines;
pub mod message;
pub mod namespace;
pub mod private;
pub mod proxy;
pub mod random;
pub mod server;
pub mod skip;
pub mod view;

pub use authority::{Authority, Identity};
pub use client::{TcpClient, UdpClient};
pub use json::Json;
pub use message::{Query, Response};
pub use proxy::Proxy;
pub use random::Random;
pub use server::behaviour::{Act, End, Greeting, Received, Setup, Tickets};
pub use server::log::Ended;
pub use server::{DotServer, RefusedPort};

/// A good server, a proxy in front of it that trusts it, and the authority behind both.
pub struct Bed {
    pub proxy: Proxy,
    pub server: DotServer,
    pub authority: Authority,
}

impl Bed {
    pub fn start() -> Self {
        Self::with(|setup| setup)
    }

    /// With a server that was changed.
    #[track_caller]
    pub fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        Self::with_args(&[], change)
    }

    /// With more arguments of the proxy, and a server that was changed.
    #[track_caller]
    pub fn with_args(args: &[&str], change: impl FnOnce(Setup) -> Setup) -> Self {
        let authority = Authority::new();
        let server = DotServer::start(change(Setup::new(authority.identity("dot.example"))));
        let proxy = Proxy::before(&authority, &[&server], args);
        Self { proxy, server, authority }
    }

    pub fn udp(&self) -> UdpClient {
        UdpClient::new(self.proxy.address())
    }

    #[track_caller]
    pub fn tcp(&self) -> TcpClient {
        TcpClient::new(self.proxy.address())
    }
}
