//! Connections that owe answers, and on which unusually long nothing comes.

use std::time::Duration;

use simulator::{Ask, Attempt, Direction, Do, Response, Step, World, ms};

use crate::{
    allowing, close_after, copies, distant, end, failures, numbered, slowest, warm, world, world_of,
};
use simulator::{default_limits, default_policy};

/// Queries every so many milliseconds.
fn ask_every(w: &mut World, pause: u64, names: std::ops::Range<u32>) {
    for n in names {
        w.ask(&numbered(n));
        w.run_ms(pause);
    }
}

/// What this query took.
fn took(w: &World, n: u32) -> Duration {
    w.response(&numbered(n)).took()
}

#[test]
fn what_comes_while_a_lost_segment_is_waited_for_goes_another_way() {
    for direction in [Direction::FromServer, Direction::ToServer] {
        let mut w = warm(1);
        ask_every(&mut w, 5, 0..20);
        w.serve(0, Do::Hold(direction, ms(800)));
        ask_every(&mut w, 5, 20..120);
        w.run_ms(1000);
        // 30 ms until the connection is quiet, a handshake, and an answer.
        assert!(slowest(&w) <= ms(75), "{direction:?}: {:?}", slowest(&w));
        assert_eq!((failures(&w), w.links.len()), (0, 2), "{direction:?}");
        assert!(w.links[0].is_open(), "nothing is closed for being quiet");
        let counts = w.forwarder.counts();
        assert!((1..=10).contains(&counts.rescued), "{direction:?}: {counts:?}");
        assert_eq!(w.notices, [], "{direction:?}");
        end(w);
    }
}

#[test]
fn what_waits_for_lost_segments_on_a_connection_that_takes_no_more_goes_another_way() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.name {
        "last.example." => allowing(ask, 0),
        _ => vec![ask.answer_after(10)],
    });
    ask_every(&mut w, 5, 0..20);
    w.ask("last.example.");
    w.run_ms(5);
    w.serve(0, Do::Hold(Direction::ToServer, ms(800)));
    w.ask("lost.example.");
    w.run_ms(1000);
    // 250 ms for a lone query, a handshake, and an answer.
    let took = w.response("lost.example.").took();
    assert!(took <= ms(250 + 20 + 10 + 5), "{took:?}");
    assert_eq!((failures(&w), w.links.len()), (0, 3), "one for it, and one that stands ready");
    end(w);
}

#[test]
fn the_next_time_another_connection_stands_ready() {
    let mut w = warm(1);
    ask_every(&mut w, 5, 0..20);
    w.serve(0, Do::Hold(Direction::FromServer, ms(300)));
    ask_every(&mut w, 5, 20..400);
    let serving = usize::from(!w.links[1].seen.is_empty());
    w.serve(serving, Do::Hold(Direction::FromServer, ms(300)));
    ask_every(&mut w, 5, 400..500);
    w.run_ms(500);
    for n in 400..500 {
        // 30 ms, and an answer.
        assert!(took(&w, n) <= ms(45), "{n}: {:?}", took(&w, n));
    }
    assert_eq!(w.links.len(), 2, "no third one");
    end(w);
}

#[test]
fn a_third_and_a_fourth_connection_are_made_while_the_others_are_quiet_and_no_fifth() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.nth {
        // Each answers ten, and loses a segment then.
        11 => vec![Step::after(0, Do::Hold(Direction::FromServer, ms(3000))), ask.answer_after(10)],
        _ => vec![ask.answer_after(10)],
    });
    let mut most = 0;
    for n in 0..200 {
        w.ask(&numbered(n));
        w.run_ms(5);
        let open = w.links.iter().filter(|link| link.is_open() && link.closed.is_none()).count();
        most = most.max(open);
    }
    assert_eq!(most, 4);
    w.run_ms(5000);
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn a_clean_path_has_one_connection_and_no_copies() {
    // Some names are slow, whole groups of them, and the clients pause.
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        let n: u64 = ask.name[1..].split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let after = if n % 40 < 3 { 600 } else { 15 };
        vec![ask.answer_after(after)]
    });
    for n in 0..2000 {
        w.ask(&numbered(n));
        w.run_ms(if n % 100 == 99 { 900 } else { 4 });
    }
    w.run_ms(1000);
    let counts = w.forwarder.counts();
    assert_eq!((w.links.len(), counts.rescued, counts.hedged), (1, 0, 0));
    end(w);
}

#[test]
fn a_distant_upstream_has_one_connection_and_gets_no_copies() {
    for round_trip in [600, 1500] {
        let mut w = distant(round_trip);
        ask_every(&mut w, 100, 0..100);
        w.run_ms(4500);
        let late = |response: &&Response| response.took() > ms(2 * round_trip);
        let after = w.oracle.responses.iter().filter(late).count();
        let counts = w.forwarder.counts();
        assert_eq!(w.links.len(), 1, "{round_trip} ms");
        assert_eq!((failures(&w), counts.rescued, counts.resent), (0, 0, 0), "{round_trip} ms");
        // Those that waited for the handshake.
        assert!(after <= 40, "{round_trip} ms: {after}");
        end(w);
    }
}

#[test]
fn a_lone_query_on_a_forgotten_connection_is_answered_within_a_second() {
    for pause in [100, 3000, 9000] {
        let mut w = warm(1);
        w.run_ms(pause);
        w.serve(0, Do::Forget);
        w.ask("a.example.");
        w.run_ms(2000);
        let took = w.response("a.example.").took();
        assert!(took <= ms(1000), "after {pause} ms: {took:?}");
        assert_eq!((copies(&w, "a.example."), w.links.len()), (1, 2));
        end(w);
    }
}

/// TCP has all that was sent: only the queries show it, and a copy of the first of them tells.
#[test]
fn u04_a_connection_that_takes_all_and_answers_nothing_more_is_left_within_400_ms() {
    let mut w = world(1);
    w.servers[0].replies(|ask| match (ask.link, ask.nth) {
        (0, 21..) => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    ask_every(&mut w, 50, 0..100);
    // 350 ms, a handshake and an answer.
    assert_eq!(took(&w, 20), ms(350 + 20 + 10), "the first victim");
    assert!(slowest(&w) <= ms(400 + 20), "{:?}", slowest(&w));
    for n in 30..100 {
        assert!(took(&w, n) <= ms(30), "{n}: {:?}", took(&w, n));
    }
    assert_eq!((failures(&w), w.links.len(), w.forwarder.counts().rescued), (0, 2, 1));
    end(w);
}

/// The name that is tried says nothing, so the next one is, at the next look.
#[test]
fn u04_a_slow_name_among_the_first_victims_does_not_hide_that_the_connection_is_dead() {
    let mut w = world(1);
    w.servers[0].replies(|ask| match (ask.link, ask.nth) {
        (0, 121..) => Vec::new(),
        _ if ask.name == numbered(120) => vec![ask.answer_after(3000)],
        _ => vec![ask.answer_after(10)],
    });
    ask_every(&mut w, 50, 0..200);
    w.run_ms(5000);
    for n in 121..200 {
        assert!(took(&w, n) <= ms(600), "{n}: {:?}", took(&w, n));
    }
    assert_eq!((failures(&w), w.links.len(), w.forwarder.counts().rescued), (0, 2, 2));
    end(w);
}

/// Every two seconds a connection takes a pause of so many milliseconds, after which it answers what came meanwhile.
/// One query comes in 20 ms, under the name of its number.
fn pausing(pause: u64) -> impl FnMut(&Ask<'_>) -> Step {
    move |ask| {
        let n: u64 = ask.name[1..].split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let into = n % 100 * 20;
        ask.answer_after(10 + if n >= 100 { pause.saturating_sub(into) } else { 0 })
    }
}

#[test]
fn a_server_that_resets_all_connections_but_one_may_pause() {
    for pause in [450, 600, 900] {
        let mut w = world(1);
        let mut paused = pausing(pause);
        w.servers[0].replies(move |ask| match ask.link {
            0 => vec![paused(ask)],
            _ => vec![close_after(5)],
        });
        ask_every(&mut w, 20, 0..500);
        w.run_ms(2000);
        assert_eq!(failures(&w), 0, "{pause}");
        assert!(w.links.len() <= 1 + 2 * 4, "{pause}: {} connections", w.links.len());
        assert!(slowest(&w) <= ms(pause + 250), "{pause}: {:?}", slowest(&w));
        end(w);
    }
}

#[test]
fn a_connection_that_pauses_for_half_a_second_goes_on() {
    let mut w = world(1);
    let mut paused = pausing(500);
    w.servers[0].replies(move |ask| match ask.link {
        0 => vec![paused(ask)],
        _ => vec![ask.answer_after(10)],
    });
    ask_every(&mut w, 20, 0..180);
    assert_eq!((failures(&w), w.links.len()), (0, 2));
    assert!(slowest(&w) <= ms(350 + 20 + 10 + 50 + 20), "{:?}", slowest(&w));
    assert!(w.links[0].closed.is_none());
    end(w);
}

#[test]
fn a_server_that_answers_on_one_connection_alone_may_pause() {
    for pause in [450, 600] {
        let mut w = world(1);
        let mut paused = pausing(pause);
        w.servers[0].replies(move |ask| match ask.link {
            0 => vec![paused(ask)],
            _ => Vec::new(),
        });
        ask_every(&mut w, 20, 0..200);
        w.run_ms(3000);
        assert_eq!(failures(&w), 0, "{pause}");
        let late = (0..200).filter(|n| took(&w, *n) > ms(pause + 50)).count();
        // What came from when the connection was quiet to its end.
        assert!(late <= (pause as usize - 350) / 20 + 1, "{pause}: {late} late");
        end(w);
    }
}

#[test]
fn a_server_whose_connections_each_pause_once_has_no_more_of_them_than_one_that_does_not() {
    for first in [5, 12, 30] {
        let mut w = world(1);
        let mut paused: Vec<Option<u32>> = vec![None; 1000];
        w.servers[0].replies(move |ask| {
            let n: u32 = ask.name[1..].split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            if ask.nth <= first {
                return vec![ask.answer_after(10)];
            }
            let since = *paused[ask.link].get_or_insert(n);
            vec![ask.answer_after(10 + 500_u64.saturating_sub(u64::from(n - since) * 20))]
        });
        ask_every(&mut w, 20, 0..500);
        w.run_ms(2000);
        assert_eq!(failures(&w), 0, "{first}");
        // For a moment each is given as many queries as the first had answered.
        assert!(w.links.len() <= 8, "{first}: {} connections", w.links.len());
        end(w);
    }
}

#[test]
fn copies_of_names_that_are_slow_together_are_at_most_two_in_a_hundred_queries() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(700)]);
    for page in 0..100 {
        ask_every(&mut w, 30, 6 * page..6 * page + 6);
        w.run_ms(1500);
    }
    let counts = w.forwarder.counts();
    assert!((1..=1 + 12).contains(&counts.rescued), "{counts:?}");
    assert_eq!((failures(&w), counts.resent), (0, counts.rescued));
    end(w);
}

#[test]
fn what_waited_for_lost_segments_does_not_count_as_what_answers_take() {
    let mut w = warm(1);
    ask_every(&mut w, 5, 0..20);
    // All waits here, as no other connection can be had.
    w.servers[0].attempts(Attempt::refused());
    w.serve(0, Do::Hold(Direction::FromServer, ms(800)));
    ask_every(&mut w, 5, 20..120);
    w.run_ms(3000);
    w.servers[0].attempts(Attempt::good(10));
    w.serve(0, Do::Forget);
    w.ask("a.example.");
    w.run_ms(3000);
    let took = w.response("a.example.").took();
    assert!(took <= ms(500), "{took:?}");
    end(w);
}

#[test]
fn a_lone_slow_name_is_not_copied() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(1400)]);
    w.ask("slow.example.");
    w.run_ms(2000);
    assert_eq!((copies(&w, "slow.example."), w.links.len()), (1, 1));
    end(w);
}

#[test]
fn copies_of_what_is_held_up_keep_to_their_budget() {
    let mut w = warm(1);
    ask_every(&mut w, 1, 0..100);
    w.serve(0, Do::Hold(Direction::FromServer, ms(400)));
    // As many at once as there are copies for, and half as many again.
    for n in 100..200 {
        w.ask(&numbered(n));
    }
    w.run_ms(2000);
    let counts = w.forwarder.counts();
    assert!((10..=64 + 21).contains(&counts.rescued), "{counts:?}");
    assert_eq!(failures(&w), 0);
    end(w);
}

/// The answer may be the one thing that is lost: with another connection asked, the first still counts.
#[test]
fn a_quiet_connection_that_speaks_again_is_used_again() {
    let mut w = warm(1);
    ask_every(&mut w, 5, 0..20);
    // No other can be had.
    w.servers[0].attempts(Attempt::refused());
    w.serve(0, Do::Hold(Direction::FromServer, ms(400)));
    ask_every(&mut w, 5, 20..220);
    w.run_ms(1000);
    assert_eq!(failures(&w), 0);
    assert!(slowest(&w) <= ms(420), "{:?}", slowest(&w));
    assert!(w.links[0].names().contains(&numbered(219).as_str()));
    assert!(w.links.len() <= 3, "one attempt a second: {}", w.links.len());
    end(w);
}

#[test]
fn what_is_quiet_shows_no_other_operator_a_name() {
    let mut w = world_of(default_policy(), &[0, 1]);
    ask_every(&mut w, 5, 0..20);
    w.serve(0, Do::Hold(Direction::FromServer, ms(1000)));
    ask_every(&mut w, 5, 20..200);
    w.run_ms(1000);
    assert_eq!(w.links_to(1).len(), 0);
    assert!(slowest(&w) <= ms(75), "{:?}", slowest(&w));
    end(w);
}

#[test]
fn the_spare_connection_goes_when_the_path_was_well_for_long() {
    let mut w = world(1);
    ask_every(&mut w, 5, 0..20);
    w.serve(0, Do::Hold(Direction::FromServer, ms(300)));
    ask_every(&mut w, 5, 20..100);
    let open = |w: &World| w.links.iter().filter(|link| link.is_open()).count();
    // Both are in use for five minutes, and one of them afterwards.
    ask_every(&mut w, 500, 100..500);
    assert_eq!((open(&w), w.links.len()), (2, 2));
    ask_every(&mut w, 500, 500..900);
    assert_eq!((open(&w), w.links.len()), (1, 2));
    end(w);
}

#[test]
fn no_copy_is_spent_where_no_other_connection_can_be_had() {
    let mut limits = default_limits();
    limits.upstream_conns_max = 1;
    let mut w = World::new(limits, vec![simulator::Server::healthy()], 1);
    ask_every(&mut w, 5, 0..20);
    w.serve(0, Do::Hold(Direction::FromServer, ms(400)));
    ask_every(&mut w, 5, 20..220);
    w.run_ms(1000);
    assert_eq!((failures(&w), w.links.len(), w.forwarder.counts().rescued), (0, 1, 0));
    end(w);
}

#[test]
fn no_more_than_the_limit_of_connections_is_made_for_what_is_quiet() {
    let mut limits = default_limits();
    limits.upstream_conns_max = 2;
    let mut w = World::new(limits, vec![simulator::Server::healthy()], 1);
    w.servers[0].replies(|ask| match ask.nth {
        5 => vec![Step::after(0, Do::Hold(Direction::FromServer, ms(700))), ask.answer_after(10)],
        _ => vec![ask.answer_after(10)],
    });
    ask_every(&mut w, 5, 0..200);
    w.run_ms(2000);
    assert_eq!((failures(&w), w.links.len()), (0, 2));
    end(w);
}

#[test]
fn a_quiet_connection_takes_no_more_than_its_output_holds() {
    let mut limits = default_limits();
    limits.upstream_conns_max = 1;
    let output_max = limits.upstream_output_max;
    let mut w = World::new(limits, vec![simulator::Server::healthy()], 1);
    w.servers[0].replies(|ask| {
        let answer = ask.answer_after(10);
        match ask.nth {
            5 => vec![
                Step::after(0, Do::Hold(Direction::FromServer, ms(700))),
                Step::after(0, Do::StopReading),
                answer,
            ],
            _ => vec![answer],
        }
    });
    ask_every(&mut w, 5, 0..20);
    w.run_ms(200);
    let conn = w.links[0].conn.expect("it is open");
    // Each takes 130 octets there: three times what it holds.
    ask_every(&mut w, 0, 20..20 + output_max as u32 * 3 / 130);
    let output = w.forwarder.output(conn.into()).len();
    assert!(output <= output_max + 130, "{output} octets wait to be written");
    end(w);
}
