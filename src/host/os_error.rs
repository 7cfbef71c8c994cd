//! Errors of the system: in words, and how often each is a warning.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::Level;

/// An error of the system in words, without its number.
pub(crate) fn system_error(error: &io::Error) -> Box<str> {
    match error.kind() {
        ErrorKind::AddrInUse => "address in use".into(),
        ErrorKind::AddrNotAvailable => "address not available".into(),
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::ConnectionReset => "connection reset by peer".into(),
        ErrorKind::HostUnreachable => "host unreachable".into(),
        ErrorKind::NetworkUnreachable => "network unreachable".into(),
        ErrorKind::TimedOut => "timed out".into(),
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            let mut chars = text.chars();
            let mut words = String::with_capacity(text.len());
            words.extend(chars.next().map(|first| first.to_ascii_lowercase()));
            words.push_str(chars.as_str());
            words.into()
        }
    }
}

/// What to do where nothing can be connected to at `address`, for these words of [`system_error`]; `None` if they say
/// nothing that helps.
pub(crate) fn connect_advice(words: &str, address: SocketAddr) -> Option<String> {
    let (ip, port) = (address.ip(), address.port());
    Some(match words {
        "connection refused" => format!(
            "{ip} answers, and nothing listens on port {port} there, or a firewall refuses it: is the server running, and \
             is the port right?"
        ),
        "timed out" => format!(
            "a firewall drops TCP to port {port}, as many do with 853, or the server is down: try it from another network"
        ),
        "network unreachable" | "host unreachable" | "address not available" => {
            let first = if address.is_ipv6() {
                "leave the upstream out where there is no IPv6"
            } else {
                "is it connected to a network?"
            };
            format!("this host has no way there: {first} (`ip route get {ip}` shows the way)")
        }
        _ => return None,
    })
}

/// Kinds of errors that go on, or come again and again: each is a warning once an hour, so that none hides
/// another, and debug otherwise.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    /// At most [`KINDS_MAX`] calls, each with its error and when it was a warning, the latest last.
    kinds: Vec<(&'static str, Option<i32>, Instant)>,
}

impl Logged {
    /// The level at which `error` of `call` is logged now.
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

/// More kinds than a socket has.
const KINDS_MAX: usize = 16;

/// The pause between two warnings of a kind.
const PAUSE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_words_without_numbers() {
        // Numbers of Linux.
        for (number, expected) in [
            (24, "too many open files"),
            (98, "address in use"),
            (101, "network unreachable"),
            (104, "connection reset by peer"),
            (110, "timed out"),
            (111, "connection refused"),
            (113, "host unreachable"),
        ] {
            assert_eq!(&*system_error(&io::Error::from_raw_os_error(number)), expected);
        }
    }

    #[test]
    fn what_to_do_depends_on_the_error() {
        for (words, address, expected) in [
            (
                "connection refused",
                "192.0.2.1:8853",
                "192.0.2.1 answers, and nothing listens on port 8853 there, or",
            ),
            (
                "timed out",
                "192.0.2.1:8853",
                "a firewall drops TCP to port 8853, as many do with 853, or",
            ),
            (
                "network unreachable",
                "[2001:db8::1]:853",
                "this host has no way there: leave the upstream out where there is no IPv6 (`ip route get 2001:db8::1` \
                 shows the way)",
            ),
            ("host unreachable", "192.0.2.1:853", "this host has no way there: is it connected"),
            ("too many open files", "192.0.2.1:853", ""),
        ] {
            let advice = connect_advice(words, address.parse().unwrap()).unwrap_or_default();
            assert!(advice.starts_with(expected), "{words}: {advice}");
            assert_eq!(advice.is_empty(), expected.is_empty(), "{words}: {advice}");
        }
    }

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
    fn kinds_are_bounded() {
        let (mut logged, now) = (Logged::default(), Instant::now());
        for errno in 1..100 {
            logged.level(now, "send", &io::Error::from_raw_os_error(errno));
            assert!(logged.kinds.len() <= KINDS_MAX);
        }
        assert_eq!(logged.level(now, "send", &io::Error::from_raw_os_error(99)), Level::Debug);
    }
}
