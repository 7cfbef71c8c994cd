//! Row H8: what the program may do once it serves, whoever started it.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Gid, Signal, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::sandbox::without;
use crate::start::{Copied, assert_one_line};
use support::message::{A, NOERROR};
use support::namespace::in_namespace;
use support::proxy::{arguments, run, run_through};
use support::skip::skip;
use support::{Authority, Bed, DotServer, Proxy, Query, Response, Setup, UdpClient};

/// Whose rights a process has, as the kernel says it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Real, effective, saved and for files, as the next.
    pub(crate) users: String,
    groups: String,
    more_groups: String,
    /// Capabilities to be inherited, permitted, effective, and inherited in any case.
    pub(crate) capabilities: [u64; 4],
}

impl Rights {
    pub(crate) fn of(pid: impl Display) -> Self {
        let line = |name| line_of_status(&pid, name);
        let capabilities = ["CapInh", "CapPrm", "CapEff", "CapAmb"];
        Self {
            users: line("Uid"),
            groups: line("Gid"),
            more_groups: line("Groups"),
            capabilities: capabilities
                .map(|name| u64::from_str_radix(&line(name), 16).expect("a mask")),
        }
    }

    /// Of a user and a group and nothing else.
    pub(crate) fn only(uid: u32, gid: u32) -> Self {
        let four = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
        Self {
            users: four(uid),
            groups: four(gid),
            more_groups: String::new(),
            capabilities: [0; 4],
        }
    }
}

/// A line of the process's status, with one space between its words.
pub(crate) fn line_of_status(pid: impl Display, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    let mut found = lines.filter(|(known, _)| *known == name);
    let (_, words) = found.next().expect("a line of this name");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(crate) fn warnings(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| line.starts_with("WARN")).collect()
}

/// Starts as root what listens on port 53, in a namespace in which that needs a right.
fn as_root(name: &str, test: impl FnOnce() + Send) {
    if !geteuid().is_root() {
        return skip(name, "root starts it");
    }
    in_namespace(name, "", || {
        fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024").expect("root may");
        test();
    });
}

const PORT_53: [&str; 2] = ["--listen", "127.0.0.1:53"];

#[test]
fn h08_root_is_given_up() {
    as_root("h08_root_is_given_up", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        // Root reads it, and others do not.
        fs::set_permissions(authority.file(), fs::Permissions::from_mode(0o600)).expect("ours");
        for (user, expected) in [
            (&[][..], Rights::only(65_534, 65_534)),
            (&["--user", "daemon"], Rights::only(1, 1)),
            (&["--user", "daemon:9"], Rights::only(1, 9)),
            (&["--user", "7"], Rights::only(7, 7)),
            (&["--user", "7:0"], Rights::only(7, 0)),
        ] {
            let more = [&PORT_53, user].concat();
            let args = arguments(&authority, &[server.address()], &more);
            let proxy = Proxy::start_through(&["setpriv", "--groups=0,5"], &args);
            assert_eq!(Rights::of(proxy.pid()), expected, "{user:?}");
            assert_eq!(line_of_status(proxy.pid(), "CapBnd"), "0000000000000000");
            assert_eq!(line_of_status(proxy.pid(), "NoNewPrivs"), "1");
            let response = UdpClient::new(proxy.address()).ask(&Query::new("a.example", A).bytes());
            assert_eq!(Response::read(&response).rcode, NOERROR);
            let lines = proxy.stop();
            let ids = expected.users.split(' ').next().expect("a user");
            let line = format!("runs as user {ids}:");
            assert!(lines.iter().any(|it| it.contains(&line)), "{line}: {lines:#?}");
            let is_told = |line: &str| line.contains("SIGHUP will not read it again");
            let warnings = warnings(&lines);
            assert!(warnings.len() == 1 && is_told(warnings[0]), "{warnings:#?}");
        }
    });
}

#[test]
fn h08_root_is_kept_if_asked_for() {
    as_root("h08_root_is_kept_if_asked_for", || {
        for user in ["root", "0", "0:0"] {
            let proxy = Proxy::start(&["--user", user]);
            assert_eq!(Rights::of(proxy.pid()).users, "0 0 0 0");
            assert_eq!(line_of_status(proxy.pid(), "NoNewPrivs"), "1");
            let lines = proxy.stop();
            let warnings = warnings(&lines);
            assert!(warnings.len() == 1 && warnings[0].contains("runs as root"), "{warnings:?}");
        }
    });
}

/// Options of setpriv that leave root these capabilities.
fn root_with(capabilities: &str) -> [String; 2] {
    ["--inh-caps=-all".into(), format!("--bounding-set=-all{capabilities}")]
}

#[test]
fn h08_root_without_the_right_to_be_another() {
    as_root("h08_root_without_the_right_to_be_another", || {
        // As in a container that may do nothing else, and in a user namespace that has nobody else.
        let [inherited, bounding] = root_with(",+net_bind_service");
        let in_container = ["setpriv", &inherited, &bounding];
        let in_namespace = ["unshare", "--user", "--map-root-user"];
        let kept = Rights::only(0, 0);
        for (wrapper, args) in [(&in_container[..], &PORT_53[..]), (&in_namespace[..], &[])] {
            let wrapper = [wrapper, &["setpriv", "--keep-groups"]].concat();
            let proxy = Proxy::start_through(&wrapper, args);
            let rights = Rights::of(proxy.pid());
            assert_eq!(rights.users, kept.users);
            assert_eq!(rights.capabilities, kept.capabilities);
            let lines = proxy.stop();
            let warnings = warnings(&lines);
            assert!(
                warnings.len() == 1
                    && warnings[0].contains("runs as root, without capabilities")
                    && warnings[0].contains("65534:65534 cannot be had")
                    && warnings[0].ends_with("with CAP_SETUID and CAP_SETGID, or as that user"),
                "{warnings:?}"
            );

            let result = run_through(&wrapper, &[args, &["--user", "65534"]].concat());
            assert_one_line(&result, 1, &["--user 65534:65534", "cannot be had", "start as root"]);
        }
    });
}

#[test]
fn h08_root_with_the_rights_of_the_recipes() {
    as_root("h08_root_with_the_rights_of_the_recipes", || {
        let [inherited, bounding] = root_with(",+net_bind_service,+setgid,+setuid");
        for user in [&[][..], &["--user", "65534"]] {
            let args = [&PORT_53, user].concat();
            let proxy = Proxy::start_through(&["setpriv", &inherited, &bounding], &args);
            assert_eq!(Rights::of(proxy.pid()), Rights::only(65_534, 65_534));
            let lines = proxy.stop();
            assert!(warnings(&lines).is_empty(), "{lines:#?}");
        }
    });
}

#[test]
fn h08_another_user_with_the_right_to_bind() {
    const NAME: &str = "h08_another_user_with_the_right_to_bind";

    as_root(NAME, || {
        let program = Copied::new(NAME);
        let right = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all,+net_bind_service",
            "--ambient-caps=+net_bind_service",
            "--bounding-set=-all,+net_bind_service",
        ];
        let wrapper = program.through(&right);
        for user in [&[][..], &["--user", "65534"]] {
            let proxy = Proxy::start_through(&wrapper, &[&PORT_53, user].concat());
            assert_eq!(Rights::of(proxy.pid()), Rights::only(65_534, 65_534));
            let lines = proxy.stop();
            assert!(warnings(&lines).is_empty(), "{lines:#?}");
        }
        for user in ["7", "root"] {
            let result = run_through(&wrapper, &[&PORT_53, &["--user", user][..]].concat());
            assert_one_line(&result, 1, &["--user", "cannot be had", "not permitted"]);
        }

        // As with a filter of system calls that takes the one for an intruder's.
        let result = with_the_right_to_bind(|| {
            let wrapper = program.through(&[]);
            without(&[libc::SYS_capset], Errno::PERM, || {
                let lines = Proxy::start_through(&wrapper, &PORT_53).stop();
                let warnings = warnings(&lines);
                assert!(
                    warnings.len() == 1 && warnings[0].contains("capabilities cannot be given up"),
                    "{warnings:?}"
                );
                run_through(&wrapper, &[&PORT_53, &["--user", "65534"][..]].concat())
            })
        });
        match result {
            Ok(result) => assert_one_line(&result, 1, &["--user 65534:65534", "capset(2)"]),
            Err(reason) => skip(NAME, &reason),
        }
    });
}

/// As `docker run --user 65534:65534 --group-add 0`.
#[test]
fn h08_more_groups_that_cannot_be_given_up() {
    const NAME: &str = "h08_more_groups_that_cannot_be_given_up";

    if !geteuid().is_root() {
        return skip(NAME, "root starts it");
    }
    let program = Copied::new(NAME);
    let user = |groups: &'static str| ["setpriv", "--reuid=65534", "--regid=65534", groups];
    let asked = ["--user", "65534:65534"];
    let (root_too, own) = (user("--groups=0,65534"), user("--groups=65534"));
    let result = run_through(&program.through(&root_too), &asked);
    assert_one_line(&result, 1, &["--user 65534:65534", "group 0 cannot", "without more groups"]);
    for (wrapper, args) in [(root_too, &[][..]), (own, &asked)] {
        let lines = Proxy::start_through(&program.through(&wrapper), args).stop();
        assert!(warnings(&lines).is_empty(), "{lines:#?}");
    }
}

/// Does it in a thread that is nobody, and may bind any port, as may what it starts.
fn with_the_right_to_bind<T: Send>(inside: impl FnOnce() -> T + Send) -> T {
    let (uid, gid) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
    let right = CapabilitySet::NET_BIND_SERVICE;
    let sets = CapabilitySets { effective: right, permitted: right, inheritable: right };
    let become_nobody = move || -> rustix::io::Result<()> {
        set_keep_capabilities(true)?;
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        set_capabilities(None, sets)?;
        configure_capability_in_ambient_set(right, true)
    };
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            become_nobody().expect("root may");
            inside()
        });
        thread.join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn h08_without_any_right() {
    const NAME: &str = "h08_without_any_right";

    if !geteuid().is_root() {
        // Every other test is that.
        return drop(Bed::start());
    }
    let program = Copied::new(NAME);
    let wrapper = program.as_nobody();
    for user in [&[][..], &["--user", "65534"], &["--user", "65534:65534"]] {
        let proxy = Proxy::start_through(&wrapper, user);
        assert_eq!(Rights::of(proxy.pid()), Rights::only(65_534, 65_534));
        let lines = proxy.stop();
        assert!(warnings(&lines).is_empty(), "{lines:#?}");
    }
}

#[test]
fn h08_the_sandbox_is_whole_or_says_so() {
    let seccomp = |proxy: &Proxy| line_of_status(proxy.pid(), "Seccomp_filters");
    let line = |proxy: &Proxy| proxy.await_line("line", |line| line.contains("sandbox: "));
    let before = fs::read_to_string("/proc/self/status").expect("our own");
    let before = before.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
    let before: usize = before.expect("a line").trim().parse().expect("a number");

    let proxy = Proxy::start(&["--sandbox", "off"]);
    let off = line(&proxy);
    assert!(off.starts_with("WARN") && off.contains("sandbox: off, as --sandbox says"), "{off}");
    assert_eq!(seccomp(&proxy), before.to_string());
    let proxy = Proxy::start::<&str>(&[]);
    assert!(line(&proxy).contains("sandbox: system calls"), "{:?}", proxy.lines());
    assert_eq!(seccomp(&proxy), (before + 2).to_string());
}

#[test]
fn h08_less_of_a_sandbox_than_wanted() {
    const NAME: &str = "h08_less_of_a_sandbox_than_wanted";
    const LANDLOCK: i64 = libc::SYS_landlock_create_ruleset;
    const SECCOMP: i64 = libc::SYS_seccomp;

    for (error, calls, words) in [
        (Errno::NOSYS, &[LANDLOCK][..], "system calls restricted; files, TCP ports, signals not"),
        (Errno::PERM, &[LANDLOCK], "system calls restricted; files, TCP ports, signals not"),
        (Errno::PERM, &[SECCOMP], "system calls not"),
        (Errno::NOSYS, &[SECCOMP, LANDLOCK], "system calls, files, TCP ports, signals not"),
    ] {
        let results = without(calls, error, || {
            let proxy = Proxy::start::<&str>(&[]);
            let line = proxy.await_line("line", |line| line.contains("sandbox: "));
            (
                line,
                run(&["--listen", "127.0.0.1:0", "--log-level", "error", "--sandbox", "require"]),
            )
        });
        let (line, required) = match results {
            Ok(results) => results,
            Err(reason) => return skip(NAME, &reason),
        };
        assert!(line.contains(words), "{line}");
        assert_eq!(line.starts_with("WARN"), calls.len() == 2, "{line}");
        assert_one_line(&required, 1, &["--sandbox require", words, "write --sandbox on"]);
    }
}

/// Another process of the user does not get at names and keys, and a signal that has the memory written to a
/// file has nothing written.
#[test]
fn h08_the_memory_is_hidden() {
    const NAME: &str = "h08_the_memory_is_hidden";

    let program = Copied::new(NAME);
    let is_root = geteuid().is_root();
    let wrapper = if is_root { program.as_nobody() } else { Vec::new() };
    // Without the program behind them, these make any command nobody's.
    let nobody = &wrapper[..wrapper.len().min(5)];
    for (sandbox, is_read) in [("off", true), ("on", false)] {
        let mut proxy = Proxy::start_through(&wrapper, &["--sandbox", sandbox]);
        let memory = format!("/proc/{}/mem", proxy.pid());
        let opened = if is_root {
            let mut reader = Command::new(nobody[0]);
            let reader = reader.args(&nobody[1..]).args(["head", "-c0", &memory]).output();
            reader.expect("setpriv").status.success()
        } else {
            fs::File::open(&memory).is_ok()
        };
        assert_eq!(opened, is_read, "--sandbox {sandbox}");
        if !is_read {
            let limits =
                fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).expect("limits");
            let core = limits.lines().find(|line| line.starts_with("Max core file size"));
            let core: Vec<_> = core.expect("a limit").split_whitespace().skip(4).take(2).collect();
            assert_eq!(core, ["0", "0"]);
            // Not QUIT, which whoever runs this in the background has ignored.
            proxy.signal(Signal::ABORT);
            assert!(!proxy.await_exit().core_dumped());
        }
    }
}

#[test]
fn h08_users_that_there_are_not() {
    for (user, words) in [
        ("no-such-user", ["no-such-user", "not in /etc/passwd", "UID:GID"]),
        ("0:7", ["0:7", "root with another group", "write root"]),
    ] {
        let result = run(&["--listen", "127.0.0.1:0", "--user", user]);
        assert_one_line(&result, 2, &words);
    }
}
