//! Whether a configuration is right: what a start would say of it, without one.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use crate::config::Config;

/// Addresses of clients, and of metrics, that this host does not have, a line each.
pub fn missing_addresses(config: &Config) -> Vec<String> {
    let listen = config.listen.iter().map(|address| ("--listen", address));
    let metrics = config.metrics.iter().map(|address| ("--metrics", address));
    let missing = listen.chain(metrics).filter(|(_, address)| is_missing(**address));
    let what_of_it = if config.freebind {
        "only a warning, as --freebind on serves it once it is one"
    } else {
        "--freebind on serves it once it is one"
    };
    let line = |(flag, address)| {
        config.placed(format!(
            "{flag} {address}: is no address of this host now; `ip address` shows those that are; {what_of_it}"
        ))
    };
    missing.map(line).collect()
}

/// Whether no socket can have this address, whatever its port.
fn is_missing(mut address: SocketAddr) -> bool {
    address.set_port(0);
    UdpSocket::bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}
