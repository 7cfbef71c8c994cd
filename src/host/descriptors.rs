//! How many of the open files that the process may have are for whom.

use rustix::process::{Resource, getrlimit};

use crate::config::Config;
use crate::host::network;

/// As many clients as leave descriptors for everything else: without one for an upstream, nobody is
/// answered.
pub(crate) fn clients_max(config: &Config) -> Result<usize, String> {
    let wanted = config.limits.clients_max;
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return Ok(wanted) };
    let reserved = OWN + PER_LISTENER * config.listen.len() + config.limits.upstream_conns_max;
    let free = usize::try_from(descriptors).unwrap_or(usize::MAX).saturating_sub(reserved);
    if free == 0 {
        // DNS needs both protocols: what is too long for UDP comes over TCP.
        return Err(format!(
            "the limit of {descriptors} open files leaves none for TCP clients; raise it (ulimit -n) to \
             {} or more",
            reserved + 1
        ));
    }
    if free < wanted {
        log::warn!(
            "at most {free} TCP clients at a time, not {wanted}: the limit of {descriptors} open \
             files leaves no more (ulimit -n)"
        );
    }
    Ok(wanted.min(free))
}

/// stdin, stdout, stderr twice, epoll, the pair that signals come through, netlink, what looks at the
/// network, and one to spare.
const OWN: usize = 9 + network::LOOKERS;

/// UDP and TCP.
const PER_LISTENER: usize = 2;
