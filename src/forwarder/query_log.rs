//! The query log: one line for each response that left.

use std::fmt::{self, Display, Write as _};
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::Prefix;
use super::message::opt::start_of;
use super::message::record::Header;
use super::message::{self, Class, NameDisplay, Rcode, Rtype};

/// How lines of the query log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryLogStyle {
    /// Their form.
    pub form: QueryLogForm,
    /// How much of a client's address they show.
    pub client: ClientShown,
}

/// The form of lines of the query log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryLogForm {
    /// Words with a space between them.
    #[default]
    Words,
    /// Words in columns, for a terminal.
    Columns {
        /// The first is in a colour.
        coloured: bool,
    },
    /// A JSON object each, of which the shell adds the time.
    Json,
}

/// How much of a client's address a line of the query log shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientShown {
    /// The address.
    #[default]
    Full,
    /// Its first bits, 24 of IPv4 and 56 of IPv6, as RFC 7871 section 11.1 advises for what others are to see of a
    /// client.
    Prefix,
    /// Nothing.
    Off,
}

/// Lines that wait for the shell to take them.
#[derive(Debug)]
pub(super) struct QueryLog {
    style: Option<QueryLogStyle>,
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

impl Asked<'_> {
    /// The name, in the form of messages, the class and the type; `None` if they could not be read.
    fn question(&self) -> Option<(&[u8], Class, Rtype)> {
        let question = self.message.get(message::HEADER_LEN..self.question_end)?;
        let (name, &[t0, t1, c0, c1]) = question.split_last_chunk()?;
        let [class, rtype] = [[c0, c1], [t0, t1]].map(u16::from_be_bytes);
        Some((name, Class(class), Rtype(rtype)))
    }

    fn transport(&self) -> &'static str {
        if self.over_tcp { "tcp" } else { "udp" }
    }
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

/// What a line says.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    /// The first word.
    result: &'static str,
    asked: Asked<'a>,
    rcode: Rcode,
    truncated: bool,
    /// Answer records and octets, of an upstream's response.
    answer: Option<(u16, usize)>,
    took: Option<Duration>,
    /// Why it was answered here; empty of an upstream's response.
    reason: &'a str,
    /// Who answered, if an upstream did.
    upstream: &'a str,
}

impl QueryLog {
    /// A log of so many octets of lines at most; lines beyond them are left out.
    pub(super) fn new(style: Option<QueryLogStyle>, lines_max: usize) -> Self {
        Self { style, lines: Vec::new(), lines_max }
    }

    /// How lines are written from now on, if there are any.
    pub(super) fn restyle(&mut self, style: Option<QueryLogStyle>) {
        self.style = style;
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.style.is_some()
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
        self.write(&Line {
            result: "SUCCESS",
            asked,
            rcode,
            truncated: sent.truncated,
            answer: Some((sent.answers, sent.len)),
            took: Some(took),
            reason: "",
            upstream,
        });
    }

    /// Writes that a SERVFAIL made here was delivered, because of `cause`.
    pub(super) fn failure(&mut self, asked: Asked<'_>, took: Duration, cause: &str) {
        let local = Line::local(asked, Rcode::SERVFAIL, false);
        let [reason, _] = start_of(cause, REASON_MAX);
        self.write(&Line { result: "FAILURE", took: Some(took), reason, ..local });
    }

    /// Writes that another response made here was delivered, and why.
    pub(super) fn local(&mut self, asked: Asked<'_>, rcode: Rcode, truncated: bool, why: &str) {
        self.instead(asked, rcode, truncated, why, "");
    }

    /// Writes that a response made here was delivered in the place of that of `upstream`, and why.
    pub(super) fn instead(
        &mut self,
        asked: Asked<'_>,
        rcode: Rcode,
        truncated: bool,
        why: &str,
        upstream: &str,
    ) {
        self.write(&Line { reason: why, upstream, ..Line::local(asked, rcode, truncated) });
    }

    fn write(&mut self, line: &Line<'_>) {
        let Some(QueryLogStyle { form, client }) = self.style else { return };
        let len_max = line.len_max();
        debug_assert!(len_max <= LINE_MAX, "{line:?}");
        if self.lines.len() + len_max > self.lines_max {
            return;
        }
        if self.lines.len() + len_max > self.lines.capacity() {
            let doubled = (2 * self.lines.capacity()).max(LINES_KEPT).min(self.lines_max);
            self.lines.reserve_exact(doubled.max(self.lines.len() + len_max) - self.lines.len());
        }
        let start = self.lines.len();
        let written = match form {
            QueryLogForm::Words => line.words(&mut self.lines, client),
            QueryLogForm::Columns { coloured } => line.columns(&mut self.lines, client, coloured),
            QueryLogForm::Json => line.json(&mut self.lines, client),
        };
        debug_assert!(written.is_ok(), "writing to memory does not fail");
        debug_assert!(self.lines.len() - start <= len_max, "{line:?}");
    }
}

impl<'a> Line<'a> {
    fn local(asked: Asked<'a>, rcode: Rcode, truncated: bool) -> Self {
        let (answer, took) = (None, None);
        Self { result: "LOCAL", asked, rcode, truncated, answer, took, reason: "", upstream: "" }
    }

    /// Octets that it takes in any form, at most.
    fn len_max(&self) -> usize {
        let question = self.asked.question_end.saturating_sub(message::HEADER_LEN);
        let texts = [(self.reason, REASON_JSON_MAX), (self.upstream, UPSTREAM_JSON_MAX)];
        let texts = texts.map(|(text, most)| (TEXT_GROWTH * text.len()).min(most).max(text.len()));
        FIXED_MAX + NAME_GROWTH * question.min(QUESTION_MAX) + texts.iter().sum::<usize>()
    }

    fn words(&self, out: &mut Vec<u8>, shown: ClientShown) -> std::io::Result<()> {
        write!(out, "{} ", self.result)?;
        match self.asked.question() {
            Some((name, class, rtype)) => {
                write!(out, "{} {}{rtype} ", NameDisplay(name), Unusual(class))?;
            }
            // Nothing of the question could be read.
            None => write!(out, "? ")?,
        }
        write!(out, "{} {}", self.rcode, if self.truncated { "truncated " } else { "" })?;
        if let Some(answer) = self.answer {
            write!(out, "{} ", Answer(answer))?;
        }
        if let Some(took) = self.took {
            write!(out, "{} ms ", took.as_millis())?;
        }
        write!(out, "{} {}", self.asked.transport(), Client(self.asked.client, shown))?;
        writeln!(out, "{}{}", Behind(": ", self.reason), Behind(" via ", self.upstream))
    }

    // People read no faster than this is.
    #[cold]
    fn columns(
        &self,
        out: &mut Vec<u8>,
        shown: ClientShown,
        coloured: bool,
    ) -> std::io::Result<()> {
        let start = out.len();
        let (colour, end) = match self.result {
            _ if !coloured => ("", ""),
            "SUCCESS" => ("\x1b[32m", COLOUR_END),
            "FAILURE" => ("\x1b[31m", COLOUR_END),
            _ => ("\x1b[36m", COLOUR_END),
        };
        // Both sequences take no room on the screen.
        let start = start + colour.len() + end.len();
        let to = |out: &mut Vec<u8>, column: usize| {
            // Where a column before was too wide, at least a space.
            let len = (start + column).saturating_sub(out.len()).max(1);
            out.resize(out.len() + len, b' ');
        };
        write!(out, "{colour}{}{end}", self.result)?;
        to(out, 8);
        let question = self.asked.question();
        if let Some((_, class, rtype)) = question {
            write!(out, "{}{rtype}", Unusual(class))?;
        }
        to(out, 14);
        write!(out, "{}", self.rcode)?;
        to(out, 23);
        if let Some(took) = self.took {
            write!(out, "{:>5} ms", took.as_millis())?;
        }
        to(out, 33);
        write!(out, "{} {}", self.asked.transport(), Client(self.asked.client, shown))?;
        to(out, 53);
        match question {
            Some((name, ..)) => write!(out, "{}", NameDisplay(name))?,
            None => write!(out, "?")?,
        }
        to(out, 82);
        if let Some(answer) = self.answer {
            write!(out, "{} ", Answer(answer))?;
        }
        out.extend_from_slice(if self.truncated { b"truncated " } else { b"" });
        writeln!(out, "{}{}", self.reason, Behind("via ", self.upstream))
    }

    #[cold]
    fn json(&self, out: &mut Vec<u8>, shown: ClientShown) -> std::io::Result<()> {
        write!(out, "{{\"result\":\"{}\"", self.result.to_ascii_lowercase())?;
        if let Some((name, class, rtype)) = self.asked.question() {
            let name = Text(&NameDisplay(name), usize::MAX);
            write!(out, ",\"name\":{name},\"class\":\"{class}\",\"type\":\"{rtype}\"")?;
        }
        let Self { rcode, truncated, asked, .. } = self;
        write!(out, ",\"rcode\":\"{rcode}\",\"truncated\":{truncated}")?;
        if let Some((answers, octets)) = self.answer {
            write!(out, ",\"answers\":{answers},\"octets\":{octets}")?;
        }
        if let Some(took) = self.took {
            let micros = took.as_micros();
            write!(out, ",\"duration_ms\":{}.{:03}", micros / 1000, micros % 1000)?;
        }
        write!(out, ",\"transport\":\"{}\"", asked.transport())?;
        if shown != ClientShown::Off {
            write!(out, ",\"client\":\"{}\"", Client(asked.client, shown))?;
        }
        for (key, text, most) in [
            ("upstream", self.upstream, UPSTREAM_JSON_MAX),
            ("reason", self.reason, REASON_JSON_MAX),
        ] {
            if !text.is_empty() {
                write!(out, ",\"{key}\":{}", Text(&text, most))?;
            }
        }
        writeln!(out, "}}")
    }
}

/// The answer records and the octets of a response.
struct Answer((u16, usize));

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self((answers, octets)) = self;
        let plural = if *answers == 1 { "" } else { "s" };
        write!(f, "{answers} answer{plural} {octets} B")
    }
}

/// A class and a space, unless it is the usual one.
struct Unusual(Class);

impl Display for Unusual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Class::IN { Ok(()) } else { write!(f, "{} ", self.0) }
    }
}

/// A text behind another, or neither if there is none.
struct Behind<'a>(&'static str, &'a str);

impl Display for Behind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(mark, text) = self;
        if text.is_empty() { Ok(()) } else { write!(f, "{mark}{text}") }
    }
}

/// As much of a client's address as is to be shown; `-` in the place of all of it.
struct Client(IpAddr, ClientShown);

impl Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(address, shown) = self;
        let len = if address.is_ipv4() { 24 } else { 56 };
        match (shown, Prefix::of(*address, len)) {
            (ClientShown::Full, _) => write!(f, "{address}"),
            (ClientShown::Prefix, Some(prefix)) => write!(f, "{prefix}"),
            (ClientShown::Prefix | ClientShown::Off, _) => f.write_str("-"),
        }
    }
}

/// What is displayed as a string of JSON (RFC 8259 section 7), cut off where it would take more than so many octets.
struct Text<'a>(&'a dyn Display, usize);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write!(Escaping { out: f, room: self.1 }, "{}", self.0)?;
        f.write_char('"')
    }
}

/// A writer in front of another that escapes what would end a string of JSON or a line.
struct Escaping<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    room: usize,
}

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let len = match c {
                '"' | '\\' => 2,
                c if c.is_control() => 6,
                c => c.len_utf8(),
            };
            let Some(room) = self.room.checked_sub(len) else {
                self.room = 0;
                return Ok(());
            };
            self.room = room;
            match c {
                '"' | '\\' => write!(self.out, "\\{c}"),
                c if c.is_control() => write!(self.out, "\\u{:04x}", u32::from(c)),
                c => self.out.write_char(c),
            }?;
        }
        Ok(())
    }
}

const COLOUR_END: &str = "\x1b[0m";

/// Memory kept between turns.
const LINES_KEPT: usize = 16 * 1024;

/// Octets of all of a line but the name and the texts: the longest client, keys of JSON, spaces of columns.
const FIXED_MAX: usize = 320;

/// Octets that one of a name becomes, at most: `\000`, of which JSON has the backslash twice.
const NAME_GROWTH: usize = 5;

/// Octets of a question that is shown.
const QUESTION_MAX: usize = 255 + 4;

/// Octets that one of a text becomes, at most, in JSON.
const TEXT_GROWTH: usize = 6;

/// Octets of a reason, which has the names of four upstreams at most, and a few words.
const REASON_MAX: usize = 1_500;

/// Octets of a reason as a string of JSON.
const REASON_JSON_MAX: usize = 1_800;

/// Octets of an upstream as a string of JSON: its address, and a name of 253 octets.
const UPSTREAM_JSON_MAX: usize = 400;

/// Octets of one line at most. The time that the shell adds to an object is to fit into a line of stderr as well.
const LINE_MAX: usize =
    FIXED_MAX + NAME_GROWTH * QUESTION_MAX + REASON_JSON_MAX + UPSTREAM_JSON_MAX;
const _: () = assert!(LINE_MAX + 48 <= 4096);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_line_says_what_was_asked_and_how_it_ended() {
        let mut log = log_of(QueryLogForm::Words, ClientShown::Full);
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
        log.instead(asked, Rcode::NOERROR, false, "private address", "up");
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
        let mut log = log_of(QueryLogForm::Words, ClientShown::Full);
        let message = query(b"\x07version\x04bi\x1b\n\0\0\x10\0\x03");
        log.local(asked(&message), Rcode::NOERROR, false, "x");
        assert_eq!(text(&log), "LOCAL version.bi\\027\\010. CH TXT NOERROR udp 172.17.0.1: x\n");
    }

    #[test]
    fn a_question_that_could_not_be_read_is_a_question_mark() {
        let mut log = log_of(QueryLogForm::Words, ClientShown::Full);
        log.local(Asked { question_end: 12, ..asked(&query(b"\xff")) }, Rcode::FORMERR, false, "x");
        assert_eq!(text(&log), "LOCAL ? FORMERR udp 172.17.0.1: x\n");
    }

    #[test]
    fn nothing_is_written_when_it_is_off() {
        let mut log = QueryLog::new(None, 1 << 16);
        log.local(asked(&query(b"\0\0\x01\0\x01")), Rcode::FORMERR, false, "x");
        assert_eq!(text(&log), "");
    }

    #[test]
    fn columns_begin_where_those_above_do() {
        let message = query(b"\x06google\x03com\0\0\x01\0\x01");
        let asked = asked(&message);
        let took = Duration::from_millis(59);
        let cut = Sent { len: 500, answers: 29, truncated: true };
        let [plain, coloured] = [false, true].map(|coloured| {
            let mut log = log_of(QueryLogForm::Columns { coloured }, ClientShown::Full);
            log.success(asked, Rcode::NOERROR, cut, took, "1.1.1.1");
            log.failure(asked, Duration::from_millis(4500), "1.1.1.1: connect: timed out");
            log.local(Asked { over_tcp: true, ..asked }, Rcode::REFUSED, false, "x");
            text(&log).to_owned()
        });
        assert_eq!(coloured.matches(COLOUR_END).count(), 3);
        let screen = coloured.replace(COLOUR_END, "");
        let screen =
            ["\x1b[32m", "\x1b[31m", "\x1b[36m"].iter().fold(screen, |all, it| all.replace(it, ""));
        assert_eq!(screen, plain);
        assert_eq!(
            plain,
            "SUCCESS A     NOERROR     59 ms  udp 172.17.0.1      google.com.                  29 answers 500 B truncated via 1.1.1.1\n\
             FAILURE A     SERVFAIL  4500 ms  udp 172.17.0.1      google.com.                  1.1.1.1: connect: timed out\n\
             LOCAL   A     REFUSED            tcp 172.17.0.1      google.com.                  x\n"
        );
    }

    #[test]
    fn an_object_has_what_the_line_has() {
        let mut log = log_of(QueryLogForm::Json, ClientShown::Full);
        let message = query(b"\x06google\x03com\0\0\x01\0\x01");
        let asked = asked(&message);
        let one = Sent { len: 55, answers: 1, truncated: false };
        log.success(asked, Rcode::NOERROR, one, Duration::from_micros(59_007), "1.1.1.1#x");
        log.failure(asked, Duration::from_millis(4500), "1.1.1.1#x: the \"name\"\n\u{e9}");
        log.instead(
            Asked { over_tcp: true, ..asked },
            Rcode::NOERROR,
            true,
            "private address",
            "up",
        );
        let start = "\"name\":\"google.com.\",\"class\":\"IN\",\"type\":\"A\",\"rcode\"";
        let end = "\"transport\":\"udp\",\"client\":\"172.17.0.1\"";
        assert_eq!(
            text(&log),
            format!(
                "{{\"result\":\"success\",{start}:\"NOERROR\",\"truncated\":false,\"answers\":1,\"octets\":55,\
                 \"duration_ms\":59.007,{end},\"upstream\":\"1.1.1.1#x\"}}\n\
                 {{\"result\":\"failure\",{start}:\"SERVFAIL\",\"truncated\":false,\"duration_ms\":4500.000,{end},\
                 \"reason\":\"1.1.1.1#x: the \\\"name\\\"\\u000a\u{e9}\"}}\n\
                 {{\"result\":\"local\",{start}:\"NOERROR\",\"truncated\":true,\"transport\":\"tcp\",\
                 \"client\":\"172.17.0.1\",\"upstream\":\"up\",\"reason\":\"private address\"}}\n"
            )
        );
    }

    #[test]
    fn no_name_or_reason_ends_an_object() {
        // 252 octets that are shown as four or two each, and reasons that grow most.
        let label = [&[63][..], &[0; 62], b"\""].concat();
        let name = [&label[..], &label, &label, &label[..62], b"\0\0\x01\0\x03"].concat();
        let message = query(&[&name[..3 * 64], &[60], &name[3 * 64 + 1..]].concat());
        let cause = "\u{1}".repeat(9_000);
        for form in
            [QueryLogForm::Words, QueryLogForm::Columns { coloured: true }, QueryLogForm::Json]
        {
            let mut log = log_of(form, ClientShown::Full);
            log.failure(asked(&message), Duration::MAX, &cause);
            let line = text(&log);
            assert!(line.len() > 1_000 && line.len() <= LINE_MAX, "{form:?}: {}", line.len());
            if form == QueryLogForm::Json {
                let is_shown = |c: char| c != '\n' && !c.is_control();
                assert!(line.trim_end().chars().all(is_shown) && line.ends_with("\"}\n"), "{line}");
                assert!(line.contains("\\\\000") && line.contains("\\u0001"), "{line}");
            }
        }
    }

    #[test]
    fn as_much_of_a_client_is_shown_as_may_be() {
        let message = query(b"\0\0\x01\0\x01");
        let v4 = asked(&message);
        let v6 = Asked { client: Ipv6Addr::new(0x2001, 0xdb8, 1, 0x2ff, 1, 2, 3, 4).into(), ..v4 };
        for (shown, of_v4, of_v6) in [
            (ClientShown::Full, "172.17.0.1", "2001:db8:1:2ff:1:2:3:4"),
            (ClientShown::Prefix, "172.17.0.0/24", "2001:db8:1:200::/56"),
            (ClientShown::Off, "-", "-"),
        ] {
            let mut log = log_of(QueryLogForm::Words, shown);
            log.local(v4, Rcode::REFUSED, false, "x");
            log.local(v6, Rcode::REFUSED, false, "x");
            let expected =
                format!("LOCAL . A REFUSED udp {of_v4}: x\nLOCAL . A REFUSED udp {of_v6}: x\n");
            assert_eq!(text(&log), expected);
            let mut log = log_of(QueryLogForm::Json, shown);
            log.local(v6, Rcode::REFUSED, false, "x");
            assert_eq!(text(&log).contains(&format!(",\"client\":\"{of_v6}\"")), of_v6 != "-");
        }
    }

    fn log_of(form: QueryLogForm, client: ClientShown) -> QueryLog {
        QueryLog::new(Some(QueryLogStyle { form, client }), 1 << 16)
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
