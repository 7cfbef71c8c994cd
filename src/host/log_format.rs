//! How the lines of the log are written: for people, for collectors, for systemd's journal.

use std::fmt::{self, Display, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use log::Level;
use rustix::fs::fstat;

use super::process::time_of_day;

/// The form of the lines on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Level, module, text.
    #[default]
    Plain,
    /// A JSON object on each line, with the time.
    Json,
    /// The plain form behind the priority that systemd reads, `<4>` for a warning (sd-daemon(3)).
    Journald,
}

impl LogFormat {
    /// A record as a line with its line feed.
    pub(super) fn record(self, level: Level, target: &str, text: &dyn Display) -> String {
        match self {
            Self::Plain => format!("{level:<5} [{target}] {text}\n"),
            Self::Json => object(level, target, text),
            Self::Journald => format!("<{}>{level:<5} [{target}] {text}\n", priority(level)),
        }
    }

    /// Something that is said beside the log, as a line with its line feed.
    pub(super) fn remark(self, level: Level, text: &dyn Display) -> String {
        match self {
            Self::Plain => format!("{text}\n"),
            Self::Json => object(level, env!("CARGO_CRATE_NAME"), text),
            Self::Journald => format!("<{}>{text}\n", priority(level)),
        }
    }
}

/// Whether `fd` is the stream to the journal that systemd names in `JOURNAL_STREAM`: the value is the device
/// and the inode, and outlives a redirection to elsewhere.
pub fn is_journal(stream: Option<&str>, fd: impl AsFd) -> bool {
    let named = stream.and_then(|stream| stream.split_once(':'));
    let named = named.and_then(|(dev, inode)| Some((dev.parse().ok()?, inode.parse().ok()?)));
    let own = fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino));
    named.is_some() && named == own
}

/// As syslog(3) numbers them.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn object(level: Level, target: &str, text: &dyn Display) -> String {
    let (level, text) = (level.as_str().to_ascii_lowercase(), text.to_string());
    format!(
        "{{\"time\":\"{}\",\"level\":\"{level}\",\"target\":{},\"message\":{}}}\n",
        Rfc3339::now(),
        Quoted(target),
        Quoted(&text)
    )
}

/// A text as a string of JSON (RFC 8259 section 7).
pub struct Quoted<'a>(pub &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}"),
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c)),
                c => f.write_char(c),
            }?;
        }
        f.write_char('"')
    }
}

/// A time since 1970 in UTC, to the millisecond (RFC 3339).
pub struct Rfc3339(pub Duration);

impl Rfc3339 {
    /// As the system clock has it.
    pub(super) fn now() -> Self {
        Self(time_of_day())
    }
}

impl Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0.as_secs() / 86_400, self.0.as_secs() % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute) = (second / 3600, second / 60 % 60);
        let (second, milli) = (second % 60, self.0.subsec_millis());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

/// A time since 1970 as HTTP has it (RFC 9110 section 5.6.7).
pub(crate) struct HttpDate(pub(crate) Duration);

impl Display for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

        let (days, second) = (self.0.as_secs() / 86_400, self.0.as_secs() % 86_400);
        let (year, month, day) = date(days);
        let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[(month - 1) as usize % 12]);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }
}

/// The date so many days after the first of January 1970.
fn date(days: u64) -> (u64, u64, u64) {
    // Years that begin in March have the leap day at their end; 400 of them have a fixed length.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / (DAYS_OF_400_YEARS - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = 400 * era + year;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

const DAYS_OF_400_YEARS: u64 = 146_097;

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn each_form_says_what_its_reader_wants() {
        let line = |format: LogFormat| format.record(Level::Warn, "dot_proxy::tls", &"a \"b\"");
        assert_eq!(line(LogFormat::Plain), "WARN  [dot_proxy::tls] a \"b\"\n");
        assert_eq!(line(LogFormat::Journald), "<4>WARN  [dot_proxy::tls] a \"b\"\n");
        let object = line(LogFormat::Json);
        let (time, rest) = object.strip_prefix("{\"time\":\"").unwrap().split_once('"').unwrap();
        assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert_eq!(
            rest,
            ",\"level\":\"warn\",\"target\":\"dot_proxy::tls\",\"message\":\"a \\\"b\\\"\"}\n"
        );
        assert_eq!(LogFormat::Plain.remark(Level::Error, &"x"), "x\n");
        assert_eq!(LogFormat::Journald.remark(Level::Error, &"x"), "<3>x\n");
        assert!(LogFormat::Json.remark(Level::Error, &"x").contains(",\"message\":\"x\"}"));
    }

    #[test]
    fn nothing_in_a_text_ends_its_string() {
        for (text, expected) in [
            ("", r#""""#),
            ("a\\\"b", r#""a\\\"b""#),
            ("a\nb\u{7f}\u{0}", r#""a\u000ab\u007f\u0000""#),
            ("größer", r#""größer""#),
        ] {
            assert_eq!(Quoted(text).to_string(), expected);
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        // As `date --utc --date=@SECONDS` has them.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_709_251_200, "2024-03-01T00:00:00.007Z"),
            (1_798_761_599, "2026-12-31T23:59:59.007Z"),
            (1_798_761_600, "2027-01-01T00:00:00.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(Rfc3339(Duration::new(seconds, 7_000_000)).to_string(), expected);
        }
    }

    #[test]
    fn http_has_days_of_the_week() {
        // As `date --utc --date=@SECONDS '+%a, %d %b %Y %H:%M:%S GMT'` has them.
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_709_210_096, "Thu, 29 Feb 2024 12:34:56 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
        ] {
            assert_eq!(HttpDate(Duration::from_secs(seconds)).to_string(), expected);
        }
    }

    #[test]
    fn the_journal_is_known_by_its_stream() {
        let (_reader, writer) = io::pipe().unwrap();
        let stat = fstat(&writer).unwrap();
        let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_journal(Some(&stream), &writer));
        let (_reader, other) = io::pipe().unwrap();
        assert!(!is_journal(Some(&stream), &other), "redirected since");
        for stream in [None, Some(""), Some("1"), Some("a:b")] {
            assert!(!is_journal(stream, &writer), "{stream:?}");
        }
    }
}
