//! How many of the open files that the process may have are for whom.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::network;

/// Open files that are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// TCP clients at a time.
    pub(crate) clients: usize,
    /// Listeners that are to be bound.
    pub(crate) listeners: usize,
    /// Connections to upstreams at a time.
    pub(crate) upstream_conns: usize,
    /// Connections of the metrics server; 0: there is none.
    pub(crate) metrics_conns: usize,
}

impl Wanted {
    /// As many TCP clients at a time as leave descriptors for everything else: without one for an upstream,
    /// nobody is answered. The error is one line for the user.
    pub(crate) fn clients_max(self) -> Result<usize, String> {
        self.clients_max_beside(open_files())
    }

    /// The same with so many files open already: whoever started the process may have left it some.
    fn clients_max_beside(self, open: usize) -> Result<usize, String> {
        let Self { clients, listeners, upstream_conns, metrics_conns } = self;
        let metrics = if metrics_conns > 0 { OF_METRICS + metrics_conns } else { 0 };
        let Some(descriptors) = getrlimit(Resource::Nofile).current else { return Ok(clients) };
        let reserved = open + LATER + PER_LISTENER * listeners + upstream_conns + metrics;
        let free = usize::try_from(descriptors).unwrap_or(usize::MAX).saturating_sub(reserved);
        if free == 0 {
            // DNS needs both protocols: what is too long for UDP comes over TCP.
            return Err(format!(
                "the limit of {descriptors} open files leaves none for TCP clients; raise it (ulimit -n) \
                 to {} or more",
                reserved + 1
            ));
        }
        Ok(clients.min(free))
    }

    /// Says that there are fewer TCP clients than were asked for, if so.
    pub(crate) fn log_fewer(self, clients_max: usize) {
        let Self { clients, .. } = self;
        if let Some(descriptors) = getrlimit(Resource::Nofile).current
            && clients_max < clients
        {
            log::warn!(
                "at most {clients_max} TCP clients at a time, not {clients}: the limit of {descriptors} open \
                 files leaves no more (ulimit -n)"
            );
        }
    }
}

/// How many are open.
pub(crate) fn open_files() -> usize {
    // One of them is for looking.
    fs::read_dir("/proc/self/fd").map_or(OPEN, |files| files.count().saturating_sub(1))
}

/// Those that are open before listeners are bound, where that cannot be counted: stdin, stdout, stderr twice, and the
/// service manager's socket.
const OPEN: usize = 5;

/// Those that the program itself opens later: epoll, the pair that signals come through, netlink twice, a file that is
/// read again, the sockets that look at the network, and one to spare.
const LATER: usize = 7 + network::LOOKERS;

/// Sockets of a listener: UDP and TCP.
const PER_LISTENER: usize = 2;

/// The listener of metrics, and the file that tells how much memory there is.
const OF_METRICS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_open_already_leave_less_for_clients() {
        let wanted =
            Wanted { clients: usize::MAX, listeners: 1, upstream_conns: 16, metrics_conns: 2 };
        let beside = |open| wanted.clients_max_beside(open).expect("the limit is large");
        assert_eq!(beside(OPEN) - beside(OPEN + 15), 15);
    }
}
