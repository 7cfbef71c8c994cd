//! Changes of routes, addresses and links, as the kernel tells them (rtnetlink(7)).
//!
//! What was unreachable may be reachable after one, so backoffs end. A busy router changes routes all
//! day: then it is told ever more rarely, and in between nobody listens, so that what changes costs
//! nothing either.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// Where the kernel tells them.
#[derive(Debug)]
pub(crate) struct NetworkChanges {
    socket: OwnedFd,
    token: Token,
    pace: Pace,
    /// Until then nobody listens.
    listen_at: Option<Instant>,
}

impl NetworkChanges {
    /// Listens. It is an error where there is no netlink, as in some sandboxes.
    pub(crate) fn listen(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is the first, NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        set_socket_recv_buffer_size(&socket, RECEIVE_ASKED)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        let changes = Self { socket, token, pace: Pace::default(), listen_at: None };
        changes.register(registry)?;
        Ok(changes)
    }

    /// The socket is readable. Whether something changed; if so, nobody listens for a while.
    pub(crate) fn take(&mut self, registry: &Registry, now: Instant) -> io::Result<bool> {
        let has_changed = self.listen_at.is_none() && self.read()?;
        if has_changed {
            registry.deregister(&mut SourceFd(&self.socket.as_raw_fd()))?;
            self.listen_at = Some(now + self.pace.pause(now));
        }
        Ok(has_changed)
    }

    /// When [`Self::listen_again`] is due.
    pub(crate) fn listen_at(&self) -> Option<Instant> {
        self.listen_at
    }

    /// Listens again, if it is time: of what changed meanwhile the poll will tell.
    pub(crate) fn listen_again(&mut self, registry: &Registry, now: Instant) -> io::Result<()> {
        if self.listen_at.is_some_and(|at| at <= now) {
            self.listen_at = None;
            self.register(registry)?;
        }
        Ok(())
    }

    fn register(&self, registry: &Registry) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.socket.as_raw_fd()), self.token, Interest::READABLE)
    }

    fn read(&self) -> io::Result<bool> {
        let mut has_changed = false;
        // What is at the end of a longer message is of no interest here.
        let mut buffer = [0; 4096];
        for _ in 0..READS_MAX {
            match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((len, _)) => has_changed |= is_change(&buffer[..len]),
                Err(Errno::INTR) => {}
                // More came than the socket could hold.
                Err(Errno::NOBUFS) => has_changed = true,
                Err(Errno::WOULDBLOCK) => return Ok(has_changed),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

/// How often changes are told.
#[derive(Debug, Default)]
struct Pace {
    /// The last was told then, with this pause after it.
    last: Option<(Instant, Duration)>,
    /// How many were told with little quiet in between.
    in_a_row: u32,
}

impl Pace {
    /// The pause after a change that is told now: at first so short that a cable plugged in, the
    /// addresses and routes that follow and what they make possible are each told when they come.
    fn pause(&mut self, now: Instant) -> Duration {
        let goes_on = self.last.is_some_and(|(at, pause)| now < at + 2 * pause);
        self.in_a_row = if goes_on { self.in_a_row + 1 } else { 0 };
        let doublings = self.in_a_row.saturating_sub(SHORT_PAUSES).min(u8::BITS);
        let pause = (PAUSE_MIN * (1 << doublings)).min(PAUSE_MAX);
        self.last = Some((now, pause));
        pause
    }
}

/// Whether a message from the kernel tells of a way to other hosts that came, went or is another now.
/// What cannot be read counts.
fn is_change(mut messages: &[u8]) -> bool {
    while let Some((header, rest)) = messages.split_first_chunk::<HEADER_LEN>() {
        let [a, b, c, d, kind_a, kind_b, ..] = *header;
        let len = u32::from_ne_bytes([a, b, c, d]) as usize;
        let body_len = len.saturating_sub(HEADER_LEN).min(rest.len());
        let kind = u16::from_ne_bytes([kind_a, kind_b]);
        if is_change_of(kind, &rest[..body_len]).unwrap_or(true) {
            return true;
        }
        messages = rest.get(aligned(body_len)..).unwrap_or_default();
    }
    false
}

/// `None`: it is too short for its kind.
fn is_change_of(kind: u16, body: &[u8]) -> Option<bool> {
    match kind {
        // struct ifinfomsg, and struct ifaddrmsg.
        RTM_NEWLINK | RTM_DELLINK | RTM_NEWADDR | RTM_DELADDR => Some(number(body, 4)? != LOOPBACK),
        // struct rtmsg. Local and multicast routes come with addresses and lead nowhere.
        RTM_NEWROUTE | RTM_DELROUTE => {
            let leads_out = matches!(
                *body.get(7)?,
                RTN_UNICAST | RTN_BLACKHOLE | RTN_UNREACHABLE | RTN_PROHIBIT
            );
            let is_cached = number(body, 8)? & RTM_F_CLONED != 0;
            Some(leads_out && !is_cached && interface_of_route(body) != Some(LOOPBACK))
        }
        _ => Some(false),
    }
}

fn interface_of_route(body: &[u8]) -> Option<u32> {
    let mut attributes = body.get(ROUTE_LEN..)?;
    // An unreachable route is the loopback interface's, on paper.
    if body[7] != RTN_UNICAST {
        return None;
    }
    loop {
        let [len_a, len_b, kind_a, kind_b] = *attributes.first_chunk()?;
        if u16::from_ne_bytes([kind_a, kind_b]) == RTA_OIF {
            return number(attributes, 4);
        }
        let len = usize::from(u16::from_ne_bytes([len_a, len_b]));
        attributes = attributes.get(aligned(len.max(4))..)?;
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|octets| u32::from_ne_bytes(*octets))
}

fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// `RTMGRP_LINK`, `IPV4_IFADDR`, `IPV4_ROUTE`, `IPV6_IFADDR` and `IPV6_ROUTE` of `linux/rtnetlink.h`,
/// as what follows.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTN_UNICAST: u8 = 1;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RTN_PROHIBIT: u8 = 8;
const RTM_F_CLONED: u32 = 0x200;
const RTA_OIF: u16 = 4;

/// `struct nlmsghdr`.
const HEADER_LEN: usize = 16;

/// `struct rtmsg`.
const ROUTE_LEN: usize = 12;

/// The index of the loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;

/// Octets asked of the kernel for messages that wait. What does not fit is a change, too.
pub(crate) const RECEIVE_ASKED: usize = 4 * 1024;

/// Messages read at a time. So many at once are a change.
const READS_MAX: usize = 256;

/// What changes together is told once or twice.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longer than backoffs are where one change may end them, so that many changes do not.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A host that starts, or a laptop that comes to another network, needs a few seconds.
const SHORT_PAUSES: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_addresses_count_but_those_of_loopback() {
        for kind in [RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR] {
            let on = |index| is_change(&message(kind, &[&[2, 24, 0, 0], &u32_bytes(index)[..]]));
            assert!(on(2), "{kind}");
            assert!(!on(1), "{kind}");
        }
    }

    #[test]
    fn routes_count_that_lead_somewhere() {
        let oif = |index: u32| attribute(4, &u32_bytes(index));
        let gateway = attribute(5, &[10, 0, 0, 1]);
        let odd = attribute(22, &[1, 2, 3, 4, 5]);
        for (what, expected, body) in [
            ("default", true, route(1, 0, &[&gateway, &oif(2)])),
            ("several ways", true, route(1, 0, &[&odd])),
            ("no attributes", true, route(1, 0, &[])),
            ("unreachable", true, route(7, 0, &[&oif(1)])),
            ("through loopback", false, route(1, 0, &[&odd, &gateway, &oif(1)])),
            ("local", false, route(2, 0, &[&oif(2)])),
            ("broadcast", false, route(3, 0, &[&oif(2)])),
            ("multicast", false, route(5, 0, &[&oif(2)])),
            ("cached", false, route(1, RTM_F_CLONED, &[&oif(2)])),
        ] {
            for kind in [RTM_NEWROUTE, RTM_DELROUTE] {
                assert_eq!(is_change(&message(kind, &[&body])), expected, "{what}");
            }
        }
    }

    #[test]
    fn other_messages_do_not_count_and_what_follows_them_does() {
        let neighbour = message(28, &[&[2, 0, 0, 0], &u32_bytes(2)[..]]);
        let loopback = message(RTM_NEWADDR, &[&[2, 8, 0, 0], &u32_bytes(1)[..], &[7; 3]]);
        let address = message(RTM_NEWADDR, &[&[2, 24, 0, 0], &u32_bytes(2)[..]]);
        assert!(!is_change(&[]));
        assert!(!is_change(&[&neighbour[..], &loopback, &neighbour].concat()));
        assert!(is_change(&[&neighbour[..], &loopback, &address].concat()));
    }

    #[test]
    fn what_is_cut_counts_and_nothing_is_read_beyond_it() {
        let attributes = [attribute(5, &[10, 0, 0, 1]), attribute(4, &u32_bytes(1))].concat();
        let whole = message(RTM_NEWROUTE, &[&route(1, 0, &[&attributes])]);
        assert!(!is_change(&whole));
        for len in HEADER_LEN..whole.len() {
            assert!(is_change(&whole[..len]), "{len} octets");
        }
        // Lengths that lie.
        for octet in 0..whole.len() {
            for value in [0, 1, 3, 255] {
                let mut lie = whole.clone();
                lie[octet] = value;
                is_change(&lie);
            }
        }
    }

    #[test]
    fn changes_are_told_ever_more_rarely_while_they_go_on() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut at = start;
        let mut told = Vec::new();
        while at < start + Duration::from_secs(600) {
            told.push((at - start).as_secs());
            at += pace.pause(at);
        }
        assert_eq!(told[..12], [0, 1, 2, 3, 4, 5, 6, 8, 12, 20, 36, 66]);
        assert!(told.len() < 32, "{told:?}");
        // Quiet for as long as the last pause was.
        assert_eq!(pace.pause(at + PAUSE_MAX), PAUSE_MIN);
        assert_eq!(pace.pause(at + PAUSE_MAX + 2 * PAUSE_MIN), PAUSE_MIN);
    }

    fn message(kind: u16, body: &[&[u8]]) -> Vec<u8> {
        let body = body.concat();
        let len = (HEADER_LEN + body.len()) as u32;
        let mut message = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &body].concat();
        message.resize(aligned(message.len()), 0);
        message
    }

    fn route(kind: u8, flags: u32, attributes: &[&[u8]]) -> Vec<u8> {
        [&[2, 0, 0, 0, 254, 3, 0, kind][..], &flags.to_ne_bytes(), &attributes.concat()].concat()
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = 4 + value.len() as u16;
        let mut attribute = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        attribute.resize(aligned(attribute.len()), 0);
        attribute
    }

    fn u32_bytes(value: u32) -> [u8; 4] {
        value.to_ne_bytes()
    }
}
