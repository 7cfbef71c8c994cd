//! A query's way in.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::action::ClientId;
use super::clients::access::is_local;
use super::collections::arena::Id;
use super::denial::Denial;
use super::limits::Service;
use super::message::{self, LOCAL_LEN_MAX, LocalResponse, ParsedQuery, Rcode, Refusal};
use super::queries::fair_share::BucketId;
use super::queries::query::{Origin, Query};
use super::query_log::{Asked, Sent};
use super::{DatagramPath, Ede, Forwarder, Outcome, ResponseSize, Source};

impl Forwarder {
    /// Octets of a client.
    pub(super) fn client_stream(&mut self, now: Instant, client: ClientId, bytes: &[u8]) {
        let Some(mut deframer) = self.clients.begin_input(client) else {
            return;
        };
        let mut input = bytes;
        let mut is_dns = true;
        while is_dns && let Some(message) = deframer.next(&mut input) {
            // A client whose answers are too many to hold may have been closed for this message.
            if !self.clients.note_message(client) {
                return;
            }
            is_dns = self.client_message(now, Source::Stream(client), message, false);
        }
        self.clients.end_input(now, client, deframer, is_dns, &mut self.outbox);
    }

    pub(super) fn client_datagram(
        &mut self,
        now: Instant,
        path: DatagramPath,
        message: &[u8],
        truncated: bool,
    ) {
        if self.is_served(now, path.client.ip()) {
            self.client_message(now, Source::Datagram(path), message, truncated);
        }
    }

    /// Whether this source gets answers; says so if not, once in a while.
    pub(super) fn is_served(&mut self, now: Instant, source: IpAddr) -> bool {
        let is_served = is_local(source);
        if !is_served {
            self.clients.note_stranger(now, source, &mut self.outbox);
        }
        is_served
    }

    /// False if it is no DNS query.
    fn client_message(
        &mut self,
        now: Instant,
        source: Source,
        message: &[u8],
        truncated: bool,
    ) -> bool {
        match message::parse_query(message, truncated) {
            Ok(parsed) => self.accept_query(now, source, message, parsed),
            Err(Refusal::Drop) => {
                self.outbox.counts.dropped += 1;
                return false;
            }
            Err(Refusal::Respond(response)) => {
                self.respond_locally(now, source, message, &response);
            }
        }
        true
    }

    fn accept_query(&mut self, now: Instant, source: Source, message: &[u8], parsed: ParsedQuery) {
        let Some(client) = self.address(source) else {
            return;
        };
        let mut awaited = None;
        if let Some(ours) = self.policy.special_names.answer(message, &parsed) {
            let answer = match self.denial(now, client, message, &parsed, &ours) {
                Denial::Awaited(zone) => {
                    awaited = Some(zone);
                    None
                }
                Denial::Proven(answer) => Some(answer),
                Denial::Unproven => Some(ours),
            };
            if let Some(answer) = answer {
                self.outbox.counts.queries += 1;
                self.outbox.counts.local += 1;
                self.tell(now, source, message, &answer.response(&parsed));
                return;
            }
        }
        let fingerprint = match &source {
            Source::Datagram(path) => self.queries.fingerprint(path, message),
            Source::Stream(_) => 0,
        };
        if let Source::Datagram(path) = &source
            && self.join(fingerprint, path, message)
        {
            return;
        }
        self.outbox.counts.queries += 1;
        let bucket = self.queries.bucket(client);
        let stored = match self.store(now, bucket, message) {
            Ok(stored) => stored,
            Err(ede) => {
                let ours = awaited.and_then(|_| self.policy.special_names.answer(message, &parsed));
                match ours {
                    Some(answer) => {
                        self.outbox.counts.local += 1;
                        self.tell(now, source, message, &answer.response(&parsed));
                    }
                    None => self.refuse(now, source, message, &parsed, ede),
                }
                return;
            }
        };
        let origin = match source {
            Source::Datagram(path) => Origin::Datagram { path, responses: 1, fingerprint },
            Source::Stream(client) => Origin::Stream { client, index: 0 },
        };
        let mut query = Query::new(origin, stored, parsed, client.into(), now);
        query.is_special = awaited.is_some();
        let id = self.queries.insert_of(now, query, bucket);
        self.outbox.counts.owed += 1;
        self.upstreams.note_query();
        if let Source::Stream(client) = source {
            let index = self.clients.owe(client, id);
            self.queries.note_owed(id, client, index);
        }
        if let Some(zone) = awaited {
            self.await_denial(now, zone, id);
        } else {
            self.queries.wait(id);
            self.probe_preferred(now, id);
        }
    }

    /// Makes room for a message and stores it. `Err`: why it is refused.
    fn store(
        &mut self,
        now: Instant,
        client: BucketId,
        message: &[u8],
    ) -> Result<Vec<u8>, Ede<'static>> {
        if self.service == Service::Ending {
            return Err(Ede { code: Ede::NOT_READY, text: "shutting down" });
        }
        let crowded = |text| Ede { code: Ede::OTHER, text };
        self.make_room(now, client, message.len()).map_err(crowded)?;
        self.queries.store(message).ok_or(crowded(CROWDED_LONG))
    }

    /// With the table full the client that holds most gives a query up for one that holds less than its
    /// share: a flood does not keep the others out. `Err`: the newcomer has its share, or its message is
    /// longer than what is left for long ones, and nobody gave anything up.
    fn make_room(
        &mut self,
        now: Instant,
        newcomer: BucketId,
        len: usize,
    ) -> Result<(), &'static str> {
        if !self.queries.has_room(len) {
            return Err(CROWDED_LONG);
        }
        if self.queries.is_full() {
            let id = self.queries.evict_for(newcomer).ok_or(CROWDED)?;
            self.give_up(now, id);
        }
        Ok(())
    }

    fn give_up(&mut self, now: Instant, id: Id) {
        if self.queries.get(id).is_some_and(|query| query.is_special) {
            self.finish_special(now, id, None);
        } else {
            self.conclude(now, id, Outcome::Failed(Ede { code: Ede::OTHER, text: CROWDED }));
        }
    }

    /// A stub that retransmits (after 1 to 2.5 s, just when an upstream is at its weakest) joins
    /// the query it repeats: it costs no second slot and no second copy upstream.
    fn join(&mut self, fingerprint: u64, from: &DatagramPath, message: &[u8]) -> bool {
        let Some(query) = self.queries.repeated(fingerprint, from, message) else {
            return false;
        };
        if let Origin::Datagram { responses, .. } = &mut query.origin
            && *responses < RESPONSES_MAX
        {
            *responses += 1;
            self.outbox.counts.owed += 1;
            self.outbox.counts.queries += 1;
        } else {
            self.outbox.counts.repeated += 1;
        }
        true
    }

    fn refuse(
        &mut self,
        now: Instant,
        source: Source,
        message: &[u8],
        parsed: &ParsedQuery,
        ede: Ede<'static>,
    ) {
        let response = parsed.local_response(Rcode::SERVFAIL, Some(ede));
        self.outbox.counts.failed += 1;
        self.respond(now, source, message, &response);
        if let Some(asked) = self.asked(source, message, parsed.question_end) {
            self.outbox.query_log.failure(asked, Duration::ZERO, ede.text);
        }
    }

    /// Answers a message that is not forwarded.
    fn respond_locally(
        &mut self,
        now: Instant,
        source: Source,
        message: &[u8],
        response: &LocalResponse<'_>,
    ) {
        self.outbox.counts.queries += 1;
        self.outbox.counts.local += 1;
        self.tell(now, source, message, response);
    }

    /// Answers what is counted already, and writes that to the query log.
    fn tell(&mut self, now: Instant, source: Source, message: &[u8], response: &LocalResponse<'_>) {
        let sent = self.respond(now, source, message, response);
        if let Some(asked) = self.asked(source, message, response.question_end) {
            self.outbox.query_log.local(asked, response.rcode, sent.truncated);
        }
    }

    fn respond(
        &mut self,
        now: Instant,
        source: Source,
        message: &[u8],
        response: &LocalResponse<'_>,
    ) -> Sent {
        let most = LOCAL_LEN_MAX + response.records.octets.len();
        let mut sent = Sent::default();
        match source {
            Source::Datagram(path) => {
                let size = ResponseSize::by_datagram(&path, response.opt, self.limits.udp_size_max);
                self.respond_by_datagram(path, most, |out| {
                    let start = out.len();
                    message::local_response(out, message, response, size.udp_size, size.limit);
                    sent = Sent::of(&out[start..]);
                });
            }
            Source::Stream(client) => {
                let keepalive = self.clients.keepalive(response.opt, message);
                let response = LocalResponse { keepalive, ..*response };
                self.respond_on_stream(now, client, most, |out, size| {
                    let start = out.len();
                    message::local_response(out, message, &response, size.udp_size, size.limit);
                    sent = Sent::of(&out[start..]);
                });
            }
        }
        sent
    }

    /// Responds with what `write` appends, at most `most` octets.
    pub(super) fn respond_by_datagram(
        &mut self,
        path: DatagramPath,
        most: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let len = self.outbox.datagrams.push(path, most, write);
        debug_assert!(len <= most);
        self.outbox.counts.datagrams_dropped += self.outbox.datagrams.shed();
    }

    /// What the query log says of a query; `None` without a log, or if the client is gone.
    pub(super) fn asked<'a>(
        &self,
        source: Source,
        message: &'a [u8],
        question_end: usize,
    ) -> Option<Asked<'a>> {
        if !self.outbox.query_log.is_enabled() {
            return None;
        }
        let client = self.address(source)?;
        let over_tcp = matches!(source, Source::Stream(_));
        Some(Asked { message, question_end, client, over_tcp })
    }

    /// Whose message it is; `None` if the connection is gone.
    fn address(&self, source: Source) -> Option<IpAddr> {
        match source {
            Source::Datagram(path) => Some(path.client.ip()),
            Source::Stream(client) => self.clients.address(client),
        }
    }
}

const CROWDED: &str = "too many queries at once";
const CROWDED_LONG: &str = "too many long queries at once";

/// Responses to one query and its retransmissions.
const RESPONSES_MAX: u8 = 4;
