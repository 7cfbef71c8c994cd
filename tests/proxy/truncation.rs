//! Answers that are larger than a UDP client takes (RFC 6891 section 6.2.5, RFC 2181 section 9).

use std::net::SocketAddr;

use support::answers;
use support::message::{self, TC, TXT};
use support::{Bed, Query, Response, TcpClient, UdpClient};

/// RFC 6891 section 6.2.5: neither side's size is exceeded, and neither is less than 512 octets.
#[test]
fn udp_size_max_bounds_what_clients_take_over_ipv4_and_ipv6() {
    for udp_size_max in [512, 1_232, 4_096] {
        let size_max = udp_size_max.to_string();
        let flags = ["--udp-size-max", &size_max, "--listen", "127.0.0.1:0", "--listen", "[::1]:0"];
        let bed = Bed::with_args(&flags, |setup| setup);
        for &listener in bed.proxy.listeners() {
            for client_size in [0, 512, 1_232, 4_096, 65_535] {
                let most = udp_size_max.min(client_size.max(512));
                for size in [most, most + 1, 600, 1_200, 1_300, 4_000, 4_100, 65_524] {
                    let is_whole = size <= most;
                    assert_size(listener, udp_size_max, client_size, size.into(), is_whole);
                }
            }
            assert_size(listener, udp_size_max, 65_535, 65_535, false);
        }
    }
}

/// An answer of this size reaches a client that takes `client_size` octets (0: no OPT) over UDP as it
/// should, whole or as little as says so, and whole over TCP; the proxy tells `udp_size` as its own.
#[track_caller]
fn assert_size(proxy: SocketAddr, udp_size: u16, client_size: u16, size: usize, is_whole: bool) {
    let bare_size = if client_size == 0 { size } else { size - answers::OPT_LEN };
    let name = format!("size-{bare_size}.c{client_size}.example");
    let query = match client_size {
        0 => Query::new(&name, TXT).bytes(),
        client_size => Query::new(&name, TXT).opt(client_size).bytes(),
    };
    let case = format!("{size} octets from {proxy} for a client that takes {client_size}");
    let whole = answers::at_client_told(answers::sized(&query, bare_size), udp_size);
    assert_eq!(whole.len(), size, "{case}");
    assert_eq!(TcpClient::new(proxy).ask(&query), whole, "{case}");

    let response = UdpClient::new(proxy).ask(&query);
    if is_whole {
        assert_eq!(response, whole, "{case}");
        return;
    }
    let read = Response::read(&response);
    assert_eq!(message::flags(&response), message::flags(&whole) | TC, "{case}");
    let most = usize::from(client_size.max(512).min(udp_size));
    assert!(response.len() <= most, "{case}: {}", response.len());
    assert_eq!(read.question, Some((name, TXT, 1)), "{case}");
    if client_size == 0 {
        // Whole records, as many as fit, in place.
        assert_eq!(response[12..], whole[12..response.len()], "{case}");
        assert_eq!((read.authorities, read.additionals), (0, 0), "{case}");
        assert!(read.opt.is_none() && read.answers > 0, "{case}: {read:?}");
        assert!(response.len() > 512 - 263, "{case}: another record fits after {read:?}");
    } else {
        assert_eq!((read.answers, read.authorities, read.additionals), (0, 0, 0), "{case}");
        let opt = read.opt.expect("OPT stays");
        assert_eq!((opt.version, opt.udp_size), (0, udp_size), "{case}");
    }
}
