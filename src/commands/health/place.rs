//! Where the program that runs here is to be asked.
//!
//! Of process 1, for which a container was started, everybody may read the command line. The file of flags is not read
//! again: it may have been edited since, and it counts from another directory. The kernel knows the ports instead.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::config::{self, Health, Host};

/// Where to ask.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where it listens for clients: at one of these.
    pub(super) listeners: Vec<SocketAddr>,
    /// Whether it may be elsewhere.
    pub(super) is_guessed: bool,
    /// Where it is asked over HTTP first: processes that share a port for clients are not told apart there.
    pub(super) metrics: Option<SocketAddr>,
}

impl Place {
    /// The place for these flags; `None` if the system was asked for a port that only the program knows.
    pub(super) fn of(health: &Health, host: Host) -> Option<Self> {
        if !health.listen.is_empty() {
            return reachable(&health.listen).map(Self::known);
        }
        let cmdline = fs::read("/proc/1/cmdline").unwrap_or_default();
        Some(Self::of_process_1(&cmdline, host, bound))
    }

    fn of_process_1(cmdline: &[u8], host: Host, bound: fn() -> Vec<SocketAddr>) -> Self {
        let started = arguments(cmdline).and_then(|args| config::started(args, host));
        let Some(started) = started else { return Self::guessed() };
        let listeners = reachable(&started.listen).or_else(|| reachable(&bound()));
        let place = listeners.map_or_else(Self::guessed, Self::known);
        match started.metrics {
            Some(metrics) if started.reuse_port && metrics.port() != 0 => {
                Self { metrics: Some(on_loopback(metrics)), ..place }
            }
            _ => place,
        }
    }

    fn known(listeners: Vec<SocketAddr>) -> Self {
        Self { listeners, is_guessed: false, metrics: None }
    }

    fn guessed() -> Self {
        Self { is_guessed: true, ..Self::known(DEFAULTS.to_vec()) }
    }
}

/// The arguments of this program in a command line as the kernel shows it. In front of it may be an init program
/// with flags of its own.
fn arguments(cmdline: &[u8]) -> Option<Vec<OsString>> {
    let cmdline = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    let mut words = cmdline.split(|octet| *octet == 0).map(|word| OsString::from_vec(word.into()));
    words.find(|word| Path::new(word).file_name().is_some_and(|name| name == PROGRAM))?;
    Some(words.collect())
}

/// Those of the listeners that this host has an address for, or the first that another one has; `None` if none has a
/// port that is known.
fn reachable(listeners: &[SocketAddr]) -> Option<Vec<SocketAddr>> {
    let known = || listeners.iter().copied().filter(|listener| listener.port() != 0);
    let here = known().map(on_loopback).filter(|address| is_here(*address));
    let here: Vec<_> = here.take(PLACES_MAX).collect();
    if here.is_empty() { known().next().map(|first| vec![first]) } else { Some(here) }
}

/// An address that leads to the listener: one on all addresses is on loopback, too.
fn on_loopback(mut listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        listener.set_ip(loopback(listener.ip()));
    }
    listener
}

pub(super) fn loopback(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// Whether this host has the address.
pub(super) fn is_here(mut address: SocketAddr) -> bool {
    address.set_port(0);
    UdpSocket::bind(address).is_ok()
}

/// The UDP sockets of this network that take datagrams from everybody, those at likely ports first.
fn bound() -> Vec<SocketAddr> {
    // Not /proc/net, which is not there for who sees only processes (ProcSubset=pid of systemd).
    let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"];
    let tables = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    let interfaces = fs::read_to_string("/proc/self/net/if_inet6").unwrap_or_default();
    let mut bound: Vec<_> = tables.iter().flat_map(|table| bound_in(table)).collect();
    bound = bound.into_iter().flat_map(|address| with_scopes(address, &interfaces)).collect();
    let is_likely = |port| DEFAULTS.iter().any(|default| default.port() == port);
    bound.sort_by_key(|address| (!is_likely(address.port()), address.port(), *address));
    bound.dedup();
    bound
}

/// The same address, of each interface that has it if it is link-local: the tables of sockets do not say of which.
fn with_scopes(address: SocketAddr, interfaces: &str) -> Vec<SocketAddr> {
    let SocketAddr::V6(v6) = address else { return vec![address] };
    if !v6.ip().is_unicast_link_local() {
        return vec![address];
    }
    let digits = format!("{:032x} ", v6.ip().to_bits());
    let indexes = interfaces.lines().filter_map(|line| {
        let index = line.strip_prefix(&digits)?.split(' ').next()?;
        u32::from_str_radix(index, 16).ok()
    });
    indexes.map(|index| SocketAddrV6::new(*v6.ip(), v6.port(), 0, index).into()).collect()
}

/// The sockets of one of the kernel's tables. Behind the number of a line are its own address and that of its peer.
fn bound_in(table: &str) -> impl Iterator<Item = SocketAddr> + '_ {
    table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1).map(address);
        let (own, peer) = (fields.next()??, fields.next()??);
        let is_listener = peer.port() == 0 && own.port() != 0;
        let is_of_host = !own.ip().is_multicast() && own.ip() != Ipv4Addr::BROADCAST;
        (is_listener && is_of_host).then_some(own)
    })
}

/// An address in such a table: words of 32 bits in the order of octets of this machine, a colon, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        octets.extend(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(&*octets) {
        Ok(octets) => IpAddr::from(octets),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
    };
    Some(SocketAddr::new(ip, port))
}

/// The name of this program's file, in the image and in packages.
const PROGRAM: &str = env!("CARGO_PKG_NAME");

/// Where a resolver is asked if nothing else is known, and where this one listens if it is not told where.
const DEFAULTS: [SocketAddr; 2] =
    [SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53), config::LISTEN_DEFAULT];

/// As many as `--listen` there may be.
const PLACES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn arguments_stand_behind_the_program_wherever_it_is() {
        for (cmdline, expected) in [
            ("/dot-proxy\0--listen\x000.0.0.0:53\0", Some(&["--listen", "0.0.0.0:53"][..])),
            ("dot-proxy\0", Some(&[])),
            ("/sbin/docker-init\0--\0/dot-proxy\0-l\0[::]:53\0", Some(&["-l", "[::]:53"])),
            ("/usr/lib/systemd/systemd\0--system\0", None),
            ("sh\0-c\0/dot-proxy --listen 1.2.3.4\0", None),
            ("", None),
        ] {
            let expected = expected.map(|args| args.iter().map(OsString::from).collect::<Vec<_>>());
            assert_eq!(arguments(cmdline.as_bytes()), expected, "{cmdline:?}");
        }
    }

    #[test]
    fn listeners_that_can_be_asked_are_asked() {
        for (listeners, asked) in [
            (&["0.0.0.0:53"][..], Some(&["127.0.0.1:53"][..])),
            (&["[::]:5300"], Some(&["[::1]:5300"])),
            (&["127.0.0.1:0", "127.0.0.2:53"], Some(&["127.0.0.2:53"])),
            (&["127.0.0.2:53", "127.0.0.1:54"], Some(&["127.0.0.2:53", "127.0.0.1:54"])),
            // One whose interface is not there yet.
            (&["192.0.2.1:53", "127.0.0.1:53"], Some(&["127.0.0.1:53"])),
            (&["192.0.2.1:53"], Some(&["192.0.2.1:53"])),
            (&["127.0.0.1:0"], None),
        ] {
            assert_eq!(reachable(&addresses(listeners)), asked.map(addresses), "{listeners:?}");
        }
    }

    #[test]
    fn process_1_says_where_it_listens_or_else_the_kernel() {
        let of_kernel = || addresses(&["127.0.0.4:44"]);
        let listeners = |texts: &[&str]| Place::known(addresses(texts));
        let guessed = Place::guessed;
        let metrics = |text: &str| Place {
            metrics: Some(text.parse().unwrap()),
            ..listeners(&["127.0.0.4:44"])
        };
        for (line, expected) in [
            ("dot-proxy -l 127.0.0.2", listeners(&["127.0.0.2:53"])),
            ("dot-proxy -l 127.0.0.2 --config nowhere", listeners(&["127.0.0.2:53"])),
            ("dot-proxy --config nowhere", listeners(&["127.0.0.4:44"])),
            ("dot-proxy -l 127.0.0.1:0", listeners(&["127.0.0.4:44"])),
            ("dot-proxy", listeners(&["127.0.0.4:44"])),
            ("dot-proxy --user gone --ca-file gone", listeners(&["127.0.0.4:44"])),
            ("dot-proxy health", guessed()),
            ("dot-proxy --unknown", guessed()),
            ("systemd", guessed()),
            ("dot-proxy -l 127.0.0.2 --metrics 127.0.0.1:9153", listeners(&["127.0.0.2:53"])),
            ("dot-proxy --reuse-port on --metrics [::]:9153", metrics("[::1]:9153")),
            ("dot-proxy --reuse-port off --metrics [::]:9153", listeners(&["127.0.0.4:44"])),
            ("dot-proxy --reuse-port on --metrics 127.0.0.1:0", listeners(&["127.0.0.4:44"])),
            ("dot-proxy --reuse-port on -l 127.0.0.2", listeners(&["127.0.0.2:53"])),
        ] {
            let cmdline = line.replace(' ', "\0") + "\0";
            let place = Place::of_process_1(cmdline.as_bytes(), Host::default(), of_kernel);
            assert_eq!(place, expected, "{line}");
        }
        let interfaces = "\
fe800000000000000000000000000001 0c 40 20 80     eth0
fe800000000000000000000000000011 02 40 20 80     eth1
fe800000000000000000000000000001 10 40 20 80   eth0.7
";
        for (address, expected) in [
            ("[fe80::1]:53", &["[fe80::1%12]:53", "[fe80::1%16]:53"][..]),
            ("[fe80::2]:53", &[]),
            ("[fd00::1]:53", &["[fd00::1]:53"]),
            ("127.0.0.1:53", &["127.0.0.1:53"]),
        ] {
            let found = with_scopes(address.parse().unwrap(), interfaces);
            assert_eq!(found, addresses(expected), "{address}");
        }
        let nowhere = Place::of_process_1(b"dot-proxy\0", Host::default(), Vec::new);
        assert_eq!(nowhere, guessed(), "no table of the kernel");
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_are_in_the_table_of_the_kernel() {
        let table = "\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1234: 0100007F:14B4 00000000:0000 07 00000000:00000000 00:00000000 00000000 65534        0 12345 2 0 0
 1235: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12346 2 0 0
 1236: 0200000A:C001 0100000A:0355 01 00000000:00000000 00:00000000 00000000     0        0 12347 2 0 0
 1237: FB0000E0:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12348 2 0 0
 1238: FFFFFFFF:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12349 2 0 0
 1239: B80D0120000000000000000001000000:0035 00000000000000000000000000000000:0000 07
 1240: 01:0035 02:0000
 1241: 0100007F
";
        let found: Vec<_> = bound_in(table).collect();
        assert_eq!(found, addresses(&["127.0.0.1:5300", "0.0.0.0:53", "[2001:db8::1]:53"]));

        let socket = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0"));
        let address = socket.as_ref().unwrap().local_addr().unwrap();
        assert!(bound().contains(&address), "{address}");
    }
}
