//! What stories and workloads say.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dot_proxy::forwarder::DatagramPath;

use super::client::TcpClient;
use super::dns;
use super::oracle::Response;
use super::server::Link;
use super::world::{What, World};

impl World {
    /// A stub resolver asks for an A record over UDP, from a port of its own.
    pub fn ask(&mut self, name: &str) -> DatagramPath {
        let path = self.next_path();
        let message = dns::query(self.asked, name, dns::A, None);
        self.datagram(path, message);
        path
    }

    /// The same with EDNS, so that errors come explained.
    pub fn ask_edns(&mut self, name: &str) -> DatagramPath {
        let path = self.next_path();
        let edns = dns::Edns { size: 1232, dnssec_ok: false };
        let message = dns::query(self.asked, name, dns::A, Some(edns));
        self.datagram(path, message);
        path
    }

    pub fn datagram(&mut self, path: DatagramPath, message: Vec<u8>) {
        self.schedule(Duration::ZERO, What::Datagram { path, message, cut: false });
    }

    /// A path no datagram came on yet.
    pub fn next_path(&mut self) -> DatagramPath {
        self.asked = self.asked.wrapping_add(1);
        let [high, low] = self.asked.to_be_bytes();
        path_from(SocketAddr::from((Ipv4Addr::new(10, 0, high, low), 20_000)))
    }

    /// The message ID of the query on the last of these paths.
    pub fn last_id(&self) -> u16 {
        self.asked
    }

    /// A TCP client connects.
    pub fn tcp_client(&mut self) -> usize {
        let client = self.clients.len();
        let port = 30_000 + client as u16;
        let peer = SocketAddr::from((Ipv4Addr::new(10, 1, 0, (client % 250) as u8), port));
        self.clients.push(TcpClient::new(peer));
        self.schedule(Duration::ZERO, What::ClientConnects { client });
        client
    }

    pub fn tcp_send(&mut self, client: usize, bytes: Vec<u8>) {
        self.schedule(Duration::ZERO, What::ClientBytes { client, bytes });
    }

    /// The only response to the only query for `name`.
    pub fn response(&self, name: &str) -> &Response {
        let mut all = self.oracle.responses.iter().filter(|response| response.name == name);
        let first = all.next().unwrap_or_else(|| panic!("no response for {name} yet"));
        assert!(all.next().is_none(), "more than one response for {name}");
        first
    }

    pub fn is_answered(&self, name: &str) -> bool {
        self.oracle.responses.iter().any(|response| response.name == name)
    }

    /// Connections to a server, in order of the attempts.
    pub fn links_to(&self, server: usize) -> Vec<&Link> {
        self.links.iter().filter(|link| link.server == server).collect()
    }
}

/// The way of a datagram from `client` to the only listener.
pub fn path_from(client: SocketAddr) -> DatagramPath {
    let local = Some(IpAddr::from(Ipv4Addr::new(10, 0, 0, 53)));
    DatagramPath { listener: 0, client, local, interface: 2 }
}
