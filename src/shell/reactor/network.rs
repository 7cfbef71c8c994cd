//! Changes of the network, and what they mean for connections and for who is served.

use std::io;

use super::Reactor;
use crate::forwarder::{UpstreamConnId, UpstreamIndex};
use crate::host::network::{Change, Way};
use crate::host::os_error::system_error;
use crate::shell::access::ServedSubnets;
use crate::shell::sockets::Socket;

impl Reactor {
    pub(super) fn handle_network_message(&mut self) {
        let Some(network) = &mut self.network else { return };
        if let Err(error) = network.handle_message(self.poll.registry(), self.cx.now) {
            self.give_up_network(&error);
        }
    }

    pub(super) fn look_at_network(&mut self) {
        let Some(network) = &mut self.network else { return };
        match network.begin_look(self.poll.registry(), self.cx.now) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return self.give_up_network(&error),
        }
        for (index, target) in self.cx.targets.iter().enumerate() {
            let Some(change) = network.poll_way(index, target.address()) else { continue };
            let upstream = UpstreamIndex::new(index);
            let connected = self.sockets.upstreams.iter().filter(|it| it.upstream() == upstream);
            let lost: Vec<UpstreamConnId> = connected
                .filter(|socket| {
                    let local = socket.local_address();
                    local.is_some_and(|local| network.is_lost(change, local))
                })
                .map(Socket::id)
                .collect();
            if change.is_another_way() || !lost.is_empty() {
                log::debug!("{}: {}", target.shown(), changed(change, lost.len()));
                self.cx.forwarder.handle_network_change(self.cx.now, upstream, &lost);
            }
        }
        if let Some(subnets) = &mut self.subnets
            && let Err(error) = subnets.look(self.cx.now, &mut self.cx.forwarder)
        {
            let level = self.logged.level(self.cx.now, "subnets", &error);
            log::log!(
                level,
                "{}, and served are those known before",
                ServedSubnets::unknown(&error)
            );
            // Another look follows, as after a message.
            self.handle_network_message();
        }
    }

    /// The subnets that are served stay as they are, too.
    fn give_up_network(&mut self, error: &io::Error) {
        let is_served = self.subnets.is_some();
        log_unnoticed(if is_served { log::Level::Warn } else { log::Level::Debug }, error);
        self.network = None;
    }
}

fn changed(change: Change, lost: usize) -> String {
    let from = |way: Way| way.map_or("no way there".into(), |local| format!("from {local}"));
    let (before, now) = (from(change.before), from(change.now));
    format!("the network changed: {now}, was {before}; connections given up: {lost}")
}

/// Logs that changes of the network go unnoticed. Nothing is lost but time: what failed is tried again after
/// its backoff.
pub(super) fn log_unnoticed(level: log::Level, error: &io::Error) {
    log::log!(
        level,
        "changes of routes and addresses go unnoticed: netlink: {}",
        system_error(error)
    );
}
