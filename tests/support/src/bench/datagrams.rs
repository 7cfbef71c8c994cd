//! UDP in batches, for programs whose every client has an IPv4 address.
//!
//! Not `dot_proxy::shell::datagram`: what the forwarder is held against must not change with it.
#![allow(unsafe_code, reason = "recvmmsg and sendmmsg have no safe wrapper")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use libc::c_int;

/// Where a datagram came from, to answer there.
pub(super) type Client = libc::sockaddr_in;

// SAFETY: integers, for which all zeros is a value.
pub(super) const NOBODY: Client = unsafe { MaybeUninit::zeroed().assume_init() };

/// Memory for one batch of datagrams that came.
pub(super) struct Received {
    octets: Box<[[u8; DATAGRAM_MAX]]>,
    clients: Box<[Client]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Received {
    pub(super) fn new() -> Self {
        Self {
            octets: vec![[0; DATAGRAM_MAX]; BATCH_MAX].into(),
            clients: vec![NOBODY; BATCH_MAX].into(),
            vectors: vec![EMPTY_VECTOR; BATCH_MAX].into(),
            headers: vec![EMPTY_HEADER; BATCH_MAX].into(),
        }
    }

    /// How many came, 0 if none waits. Fewer than [`BATCH_MAX`] are all there were.
    pub(super) fn receive(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        for (i, header) in self.headers.iter_mut().enumerate() {
            self.vectors[i].iov_base = self.octets[i].as_mut_ptr().cast();
            self.vectors[i].iov_len = DATAGRAM_MAX;
            header.msg_hdr.msg_name = (&raw mut self.clients[i]).cast();
            header.msg_hdr.msg_namelen = size_of::<Client>() as libc::socklen_t;
            header.msg_hdr.msg_iov = &raw mut self.vectors[i];
            header.msg_hdr.msg_iovlen = 1;
        }
        let result = retry_interrupted(|| {
            // SAFETY: each header points to a client, a vector and, through it, a buffer of its own,
            // with their true sizes and no control buffer. All are borrowed by this function and
            // outlive the call; a sockaddr_in may hold any octets.
            to_count(unsafe {
                libc::recvmmsg(
                    socket.as_fd().as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    BATCH_MAX as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                    ptr::null_mut(),
                )
            })
        });
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// The datagram of this number in the last batch.
    pub(super) fn datagram(&self, number: usize) -> (Client, &[u8]) {
        let len = self.headers[number].msg_len as usize;
        (self.clients[number], &self.octets[number][..len])
    }
}

/// Datagrams that are to be sent.
pub(super) struct Batch {
    octets: Vec<u8>,
    /// Where each ends in `octets`.
    ends: Vec<usize>,
    /// Empty if the socket is connected.
    clients: Vec<Client>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            octets: Vec::new(),
            ends: Vec::new(),
            clients: Vec::new(),
            vectors: vec![EMPTY_VECTOR; BATCH_MAX].into(),
            headers: vec![EMPTY_HEADER; BATCH_MAX].into(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds one for whom the socket is connected to, and gives its octets, to be changed.
    pub(super) fn push(&mut self, message: &[u8]) -> &mut [u8] {
        let start = self.octets.len();
        self.octets.extend_from_slice(message);
        self.ends.push(self.octets.len());
        &mut self.octets[start..]
    }

    /// Adds one for a client, as [`Self::push`] does.
    pub(super) fn push_to(&mut self, client: Client, message: &[u8]) -> &mut [u8] {
        self.clients.push(client);
        self.push(message)
    }

    /// Sends them all and forgets them; returns how many could not be sent.
    pub(super) fn send(&mut self, socket: &impl AsFd) -> usize {
        let (mut sent, mut failed) = (0, 0);
        let mut start = 0;
        while sent < self.ends.len() {
            let count = (self.ends.len() - sent).min(BATCH_MAX);
            let batch = &self.ends[sent..sent + count];
            for (i, end) in batch.iter().enumerate() {
                let message = &self.octets[start..*end];
                start = *end;
                // sendmmsg(2) only reads through these pointers.
                self.vectors[i].iov_base = message.as_ptr().cast_mut().cast();
                self.vectors[i].iov_len = message.len();
                let header = &mut self.headers[i].msg_hdr;
                header.msg_iov = &raw mut self.vectors[i];
                header.msg_iovlen = 1;
                (header.msg_name, header.msg_namelen) = match self.clients.get(sent + i) {
                    Some(client) => {
                        (ptr::from_ref(client).cast_mut().cast(), size_of::<Client>() as _)
                    }
                    None => (ptr::null_mut(), 0),
                };
            }
            let mut done = 0;
            while done < count {
                let rest = &mut self.headers[done..count];
                let result = retry_interrupted(|| {
                    // SAFETY: each header points to a vector filled above, which points to a message
                    // in `octets`, and to a client or to none; nothing grows or moves them before the
                    // call returns, which writes only to `msg_len` of the headers.
                    to_count(unsafe {
                        libc::sendmmsg(
                            socket.as_fd().as_raw_fd(),
                            rest.as_mut_ptr(),
                            rest.len() as libc::c_uint,
                            libc::MSG_DONTWAIT as _,
                        )
                    })
                });
                // An error is that of the first datagram of a call.
                done += result.unwrap_or_else(|_| {
                    failed += 1;
                    1
                });
            }
            sent += count;
        }
        self.octets.clear();
        self.ends.clear();
        self.clients.clear();
        failed
    }
}

fn to_count(result: c_int) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

pub(super) const BATCH_MAX: usize = 64;

/// More than any message of the benchmark has.
const DATAGRAM_MAX: usize = 2048;

const EMPTY_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

// SAFETY: integers and raw pointers, for which all zeros is a value. Not a literal, as with some C
// libraries the structure has private padding.
const EMPTY_HEADER: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
