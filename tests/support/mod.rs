//! What the tests of the real program share: a DoT server that does as it is told, certificates, DNS
//! clients, and the program as a child.

pub(crate) mod answers;
pub(crate) mod authority;
pub(crate) mod client;
pub(crate) mod message;
pub(crate) mod proxy;
pub(crate) mod server;
pub(crate) mod skip;

pub(crate) use authority::{Authority, Identity};
pub(crate) use client::{TcpClient, UdpClient};
pub(crate) use message::{Query, Response};
pub(crate) use proxy::Proxy;
pub(crate) use server::behaviour::{Act, End, Greeting, Received, Setup};
pub(crate) use server::log::Ended;
pub(crate) use server::{DotServer, RefusedPort};

/// A good server, a proxy in front of it that trusts it, and the authority behind both.
pub(crate) struct Bed {
    pub(crate) proxy: Proxy,
    pub(crate) server: DotServer,
    pub(crate) authority: Authority,
}

impl Bed {
    pub(crate) fn start() -> Self {
        Self::with(|setup| setup)
    }

    /// With a server that was changed.
    #[track_caller]
    pub(crate) fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        Self::with_args(&[], change)
    }

    /// With more arguments of the proxy, and a server that was changed.
    #[track_caller]
    pub(crate) fn with_args(args: &[&str], change: impl FnOnce(Setup) -> Setup) -> Self {
        let authority = Authority::new();
        let server = DotServer::start(change(Setup::new(authority.identity("dot.example"))));
        let proxy = Proxy::before(&authority, &[&server], args);
        Self { proxy, server, authority }
    }

    pub(crate) fn udp(&self) -> UdpClient {
        UdpClient::new(self.proxy.address())
    }

    #[track_caller]
    pub(crate) fn tcp(&self) -> TcpClient {
        TcpClient::new(self.proxy.address())
    }
}
