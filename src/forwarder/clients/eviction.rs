//! Which client has to go where there is no room for all, and which first.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use crate::forwarder::action::ClientId;
use crate::forwarder::network::Network;

/// What is given up so that clients hold no more than they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// The client to be closed.
    Client(ClientId),
    /// The answer that does not fit fails.
    Answer,
}

/// A client that holds octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) id: ClientId,
    pub(super) held: usize,
    /// Since when it has taken none of its answers, or has been sending one message; `None` while it
    /// is not read in the middle of one.
    pub(super) since: Option<Instant>,
}

/// Who or what has to go where clients would hold too much: first the slowest of those that take
/// nothing. With none of these an answer fails whose client would hold more than its share, since it may
/// be about to read what it has; for others the one goes that holds most above its share, and only for
/// want of such a one the slowest of all.
pub(super) fn gives_up(
    now: Instant,
    share: usize,
    reader_would_hold: Option<usize>,
    clients: impl Iterator<Item = Holder> + Clone,
) -> Option<GivenUp> {
    let holders = clients.filter(|client| client.held > 0);
    let timed = holders.clone().filter_map(|client| Some((client.since?, client.id)));
    let slowest = timed.min_by_key(|(since, id)| (*since, id.serial()));
    if let Some((since, id)) = slowest
        && since + READING_TIMEOUT <= now
    {
        return Some(GivenUp::Client(id));
    }
    if reader_would_hold.is_some_and(|held| held > share) {
        return Some(GivenUp::Answer);
    }
    let heaviest = holders
        .max_by_key(|client| (client.held, Reverse(client.since), Reverse(client.id.serial())));
    let above = heaviest.filter(|client| client.held > share).map(|client| client.id);
    let slowest = slowest.map(|(_, id)| id);
    // Partial messages of clients that are not read at the moment have no timer.
    let goes = above.or(slowest).or(heaviest.map(|client| client.id));
    goes.map(GivenUp::Client)
}

/// A client among those that may have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connected {
    pub(super) id: ClientId,
    pub(super) standing: Standing,
}

/// What decides who of several clients goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) network: Network,
    /// Whether its address or its network has more than it should.
    pub(super) is_above: bool,
    /// How many connections of its network count.
    pub(super) weight: usize,
    /// How many connections its address has.
    pub(super) of_address: usize,
    /// Answers, some of which may be written.
    pub(super) is_owed: bool,
}

/// The idle client that makes room for one more of this network, when all places are taken. `idle` has them longest
/// idle first.
///
/// The limits decide who goes, not whether: a network with more is the first to lose what it does not use, and for
/// its own newcomers its own before those of others.
pub(super) fn makes_room(
    newcomer: Network,
    newcomer_is_above: bool,
    idle: impl Iterator<Item = Connected>,
) -> Option<Connected> {
    idle.min_by_key(|Connected { standing, .. }| {
        if newcomer_is_above && standing.network == newcomer {
            0
        } else if standing.is_above {
            1
        } else {
            2
        }
    })
}

/// The client that gives way to one that has waited for long, while none is idle: one of the network that has most, if
/// it still has more than the newcomer's then, or one of an address of the same network that has more. `newcomer` is as
/// it would stand. Who is owed nothing goes first, then who has the address with most, and of its connections the
/// youngest, which has waited least for its answers.
pub(super) fn gives_way(
    newcomer: Standing,
    clients: impl Iterator<Item = Connected>,
) -> Option<Connected> {
    let has_more = |Connected { standing, .. }: &Connected| {
        if standing.network == newcomer.network {
            standing.of_address > newcomer.of_address
        } else {
            standing.weight > newcomer.weight
        }
    };
    clients.filter(has_more).max_by_key(|Connected { id, standing }| {
        (standing.weight, !standing.is_owed, standing.of_address, id.serial())
    })
}

/// A client that has taken nothing for this long does not read, while others want to.
const READING_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::forwarder::collections::conn_table::ConnTable;
    use crate::forwarder::tests::base;

    /// A client's address, the connections of its network that count, those of its address, whether it is above its
    /// limits, and whether it is owed something.
    type Client<'a> = (&'a str, usize, usize, bool, bool);

    fn standing((ip, weight, of_address, is_above, is_owed): Client<'_>) -> Standing {
        let network = Network::of((ip.parse::<IpAddr>().unwrap(), 1).into());
        Standing { network, is_above, weight, of_address, is_owed }
    }

    /// The place of the client that is found among these.
    fn found(
        clients: &[Client<'_>],
        find: impl Fn(&mut dyn Iterator<Item = Connected>) -> Option<Connected>,
    ) -> Option<usize> {
        let mut table: ConnTable<ClientId, ()> = ConnTable::with_capacity(8);
        let ids = [(); 8].map(|()| table.insert(()));
        let clients = clients.iter().map(|client| standing(*client));
        let mut all = ids.into_iter().zip(clients).map(|(id, standing)| Connected { id, standing });
        let found = find(&mut all)?;
        ids.iter().position(|id| *id == found.id)
    }

    #[test]
    fn who_makes_room() {
        let (idle, above) = (false, true);
        let own = ("10.0.0.1", 3, 3, idle, false);
        let other = ("10.0.0.2", 1, 1, idle, false);
        let greedy = ("10.0.0.3", 4, 4, above, false);
        // Whether the newcomer would be above its limits, the idle ones, who goes.
        for (newcomer_is_above, idle, goes) in [
            (false, &[][..], None),
            (true, &[], None),
            (false, &[other, own], Some(0)),
            // One that has more than its limit goes first, ...
            (false, &[other, greedy], Some(1)),
            (false, &[greedy, greedy], Some(0)),
            // ... and for a newcomer that would have, its own.
            (true, &[greedy, other, own, own], Some(2)),
            (false, &[greedy, own], Some(0)),
            // Nobody is shut out where others leave theirs unused.
            (true, &[other], Some(0)),
        ] {
            let network = standing(own).network;
            let found = found(idle, |idle| makes_room(network, newcomer_is_above, idle));
            assert_eq!(found, goes, "{newcomer_is_above}, {idle:?}");
        }
    }

    #[test]
    fn who_gives_way_while_none_is_idle() {
        let one = |ip, held, is_owed| (ip, held, held, false, is_owed);
        // The newcomer as it would stand, the clients in the order in which they came, who goes.
        for (newcomer, clients, goes) in [
            (one("10.0.0.1", 1, false), &[][..], None),
            (one("10.0.0.1", 1, false), &[one("10.0.0.2", 1, true)], None),
            (one("10.0.0.1", 1, false), &[one("10.0.0.2", 2, true)], Some(0)),
            (one("10.0.0.1", 2, false), &[one("10.0.0.2", 2, true)], None),
            (one("10.0.0.1", 9, false), &[one("10.0.0.2", 9, true)], None),
            // The youngest, ...
            (
                one("10.0.0.1", 1, false),
                &[one("10.0.0.2", 4, true), one("10.0.0.2", 4, true)],
                Some(1),
            ),
            // ... of the network that has most, ...
            (
                one("10.0.0.1", 1, false),
                &[one("10.0.0.2", 5, true), one("10.0.0.3", 4, true)],
                Some(0),
            ),
            (
                one("10.0.0.1", 1, false),
                &[one("10.0.0.2", 5, true), one("10.0.0.3", 4, false)],
                Some(0),
            ),
            // ... but first who is owed nothing, ...
            (
                one("10.0.0.1", 1, false),
                &[one("10.0.0.2", 4, false), one("10.0.0.2", 4, true)],
                Some(0),
            ),
            // ... and then of the address that has most of it.
            (
                one("10.0.0.1", 1, false),
                &[("fd00::1", 5, 3, false, true), ("fd00::2", 5, 2, false, true)],
                Some(0),
            ),
            // Within a network it is the same among addresses.
            (
                ("fd00::3", 6, 1, false, false),
                &[("fd00::1", 5, 3, false, true), ("fd00::2", 5, 2, false, true)],
                Some(0),
            ),
            (("fd00::3", 6, 2, false, false), &[("fd00::2", 5, 2, false, true)], None),
            (("fd00::3", 6, 2, false, false), &[one("10.0.0.2", 6, true)], None),
            // Of this host's own hardly any count.
            (one("10.0.0.1", 1, false), &[("::1", 0, 9, false, true)], None),
            (one("10.0.0.1", 1, false), &[("::1", 2, 9, false, true)], Some(0)),
            (("127.0.0.1", 0, 9, false, false), &[one("10.0.0.2", 1, true)], Some(0)),
        ] {
            let found = found(clients, |clients| gives_way(standing(newcomer), clients));
            assert_eq!(found, goes, "{newcomer:?}, {clients:?}");
        }
    }

    #[test]
    fn who_or_what_is_given_up_for_room() {
        // What the reader would hold, with a share of 100; what each client holds and for how many
        // milliseconds it has been slow; what is given up: a client, or the answer.
        type Case<'a> = (Option<usize>, &'a [(usize, Option<u64>)], Option<Result<usize, ()>>);
        let cases: [Case<'_>; 13] = [
            (None, &[], None),
            (Some(500), &[(0, Some(5000))], Some(Err(()))),
            (None, &[(0, Some(5000))], None),
            // Clients that take nothing, the slowest first, whatever others hold or would.
            (None, &[(1, Some(1000)), (900, Some(999))], Some(Ok(0))),
            (Some(500), &[(900, Some(0)), (1, Some(1000)), (1, Some(2000))], Some(Ok(2))),
            // Then the answer to one above its share, ...
            (Some(101), &[(60, Some(999)), (900, Some(0))], Some(Err(()))),
            // ... or else who holds most above it, not who is slower, ...
            (Some(100), &[(60, Some(999)), (101, Some(9)), (900, Some(0))], Some(Ok(2))),
            (None, &[(60, Some(999)), (900, Some(0))], Some(Ok(1))),
            (None, &[(900, Some(5)), (900, Some(9))], Some(Ok(1))),
            (None, &[(60, Some(999)), (900, None)], Some(Ok(1))),
            // ... and the slowest with none above it.
            (Some(100), &[(60, Some(9)), (5, Some(10)), (100, Some(0))], Some(Ok(1))),
            (None, &[(60, None), (5, Some(10))], Some(Ok(1))),
            (None, &[(5, None), (60, None)], Some(Ok(1))),
        ];
        let start = base();
        let now = start + Duration::from_secs(10);
        let mut table: ConnTable<ClientId, ()> = ConnTable::with_capacity(8);
        let ids = [(); 8].map(|()| table.insert(()));
        for (would_hold, clients, expected) in cases {
            let holders = ids.into_iter().zip(clients).map(|(id, (held, slow))| Holder {
                id,
                held: *held,
                since: slow.map(|slow| start + Duration::from_millis(10_000 - slow)),
            });
            let found = gives_up(now, 100, would_hold, holders);
            let expected = expected.map(|goes| match goes {
                Ok(n) => GivenUp::Client(ids[n]),
                Err(()) => GivenUp::Answer,
            });
            assert_eq!(found, expected, "{would_hold:?}, {clients:?}");
        }
    }
}
