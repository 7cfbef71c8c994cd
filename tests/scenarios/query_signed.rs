//! Queries that a server may take for replays when they come twice (RFC 8945 section 5.2.3).

use std::cell::Cell;
use std::rc::Rc;

use crate::{ask_with_sig0, close_after, copies, end, numbered, warm, world};
use simulator::dns::{Edns, NOERROR, SERVFAIL};
use simulator::{Server, World, default_limits, default_policy, dns, ms};

#[test]
fn a_sig0_whose_id_may_never_be_free_gets_another_connection() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        if ask.name == "n0.example." { Vec::new() } else { vec![ask.answer_after(10)] }
    });
    ask_with_sig0(&mut w, "n0.example.", 5000);
    for n in 10..56 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    ask_with_sig0(&mut w, "n1.example.", 5000);
    for n in 110..200 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    assert_eq!(w.response("n1.example.").rcode, NOERROR);
    end(w);
}

const NAMES: [&str; 2] = ["tsig.example.", "tkey.example."];

#[test]
fn a_signed_query_and_tkey_are_not_sent_again_when_their_connection_is_lost() {
    for name in NAMES {
        let mut w = warm(1);
        w.servers[0].replies(|ask| {
            if ask.name.starts_with('t') {
                vec![close_after(5)]
            } else {
                vec![ask.answer_after(10)]
            }
        });
        ask_once(&mut w, name);
        w.run_ms(1000);
        let response = w.response(name);
        assert_eq!((response.rcode, response.extended_error), (SERVFAIL, Some(23)), "{name}");
        assert_eq!(response.took(), ms(5), "{name}");
        assert_eq!(copies(&w, name), 1, "{name}");
        w.ask("a.example.");
        w.run_ms(100);
        assert_eq!(w.response("a.example.").rcode, NOERROR);
        end(w);
    }
}

#[test]
fn a_signed_query_and_tkey_are_not_copied_after_a_stall() {
    for name in NAMES {
        let mut w = warm(2);
        w.servers[0].replies(|_| Vec::new());
        ask_once(&mut w, name);
        w.ask("plain.example.");
        w.run_ms(4500);
        assert_eq!(w.response(name).rcode, SERVFAIL);
        assert_eq!(copies(&w, name), 1, "{name}");
        assert_eq!(copies(&w, "plain.example."), 2);
        end(w);
    }
}

#[test]
fn a_signed_query_and_tkey_are_not_copied_when_they_are_overdue() {
    for name in NAMES {
        let servers = vec![Server::healthy(), Server::healthy()];
        let mut w = World::with_policy(default_limits(), default_policy(), servers, &[0, 0], 1);
        // What is answered now and then keeps the connection from stalling.
        w.servers[0].replies(|ask| match ask.name {
            name if name.starts_with('n') => vec![ask.answer_after(10)],
            _ => Vec::new(),
        });
        ask_once(&mut w, name);
        w.ask("plain.example.");
        for n in 0..10 {
            w.ask(&numbered(n));
            w.run_ms(500);
        }
        assert_eq!((w.response(name).rcode, copies(&w, name)), (SERVFAIL, 1), "{name}");
        assert_eq!(copies(&w, "plain.example."), 2);
        end(w);
    }
}

#[test]
fn a_signed_query_and_tkey_get_a_late_answer_from_a_retired_connection() {
    for name in NAMES {
        let mut w = warm(1);
        w.servers[0].replies(|ask| vec![ask.answer_after(3000)]);
        ask_once(&mut w, name);
        w.run_ms(3100);
        assert_eq!((w.response(name).rcode, w.response(name).took()), (NOERROR, ms(3000)));
        assert_eq!(copies(&w, name), 1, "{name}");
        end(w);
    }
}

#[test]
fn a_signed_query_and_tkey_are_no_trial_for_an_upstream_that_stalled() {
    for name in NAMES {
        let answers = Rc::new(Cell::new(false));
        let answering = Rc::clone(&answers);
        let mut w = world(2);
        w.servers[0].replies(
            move |ask| if answering.get() { vec![ask.answer_after(10)] } else { Vec::new() },
        );
        w.ask(&numbered(0));
        w.run_ms(10_000);
        assert_eq!(w.response(&numbered(0)).rcode, NOERROR);
        answers.set(true);
        ask_once(&mut w, name);
        w.run_ms(1000);
        assert_eq!(w.response(name).rcode, NOERROR);
        assert_eq!(copies(&w, name), 1, "{name}");
        w.ask("plain.example.");
        w.run_ms(1000);
        assert_eq!(copies(&w, "plain.example."), 2, "the trial");
        end(w);
    }
}

fn ask_once(w: &mut World, name: &str) {
    const TKEY: u16 = 249;
    let edns = Some(Edns { size: 1232, dnssec_ok: false });
    let message = if name == "tkey.example." {
        dns::query(1, name, TKEY, edns)
    } else {
        let mut message = dns::query(1, name, dns::A, edns);
        message[11] = 2;
        // TSIG (250) of class ANY, with 16 octets that matter to nobody here.
        message.extend([3, b'k', b'e', b'y', 0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 16]);
        message.extend([0; 16]);
        message
    };
    let path = w.next_path();
    w.datagram(path, message);
}

#[test]
fn a_sig0_keeps_its_message_id_and_nothing_is_added() {
    let mut w = warm(1);
    for id in [0, 1, 77, 8191, 8192, 65_535] {
        let name = numbered(id.into());
        ask_with_sig0(&mut w, &name, id);
        w.run_ms(30);
        assert_eq!(w.response(&name).rcode, NOERROR);
        let seen = w.links[0].seen.last().expect("it arrived");
        assert_eq!((seen.id, seen.length), (id, dns::query(id, &name, dns::A, None).len() + 30));
    }
    assert_eq!(w.links.len(), 1);
    end(w);
}

#[test]
fn a_sig0_waits_while_its_message_id_is_in_flight_and_holds_up_nobody() {
    for id in [500, 60_000] {
        let mut w = warm(1);
        w.servers[0].replies(|ask| vec![ask.answer_after(100)]);
        for n in 0..3 {
            ask_with_sig0(&mut w, &numbered(n), id);
            w.ask(&numbered(10 + n));
        }
        w.run_ms(1000);
        for n in 0..3 {
            assert_eq!(w.response(&numbered(n)).took(), ms(100 * (u64::from(n) + 1)), "{id}");
            assert_eq!(w.response(&numbered(10 + n)).took(), ms(100));
        }
        end(w);
    }
}

#[test]
fn what_waits_for_a_certain_upstream_is_sent_on_its_next_connection() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.link {
        0 => vec![close_after(100)],
        _ => vec![ask.answer_after(10)],
    });
    ask_with_sig0(&mut w, "first.example.", 5);
    w.run_ms(10);
    // The second query waits for the ID to be free, and nothing else is asked.
    ask_with_sig0(&mut w, "second.example.", 5);
    w.run_ms(500);
    assert_eq!(w.response("first.example.").rcode, SERVFAIL, "a signed query is sent once");
    let second = w.response("second.example.");
    assert_eq!((second.rcode, second.took()), (NOERROR, ms(90 + 20 + 10)));
    end(w);
}

#[test]
fn a_sig0_whose_message_id_was_given_up_waits_for_the_next_connection_that_may_be_made() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.name {
        name if name.starts_with("lost") => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    let mut asked = 0;
    let mut serve = |w: &mut World, for_ms: u64| {
        for _ in 0..for_ms / 50 {
            w.ask(&numbered(asked));
            asked += 1;
            w.run_ms(50);
        }
    };
    serve(&mut w, 3000);
    let mut waited = Vec::new();
    for n in 0..4 {
        ask_with_sig0(&mut w, &format!("lost{n}.example."), 5000);
        serve(&mut w, 4600);
        let name = format!("late{n}.example.");
        ask_with_sig0(&mut w, &name, 5000);
        serve(&mut w, 100);
        if w.oracle.responses.iter().all(|response| response.name != name) {
            serve(&mut w, 4500);
        }
        let response = w.response(&name);
        assert_eq!(response.rcode, NOERROR, "{n}");
        waited.push(response.took());
    }
    // The pause before the fourth is 8 s, and the third was made 4.7 s ago.
    assert_eq!(waited[..3], [ms(30); 3]);
    assert!(waited[3] > ms(3000), "{waited:?}");
    assert_eq!(w.links.len(), 1 + 4);
    end(w);
}
