//! The signals that end the program, as a fact for the reactor.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use signal_hook::consts::signal::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook_mio::v1_0::Signals;

/// SIGTERM and SIGINT. The first is told to the reactor, so that what is owed can be answered; the
/// second ends the process in its handler, even if the loop is stuck.
///
/// SIGPIPE stays ignored, as the Rust runtime leaves it: a closed peer is an error of the write.
pub struct Termination {
    signals: Signals,
}

impl Termination {
    /// Takes both signals over, for the whole process.
    pub fn new() -> io::Result<Self> {
        let told = Arc::new(AtomicBool::new(false));
        for signal in ENDING {
            // Actions run in the order of registration: with the flag set first, the first signal
            // would end the process.
            flag::register_conditional_shutdown(signal, EXIT_CODE_AT_ONCE, Arc::clone(&told))?;
            flag::register(signal, Arc::clone(&told))?;
        }
        Ok(Self { signals: Signals::new(ENDING)? })
    }

    /// Whether a signal came since the last call.
    pub fn take(&mut self) -> bool {
        self.signals.pending().count() > 0
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

const ENDING: [i32; 2] = [SIGTERM, SIGINT];

/// Not 0: whoever sends a second signal gave up on queries that are still owed an answer.
const EXIT_CODE_AT_ONCE: i32 = 1;

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::Duration;

    use mio::{Events, Poll};
    use signal_hook::low_level::raise;

    use super::*;

    /// The second signal ends its process, so the test runs itself again in one of its own.
    #[test]
    fn the_first_signal_is_told_and_the_second_ends_the_process() {
        if std::env::var_os(ALONE).is_some() {
            be_told_to_end_twice();
        }

        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", SELF])
            .env(ALONE, "")
            .output()
            .unwrap();

        assert_eq!(output.status.signal(), None, "a signal was not taken over");
        assert_eq!(output.status.code(), Some(EXIT_CODE_AT_ONCE));
    }

    fn be_told_to_end_twice() -> ! {
        let mut termination = Termination::new().unwrap();
        let mut poll = Poll::new().unwrap();
        poll.registry().register(&mut termination, Token(0), Interest::READABLE).unwrap();
        let early = termination.take();

        raise(SIGTERM).unwrap();

        let mut events = Events::with_capacity(1);
        poll.poll(&mut events, Some(Duration::from_secs(30))).unwrap();
        if early || events.is_empty() || !termination.take() || termination.take() {
            std::process::exit(101);
        }
        raise(SIGINT).unwrap();
        std::process::exit(102);
    }

    const SELF: &str = "signals::tests::the_first_signal_is_told_and_the_second_ends_the_process";
    const ALONE: &str = "DOT_PROXY_TEST_SIGNALS_ALONE";
}
