//! UDP in batches, each datagram with the local address it came to, so that its answer leaves from
//! there.
//!
//! A socket bound to the wildcard address answers from whatever address the route to the client
//! suggests. On a host with several, that is not always the one that was asked, and the client drops
//! the answer (RFC 2181 section 4.1 has it come from the address asked).
#![allow(unsafe_code, reason = "recvmmsg, sendmmsg and PKTINFO have no safe wrapper")]

use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::c_int;
use mio::net::UdpSocket;

use crate::forwarder::DatagramPath;
use crate::host::os_error::system_error;

/// A nonblocking UDP socket that clients ask.
pub struct DatagramSocket {
    listener: u16,
    socket: UdpSocket,
    calls: Calls,
}

impl DatagramSocket {
    /// `listener` goes into the [`DatagramPath`] of what is received here. `socket` is bound and
    /// nonblocking; [`report_local_address`] was called on it if it is bound to a wildcard address.
    pub fn new(listener: u16, socket: UdpSocket, calls: Calls) -> Self {
        Self { listener, socket, calls }
    }

    /// The address that the socket is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The socket, to have its events told.
    pub fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    /// Has the kernel give the socket no more datagrams but those of this source: others that share its
    /// port get the rest. What waits in the socket stays, and it sends to anybody as before.
    pub fn connect(&self, source: SocketAddr) -> io::Result<()> {
        self.socket.connect(source)
    }

    /// Receives up to a [batch](Buffers::batch) of datagrams and gives each to `sink`: how it came, its
    /// octets, and whether it was cut at [`DATAGRAM_MAX`]. `WouldBlock` when there are none.
    ///
    /// Datagrams to a broadcast or multicast address are not given, as they make many hosts answer whoever
    /// their source says sent them; nor are datagrams from such an address or from port 0, which are nobody's.
    ///
    /// After fewer than a full batch none wait: what ends a batch early otherwise is an error, which is
    /// an event of its own, and no client can cause one on a socket that is not connected.
    pub fn receive(
        &self,
        buffers: &mut Buffers,
        mut sink: impl FnMut(DatagramPath, &[u8], bool),
    ) -> io::Result<Received> {
        let Buffers { received, names, controls } = buffers;
        let mut vectors = [EMPTY_VECTOR; BATCH_MAX];
        let mut headers = [EMPTY_HEADER; BATCH_MAX];
        let batch = names.len();
        let rooms = received.chunks_exact_mut(DATAGRAM_MAX);
        for ((i, header), room) in headers[..batch].iter_mut().enumerate().zip(rooms) {
            names[i] = Name::EMPTY;
            vectors[i] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            header.msg_hdr.msg_name = (&raw mut names[i]).cast();
            header.msg_hdr.msg_namelen = size_of::<Name>() as libc::socklen_t;
            header.msg_hdr.msg_iov = &raw mut vectors[i];
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = (&raw mut controls[i]).cast();
            header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        }
        let count = retry_interrupted(|| {
            self.socket.try_io(|| {
                // SAFETY: each of the first `batch` headers points to a name, a vector and a control
                // buffer of its own, with their true sizes; the vector points to a receive buffer of its own. All are
                // borrowed by this function and outlive the call.
                unsafe { self.calls.receive(self.socket.as_raw_fd(), &mut headers[..batch]) }
            })
        })?;
        let rooms = received.chunks_exact(DATAGRAM_MAX);
        let mut ignored = 0;
        for ((i, header), room) in headers[..count].iter().enumerate().zip(rooms) {
            // A source that is no IP address cannot be answered either; an IP socket has none.
            let client = names[i].address().filter(is_somebody);
            let destination = controls[i].destination(header.msg_hdr.msg_controllen as _);
            let (Some(client), Destination::One { local, interface }) = (client, destination)
            else {
                ignored += 1;
                continue;
            };
            let path = DatagramPath { listener: self.listener, client, local, interface };
            let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            sink(path, &room[..header.msg_len as usize], truncated);
        }
        Ok(Received { count, ignored })
    }

    /// Sends up to a batch of `datagrams`, in order, each from the local address its path names.
    pub fn send<'a>(
        &self,
        buffers: &mut Buffers,
        datagrams: impl Iterator<Item = (DatagramPath, &'a [u8])>,
    ) -> Sent {
        let Buffers { names, controls, .. } = buffers;
        let mut vectors = [EMPTY_VECTOR; BATCH_MAX];
        let mut headers = [EMPTY_HEADER; BATCH_MAX];
        let mut len = 0;
        for (i, (path, message)) in datagrams.take(names.len()).enumerate() {
            // sendmmsg(2) only reads through this pointer.
            let base = message.as_ptr().cast_mut().cast();
            vectors[i] = libc::iovec { iov_base: base, iov_len: message.len() };
            let header = &mut headers[i].msg_hdr;
            header.msg_namelen = names[i].set(path.client);
            header.msg_name = (&raw mut names[i]).cast();
            header.msg_iov = &raw mut vectors[i];
            header.msg_iovlen = 1;
            if let Some(local) = path.local {
                header.msg_controllen = controls[i].set_source(local, path.interface) as _;
                header.msg_control = (&raw mut controls[i]).cast();
            }
            len = i + 1;
        }
        let mut sent = Sent { taken: 0, skipped: 0, blocked: false, last_error: None };
        while sent.taken < len {
            let rest = &mut headers[sent.taken..len];
            let result = retry_interrupted(|| {
                self.socket.try_io(|| {
                    // SAFETY: each header points to the name, vector and control buffer filled for
                    // it above, with the sizes filled; the vector points to a message that lives for
                    // 'a. All outlive the call, which writes only to `msg_len` of the headers.
                    unsafe { self.calls.send(self.socket.as_raw_fd(), rest) }
                })
            });
            match result {
                Ok(count) => sent.taken += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sent.blocked = true;
                    break;
                }
                // sendmmsg(2) gives an error only for the first datagram of a call.
                Err(error) => {
                    sent.taken += 1;
                    sent.skipped += 1;
                    sent.last_error = Some(error);
                }
            }
        }
        sent
    }
}

/// What came in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Datagrams that came.
    pub count: usize,
    /// Datagrams that came and were not given.
    pub ignored: usize,
}

/// The system calls that receive and send: recvmmsg(2) and sendmmsg(2), or where a sandbox refuses these,
/// recvmsg(2) and sendmsg(2), for each datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    receive: Amount,
    send: Amount,
}

/// How many datagrams a system call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Amount {
    Many,
    One,
}

impl Calls {
    /// The calls that are there everywhere but in a sandbox.
    pub const USUAL: Self = Self { receive: Amount::Many, send: Amount::Many };

    /// Tries the calls on `socket`, which nothing is sent to, as it is neither bound nor connected. The
    /// error is one line.
    pub fn find(socket: BorrowedFd<'_>) -> Result<Self, String> {
        let socket = socket.as_raw_fd();
        let calls = [Amount::Many, Amount::One];
        // SAFETY: an empty header has neither name nor vector nor control buffer to point to.
        let receive = calls.map(|receive| unsafe {
            Self { receive, ..Self::USUAL }.receive(socket, &mut [EMPTY_HEADER])
        });
        // SAFETY: as above.
        let send = calls
            .map(|send| unsafe { Self { send, ..Self::USUAL }.send(socket, &mut [EMPTY_HEADER]) });
        Ok(Self {
            receive: choose(&receive, ["recvmmsg", "recvmsg"])?,
            send: choose(&send, ["sendmmsg", "sendmsg"])?,
        })
    }

    /// Receives as many datagrams as wait, one for each of `headers` at most. Returns how many; an error
    /// only if there was none before it.
    ///
    /// # Safety
    ///
    /// What the headers point to is theirs alone, of the sizes they say, and outlives the call.
    unsafe fn receive(self, socket: c_int, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT as _;
        match self.receive {
            Amount::Many => {
                let (headers, len) = (headers.as_mut_ptr(), headers.len() as libc::c_uint);
                // SAFETY: there are `len` headers; the rest is this function's condition.
                to_count(unsafe { libc::recvmmsg(socket, headers, len, flags, ptr::null_mut()) })
            }
            Amount::One => one_by_one(headers, |header| {
                // SAFETY: this function's condition.
                let received = unsafe { libc::recvmsg(socket, &raw mut header.msg_hdr, flags) };
                header.msg_len = to_count(received)? as libc::c_uint;
                Ok(())
            }),
        }
    }

    /// Sends a datagram for each of `headers`. Returns how many; an error only if it was the first's.
    ///
    /// # Safety
    ///
    /// What the headers point to is of the sizes they say and outlives the call.
    unsafe fn send(self, socket: c_int, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT as _;
        match self.send {
            Amount::Many => {
                let (headers, len) = (headers.as_mut_ptr(), headers.len() as libc::c_uint);
                // SAFETY: there are `len` headers; the rest is this function's condition.
                to_count(unsafe { libc::sendmmsg(socket, headers, len, flags) })
            }
            Amount::One => one_by_one(headers, |header| {
                // SAFETY: this function's condition.
                let sent = unsafe { libc::sendmsg(socket, &raw const header.msg_hdr, flags) };
                to_count(sent).map(drop)
            }),
        }
    }
}

/// `results` of the calls for many datagrams and for one, which have these names.
fn choose(results: &[io::Result<usize>; 2], names: [&str; 2]) -> Result<Amount, String> {
    // All other errors are the socket's, of which nobody knows.
    let refusal = |result: &io::Result<usize>| {
        let refusals = [io::ErrorKind::PermissionDenied, io::ErrorKind::Unsupported];
        let error = result.as_ref().err().filter(|error| refusals.contains(&error.kind()));
        error.map(system_error)
    };
    let [many, one] = names;
    let Some(why) = refusal(&results[0]) else { return Ok(Amount::Many) };
    if let Some(also) = refusal(&results[1]) {
        return Err(format!(
            "no UDP here: {many}: {why}; {one}: {also}; have the sandbox (seccomp) allow one of them"
        ));
    }
    log::warn!(
        "UDP is slower than it could be: {many}: {why}; {one} is used instead; let the sandbox (seccomp) \
         allow {many}"
    );
    Ok(Amount::One)
}

/// A call for each header, up to the first that fails.
fn one_by_one(
    headers: &mut [libc::mmsghdr],
    mut call: impl FnMut(&mut libc::mmsghdr) -> io::Result<()>,
) -> io::Result<usize> {
    for (done, header) in headers.iter_mut().enumerate() {
        match call(header) {
            Ok(()) => {}
            Err(error) if done == 0 => return Err(error),
            Err(_) => return Ok(done),
        }
    }
    Ok(headers.len())
}

/// What became of a batch.
#[derive(Debug)]
pub struct Sent {
    /// Datagrams that are done with, from the first on: sent or skipped.
    pub taken: usize,
    /// Datagrams that are done with and could not be sent.
    pub skipped: usize,
    /// The socket takes no more; the rest waits until it is writable.
    pub blocked: bool,
    /// Why the last one skipped could not be sent.
    pub last_error: Option<io::Error>,
}

/// Memory for one batch of datagrams at a time, for all sockets; allocated once.
pub struct Buffers {
    /// [`DATAGRAM_MAX`] octets for each datagram.
    received: Box<[u8]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
}

impl Buffers {
    /// Allocates `batch` buffers of [`DATAGRAM_MAX`] octets; at most [`BATCH_MAX`].
    pub fn new(batch: usize) -> Self {
        let batch = batch.clamp(1, BATCH_MAX);
        Self {
            // The allocator has zeros of plain octets without writing them: pages that nothing was
            // received into take neither memory nor time at the start.
            received: vec![0; batch * DATAGRAM_MAX].into(),
            names: vec![Name::EMPTY; batch].into(),
            controls: vec![EMPTY_CONTROL; batch].into(),
        }
    }

    /// Datagrams in one system call.
    pub fn batch(&self) -> usize {
        self.names.len()
    }

    /// Octets allocated for each of a batch.
    pub(crate) const OCTETS_EACH: usize = DATAGRAM_MAX + size_of::<Name>() + size_of::<Control>();
}

/// Has the kernel say, for each datagram received, the local address it was sent to. To be called
/// before `socket` is bound to `address`, as a datagram that came earlier does not say it.
pub fn report_local_address(socket: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<()> {
    let (level, option) = match address {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    let on: c_int = 1;
    // SAFETY: the option's value is a c_int, which `on` is, and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    to_count(result).map(|_| ())
}

/// A `sockaddr_in` or `sockaddr_in6`: the family, in host order, the port, then for IPv4 the
/// address, for IPv6 the flow label, the address and, in host order, the scope.
#[derive(Clone, Copy)]
struct Name([u8; size_of::<libc::sockaddr_in6>()]);

impl Name {
    const EMPTY: Self = Self([0; size_of::<libc::sockaddr_in6>()]);

    fn address(&self) -> Option<SocketAddr> {
        let octets = &self.0;
        let port = u16::from_be_bytes(octets_at(octets, 2));
        match c_int::from(libc::sa_family_t::from_ne_bytes(octets_at(octets, 0))) {
            libc::AF_INET => {
                let address = Ipv4Addr::from(octets_at::<4>(octets, 4));
                Some(SocketAddrV4::new(address, port).into())
            }
            libc::AF_INET6 => {
                let address = Ipv6Addr::from(octets_at::<16>(octets, 8));
                let scope = u32::from_ne_bytes(octets_at(octets, 24));
                // The flow label belongs to the query's direction, not to the answer's.
                Some(SocketAddrV6::new(address, port, 0, scope).into())
            }
            _ => None,
        }
    }

    /// Makes this the name of `address`, and returns the length for `msg_namelen`.
    fn set(&mut self, address: SocketAddr) -> libc::socklen_t {
        *self = Self::EMPTY;
        let octets = &mut self.0;
        octets[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, len) = match address {
            SocketAddr::V4(address) => {
                octets[4..8].copy_from_slice(&address.ip().octets());
                (libc::AF_INET as libc::sa_family_t, size_of::<libc::sockaddr_in>())
            }
            SocketAddr::V6(address) => {
                octets[8..24].copy_from_slice(&address.ip().octets());
                octets[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                (libc::AF_INET6 as libc::sa_family_t, size_of::<libc::sockaddr_in6>())
            }
        };
        octets[..2].copy_from_slice(&family.to_ne_bytes());
        len as libc::socklen_t
    }
}

/// Whether an answer to this source reaches one host.
fn is_somebody(source: &SocketAddr) -> bool {
    let is_many = source.ip().is_multicast() || source.ip() == Ipv4Addr::BROADCAST;
    source.port() != 0 && !is_many
}

/// Whom a datagram was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    /// This host, at an address to answer from if the kernel says it, on this interface.
    One { local: Option<IpAddr>, interface: u32 },
    /// All hosts of a network, or of a group.
    Many,
}

/// One PKTINFO control message. The data is an `in_pktinfo`: the interface, the local address, the
/// destination in the header; or an `in6_pktinfo`: the local address, the interface.
#[derive(Clone, Copy)]
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    data: [u8; size_of::<libc::in6_pktinfo>()],
}

impl Control {
    /// Where a datagram was sent to. `len` is the `msg_controllen` of its header: PKTINFO is all that is
    /// asked for, so the first control message is the only one.
    ///
    /// For IPv4 the kernel gives the destination in the datagram's header and the address to answer from.
    /// Both are the same for every address that the routing table says is local, be it one of an
    /// interface or not (`ip route add local`, TPROXY), after any NAT. For a broadcast or multicast they
    /// differ.
    fn destination(&self, len: usize) -> Destination {
        let data_len = len.saturating_sub(offset_of!(Self, data));
        let (local, interface) = match (self.header.cmsg_level, self.header.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if data_len >= size_of::<libc::in_pktinfo>() => {
                let local: [u8; 4] = octets_at(&self.data, 4);
                if octets_at(&self.data, 8) != local {
                    return Destination::Many;
                }
                (IpAddr::from(local), octets_at(&self.data, 0))
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)
                if data_len >= size_of::<libc::in6_pktinfo>() =>
            {
                (IpAddr::from(octets_at::<16>(&self.data, 0)), octets_at(&self.data, 16))
            }
            _ => return Destination::One { local: None, interface: 0 },
        };
        if local.is_multicast() {
            return Destination::Many;
        }
        let local = Some(local).filter(|local| !local.is_unspecified());
        Destination::One { local, interface: u32::from_ne_bytes(interface) }
    }

    /// Has the datagram leave from `local`. Returns the length for `msg_controllen`.
    ///
    /// The interface is named only where the address means nothing without it. For any other
    /// address it would override the routing table, and the way to a client need not be the way it
    /// came.
    fn set_source(&mut self, local: IpAddr, interface: u32) -> usize {
        *self = EMPTY_CONTROL;
        let data_len = match local {
            IpAddr::V4(local) => {
                self.header.cmsg_level = libc::IPPROTO_IP;
                self.header.cmsg_type = libc::IP_PKTINFO;
                self.data[4..8].copy_from_slice(&local.octets());
                size_of::<libc::in_pktinfo>()
            }
            IpAddr::V6(local) => {
                self.header.cmsg_level = libc::IPPROTO_IPV6;
                self.header.cmsg_type = libc::IPV6_PKTINFO;
                self.data[..16].copy_from_slice(&local.octets());
                if local.is_unicast_link_local() {
                    self.data[16..20].copy_from_slice(&interface.to_ne_bytes());
                }
                size_of::<libc::in6_pktinfo>()
            }
        };
        let len = offset_of!(Self, data) + data_len;
        self.header.cmsg_len = len as _;
        len
    }
}

/// The `N` octets from `start` on, which are within `octets` wherever this is called.
fn octets_at<const N: usize>(octets: &[u8], start: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&octets[start..start + N]);
    field
}

fn to_count(result: impl TryInto<usize>) -> io::Result<usize> {
    result.try_into().map_err(|_| io::Error::last_os_error())
}

fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Datagrams per system call at most.
pub const BATCH_MAX: usize = 64;

/// Octets received of a datagram. Queries are a few hundred at most; RFC 6891 section 6.2.5 has 4,096
/// as the size to start with.
pub const DATAGRAM_MAX: usize = 4096;

const EMPTY_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

// SAFETY: integers and raw pointers, for which all zeros is a value. Not a literal, as with some C
// libraries the structure has private padding.
const EMPTY_HEADER: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };

// SAFETY: integers, for which all zeros is a value.
const EMPTY_CONTROL: Control = unsafe { MaybeUninit::zeroed().assume_init() };

// The layouts that the octets above stand for.
const _: () = {
    assert!(offset_of!(Control, data) == CONTROL_HEADER_LEN as usize);
    assert!(offset_of!(libc::sockaddr_in, sin_addr) == 4 && size_of::<libc::sa_family_t>() == 2);
    assert!(offset_of!(libc::sockaddr_in6, sin6_addr) == 8);
    assert!(offset_of!(libc::sockaddr_in6, sin6_scope_id) == 24);
    assert!(offset_of!(libc::in_pktinfo, ipi_spec_dst) == 4);
    assert!(offset_of!(libc::in_pktinfo, ipi_addr) == 8);
    assert!(offset_of!(libc::in6_pktinfo, ipi6_ifindex) == 16);
};

// SAFETY: computes a length only.
const CONTROL_HEADER_LEN: libc::c_uint = unsafe { libc::CMSG_LEN(0) };

#[cfg(test)]
mod tests {
    use std::net;
    use std::time::Duration;

    use super::*;

    const LISTENER: u16 = 7;

    const EACH_ALONE: Calls = Calls { receive: Amount::One, send: Amount::One };

    #[test]
    fn a_batch_comes_in_and_goes_out_in_order() {
        for (address, calls) in [
            ("127.0.0.1:0", Calls::USUAL),
            ("[::1]:0", Calls::USUAL),
            ("127.0.0.1:0", EACH_ALONE),
            ("[::1]:0", EACH_ALONE),
        ] {
            let (mut socket, mut buffers) = (bind(address), Buffers::new(BATCH_MAX));
            socket.calls = calls;
            let client = client(address);
            let to = socket.local_addr().unwrap();
            let sizes = 0..100_usize;
            for size in sizes.clone() {
                client.send_to(&message(size), to).unwrap();
            }

            let received = receive(&socket, &mut buffers, 100);

            for (size, (path, message, truncated)) in received.iter().enumerate() {
                assert_eq!(path.listener, LISTENER);
                assert_eq!(path.client, client.local_addr().unwrap());
                assert_eq!(path.local, None, "bound to one address");
                assert_eq!(message, &self::message(size));
                assert!(!truncated);
            }
            assert_eq!(send_all(&socket, &mut buffers, &received), 0);
            for size in sizes {
                assert_eq!(answer(&client), (message(size), to));
            }
        }
    }

    #[test]
    fn a_batch_is_as_large_as_the_buffers() {
        for calls in [Calls::USUAL, EACH_ALONE] {
            let (mut socket, mut buffers) = (bind("127.0.0.1:0"), Buffers::new(3));
            socket.calls = calls;
            let client = client("127.0.0.1:0");
            for size in 0..8 {
                client.send_to(&message(size), socket.local_addr().unwrap()).unwrap();
            }
            let mut received = Vec::new();
            for expected in [3, 3, 2] {
                let sink = |path: DatagramPath, m: &[u8], cut: bool| {
                    received.push((path, m.to_vec(), cut));
                };
                assert_eq!(socket.receive(&mut buffers, sink).unwrap().count, expected);
            }
            let batch = received.iter().map(|(path, m, _)| (*path, &m[..]));
            assert_eq!(socket.send(&mut buffers, batch).taken, 3);
            assert_eq!(send_all(&socket, &mut buffers, &received[3..]), 0);
            for size in 0..8 {
                assert_eq!(answer(&client).0, message(size));
            }
        }
    }

    #[test]
    fn an_empty_socket_would_block() {
        for calls in [Calls::USUAL, EACH_ALONE] {
            let mut socket = bind("127.0.0.1:0");
            socket.calls = calls;

            let result = socket.receive(&mut Buffers::new(BATCH_MAX), |_, _, _| unreachable!());

            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_call_that_is_refused_is_replaced_if_it_can_be() {
        let cases: [(i32, i32, Option<Amount>); 7] = [
            (libc::EAGAIN, libc::EAGAIN, Some(Amount::Many)),
            (libc::EAGAIN, libc::EPERM, Some(Amount::Many)),
            (libc::EDESTADDRREQ, libc::EDESTADDRREQ, Some(Amount::Many)),
            (libc::EPERM, libc::EAGAIN, Some(Amount::One)),
            (libc::ENOSYS, libc::EDESTADDRREQ, Some(Amount::One)),
            (libc::EPERM, libc::EPERM, None),
            (libc::ENOSYS, libc::EACCES, None),
        ];
        for (many, one, expected) in cases {
            let results = [many, one].map(|errno| Err(io::Error::from_raw_os_error(errno)));
            let chosen = choose(&results, ["recvmmsg", "recvmsg"]);
            assert_eq!(chosen.clone().ok(), expected, "{many} {one}");
            if let Err(line) = chosen {
                assert!(line.contains("recvmmsg") && line.contains("recvmsg"), "{line}");
            }
        }
    }

    #[test]
    fn the_usual_calls_are_found_where_they_are() {
        use std::os::fd::AsFd;

        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = net::UdpSocket::bind(address).unwrap();
            assert_eq!(Calls::find(socket.as_fd()), Ok(Calls::USUAL));
        }
    }

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        let socket = bind("0.0.0.0:0");
        let port = socket.local_addr().unwrap().port();
        for asked in ["127.0.0.1", "127.0.0.2", "127.3.2.1"] {
            assert_answered_from(
                &socket,
                "127.0.0.1:0",
                format!("{asked}:{port}").parse().unwrap(),
            );
        }
    }

    #[test]
    fn an_ipv6_answer_leaves_from_the_address_that_was_asked() {
        let socket = bind("[::]:0");
        let port = socket.local_addr().unwrap().port();
        assert_answered_from(&socket, "[::1]:0", format!("[::1]:{port}").parse().unwrap());
    }

    /// A source given by the path must be obeyed, not only be what the routing table gives anyway.
    #[test]
    fn the_source_of_the_path_is_used() {
        let socket = bind("0.0.0.0:0");
        let port = socket.local_addr().unwrap().port();
        let client = client("127.0.0.1:0");
        let path = DatagramPath {
            listener: LISTENER,
            client: client.local_addr().unwrap(),
            local: Some("127.9.9.9".parse().unwrap()),
            interface: 0,
        };

        assert_eq!(
            send_all(&socket, &mut Buffers::new(BATCH_MAX), &[(path, b"x".to_vec(), false)]),
            0
        );

        assert_eq!(answer(&client).1, format!("127.9.9.9:{port}").parse().unwrap());
    }

    #[test]
    fn a_datagram_past_the_buffer_is_cut_and_says_so() {
        let (socket, mut buffers) = (bind("127.0.0.1:0"), Buffers::new(BATCH_MAX));
        let client = client("127.0.0.1:0");
        for size in [DATAGRAM_MAX, DATAGRAM_MAX + 1, 3] {
            client.send_to(&message(size), socket.local_addr().unwrap()).unwrap();
        }

        let received = receive(&socket, &mut buffers, 3);

        let seen: Vec<_> = received.iter().map(|(_, m, cut)| (m.len(), *cut)).collect();
        assert_eq!(seen, [(DATAGRAM_MAX, false), (DATAGRAM_MAX, true), (3, false)]);
        assert_eq!(received[1].1[..], message(DATAGRAM_MAX + 1)[..DATAGRAM_MAX]);
    }

    #[test]
    fn one_that_cannot_be_sent_does_not_lose_the_others() {
        for calls in [Calls::USUAL, EACH_ALONE] {
            let (mut socket, mut buffers) = (bind("127.0.0.1:0"), Buffers::new(BATCH_MAX));
            socket.calls = calls;
            let client = client("127.0.0.1:0");
            let path = |client: SocketAddr| DatagramPath {
                listener: LISTENER,
                client,
                local: None,
                interface: 0,
            };
            let good = path(client.local_addr().unwrap());
            let no_port = path("127.0.0.1:0".parse().unwrap());
            let other_family = path("[::1]:53".parse().unwrap());
            let batch: Vec<_> = [no_port, good, good, no_port, other_family, good, no_port]
                .into_iter()
                .zip(0_u8..)
                .map(|(path, i)| (path, vec![i], false))
                .collect();

            assert_eq!(send_all(&socket, &mut buffers, &batch), 4);

            for i in [1, 2, 5] {
                assert_eq!(answer(&client).0, [i]);
            }
        }
    }

    #[test]
    fn the_scope_of_a_link_local_client_survives() {
        let address: SocketAddr = SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, 3).into();
        let mut name = Name::EMPTY;

        let len = name.set(address);

        assert_eq!(len as usize, size_of::<libc::sockaddr_in6>());
        assert_eq!(name.address(), Some(address));
    }

    #[test]
    fn the_interface_is_named_for_link_local_answers_only() {
        for (local, expected) in [("fe80::1", 3), ("fd00::1", 0), ("::1", 0)] {
            let mut control = EMPTY_CONTROL;

            let len = control.set_source(local.parse().unwrap(), 3);

            let local = Some(local.parse().unwrap());
            assert_eq!(control.destination(len), Destination::One { local, interface: expected });
        }
    }

    #[test]
    fn what_was_sent_to_many_is_told_from_what_was_sent_to_one() {
        let one = |local: &str| Destination::One { local: local.parse().ok(), interface: 3 };
        for (header, local, expected) in [
            ("10.0.0.1", "10.0.0.1", one("10.0.0.1")),
            ("127.0.0.2", "127.0.0.2", one("127.0.0.2")),
            ("10.0.0.255", "10.0.0.1", Destination::Many),
            ("255.255.255.255", "10.0.0.1", Destination::Many),
            ("255.255.255.255", "0.0.0.0", Destination::Many),
            ("224.0.0.251", "10.0.0.1", Destination::Many),
            ("224.0.0.251", "224.0.0.251", Destination::Many),
            ("fd00::1", "fd00::1", one("fd00::1")),
            ("fe80::1", "fe80::1", one("fe80::1")),
            ("::", "::", one("nothing")),
            ("ff02::1", "ff02::1", Destination::Many),
        ] {
            let mut control = EMPTY_CONTROL;
            let len = control.set_source(local.parse().unwrap(), 3);
            match header.parse().unwrap() {
                IpAddr::V4(header) => {
                    control.data[..4].copy_from_slice(&3_u32.to_ne_bytes());
                    control.data[8..12].copy_from_slice(&header.octets());
                }
                IpAddr::V6(_) => control.data[16..20].copy_from_slice(&3_u32.to_ne_bytes()),
            }

            assert_eq!(control.destination(len), expected, "{header} {local}");
            let unknown = Destination::One { local: None, interface: 0 };
            assert_eq!(control.destination(0), unknown, "no control message");
        }
    }

    fn assert_answered_from(socket: &DatagramSocket, client: &str, asked: SocketAddr) {
        let client = self::client(client);
        let mut buffers = Buffers::new(BATCH_MAX);
        client.send_to(b"query", asked).unwrap();

        let received = receive(socket, &mut buffers, 1);

        assert_eq!(received[0].0.local, Some(asked.ip()));
        assert_eq!(send_all(socket, &mut buffers, &received), 0);
        assert_eq!(answer(&client), (b"query".to_vec(), asked));
    }

    type Given = (DatagramPath, Vec<u8>, bool);

    fn receive(socket: &DatagramSocket, buffers: &mut Buffers, count: usize) -> Vec<Given> {
        let mut received = Vec::new();
        // On loopback a datagram is in the receiver's buffer when the send returns.
        while received.len() < count {
            socket
                .receive(buffers, |path, m, cut| {
                    received.push((path, m.to_vec(), cut));
                })
                .unwrap();
        }
        received
    }

    /// Returns how many were skipped.
    fn send_all(socket: &DatagramSocket, buffers: &mut Buffers, datagrams: &[Given]) -> usize {
        let (mut taken, mut skipped) = (0, 0);
        while taken < datagrams.len() {
            let rest = datagrams[taken..].iter().map(|(path, m, _)| (*path, &m[..]));
            let sent = socket.send(buffers, rest);
            assert!(!sent.blocked);
            assert_eq!(sent.skipped > 0, sent.last_error.is_some());
            taken += sent.taken;
            skipped += sent.skipped;
        }
        skipped
    }

    fn answer(client: &net::UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 8192];
        let (len, from) = client.recv_from(&mut buffer).unwrap();
        (buffer[..len].to_vec(), from)
    }

    fn message(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i ^ size) as u8).collect()
    }

    fn client(address: &str) -> net::UdpSocket {
        let socket = net::UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket
    }

    fn bind(address: &str) -> DatagramSocket {
        use std::os::fd::AsFd;

        let address: SocketAddr = address.parse().unwrap();
        let socket = net::UdpSocket::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        if address.ip().is_unspecified() {
            report_local_address(socket.as_fd(), &address).unwrap();
        }
        DatagramSocket::new(LISTENER, UdpSocket::from_std(socket), Calls::USUAL)
    }
}
