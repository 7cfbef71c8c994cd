//! How the service does, for whoever started it.

use super::Reactor;
use super::end::Ending;
use crate::shell::sockets::Context;

impl Reactor {
    /// Says which upstreams are not usable, once that has changed.
    pub(super) fn tell_manager(&mut self) {
        if !self.manager.is_there() || self.ending != Ending::No {
            return;
        }
        let failed = self.cx.forwarder.failed_upstreams().map(|(index, ..)| index).collect();
        if failed != self.told_failed {
            self.told_failed = failed;
            self.manager.status(&status(&self.cx));
        }
    }
}

/// How the service does, in a line for the service manager.
pub(super) fn status(cx: &Context) -> String {
    let failed = cx.forwarder.failed_upstreams();
    let failed: Vec<_> =
        failed.map(|(_, name, stage, detail)| format!("{name}: {stage}: {detail}")).collect();
    let all = cx.forwarder.upstreams_asked().count();
    let words = match failed.len() {
        0 => String::new(),
        _ => format!("; not usable: {}", failed.join("; ")),
    };
    format!("{} of {all} upstreams usable{words}", all - failed.len())
}
