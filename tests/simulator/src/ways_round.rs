//! Whether what waits on a connection that misses segments is answered by another one in time.

use std::collections::HashMap;
use std::time::Duration;

use super::copies::Copies;
use super::oracle::Response;
use super::server::Link;

/// The judge of that. It knows no more of the forwarder than what it sends, so that it judges only where it is sure
/// that there was a way round: see [`way_round`].
#[derive(Debug, Default)]
pub(super) struct WaysRound {
    /// Queries without a response, by name, as they were sent first.
    sent: HashMap<String, Sent>,
    /// Responses that were looked at.
    looked_at: usize,
    /// Queries that had to wait, and had a way round.
    judged: u64,
}

/// How a query was sent first.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Duration,
    link: usize,
    /// When the oldest of the queries was sent that waited on the connection.
    oldest: Duration,
    /// The connection that it was copied to first.
    copy: Option<usize>,
}

impl WaysRound {
    /// A query of this name is sent on a connection.
    pub(super) fn note_sent(&mut self, at: Duration, link: usize, name: String) {
        let waiting = self.sent.values().filter(|sent| sent.link == link);
        let oldest = waiting.map(|sent| sent.at).min().unwrap_or(at);
        let sent = self.sent.entry(name);
        let sent = sent.and_modify(|sent| sent.copy = sent.copy.or(Some(link)));
        sent.or_insert(Sent { at, link, oldest, copy: None });
    }

    /// Fails if a query had a way round and was not answered in time. No round trip takes longer than this.
    pub(super) fn check(
        &mut self,
        responses: &[Response],
        links: &[Link],
        copies: &Copies,
        round_trip: Duration,
    ) {
        for response in &responses[self.looked_at..] {
            let Some(sent) = self.sent.remove(&response.name) else { continue };
            let took = response.took();
            if took > HELD_UP + round_trip
                && copies.were_left_since(sent.at)
                && is_known_to_miss(response, sent, links, round_trip)
                && is_usual_known(links[sent.link].server, links)
                && let Some(round_trips) = way_round(response, sent, links)
            {
                self.judged += 1;
                let usual = usual_at_most(response, sent, links, round_trip);
                let noticed = ANSWERED_WITHIN.max(LONG * usual);
                let most = noticed + round_trips * round_trip + read_for(response, sent, links);
                assert!(took <= most, "{} took {took:?}, with a way round", response.name);
            }
        }
        self.looked_at = responses.len();
    }

    pub(super) fn judged(&self) -> u64 {
        self.judged
    }
}

/// Whether the query was sent at once, its connection owed nothing from long before and brought nothing more, and TCP
/// knew after 300 ms that segments were missing.
fn is_known_to_miss(response: &Response, sent: Sent, links: &[Link], round_trip: Duration) -> bool {
    let asked = response.asked;
    let path = &links[sent.link].path;
    (asked..asked + AT_ONCE).contains(&sent.at)
        && asked <= sent.oldest + JUST_NOW
        && !path.brought_between(sent.at + round_trip, response.at)
        && path.misses(sent.at + KNOWN_AFTER)
}

/// Whether the first answer of the server was not held up. It is all that is known of how long its answers take until
/// many more have come.
fn is_usual_known(server: usize, links: &[Link]) -> bool {
    let of_server = links.iter().filter(|link| link.server == server);
    let firsts = of_server.filter_map(|link| Some((link.path.brings_first_at()?, link)));
    let first = firsts.min_by_key(|(at, _)| *at);
    first.is_none_or(|(at, link)| link.path.is_well_between(link.attempted, at))
}

/// What the forwarder may believe at most, while the query waited, that answers of the server take as a rule. Nobody
/// knows of answers that were held up for less than it takes to notice that, and one segment holds up many of them.
fn usual_at_most(
    response: &Response,
    sent: Sent,
    links: &[Link],
    round_trip: Duration,
) -> Duration {
    let of_server = links.iter().filter(|link| link.server == links[sent.link].server);
    let answers = of_server.flat_map(|link| link.path.arrivals(round_trip));
    let mut answers: Vec<_> = answers.filter(|(at, _)| *at <= response.at).collect();
    answers.sort_unstable();
    let least = round_trip + 3 * round_trip / USUAL_STEPS;
    let (mut usual, mut highest, mut most) = (least, least, least);
    for (at, was_held_up) in answers {
        usual = if was_held_up {
            (usual + 3 * usual / USUAL_STEPS).min(ANSWERED_WITHIN)
        } else {
            usual.saturating_sub(usual / USUAL_STEPS).max(least)
        };
        highest = highest.max(usual);
        // A change by less than a sixth changes nothing.
        let believed = (6 * usual / 5).min(highest);
        most = if at <= sent.at { believed } else { most.max(believed) };
    }
    most
}

/// How long what had come from the server was being read when the response was made: who reads in small pieces gets
/// the answer later than the path brings it.
fn read_for(response: &Response, sent: Sent, links: &[Link]) -> Duration {
    let of_server = links.iter().filter(|link| link.server == links[sent.link].server);
    let all = of_server.filter_map(|link| link.unread.as_ref());
    let all = all.filter(|unread| unread.contains(&response.at));
    all.map(|unread| response.at.saturating_sub(*unread.start())).max().unwrap_or_default()
}

/// In how many round trips the query could be answered on another connection, if on any: one that was open, and had
/// lost nothing for long and went on so; or, where there was none, one that could be made, and lost nothing if it was.
/// Two that lose the query at the same time, the second with its only copy, leave none.
fn way_round(response: &Response, sent: Sent, links: &[Link]) -> Option<u32> {
    let (first, end) = (&links[sent.link], response.at);
    let others = links.iter().enumerate().filter(|(number, _)| *number != sent.link);
    let others = || others.clone().map(|(_, link)| link).filter(|link| link.server == first.server);
    let is_open =
        |link: &&Link| link.attempted < sent.at && link.closed.is_none_or(|(at, _)| sent.at <= at);
    let is_way_round = |link: &Link| {
        let is_well = link.path.is_well_between(sent.at.saturating_sub(WELL_FOR), end);
        link.connected.is_some_and(|at| at < sent.at) && is_well && link.is_used_after(sent.at)
    };
    let is_well = |link: &Link| link.path.is_well_between(link.attempted, end);
    let is_lost_with = |copy: usize| !links[copy].path.is_well_between(sent.at, end);
    if sent.copy.is_some_and(is_lost_with) {
        None
    } else if others().any(is_way_round) {
        Some(1)
    } else if others().any(|link| is_open(&link)) {
        None
    } else {
        others().filter(|link| sent.at <= link.attempted).all(is_well).then_some(3)
    }
}

/// A query that takes longer than this and a round trip waits for something that was lost.
const HELD_UP: Duration = Duration::from_millis(150);

/// The forwarder has a quarter of a second for noticing, and as much for what it does not know.
const ANSWERED_WITHIN: Duration = Duration::from_millis(500);

/// With a single answer due, the forwarder asks TCP after so many times what answers take as a rule.
const LONG: u32 = 3;

/// One answer moves what they take as a rule by one part in so many, or three.
const USUAL_STEPS: u32 = 32;

/// What was sent and not acknowledged is sent again after 200 ms and a round trip.
const KNOWN_AFTER: Duration = Duration::from_millis(300);

/// A turn may be late, and write in pieces.
const AT_ONCE: Duration = Duration::from_millis(10);

/// The longer nothing came the less often TCP is asked: what waits for long already says little.
const JUST_NOW: Duration = Duration::from_millis(150);

/// Something came on the connection since segments were missing.
const WELL_FOR: Duration = Duration::from_millis(500);
