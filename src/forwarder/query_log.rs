//! The query log: one line for each response that left.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::message::record::Header;
use super::message::{self, Class, NameDisplay, Rcode, Rtype};

/// Lines that wait for the shell to take them.
#[derive(Debug)]
pub(super) struct QueryLog {
    enabled: bool,
    lines: Vec<u8>,
    lines_max: usize,
}

/// The facts about a query that every line has: its question, and who asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) message: &'a [u8],
    pub(super) question_end: usize,
    pub(super) client: IpAddr,
    pub(super) over_tcp: bool,
}

/// The facts about a response that a line has, as it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Octets of the response; 0 if its client was gone.
    pub(super) len: usize,
    /// Records in the answer section.
    pub(super) answers: u16,
    /// Whether TC is set, here or by the upstream.
    pub(super) truncated: bool,
}

impl Sent {
    pub(super) fn of(response: &[u8]) -> Self {
        let header = Header::read(response);
        Self {
            len: response.len(),
            answers: header.as_ref().map_or(0, |header| header.ancount),
            truncated: header.is_some_and(|header| header.flags & message::TC != 0),
        }
    }
}

impl QueryLog {
    /// A log of so many octets of lines at most; lines beyond them are left out.
    pub(super) fn new(enabled: bool, lines_max: usize) -> Self {
        Self { enabled, lines: Vec::new(), lines_max }
    }

    /// Whether there are more lines from now on.
    pub(super) fn enable(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(super) fn lines(&self) -> &[u8] {
        &self.lines
    }

    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.lines.shrink_to(LINES_KEPT);
    }

    /// Writes that an upstream's response was delivered.
    pub(super) fn success(
        &mut self,
        asked: Asked<'_>,
        rcode: Rcode,
        sent: Sent,
        took: Duration,
        upstream: &str,
    ) {
        self.line("SUCCESS", asked, |lines| {
            let Sent { len, answers, truncated } = sent;
            let plural = if answers == 1 { "" } else { "s" };
            let took = took.as_millis();
            write_rcode(lines, rcode, truncated)?;
            write!(lines, "{answers} answer{plural} {len} B {took} ms ")?;
            write_client(lines, asked)?;
            writeln!(lines, " via {upstream}")
        });
    }

    /// Writes that a SERVFAIL made here was delivered, because of `cause`.
    pub(super) fn failure(&mut self, asked: Asked<'_>, took: Duration, cause: &str) {
        self.line("FAILURE", asked, |lines| {
            write!(lines, "SERVFAIL {} ms ", took.as_millis())?;
            write_client(lines, asked)?;
            writeln!(lines, ": {cause}")
        });
    }

    /// Writes that another response made here was delivered, and why.
    pub(super) fn local(&mut self, asked: Asked<'_>, rcode: Rcode, truncated: bool, why: &str) {
        self.line("LOCAL", asked, |lines| {
            write_rcode(lines, rcode, truncated)?;
            write_client(lines, asked)?;
            writeln!(lines, ": {why}")
        });
    }

    fn line(
        &mut self,
        kind: &str,
        asked: Asked<'_>,
        write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>,
    ) {
        if !self.is_enabled() || self.lines.len() + LINE_MAX > self.lines_max {
            return;
        }
        if self.lines.len() + LINE_MAX > self.lines.capacity() {
            let doubled = (2 * self.lines.capacity()).max(LINES_KEPT).min(self.lines_max);
            self.lines.reserve_exact(doubled - self.lines.len());
        }
        let start = self.lines.len();
        let written =
            write_question(&mut self.lines, kind, asked).and_then(|()| write(&mut self.lines));
        debug_assert!(written.is_ok(), "writing to memory does not fail");
        debug_assert!(self.lines.len() - start <= LINE_MAX);
    }
}

fn write_rcode(lines: &mut Vec<u8>, rcode: Rcode, truncated: bool) -> std::io::Result<()> {
    write!(lines, "{rcode} {}", if truncated { "truncated " } else { "" })
}

fn write_client(lines: &mut Vec<u8>, asked: Asked<'_>) -> std::io::Result<()> {
    let transport = if asked.over_tcp { "tcp" } else { "udp" };
    write!(lines, "{transport} {}", asked.client)
}

fn write_question(lines: &mut Vec<u8>, kind: &str, asked: Asked<'_>) -> std::io::Result<()> {
    let question = asked.message.get(message::HEADER_LEN..asked.question_end).unwrap_or_default();
    let Some((name, &[t0, t1, c0, c1])) = question.split_last_chunk() else {
        // Nothing of the question could be read.
        return write!(lines, "{kind} ? ");
    };
    write!(lines, "{kind} {} ", NameDisplay(name))?;
    let class = Class(u16::from_be_bytes([c0, c1]));
    if class != Class::IN {
        write!(lines, "{class} ")?;
    }
    write!(lines, "{} ", Rtype(u16::from_be_bytes([t0, t1])))
}

/// Memory kept between turns.
const LINES_KEPT: usize = 16 * 1024;

/// Octets of one line at most: a name takes four times its 255 octets if none of them can be shown, and the
/// reason for a failure has the upstream's name, of 253 octets, and a few words.
pub(super) const LINE_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_line_says_what_was_asked_and_how_it_ended() {
        let mut log = QueryLog::new(true, 1 << 16);
        let message = query(b"\x06google\x03com\0\0\x01\0\x01");
        let asked = asked(&message);
        let one = Sent { len: 55, answers: 1, truncated: false };
        let took = Duration::from_millis(59);
        log.success(asked, Rcode::NOERROR, one, took, "1.1.1.1#cloudflare-dns.com");
        let none = Sent { len: 40, answers: 0, truncated: false };
        log.success(asked, Rcode::NXDOMAIN, none, Duration::from_micros(999), "up");
        let cut = Sent { len: 500, answers: 29, truncated: true };
        log.success(asked, Rcode::NOERROR, cut, took, "up");
        log.failure(asked, Duration::from_millis(4500), "1.1.1.1#x: connect timed out");
        log.local(Asked { over_tcp: true, ..asked }, Rcode::REFUSED, false, "zone transfer");
        log.local(asked, Rcode::NOERROR, true, "too long a query");
        log.local(asked, Rcode::NOERROR, false, "private address via up");
        assert_eq!(
            text(&log),
            "SUCCESS google.com. A NOERROR 1 answer 55 B 59 ms udp 172.17.0.1 via \
             1.1.1.1#cloudflare-dns.com\n\
             SUCCESS google.com. A NXDOMAIN 0 answers 40 B 0 ms udp 172.17.0.1 via up\n\
             SUCCESS google.com. A NOERROR truncated 29 answers 500 B 59 ms udp 172.17.0.1 via up\n\
             FAILURE google.com. A SERVFAIL 4500 ms udp 172.17.0.1: 1.1.1.1#x: connect timed out\n\
             LOCAL google.com. A REFUSED tcp 172.17.0.1: zone transfer\n\
             LOCAL google.com. A NOERROR truncated udp 172.17.0.1: too long a query\n\
             LOCAL google.com. A NOERROR udp 172.17.0.1: private address via up\n"
        );
        log.clear();
        assert_eq!(text(&log), "");
    }

    #[test]
    fn another_class_and_control_octets_are_shown() {
        let mut log = QueryLog::new(true, 1 << 16);
        let message = query(b"\x07version\x04bi\x1b\n\0\0\x10\0\x03");
        log.local(asked(&message), Rcode::NOERROR, false, "x");
        assert_eq!(text(&log), "LOCAL version.bi\\027\\010. CH TXT NOERROR udp 172.17.0.1: x\n");
    }

    #[test]
    fn a_question_that_could_not_be_read_is_a_question_mark() {
        let mut log = QueryLog::new(true, 1 << 16);
        log.local(Asked { question_end: 12, ..asked(&query(b"\xff")) }, Rcode::FORMERR, false, "x");
        assert_eq!(text(&log), "LOCAL ? FORMERR udp 172.17.0.1: x\n");
    }

    #[test]
    fn nothing_is_written_when_it_is_off() {
        let mut log = QueryLog::new(false, 1 << 16);
        log.local(asked(&query(b"\0\0\x01\0\x01")), Rcode::FORMERR, false, "x");
        assert_eq!(text(&log), "");
    }

    fn query(question: &[u8]) -> Vec<u8> {
        [&[0; message::HEADER_LEN], question].concat()
    }

    fn asked(message: &[u8]) -> Asked<'_> {
        Asked {
            message,
            question_end: message.len(),
            client: Ipv4Addr::new(172, 17, 0, 1).into(),
            over_tcp: false,
        }
    }

    fn text(log: &QueryLog) -> &str {
        std::str::from_utf8(log.lines()).unwrap()
    }
}
