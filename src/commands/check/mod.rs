//! How the upstreams of a run are: each is connected to and asked, as a run would do it, and what was seen is told.
//!
//! Nobody is served and nothing is bound. Upstreams are tried at the same time; every step has a limit, so that all
//! ends within half a minute, whatever servers do.

mod conversation;
mod failure;
mod probe;
mod report;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll, Token};

use crate::config::{Config, Form, UpstreamSpec};
use crate::forwarder::Stage;
use crate::host::os_error::system_error;
use crate::tls::{self, Connector};
use probe::Probe;
use report::{Report, document};

/// Tries the upstreams, which these connectors are for, and prints how they are. If not all of them are usable,
/// it gives a line that says so. The error is that of `print`.
pub fn run<E>(
    config: &Config,
    connectors: Vec<Connector>,
    form: Form,
    mut print: impl FnMut(&str) -> Result<(), E>,
) -> Result<Option<String>, E> {
    let mut reports = Vec::new();
    let probed = probe_all(config, connectors, |report| {
        if form == Form::Words {
            let between = if reports.is_empty() { "" } else { "\n" };
            print(&format!("{between}{}", report.words()))?;
        }
        reports.push(report);
        Ok(())
    });
    match probed {
        Ok(printed) => printed?,
        Err(error) => return Ok(Some(format!("epoll: {}", system_error(&error)))),
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let hints = hints(&reports, now);
    match form {
        Form::Words if hints.is_empty() => {}
        Form::Words => print(&format!("\n{}\n", hints.join("\n")))?,
        Form::Json => print(&document(&reports, &hints))?,
    }
    let (all, usable) =
        (config.upstreams.len(), reports.iter().filter(|it| it.is_usable()).count());
    Ok((usable < all).then(|| format!("{usable} of {all} upstreams are usable")))
}

/// Tries the upstreams at the same time, and tells of each in their order, as soon as that can be. The outer error is
/// that of the poll, the inner one that of `tell`.
fn probe_all<E>(
    config: &Config,
    connectors: Vec<Connector>,
    mut tell: impl FnMut(Report) -> Result<(), E>,
) -> io::Result<Result<(), E>> {
    let mut poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    let how = (&config.upstream_source, config.policy.ecs);
    let upstreams = config.upstreams.iter().zip(connectors).enumerate();
    let mut probes: VecDeque<_> = upstreams
        .map(|(index, (spec, connector))| {
            Probe::new(spec, connector, how, (&registry, Token(index)))
        })
        .collect();
    let mut events = Events::with_capacity(probes.len().max(1));
    loop {
        // A handful, so that who has nothing to do is asked in vain rather than looked up.
        probes.iter_mut().for_each(Probe::turn);
        while probes.front().is_some_and(Probe::is_done)
            && let Some(probe) = probes.pop_front()
        {
            if let Err(error) = tell(probe.into_report()) {
                return Ok(Err(error));
            }
        }
        let open = probes.iter().filter(|probe| !probe.is_done());
        let Some(deadline) = open.map(Probe::deadline).min() else { return Ok(Ok(())) };
        let left = deadline.saturating_duration_since(Instant::now());
        match poll.poll(&mut events, Some(left)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
}

/// What the failures say together.
fn hints(reports: &[Report], now: u64) -> Vec<String> {
    let mut hints = Vec::new();
    if tls::is_unset(now) {
        let date = tls::shown_date(now);
        hints.push(format!("The clock of this host is wrong: it says {date}. Set it."));
    }
    let stage = |report: &Report| report.failure.as_ref().map(|failure| failure.stage);
    let dated = |report: &Report| stage(report) == Some(Stage::Certificate) && !report.is_in_time();
    let blocked = operators_failed(reports, |it| stage(it) == Some(Stage::Connect));
    if blocked > 1 {
        hints.push(format!("{blocked} operators cannot be connected to: this network blocks DNS over TLS, or {LOGIN}"));
    }
    let intercepted = [Stage::Tls, Stage::Negotiation, Stage::Certificate]
        .map(|alike| operators_failed(reports, |it| stage(it) == Some(alike) && !dated(it)));
    if let Some(intercepted) = intercepted.into_iter().find(|operators| *operators > 1) {
        hints.push(format!(
            "{intercepted} operators fail alike: something in this network, such as a filter, answers in their place, or \
             {LOGIN}"
        ));
    }
    let dated = operators_failed(reports, dated);
    if dated > 1 && !tls::is_unset(now) {
        hints.push(format!(
            "By the clock of this host, which says {}, the certificates of {dated} operators are not valid. Set it, if \
             it is wrong.",
            tls::shown_date(now)
        ));
    }
    hints
}

/// How many operators have no usable upstream, and one that failed so.
fn operators_failed(reports: &[Report], has_failed: impl Fn(&Report) -> bool) -> usize {
    let is_usable = |spec: &UpstreamSpec| {
        reports.iter().any(|it| it.is_usable() && it.spec.has_operator_of(spec))
    };
    let mut operators: Vec<&UpstreamSpec> = Vec::new();
    for report in reports.iter().filter(|report| has_failed(report)) {
        if !is_usable(&report.spec)
            && !operators.iter().any(|operator| operator.has_operator_of(&report.spec))
        {
            operators.push(&report.spec);
        }
    }
    operators.len()
}

const LOGIN: &str = "it wants a login first (captive portal): open a page that begins with http:// in a browser, or try \
                     another network.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_is_named() {
        for (now, hint) in
            [(1_000_000, Some("it says 1970-01-12 13:46:40 UTC. Set it.")), (1_800_000_000, None)]
        {
            let hints = hints(&[], now);
            assert_eq!(hints.len(), usize::from(hint.is_some()), "{hints:?}");
            assert!(hint.is_none_or(|hint| hints[0].ends_with(hint)), "{hints:?}");
        }
    }
}
