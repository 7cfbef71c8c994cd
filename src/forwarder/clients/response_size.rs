//! How large responses may be.

use std::net::IpAddr;

use crate::forwarder::DatagramPath;
use crate::forwarder::message::Opt;

/// How large a response may be, and how large a datagram our OPT record says we take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponseSize {
    pub(crate) limit: usize,
    pub(crate) udp_size: u16,
}

impl ResponseSize {
    /// On a stream (RFC 1035 section 4.2.2).
    pub(crate) fn on_stream(client: IpAddr, udp_size_max: Option<u16>) -> Self {
        Self { limit: 65_535, udp_size: udp_size(client, udp_size_max) }
    }

    /// By datagram: what the client takes, but no more than we send to it.
    pub(crate) fn by_datagram(
        path: &DatagramPath,
        opt: Option<Opt>,
        udp_size_max: Option<u16>,
    ) -> Self {
        let udp_size = udp_size(path.client.ip(), udp_size_max);
        let wanted = opt.map_or(UDP_SIZE_MIN, |opt| opt.udp_size.max(UDP_SIZE_MIN));
        Self { limit: usize::from(wanted.min(udp_size)), udp_size }
    }
}

/// What passes unfragmented over any path we would meet, or over loopback what RFC 5625 section
/// 4.4.3 asks for; unless another size is configured.
fn udp_size(client: IpAddr, configured: Option<u16>) -> u16 {
    let is_loopback = client.to_canonical().is_loopback();
    configured.unwrap_or(if is_loopback { UDP_SIZE_LOOPBACK } else { UDP_SIZE })
}

/// RFC 1035 section 4.2.1.
const UDP_SIZE_MIN: u16 = 512;

/// The IPv6 minimum link of 1,280 octets less its headers.
const UDP_SIZE: u16 = 1232;

/// Nothing fragments on loopback.
const UDP_SIZE_LOOPBACK: u16 = 4096;

/// No more can be configured.
pub(crate) const UDP_SIZE_MAX: u16 = 4096;
