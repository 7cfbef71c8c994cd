//! How the upstreams of a run are: each is connected to and asked, as a run would do it, and what was seen is told.
//!
//! Nobody is served and nothing is bound. Upstreams are tried at the same time, each by a thread that waits; every
//! step has a limit, so that all ends within half a minute, whatever servers do.

mod conversation;
mod failure;
mod probe;
mod report;

use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::{Config, Form, UpstreamSpec};
use crate::forwarder::Stage;
use crate::host::os_error::system_error;
use crate::tls::{self, Connector};
use probe::probe;
use report::{Report, document};

/// Tries the upstreams, which these connectors are for, and prints how they are. If not all of them are usable,
/// it gives a line that says so. The error is that of `print`.
pub fn run<E>(
    config: &Config,
    connectors: Vec<Connector>,
    form: Form,
    mut print: impl FnMut(&str) -> Result<(), E>,
) -> Result<Option<String>, E> {
    let (source, ecs) = (&config.upstream_source, config.policy.ecs);
    let reports = thread::scope(|scope| {
        let mut probes = Vec::new();
        for (spec, connector) in config.upstreams.iter().zip(connectors) {
            let spawned = thread::Builder::new()
                .spawn_scoped(scope, move || probe(spec, connector, source, ecs));
            match spawned {
                Ok(probe) => probes.push(probe),
                Err(error) => {
                    return Ok(Err(format!("no thread can be started: {}", system_error(&error))));
                }
            }
        }
        let mut reports = Vec::new();
        for report in probes.into_iter().filter_map(|probe| probe.join().ok()) {
            if form == Form::Words {
                print(&format!("{}\n", report.words()))?;
            }
            reports.push(report);
        }
        Ok(Ok(reports))
    })?;
    let reports = match reports {
        Ok(reports) => reports,
        Err(problem) => return Ok(Some(problem)),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let hints = hints(&reports, now);
    match form {
        Form::Words => hints.iter().try_for_each(|hint| print(&format!("{hint}\n")))?,
        Form::Json => print(&document(&reports, &hints))?,
    }
    let (all, usable) =
        (config.upstreams.len(), reports.iter().filter(|it| it.is_usable()).count());
    Ok((usable < all).then(|| format!("{usable} of {all} upstreams are usable")))
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
