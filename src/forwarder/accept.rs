//! A query's way in.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::action::ClientId;
use super::clients::access::AccessDenial;
use super::clients::rates::Allowance;
use super::denial::{Denial, UNPROVEN};
use super::limits::Service;
use super::measures::{Answered, Reason};
use super::message::frame;
use super::message::hops::has_come_back;
use super::message::{
    self, HEADER_LEN, LOCAL_LEN_MAX, LocalResponse, ParsedQuery, Rcode, Refusal, Rtype,
};
use super::network::Network;
use super::queries::Place;
use super::queries::fair_share::BucketId;
use super::queries::query::{Origin, Query};
use super::query_log::{Asked, Sent};
use super::{Clients, DatagramPath, Ede, Forwarder, Notice, Outbox, ResponseSize, Source};

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
            if !self.clients.note_message(now, client) {
                return;
            }
            is_dns = self.client_message(now, Source::Stream(client), message, None);
        }
        self.clients.end_input(now, client, deframer, is_dns, &mut self.outbox);
        self.shed_clients(now, 0);
    }

    pub(super) fn client_datagram(
        &mut self,
        now: Instant,
        path: DatagramPath,
        message: &[u8],
        truncated: bool,
    ) {
        let source = path.client.ip();
        if self.clients.serves(source) {
            let allowance = self.clients.allowance(now, path.client, &mut self.outbox);
            let cut = truncated.then_some(TOO_LONG);
            let cut = match allowance {
                Allowance::Answer => cut,
                _ if is_probe(source, message) => cut,
                Allowance::Truncation => Some(ABOVE_RATE),
                Allowance::Nothing => return,
            };
            self.client_message(now, Source::Datagram(path), message, cut);
            return;
        }
        if is_probe(source, message) {
            self.client_message(now, Source::Datagram(path), message, None);
            return;
        }
        self.note_stranger(now, source);
        if self.policy.access.denial == AccessDenial::Refused
            && let Ok(parsed) = message::parse_query(message, truncated)
            && self.clients.may_refuse(now)
        {
            let ede = Ede { code: Ede::PROHIBITED, text: "" };
            let response = parsed.local_response(Rcode::REFUSED, Some(ede));
            self.respond_locally(now, Source::Datagram(path), message, &response, NOT_SERVED);
        }
    }

    /// Whether this source gets answers; says so if not, once in a while.
    pub(super) fn is_served(&mut self, now: Instant, source: IpAddr) -> bool {
        let is_served = self.clients.serves(source);
        if !is_served {
            self.note_stranger(now, source);
        }
        is_served
    }

    fn note_stranger(&mut self, now: Instant, source: IpAddr) {
        self.clients.note_stranger(now, source, &self.policy.access, &mut self.outbox);
    }

    /// `cut`: it gets TC, and why. False if it is no DNS query.
    fn client_message(
        &mut self,
        now: Instant,
        source: Source,
        message: &[u8],
        cut: Option<&'static str>,
    ) -> bool {
        match message::parse_query(message, cut.is_some()) {
            Ok(parsed) => self.accept_query(now, source, message, parsed),
            Err(Refusal::Drop) => {
                self.outbox.counts.dropped += 1;
                return false;
            }
            Err(Refusal::Respond(response)) => {
                let why = refusal_words(&response, cut);
                self.respond_locally(now, source, message, &response, why);
            }
        }
        true
    }

    fn accept_query(&mut self, now: Instant, source: Source, message: &[u8], parsed: ParsedQuery) {
        let Some(peer) = source.peer(&self.clients) else {
            return;
        };
        let client = peer.ip();
        let mut awaited = None;
        if let Some(ours) = self.policy.special_names.answer(message, &parsed) {
            let answer = match self.denial(now, client, message, &parsed, &ours) {
                Some(Denial::Awaited(zone)) => {
                    awaited = Some(zone);
                    None
                }
                Some(Denial::Proven(answer)) => Some(answer),
                None => Some(ours),
            };
            if let Some(answer) = answer {
                let response = answer.response(&parsed);
                self.respond_locally(now, source, message, &response, SPECIAL_NAME);
                return;
            }
        }
        let origin = match source {
            Source::Datagram(path) => {
                let fingerprint = self.queries.fingerprint(&path, parsed.id);
                if self.queries.join(fingerprint, &path, message, &mut self.outbox.counts) {
                    return;
                }
                Origin::Datagram { path, responses: 1, fingerprint }
            }
            Source::Stream(client) => Origin::Stream { client, index: 0 },
        };
        self.outbox.counts.queries += 1;
        if has_come_back(message, parsed.opt.as_ref()) {
            self.note_came_back(now);
            return self.refuse(now, source, message, &parsed, CAME_BACK, Reason::Loop);
        }
        let network = Network::of(peer);
        let bucket = match source {
            Source::Datagram(_) => self.queries.bucket_of_datagrams(network),
            Source::Stream(_) => self.queries.bucket_of_streams(network),
        };
        let stored = match self.store(now, source, bucket, message) {
            Ok(stored) => stored,
            Err((ede, reason)) => {
                let ours = awaited.and_then(|_| self.policy.special_names.answer(message, &parsed));
                match ours {
                    Some(answer) => {
                        self.tell(now, source, message, &answer.response(&parsed), SPECIAL_NAME);
                    }
                    None => self.refuse(now, source, message, &parsed, ede, reason),
                }
                return;
            }
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
        match awaited {
            Some(zone) if self.denials.wait(zone, id) => {}
            Some(_) => self.fail(now, id, UNPROVEN, Reason::Unproven),
            None => {
                self.queries.wait(id);
                self.probe_preferred(now, id);
            }
        }
    }

    /// A query has gone round; says so, once in a while.
    #[cold]
    fn note_came_back(&mut self, now: Instant) {
        self.outbox.counts.came_back += 1;
        if self.logged.came_back.is_due(now) {
            self.outbox.log(Notice::CameBack);
        }
    }

    /// Stores a message. With the table full the network that holds most gives a query up for one that holds less
    /// than its share: a flood does not keep the others out. `Err`: the newcomer has its share, or its message is
    /// longer than what is left for long ones, and nobody gave anything up.
    fn store(
        &mut self,
        now: Instant,
        source: Source,
        newcomer: BucketId,
        message: &[u8],
    ) -> Result<Vec<u8>, (Ede<'static>, Reason)> {
        // A connection that is still read is one that had just been made.
        if self.service == Service::Ending && matches!(source, Source::Datagram(_)) {
            let ede = Ede { code: Ede::NOT_READY, text: "shutting down" };
            return Err((ede, Reason::Ending));
        }
        if !self.queries.has_room(message.len()) {
            return Err(self.crowded(now, CROWDED_LONG));
        }
        match self.queries.place(now, newcomer) {
            Place::Free => {}
            Place::Of(id) => {
                let ede = Ede { code: Ede::OTHER, text: CROWDED };
                // Whose client is gone, nobody misses.
                if self.queries.get(id).is_some_and(|query| !query.is_orphan()) {
                    self.note_crowded(now, CROWDED);
                }
                self.fail(now, id, ede, Reason::Full);
            }
            Place::None => return Err(self.crowded(now, CROWDED)),
        }
        match self.queries.store(message) {
            Some(stored) => Ok(stored),
            None => Err(self.crowded(now, CROWDED_LONG)),
        }
    }

    /// Why a query fails for which there is no place.
    #[cold]
    fn crowded(&mut self, now: Instant, what: &'static str) -> (Ede<'static>, Reason) {
        self.note_crowded(now, what);
        (Ede { code: Ede::OTHER, text: what }, Reason::Full)
    }

    /// A query fails for want of a place; says so, once in a while.
    fn note_crowded(&mut self, now: Instant, what: &'static str) {
        if self.logged.table_full.is_due(now) {
            let queries_max = self.limits.queries_max;
            self.outbox.log(Notice::TableFull { what, queries_max });
        }
    }

    fn refuse(
        &mut self,
        now: Instant,
        source: Source,
        message: &[u8],
        parsed: &ParsedQuery,
        ede: Ede<'static>,
        reason: Reason,
    ) {
        let response = parsed.local_response(Rcode::SERVFAIL, Some(ede));
        self.outbox.counts.failed += 1;
        let over_tcp = matches!(source, Source::Stream(_));
        let measures = &mut self.outbox.measures;
        measures.note(over_tcp, parsed.qtype, Answered::Failed, Rcode::SERVFAIL);
        measures.note_failure(reason);
        self.respond(now, source, message, &response);
        if let Some(asked) = source.asked(&self.clients, &self.outbox, message, parsed.question_end)
        {
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
        why: &str,
    ) {
        self.outbox.counts.queries += 1;
        self.tell(now, source, message, response, why);
    }

    /// Answers a query that is counted already, and writes that and why to the query log.
    fn tell(
        &mut self,
        now: Instant,
        source: Source,
        message: &[u8],
        response: &LocalResponse<'_>,
        why: &str,
    ) {
        self.outbox.counts.local += 1;
        let how = if response.truncated { Answered::CutShort } else { Answered::Here };
        let over_tcp = matches!(source, Source::Stream(_));
        let qtype = qtype_before(message, response.question_end);
        self.outbox.measures.note(over_tcp, qtype, how, response.rcode);
        let sent = self.respond(now, source, message, response);
        if !source.is_probe(response)
            && let Some(asked) =
                source.asked(&self.clients, &self.outbox, message, response.question_end)
        {
            self.outbox.query_log.local(asked, response.rcode, sent.truncated, why);
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
                self.outbox.respond(path, most, |out| {
                    let start = out.len();
                    message::local_response(out, message, response, size.udp_size, size.limit);
                    sent = Sent::of(&out[start..]);
                });
            }
            Source::Stream(client) => {
                let keepalive = self.clients.keepalive(response.opt, message);
                let response = LocalResponse { keepalive, ..*response };
                self.shed_clients(now, frame::LENGTH_LEN + most);
                let write = |out: &mut Vec<u8>, size: ResponseSize| {
                    let start = out.len();
                    message::local_response(out, message, &response, size.udp_size, size.limit);
                    sent = Sent::of(&out[start..]);
                };
                self.clients.respond(now, client, most, &mut self.outbox, write);
            }
        }
        sent
    }
}

impl Source {
    /// What the query log says of a query; `None` without a log, or if the client is gone.
    pub(super) fn asked<'a>(
        self,
        clients: &Clients,
        outbox: &Outbox,
        message: &'a [u8],
        question_end: usize,
    ) -> Option<Asked<'a>> {
        if !outbox.query_log.is_enabled() {
            return None;
        }
        let over_tcp = matches!(self, Self::Stream(_));
        Some(Asked { message, question_end, client: self.peer(clients)?.ip(), over_tcp })
    }

    /// Whether a message from here, with this answer, is how `health` asks. The query log has no line for it.
    fn is_probe(self, response: &LocalResponse<'_>) -> bool {
        match self {
            Self::Datagram(path) => {
                response.rcode == Rcode::BADVERS && path.client.ip().to_canonical().is_loopback()
            }
            Self::Stream(_) => false,
        }
    }

    /// Whose message it is; `None` if the connection is gone.
    fn peer(self, clients: &Clients) -> Option<SocketAddr> {
        match self {
            Self::Datagram(path) => Some(path.client),
            Self::Stream(client) => clients.peer(client),
        }
    }
}

/// The type of a question that ends there; no type if there is none.
fn qtype_before(message: &[u8], question_end: usize) -> Rtype {
    match message.get(HEADER_LEN..question_end) {
        Some([.., high, low, _, _]) => Rtype(u16::from_be_bytes([*high, *low])),
        _ => Rtype(0),
    }
}

/// Why a message is not forwarded that has this answer.
#[cold]
fn refusal_words(response: &LocalResponse<'_>, cut: Option<&'static str>) -> &'static str {
    match (response.rcode, cut) {
        (Rcode::NOERROR, Some(cut)) => cut,
        (Rcode::NOTIMP, _) => "unknown opcode",
        (Rcode::BADVERS, _) => "unknown EDNS version",
        (Rcode::REFUSED, _) => "zone transfer",
        _ => "malformed query",
    }
}

/// Whether a datagram is how `health` asks whether this program answers. It gets its answer whoever else is served
/// and however much was asked: from loopback nobody else asks, and no query leaves for it.
#[cold]
fn is_probe(source: IpAddr, message: &[u8]) -> bool {
    let is_here = source.to_canonical().is_loopback();
    is_here
        && matches!(
            message::parse_query(message, false),
            Err(Refusal::Respond(LocalResponse { rcode: Rcode::BADVERS, .. }))
        )
}

const CAME_BACK: Ede<'static> =
    Ede { code: Ede::OTHER, text: "the query went round: an upstream leads back to dot-proxy" };

/// Words of the query log.
pub(super) const SPECIAL_NAME: &str = "special name";
const NOT_SERVED: &str = "client not served";
const ABOVE_RATE: &str = "above --rate-limit";
const TOO_LONG: &str = "too long a query";

const CROWDED: &str = "too many queries at once";
const CROWDED_LONG: &str = "too many long queries at once";
