//! The ways to the upstreams, and when they change.
//!
//! The kernel sends messages about routes, addresses and links that come and go (rtnetlink(7)), those of
//! containers too, which lead to no upstream. So its messages are not read for what they say: each leads
//! to a look at which address the kernel sends from to each upstream, and only a difference is a change.
//! A look does not show that a gateway is another now while our address stays. A connection that does not
//! survive that falls silent, as on any path that breaks.

pub mod interfaces;
pub mod source;
pub(crate) mod subnets;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, connect, connect_unspec, getsockname,
    recv, socket_with,
};
use socket2::SockRef;
use source::Source;

/// A socket on which the kernel announces changes, and the ways to the upstreams as of the last look.
#[derive(Debug)]
pub(crate) struct Network {
    messages: OwnedFd,
    token: Token,
    looker: Looker,
    /// The way to each upstream, by index; `None` where it was never known.
    ways: Vec<Option<Way>>,
    looked_at: Instant,
    /// When to look, at the start and after a message. Nobody listens for messages until that look.
    look_at: Option<Instant>,
}

/// The address that is sent from to an upstream; `None`: there is no way to it.
pub(crate) type Way = Option<IpAddr>;

/// What became of the way to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The way at the last look.
    pub(crate) before: Way,
    /// The way that there is now.
    pub(crate) now: Way,
}

impl Network {
    /// Has the kernel send messages from now on. The first look is due at once, and finds what changed since
    /// then. It is an error where there is no netlink, as in some sandboxes.
    pub(crate) fn listen(
        token: Token,
        upstreams: &[SocketAddr],
        source: &Source,
        now: Instant,
    ) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is the first, NETLINK_ROUTE.
        let messages = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        set_socket_recv_buffer_size(&messages, RECEIVE_ASKED)?;
        bind(&messages, &SocketAddrNetlink::new(0, GROUPS))?;
        let looker = Looker::new(source);
        let ways = vec![None; upstreams.len()];
        Ok(Self { messages, token, looker, ways, looked_at: now, look_at: Some(now) })
    }

    /// Takes note of a message. Nobody listens until the look that it leads to, so that many cost nothing.
    pub(crate) fn handle_message(&mut self, registry: &Registry, now: Instant) -> io::Result<()> {
        if self.look_at.is_none() {
            registry.deregister(&mut SourceFd(&self.messages.as_raw_fd()))?;
            self.look_at = Some(look_at(now, self.looked_at));
        }
        Ok(())
    }

    /// When a look is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.look_at
    }

    /// Whether it is time to look at all ways; if so, messages are listened for again.
    pub(crate) fn begin_look(&mut self, registry: &Registry, now: Instant) -> io::Result<bool> {
        if self.look_at.is_none_or(|at| now < at) {
            return Ok(false);
        }
        // Messages are discarded before the look: what changes after it has a message of its own.
        self.discard_messages()?;
        self.look_at = None;
        self.looked_at = now;
        self.register(registry)?;
        Ok(true)
    }

    /// Looks at the way to this upstream, and returns how it has changed since the last look.
    pub(crate) fn poll_way(&mut self, index: usize, upstream: SocketAddr) -> Option<Change> {
        if self.ways.len() <= index {
            self.ways.resize(index + 1, None);
        }
        let now = self.looker.way(upstream)?;
        let before = self.ways[index].replace(now)?;
        (before != now).then_some(Change { before, now })
    }

    /// Another upstream has this index.
    pub(crate) fn forget_way(&mut self, index: usize) {
        if let Some(way) = self.ways.get_mut(index) {
            *way = None;
        }
    }

    /// Whether a connection from `local` comes through no more, after this change.
    pub(crate) fn is_lost(&self, change: Change, local: SocketAddr) -> bool {
        is_lost(change.now, local.ip(), || self.looker.is_ours(local))
    }

    fn register(&self, registry: &Registry) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.messages.as_raw_fd()), self.token, Interest::READABLE)
    }

    fn discard_messages(&self) -> io::Result<()> {
        let mut buffer = [0; 512];
        for _ in 0..READS_MAX {
            match recv(&self.messages, &mut buffer, RecvFlags::TRUNC) {
                // More came than the socket could hold.
                Ok(_) | Err(Errno::INTR | Errno::NOBUFS) => {}
                Err(Errno::WOULDBLOCK) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Change {
    /// Whether it is another way, as far as a look shows. A temporary address that takes the place of
    /// another in its network (RFC 8981), as happens every few hours, is no other way.
    pub(crate) fn is_another_way(self) -> bool {
        match (self.before, self.now) {
            (Some(before), Some(now)) => !is_same_ipv6_network(before, now),
            _ => true,
        }
    }
}

/// Sockets that never send, by which ways are looked at, one for each family that upstreams may have. They are
/// opened at the start, as a sandbox may allow none later.
#[derive(Debug)]
struct Looker {
    v4: Option<OwnedFd>,
    v6: Option<OwnedFd>,
}

impl Looker {
    fn new(source: &Source) -> Self {
        let open = |family, any: SocketAddr| {
            // Without a socket of this family there are no connections either.
            let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
            // Without the source there are none now, and nothing is known of later ones.
            source.look_from(&SockRef::from(&socket), any).ok()?;
            Some(socket)
        };
        Self {
            v4: open(AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, 0).into()),
            v6: open(AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, 0).into()),
        }
    }

    /// The way to an address; `None` where nothing is known.
    fn way(&self, to: SocketAddr) -> Option<Way> {
        way(self.source(to)?)
    }

    /// Whether it is an address of this host.
    fn is_ours(&self, address: SocketAddr) -> bool {
        // The kernel reaches an address of this host from that address itself.
        self.source(address).and_then(Result::ok) == Some(address.ip())
    }

    /// The address that the kernel sends from. To connect a datagram socket sends nothing.
    fn source(&self, to: SocketAddr) -> Option<Result<IpAddr, Errno>> {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 }.as_ref()?;
        let connected = connect(socket, &to).and_then(|()| getsockname(socket));
        let local = connected.and_then(|local| Ok(SocketAddr::try_from(local)?.ip()));
        // A socket that stays connected keeps its address, and the interface of a link-local one.
        let dissolved = connect_unspec(socket);
        Some(dissolved.and(local))
    }
}

/// When to look after a message that comes now. Changes made together come in several messages: in
/// between, an address that is only renewed may be gone.
fn look_at(now: Instant, looked_at: Instant) -> Instant {
    (now + SETTLING).max(looked_at + PAUSE)
}

/// What an attempt to connect says about the way; `None` if nothing.
fn way(source: Result<IpAddr, Errno>) -> Option<Way> {
    match source {
        Ok(local) => Some(Some(local)),
        // Errors of the kinds of route that lead nowhere, and of hosts without address or interface.
        Err(
            Errno::NETUNREACH
            | Errno::HOSTUNREACH
            | Errno::ACCESS
            | Errno::INVAL
            | Errno::ADDRNOTAVAIL
            | Errno::NETDOWN
            | Errno::NODEV,
        ) => Some(None),
        Err(_) => None,
    }
}

/// Whether a connection from `local` comes through no more, when `now` is the way. A connection from
/// another temporary address in the same network does come through, as long as that address is ours.
fn is_lost(now: Way, local: IpAddr, is_ours: impl FnOnce() -> bool) -> bool {
    match now {
        None => true,
        Some(now) => now != local && !(is_same_ipv6_network(now, local) && is_ours()),
    }
}

/// Whether two IPv6 addresses have the same first 64 bits (RFC 4291 section 2.5.4).
fn is_same_ipv6_network(a: IpAddr, b: IpAddr) -> bool {
    match (a.to_canonical(), b.to_canonical()) {
        (IpAddr::V6(a), IpAddr::V6(b)) => a.segments()[..4] == b.segments()[..4],
        _ => false,
    }
}

/// Groups of messages, by their numbers in `linux/rtnetlink.h`: `LINK`, `IPV4_IFADDR`, `IPV4_ROUTE`,
/// `IPV4_RULE`, `IPV6_IFADDR`, `IPV6_ROUTE` and `IPV6_RULE`.
const GROUPS: u32 = 1 << 0 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18;

/// Octets asked of the kernel for messages that wait. Messages that do not fit would say nothing new.
pub(crate) const RECEIVE_ASKED: usize = 4 * 1024;

/// Sockets by which ways are looked at.
pub(crate) const LOOKERS: usize = 2;

/// Reads before a look: more messages than fit into the socket. Messages that come meanwhile lead to
/// another look.
const READS_MAX: usize = 256;

/// The pause between two looks: on a host whose containers come and go all day, or a router with many
/// routes, looks cost next to nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// The pause between a message and the look, longer than a script takes that replaces an address.
const SETTLING: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn way_from(text: &str) -> Way {
        (text != "-").then(|| ip(text))
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a time to count from")]
    fn looks_come_after_a_moment_and_at_most_once_a_second() {
        let looked = Instant::now();
        for (came, due) in [(0, 1000), (10, 1000), (749, 1000), (751, 1001), (5000, 5250)] {
            let due = looked + Duration::from_millis(due);
            assert_eq!(look_at(looked + Duration::from_millis(came), looked), due, "{came}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a time to count from")]
    fn what_changes_while_the_program_starts_is_found() {
        let now = Instant::now();
        let upstream = "127.0.0.1:853".parse().expect("one");
        let poll = mio::Poll::new().expect("one");
        let mut network =
            Network::listen(Token(7), &[upstream], &Source::default(), now).expect("netlink");
        assert_eq!(network.poll_timeout(), Some(now));
        assert!(network.begin_look(poll.registry(), now).expect("a look"));
        // It is no change that nothing was known before.
        assert_eq!(network.poll_way(0, upstream), None);
        assert_eq!(network.poll_timeout(), None);
        assert!(!network.begin_look(poll.registry(), now).expect("no look"));
    }

    #[test]
    fn only_what_is_about_the_way_tells_that_there_is_none() {
        let local = ip("192.0.2.1");
        for (source, expected) in [
            (Ok(local), Some(Some(local))),
            (Err(Errno::NETUNREACH), Some(None)),
            (Err(Errno::HOSTUNREACH), Some(None)),
            (Err(Errno::ACCESS), Some(None)),
            (Err(Errno::INVAL), Some(None)),
            (Err(Errno::ADDRNOTAVAIL), Some(None)),
            (Err(Errno::AGAIN), None),
            (Err(Errno::PERM), None),
            (Err(Errno::NOBUFS), None),
            (Err(Errno::NOMEM), None),
        ] {
            assert_eq!(way(source), expected, "{source:?}");
        }
    }

    #[test]
    fn changes_and_what_they_leave_of_connections() {
        // What was sent from before, and is now; whether the old address is still ours; whether this is
        // another way, and what was connected from the old address is lost.
        for (what, before, now, ours, another_way, lost) in [
            ("no way any more", "10.0.0.5", "-", true, true, true),
            ("no way any more", "2001:db8::5", "-", true, true, true),
            ("a way again", "-", "10.0.0.5", false, true, false),
            ("another network", "10.0.0.5", "192.168.1.7", false, true, true),
            ("a VPN", "192.168.1.7", "10.8.0.2", true, true, true),
            ("a VPN", "2001:db8:1::7", "fd00:8::2", true, true, true),
            ("another lease", "192.168.1.7", "192.168.1.8", false, true, true),
            ("a temporary address", "2001:db8:1::7", "2001:db8:1::8", true, false, false),
            ("the old one gone", "2001:db8:1::7", "2001:db8:1::8", false, false, true),
            ("renumbered", "2001:db8:1::7", "2001:db8:2::7", true, true, true),
            ("mapped", "::ffff:10.0.0.5", "::ffff:192.168.1.7", true, true, true),
        ] {
            let change = Change { before: way_from(before), now: way_from(now) };
            assert_eq!(change.is_another_way(), another_way, "{what}: {change:?}");
            if let Some(local) = change.before {
                assert_eq!(is_lost(change.now, local, || ours), lost, "{what}: {change:?}");
            }
            if let Some(local) = change.now {
                assert!(!is_lost(change.now, local, || true), "{what}: {change:?}");
            }
        }
    }

    #[test]
    fn each_look_is_a_new_one() {
        let addresses = ["127.0.0.1:853", "[::1]:853"].map(|text| text.parse().expect("one"));
        let looker = Looker::new(&Source::default());
        for _ in 0..3 {
            for address in addresses {
                // A host may be without IPv6.
                if let Some(Some(local)) = looker.way(address) {
                    assert_eq!(local, address.ip());
                }
            }
            // No route leads here, or the answer is that of an interface; a documentation address is not ours.
            assert!(!looker.is_ours("192.0.2.77:853".parse().expect("one")));
            assert!(looker.is_ours(addresses[0]));
            let socket = looker.v4.as_ref().expect("IPv4");
            let local = SocketAddr::try_from(getsockname(socket).expect("a socket"));
            assert!(local.expect("one").ip().is_unspecified(), "{local:?}");
        }
    }
}
