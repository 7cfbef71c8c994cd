//! Proofs that a special zone does not exist, as the public DNS has them.
//!
//! A validating client cannot believe an answer that is made here about a special name: the root proves that
//! there is no `local`, and answers made here are not signed. The root's proof holds for every name below the
//! zone and for every type, too: no name of the parent lies between its neighbours (RFC 4034 section 4, RFC
//! 5155 section 7.2.1), and no name exists below a name that does not exist (RFC 8020). So a client that sets
//! DO gets the proof, with its own question.
//!
//! The upstream is asked for the zone's own name only, and not again for as long as its answer is kept: no
//! query shows which name somebody looked for, and few queries show that anybody did.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::collections::arena::Id;
use super::limits::Service;
use super::measures::Reason;
use super::message::record::{Header, RecordStart, name_end};
use super::message::special::{Answer, ZONES_MAX, is_in};
use super::message::{self, HEADER_LEN, ParsedQuery, Rcode, ResponseInfo, Rtype};
use super::queries::query::{Origin, Query};
use super::{Ede, Forwarder, Outcome};

/// The proofs about special zones, and the queries that wait for them.
#[derive(Debug)]
pub(super) struct Denials {
    /// Zones that the upstream was asked for.
    zones: Vec<Zone>,
    /// Queries that wait for the proof about a zone, with the zone's number.
    waiting: Vec<(usize, Id)>,
    /// Octets of all proofs.
    octets: usize,
}

#[derive(Debug)]
struct Zone {
    /// The zone's name, in lower case.
    name: Box<[u8]>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The upstream was asked and has not answered.
    Asked { since: Instant },
    /// The upstream has answered and is not asked again before `until`. Without a proof, answers about the zone
    /// are made here.
    Known { proof: Option<Proof>, since: Instant, until: Instant },
}

/// The answer to a client that wants proof.
#[derive(Debug)]
pub(super) enum Denial {
    Proven(Answer),
    /// A proof will come, about the zone of this number.
    Awaited(usize),
}

impl Denials {
    pub(super) fn new() -> Self {
        let waiting = Vec::with_capacity(WAITING_MAX);
        Self { zones: Vec::with_capacity(ZONES_MAX), waiting, octets: 0 }
    }

    /// Octets that all proofs and what waits for them take at most.
    pub(super) const OCTETS: usize = ZONES_MAX * (size_of::<Zone>() + NAME_LEN_MAX)
        + WAITING_MAX * size_of::<(usize, Id)>()
        + PROOFS_LEN_MAX;

    /// Forgets all proofs, which may be out of date.
    pub(super) fn forget(&mut self) {
        for zone in &mut self.zones {
            if let State::Known { proof, since, until } = &mut zone.state {
                *proof = None;
                *until = *since;
            }
        }
        self.octets = 0;
    }

    /// The number of the zone of this name. If the number is new, the upstream was not asked for the zone yet.
    fn number(&mut self, now: Instant, name: &[u8]) -> Option<usize> {
        let known = self.zones.iter().position(|zone| zone.name.eq_ignore_ascii_case(name));
        if known.is_some() || self.zones.len() >= ZONES_MAX {
            debug_assert!(known.is_some(), "there are {ZONES_MAX} of them");
            return known;
        }
        let state = State::Known { proof: None, since: now, until: now };
        self.zones.push(Zone { name: name.to_ascii_lowercase().into(), state });
        Some(self.zones.len() - 1)
    }

    /// When a query has waited for its proof for long enough.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let given_up_at = |(zone, _): &(usize, Id)| match self.zones[*zone].state {
            State::Asked { since } => Some(since + PATIENCE),
            State::Known { .. } => None,
        };
        self.waiting.iter().filter_map(given_up_at).min()
    }

    /// Takes a query that waited for the proof about its zone, and waits no longer, with the proof, if there
    /// is one.
    fn pop_done(
        &mut self,
        now: Instant,
        is_something_usable: bool,
    ) -> Option<(Id, Option<Answer>)> {
        let is_done = |(zone, _): &(usize, Id)| {
            !self.zones[*zone].state.is_worth_waiting(now, is_something_usable)
        };
        let at = self.waiting.iter().position(is_done)?;
        let (zone, id) = self.waiting.remove(at);
        let State::Known { proof, .. } = &self.zones[zone].state else {
            return Some((id, None));
        };
        Some((id, proof.as_ref().map(|proof| proof.answer(Duration::ZERO))))
    }

    /// Lets a query wait for the proof about a zone. False if none is asked for any more.
    pub(super) fn wait(&mut self, number: usize, id: Id) -> bool {
        let is_asked =
            self.zones.get(number).is_some_and(|it| matches!(it.state, State::Asked { .. }));
        if is_asked {
            self.waiting.push((number, id));
        }
        is_asked
    }

    /// Whether this query waits for a proof.
    #[cfg(debug_assertions)]
    pub(super) fn is_awaited_by(&self, id: Id) -> bool {
        self.waiting.iter().any(|(_, other)| *other == id)
    }

    /// Notes the upstream's answer about a zone, or the end of the time for it.
    pub(super) fn note(&mut self, now: Instant, number: usize, outcome: &Outcome<'_>) {
        let Some(zone) = self.zones.get_mut(number) else {
            return;
        };
        let (proof, kept_for) = match outcome {
            Outcome::Answer { response, info, .. } => match Proof::read(response, info, &zone.name)
            {
                Some(proof) if self.octets + proof.records.len() <= PROOFS_LEN_MAX => {
                    let kept_for = Duration::from_secs(proof.ttl.into());
                    (Some(proof), kept_for.clamp(KEPT_FOR_MIN, KEPT_FOR_MAX))
                }
                _ if info.rcode == Rcode::NOERROR || info.rcode == Rcode::NXDOMAIN => {
                    (None, KEPT_FOR_MAX)
                }
                _ => (None, KEPT_FOR_MIN),
            },
            _ => (None, KEPT_FOR_MIN),
        };
        self.octets += proof.as_ref().map_or(0, |proof| proof.records.len());
        zone.state = State::Known { proof, since: now, until: now + kept_for };
    }
}

impl State {
    /// Whether an answer may come in time: special names do not depend on the state of upstreams.
    fn is_worth_waiting(&self, now: Instant, is_something_usable: bool) -> bool {
        match self {
            Self::Asked { since } => is_something_usable && now < *since + PATIENCE,
            Self::Known { .. } => false,
        }
    }
}

impl Forwarder {
    /// What a client gets to a query for a special name instead of `answer`, which was made here; `None` if nothing.
    pub(super) fn denial(
        &mut self,
        now: Instant,
        client: IpAddr,
        message: &[u8],
        parsed: &ParsedQuery,
        answer: &Answer,
    ) -> Option<Denial> {
        let wants_proof = parsed.opt.is_some_and(|opt| opt.dnssec_ok);
        if !wants_proof || parsed.signature.is_some() {
            return None;
        }
        let number = self.denials.number(now, answer.deniable_zone(message, parsed)?)?;
        match &self.denials.zones[number].state {
            State::Known { proof, since, until } if now < *until => {
                let age = now.saturating_duration_since(*since);
                return proof.as_ref().map(|proof| Denial::Proven(proof.answer(age)));
            }
            _ if self.denials.waiting.len() >= WAITING_MAX => return None,
            state @ State::Asked { .. } => {
                if !state.is_worth_waiting(now, self.upstreams.is_something_usable()) {
                    return None;
                }
            }
            State::Known { .. } => self.ask_for_denial(now, client, number)?,
        }
        Some(Denial::Awaited(number))
    }

    /// Asks the upstream for the zone itself. `None` if nobody would answer in time.
    fn ask_for_denial(&mut self, now: Instant, client: IpAddr, number: usize) -> Option<()> {
        // The client's query needs a place as well.
        let has_places = self.queries.len() + 1 < self.limits.queries_max;
        if self.service == Service::Ending || !self.upstreams.is_something_usable() || !has_places {
            return None;
        }
        let zone = self.denials.zones.get_mut(number)?;
        let message = question(&zone.name);
        let parsed = message::parse_query(&message, false).ok()?;
        let stored = self.queries.store(&message)?;
        let known = std::mem::replace(&mut zone.state, State::Asked { since: now });
        if let State::Known { proof: Some(proof), .. } = known {
            self.denials.octets -= proof.records.len();
        }
        let query = Query::new(Origin::Denial { zone: number }, stored, parsed, client.into(), now);
        let id = self.queries.insert(now, query);
        self.queries.wait(id);
        self.probe_preferred(now, id);
        Some(())
    }

    /// Answers queries that waited for the proof about their zones for long enough. True if there was one.
    pub(super) fn finish_denied(&mut self, now: Instant) -> bool {
        let mut has_finished = false;
        while let Some((id, answer)) =
            self.denials.pop_done(now, self.upstreams.is_something_usable())
        {
            match &answer {
                Some(answer) => self.conclude(now, id, Outcome::Special(answer)),
                None => self.fail(now, id, UNPROVEN, Reason::Unproven),
            }
            has_finished = true;
        }
        has_finished
    }
}

/// What a query for a special name failed for, if nothing were to be said of it here.
pub(super) const UNPROVEN: Ede<'_> =
    Ede { code: Ede::OTHER, text: "no proof about a special name" };

/// The records that prove that a zone does not exist, without compression, so that they can follow any
/// question.
#[derive(Debug)]
struct Proof {
    records: Box<[u8]>,
    nscount: u16,
    /// The lowest TTL among the records.
    ttl: u32,
}

impl Proof {
    /// Reads the proof from the answer to a question for `zone`. `None` if the answer proves nothing, or nothing
    /// about all names below: the zone may exist, as zones do that are delegated to nobody in particular (RFC
    /// 7534), or its parent may not be signed.
    fn read(response: &[u8], info: &ResponseInfo, zone: &[u8]) -> Option<Self> {
        let header = Header::read(response)?;
        if info.rcode != Rcode::NXDOMAIN || header.ancount > 0 || header.flags & message::TC != 0 {
            return None;
        }
        let mut out = Vec::with_capacity(PROOF_LEN_MAX);
        let (mut nscount, mut ttl) = (0, u32::MAX);
        let [mut has_soa, mut has_denial, mut has_signature] = [false; 3];
        let mut at = info.question_end;
        for _ in 0..header.nscount {
            let record = RecordStart::read(response, at)?;
            match Rtype(record.rtype) {
                Rtype::SOA => has_soa = true,
                Rtype::NSEC | Rtype::NSEC3 => has_denial = true,
                Rtype::RRSIG => has_signature = true,
                _ => {
                    at = record.end();
                    continue;
                }
            }
            if out.len() + record.rdata_len > PROOF_LEN_MAX {
                return None;
            }
            append_record(&mut out, response, at, &record, zone)?;
            nscount += 1;
            ttl = ttl.min(record.ttl);
            if record.rtype == Rtype::SOA.0 {
                // RFC 2308 section 5.
                let minimum = response.get(..record.end())?.last_chunk()?;
                ttl = ttl.min(u32::from_be_bytes(*minimum));
            }
            at = record.end();
        }
        let is_whole = has_soa && has_denial && has_signature && out.len() <= PROOF_LEN_MAX;
        is_whole.then(|| Self { records: out.into(), nscount, ttl })
    }

    /// The proof as an answer, at this age.
    fn answer(&self, age: Duration) -> Answer {
        let mut records = self.records.to_vec();
        let mut at = 0;
        while let Some(record) = RecordStart::read(&records, at) {
            let ttl = u64::from(record.ttl).saturating_sub(age.as_secs()) as u32;
            let end = record.rdata_start - RDLENGTH_LEN;
            records[end - TTL_LEN..end].copy_from_slice(&ttl.to_be_bytes());
            at = record.end();
        }
        Answer::denial(records, self.nscount)
    }
}

/// Appends the record at `start` with its names expanded. `None` if the record cannot be read, or denies
/// nothing below `zone`.
fn append_record(
    out: &mut Vec<u8>,
    message: &[u8],
    start: usize,
    record: &RecordStart,
    zone: &[u8],
) -> Option<()> {
    append_name(out, message, start)?;
    let lengthless = record.rdata_start - RDLENGTH_LEN;
    let type_class_ttl = lengthless - TTL_LEN - 4..lengthless;
    out.extend_from_slice(message.get(type_class_ttl)?);
    let length_at = out.len();
    out.extend_from_slice(&[0; RDLENGTH_LEN]);
    let mut at = record.rdata_start;
    let (fixed, names) = match Rtype(record.rtype) {
        Rtype::SOA => (0, 2),
        Rtype::NSEC => (0, 1),
        Rtype::RRSIG => (18, 1),
        _ => (0, 0),
    };
    out.extend_from_slice(message.get(at..at + fixed)?);
    at += fixed;
    for _ in 0..names {
        let name = out.len();
        at = append_name(out, message, at)?;
        // The record was made for this one name, as by servers that sign while they answer (RFC 4470).
        if record.rtype == Rtype::NSEC.0 && is_in(&out[name..], zone) {
            return None;
        }
    }
    out.extend_from_slice(message.get(at..record.end())?);
    let length = (out.len() - length_at - RDLENGTH_LEN) as u16;
    out[length_at..length_at + RDLENGTH_LEN].copy_from_slice(&length.to_be_bytes());
    Some(())
}

/// Appends the name at `start` without compression; returns where it ends in the message.
fn append_name(out: &mut Vec<u8>, message: &[u8], start: usize) -> Option<usize> {
    // The octets are known to be a name, so the loop comes to its end.
    let end = name_end(message, start)?;
    let mut at = start;
    loop {
        match *message.get(at)? {
            0 => {
                out.push(0);
                return Some(end);
            }
            high @ 0xc0.. => {
                at = u16::from_be_bytes([high & 0x3f, *message.get(at + 1)?]).into();
            }
            len => {
                let label = at..at + 1 + usize::from(len);
                at = label.end;
                out.extend_from_slice(message.get(label)?);
            }
        }
    }
}

/// The query for a zone, with RD and DO. Its type is A; any other would do.
fn question(zone: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    debug_assert_eq!(message.len(), HEADER_LEN);
    message.extend_from_slice(zone);
    message.extend_from_slice(&[0, 1, 0, 1]);
    // OPT: 1,232 octets, DO.
    message.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0]);
    message
}

/// How long a proof is kept at most: as negative answers may be (one to three hours, RFC 2308 section 5), but
/// not so long that a change at the upstream goes unnoticed for a day.
const KEPT_FOR_MAX: Duration = Duration::from_secs(3_600);

/// How long an upstream that fails, or that lets nothing be kept, is not asked again.
const KEPT_FOR_MIN: Duration = Duration::from_secs(60);

/// How long queries wait for a proof from when the upstream was asked: longer than one takes that is at hand,
/// and not so long that a stub asks again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Queries that wait for proofs; more are answered as if there was no proof.
const WAITING_MAX: usize = 64;

/// Octets of a proof. One of the root has some 1,000 octets with RSA signatures, one with three NSEC3 records
/// 1,500.
pub(super) const PROOF_LEN_MAX: usize = 2 * 1024;

/// Octets of all proofs: some sixteen proofs, where three zones do for most.
const PROOFS_LEN_MAX: usize = 16 * 1024;

/// Octets of the longest name of a special zone, that of `::1`.
const NAME_LEN_MAX: usize = 74;

const TTL_LEN: usize = 4;
const RDLENGTH_LEN: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::UpstreamIndex;

    /// The root's answer about `local.`, with names compressed wherever servers do that.
    fn of_the_root(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
        let record = |owner: &[u8], rtype: u8, ttl: u32, data: &[u8]| {
            let length = (data.len() as u16).to_be_bytes();
            [owner, &[0, rtype, 0, 1], &ttl.to_be_bytes(), &length, data].concat()
        };
        let soa =
            [&b"\x01a\xc0\x0c\x05nstld\x03com\0"[..], &[0; 16], &600_u32.to_be_bytes()].concat();
        let signature = [&[9; 18][..], b"\0", &[7; 64]].concat();
        let mut records = vec![
            record(b"\0", 6, 86_400, &soa),
            record(b"\0", 46, 86_400, &signature),
            record(b"\x05loans\0", 47, 3_000, b"\x06locker\0\0\x01\x40"),
            record(b"\x05loans\0", 46, 3_000, &signature),
            record(b"\xc0\x0c", 2, 1, b"\xc0\x0c"),
        ];
        change(&mut records);
        let mut message = question(b"\x05local\0");
        message.truncate(HEADER_LEN + 7 + 4);
        message[2..4].copy_from_slice(&0x8183_u16.to_be_bytes());
        message[8..12].copy_from_slice(&[0, records.len() as u8, 0, 0]);
        message.extend(records.concat());
        message
    }

    fn read(response: &[u8]) -> Option<Proof> {
        let query = question(b"\x05LoCaL\0");
        let end = HEADER_LEN + 7 + 4;
        let message::ResponseCheck::Answer(info) = message::check_response(response, &query, end)
        else {
            panic!("not an answer: {response:x?}");
        };
        Proof::read(response, &info, b"\x05local\0")
    }

    #[test]
    fn a_proof_has_no_pointers_and_grows_old() {
        let proof = read(&of_the_root(|_| ())).unwrap();
        assert_eq!((proof.nscount, proof.ttl), (4, 600), "the MINIMUM of the SOA record counts");
        let soa: &[u8] = b"\x01a\x05local\0\x05nstld\x03com\0";
        let start = [b"\0\0\x06\0\x01\0\x01\x51\x80\0\x28", soa].concat();
        assert_eq!(soa.len() + 20, 0x28, "RDLENGTH is that of the expanded names");
        assert_eq!(proof.records[..start.len()], start[..]);

        let query = question(b"\x07printer\x05local\0");
        let parsed = message::parse_query(&query, false).unwrap();
        for (age, low, high) in [(0, 3_000, 86_400), (59, 2_941, 86_341), (4_000, 0, 82_400)] {
            let answer = proof.answer(Duration::from_secs(age));
            let mut out = Vec::new();
            message::local_response(&mut out, &query, &answer.response(&parsed), 1_232, 1_232);
            assert_eq!(out[..4], [0, 0, 0x81, 0x83], "RD as asked, RA, neither AA nor AD");
            assert_eq!(out[4..12], [0, 1, 0, 0, 0, 4, 0, 1]);
            assert_eq!(
                out[HEADER_LEN..parsed.question_end],
                query[HEADER_LEN..parsed.question_end]
            );
            let mut at = parsed.question_end;
            for ttl in [high, high, low, low] {
                let record = RecordStart::read(&out, at).unwrap();
                assert_eq!(record.ttl, ttl, "after {age} s");
                at = record.end();
            }
            // An answer that does not fit goes over TCP.
            let mut out = Vec::new();
            message::local_response(&mut out, &query, &answer.response(&parsed), 1_232, 300);
            assert_eq!((out[2] & 2, &out[4..12]), (2, &[0, 1, 0, 0, 0, 0, 0, 1][..]));
        }
    }

    #[test]
    fn what_is_no_proof() {
        type Change = fn(&mut Vec<Vec<u8>>);
        let cases: [(&str, Change); 6] = [
            ("nothing", Vec::clear),
            ("without SOA", |records| drop(records.remove(0))),
            ("without NSEC", |records| drop(records.remove(2))),
            ("not signed", |records| {
                records.retain(|record| !record.windows(2).any(|w| w == [0, 46]));
            }),
            ("for this name only", |records| {
                records[2] = b"\0\0\x2f\0\x01\0\0\0\0\0\x09\x01\0\x05local\0".to_vec();
            }),
            ("too long", |records| {
                let mut long = b"\0\0\x2e\0\x01\0\0\0\0\x09\0".to_vec();
                long.extend([9; 18]);
                long.resize(11 + 0x900, 0);
                records.push(long);
            }),
        ];
        assert!(read(&of_the_root(|_| ())).is_some());
        for (what, change) in cases {
            assert!(read(&of_the_root(change)).is_none(), "{what}");
        }
        for (what, at, octet) in [("NOERROR", 3, 0x80), ("SERVFAIL", 3, 0x82), ("TC", 2, 0x83)] {
            let mut response = of_the_root(|_| ());
            response[at] = octet;
            assert!(read(&response).is_none(), "{what}");
        }
    }

    #[test]
    fn proofs_are_bounded() {
        let now = crate::forwarder::tests::base();
        let response = of_the_root(|_| ());
        let query = question(b"\x05local\0");
        let check = message::check_response(&response, &query, HEADER_LEN + 7 + 4);
        let message::ResponseCheck::Answer(info) = check else { panic!("{check:?}") };
        let outcome =
            Outcome::Answer { upstream: UpstreamIndex::new(0), response: &response, info: &info };
        let mut denials = Denials::new();
        let mut proven = 0;
        for n in 0..ZONES_MAX {
            let name = [&[2, b'0' + n as u8 / 10, b'0' + n as u8 % 10][..], b"\0"].concat();
            let number = denials.number(now, &name).unwrap();
            assert_eq!(number, n);
            denials.zones[number].name = (&b"\x05local\0"[..]).into();
            denials.zones[number].state = State::Asked { since: now };
            denials.note(now, number, &outcome);
            let State::Known { proof, .. } = &denials.zones[number].state else { continue };
            proven += usize::from(proof.is_some());
            denials.zones[number].name = name.into();
        }
        assert!(
            denials.octets <= PROOFS_LEN_MAX && proven > 20,
            "{proven} with {}",
            denials.octets
        );
        denials.forget();
        assert_eq!(denials.octets, 0);
    }
}
