//! Signals that end the program, as an event for the reactor, and signals that must not end it.

use std::fs;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::{Interest, Registry, Token};
use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook_mio::v1_0::Signals;

/// Keeps signals from ending or stopping the program whose senders mean something else. To be called
/// first of all, as a log may be at its limit from the start.
///
/// SIGHUP and SIGUSR1 wait until [`Termination::new`] takes them. SIGUSR2 is sent by habit to have a log opened
/// again. SIGXFSZ comes with the error EFBIG of a write to a file of the greatest
/// length allowed, which stderr survives. SIGTTOU would stop a background job that writes to a terminal
/// with `stty tostop`. SIGPIPE is ignored by the Rust runtime. All others that end a program by default,
/// such as SIGQUIT, SIGALRM and SIGXCPU, are left to do so, as that is what they are sent for.
pub fn block_harmless() -> io::Result<()> {
    let set = SigSet::from_iter(HARMLESS);
    Ok(set.thread_block()?)
}

/// The end of the program by SIGTERM and SIGINT, and by SIGHUP if it means that the terminal was closed. The
/// first signal is an event of the reactor, so that what is owed can be answered. Another SIGTERM or SIGINT ends the process, but the same
/// signal within a second is the same request: GNU timeout sends its signal to the process and to its
/// group, and a terminal's Ctrl-C comes again from a program such as sudo that passes it on. SIGHUP is
/// never the other one, as systemd sends it right after SIGTERM.
pub struct Termination {
    signals: Signals,
    /// Whether the next SIGTERM, and the next SIGINT, ends the process in its handler.
    ends_at_once: [Arc<AtomicBool>; 2],
    hangup: Hangup,
    /// SIGHUP asks to read the files again.
    reload: Asking,
    /// SIGUSR1 asks how the service does.
    summary: Asking,
    /// When the same signal, sent again, is another request.
    repeat_at: Option<Instant>,
    drain: Drain,
}

/// A signal that asks for something, which is done ten times a second at most. The kernel keeps one that comes in
/// between, so that a flood of them does not even wake the loop.
#[derive(Clone, Copy, Debug)]
struct Asking {
    signal: Signal,
    /// It came, and nothing was done.
    is_asked: bool,
    pause: Option<Pause>,
}

/// After what a signal asked for was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// It was done in the turn of this time, however long that took.
    Begins(Instant),
    Until(Instant),
}

impl Asking {
    fn new(signal: Signal) -> Self {
        Self { signal, is_asked: false, pause: None }
    }

    /// Whether it is to be done now.
    fn take(&mut self, now: Instant) -> bool {
        let is_due = self.is_asked && self.pause.is_none();
        if is_due {
            (self.is_asked, self.pause) = (false, Some(Pause::Begins(now)));
            self.keep(true);
        }
        is_due
    }

    /// Begins the pause in the first turn after the work, and ends it.
    fn handle_timeout(&mut self, now: Instant) {
        match self.pause {
            Some(Pause::Begins(_)) => self.pause = Some(Pause::Until(now + ASKING_PAUSE)),
            Some(Pause::Until(at)) if at <= now => {
                self.pause = None;
                self.keep(false);
            }
            Some(Pause::Until(_)) | None => {}
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.pause.map(|(Pause::Begins(at) | Pause::Until(at))| at)
    }

    /// Has the kernel keep the signal from now on, or hand it over. Neither is known to fail, and what is asked for is
    /// not forgotten then.
    fn keep(&self, is_kept: bool) {
        let signal = SigSet::from(self.signal);
        if is_kept { signal.thread_block() } else { signal.thread_unblock() }.ok();
    }
}

/// Whether service goes on for some time after SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    Never,
    /// It does once SIGTERM comes.
    Wanted,
    UnderWay,
}

/// What signals ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The end, after service has gone on for some time.
    Drain,
    /// The end, once what is owed is answered.
    End,
}

impl Termination {
    /// Takes the signals over, for the whole process, even if they were blocked when it was started.
    pub fn new() -> io::Result<Self> {
        let ends_at_once = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        for (index, signal) in ENDING.into_iter().enumerate() {
            let (this, other) = (&ends_at_once[index], &ends_at_once[1 - index]);
            flag::register_conditional_shutdown(signal, EXIT_CODE_AT_ONCE, Arc::clone(this))?;
            flag::register(signal, Arc::clone(other))?;
        }
        let signals = Signals::new(ENDING)?;
        signals.add_signal(SIGUSR1)?;
        let mut unblocked = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1]);
        let has_terminal = io::stdin().is_terminal() || io::stderr().is_terminal();
        let hangup = Hangup::of(is_ignored(SIGHUP), has_terminal);
        if hangup != Hangup::Nothing {
            signals.add_signal(SIGHUP)?;
            unblocked.add(Signal::SIGHUP);
        }
        unblocked.thread_unblock()?;
        let (reload, summary) = (Asking::new(Signal::SIGHUP), Asking::new(Signal::SIGUSR1));
        let (repeat_at, drain) = (None, Drain::Never);
        Ok(Self { signals, ends_at_once, hangup, reload, summary, repeat_at, drain })
    }

    /// Whether service is to go on after SIGTERM until [`Self::end_drain`]. A second SIGTERM, a second after the
    /// first, and SIGINT end that earlier.
    pub fn drains(&mut self, drains: bool) {
        self.drain = if drains { Drain::Wanted } else { Drain::Never };
    }

    /// Service has gone on for long enough after SIGTERM.
    pub fn end_drain(&mut self) {
        self.drain = Drain::Never;
    }

    /// What the signals ask for that came since the last call.
    pub fn take(&mut self, now: Instant) -> Option<Request> {
        let mut came: Vec<i32> = self.signals.pending().collect();
        if self.hangup == Hangup::Reloads {
            self.reload.is_asked |= came.contains(&SIGHUP);
            came.retain(|signal| *signal != SIGHUP);
        }
        self.summary.is_asked |= came.contains(&SIGUSR1);
        came.retain(|signal| *signal != SIGUSR1);
        let is_other = came.iter().any(|signal| *signal != SIGTERM);
        match (self.drain, self.repeat_at) {
            _ if came.is_empty() => return None,
            (Drain::Wanted, None) if !is_other => {
                self.drain = Drain::UnderWay;
                self.repeat_at = Some(now + SAME_REQUEST);
                self.arm(false);
                return Some(Request::Drain);
            }
            (Drain::UnderWay, Some(repeat_at)) => {
                let is_repeated = came.contains(&SIGTERM) && repeat_at <= now;
                if !is_repeated && !came.contains(&SIGINT) {
                    self.arm(false);
                    return None;
                }
            }
            (_, None) => {}
            (_, Some(_)) => return None,
        }
        self.drain = Drain::Never;
        self.repeat_at = Some(now + SAME_REQUEST);
        Some(Request::End)
    }

    /// Has any further signal end the process, or none.
    fn arm(&self, is_armed: bool) {
        for flag in &self.ends_at_once {
            flag.store(is_armed, Ordering::Relaxed);
        }
    }

    /// Whether the files are to be read again now, as SIGHUP asked, of which [`Self::take`] took note.
    pub fn take_reload(&mut self, now: Instant) -> bool {
        self.reload.take(now)
    }

    /// Whether it is to be said now how the service does, as SIGUSR1 asked, of which [`Self::take`] took note.
    pub fn take_summary(&mut self, now: Instant) -> bool {
        self.summary.take(now)
    }

    /// Whether SIGHUP asks to read the files again.
    pub fn may_reload(&self) -> bool {
        self.hangup == Hangup::Reloads
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = [self.arm_at(), self.reload.poll_timeout(), self.summary.poll_timeout()];
        due.into_iter().flatten().min()
    }

    fn arm_at(&self) -> Option<Instant> {
        let is_armed = self.ends_at_once.iter().all(|flag| flag.load(Ordering::Relaxed));
        self.repeat_at.filter(|_| !is_armed && self.drain != Drain::UnderWay)
    }

    /// Has any further signal end the process, even if the loop is stuck, from a second after the first on. To be
    /// called in each turn before what is asked for is taken.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.reload.handle_timeout(now);
        self.summary.handle_timeout(now);
        if self.arm_at().is_some_and(|at| at <= now) {
            self.arm(true);
        }
    }
}

impl Source for Termination {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.signals.register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.signals.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.signals.deregister(registry)
    }
}

/// What SIGHUP asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hangup {
    /// The end: the terminal was closed.
    Ends,
    /// That the files are read again, as of any program without a terminal.
    Reloads,
    /// Nothing: whoever started the program at a terminal had it ignored (nohup).
    Nothing,
}

impl Hangup {
    fn of(is_ignored: bool, has_terminal: bool) -> Self {
        match (has_terminal, is_ignored) {
            (true, false) => Self::Ends,
            (true, true) => Self::Nothing,
            (false, _) => Self::Reloads,
        }
    }
}

/// Whether the process ignores `signal`, as far as the system tells.
fn is_ignored(signal: i32) -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status, signal))
}

/// Whether `signal` is in the mask of ignored signals of a `/proc/PID/status`.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Signals that end the program whatever it was started from.
const ENDING: [i32; 2] = [SIGTERM, SIGINT];

/// Signals whose senders do not mean the end.
const HARMLESS: [Signal; 5] =
    [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGXFSZ, Signal::SIGTTOU];

/// How soon the same signal is the same request. Two that are sent as one come within milliseconds, even on
/// a busy machine; whoever loses patience needs longer.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// From the end of something that signals ask for to when it may be done again.
const ASKING_PAUSE: Duration = Duration::from_millis(100);

/// The exit code after a second signal. It is not 0: whoever sends another signal gave up on queries that are still owed an answer.
const EXIT_CODE_AT_ONCE: i32 = 1;

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use mio::{Events, Poll};
    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    fn another_kind_ends_the_process() {
        let name = "another_kind_ends_the_process";
        assert_ends_at_once(name, Request::End, |_, _| raise(SIGINT).unwrap());
    }

    #[test]
    fn the_same_ends_the_process_after_a_second_only() {
        let name = "the_same_ends_the_process_after_a_second_only";
        assert_ends_at_once(name, Request::End, |termination, now| {
            raise(SIGTERM).unwrap();
            let at = termination.poll_timeout().unwrap();
            assert_eq!(at, now + Duration::from_secs(1));
            termination.handle_timeout(now);
            raise(SIGTERM).unwrap();
            assert_eq!(termination.take(now), None, "taken once");
            termination.handle_timeout(at);
            assert_eq!(termination.poll_timeout(), None);
            raise(SIGTERM).unwrap();
        });
    }

    #[test]
    fn service_goes_on_until_sigterm_comes_again_and_the_next_ends_the_process() {
        let name = "service_goes_on_until_sigterm_comes_again_and_the_next_ends_the_process";
        assert_ends_at_once(name, Request::Drain, |termination, now| {
            let later = now + SAME_REQUEST;
            assert_eq!(termination.poll_timeout(), None);
            raise(SIGTERM).unwrap();
            assert_eq!(termination.take(now), None, "it is the same request");
            termination.handle_timeout(later);
            raise(SIGTERM).unwrap();
            assert_eq!(termination.take(later), Some(Request::End));
            raise(SIGTERM).unwrap();
            assert_eq!(termination.take(later), None, "it is the same request");
            termination.handle_timeout(later + SAME_REQUEST);
            raise(SIGTERM).unwrap();
        });
    }

    #[test]
    fn sigint_ends_the_service_that_goes_on_and_another_kind_the_process() {
        let name = "sigint_ends_the_service_that_goes_on_and_another_kind_the_process";
        assert_ends_at_once(name, Request::Drain, |termination, now| {
            raise(SIGINT).unwrap();
            assert_eq!(termination.take(now), Some(Request::End));
            raise(SIGTERM).unwrap();
        });
    }

    #[test]
    fn once_service_has_gone_on_for_its_time_another_signal_ends_the_process() {
        let name = "once_service_has_gone_on_for_its_time_another_signal_ends_the_process";
        assert_ends_at_once(name, Request::Drain, |termination, now| {
            termination.end_drain();
            termination.handle_timeout(now + SAME_REQUEST);
            raise(SIGTERM).unwrap();
        });
    }

    /// The process ends in `then`, which is called after the first SIGTERM was taken. So the test of this
    /// name runs itself again in a process of its own.
    fn assert_ends_at_once(name: &str, first: Request, then: fn(&mut Termination, Instant)) {
        const ALONE: &str = "DOT_PROXY_TEST_SIGNALS_ALONE";

        if std::env::var_os(ALONE).is_some() {
            let mut termination = Termination::new().unwrap();
            termination.drains(first == Request::Drain);
            let mut poll = Poll::new().unwrap();
            poll.registry().register(&mut termination, Token(0), Interest::READABLE).unwrap();
            let now = Instant::now();
            assert_eq!(termination.take(now), None);
            raise(SIGTERM).unwrap();
            let mut events = Events::with_capacity(1);
            poll.poll(&mut events, Some(Duration::from_secs(30))).unwrap();
            assert!(!events.is_empty());
            assert_eq!(termination.take(now), Some(first));
            then(&mut termination, now);
            panic!("the process goes on");
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("host::signals::tests::{name}")])
            .env(ALONE, "")
            .output()
            .unwrap();
        assert_eq!(output.status.signal(), None, "a signal was not taken over");
        assert_eq!(output.status.code(), Some(EXIT_CODE_AT_ONCE), "{output:?}");
    }

    #[test]
    fn what_many_signals_ask_for_is_done_ten_times_a_second_and_not_forgotten() {
        // The work takes so long, in milliseconds, and is done at these times.
        for (work, expected) in [(0, [0, 100, 200, 300]), (150, [0, 250, 500, 750])] {
            let start = Instant::now();
            let mut asking = Asking::new(Signal::SIGUSR1);
            let (mut done, mut milliseconds) = (Vec::new(), 0);
            while milliseconds < 2_000 {
                // As one does that came before the kernel was told to keep it.
                asking.is_asked |= milliseconds <= expected[2] + work;
                let now = start + Duration::from_millis(milliseconds);
                // Not later than the loop wakes up for it.
                let is_due = asking.poll_timeout().is_none_or(|at| at <= now);
                asking.handle_timeout(now);
                if asking.take(now) {
                    assert!(is_due);
                    done.push(milliseconds);
                    // The turn after it comes at once.
                    assert_eq!(asking.poll_timeout(), Some(now));
                    milliseconds += work;
                } else {
                    milliseconds += 1;
                }
                let is_kept = SigSet::thread_get_mask().unwrap().contains(Signal::SIGUSR1);
                assert_eq!(is_kept, asking.pause.is_some(), "{milliseconds}");
            }
            assert_eq!((done, asking.pause), (expected.to_vec(), None));
        }
    }

    #[test]
    fn a_hangup_ends_what_was_at_a_terminal_unless_ignored() {
        for (is_ignored, has_terminal, expected) in [
            (false, false, Hangup::Reloads),
            (false, true, Hangup::Ends),
            (true, false, Hangup::Reloads),
            (true, true, Hangup::Nothing),
        ] {
            assert_eq!(Hangup::of(is_ignored, has_terminal), expected);
        }
    }

    #[test]
    fn ignored_signals_are_found_in_the_status_of_a_process() {
        for (status, ignored) in [
            ("SigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n", false),
            ("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0\n", true),
            ("SigIgn:\tffffffffffffffff\n", true),
            ("SigIgn:\t\n", false),
            ("", false),
        ] {
            assert_eq!(ignores(status, SIGHUP), ignored, "{status:?}");
        }
        assert!(is_ignored(13), "the Rust runtime ignores SIGPIPE");
    }
}
