//! `dot-proxy health` in containers, and at addresses other than loopback.

use std::fs;
use std::process::Command;

use rustix::process::Pid;

use support::namespace::{in_namespace, ip};
use support::proxy::{program, run};
use support::{Authority, Bed, DotServer, Proxy, Setup, proxy};

/// What it says from inside the namespaces of a process, with its exit code.
fn health_of(pid: Pid) -> (Option<i32>, String) {
    let pid = pid.as_raw_nonzero().to_string();
    let output = Command::new("nsenter")
        .args(["--target", &pid, "--pid", "--mount", "--net"])
        .arg(program())
        .arg("health")
        .output()
        .expect("nsenter starts");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// The only child of a process.
fn child_of(pid: Pid) -> Pid {
    let pid = pid.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("it runs");
    let child = children.split_whitespace().next().and_then(|child| child.parse().ok());
    Pid::from_raw(child.expect("a child")).expect("a number")
}

#[test]
fn the_listeners_of_process_1_are_found_in_its_command_line() {
    const NAME: &str = "the_listeners_of_process_1_are_found_in_its_command_line";
    const UNSHARE: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

    in_namespace(NAME, "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        for (flags, asked) in [
            (&["--listen", "0.0.0.0:53"][..], "127.0.0.1:53"),
            (&["--listen", "[::]:5353", "--deny", "::1"], "[::1]:5353"),
            (&["--listen", "127.0.0.1:0", "--listen", "127.0.0.9:5300"], "127.0.0.9:5300"),
        ] {
            let args = proxy::arguments(&authority, &[server.address()], flags);
            let proxy = Proxy::start_through(&UNSHARE, &args);
            let inside = child_of(proxy.pid());
            let expected = (Some(0), format!("{asked} answers\n"));
            assert_eq!(health_of(inside), expected, "{flags:?}");
        }
    });
}

#[test]
fn who_was_not_told_where_to_listen_is_found() {
    in_namespace("who_was_not_told_where_to_listen_is_found", "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let (code, _, stderr) = run(&["health"]);
        assert_eq!(code, Some(1), "{stderr}");
        let words = "nothing listens on 127.0.0.1:53 or 127.0.0.1:5300, UDP: ";
        assert!(stderr.contains(words), "{stderr}");
        for listener in ["127.0.0.1:5300", "127.0.0.1:53"] {
            let flags = ["--listen", listener];
            let proxy = Proxy::start(&proxy::arguments(&authority, &[server.address()], &flags));
            let (code, stdout, stderr) = run(&["health"]);
            assert_eq!((code, stdout), (Some(0), format!("{listener} answers\n")), "{stderr}");
            drop(proxy);
        }
    });
}

#[test]
fn an_address_of_this_host_is_asked_from_loopback() {
    const NAME: &str = "an_address_of_this_host_is_asked_from_loopback";

    in_namespace(NAME, "", || {
        ip(&["address", "add", "10.1.2.3/8", "dev", "lo"]);
        ip(&["address", "add", "fd00::3/64", "dev", "lo", "nodad"]);
        let deny = ["--deny", "10.0.0.0/8", "--deny", "fd00::/8"];
        for listener in ["10.1.2.3:5300", "[fd00::3]:5300", "0.0.0.0:5300", "[::]:5300"] {
            let flags = [&["--listen", listener][..], &deny].concat();
            let bed = Bed::with_args(&flags, |setup| setup);
            for asked in ["10.1.2.3:5300", "[fd00::3]:5300"] {
                if asked.starts_with('[') == listener.starts_with('[') {
                    let (code, said, error) = run(&["health", "--listen", asked]);
                    let expected = (Some(0), format!("{asked} answers\n"));
                    assert_eq!((code, said), expected, "{listener}: {error}");
                }
            }
            drop(bed);
        }
    });
}
