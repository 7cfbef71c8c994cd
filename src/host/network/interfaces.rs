//! Interfaces of this host, and addresses of theirs that cannot be used yet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};

use rustix::event::{Timespec, poll};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// The index of the interface of this name.
pub fn index(name: &str) -> Option<u32> {
    let any = [AddressFamily::INET, AddressFamily::INET6].into_iter().find_map(|family| {
        socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()
    })?;
    name_to_index(any, name).ok()
}

/// The address from which this host's IPv4 packets leave, if there is a way out. Nothing is sent.
pub fn own_address() -> Option<IpAddr> {
    // To be found in documents alone (RFC 5737).
    const ANYBODY: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 53);

    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ANYBODY).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Why an IPv6 address that this host has cannot be used (RFC 4862 section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Another host has the address, too.
    Duplicate,
    /// Whether another host has the address is not known yet: for a second or two after it was given, or
    /// for as long as the interface is down.
    Tentative,
}

/// Why this address, if it is one of this host, cannot be used.
pub(crate) fn unusable(address: SocketAddr) -> Option<Unusable> {
    let SocketAddr::V6(address) = address else {
        return None;
    };
    // Not /proc/net, which is not there for who sees only processes (ProcSubset=pid of systemd).
    let table = std::fs::read_to_string("/proc/self/net/if_inet6").ok()?;
    unusable_in(&table, address)
}

/// Waits until none of these addresses is tentative, a few seconds at most: services start while the
/// network does.
pub(crate) fn await_addresses(addresses: &[SocketAddr]) {
    let tentative = || {
        let is_tentative = |address: &&SocketAddr| unusable(**address) == Some(Unusable::Tentative);
        addresses.iter().find(is_tentative).map(SocketAddr::ip)
    };
    let mut is_logged = false;
    for _ in 0..WAITS_MAX {
        let Some(address) = tentative() else {
            return;
        };
        if !is_logged {
            log::info!("waiting for {address}, which is tentative (duplicate address detection)");
            is_logged = true;
        }
        // Nothing is watched yet, and a signal may end the wait.
        poll(&mut [], Some(&WAIT)).ok();
    }
}

/// Why an address cannot be used, by the kernel's table, whose columns are address, index of the interface, length of
/// the prefix, scope and flags in hexadecimal, and the name.
fn unusable_in(table: &str, address: SocketAddrV6) -> Option<Unusable> {
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let ip = u128::from_str_radix(fields.next()?, 16).ok()?;
        let interface = u32::from_str_radix(fields.next()?, 16).ok()?;
        let flags = u32::from_str_radix(fields.nth(2)?, 16).ok()?;
        if ip != address.ip().to_bits() || ![0, interface].contains(&address.scope_id()) {
            None
        } else if flags & IFA_F_DADFAILED != 0 {
            Some(Unusable::Duplicate)
        } else if flags & IFA_F_TENTATIVE != 0 && flags & IFA_F_OPTIMISTIC == 0 {
            Some(Unusable::Tentative)
        } else {
            None
        }
    })
}

// Flags of `linux/if_addr.h`.
/// An optimistic address is used before it is known to be unique (RFC 4429).
const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;

/// Waits for an address, three seconds together: up to one until the kernel asks, and one for an answer
/// (RFC 4862 section 5.4.2).
const WAITS_MAX: u32 = 60;

/// One wait for an address.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_the_first() {
        assert_eq!(index("lo"), Some(1));
        assert_eq!(index("no-such"), None);
        assert_eq!(index(""), None);
        assert_eq!(index(&"x".repeat(300)), None);
        assert_eq!(index("lo\0"), None);
    }

    #[test]
    fn addresses_by_the_table_of_the_kernel() {
        let table = "\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000000000000000000001 02 40 20 80     eth0
fe800000000000000000000000000001 0c 40 20 c0    veth1
fd000000000000000000000000000002 02 40 00 c0     eth0
fd000000000000000000000000000003 02 40 00 c8     eth0
fd000000000000000000000000000004 02 40 00 44     eth0
fd000000000000000000000000000005 02 40
not a line of the table
";
        for (address, expected) in [
            ("[::1]:53", None),
            ("[fe80::1%2]:53", None),
            ("[fe80::1%12]:53", Some(Unusable::Tentative)),
            ("[fe80::1%3]:53", None),
            ("[fd00::2]:53", Some(Unusable::Tentative)),
            ("[fd00::3]:53", Some(Unusable::Duplicate)),
            ("[fd00::4]:53", None),
            ("[fd00::5]:53", None),
            ("[fd00::6]:53", None),
        ] {
            assert_eq!(unusable_in(table, address.parse().unwrap()), expected, "{address}");
        }
    }
}
