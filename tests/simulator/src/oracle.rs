//! The judge: knows what every client is owed and what every server said, and fails the run at the
//! first response that is not exactly right and at the first one that does not come.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use dot_proxy::forwarder::{Counts, DatagramPath, Limits, Policy, PrivateAnswers, SpecialNames};

use support::message::KEEPALIVE;
use support::view::View;

use super::copies::Copies;
use super::dns::{self, Due, Edns};
use super::special;

/// Whom a response goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    Datagram(DatagramPath),
    /// The TCP client of this number.
    Stream(usize),
}

/// A response that was judged.
#[derive(Clone, Debug)]
pub struct Response {
    pub to: To,
    pub at: Duration,
    /// When its query came.
    pub asked: Duration,
    pub name: String,
    pub rcode: u8,
    /// Whether a server said this, rather than the forwarder.
    pub upstream: bool,
    pub truncated: bool,
    pub extended_error: Option<u16>,
    pub extra_text: String,
    /// TIMEOUT of its edns-tcp-keepalive option.
    pub keepalive: Option<u16>,
    pub length: usize,
    /// As many queries wait as there are places for, and of its network more than its share.
    pub is_crowded: bool,
    /// Octets behind the last record.
    pub trailing: usize,
}

impl Response {
    pub fn took(&self) -> Duration {
        self.at.saturating_sub(self.asked)
    }
}

/// A response that is owed.
#[derive(Debug)]
struct Owed {
    number: u64,
    asked: Duration,
    /// When the query that it repeats came, or itself.
    since: Duration,
    id: u16,
    flags: u8,
    question: Vec<u8>,
    edns: Option<Edns>,
    due: Due,
    /// The message did not fit the receive buffer: the answer says TC.
    cut: bool,
    /// Another query came under its message ID: a repetition of this one may not join it.
    is_hidden: bool,
}

/// What a server said.
#[derive(Debug)]
struct Made {
    message: Vec<u8>,
}

/// One more query came than there are places.
#[derive(Debug)]
struct Crowd {
    at: Duration,
    /// Of a network with more queries than that, some may fail.
    share: usize,
}

#[derive(Debug)]
pub struct Oracle {
    query_timeout: Duration,
    queries_max: usize,
    special_names: SpecialNames,
    /// Answers to names that begin with `private` have their records taken out.
    strips: bool,
    /// Zones where they do not, as they stand in messages.
    except: Vec<Box<[u8]>>,
    /// Answers with a private address that came from there.
    pub excepted: u64,
    owed: HashMap<To, Vec<Owed>>,
    /// Late answers that were nothing but TC; those of servers may be among them.
    pub cut_short: u64,
    numbers: u64,
    unanswered: HashSet<u64>,
    /// In order of arrival.
    deadlines: VecDeque<(Duration, u64)>,
    made: HashMap<u64, Made>,
    /// Error RCODEs said without a question, by the question they answer; with an empty one those under an
    /// ID that the server was not asked with yet, which may be that of any query (RFC.md 14).
    made_questionless: HashMap<Vec<u8>, Vec<u8>>,
    /// How many copies may be made.
    pub(super) copies: Copies,
    /// By question: how often it reached a server, and how many queries asked it.
    reached: HashMap<Vec<u8>, (usize, usize)>,
    sends_max: usize,
    /// Special zones with a name about which a client wanted proof.
    proofs_wanted: HashSet<String>,
    /// When servers were asked for it lately.
    denials_asked: HashMap<String, Vec<Duration>>,
    /// Authority records that a server denied it with last.
    denied: HashMap<String, usize>,
    /// By network, when it was sent late responses by datagram in the last milliseconds.
    late: HashMap<IpAddr, VecDeque<Duration>>,
    /// Since when some have waited for others to leave.
    held_since: Option<Duration>,
    /// When there were last too many queries for the table.
    crowd: Option<Crowd>,
    /// Responses that had no room to wait, as a process that was stopped for long had too many at once.
    gone: u64,
    pub responses: Vec<Response>,
}

impl Oracle {
    pub fn new(limits: &Limits, policy: &Policy) -> Self {
        Self {
            query_timeout: limits.query_timeout,
            queries_max: limits.queries_max,
            special_names: policy.special_names.clone(),
            strips: policy.private_answers != PrivateAnswers::Pass,
            except: match &policy.private_answers {
                PrivateAnswers::Strip { except, .. } => except.clone(),
                PrivateAnswers::Pass => Vec::new(),
            },
            excepted: 0,
            owed: HashMap::new(),
            cut_short: 0,
            numbers: 0,
            unanswered: HashSet::new(),
            deadlines: VecDeque::new(),
            made: HashMap::new(),
            made_questionless: HashMap::new(),
            copies: Copies::new(),
            reached: HashMap::new(),
            sends_max: 16,
            proofs_wanted: HashSet::new(),
            denials_asked: HashMap::new(),
            denied: HashMap::new(),
            late: HashMap::new(),
            held_since: None,
            crowd: None,
            gone: 0,
            responses: Vec::new(),
        }
    }

    /// A message is about to be handed to the forwarder.
    pub fn asked(&mut self, at: Duration, from: To, message: &[u8], cut: bool) {
        let due = match dns::due(message) {
            Due::Silence => return,
            due @ Due::Local { question: false, .. } => due,
            _ if cut => Due::Local { rcode: dns::NOERROR, question: true },
            Due::Upstream => special::due(&self.special_names, dns::first_question(message)),
            due => due,
        };
        let cut = cut && !matches!(due, Due::Local { question: false, .. });
        self.owe(at, from, message, due, cut);
    }

    /// A message is about to be handed to the forwarder that is to be refused, if it is a query.
    pub fn refused(&mut self, at: Duration, from: To, message: &[u8]) {
        if dns::due(message) == Due::Upstream {
            self.owe(at, from, message, Due::Refused, false);
        }
    }

    fn owe(&mut self, at: Duration, from: To, message: &[u8], due: Due, cut: bool) {
        let parsed = View::read(message);
        if matches!(due, Due::Special { .. })
            && parsed.as_ref().and_then(dns::edns).is_some_and(|edns| edns.dnssec_ok)
            && let question = dns::first_question(message)
            && let Some(zone) = special::deniable_zone(&self.special_names, question)
        {
            self.proofs_wanted.insert(zone);
        }
        let question = match due {
            Due::Local { question: false, .. } => Vec::new(),
            _ => dns::first_question(message).to_vec(),
        };
        let owed = self.owed.entry(from).or_default();
        let mut since = at;
        if due == Due::Upstream {
            // After a freeze one past its deadline may not have its response yet, and is not joined.
            let deadline = |o: &Owed| o.asked + self.query_timeout;
            let id = id_of(message);
            let is_open = |o: &Owed| o.due == due && !o.is_hidden && at < deadline(o);
            let mut same = owed.iter().filter(|o| o.id == id && o.question == question);
            let joined = same.find(|o| is_open(o)).map(|o| o.since);
            let joins = joined.is_some();
            since = joined.unwrap_or(at);
            if !joins {
                owed.iter_mut().filter(|o| o.id == id).for_each(|o| o.is_hidden = true);
            }
            if !self.reached.contains_key(&question) {
                self.copies.note_asked();
            }
            let (_, queries) = self.reached.entry(question.clone()).or_default();
            *queries += usize::from(!joins || matches!(from, To::Stream(_)));
            self.note_crowd(at, from);
        }
        self.owed.entry(from).or_default().push(Owed {
            number: self.numbers,
            asked: at,
            since,
            id: id_of(message),
            // No flag of another opcode is copied.
            flags: message[2] & if message[2] & 0x78 == 0 { 0x01 } else { 0x78 },
            edns: parsed.as_ref().and_then(dns::edns),
            question,
            due,
            cut,
            is_hidden: false,
        });
        self.unanswered.insert(self.numbers);
        self.deadlines.push_back((at + self.query_timeout, self.numbers));
        self.numbers += 1;
    }

    /// One more query comes. Where as many are owed as there are places, it fails if its network has its share of them,
    /// or else one does of a network that has more. Of more networks than are served anywhere, none of which has much,
    /// it fails whatever its own has.
    fn note_crowd(&mut self, at: Duration, from: To) {
        let owed: usize = self.owed.values().map(Vec::len).sum();
        if owed < self.queries_max {
            return;
        }
        let mut held = HashMap::from([(Asker::of(from), 0)]);
        for (to, owed) in self.owed.iter().filter(|(_, owed)| !owed.is_empty()) {
            *held.entry(Asker::of(*to)).or_default() += owed.len();
        }
        let share = self.queries_max / held.len();
        let much = MUCH * (share + 1);
        let are_all_small = held.len() > NETWORKS_MAX && held.values().all(|held| *held <= much);
        let share = if are_all_small { 0 } else { share };
        let before = self.crowd.take().filter(|crowd| crowd.at == at);
        self.crowd = Some(Crowd { at, share: before.map_or(share, |it| it.share.min(share)) });
    }

    /// Whether a query of this client may fail now as there are too many, of which its network has more than its
    /// share.
    fn is_crowded(&self, at: Duration, to: To) -> bool {
        let of_network = || {
            let owed = self.owed.iter().filter(|(other, _)| Asker::of(**other) == Asker::of(to));
            owed.map(|(_, owed)| owed.len()).sum::<usize>()
        };
        self.crowd.as_ref().is_some_and(|crowd| crowd.at == at && of_network() > crowd.share)
    }

    /// A query reached a server.
    pub fn reached(&mut self, at: Duration, question: &[u8]) {
        let name = dns::name_of(question);
        if let Some(zone) = special::deniable_zone(&self.special_names, question) {
            assert_eq!((&name, &question[question.len() - 4..]), (&zone, &[0, 1, 0, 1][..]));
            self.check_denial(at, zone);
            return;
        }
        let Some((copies, queries)) = self.reached.get_mut(question) else {
            panic!("a server was asked {name}, which no client asked");
        };
        *copies += 1;
        assert!(*copies <= *queries * self.sends_max, "{name}: sent {copies} times");
    }

    /// A server is asked for a special zone itself: because a client wanted proof, and by one query only.
    fn check_denial(&mut self, at: Duration, zone: String) {
        assert!(self.proofs_wanted.contains(&zone), "a server was asked {zone}, for nobody");
        let asked = self.denials_asked.entry(zone).or_default();
        // The copies that one query may make of itself.
        asked.retain(|before| at < *before + self.query_timeout);
        assert!(asked.len() < self.sends_max, "asked {} times at {at:?}", asked.len());
        asked.push(at);
    }

    /// A server answers `question` with `message`, well or badly.
    pub fn made(&mut self, question: Option<&[u8]>, message: &[u8]) {
        let Some(parsed) = View::read_front(message) else {
            return;
        };
        if parsed.header_rcode() == dns::NXDOMAIN
            && let Some(zone) = special::deniable_zone(&self.special_names, parsed.question())
        {
            self.denied.insert(zone, parsed.count(1));
        } else if let Some(serial) = dns::serial(&parsed) {
            self.made.insert(serial, Made { message: message.to_vec() });
        } else if parsed.question().is_empty() {
            let question = question.unwrap_or_default().to_vec();
            self.made_questionless.entry(question).or_default().push(parsed.header_rcode());
        }
    }

    /// The forwarder responds.
    pub fn responded(&mut self, at: Duration, to: To, message: &[u8]) {
        let Some(parsed) = View::read_front(message) else {
            panic!("a response that cannot be walked: {message:02x?}");
        };
        let name = dns::name_of(parsed.question());
        assert!(parsed.is_response(), "QR is 0 in the response for {name} to {to:?}");
        let is_crowded = self.is_crowded(at, to);
        let owed_here = self.owed.entry(to).or_default();
        let is_it = |owed: &Owed| owed.id == parsed.id() && owed.question == parsed.question();
        // A query that is sent again above the rate gets TC, while the first one waits for its answer, and one whose
        // source is not served any more gets REFUSED.
        let is_refused = parsed.header_rcode() == dns::REFUSED;
        let like = |owed: &Owed| {
            let is_refusal = owed.due == Due::Refused;
            is_it(owed) && owed.cut == parsed.is_truncated() && is_refusal == is_refused
        };
        let position = owed_here.iter().position(like).or_else(|| owed_here.iter().position(is_it));
        let Some(position) = position else {
            panic!(
                "a response that is not owed: ID {} {name} RCODE {} to {to:?}",
                parsed.id(),
                parsed.header_rcode()
            );
        };
        // A query that was asked anew, while the answer to the first is still to leave, may be answered sooner.
        let youngest = owed_here.iter().filter(|owed| is_it(owed)).map(|owed| owed.asked).max();
        let owed = owed_here.remove(position);
        if owed_here.is_empty() {
            self.owed.remove(&to);
        }
        self.unanswered.remove(&owed.number);
        if at > youngest.unwrap_or(owed.asked) + LATE_AFTER {
            self.check_pulse(at, to);
        }
        let is_cut_short = network_of(to).is_some()
            && at >= owed.since + LATE_AFTER
            && parsed.header_rcode() == dns::NOERROR
            && parsed.is_truncated()
            && parsed.records_octets().len() <= OPT_LEN_MIN;
        self.cut_short += u64::from(is_cut_short);
        let upstream = !is_cut_short && self.judge(&owed, to, &parsed);
        let (extended_error, extra_text) = parsed.extended_error().unzip();
        let extra_text = extra_text.unwrap_or_default();
        self.responses.push(Response {
            to,
            at,
            asked: owed.asked,
            name,
            rcode: parsed.header_rcode(),
            upstream,
            truncated: parsed.is_truncated(),
            extended_error,
            extra_text,
            keepalive: parsed.keepalive_timeout(),
            length: message.len(),
            is_crowded,
            trailing: parsed.trailing().len(),
        });
    }

    /// A late response leaves: by datagram there are only so many to a network at a time.
    fn check_pulse(&mut self, at: Duration, to: To) {
        let Some(network) = network_of(to) else { return };
        let late = self.late.entry(network).or_default();
        late.push_back(at);
        while late.front().is_some_and(|first| *first + PULSE <= at) {
            late.pop_front();
        }
        assert!(late.len() <= PULSE_MAX, "{} late responses to {network} by {at:?}", late.len());
    }

    /// Nothing is owed to this TCP client, which is gone or is being punished.
    pub fn forgive(&mut self, client: usize) {
        for owed in self.owed.remove(&To::Stream(client)).unwrap_or_default() {
            self.unanswered.remove(&owed.number);
        }
    }

    /// This response does not come any more.
    fn give_up(&mut self, to: To, number: u64) {
        self.unanswered.remove(&number);
        let Some(owed) = self.owed.get_mut(&to) else { return };
        owed.retain(|owed| owed.number != number);
        if owed.is_empty() {
            self.owed.remove(&to);
        }
    }

    /// Lets this TCP client get its answers, or not.
    pub fn excuse(&mut self, client: usize) {
        for owed in self.owed.get(&To::Stream(client)).into_iter().flatten() {
            self.unanswered.remove(&owed.number);
        }
    }

    pub fn owes(&self, to: To) -> bool {
        self.owed.contains_key(&to)
    }

    /// Responses that were due and had no room to wait.
    pub fn gone(&self) -> u64 {
        self.gone
    }

    pub fn owes_nothing(&self) -> bool {
        self.owed.is_empty()
    }

    /// The process was stopped for so long. What waits in turn waits from when it goes on.
    pub(super) fn note_frozen(&mut self, length: Duration) {
        self.held_since = self.held_since.map(|since| since + length);
    }

    /// After every turn: no query is past its deadline, unless its response waits with so many others.
    pub fn check_deadlines(&mut self, now: Duration, counts: &Counts) {
        let answers_held = counts.answers_held;
        self.held_since = self.held_since.or(Some(now)).filter(|_| answers_held > 0);
        while let Some((deadline, number)) = self.deadlines.front().copied()
            && (deadline <= now || !self.unanswered.contains(&number))
        {
            if self.unanswered.contains(&number) {
                let (to, owed) = self
                    .owed
                    .iter()
                    .find_map(|(to, owed)| Some((to, owed.iter().find(|o| o.number == number)?)))
                    .expect("what is unanswered is owed");
                // If the process was stopped meanwhile, they wait from when it goes on.
                let held_since = self.held_since.filter(|_| network_of(*to).is_some());
                if held_since.is_some_and(|since| now <= since.max(deadline) + LATE_FOR_MAX) {
                    break;
                }
                let name = dns::name_of(&owed.question);
                self.gone += 1;
                let is_datagram = matches!(to, To::Datagram(_));
                assert!(
                    is_datagram && self.gone <= counts.datagrams_dropped,
                    "no response to {name} ID {} of {to:?} by {deadline:?}",
                    owed.id
                );
                let to = *to;
                self.give_up(to, number);
            }
            self.deadlines.pop_front();
        }
    }

    /// After every turn: what was asked is answered, gone or owed. While everybody keeps the rules,
    /// it is what was seen from outside.
    pub fn check_counts(&mut self, at: Duration, counts: &Counts, all_keep_rules: bool) {
        let Counts { queries, answered, failed, local, cut_short, orphaned, .. } = *counts;
        self.copies.check(at, counts);
        assert!(counts.retried <= 1 + queries / 20, "more second opinions: {counts:?}");
        let left = answered + failed + local + cut_short + orphaned;
        assert_eq!(queries, left + counts.owed as u64, "the counts do not add up: {counts:?}");
        if all_keep_rules {
            let owed = self.owed.values().map(Vec::len).sum::<usize>() + self.gone as usize;
            let unsent = counts.owed + counts.answers_held;
            let gone = counts.datagrams_dropped as usize;
            let may_be_owed = unsent..=unsent + gone;
            assert!(may_be_owed.contains(&owed), "{owed} are owed an answer, but {counts:?}");
            assert_eq!(queries, self.numbers, "{} queries came, but {counts:?}", self.numbers);
        }
    }

    /// Whether private addresses pass in answers to this question.
    fn is_excepted(&self, question: &[u8]) -> bool {
        let asked = question[..question.len().saturating_sub(4)].to_ascii_lowercase();
        self.except.iter().any(|zone| asked.ends_with(zone))
    }

    /// Fails unless the response is one that was due; tells whether a server made it.
    fn judge(&mut self, owed: &Owed, to: To, response: &View<'_>) -> bool {
        let (name, length) = (dns::name_of(&owed.question), response.octets.len());
        assert_eq!(response.copied_flags(), owed.flags, "{name}: OPCODE or RD is not copied");
        let size_max = match to {
            To::Stream(_) => 65_535,
            To::Datagram(path) => {
                assert!(response.option(KEEPALIVE).is_none(), "{name}: keepalive over UDP");
                datagram_size_max(&path, owed.edns)
            }
        };
        judge_opt(owed, response, size_max);
        assert!(length <= size_max, "{name}: {length} octets where {size_max} fit");
        if owed.due == Due::Refused {
            judge_refused(owed, response);
            return false;
        }
        if let Due::Local { rcode, .. } = owed.due {
            assert_eq!(response.header_rcode(), rcode, "{name}: wrong RCODE of a local answer");
            assert_eq!(response.is_truncated(), owed.cut, "{name}: TC of a local answer");
            return false;
        }
        if let Due::Special { rcode, answers, authorities } = owed.due {
            match owed.edns {
                Some(edns) if edns.dnssec_ok && !is_our_own(response) => {
                    self.judge_proof(owed, response);
                }
                _ => judge_special(&name, response, rcode, [answers, authorities]),
            }
            return false;
        }
        let is_private = self.strips && name.to_ascii_lowercase().starts_with("private");
        let is_stripped = is_private && !self.is_excepted(&owed.question);
        if let Some(serial) = dns::serial(response) {
            // What objects to EDNS has none.
            let objects = matches!(response.header_rcode(), dns::FORMERR | dns::NOTIMP);
            assert!(!is_stripped || objects, "{name}: a private address");
            let made = &self.made.get(&serial).expect("servers alone put serials in").message;
            let made = View::read_front(made).expect("only whole messages are kept");
            self.excepted += u64::from(is_private);
            let is_its_own = made.question().eq_ignore_ascii_case(response.question());
            assert!(is_its_own, "{name}: someone else's answer");
            judge_whole(&name, response, &made, size_max);
            return true;
        }
        if response.is_truncated() {
            let large = self.made.values().any(|made| {
                made.message.len() > size_max
                    && View::read_front(&made.message).is_some_and(|made| {
                        made.question().eq_ignore_ascii_case(response.question())
                    })
            });
            assert!(large, "{name}: truncated, but no server made a large answer");
            return true;
        }
        assert!(response.is_recursion_available(), "{name}: RA is 0 in a local answer");
        let rcode = response.header_rcode();
        let was_said =
            |of: &[u8]| self.made_questionless.get(of).is_some_and(|said| said.contains(&rcode));
        if matches!(rcode, dns::NOERROR | dns::NXDOMAIN) && is_stripped {
            assert_eq!([0, 1].map(|section| response.count(section)), [0, 1], "{name}: records");
            let code = response.extended_error().map(|(code, _)| code);
            assert_eq!(code, owed.edns.map(|_| 17), "{name}: EDE of a private address");
            return false;
        }
        assert!(
            rcode == dns::SERVFAIL || was_said(&owed.question) || was_said(&[]),
            "{name}: a local answer with RCODE {rcode}",
        );
        false
    }

    /// Fails unless the response has the records by which a server denied the zone of the name.
    fn judge_proof(&self, owed: &Owed, response: &View<'_>) {
        let name = dns::name_of(&owed.question);
        let zone = special::deniable_zone(&self.special_names, &owed.question);
        let denied = zone.and_then(|zone| self.denied.get(&zone).copied());
        let records = denied.map(|count| [0, if response.is_truncated() { 0 } else { count }]);
        assert_eq!(
            Some([0, 1].map(|section| response.count(section))),
            records,
            "{name}: records of a proof"
        );
        assert_eq!(response.header_rcode(), dns::NXDOMAIN, "{name}: RCODE of a proof");
        assert!(!response.is_authenticated(), "{name}: AD of a proof");
    }
}

/// Fails unless the response is what a server made, or the front of it that fits.
fn judge_whole(name: &str, response: &View<'_>, made: &View<'_>, size_max: usize) {
    if response.is_truncated() {
        assert!(made.octets.len() > size_max, "{name}: truncated without need");
        let kept = response.records_octets();
        assert!(made.records_octets().starts_with(kept), "{name}: records changed");
    } else {
        assert_eq!(response.transparent(), made.transparent(), "{name}: answer changed");
        assert_eq!(response.trailing(), [], "{name}: octets behind the last record");
    }
}

/// Fails unless an OPT record is there exactly where the client sent one.
fn judge_opt(owed: &Owed, response: &View<'_>, size_max: usize) {
    let name = dns::name_of(&owed.question);
    // What is cut need not be readable.
    let is_unreadable =
        owed.cut || matches!(owed.due, Due::Local { rcode: dns::FORMERR | dns::NOTIMP, .. });
    match owed.edns {
        None if is_unreadable => assert!(response.opts() <= 1, "{name}: more than one OPT"),
        None => assert_eq!(response.opts(), 0, "{name}: an OPT the client did not ask for"),
        // The whole answer of a server without EDNS matters more than the OPT that it leaves no room for.
        Some(_) if response.opts() == 0 && response.octets.len() + OPT_LEN_MIN > size_max => {}
        Some(edns) => {
            let answered = dns::edns(response);
            assert_eq!(response.opts(), 1, "{name}: not one OPT");
            let flag = answered.map(|answered| answered.dnssec_ok);
            assert_eq!(flag, Some(edns.dnssec_ok), "{name}: DO is not copied");
        }
    }
}

/// Fails unless the response tells a client that it is not served.
fn judge_refused(owed: &Owed, response: &View<'_>) {
    let name = dns::name_of(&owed.question);
    let code = response.extended_error().map(|(code, _)| code);
    let expected = (dns::REFUSED, owed.edns.map(|_| 18));
    assert_eq!((response.header_rcode(), code), expected, "{name}: not served");
    assert_eq!([0, 1].map(|section| response.count(section)), [0, 0], "{name}: records");
}

/// Fails unless the response is the forwarder's own about a special name.
fn judge_special(name: &str, response: &View<'_>, rcode: u8, records: [usize; 2]) {
    assert_eq!(response.header_rcode(), rcode, "{name}: wrong RCODE of a special name");
    assert_eq!([0, 1].map(|section| response.count(section)), records, "{name}: records");
    let flags = [is_our_own(response), response.is_recursion_available()];
    assert_eq!(flags, [true, true], "{name}: AA, AD or RA of a special name");
    assert!(!response.is_truncated(), "{name}: TC of a special name");
}

/// RFC.md decision 2.
fn datagram_size_max(path: &DatagramPath, edns: Option<Edns>) -> usize {
    let cap = if path.client.ip().is_loopback() { 4096 } else { 1232 };
    usize::from(edns.map_or(512, |edns| edns.size.clamp(512, cap)))
}

/// AA, and not AD.
fn is_our_own(response: &View<'_>) -> bool {
    response.is_authoritative() && !response.is_authenticated()
}

/// Who asks, where the places for queries are shared out: a network by datagram, a client by itself on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Asker {
    ThisHost,
    Network(IpAddr),
    Stream(usize),
}

impl Asker {
    fn of(to: To) -> Self {
        match to {
            To::Datagram(_) => network_of(to).map_or(Self::ThisHost, Self::Network),
            To::Stream(client) => Self::Stream(client),
        }
    }
}

/// The network of a client on another host that was asked by datagram.
fn network_of(to: To) -> Option<IpAddr> {
    let To::Datagram(path) = to else { return None };
    let ip = path.client.ip().to_canonical();
    let network = match ip {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() => {
            Ipv6Addr::from_bits(v6.to_bits() >> 72 << 72).into()
        }
        ip => ip,
    };
    (!ip.is_loopback()).then_some(network)
}

fn id_of(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// From then on a client that may be another gets TC where others of its network wait.
const LATE_AFTER: Duration = Duration::from_millis(400);

/// Late responses by datagram to one network in such a time.
const PULSE_MAX: usize = 64;
const PULSE: Duration = Duration::from_millis(5);

/// A late response waits no longer for others to leave: so many as wait leave in this time.
const LATE_FOR_MAX: Duration = Duration::from_millis(600);

/// With more networks than that, where few queries are taken at once, a share is next to nothing.
const NETWORKS_MAX: usize = 16;

/// What a network has is much then, if it is so many times its share.
const MUCH: usize = 4;

/// An OPT record without options (RFC 6891 section 6.1.2).
const OPT_LEN_MIN: usize = 11;
