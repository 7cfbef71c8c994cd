//! The service manager that started the process, if one did: what it is told, as `sd_notify(3)` has it.
//!
//! The socket is connected before the sandbox is entered, in which none can be. What does not go at once is said again
//! later, the last value of each variable: a manager that does not listen must not keep the loop from serving, and one that was
//! busy would stop a service that it never heard to be ready.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::process::getpid;
use rustix::time::{ClockId, clock_gettime};

use super::os_error::system_error;

/// The service manager; the default is none, which is told nothing.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Watchdog>,
    /// What it had no room for, and when it is told again.
    untold: Option<(String, Instant)>,
}

/// Signs of life that the manager wants.
#[derive(Debug)]
struct Watchdog {
    /// From one sign to the next: half of what the manager waits for, as `sd_watchdog_enabled(3)` advises.
    interval: Duration,
    /// When the next is due, from the first on.
    next: Option<Instant>,
}

impl Manager {
    /// The manager that the environment names, and a warning of one that cannot be reached.
    pub fn find() -> (Self, Option<String>) {
        match Self::of(|name| std::env::var_os(name)) {
            Ok(manager) => (manager, None),
            Err(problem) => {
                let warning = format!("{problem}; systemd is not told when this program is ready");
                (Self::default(), Some(warning))
            }
        }
    }

    fn of(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let Some(address) = variable(SOCKET).filter(|address| !address.is_empty()) else {
            return Ok(Self::default());
        };
        let socket = connect(&address).map_err(|error| {
            format!("{SOCKET}={}: {}", address.to_string_lossy(), system_error(&error))
        })?;
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let own = u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
        // Without the second one, it is meant for whoever reads it.
        let is_wanted = number(WATCHDOG_PID).is_none_or(|pid| pid == own);
        let micros = number(WATCHDOG).filter(|micros| is_wanted && *micros > 0);
        let watchdog = micros
            .map(|micros| Watchdog { interval: Duration::from_micros(micros) / 2, next: None });
        Ok(Self { socket: Some(socket), watchdog, untold: None })
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Says that clients are served, at the start or after [`Self::reloading`].
    pub fn ready(&mut self, now: Instant, status: &str) {
        self.say(now, format!("READY=1\nSTATUS={}", line(status)));
        self.show_life(now);
    }

    /// Says that the configuration is being read again. [`Self::ready`] is to follow, whatever came of it.
    pub fn reloading(&mut self, now: Instant) {
        let clock = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(clock.tv_sec) * 1_000_000 + i128::from(clock.tv_nsec) / 1_000;
        self.say(now, format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Says that the end has begun.
    pub fn stopping(&mut self, now: Instant) {
        self.say(now, "STOPPING=1\nSTATUS=answers what it still owes".into());
    }

    /// Says how the service does, in words.
    pub fn status(&mut self, now: Instant, status: &str) {
        self.say(now, format!("STATUS={}", line(status)));
    }

    /// When [`Self::handle_timeout`] is due: never, unless the manager wants signs of life or has not been told all.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let life = self.watchdog.as_ref().and_then(|watchdog| watchdog.next);
        life.into_iter().chain(self.untold.as_ref().map(|(_, at)| *at)).min()
    }

    /// Gives a sign of life if one is due, and says again what could not be said.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some((words, _)) = self.untold.take_if(|(_, at)| *at <= now) {
            self.say(now, words);
        }
        let watchdog = self.watchdog.as_ref();
        if watchdog.is_some_and(|watchdog| watchdog.next.is_some_and(|at| at <= now)) {
            self.show_life(now);
        }
    }

    fn show_life(&mut self, now: Instant) {
        let Some(interval) = self.watchdog.as_ref().map(|watchdog| watchdog.interval) else {
            return;
        };
        let pause = if self.send("WATCHDOG=1") { interval } else { interval.min(RETRY_AFTER) };
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.next = Some(now + pause);
        }
    }

    /// Says it now or, where the manager has no room for it, as soon as there is some, with what could not be said
    /// before: the last value of each variable.
    fn say(&mut self, now: Instant, mut words: String) {
        if let Some((older, _)) = self.untold.take() {
            let name = |line: &str| line.split('=').next().map(String::from);
            let is_said = |line: &&str| words.lines().any(|newer| name(newer) == name(line));
            let older = older.lines().filter(|line| !is_said(line));
            words = older.chain([&*words]).collect::<Vec<_>>().join("\n");
        }
        if !self.send(&words) {
            self.untold = Some((words, now + RETRY_AFTER));
        }
    }

    /// False: there is no room for it.
    fn send(&self, words: &str) -> bool {
        let Some(socket) = &self.socket else { return true };
        match socket.send(words.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                log::debug!("systemd was not told {words:?}: {}", system_error(&error));
                true
            }
            Ok(_) => true,
        }
    }
}

/// A socket that only ever sends there. Landlock lets a socket that is connected go on sending, to a name
/// without a file as well.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::other("neither a path nor an abstract name (@)")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// `text` as one line, as a line feed begins another assignment, and with its end left out if it is long: systemd takes
/// no datagram of more than 4,096 octets, and with it would go what else is in there.
fn line(text: &str) -> String {
    let len = (0..=text.len().min(STATUS_MAX)).rfind(|len| text.is_char_boundary(*len));
    let shown = &text[..len.unwrap_or(0)];
    let end = if shown.len() < text.len() { "..." } else { "" };
    shown.replace(['\n', '\r'], " ") + end
}

/// Octets of a status, at most.
const STATUS_MAX: usize = 2048;

/// The pause before a manager is told again that had no room.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The variable with the address of the manager's socket.
const SOCKET: &str = "NOTIFY_SOCKET";

/// The variable with the microseconds after which a process without a sign of life is taken for dead.
const WATCHDOG: &str = "WATCHDOG_USEC";

/// The variable with the process that is to give such signs.
const WATCHDOG_PID: &str = "WATCHDOG_PID";

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A manager's socket, and the address that it has in the environment.
    fn sockets(name: &str) -> [(UnixDatagram, OsString); 2] {
        let name = format!("dot-proxy-notify-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        std::fs::remove_file(&path).ok();
        let file = UnixDatagram::bind(&path).unwrap();
        let own = SocketAddr::from_abstract_name(&name).unwrap();
        let hidden = UnixDatagram::bind_addr(&own).unwrap();
        [(file, path.into()), (hidden, format!("@{name}").into())]
    }

    fn manager(address: &OsStr, others: &[(&str, &str)]) -> Manager {
        Manager::of(|name| {
            let other = others.iter().find(|(known, _)| *known == name);
            let other = other.map(|(_, value)| value.into());
            if name == SOCKET { Some(address.to_owned()) } else { other }
        })
        .unwrap()
    }

    fn heard(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let mut buffer = [0; 8192];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_is_told_by_either_kind_of_name() {
        let now = Instant::now();
        for (socket, address) in sockets("told") {
            let mut manager = manager(&address, &[]);
            assert!(manager.is_there());
            manager.ready(now, "two\nlines");
            assert_eq!(heard(&socket), "READY=1\nSTATUS=two lines");
            manager.status(now, "one");
            assert_eq!(heard(&socket), "STATUS=one");
            manager.reloading(now);
            let text = heard(&socket);
            let micros = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(micros.parse::<u64>().unwrap() > 0, "{text}");
            manager.stopping(now);
            assert!(heard(&socket).starts_with("STOPPING=1\n"));
            assert_eq!(manager.poll_timeout(), None, "no one wants signs of life");
        }
    }

    /// Such as sixteen upstreams with certificates that are not trusted.
    #[test]
    fn a_long_status_is_cut_and_does_not_take_readiness_with_it() {
        let now = Instant::now();
        let [(socket, address), _] = sockets("long");
        let mut manager = manager(&address, &[]);
        let failure = "192.0.2.1#dot.example: tls: \u{201e}unknown issuer\u{201c}; ".repeat(200);
        for start in ["", "-", "--"] {
            manager.ready(now, &format!("{start}{failure}"));
            let text = heard(&socket);
            let status = text.strip_prefix("READY=1\nSTATUS=").unwrap();
            assert!((2000..=2100).contains(&status.len()) && status.ends_with("..."), "{status}");
        }
        manager.status(now, &"x".repeat(2048));
        assert_eq!(heard(&socket), format!("STATUS={}", "x".repeat(2048)));
    }

    #[test]
    fn signs_of_life_are_given_only_where_they_are_wanted() {
        let now = Instant::now();
        let own = std::process::id().to_string();
        let other = (std::process::id() + 1).to_string();
        let [(socket, address), _] = sockets("alive");
        for (pid, micros, wanted) in [
            (None, "6000000", true),
            (Some(&*own), "6000000", true),
            (Some(&*other), "6000000", false),
            (None, "0", false),
            (None, "soon", false),
        ] {
            let mut given = vec![(WATCHDOG, micros)];
            given.extend(pid.map(|pid| (WATCHDOG_PID, pid)));
            let mut manager = manager(&address, &given);
            assert_eq!(manager.poll_timeout(), None, "before it serves");
            manager.ready(now, "");
            assert_eq!(heard(&socket), "READY=1\nSTATUS=");
            let next = wanted.then(|| now + Duration::from_secs(3));
            assert_eq!(manager.poll_timeout(), next, "{pid:?} {micros}");
            if let Some(at) = next {
                assert_eq!(heard(&socket), "WATCHDOG=1");
                manager.handle_timeout(at.checked_sub(Duration::from_millis(1)).unwrap());
                assert_eq!(manager.poll_timeout(), next, "too early");
                manager.handle_timeout(at);
                assert_eq!(heard(&socket), "WATCHDOG=1");
                assert_eq!(manager.poll_timeout(), Some(at + Duration::from_secs(3)));
            }
        }
    }

    #[test]
    fn nobody_is_told_nothing_and_a_wrong_name_is_an_error() {
        let mut nobody = Manager::of(|_| None).unwrap();
        nobody.ready(Instant::now(), "");
        assert!(!nobody.is_there());
        for (address, expected) in [
            ("/no/such/socket", "NOTIFY_SOCKET=/no/such/socket: no such file"),
            ("vsock:2:1", "NOTIFY_SOCKET=vsock:2:1: neither a path nor an abstract name"),
        ] {
            let problem = Manager::of(|name| (name == SOCKET).then(|| address.into())).unwrap_err();
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    /// A socket without room, who has told it all that it can, and how much it took.
    fn full(name: &str, now: Instant) -> (UnixDatagram, Manager, usize) {
        let [(socket, address), _] = sockets(name);
        let mut manager = manager(&address, &[]);
        let mut told = 0;
        while manager.poll_timeout().is_none() {
            manager.status(now, "fills");
            told += 1;
        }
        (socket, manager, told - 1)
    }

    /// With Type=notify-reload, systemd takes READY=1 alone for an answer to what it asked before, and waits on.
    #[test]
    fn a_manager_without_room_is_told_later_that_a_reload_began_and_ended() {
        let now = Instant::now();
        let (socket, mut manager, filled) = full("reload", now);
        manager.reloading(now);
        manager.ready(now, "first");
        manager.status(now, "second");
        (0..filled).for_each(|_| assert_eq!(heard(&socket), "STATUS=fills"));
        manager.handle_timeout(manager.poll_timeout().unwrap());
        let text = heard(&socket);
        let rest = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&text);
        assert!(rest.ends_with("\nREADY=1\nSTATUS=second"), "{text}");
        assert_eq!(manager.poll_timeout(), None);
    }

    /// A manager that does not listen is not waited for, and is told what counts once it listens.
    #[test]
    fn a_manager_without_room_is_told_later_that_the_service_is_ready() {
        let now = Instant::now();
        let (socket, mut manager, filled) = full("deaf", now);
        manager.ready(now, "first");
        manager.status(now, "second");
        let at = manager.poll_timeout().unwrap();
        assert_eq!(at, now + RETRY_AFTER);
        manager.handle_timeout(at);
        let at = manager.poll_timeout().expect("there is no room yet");
        assert!(at > now + RETRY_AFTER);
        (0..filled).for_each(|_| assert_eq!(heard(&socket), "STATUS=fills"));
        manager.handle_timeout(at);
        assert_eq!(heard(&socket), "READY=1\nSTATUS=second");
        assert_eq!(manager.poll_timeout(), None);
        drop(socket);
        manager.status(now, "gone");
        assert_eq!(manager.poll_timeout(), None, "nobody is there to be told");
    }
}
