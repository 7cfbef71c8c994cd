//! What the kernel is told about each socket, as `ss` shows it.

use std::process::Command;

use support::message::{A, NOERROR};
use support::skip::skip;
use support::{Bed, Query, Response};

/// The limits of the receive and of the send buffer of the TCP socket with these addresses.
fn buffers(local: &str, peer: &str) -> Result<(u64, u64), String> {
    let output = Command::new("ss").args(["-Htnm", "src", local, "dst", peer]).output();
    let output = output.map_err(|error| format!("cannot run ss, which iproute2 has: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // skmem:(r0,rb131072,t0,tb131072,f0,w0,o0,bl0,d0)
    let of = |key: &str| {
        let start = text.find(key)? + key.len();
        let end = text[start..].find(|c: char| !c.is_ascii_digit())?;
        text[start..start + end].parse::<u64>().ok()
    };
    match (of(",rb"), of(",tb")) {
        (Some(receive), Some(send)) => Ok((receive, send)),
        _ => panic!("no socket from {local} to {peer}: {text:?}"),
    }
}

#[test]
fn socket_buffers_are_set_by_size() {
    for (flags, client, upstream) in [
        (&["--size", "small"][..], 16 << 10, (24 << 10, 16 << 10)),
        (&[], 64 << 10, (384 << 10, 256 << 10)),
    ] {
        let bed = Bed::with_args(flags, |setup| setup);
        let mut tcp = bed.tcp();
        let query = Query::new("n.example", A).bytes();
        assert_eq!(Response::read(&tcp.ask(&query)).rcode, NOERROR);

        let peer = tcp.stream().local_addr().expect("connected").to_string();
        match buffers(&bed.proxy.address().to_string(), &peer) {
            Ok(found) => assert_eq!(found, (client, client), "{flags:?}"),
            Err(reason) => return skip("socket_buffers_are_set_by_size", &reason),
        }
        let found = buffers("127.0.0.1", &bed.server.address().to_string());
        let (receive, send) = found.expect("it ran before");
        // The kernel grants no more than net.core.rmem_max and wmem_max, 208 KiB and doubled usually.
        assert!(receive <= upstream.0 && send <= upstream.1, "{flags:?}: {receive}, {send}");
        assert!(receive >= upstream.0.min(384 << 10), "{flags:?}: {receive}");
        assert!(send >= upstream.1.min(256 << 10), "{flags:?}: {send}");
    }
}
