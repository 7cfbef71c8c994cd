//! Who may ask: what the log says of it at the start, and the subnets of this host's interfaces, which come
//! and go.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::forwarder::{Access, Forwarder, Policy, Prefix, shown_prefixes, sort_by_key};
use crate::host::network::subnets::Subnets;
use crate::host::os_error::system_error;

/// The subnets of this host's interfaces, where their addresses are served.
pub(crate) struct ServedSubnets {
    subnets: Subnets,
    /// As of the last look.
    served: Vec<Prefix>,
}

impl ServedSubnets {
    /// Has `forwarder` serve them, if `access` says so. The error is one line for the user.
    pub(crate) fn open(
        access: &Access,
        now: Instant,
        forwarder: &mut Forwarder,
    ) -> Result<Option<Self>, String> {
        if !access.subnets {
            return Ok(None);
        }
        let opened = Subnets::open().and_then(|subnets| {
            let mut this = Self { subnets, served: Vec::new() };
            this.look(now, forwarder)?;
            Ok(this)
        });
        opened.map(Some).map_err(|error| Self::unknown(&error))
    }

    /// That the subnets are not known, one line for the user.
    pub(crate) fn unknown(error: &io::Error) -> String {
        format!(
            "--allow local: the networks of this host's interfaces are not known: netlink: {}; give them with \
             --allow CIDR",
            system_error(error)
        )
    }

    /// As of the last look.
    pub(crate) fn served(&self) -> &[Prefix] {
        &self.served
    }

    /// Tells `forwarder` of them if they have changed.
    pub(crate) fn look(&mut self, now: Instant, forwarder: &mut Forwarder) -> io::Result<()> {
        let subnets = self.subnets.list()?.into_iter();
        let subnets = served(subnets);
        if self.served != subnets {
            log::info!("--allow local: {}", shown_prefixes(&subnets));
            if subnets.len() > Access::SUBNETS_MAX {
                log::warn!(
                    "--allow local: no more than the first {} networks are served; --allow CIDR takes larger \
                     ones",
                    Access::SUBNETS_MAX
                );
            }
            forwarder.handle_subnets(now, &subnets);
            self.served = subnets;
        }
        Ok(())
    }
}

/// The subnets that are served, each once. An address whose subnet is everybody is a mistake in how an
/// interface was set up, and would make this an open resolver.
fn served(subnets: impl Iterator<Item = (IpAddr, u8)>) -> Vec<Prefix> {
    let mut subnets: Vec<_> = subnets
        .filter_map(|(ip, len)| Prefix::of(ip, len))
        .filter(|prefix| !prefix.is_everybody())
        .collect();
    sort_by_key(&mut subnets, |prefix| *prefix);
    subnets.dedup();
    subnets
}

/// Says who is served and how much, where not only this host may ask.
pub(crate) fn log_served(policy: &Policy, mut listeners: impl Iterator<Item = SocketAddr>) {
    let Policy { access, rate, .. } = policy;
    if listeners.all(|listener| listener.ip().is_loopback()) {
        return;
    }
    let limit = rate.as_ref().map(|rate| format!("; {rate}")).unwrap_or_default();
    log::info!("served are {access}{limit}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_served_once_each_and_not_the_whole_internet() {
        let subnet = |ip: &str, len| (ip.parse().unwrap(), len);
        let subnets = [
            subnet("203.0.113.5", 24),
            subnet("203.0.113.6", 24),
            subnet("203.0.113.5", 0),
            subnet("2001:db8::5", 0),
            subnet("::ffff:203.0.113.5", 96),
            subnet("2001:db8::5", 64),
        ];
        let served = served(subnets.into_iter());
        assert_eq!(shown_prefixes(&served), "203.0.113.0/24, 2001:db8::/64");
    }
}
