//! What was logged already.

use std::io;
use std::time::{Duration, Instant};

use log::Level;

/// Kinds of errors that go on, or come again and again: each is a warning once an hour, so that none hides
/// another, and debug otherwise.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    /// At most [`KINDS_MAX`], the one that was a warning last at the end.
    kinds: Vec<(&'static str, Option<i32>, Instant)>,
}

impl Logged {
    /// The level for `error` of `call`.
    pub(crate) fn level(&mut self, now: Instant, call: &'static str, error: &io::Error) -> Level {
        let errno = error.raw_os_error();
        let known = self.kinds.iter().position(|kind| (kind.0, kind.1) == (call, errno));
        if let Some(index) = known {
            if now < self.kinds[index].2 + PAUSE {
                return Level::Debug;
            }
            self.kinds.remove(index);
        } else if self.kinds.len() == KINDS_MAX {
            self.kinds.remove(0);
        }
        self.kinds.push((call, errno, now));
        Level::Warn
    }
}

/// More than a socket has.
const KINDS_MAX: usize = 16;

const PAUSE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_a_warning_once_an_hour() {
        let (mut logged, start) = (Logged::default(), Instant::now());
        for (minutes, call, errno, expected) in [
            (0, "send", 22, Level::Warn),
            (0, "send", 22, Level::Debug),
            (1, "send", 1, Level::Warn),
            (1, "receive", 1, Level::Warn),
            (59, "send", 22, Level::Debug),
            (60, "send", 22, Level::Warn),
            (60, "send", 1, Level::Debug),
            (61, "send", 1, Level::Warn),
            (119, "send", 22, Level::Debug),
            (120, "send", 22, Level::Warn),
        ] {
            let (now, error) =
                (start + Duration::from_secs(60 * minutes), io::Error::from_raw_os_error(errno));
            assert_eq!(logged.level(now, call, &error), expected, "{minutes} {call} {errno}");
        }
    }

    #[test]
    fn they_are_bounded() {
        let (mut logged, now) = (Logged::default(), Instant::now());
        for errno in 1..100 {
            logged.level(now, "send", &io::Error::from_raw_os_error(errno));
            assert!(logged.kinds.len() <= KINDS_MAX);
        }
        assert_eq!(logged.level(now, "send", &io::Error::from_raw_os_error(99)), Level::Debug);
    }
}
