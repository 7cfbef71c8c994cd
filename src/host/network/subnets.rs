//! The subnets of this host's interfaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// A socket by which the kernel is asked for addresses (rtnetlink(7)). It is opened at the start, as a sandbox
/// may allow none later.
#[derive(Debug)]
pub(crate) struct Subnets {
    socket: OwnedFd,
    /// The number of the last question, by which its answer is known.
    sequence: u32,
}

/// An address in a subnet, and the length of the subnet's prefix.
pub(crate) type Subnet = (IpAddr, u8);

impl Subnets {
    /// It is an error where there is no netlink.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The subnets that there are now; several times if interfaces share them.
    pub(crate) fn list(&mut self) -> io::Result<Vec<Subnet>> {
        let mut subnets = Vec::new();
        // Where they go on changing, the kernel says so by a message, which leads to another look.
        for _ in 0..LISTS_MAX {
            self.ask()?;
            subnets.clear();
            if !self.read_list(&mut subnets)? {
                break;
            }
        }
        Ok(subnets)
    }

    fn ask(&mut self) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut question = [0; QUESTION_LEN];
        question[..4].copy_from_slice(&(QUESTION_LEN as u32).to_ne_bytes());
        question[4..6].copy_from_slice(&RTM_GETADDR.to_ne_bytes());
        question[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        question[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        retry_on_intr(|| send(&self.socket, &question, SendFlags::empty()))?;
        Ok(())
    }

    /// Adds all subnets. True: they changed meanwhile, so that some may be missing.
    fn read_list(&mut self, subnets: &mut Vec<Subnet>) -> io::Result<bool> {
        let mut buffer = [0; MESSAGES_LEN];
        let mut has_changed = false;
        // The kernel makes its answer as it is read, so it never has to be waited for.
        loop {
            let (len, _) =
                retry_on_intr(|| recv(&self.socket, &mut buffer[..], RecvFlags::empty()))?;
            let read = read(&buffer[..len], self.sequence, subnets)?;
            has_changed |= read.has_changed;
            if read.is_last {
                return Ok(has_changed);
            }
        }
    }
}

/// What messages of a list say of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Read {
    /// It ends with them.
    is_last: bool,
    /// It changed while it was made.
    has_changed: bool,
}

/// Adds the subnets in these messages.
fn read(mut messages: &[u8], sequence: u32, subnets: &mut Vec<Subnet>) -> Result<Read, Errno> {
    let mut read = Read::default();
    while let Some(len) = field(messages, 0).map(u32::from_ne_bytes) {
        let (message, rest) = split_padded(messages, len as usize);
        messages = rest;
        if field(message, 8).map(u32::from_ne_bytes) != Some(sequence) {
            continue;
        }
        let flags = field(message, 6).map_or(0, u16::from_ne_bytes);
        read.has_changed |= flags & NLM_F_DUMP_INTR != 0;
        match field(message, 4).map(u16::from_ne_bytes) {
            Some(NLMSG_DONE) => return Ok(Read { is_last: true, ..read }),
            Some(NLMSG_ERROR) => return Err(Errno::IO),
            Some(RTM_NEWADDR) => subnets.extend(subnet(&message[HEADER_LEN.min(message.len())..])),
            _ => {}
        }
    }
    Ok(read)
}

/// The subnet of an address: that of the other end, where an interface leads to one host only.
fn subnet(address: &[u8]) -> Option<Subnet> {
    let prefix_len = *address.get(1)?;
    let mut attributes = address.get(ADDRESS_LEN..)?;
    while let Some(len) = field(attributes, 0).map(u16::from_ne_bytes) {
        let (attribute, rest) = split_padded(attributes, len.into());
        attributes = rest;
        if field(attribute, 2).map(u16::from_ne_bytes) == Some(IFA_ADDRESS) {
            let octets = &attribute[4..];
            let v4 = octets.try_into().map(|octets: [u8; 4]| Ipv4Addr::from(octets).into());
            let v6 = || octets.try_into().map(|octets: [u8; 16]| Ipv6Addr::from(octets).into());
            return Some((v4.or_else(|_| v6()).ok()?, prefix_len));
        }
    }
    None
}

/// The first `len` octets, and what follows behind the next multiple of four. At least a field is split
/// off, so that it comes to an end whatever the length.
fn split_padded(octets: &[u8], len: usize) -> (&[u8], &[u8]) {
    let len = len.clamp(4.min(octets.len()), octets.len());
    (&octets[..len], &octets[len.next_multiple_of(4).min(octets.len())..])
}

fn field<const N: usize>(octets: &[u8], at: usize) -> Option<[u8; N]> {
    octets.get(at..)?.first_chunk().copied()
}

/// Lists that are asked for until one is whole.
const LISTS_MAX: usize = 4;

/// Octets that messages take: more than the kernel gives at a time.
const MESSAGES_LEN: usize = 8 * 1024;

// The header of a message, `nlmsghdr`: length, type, flags, sequence number, port. Then `ifaddrmsg`: family,
// length of the prefix, flags and scope of an octet each, index. Then attributes, each with length and type.
const HEADER_LEN: usize = 16;
const ADDRESS_LEN: usize = 8;
const QUESTION_LEN: usize = HEADER_LEN + ADDRESS_LEN;

// Numbers of `linux/netlink.h`, `linux/rtnetlink.h` and `linux/if_addr.h`.
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x010;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const NLM_F_MULTI: u16 = 2;

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut message = ((HEADER_LEN + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend([kind, NLM_F_MULTI].map(u16::to_ne_bytes).concat());
        message.extend([sequence, 0].map(u32::to_ne_bytes).concat());
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
        let mut attribute = [(4 + data.len()) as u16, kind].map(u16::to_ne_bytes).concat();
        attribute.extend(data);
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        attribute
    }

    fn address(prefix_len: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        message(
            RTM_NEWADDR,
            7,
            &[&[0, prefix_len, 0, 0, 1, 0, 0, 0], &*attributes.concat()].concat(),
        )
    }

    #[test]
    fn loopback_is_a_subnet() {
        let mut subnets = Subnets::open().expect("netlink");
        for _ in 0..3 {
            // A namespace may have no interface that is up.
            for (address, len) in subnets.list().expect("a list") {
                assert!(len <= if address.is_ipv4() { 32 } else { 128 }, "{address}/{len}");
                assert!(!address.is_loopback() || [8, 32, 128].contains(&len), "{address}/{len}");
            }
        }
    }

    #[test]
    fn messages_are_read() {
        let label = attribute(3, b"eth0\0");
        let messages = [
            address(24, &[attribute(IFA_ADDRESS, &[192, 0, 2, 1]), label.clone()]),
            // The address here, IFA_LOCAL, is another than that of the other end.
            address(
                32,
                &[attribute(2, &[10, 0, 0, 1]), label, attribute(IFA_ADDRESS, &[10, 0, 0, 2])],
            ),
            address(64, &[attribute(IFA_ADDRESS, &Ipv6Addr::LOCALHOST.octets())]),
            // Nothing to be understood, and a message of an earlier question.
            address(64, &[attribute(IFA_ADDRESS, &[1, 2, 3])]),
            address(64, &[]),
            message(RTM_NEWADDR, 7, &[]),
            message(NLMSG_DONE, 6, &[0; 4]),
        ];
        let mut subnets = Vec::new();
        assert_eq!(read(&messages.concat(), 7, &mut subnets), Ok(Read::default()));
        let expected: [Subnet; 3] = [
            (Ipv4Addr::new(192, 0, 2, 1).into(), 24),
            (Ipv4Addr::new(10, 0, 0, 2).into(), 32),
            (Ipv6Addr::LOCALHOST.into(), 64),
        ];
        assert_eq!(subnets, expected);
        let last = Read { is_last: true, has_changed: false };
        assert_eq!(read(&message(NLMSG_DONE, 7, &[0; 4]), 7, &mut subnets), Ok(last));
        assert_eq!(read(&message(NLMSG_ERROR, 7, &[0; 4]), 7, &mut subnets), Err(Errno::IO));
        // Any of its messages may say that the list changed while it was made.
        for kind in [RTM_NEWADDR, NLMSG_DONE] {
            let mut changed = message(kind, 7, &[0; 4]);
            changed[6..8].copy_from_slice(&(NLM_F_MULTI | NLM_F_DUMP_INTR).to_ne_bytes());
            let read = read(&changed, 7, &mut subnets).expect("no error");
            assert_eq!(read, Read { is_last: kind == NLMSG_DONE, has_changed: true });
        }
        // Whatever is cut off or says that it is longer comes to an end.
        let whole = messages.concat();
        for len in 0..whole.len() {
            for length in [0, 1, 3, 16, 255] {
                let mut octets = whole[..len].to_vec();
                octets.first_mut().into_iter().for_each(|octet| *octet = length);
                assert!(read(&octets, 7, &mut Vec::new()).is_ok());
            }
        }
    }
}
