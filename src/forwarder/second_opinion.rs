//! Answers that another operator may have better: SERVFAIL and REFUSED.

use std::time::Instant;

use super::action::UpstreamIndex;
use super::collections::arena::Id;
use super::message::ResponseInfo;
use super::message::hops::hops;
use super::queries::query::HeldAnswer;
use super::{Forwarder, Outcome};

impl Forwarder {
    /// Who is asked a query that upstream `index` failed to resolve, as far as the budget goes.
    pub(super) fn second_opinion(
        &mut self,
        now: Instant,
        id: Id,
        index: UpstreamIndex,
    ) -> Option<UpstreamIndex> {
        let query = self.queries.get(id)?;
        if !self.policy.retry_servfail || !query.may_be_sent() {
            return None;
        }
        // While queries go round, each of two that one becomes at every hop would become two again. Where none
        // does, who asks over TLS is a client like any other.
        if self.logged.came_back.was_lately(now)
            && hops(&query.message, query.parsed.opt.as_ref()) > 0
        {
            return None;
        }
        match self.upstreams.second_opinion(index) {
            Ok(other) => Some(other),
            Err(failed) => {
                // One that failed is tried again beside the traffic, for later ones.
                for other in failed.iter() {
                    self.probe_failed(now, other, id);
                }
                None
            }
        }
    }

    /// Delivers the answer that was held.
    pub(super) fn deliver_held(&mut self, now: Instant, id: Id) {
        let Some(held) = self.queries.take_held(id) else {
            return;
        };
        let HeldAnswer { upstream, response, info } = *held;
        self.conclude(now, id, Outcome::Answer { upstream, response: &response, info: &info });
    }
}

/// Whether the upstream says why, and another would have to say the same, or to know less: an answer
/// that did not validate, or is not given as a matter of policy (RFC 8914 section 4).
pub(super) fn is_final(response: &[u8], info: &ResponseInfo) -> bool {
    info.opt.is_some_and(|opt| {
        opt.ede_codes(response).any(|code| matches!(code, 1 | 2 | 4..=12 | 15..=18))
    })
}

/// A reply that says no more than that it failed is short.
pub(super) const HELD_LEN_MAX: usize = 512;
