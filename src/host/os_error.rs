//! Errors of the system, for people.

use std::io::{self, ErrorKind};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_words_without_numbers() {
        // The numbers are those of Linux.
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
}
