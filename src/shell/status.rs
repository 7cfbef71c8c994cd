//! How the service does, for whoever started it, and for whoever asks by SIGUSR1.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use log::Level;

use super::sockets::Context;
use crate::config::UPSTREAM_PORT;
use crate::forwarder::{Counts, Notice, Stage, UpstreamSet};
use crate::host::notify::Manager;
use crate::host::os_error::connect_advice;
use crate::tls;

/// Tells how the service does.
#[derive(Debug)]
pub(crate) struct Reporter {
    manager: Manager,
    started: Instant,
    /// What the manager was last told of.
    told: Told,
    /// What the log advises since no upstream is usable.
    advised: Option<String>,
    advised_at: Option<Instant>,
    /// When the log last had that there is no way to an upstream with IPv6.
    no_v6_at: Option<Instant>,
}

/// What a new status is about, compared with the last one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// Upstreams that are not usable.
    failed: UpstreamSet,
    queries: u64,
}

impl Reporter {
    pub(crate) fn new(manager: Manager, now: Instant) -> Self {
        Self {
            manager,
            started: now,
            told: Told::default(),
            advised: None,
            advised_at: None,
            no_v6_at: None,
        }
    }

    /// How grave a change of state is. That this host has no IPv6 is one warning, and not one for each upstream.
    pub(crate) fn level(&mut self, now: Instant, notice: &Notice) -> Level {
        let Notice::UpstreamFailed { upstream, stage: Stage::Connect, detail } = notice else {
            return notice.level();
        };
        if !upstream.starts_with('[') || &**detail != "network unreachable" {
            return notice.level();
        }
        if self.no_v6_at.is_some_and(|at| now < at + ADVICE_PAUSE) {
            return Level::Debug;
        }
        self.no_v6_at = Some(now);
        notice.level()
    }

    /// Tells the manager that clients are served, at the start or after [`Self::reloading`].
    pub(crate) fn ready(&mut self, cx: &Context) {
        self.told = told(cx);
        self.manager.ready(cx.now, &status(cx));
    }

    /// What is to be done may be something else now.
    pub(crate) fn note_reload(&mut self) {
        self.advised_at = None;
    }

    /// Tells the manager that the configuration is being read again.
    pub(crate) fn reloading(&mut self, now: Instant) {
        self.manager.reloading(now);
    }

    /// Tells the manager that the end has begun.
    pub(crate) fn stopping(&mut self, now: Instant) {
        self.manager.stopping(now);
    }

    /// Tells the manager once other upstreams are not usable than before, and the log once none is, or one again.
    pub(crate) fn look(&mut self, cx: &Context) {
        self.advise(cx);
        if self.manager.is_there() {
            let failed = told(cx).failed;
            if failed != self.told.failed {
                self.tell(cx);
            }
        }
    }

    /// Says what to do while no upstream is usable: once, and once more if that is something else, but no more often
    /// than once a minute, however often one comes back.
    fn advise(&mut self, cx: &Context) {
        if self.advised.is_some() || !cx.forwarder.is_something_usable() {
            self.advise_anew(cx);
        }
    }

    #[cold]
    fn advise_anew(&mut self, cx: &Context) {
        let Some(words) = outage(cx) else {
            // A reload may have put one in their place that was not tried yet.
            if cx.forwarder.is_something_open() {
                self.advised = None;
                log::info!("queries are answered again");
            }
            return;
        };
        let is_due = self.advised_at.is_none_or(|at| at + ADVICE_PAUSE <= cx.now);
        if is_due && self.advised.as_ref() != Some(&words) {
            log::error!("queries get SERVFAIL, as no upstream works: {words}");
            (self.advised, self.advised_at) = (Some(words), Some(cx.now));
        }
    }

    /// When [`Self::handle_timeout`] is due: never, unless the manager wants signs of life.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.manager.poll_timeout()
    }

    /// Gives a sign of life if one is due, and with it, as nobody has to wake up for that, how many queries there were.
    pub(crate) fn handle_timeout(&mut self, cx: &Context) {
        if self.poll_timeout().is_some_and(|at| at <= cx.now) {
            self.manager.handle_timeout(cx.now);
            if told(cx) != self.told {
                self.tell(cx);
            }
        }
    }

    /// How the service does, in lines.
    #[cold]
    pub(crate) fn summary(&self, cx: &Context) -> String {
        let Counts { local, cut_short, orphaned, owed, .. } = cx.forwarder.counts();
        let mut text = format!(
            "up {}: {}, {local} answered here, {cut_short} told to ask over TCP, {orphaned} of clients that went away, \
             {owed} under way\n",
            shown_time(cx.now.saturating_duration_since(self.started)),
            shown_counts(cx)
        );
        for state in cx.forwarder.upstream_states() {
            let failures: u64 = state.failures.iter().sum();
            // Writing to a string does not fail.
            write!(text, "{}: ", state.shown).ok();
            match state.outage {
                None => text.push_str("usable"),
                Some((since, stage, detail)) => {
                    let down = shown_time(cx.now.saturating_duration_since(since));
                    write!(text, "not usable for {down}: {stage}: {detail}").ok();
                }
            }
            let (conns, sends) = (state.conns as u64, state.sends);
            let (conns, sends) =
                (counted(conns, "connection", "connections"), counted(sends, "query", "queries"));
            write!(text, "; {conns}, {sends} sent").ok();
            if let Some(took) = state.took {
                write!(text, ", answered in {} ms lately", took.as_millis()).ok();
            }
            writeln!(text, ", {failures} failures to connect").ok();
        }
        text
    }

    /// Tells the manager how the service does now.
    pub(crate) fn tell(&mut self, cx: &Context) {
        self.told = told(cx);
        self.manager.status(cx.now, &status(cx));
    }
}

fn told(cx: &Context) -> Told {
    let failed = cx.forwarder.failed_upstreams().map(|(index, ..)| index).collect();
    Told { failed, queries: cx.forwarder.counts().queries }
}

/// How the service does, in a line.
#[cold]
fn status(cx: &Context) -> String {
    let failed = cx.forwarder.failed_upstreams();
    let failed: Vec<_> =
        failed.map(|(_, name, stage, detail)| format!("{name}: {stage}: {detail}")).collect();
    let all = cx.forwarder.upstreams_asked().count();
    let mut text = format!("{} of {all} upstreams usable", all - failed.len());
    if cx.forwarder.counts().queries > 0 {
        write!(text, "; {}", shown_counts(cx)).ok();
    }
    if let Some((name, stage, detail, shared)) = cx.forwarder.outage()
        && let Some(advice) = advice(name, stage, detail, shared)
    {
        write!(text, "; {advice}").ok();
    }
    if !failed.is_empty() {
        write!(text, "; not usable: {}", failed.join("; ")).ok();
    }
    text
}

/// Why no upstream is usable, and what to do; `None` if one is. A line above has the reason of each.
fn outage(cx: &Context) -> Option<String> {
    let (name, stage, detail, shared) = cx.forwarder.outage()?;
    Some(match advice(name, stage, detail, shared) {
        // Which says the reason in other words.
        Some(advice) if stage == Stage::Connect => format!("{name}: {stage}: {advice}"),
        Some(advice) => format!("{name}: {stage}: {detail}; {advice}"),
        None => format!("{name}: {stage}: {detail}"),
    })
}

/// What to do about an upstream of this name, or about several that fail alike; `None` if the reason says it.
fn advice(name: &str, stage: Stage, detail: &str, shared: Option<&str>) -> Option<String> {
    if let Some(shared) = shared {
        return Some(shared.into());
    }
    let place = name.split('#').next().unwrap_or_default();
    let bare = place.trim_matches(['[', ']']);
    let address =
        place.parse().ok().or_else(|| Some((bare.parse::<IpAddr>().ok()?, UPSTREAM_PORT).into()));
    match stage {
        _ if SAYS_WHAT_TO_DO.iter().any(|words| detail.contains(words)) => None,
        Stage::Connect => address.and_then(|address| connect_advice(detail, address)),
        Stage::Certificate => Some(match (tls::other_name(detail), tls::other_pin(detail)) {
            (Some(other), _) => format!(
                "if that is the server you mean, write --upstream {place}#{other}; if not, somebody answers in its place"
            ),
            (None, Some(pin)) => format!(
                "compare that with what its operator says; if the key was changed on purpose, write {pin} in place of the \
                 other"
            ),
            (None, None) => CHECK.into(),
        }),
        Stage::Tls | Stage::Negotiation => {
            Some(format!("is a DNS-over-TLS server at that address and port? {CHECK}"))
        }
        Stage::Read | Stage::Write => {
            Some(format!("the server does not answer what it is asked: {CHECK}"))
        }
    }
}

/// What is in reasons that need nothing added: a flag to give, or what the clock says.
const SAYS_WHAT_TO_DO: [&str; 4] = ["--", "system clock", "write #", "SIGHUP"];

/// It sees more of a server than is known here.
const CHECK: &str = "`dot-proxy check` with the same flags says what to do";

fn shown_counts(cx: &Context) -> String {
    let Counts { queries, answered, failed, .. } = cx.forwarder.counts();
    format!("{}, {answered} answered, {failed} failed", counted(queries, "query", "queries"))
}

/// How many there are of what one is, or many are.
fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A time in its two largest units.
#[cold]
fn shown_time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days} d {} h", hours % 24),
        () if hours > 0 => format!("{hours} h {} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min {} s", seconds % 60),
        () => format!("{seconds} s"),
    }
}

/// Between two lines about what to do.
const ADVICE_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_there_is_no_ipv6_is_one_warning_a_minute() {
        let start = Instant::now();
        let mut reporter = Reporter::new(Manager::default(), start);
        for (seconds, upstream, detail, expected) in [
            (0, "[2001:db8::1]#a", "network unreachable", Level::Warn),
            (0, "[2001:db8::2]#a", "network unreachable", Level::Debug),
            (0, "192.0.2.1#a", "network unreachable", Level::Warn),
            (0, "[2001:db8::2]#a", "timed out", Level::Warn),
            (59, "[2001:db8::3]#a", "network unreachable", Level::Debug),
            (60, "[2001:db8::3]#a", "network unreachable", Level::Warn),
        ] {
            let (upstream, detail) = (upstream.into(), detail.into());
            let notice = Notice::UpstreamFailed { upstream, stage: Stage::Connect, detail };
            let now = start + Duration::from_secs(seconds);
            assert_eq!(reporter.level(now, &notice), expected, "{seconds} {notice}");
        }
    }

    #[test]
    fn what_to_do_is_said_by_cause_and_not_twice() {
        use Stage::{Certificate, Connect, Read, Tls};

        let local = "127.0.0.1:8853#dot.example";
        let dropped = "a firewall drops TCP to port";
        for (name, stage, detail, expected) in [
            (
                local,
                Connect,
                "connection refused",
                "127.0.0.1 answers, and nothing listens on port 8853 there",
            ),
            ("1.1.1.1#a.example", Connect, "timed out", &format!("{dropped} 853, ")),
            ("[2001:db8::1]#a.example", Connect, "timed out", &format!("{dropped} 853, ")),
            ("[2001:db8::1]:8853", Connect, "timed out", &format!("{dropped} 8853, ")),
            (local, Connect, "address in use", ""),
            (
                local,
                Certificate,
                "the certificate is for dot.example, not for wrong.example",
                "if that is the server you mean, write --upstream 127.0.0.1:8853#dot.example; if not, ",
            ),
            (
                local,
                Certificate,
                "the server's key is sha256/A; it was expected to be sha256/B",
                "compare that with what its operator says; if the key was changed on purpose, write sha256/A in ",
            ),
            (local, Certificate, "the certificate is malformed", "`dot-proxy check` with the same"),
            (local, Certificate, "if its CA is your own, give it with --ca-file FILE; cert", ""),
            (local, Certificate, "once its new certificate is there, SIGHUP has it read again", ""),
            (local, Certificate, "not valid before 2026, but the system clock is wrong", ""),
            (local, Tls, "closed by the server", "is a DNS-over-TLS server at"),
            (local, Read, "no answer", "the server does not answer what it is asked"),
        ] {
            let advice = advice(name, stage, detail, None).unwrap_or_default();
            assert!(advice.starts_with(expected), "{name} {detail}: {advice}");
            assert_eq!(advice.is_empty(), expected.is_empty(), "{name} {detail}: {advice}");
        }
        assert_eq!(advice(local, Tls, "x", Some("log in")).as_deref(), Some("log in"));
    }

    #[test]
    fn times_have_their_two_largest_units() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min 1 s"),
            (3_599, "59 min 59 s"),
            (3_660, "1 h 1 min"),
            (86_399, "23 h 59 min"),
            (93_600, "1 d 2 h"),
            (31_536_000, "365 d 0 h"),
        ] {
            assert_eq!(shown_time(Duration::from_secs(seconds)), expected);
        }
    }
}
