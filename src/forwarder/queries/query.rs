//! One query on its way.

use std::hash::{DefaultHasher, Hasher};
use std::time::Instant;

use crate::forwarder::action::{
    ClientId, DatagramPath, RouteIndex, UpstreamConnId, UpstreamIndex, UpstreamSet,
};
use crate::forwarder::collections::arena::Id;
use crate::forwarder::loss::LastFailure;
use crate::forwarder::message::edit::{Edns, Family};
use crate::forwarder::message::{HEADER_LEN, ParsedQuery, ResponseInfo, Rtype};

/// A query, from its acceptance to the one exit.
///
/// Until then it waits to be sent, or an answer is expected to one of its sendings, or it has an answer held
/// while a better one may come, or it waits for the proof of a special zone. Where none of these is so, there
/// is no more than hope for an answer: it may not be sent again or is a trial, and is in flight on a stalled
/// connection; or its client is gone.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) origin: Origin,
    /// The client's message, as it came.
    pub(crate) message: Vec<u8>,
    pub(crate) parsed: ParsedQuery,
    /// The address family its client uses.
    pub(crate) family: Family,
    pub(crate) arrived: Instant,
    /// The upstreams that it may go to.
    pub(crate) route: RouteIndex,
    pub(crate) sendings: Sendings,
    /// An answer that is delivered if no better one comes.
    pub(crate) held: Option<Box<HeldAnswer>>,
    /// The query waits for what is said of the special zone that its name is in, and is not sent.
    pub(crate) is_special: bool,
    pub(crate) history: History,
}

/// What became of a query so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The upstream that it was sent to first, and which query it was there.
    pub(crate) first: Option<(UpstreamIndex, u32)>,
    /// How often it was sent.
    pub(crate) sends: u8,
    /// How many of these saw no answer at all on their connection before it was lost.
    pub(crate) unanswered: u8,
    /// How often an answer to it was malformed.
    pub(crate) bad: u8,
    /// Connections it lost to the upstream it is sent to.
    pub(crate) losses: u8,
    /// A connection it was in flight on stalled.
    pub(crate) has_stalled: bool,
    /// When the connection it was last sent on was found quiet or stalled, with no other copy out, until it is sent
    /// again.
    pub(crate) stalled_at: Option<Instant>,
    /// Upstreams that it brings down, it seems.
    pub(crate) avoided: UpstreamSet,
    /// An upstream that objected to it, and with how much of EDNS it is asked there again.
    pub(crate) plainer: Option<(UpstreamIndex, Edns)>,
    /// A copy was made because its answer was late, or went astray.
    pub(crate) hedged: bool,
    /// An answer to it came under an ID that nothing was asked with: it may be sent on the same connection once more.
    pub(crate) has_gone_astray: bool,
    /// What happened to it last, for the error if it comes to that.
    pub(crate) last_failure: Option<LastFailure>,
}

/// Where a query came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A datagram and `responses - 1` retransmissions of it: each gets a response.
    Datagram { path: DatagramPath, responses: u8, fingerprint: u64 },
    /// A client connection; `index` is the place in its list of queries.
    Stream { client: ClientId, index: usize },
    /// A client that is gone after it was sent: it stays in that client's share until its answer comes or
    /// its time is over. Who resets could else have upstreams work without end.
    Orphan,
    /// Nobody by this name: queries for special names wait for what is said of their zone.
    Denial { zone: usize },
    /// Nobody: a copy of a query that a stalled upstream must answer to be usable again.
    Trial { upstream: UpstreamIndex, cause: Id },
}

/// A SERVFAIL or REFUSED, while a better answer may come.
#[derive(Debug)]
pub(crate) struct HeldAnswer {
    pub(crate) upstream: UpstreamIndex,
    pub(crate) response: Vec<u8>,
    pub(crate) info: ResponseInfo,
}

/// A query as it was sent on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sending {
    pub(crate) conn: UpstreamConnId,
    /// The message ID on that connection.
    pub(crate) id: u16,
    /// How much of EDNS it was sent with.
    pub(crate) edns: Edns,
    /// The connection stalled, and the answer was not arriving: there is no more than hope.
    pub(crate) stalled: bool,
}

/// Where a query is in flight: on two connections at most, the older first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sendings([Option<Sending>; SENDINGS_MAX]);

impl Sendings {
    pub(crate) fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sending> {
        self.0.iter().flatten()
    }

    /// Whether an answer is still expected to one of them.
    pub(crate) fn expects_answer(&self) -> bool {
        self.iter().any(|sending| !sending.stalled)
    }

    pub(crate) fn oldest(&self) -> Option<Sending> {
        self.0[0]
    }

    pub(crate) fn on(&self, conn: UpstreamConnId) -> Option<Sending> {
        self.iter().find(|sending| sending.conn == conn).copied()
    }

    /// Adds one; returns the one on the same connection, or the older of two that there are already, to be abandoned.
    fn add(&mut self, sending: Sending) -> Option<Sending> {
        match self.0 {
            [Some(only), None] if only.conn == sending.conn => {
                self.0[0] = Some(sending);
                Some(only)
            }
            [older, Some(younger)] if younger.conn == sending.conn => {
                self.0 = [older, Some(sending)];
                Some(younger)
            }
            [older, Some(younger)] => {
                self.0 = [Some(younger), Some(sending)];
                older
            }
            [Some(only), None] => {
                self.0 = [Some(only), Some(sending)];
                None
            }
            [None, None] => {
                self.0[0] = Some(sending);
                None
            }
        }
    }

    /// Forgets the one on a connection.
    pub(crate) fn remove(&mut self, conn: UpstreamConnId) {
        for sending in &mut self.0 {
            sending.take_if(|sending| sending.conn == conn);
        }
        if self.0[0].is_none() {
            self.0.swap(0, 1);
        }
    }

    /// Whether there is no more than hope for the one on a connection.
    pub(crate) fn set_stalled(&mut self, conn: UpstreamConnId, stalled: bool) {
        for sending in self.0.iter_mut().flatten().filter(|sending| sending.conn == conn) {
            sending.stalled = stalled;
        }
    }
}

impl Query {
    pub(crate) fn new(
        origin: Origin,
        message: Vec<u8>,
        parsed: ParsedQuery,
        family: Family,
        arrived: Instant,
    ) -> Self {
        Self {
            origin,
            message,
            parsed,
            family,
            arrived,
            route: RouteIndex::ALL,
            sendings: Sendings::default(),
            held: None,
            is_special: false,
            history: History::default(),
        }
    }

    pub(crate) fn is_trial(&self) -> bool {
        matches!(self.origin, Origin::Trial { .. })
    }

    pub(crate) fn is_orphan(&self) -> bool {
        self.origin == Origin::Orphan
    }

    pub(crate) fn is_sent(&self) -> bool {
        !self.sendings.is_empty()
    }

    /// Notes where it was sent; returns the sending that makes way for this one, to be abandoned.
    pub(crate) fn add_sending(&mut self, sending: Sending) -> Option<Sending> {
        self.history.sends += 1;
        self.history.stalled_at = None;
        debug_assert!(
            self.history.has_gone_astray || self.sendings.on(sending.conn).is_none(),
            "sent twice"
        );
        self.history.has_gone_astray = false;
        self.sendings.add(sending)
    }

    /// Tells names apart, however they are spelled, whatever is asked of them; never 0.
    pub(crate) fn name_hash(&self) -> u32 {
        let end = self.parsed.question_end.saturating_sub(TYPE_AND_CLASS_LEN);
        let mut hasher = DefaultHasher::new();
        for octet in self.message.get(HEADER_LEN..end).unwrap_or_default() {
            hasher.write_u8(octet.to_ascii_lowercase());
        }
        hasher.finish() as u32 | 1
    }

    /// With how much of EDNS it is sent to this upstream after what that objected to.
    pub(crate) fn edns_at(&self, upstream: UpstreamIndex) -> Edns {
        match self.history.plainer {
            Some((at, edns)) if at == upstream => edns,
            _ => Edns::Ours,
        }
    }

    /// Whether it may be sent once more. Signed queries and TKEY are sent once: a server may have
    /// acted on them, and takes a repetition for a replay (RFC 8945 section 5.2.3).
    pub(crate) fn may_be_sent(&self) -> bool {
        self.history.sends < SENDS_MAX
            && self.history.unanswered < NO_ANSWER_SENDS_MAX
            && !(self.is_sent_once() && self.history.sends > 0)
            && !self.is_orphan()
    }

    /// No copy of it may go out.
    pub(crate) fn is_sent_once(&self) -> bool {
        self.parsed.signature.is_some() || self.parsed.qtype == Rtype::TKEY
    }
}

/// The messages of queries: blocks that are used again, so that no query of ordinary length costs
/// an allocation, and a bound on the octets of longer ones.
#[derive(Debug)]
pub(crate) struct Messages {
    blocks: Vec<Vec<u8>>,
    long_bytes: usize,
    long_bytes_max: usize,
}

impl Messages {
    /// For so many at a time, and so many octets of long ones.
    pub(crate) fn new(messages_max: usize, long_bytes_max: usize) -> Self {
        Self { blocks: Vec::with_capacity(messages_max), long_bytes: 0, long_bytes_max }
    }

    /// Octets of memory that it takes for each message that is not long.
    pub(crate) const OCTETS_EACH: usize = size_of::<Vec<u8>>() + BLOCK_BYTES;

    /// A copy of `message`; `None` if there is no room for a long one.
    pub(crate) fn store(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        if message.len() > BLOCK_BYTES {
            if self.long_bytes + message.len() > self.long_bytes_max {
                return None;
            }
            self.long_bytes += message.len();
            return Some(message.to_vec());
        }
        let mut block = self.blocks.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES));
        block.extend_from_slice(message);
        Some(block)
    }

    /// Whether [`Self::store`] would take a message of `len` octets.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        len <= BLOCK_BYTES || self.long_bytes + len <= self.long_bytes_max
    }

    /// Takes back what [`Self::store`] gave.
    pub(crate) fn release(&mut self, mut message: Vec<u8>) {
        if message.len() > BLOCK_BYTES {
            self.long_bytes -= message.len();
            return;
        }
        message.clear();
        self.blocks.push(message);
    }
}

const TYPE_AND_CLASS_LEN: usize = 4;

/// Copies of a query that are out at a time: one, and one more after a stall or because it is late.
const SENDINGS_MAX: usize = 2;

/// An upper end to what one query can cost upstreams, whatever they do.
pub(crate) const SENDS_MAX: u8 = 16;

/// A query that brings down every connection it is sent on must not bring down many.
pub(crate) const NO_ANSWER_SENDS_MAX: u8 = 3;

/// Queries of stubs are far shorter; RFC 1035's limit for UDP fits.
const BLOCK_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::collections::conn_table::ConnTable;

    #[test]
    fn sendings_are_two_at_most_and_expect_an_answer_unless_they_stalled() {
        let mut conns: ConnTable<UpstreamConnId, ()> = ConnTable::with_capacity(3);
        let [a, b, c] = [(); 3].map(|()| conns.insert(()));
        let on = |conn| Sending { conn, id: 7, edns: Edns::Ours, stalled: false };
        let mut sendings = Sendings::default();
        assert!(sendings.is_empty() && !sendings.expects_answer());
        assert_eq!(sendings.add(on(a)), None);
        sendings.set_stalled(a, true);
        assert!(!sendings.is_empty() && !sendings.expects_answer());
        assert_eq!(sendings.add(on(b)), None);
        assert!(sendings.expects_answer());
        let older = sendings.add(on(c));
        assert_eq!(older, Some(Sending { stalled: true, ..on(a) }), "the older makes room");
        assert_eq!(sendings.oldest(), Some(on(b)));
        assert_eq!((sendings.on(a), sendings.on(c)), (None, Some(on(c))));
        sendings.remove(b);
        assert_eq!(sendings.oldest(), Some(on(c)), "the younger is the older one now");
        sendings.set_stalled(c, true);
        assert!(!sendings.expects_answer());
        sendings.set_stalled(c, false);
        assert!(sendings.expects_answer(), "its answer is arriving");
        sendings.remove(c);
        assert!(sendings.is_empty());
    }

    #[test]
    fn blocks_are_used_again_and_long_messages_are_bounded() {
        let mut messages = Messages::new(2, 1000);
        let Some(block) = messages.store(&[1; 512]) else { panic!("short messages always fit") };
        let address = block.as_ptr();
        messages.release(block);
        let Some(block) = messages.store(&[2; 20]) else { panic!("short messages always fit") };
        assert_eq!((block.as_ptr(), block.as_slice()), (address, [2; 20].as_slice()));

        let Some(long) = messages.store(&[3; 600]) else { panic!("600 of 1000 octets fit") };
        assert_eq!(messages.store(&[4; 600]), None);
        messages.release(long);
        assert!(messages.store(&[4; 600]).is_some());
    }
}
