//! What is sent and received on connections to upstreams.

use std::time::{Duration, Instant};

use super::connection::{Phase, Turn};
use super::{LARGE, Upstreams};
use crate::forwarder::action::{Action, UpstreamConnId, UpstreamIndex};
use crate::forwarder::collections::arena::Id;
use crate::forwarder::message::edit::{self, Ecs, Edns, Family, QueryEdit};
use crate::forwarder::message::frame::{self, Deframer};
use crate::forwarder::message::{ParsedQuery, Signature};
use crate::forwarder::outbox::Outbox;

impl Upstreams {
    /// Writes a query to a connection, with a message ID of its own there. `None` if there is none for it.
    #[inline]
    pub(crate) fn send(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        outgoing: &Outgoing<'_>,
        outbox: &mut Outbox,
    ) -> Option<Sent> {
        let &Outgoing { query, message, parsed, family, ecs, .. } = outgoing;
        let conn = self.conns.get_mut(conn_id)?;
        let index = conn.upstream;
        let upstream = &mut self.list[index];
        // It may have stood ready beside another one: those that follow go the same way.
        upstream.open = Some(conn_id);
        let message_id = if parsed.signature == Some(Signature::Sig0) {
            // The signature covers it (RFC 2931 section 3.1).
            conn.in_flight.take_exact(parsed.id, query).then_some(parsed.id)?
        } else {
            conn.in_flight.take(query)?
        };
        // A copy sent after a stall does not arm the stall deadline of a newer connection, whose
        // handshake just proved the path; but one that fills its window would hold up all others.
        let is_proven = outgoing.stalled_at.is_some_and(|at| conn.opened_at >= at);
        let window = upstream.experience.in_flight_max;
        if !is_proven || window.is_some_and(|max| conn.in_flight.unanswered() >= max) {
            conn.note_sent(now, message_id, upstream.experience.round_trip.tolerated().unusual);
        }
        let is_unsigned = parsed.signature.is_none();
        let plainer = outgoing.plainer.filter(|(at, _)| *at == index);
        let edns = upstream.experience.tolerance.edns(now);
        let edns = plainer.map_or(edns, |(_, plainer)| plainer.max(edns));
        let keepalive = is_unsigned && !conn.asked_keepalive;
        conn.asked_keepalive |= is_unsigned && edns == Edns::Ours;
        conn.queries += 1;
        let most = frame::LENGTH_LEN + message.len() + edit::QUERY_GROWTH_MAX;
        frame::append_with(conn.output.buffer(most), |out| {
            let edit = QueryEdit { edns, keepalive, ecs, family };
            edit::append_query(out, message, parsed, message_id, edit);
        });
        if conn.output.len() > self.limits.upstream_output_max.max(LARGE) {
            self.large = Some(conn_id);
        }
        if !std::mem::replace(&mut conn.transmitting, true) {
            outbox.push(Action::Transmit(conn_id.into()));
        }
        upstream.sends += 1;
        let first = outgoing.is_first.then(|| (index, upstream.experience.promptness.note_sent()));
        if conn.is_spent(upstream.experience.allowance(now)) {
            self.retire(now, conn_id, outbox);
        }
        Some(Sent { message_id, edns, first })
    }

    /// The shell was told that there is something to write. False if the connection was closed.
    pub(crate) fn note_transmitting(&mut self, conn_id: UpstreamConnId) -> bool {
        let conn = self.conns.get_mut(conn_id);
        conn.is_some_and(|conn| std::mem::take(&mut conn.transmitting))
    }

    /// So many octets were written.
    pub(crate) fn advance_output(&mut self, conn_id: UpstreamConnId, n: usize) {
        if let Some(conn) = self.conns.get_mut(conn_id) {
            conn.output.advance(n);
        }
    }

    /// Octets came on a connection: what reads frames of them, until [`Self::end_input`]. `None` if it was closed.
    pub(crate) fn begin_input(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
    ) -> Option<Deframer> {
        let conn = self.conns.get_mut(conn_id)?;
        conn.last_received = now;
        if let Some(quiet) = conn.quiet.take() {
            let experience = &mut self.list[conn.upstream].experience;
            let unusual = experience.round_trip.tolerated().unusual;
            conn.look_at = conn.look_at.map(|at| at.min(now + unusual));
            if quiet.is_losing {
                conn.held_up_until = Some(now);
            } else {
                experience.query_limit.trust(conn.answers);
            }
        }
        Some(std::mem::take(&mut conn.deframer))
    }

    /// All octets that came were looked at. They may say that another answer is on its way on a stalled
    /// connection than was thought.
    pub(crate) fn end_input(
        &mut self,
        conn_id: UpstreamConnId,
        deframer: Deframer,
    ) -> Option<Arriving> {
        // A retired connection was closed with its last answer, and what follows that is nobody's.
        let conn = self.conns.get_mut(conn_id)?;
        if deframer.partial_len() > LARGE {
            self.large = Some(conn_id);
        }
        conn.deframer = deframer;
        let other = conn.arriving?;
        let (id, ..) = conn.deframer.begun().filter(|(id, ..)| *id != other)?;
        conn.arriving = Some(id);
        let [begun, ceased] = [id, other].map(|id| conn.in_flight.query(id));
        Some(Arriving { begun, ceased })
    }

    /// The answer that was arriving when the connection stalled has ceased to. Returns its query.
    pub(crate) fn give_up_arriving(&mut self, conn_id: UpstreamConnId) -> Option<Id> {
        let conn = self.conns.get_mut(conn_id)?;
        conn.in_flight.query(conn.arriving.take()?)
    }

    /// A response answers nothing that was asked. True if it is one too many.
    pub(crate) fn note_unmatched(&mut self, conn_id: UpstreamConnId) -> bool {
        self.conns.get_mut(conn_id).is_some_and(|conn| {
            conn.unmatched += 1;
            conn.unmatched >= UNMATCHED_MAX
        })
    }

    /// The server lets the connection idle for so long, in units of 100 ms; nothing, if it wants no more queries
    /// on it.
    pub(crate) fn note_keepalive(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        timeout: u16,
        outbox: &mut Outbox,
    ) {
        let Some(conn) = self.conns.get_mut(conn_id) else {
            return;
        };
        let timeout = u32::from(timeout) * KEEPALIVE_UNIT;
        // The idle time counts at the server, from when it sent the answer to when the next query is there.
        let round_trip = self.list[conn.upstream].experience.round_trip.smoothed();
        let on_the_way = KEEPALIVE_MARGIN.max(2 * round_trip.unwrap_or_default());
        conn.keepalive = Some(timeout.saturating_sub(on_the_way));
        if timeout <= KEEPALIVE_NONE && matches!(conn.phase, Phase::Open) {
            self.retire(now, conn_id, outbox);
        }
    }

    /// An answer came with this message ID, which is free now. Returns how long the server works on each
    /// query, if it works on one at a time and that is too long.
    pub(crate) fn end_sending(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        message_id: u16,
        outbox: &mut Outbox,
    ) -> Option<Duration> {
        let conn = self.conns.get_mut(conn_id)?;
        conn.note_answer(now);
        conn.in_flight.free(message_id);
        let is_done = conn.in_flight.unanswered() == 0;
        let Turn { took, was_oldest, each } = conn.note_turn(now, message_id);
        if let Some(took) = took {
            let upstream = &mut self.list[conn.upstream];
            if conn.held_up_until.is_none_or(|until| is_before(until, now, took)) {
                upstream.experience.round_trip.note_answer(now, took);
            }
            if !was_oldest {
                upstream.experience.at_once.forget();
            }
        }
        if is_done {
            self.close_if_done(now, conn_id, outbox);
        }
        each
    }

    /// The query with this message ID left by another way.
    pub(crate) fn abandon(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        message_id: u16,
        outbox: &mut Outbox,
    ) {
        if let Some(conn) = self.conns.get_mut(conn_id) {
            let long = self.list[conn.upstream].experience.round_trip.tolerated().long;
            conn.abandon(now, message_id, long);
            self.close_if_done(now, conn_id, outbox);
        }
    }
}

/// A query that is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) query: Id,
    pub(crate) message: &'a [u8],
    pub(crate) parsed: &'a ParsedQuery,
    pub(crate) family: Family,
    pub(crate) ecs: Ecs,
    /// An upstream that objected to it, and with how much of EDNS it is asked there again.
    pub(crate) plainer: Option<(UpstreamIndex, Edns)>,
    /// When the connection it was last sent on stalled with no other copy out.
    pub(crate) stalled_at: Option<Instant>,
    /// The query was sent to nobody yet.
    pub(crate) is_first: bool,
}

/// How a query was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) message_id: u16,
    pub(crate) edns: Edns,
    /// The upstream that it was sent to first, if that was now, and which query it was there.
    pub(crate) first: Option<(UpstreamIndex, u32)>,
}

/// How the answer that arrives on a stalled connection changed: queries to which it began and ceased to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arriving {
    pub(crate) begun: Option<Id>,
    pub(crate) ceased: Option<Id>,
}

/// Whether that was before something which has taken so long by now. Few connections were ever held up.
#[cold]
fn is_before(that: Instant, now: Instant, took: Duration) -> bool {
    that + took <= now
}

/// RFC 7828 section 3.1.
const KEEPALIVE_UNIT: Duration = Duration::from_millis(100);

/// A connection that must be used again so soon is of no use.
const KEEPALIVE_NONE: Duration = Duration::from_millis(400);

/// For what neither side knows of the way between them.
const KEEPALIVE_MARGIN: Duration = Duration::from_millis(200);

/// A duplicate now and then is harmless; a stream of them is not a DNS server.
const UNMATCHED_MAX: u8 = 64;
