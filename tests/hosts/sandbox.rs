//! Row H11: sandboxes that refuse system calls.

use std::collections::BTreeMap;

use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::start::assert_one_line;
use support::message::{A, NOERROR};
use support::namespace::in_namespace;
use support::proxy::run;
use support::skip::skip;
use support::{Authority, DotServer, Proxy, Query, Response, Setup, UdpClient};

const RECEIVE_MANY: i64 = libc::SYS_recvmmsg;
const SEND_MANY: i64 = libc::SYS_sendmmsg;
const RECEIVE_ONE: i64 = libc::SYS_recvmsg;
const SEND_ONE: i64 = libc::SYS_sendmsg;

/// What is started inside gets this error from these system calls. `None` if this machine cannot.
pub(crate) fn without<T: Send>(
    calls: &[i64],
    error: Errno,
    inside: impl FnOnce() -> T + Send,
) -> Result<T, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let rules: BTreeMap<_, _> = calls.iter().map(|&call| (call, Vec::new())).collect();
    let refusal = SeccompAction::Errno(error.raw_os_error().unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch);
    let program = filter.and_then(BpfProgram::try_from).expect("a filter");
    // A thread of its own, because it has the filter to its end, as have its children.
    let result = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                apply_filter(&program).map_err(|error| format!("seccomp: {error}"))?;
                Ok(inside())
            })
            .join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn h11_calls_for_many_datagrams_are_replaced() {
    const NAME: &str = "h11_calls_for_many_datagrams_are_replaced";
    const QUERIES: u16 = 200;

    for (calls, named) in [
        (&[RECEIVE_MANY][..], &["recvmmsg"][..]),
        (&[SEND_MANY], &["sendmmsg"]),
        (&[RECEIVE_MANY, SEND_MANY], &["recvmmsg", "sendmmsg"]),
        (&[RECEIVE_ONE], &[]),
    ] {
        for error in [Errno::PERM, Errno::NOSYS] {
            let authority = Authority::new();
            let server = DotServer::start(Setup::new(authority.identity("dot.example")));
            let proxy = match without(calls, error, || Proxy::before(&authority, &[&server], &[])) {
                Ok(proxy) => proxy,
                Err(reason) => return skip(NAME, &reason),
            };
            let client = UdpClient::new(proxy.address());
            for n in 0..QUERIES {
                client.send(&Query::new(&format!("n{n}.example"), A).id(n).bytes());
            }
            for _ in 0..QUERIES {
                assert_eq!(Response::read(&client.receive()).rcode, NOERROR, "{calls:?} {error}");
            }
            let warnings = proxy.stop();
            let warnings: Vec<_> =
                warnings.iter().filter(|line| line.starts_with("WARN")).collect();
            assert_eq!(warnings.len(), named.len(), "{warnings:#?}");
            for (line, call) in warnings.iter().zip(named) {
                assert!(line.contains(call) && line.contains("sandbox"), "{line}");
            }
        }
    }
}

#[test]
fn h11_without_any_call_it_does_not_start() {
    const NAME: &str = "h11_without_any_call_it_does_not_start";

    for (calls, words) in [
        ([RECEIVE_MANY, RECEIVE_ONE], ["recvmmsg", "recvmsg"]),
        ([SEND_MANY, SEND_ONE], ["sendmmsg", "sendmsg"]),
    ] {
        for error in [Errno::PERM, Errno::NOSYS] {
            match without(&calls, error, || run(&["--listen", "127.0.0.1:0"])) {
                Ok(result) => assert_one_line(&result, 1, &[&words[..], &["sandbox"]].concat()),
                Err(reason) => return skip(NAME, &reason),
            }
        }
    }
}

#[test]
fn h11_datagrams_that_cannot_be_sent_are_warned_of() {
    // What a firewall drops on its way out is an error of the call.
    let rules = "table inet refused { chain output {
        type filter hook output priority 0;
        udp sport 5300 drop; }; }";
    in_namespace("h11_datagrams_that_cannot_be_sent_are_warned_of", rules, || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let proxy = Proxy::before(&authority, &[&server], &["--listen", "127.0.0.1:5300"]);
        let client = UdpClient::new(proxy.address());
        for n in 0..3 {
            client.send(&Query::new(&format!("n{n}.example"), A).bytes());
        }
        proxy.await_lines("query logged", 3, |line| line.starts_with("SUCCESS"));
        let lines = proxy.stop();
        let warnings: Vec<_> = lines.iter().filter(|line| line.starts_with("WARN")).collect();
        assert_eq!(warnings.len(), 1, "{lines:#?}");
        assert!(warnings[0].ends_with("UDP: not sent: operation not permitted"), "{warnings:?}");
    });
}
