use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::thread;

use nix::sys::ptrace;
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Pid, getppid, getrlimit, test_kill_process};
use socket2::{Domain, Protocol, Socket, Type};

use super::*;

/// What is there before the sandbox is made.
struct Outside {
    /// Connections to it are allowed.
    upstream: TcpListener,
    other: TcpListener,
    /// A socket without a file.
    local: UnixListener,
    parent: Pid,
}

impl Outside {
    fn new() -> Self {
        let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let name = format!("dot-proxy-{}", std::process::id());
        let local = UnixAddress::from_abstract_name(name).unwrap();
        let local = UnixListener::bind_addr(&local).unwrap();
        Self { upstream: listener(), other: listener(), local, parent: getppid().unwrap() }
    }

    fn port(&self) -> u16 {
        self.upstream.local_addr().unwrap().port()
    }
}

/// Something that is tried from inside.
type Act = fn(&Outside) -> io::Result<()>;

/// What comes of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Refused(Errno),
    Killed(i32),
}

/// The variable that says which act this process is there for.
const ACT: &str = "DOT_PROXY_TEST_SANDBOX_ACT";

/// The exit code of tests that fail.
const PANICKED: i32 = 101;

/// The exit code of an act for which the kernel has no prohibition.
const NOT_HAD: i32 = 200;

/// Tries each act in a process of its own, in which `enter` makes the sandbox, or a part of it, and says
/// whether there is what the act needs. The test of this name runs itself again for that.
#[track_caller]
fn assert_ends(name: &str, enter: fn(&str, &Outside) -> bool, acts: &[(&str, Act, End)]) {
    if let Ok(chosen) = std::env::var(ACT) {
        let (_, act, _) = acts.iter().find(|(name, _, _)| *name == chosen).unwrap();
        let outside = Outside::new();
        let code = if enter(&chosen, &outside) {
            act(&outside).map_or_else(|error| error.raw_os_error().unwrap(), |()| 0)
        } else {
            NOT_HAD
        };
        std::process::exit(code);
    }
    for (act, _, expected) in acts {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("host::sandbox::tests::{name}"), "--nocapture"])
            .env(ACT, act)
            .output()
            .unwrap();
        let end = match (output.status.code(), output.status.signal()) {
            (Some(0), _) => End::Done,
            (Some(NOT_HAD), _) => {
                println!("{act}: skipped, as the kernel does not have this part");
                continue;
            }
            (Some(code), _) => End::Refused(Errno::from_raw_os_error(code)),
            (None, signal) => End::Killed(signal.unwrap()),
        };
        assert_eq!(end, *expected, "{act}: {output:?}");
    }
}

fn connect(to: &TcpListener) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.connect(&to.local_addr()?.into())
}

/// Connects with the first octet that is sent, and without connect(2).
fn open_fast(to: &TcpListener) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.send_to_with_flags(b"x", &to.local_addr()?.into(), libc::MSG_FASTOPEN).map(drop)
}

/// A command of fcntl(2) that is not needed, as those that have the kernel send signals.
fn duplicate(outside: &Outside) -> io::Result<()> {
    Ok(fcntl_dupfd_cloexec(&outside.upstream, 3).map(drop)?)
}

fn open(_: &Outside) -> io::Result<()> {
    File::open("/etc/passwd").map(drop)
}

fn bind(_: &Outside) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
}

fn signal(outside: &Outside) -> io::Result<()> {
    Ok(test_kill_process(outside.parent)?)
}

fn connect_locally(outside: &Outside) -> io::Result<()> {
    UnixStream::connect_addr(&outside.local.local_addr()?).map(drop)
}

#[test]
fn landlock_refuses() {
    assert_ends(
        "landlock_refuses",
        |act, outside| {
            let needed = match act {
                "open" | "create" | "program" | "in the folder" | "beside the folder" => ABI::V1,
                "signal" | "local socket" => ABI::V6,
                _ => ABI::V4,
            };
            let files: &[&Path] =
                if act.ends_with("folder") { &[Path::new("/etc/passwd")] } else { &[] };
            confine([outside.port()], false, files).unwrap() >= needed
        },
        &[
            ("open", open, End::Refused(Errno::ACCESS)),
            ("in the folder", open, End::Done),
            (
                "beside the folder",
                |_| File::open("/proc/self/status").map(drop),
                End::Refused(Errno::ACCESS),
            ),
            (
                "create",
                |_| File::create(std::env::temp_dir().join("dot-proxy-inside")).map(drop),
                End::Refused(Errno::ACCESS),
            ),
            ("program", |_| Err(Command::new("/bin/true").exec()), End::Refused(Errno::ACCESS)),
            ("upstream", |outside| connect(&outside.upstream), End::Done),
            ("elsewhere", |outside| connect(&outside.other), End::Refused(Errno::ACCESS)),
            ("bind", bind, End::Refused(Errno::ACCESS)),
            ("signal", signal, End::Refused(Errno::PERM)),
            ("local socket", connect_locally, End::Refused(Errno::PERM)),
        ],
    );
}

#[test]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn system_calls_are_refused_or_deadly() {
    const SIGABRT: i32 = 6;
    const SIGSYS: i32 = 31;
    let refused = End::Refused(Errno::PERM);
    assert_ends(
        "system_calls_are_refused_or_deadly",
        |_, _| calls::restrict(false, false),
        &[
            ("upstream", |outside| connect(&outside.upstream), End::Done),
            ("open", open, refused),
            ("fast open elsewhere", |outside| open_fast(&outside.other), refused),
            ("bind", bind, refused),
            ("duplicate", duplicate, refused),
            ("signal", signal, refused),
            ("local socket", connect_locally, refused),
            ("datagrams", |_| Socket::new(Domain::IPV4, Type::DGRAM, None).map(drop), refused),
            ("be looked into", |_| Ok(set_dumpable_behavior(DumpableBehavior::Dumpable)?), refused),
            ("fork", |_| Command::new("/bin/true").spawn().map(drop), End::Killed(SIGSYS)),
            ("exec", |_| Err(Command::new("/bin/true").exec()), End::Killed(SIGSYS)),
            ("thread", |_| thread::Builder::new().spawn(|| ()).map(drop), End::Killed(SIGSYS)),
            ("ptrace", |_| Ok(ptrace::traceme()?), End::Killed(SIGSYS)),
            ("panic", |_| panic!("its own"), End::Refused(Errno::from_raw_os_error(PANICKED))),
            ("abort", |_| std::process::abort(), End::Killed(SIGABRT)),
        ],
    );
}

#[test]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn memory_that_cannot_be_hidden() {
    fn enter_as(sandbox: Sandbox, outside: &Outside) -> io::Result<()> {
        enter(sandbox, [outside.port()], false, &[]).map(drop).map_err(|line| {
            assert!(line.contains("--sandbox require: names and keys are not hidden"), "{line}");
            Errno::PERM.into()
        })
    }

    assert_ends(
        "memory_that_cannot_be_hidden",
        |_, _| {
            calls::refuse_to_hide();
            true
        },
        &[
            ("on", |outside| enter_as(Sandbox::On, outside), End::Done),
            ("require", |o| enter_as(Sandbox::Require, o), End::Refused(Errno::PERM)),
            (
                "files",
                |_| {
                    hide().unwrap_err();
                    assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
                    Ok(())
                },
                End::Done,
            ),
        ],
    );
}

#[test]
fn the_whole_sandbox_holds_what_serves() {
    assert_ends(
        "the_whole_sandbox_holds_what_serves",
        |_, outside| {
            enter(Sandbox::On, [outside.port()], true, &[Path::new("/etc/passwd")]).is_ok()
        },
        &[
            ("upstream", |outside| connect(&outside.upstream), End::Done),
            ("any port of an address", bind, End::Done),
            ("known sockets", |outside| accept(&outside.upstream), End::Done),
            ("memory", |_| allocate(), End::Done),
            ("file", |_| std::fs::read("/etc/passwd").map(drop), End::Done),
        ],
    );
}

/// Accepts a connection that was made from inside.
fn accept(listener: &TcpListener) -> io::Result<()> {
    connect(listener)?;
    let (stream, _): (TcpStream, SocketAddr) = listener.accept()?;
    stream.peer_addr().map(drop)
}

/// Has the allocator take memory from the kernel, let it grow and give it back.
fn allocate() -> io::Result<()> {
    let mut octets = Vec::new();
    octets.try_reserve(1 << 20)?;
    octets.resize(64 << 20, 1_u8);
    octets.truncate(1);
    octets.shrink_to_fit();
    Ok(())
}

#[test]
fn the_line_says_what_is_taken_and_what_is_left() {
    let left = "not, as the kernel, or a container, does not let it";
    for (calls, landlock, expected) in [
        (true, ABI::V6, "system calls, files, TCP ports, signals restricted".to_owned()),
        (true, ABI::V5, format!("system calls, files, TCP ports restricted; signals {left}")),
        (true, ABI::V1, format!("system calls, files restricted; TCP ports, signals {left}")),
        (false, ABI::V7, format!("files, TCP ports, signals restricted; system calls {left}")),
        (false, ABI::Unsupported, format!("system calls, files, TCP ports, signals {left}")),
    ] {
        assert_eq!(Taken { calls, landlock }.to_string(), expected);
    }
}
