//! Servers that answer an error to what is added to queries, or to an OPT record at all.

use dot_proxy::forwarder::{Edns, Notice};

use crate::{ask_with_sig0, close_after, copies, end, numbered, warm, world};
use simulator::dns::{FORMERR, NOERROR, NOTIMP, NXDOMAIN, SERVFAIL, Shape};
use simulator::{Ask, Do, Seen, Step, What, World, dns, ms};

const ECS: u16 = 8;
const KEEPALIVE: u16 = 11;
const PADDING: u16 = 12;
const LOCAL_USE: u16 = 65_001;

/// What a server objects to: an option, or (0) any OPT record.
const OBJECTIONABLE: [u16; 4] = [0, ECS, KEEPALIVE, PADDING];

const SHAPES: [Shape; 3] = [Shape::WithOpt, Shape::WithoutOpt, Shape::NoQuestion];

/// Answers, or says in this way that it will not.
fn objecting(ask: &Ask<'_>, to: u16, rcode: u8, shape: Shape) -> Vec<Step> {
    if dns::has_option(ask.message, to) {
        let objection = dns::objection(ask.message, ask.serial, rcode, shape);
        vec![Step::after(10, Do::Answer(objection))]
    } else {
        vec![ask.answer_after(10)]
    }
}

fn objects_to(w: &mut World, server: usize, to: u16) {
    w.servers[server].replies(move |ask| objecting(ask, to, FORMERR, Shape::WithOpt));
}

/// The queries for `name` as servers saw them.
fn seen<'a>(w: &'a World, name: &str) -> Vec<&'a Seen> {
    w.links.iter().flat_map(|link| &link.seen).filter(|seen| seen.name == name).collect()
}

/// With how much of EDNS the log says that queries are sent.
fn told(w: &World) -> Vec<Edns> {
    let told = w.notices.iter().map(|(_, notice)| match notice {
        Notice::UpstreamObjects { edns, .. } => *edns,
        notice => panic!("{notice}"),
    });
    told.collect()
}

#[test]
fn u28_what_is_objected_to_is_left_out_and_that_is_learned_and_told_once() {
    for to in OBJECTIONABLE {
        for (rcode, shape) in
            [FORMERR, NOTIMP].into_iter().flat_map(|rcode| SHAPES.map(|shape| (rcode, shape)))
        {
            let what = format!("{to} {rcode} {shape:?}");
            let mut w = world(1);
            w.servers[0].replies(move |ask| objecting(ask, to, rcode, shape));
            for n in 0..5 {
                w.ask(&numbered(n));
                w.run_ms(100);
                assert_eq!(w.response(&numbered(n)).rcode, NOERROR, "{what}");
                assert_eq!(copies(&w, &numbered(n)), if n == 0 { 2 } else { 1 }, "{what}");
                let last = seen(&w, &numbered(n))[usize::from(n == 0)];
                assert!(!last.has_opt, "{what}: what the client asked");
            }
            assert_eq!(told(&w), [Edns::Clients], "{what}");
            // A client that has EDNS keeps it where it may.
            for n in 10..15 {
                w.ask_edns(&numbered(n));
                w.run_ms(100);
                assert_eq!(w.response(&numbered(n)).rcode, NOERROR, "{what}");
                let is_learned = n > 10 || to != 0;
                assert_eq!(copies(&w, &numbered(n)), if is_learned { 1 } else { 2 }, "{what}");
                assert!(seen(&w, &numbered(n)).iter().all(|seen| seen.length < 128), "{what}");
                let last = seen(&w, &numbered(n)).pop().expect("it was asked");
                assert_eq!(last.has_opt, to != 0, "{what}");
            }
            let both = [Edns::Clients, Edns::Absent];
            assert_eq!(told(&w), both[..if to == 0 { 2 } else { 1 }], "{what}");
            assert_eq!(w.links.len(), 1, "{what}");
            end(w);
        }
    }
}

/// BADVERS to version 0.
#[test]
fn u28_badvers_is_an_objection_too() {
    for with_edns in [false, true] {
        let mut w = world(1);
        w.servers[0].replies(|ask| {
            let mut answer = ask.answer();
            if dns::has_option(ask.message, PADDING) {
                // EXTENDED-RCODE 1.
                let ttl = answer.len() - 6;
                answer[ttl] = 1;
            }
            vec![Step::after(10, Do::Answer(answer))]
        });
        if with_edns {
            w.ask_edns("a.example.");
        } else {
            w.ask("a.example.");
        }
        w.run_ms(100);
        let response = w.response("a.example.");
        assert!(response.upstream && response.rcode == NOERROR, "{response:?}");
        assert_eq!((copies(&w, "a.example."), told(&w)), (2, vec![Edns::Clients]));
        end(w);
    }
}

#[test]
fn u28_a_client_with_edns_teaches_it_as_well() {
    for (to, copies_first, told_at_last) in
        [(PADDING, 2, vec![Edns::Clients]), (0, 3, vec![Edns::Absent])]
    {
        let mut w = world(1);
        objects_to(&mut w, 0, to);
        for n in 0..3 {
            let name = numbered(n);
            let edns = Some(dns::Edns { size: 1232, dnssec_ok: true });
            let path = w.next_path();
            w.datagram(path, dns::query(n as u16, &name, dns::A, edns));
            w.run_ms(100);
            assert_eq!(w.response(&name).rcode, NOERROR);
            assert_eq!(copies(&w, &name), if n == 0 { copies_first } else { 1 });
        }
        assert_eq!(told(&w), told_at_last);
        end(w);
    }
}

#[test]
fn u28_an_error_that_a_query_earned_is_delivered_and_teaches_nothing() {
    for (rcode, shape) in
        [FORMERR, NOTIMP].into_iter().flat_map(|rcode| SHAPES.map(|shape| (rcode, shape)))
    {
        let mut w = world(1);
        w.servers[0].replies(move |ask| {
            if ask.name.starts_with("bad") {
                let error = dns::objection(ask.message, ask.serial, rcode, shape);
                vec![Step::after(10, Do::Answer(error))]
            } else {
                vec![ask.answer_after(10)]
            }
        });
        w.ask("bad.plain.example.");
        w.ask_edns("bad.edns.example.");
        w.run_ms(100);
        for (name, sends) in [("bad.plain.example.", 2), ("bad.edns.example.", 3)] {
            assert_eq!(w.response(name).rcode, rcode, "{name} {shape:?}");
            assert_eq!(copies(&w, name), sends, "{name} {shape:?}");
        }
        w.ask("good.example.");
        w.run_ms(100);
        assert_eq!(seen(&w, "good.example.")[0].length, 128, "padded");
        assert_eq!(w.notices, []);
        end(w);
    }
}

/// Neither an option that one client sends, nor an error of another kind.
#[test]
fn u28_what_others_cannot_be_blamed_for_teaches_nothing() {
    let mut w = world(1);
    w.servers[0].replies(|ask| match ask.name {
        "odd.example." => objecting(ask, LOCAL_USE, FORMERR, Shape::WithOpt),
        "fails.example." if dns::has_option(ask.message, 0) => {
            let error = dns::objection(ask.message, ask.serial, FORMERR, Shape::WithOpt);
            vec![Step::after(10, Do::Answer(error))]
        }
        "fails.example." => {
            let answer = dns::answer(ask.message, ask.serial, SERVFAIL, 0);
            vec![Step::after(10, Do::Answer(answer))]
        }
        _ => vec![ask.answer_after(10)],
    });
    let path = w.next_path();
    w.datagram(path, dns::query_with_option(7, "odd.example.", dns::A, LOCAL_USE));
    w.ask("fails.example.");
    w.run_ms(100);
    assert_eq!(w.response("odd.example.").rcode, NOERROR, "without its OPT record");
    assert_eq!(copies(&w, "odd.example."), 3);
    assert_eq!(w.response("fails.example.").rcode, SERVFAIL);
    w.ask("good.example.");
    w.run_ms(100);
    assert_eq!(seen(&w, "good.example.")[0].length, 128, "padded");
    assert_eq!(w.notices, []);
    end(w);
}

#[test]
fn u28_it_is_forgotten_after_an_hour_and_when_the_network_changes() {
    for network_changes in [false, true] {
        let mut w = world(1);
        objects_to(&mut w, 0, PADDING);
        w.ask("first.example.");
        w.run_ms(59 * 60 * 1000);
        w.ask("within.example.");
        w.run_ms(100);
        assert_eq!(copies(&w, "within.example."), 1);
        if network_changes {
            w.schedule(ms(0), What::NetworkChange { server: 0, lost: false });
        } else {
            w.run_ms(60 * 1000);
        }
        for (name, sends) in [("later.example.", 2), ("again.example.", 1)] {
            w.ask(name);
            w.run_ms(100);
            assert_eq!(w.response(name).rcode, NOERROR);
            assert_eq!(copies(&w, name), sends, "{name}");
        }
        assert_eq!(told(&w), [Edns::Clients], "once");
        // The server is mended by then.
        w.servers[0].replies(|ask| vec![ask.answer_after(10)]);
        w.run_ms(60 * 60 * 1000);
        w.ask("mended.example.");
        w.run_ms(100);
        assert_eq!(seen(&w, "mended.example.")[0].length, 128);
        end(w);
    }
}

#[test]
fn u28_queries_sent_at_once_are_all_answered_and_each_is_sent_twice_at_most() {
    let mut w = world(1);
    objects_to(&mut w, 0, PADDING);
    for n in 0..500 {
        w.ask(&numbered(n));
    }
    w.run_ms(200);
    for n in 0..500 {
        assert_eq!(w.response(&numbered(n)).rcode, NOERROR);
        assert!(copies(&w, &numbered(n)) <= 2);
    }
    assert_eq!((w.links.len(), told(&w)), (1, vec![Edns::Clients]));
    end(w);
}

/// What one upstream objects to says nothing about another.
#[test]
fn u28_a_query_that_goes_elsewhere_has_all_again() {
    let mut w = warm(2);
    w.servers[0].replies(|ask| match ask.nth {
        2 => objecting(ask, PADDING, FORMERR, Shape::WithOpt),
        _ => vec![close_after(5)],
    });
    w.ask("a.example.");
    w.run_ms(3000);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    let at_second: Vec<_> = w.links_to(1).iter().flat_map(|link| &link.seen).collect();
    assert_eq!(at_second.len(), 1);
    assert_eq!(at_second[0].length, 128, "padded");
    end(w);
}

/// Nothing was added to it, and a server may take a second copy for a replay.
#[test]
fn u28_a_signed_query_is_not_changed() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        let error = dns::objection(ask.message, ask.serial, FORMERR, Shape::WithoutOpt);
        vec![Step::after(10, Do::Answer(error))]
    });
    ask_with_sig0(&mut w, "a.example.", 5);
    w.run_ms(100);
    assert_eq!((w.response("a.example.").rcode, copies(&w, "a.example.")), (FORMERR, 1));
    end(w);
}

/// The answer to the plainer query may be lost like any other.
#[test]
fn u28_a_plainer_query_is_sent_again_when_its_connection_is_lost() {
    let mut w = world(1);
    w.servers[0].replies(|ask| match (ask.link, ask.nth) {
        (0, 2) => vec![close_after(10)],
        _ if dns::has_option(ask.message, PADDING) => {
            objecting(ask, PADDING, NOTIMP, Shape::WithOpt)
        }
        _ => {
            let answer = dns::answer(ask.message, ask.serial, NXDOMAIN, 0);
            vec![Step::after(10, Do::Answer(answer))]
        }
    });
    w.ask("nx.example.");
    w.run_ms(1000);
    assert_eq!(w.response("nx.example.").rcode, NXDOMAIN);
    let padded = seen(&w, "nx.example.").iter().filter(|seen| seen.length == 128).count();
    assert_eq!((padded, copies(&w, "nx.example.")), (1, 3), "it stays as plain");
    assert_eq!(told(&w), [Edns::Clients]);
    end(w);
}

/// Objects to queries for names in this domain, as a resolver that passes on what an authority says.
fn zone_objects(w: &mut World, domain: &'static str, to: u16) {
    w.servers[0].replies(move |ask| {
        if ask.name.ends_with(domain) {
            objecting(ask, to, FORMERR, Shape::WithOpt)
        } else {
            vec![ask.answer_after(10)]
        }
    });
}

/// The objection is an authority's, or another forwarder's, who would else take padding and DNSSEC from
/// all names.
#[test]
fn u28_what_one_domain_objects_to_teaches_nothing_of_an_upstream_that_answers_others() {
    for to in OBJECTIONABLE {
        let mut w = warm(1);
        zone_objects(&mut w, "evil.example.", to);
        // In a row, and the first on a connection, which asks for keepalive.
        w.run_ms(60_000);
        for n in 0..20 {
            let name = format!("n{n}.evil.example.");
            w.ask_edns(&name);
            w.run_ms(100);
            assert_eq!(w.response(&name).rcode, NOERROR, "{to}");
        }
        for n in 0..3 {
            w.ask_edns(&numbered(n));
            w.run_ms(100);
            let [seen] = seen(&w, &numbered(n))[..] else { panic!("{to}: sent once") };
            assert_eq!((seen.length, seen.has_opt), (128, true), "{to}");
        }
        assert_eq!(w.notices, [], "{to}");
        end(w);
    }
}

/// What is answered otherwise while that is learned corrects it.
#[test]
fn u28_what_the_first_name_of_all_teaches_holds_no_longer_than_to_the_first_proof() {
    let mut w = world(1);
    w.servers[0].replies(|ask| match ask.name {
        "evil.example." => objecting(ask, 0, FORMERR, Shape::WithOpt),
        _ => vec![ask.answer_after(50)],
    });
    w.ask_edns("evil.example.");
    w.ask_edns("slow.example.");
    w.run_ms(200);
    assert_eq!(copies(&w, "evil.example."), 3);
    w.ask_edns("next.example.");
    w.run_ms(100);
    let next = seen(&w, "next.example.")[0];
    assert_eq!((next.length, next.has_opt), (128, true));
    assert_eq!(told(&w), [Edns::Absent]);
    end(w);
}

/// An upstream that was replaced by an older one, or restarted with another configuration.
#[test]
fn u28_an_upstream_that_objects_to_all_at_last_is_known_after_some_domains() {
    for to in [0, PADDING] {
        let mut w = warm(1);
        objects_to(&mut w, 0, to);
        for n in 0..20 {
            w.ask_edns(&numbered(n));
            w.run_ms(100);
            assert_eq!(w.response(&numbered(n)).rcode, NOERROR);
        }
        let sends_each = if to == 0 { 3 } else { 2 };
        let sends: usize = (0..20).map(|n| copies(&w, &numbered(n))).sum();
        assert_eq!(sends, 8 * sends_each + 12, "{to}");
        assert_eq!(told(&w), [if to == 0 { Edns::Absent } else { Edns::Clients }]);
        end(w);
    }
}

/// Another network may have another server at the same address.
#[test]
fn u28_what_an_upstream_proved_is_forgotten_when_the_network_changes() {
    let mut w = warm(1);
    w.schedule(ms(0), What::NetworkChange { server: 0, lost: false });
    objects_to(&mut w, 0, PADDING);
    for (name, sends) in [("first.example.", 2), ("second.example.", 1)] {
        w.ask(name);
        w.run_ms(100);
        assert_eq!(copies(&w, name), sends, "{name}");
    }
    assert_eq!(told(&w), [Edns::Clients]);
    end(w);
}
