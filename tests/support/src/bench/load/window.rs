//! The queries that are in flight.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Queries are numbered as they are sent. Each client has its turn, and counts its message IDs up, so
/// that both follow from the number.
pub(super) struct Window {
    clients: u64,
    /// The number of the front of `sent`.
    first: u64,
    /// When each was sent; `None` for one that is answered.
    sent: VecDeque<Option<Instant>>,
    in_flight: u64,
}

impl Window {
    pub(super) fn new(clients: u16) -> Self {
        Self { clients: clients.into(), first: 0, sent: VecDeque::new(), in_flight: 0 }
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// The number of the next query.
    pub(super) fn next(&self) -> u64 {
        self.first + self.sent.len() as u64
    }

    /// How many more have an ID that no other in flight has.
    pub(super) fn room(&self) -> u64 {
        IDS * self.clients - self.sent.len() as u64
    }

    /// Adds so many queries and gives their numbers.
    pub(super) fn extend(&mut self, count: u64, now: Instant) -> Range<u64> {
        let start = self.next();
        self.sent.extend((0..count).map(|_| Some(now)));
        self.in_flight += count;
        start..start + count
    }

    /// When the query really went.
    pub(super) fn set_time(&mut self, number: u64, at: Instant) {
        if let Some(sent) = self.slot(number) {
            *sent = Some(at);
        }
    }

    /// The number of the query that this client sent last with this ID, if it may be in flight.
    pub(super) fn find(&self, client: usize, id: u16) -> Option<u64> {
        let client = client as u64;
        let turn = self.first / self.clients;
        let turns = u64::from(id.wrapping_sub(turn as u16));
        let mut number = (turn + turns) * self.clients + client;
        if number < self.first {
            number += IDS * self.clients;
        }
        (number < self.next()).then_some(number)
    }

    /// When it was sent, once.
    pub(super) fn take(&mut self, number: u64) -> Option<Instant> {
        let sent = self.slot(number)?.take()?;
        self.in_flight -= 1;
        self.shrink();
        Some(sent)
    }

    /// Gives up what was sent so long ago, and returns how many that were.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) -> u64 {
        let mut lost = 0;
        while let Some(Some(sent)) = self.sent.front()
            && now.saturating_duration_since(*sent) >= timeout
        {
            lost += 1;
            self.in_flight -= 1;
            self.sent.pop_front();
            self.first += 1;
            self.shrink();
        }
        lost
    }

    fn slot(&mut self, number: u64) -> Option<&mut Option<Instant>> {
        self.sent.get_mut(number.checked_sub(self.first)? as usize)
    }

    /// The front is in flight, or there is none.
    fn shrink(&mut self) {
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first += 1;
        }
    }
}

/// The client of a query, and its message ID.
pub(super) fn client_and_id(number: u64, clients: u64) -> (usize, u16) {
    ((number % clients) as usize, (number / clients) as u16)
}

/// How many message IDs there are.
const IDS: u64 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_found_by_client_and_id_until_it_is_answered() {
        let (now, clients) = (Instant::now(), 3);
        let mut window = Window::new(clients);
        // Past the end of the IDs, where they begin anew; one early query stays.
        let mut stays = None;
        for round in 0..100_u64 {
            for number in window.extend(2_000, now) {
                let (client, id) = client_and_id(number, clients.into());
                assert_eq!(window.find(client, id), Some(number));
                if round == 50 && stays.is_none() {
                    stays = Some((number, client, id));
                    continue;
                }
                assert_eq!(window.take(number), Some(now));
                assert_eq!(window.take(number), None, "twice");
            }
            assert_eq!(window.in_flight(), u64::from(round >= 50));
        }
        let (number, client, id) = stays.expect("a query");
        assert_eq!(window.find(client, id), Some(number));
        assert_eq!(window.find(client, id.wrapping_sub(1)), None, "before the first in flight");
        assert_eq!(window.next(), 200_000);
        assert!(window.room() < IDS * 3 - 90_000);

        let timeout = Duration::from_secs(5);
        assert_eq!(window.expire(now, timeout), 0);
        assert_eq!(window.expire(now + timeout, timeout), 1);
        assert_eq!((window.in_flight(), window.room()), (0, IDS * 3));
    }
}
