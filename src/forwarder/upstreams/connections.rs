//! The connections to upstreams, from where they open to their end.

use std::time::{Duration, Instant};

use super::blame::{SILENCE_MIN, Silent, is_deaf};
use super::connection::{Due, Pace, Patience, Phase, RETIRED_TIMEOUT, Silence, UpstreamConn};
use super::health::Cause;
use super::upstream::{BROKE_READING, BROKE_SENDING};
use super::{Upstream, Upstreams};
use crate::forwarder::action::{
    Action, Closed, Manner, Stage, UpstreamConnId, UpstreamIndex, UpstreamSet,
};
use crate::forwarder::collections::arena::Id;
use crate::forwarder::loss::{LastFailure, Loss, Lost};
use crate::forwarder::outbox::Outbox;
use crate::forwarder::report::Notice;

impl Upstreams {
    /// The connection is usable now, and new queries are sent on it. Returns its upstream; `None` if it is no
    /// attempt any more.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        outbox: &mut Outbox,
    ) -> Option<UpstreamIndex> {
        let conn = self.conns.get_mut(conn_id).filter(|conn| conn.phase.is_attempt())?;
        conn.phase = Phase::Open;
        conn.opened_at = now;
        conn.last_received = now;
        conn.last_answer = now;
        conn.idle_since = now;
        let index = conn.upstream;
        let upstream = &mut self.list[index];
        upstream.attempts.retain(|attempt| *attempt != conn_id);
        let old = upstream.open;
        if old.is_some_and(|old| self.serves_before(now, old)) {
            return Some(index);
        }
        self.list[index].open = Some(conn_id);
        if let Some(old) = old
            && !self.serves_beside(now, old)
        {
            self.retire(now, old, outbox);
        }
        Some(index)
    }

    /// A query that is in flight on this connection, too, was answered on another one to upstream `index`.
    pub(crate) fn note_answered_elsewhere(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        index: UpstreamIndex,
    ) {
        if let Some(conn) = self.conns.get_mut(conn_id)
            && conn.upstream == index
            && let Some(silence) = &mut conn.silence
            && silence.answered_elsewhere.is_none()
        {
            silence.answered_elsewhere = Some(now);
            if conn.quiet.is_some_and(|quiet| !quiet.is_losing) && !conn.has_gone_astray() {
                let for_long = conn.owed().is_some_and(|owed| owed.is_silent_for_long(now));
                let limit = &mut self.list[index].experience.query_limit;
                limit.suspect(now, conn.answers, for_long);
            }
        }
    }

    /// Notes that the connection fell silent, and that it was not the names that were slow.
    pub(crate) fn learn_silence(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        outbox: &mut Outbox,
    ) {
        if let Some(conn) = self.conns.get_mut(conn_id)
            && let Some(silence) = conn.silence.take()
        {
            let upstream = &mut self.list[conn.upstream];
            if !conn.has_gone_astray() {
                upstream.experience.query_limit.note_silence(now, conn.answers);
            }
            if silence.of_several {
                upstream.experience.silent_in_a_row =
                    upstream.experience.silent_in_a_row.saturating_add(1);
            }
            self.close_if_done(now, conn_id, outbox);
        }
    }

    /// Nothing was answered on the connection for too long: it takes no new queries. `was_first` tells
    /// whether a query was sent to this upstream first.
    pub(crate) fn stall(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        was_first: impl Fn(Id, UpstreamIndex) -> bool,
    ) -> Option<Stalled> {
        let conn = self.conns.get_mut(conn_id)?;
        let (index, answers, opened_at) = (conn.upstream, conn.answers, conn.opened_at);
        let is_mute = conn.quiet.is_some_and(|quiet| !quiet.is_losing);
        let arrival = conn.arrival(now).filter(|arrival| arrival.pace != Pace::Broken);
        let is_slow = arrival.is_some_and(|arrival| arrival.pace == Pace::Steady);
        conn.arriving = arrival.map(|arrival| arrival.id);
        let waited = conn.sent.oldest().map(|(_, start)| now.saturating_duration_since(start));
        let unanswered: Vec<Id> = conn.in_flight.iter().collect();
        // Copies of what another left unanswered are no fair sample.
        let own = unanswered.iter().filter(|id| was_first(**id, index)).count();
        if let Phase::Retired { stalled, .. } = &mut conn.phase {
            *stalled = true;
        } else {
            conn.phase = Phase::Retired { until: now + RETIRED_TIMEOUT, stalled: true };
        }
        let of_several = own >= SILENCE_MIN;
        // Where an answer arrives, however slowly, the server is not deaf.
        let answered_elsewhere = conn.silence.take().and_then(|silence| silence.answered_elsewhere);
        if answers > 0 && arrival.is_none() {
            conn.silence = Some(Silence { of_several, answered_elsewhere });
        }
        if answers > 0 {
            self.give_time_to_unproven(now, index);
        }
        let upstream = &mut self.list[index];
        let patience = upstream.experience.round_trip.stall_after();
        if let Some(waited) = waited {
            upstream.experience.round_trip.note(now, waited.min(patience));
        }
        upstream.experience.stalled_since_answer = true;
        // One that was passed over fell silent all the same, unless it waits for segments.
        let was_open = upstream.open.take_if(|open| *open == conn_id).is_some() || is_mute;
        let has_answered = |other: &UpstreamConnId| {
            self.conns.get(*other).is_some_and(|it| it.answers > 0 && it.phase.is_trusted())
        };
        let answers_elsewhere = upstream.experience.has_answered_since(opened_at)
            || upstream.conns.iter().any(has_answered);
        let was_silent_before = upstream.experience.silent_in_a_row > 0;
        let has_another = self.another(index, UpstreamSet::EMPTY).is_some();
        let silent = Silent { answers, own, answers_elsewhere, was_silent_before, has_another };
        let failure = (was_open && !is_slow && is_deaf(silent)).then_some(match answers {
            0 => "connected, but no answer",
            _ => "connections fall silent",
        });
        let arriving = arrival.map(|arrival| arrival.query);
        Some(Stalled { upstream: index, unanswered, arriving, failure })
    }

    /// A connection of this upstream has stalled. What was made beside it sooner, as it was quiet, and has answered
    /// nothing yet, has as long as a connection that is made now, once: names may be slow, and two connections that say
    /// nothing have the upstream fail.
    fn give_time_to_unproven(&mut self, now: Instant, index: UpstreamIndex) {
        for other in &self.list[index].conns {
            if let Some(other) = self.conns.get_mut(*other)
                && matches!(other.phase, Phase::Open)
                && other.answers == 0
                && other.last_answer == other.opened_at
            {
                other.last_answer = now;
            }
        }
    }

    /// The server works on one query of a connection at a time, for so long on each that those that wait
    /// here would expire. They go to another upstream, or are spread over several connections, as far as
    /// each answers them in time; so do all that follow.
    pub(crate) fn relieve(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        each: Duration,
        outbox: &mut Outbox,
    ) -> Option<Stalled> {
        let conn = self.conns.get_mut(conn_id).filter(|conn| conn.phase.is_trusted())?;
        // What waited for lost segments comes in turn, too.
        if self.list[conn.upstream].experience.wants_spare(now) {
            return None;
        }
        conn.phase = Phase::Retired { until: now + RETIRED_TIMEOUT, stalled: true };
        let (index, unanswered) = (conn.upstream, conn.in_flight.iter().collect());
        let upstream = &mut self.list[conn.upstream];
        upstream.open.take_if(|open| *open == conn_id);
        upstream.experience.at_once.teach(now, each);
        if !std::mem::replace(&mut upstream.logged_in_turn, true) {
            outbox.log(Notice::UpstreamInTurn { upstream: upstream.name.clone(), each });
        }
        Some(Stalled { upstream: index, unanswered, arriving: None, failure: None })
    }

    /// The connection takes no new queries and is closed when none waits on it any more.
    pub(crate) fn retire(&mut self, now: Instant, conn_id: UpstreamConnId, outbox: &mut Outbox) {
        let Some(conn) = self.conns.get_mut(conn_id) else {
            return;
        };
        conn.phase = Phase::Retired { until: now + RETIRED_TIMEOUT, stalled: false };
        self.list[conn.upstream].open.take_if(|open| *open == conn_id);
        self.close_if_done(now, conn_id, outbox);
    }

    pub(crate) fn close_if_done(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        outbox: &mut Outbox,
    ) {
        let Some(conn) = self.conns.get_mut(conn_id) else {
            return;
        };
        if conn.in_flight.unanswered() > 0 {
            return;
        }
        conn.idle_since = now;
        if matches!(conn.phase, Phase::Retired { .. }) && conn.silence_known_at().is_none() {
            self.close(conn_id, Manner::Orderly, "it took no more queries", outbox);
        }
    }

    /// Takes the connection out; nothing more is told about it. What waited on it is the caller's. `why`
    /// is for the log, unless the connection has ended by itself.
    pub(crate) fn close(
        &mut self,
        conn_id: UpstreamConnId,
        manner: Manner,
        why: &'static str,
        outbox: &mut Outbox,
    ) -> Option<Box<UpstreamConn>> {
        let conn = self.conns.close(conn_id)?;
        let upstream = &mut self.list[conn.upstream];
        upstream.forget(conn_id);
        if conn.phase.is_trusted() {
            upstream.experience.silent_in_a_row = 0;
            upstream.experience.query_limit.note_close(conn.answers);
        }
        outbox.push(Action::Close { conn: conn_id.into(), manner, why: Some(why) });
        Some(conn)
    }

    /// A connection ended on its own, or an attempt took too long.
    pub(crate) fn end(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        how: Closed,
        outbox: &mut Outbox,
    ) -> Ended {
        let Some(conn) = self.conns.get(conn_id) else {
            return Ended::Nothing;
        };
        let index = conn.upstream;
        let is_impostor = matches!(how, Closed::Impostor { .. });
        let (stage, detail) = match (&conn.phase, how) {
            (phase, Closed::Failed { stage, detail } | Closed::Impostor { stage, detail })
                if phase.is_attempt() =>
            {
                (stage, detail)
            }
            (Phase::Handshaking { .. }, _) => (Stage::Tls, "closed during the handshake".into()),
            (Phase::Connecting { .. }, _) => (Stage::Connect, "connection reset".into()),
            (_, Closed::Eof) => return Ended::Lost("closed before answering"),
            (_, Closed::Reset) => return Ended::Lost("connection reset before answering"),
            (_, Closed::Failed { stage, detail } | Closed::Impostor { stage, detail }) => {
                self.list[index].note_broke(detail);
                return Ended::Lost(if stage == Stage::Write {
                    BROKE_SENDING
                } else {
                    BROKE_READING
                });
            }
        };
        self.list[index].failures[stage as usize] += 1;
        self.close(conn_id, Manner::Abort, "not connected in time", outbox);
        if let Some(open) = self.list[index].open.and_then(|open| self.conns.get_mut(open)) {
            // Only a replacement could not be made; the connection it was for still serves.
            open.replacement_failed_at = Some(now);
            return Ended::Nothing;
        }
        let cause = if is_impostor { Cause::Impostor } else { Cause::At };
        Ended::Attempt(index, cause(stage, detail))
    }

    /// What is due of this connection.
    pub(crate) fn due(&self, now: Instant, conn_id: UpstreamConnId) -> Option<Due> {
        let conn = self.conns.get(conn_id)?;
        conn.due(now, self.patience(conn))
    }

    /// Takes a connection out that is lost. One that was open may close freely, which is learned from.
    pub(crate) fn lose(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        loss: Loss,
        outbox: &mut Outbox,
    ) -> Option<Lost> {
        let Loss { what, code, victim, manner } = loss;
        let conn = self.close(conn_id, manner, what, outbox)?;
        let unanswered: Vec<Id> = conn.in_flight.iter().collect();
        let was_open = matches!(conn.phase, Phase::Open);
        if was_open {
            let experience = &mut self.list[conn.upstream].experience;
            experience.note_close(!unanswered.is_empty(), conn.answers);
        }
        let upstream = conn.upstream;
        // One that was closed for want of queries says nothing.
        if was_open && conn.answers == 0 && !unanswered.is_empty() {
            self.fall_back(now, upstream);
        }
        let Upstream { experience, broke_number, .. } = &mut self.list[upstream];
        Some(Lost {
            conn: conn_id,
            failure: LastFailure { upstream, what, code, broke_number: *broke_number },
            victim,
            unanswered,
            answers: conn.answers,
            was_open,
            in_a_row: experience.losses_in_a_row,
            is_answering: experience.is_answering(now),
        })
    }

    /// A connection to this upstream was lost that had answered none of its queries. Where it was made beside a quiet one,
    /// and there is no other upstream, that one is the best there is for a while: some servers let a client have one
    /// connection at a time.
    fn fall_back(&mut self, now: Instant, index: UpstreamIndex) {
        if self.list[index].open.is_some() || self.another(index, UpstreamSet::EMPTY).is_some() {
            return;
        }
        let is_quiet = |id: &&UpstreamConnId| {
            let conn = self.conns.get(**id).filter(|conn| matches!(conn.phase, Phase::Open));
            conn.is_some_and(|conn| conn.quiet.is_some() && conn.answers > 0)
        };
        let quiet = self.list[index].conns.iter().find(is_quiet).copied();
        if let Some(conn) = quiet.and_then(|id| self.conns.get_mut(id)) {
            conn.replacement_failed_at = Some(now);
            self.list[index].open = quiet;
        }
    }

    /// Takes all connections out, on which nothing waits.
    pub(crate) fn close_all(&mut self, why: &'static str, outbox: &mut Outbox) {
        for index in self.list.places() {
            while let Some(&conn) = self.list[index].conns.last() {
                self.close(conn, Manner::Orderly, why, outbox);
            }
        }
    }

    pub(crate) fn close_idle(&mut self, conn_id: UpstreamConnId, outbox: &mut Outbox) {
        if let Some(conn) = self.close(conn_id, Manner::Orderly, "idle", outbox) {
            self.list[conn.upstream].experience.note_close(false, conn.answers);
        }
    }

    /// For how long nothing may come on this connection.
    pub(crate) fn patience(&self, conn: &UpstreamConn) -> Patience {
        let stall = self.list[conn.upstream].experience.round_trip.stall_after();
        Patience { stall, idle: self.idle_timeout(conn) }
    }

    /// How long this connection may idle.
    pub(crate) fn idle_timeout(&self, conn: &UpstreamConn) -> Duration {
        let configured = self.limits.upstream_idle_timeout;
        conn.keepalive.map_or(configured, |allowed| allowed.min(configured))
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.conn_ids()
            .filter_map(|conn_id| match self.conns.get(*conn_id) {
                Some(conn) => {
                    let next = [
                        conn.next_timeout(self.patience(conn)),
                        self.next_hedge(conn),
                        self.next_overdue(conn),
                        conn.look_at,
                    ];
                    next.into_iter().flatten().min()
                }
                _ => None,
            })
            .min()
    }

    /// When the next query on this connection is overdue.
    pub(crate) fn next_overdue(&self, conn: &UpstreamConn) -> Option<Instant> {
        if !conn.phase.is_trusted() {
            return None;
        }
        conn.sent.next_overdue(self.list[conn.upstream].experience.round_trip.stall_after())
    }
}

/// What the end of a connection means.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The upstream could not be connected to, for this cause.
    Attempt(UpstreamIndex, Cause),
    /// A connection was lost, in this way.
    Lost(&'static str),
    Nothing,
}

/// What a connection leaves that stalled.
#[derive(Debug)]
pub(crate) struct Stalled {
    pub(crate) upstream: UpstreamIndex,
    /// The queries that wait on it.
    pub(crate) unanswered: Vec<Id>,
    /// The query whose answer was arriving.
    pub(crate) arriving: Option<Id>,
    /// Why it is its upstream's failure, if it is.
    pub(crate) failure: Option<&'static str>,
}
