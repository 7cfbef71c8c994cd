//! Answers that are no good, or that come in strange pieces and sizes.

use std::collections::HashSet;

use crate::{
    Spoil, ask_with_sig0, copies, end, failures, id_of, numbered, question, slowest, warm, world,
    wrong_question,
};
use dot_proxy::forwarder::QueryLogStyle;
use simulator::dns::{NOERROR, REFUSED, SERVFAIL};
use simulator::{Ask, Do, Step, dns, ms};

#[test]
fn u10_duplicate_answers_go_to_nobody() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(10), ask.answer_after(15)]);
    for n in 0..50 {
        w.ask(&numbered(n));
        w.run_ms(5);
    }
    w.run_ms(100);
    assert_eq!((failures(&w), w.links.len()), (0, 1));
    assert_eq!(w.forwarder.counts().unmatched, 50);
    end(w);
}

#[test]
fn u10_answers_to_nothing_asked_are_dropped_and_64_between_two_answers_close() {
    for (count, connections) in [(63, 1), (64, 2)] {
        let mut w = warm(1);
        w.servers[0].replies(move |ask| {
            let mut unknown = ask.answer();
            unknown[..2].copy_from_slice(&[0x7f, 0xff]);
            let mut steps = vec![Step::after(10, Do::Answer(unknown)); count];
            if ask.link == 1 {
                steps.clear();
            }
            steps.push(ask.answer_after(10));
            steps
        });
        for n in 0..3 {
            w.ask(&numbered(n));
            w.run_ms(100);
        }
        assert_eq!(failures(&w), 0);
        assert_eq!(w.links.len(), connections, "after {count} unknown IDs");
        end(w);
    }
}

/// The answer under an ID that nothing was asked with.
fn under_another_id(ask: &Ask<'_>) -> Vec<u8> {
    let mut answer = ask.answer();
    answer[..2].copy_from_slice(&[0x7f, 0xff]);
    answer
}

#[test]
fn u10_an_answer_under_another_id_has_its_query_asked_again_at_once() {
    let mut w = warm(1);
    let mut asked = HashSet::new();
    w.servers[0].replies(move |ask| match ask.name {
        "victim.example." if asked.insert(ask.name.to_owned()) => {
            vec![Step::after(10, Do::Answer(under_another_id(ask)))]
        }
        "slow.example." => vec![ask.answer_after(300)],
        _ => vec![ask.answer_after(10)],
    });
    w.ask("slow.example.");
    w.run_ms(100);
    w.ask("victim.example.");
    w.ask("sibling.example.");
    w.run_ms(500);
    assert_eq!(w.response("victim.example.").took(), ms(10 + 10), "on the same connection");
    assert_eq!(w.response("sibling.example.").took(), ms(10));
    assert_eq!(copies(&w, "slow.example."), 1, "it is told which");
    assert_eq!((failures(&w), w.links.len()), (0, 1));
    end(w);
}

#[test]
fn u10_an_answer_that_comes_after_its_query_was_asked_again_is_delivered() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match (ask.name, ask.nth) {
        ("victim.example.", 2) => {
            vec![Step::after(10, Do::Answer(under_another_id(ask))), ask.answer_after(50)]
        }
        ("victim.example.", _) => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    w.ask("victim.example.");
    w.run_ms(500);
    assert_eq!((w.response("victim.example.").took(), copies(&w, "victim.example.")), (ms(50), 2));
    assert_eq!((failures(&w), w.links.len()), (0, 1));
    end(w);
}

#[test]
fn u10_a_duplicate_of_an_answer_has_nothing_asked_again() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.name.as_bytes()[0] {
        b'n' => vec![ask.answer_after(2800)],
        _ => vec![ask.answer_after(10), ask.answer_after(20)],
    });
    for n in 0..8 {
        w.ask(&numbered(n));
        w.ask(&format!("quick{n}.example."));
        w.run_ms(60);
    }
    w.run_ms(1000);
    assert_eq!(w.forwarder.counts().unmatched, 8);
    assert_eq!(w.forwarder.counts().rescued, 0);
    w.run_ms(4000);
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn u10_answers_under_other_ids_without_end_cause_one_query_in_ten_to_be_asked_again() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        vec![Step::after(10, Do::Answer(under_another_id(ask))), ask.answer_after(15)]
    });
    for n in 0..2000 {
        w.ask(&numbered(n));
        w.run_ms(5);
    }
    w.run_ms(1000);
    let counts = w.forwarder.counts();
    assert!((200..=64 + 200).contains(&counts.resent), "{counts:?}");
    assert_eq!((failures(&w), w.links.len()), (0, 1));
    assert!(slowest(&w) <= ms(30), "{:?}", slowest(&w));
    end(w);
}

#[test]
fn u10_answers_that_cannot_be_trusted_close_the_connection_and_siblings_are_unharmed() {
    let other_type = |ask: &Ask<'_>| {
        let other = dns::query(id_of(ask.message), ask.name, 28, None);
        dns::answer(&other, ask.serial, NOERROR, 0)
    };
    let opcode = |ask: &Ask<'_>| {
        let mut answer = ask.answer();
        answer[2] |= 0x10;
        answer
    };
    let spoilt: [(&str, Spoil); 6] = [
        ("wrong question", wrong_question),
        ("other type", other_type),
        ("QR=0", |ask| ask.message.to_vec()),
        ("other opcode", opcode),
        ("no question, NOERROR", |ask| dns::questionless(ask.message, NOERROR)),
        ("11 octets", |ask| ask.answer()[..11].to_vec()),
    ];
    for (what, spoil) in spoilt {
        let mut w = warm(1);
        w.servers[0].replies(move |ask| match (ask.name, ask.link) {
            ("victim.example.", 0) => vec![Step::after(10, Do::Answer(spoil(ask)))],
            ("sibling.example.", 0) => vec![ask.answer_after(50)],
            _ => vec![ask.answer_after(10)],
        });
        w.ask("victim.example.");
        w.ask("sibling.example.");
        w.run_ms(100);
        assert_eq!(w.response("victim.example.").took(), ms(10 + 20 + 10), "{what}");
        assert_eq!(w.response("sibling.example.").took(), ms(10 + 20 + 10), "{what}");
        assert_eq!((failures(&w), w.links.len()), (0, 2), "{what}");
        assert_eq!(w.notices, [], "{what}: the connection had answered before");
        end(w);
    }
}

#[test]
fn u10_a_server_that_lies_twice_about_a_name_is_asked_no_more() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.name {
        "victim.example." => vec![Step::after(10, Do::Answer(ask.message.to_vec()))],
        _ => vec![ask.answer_after(40)],
    });
    w.ask_edns("victim.example.");
    w.ask("sibling.example.");
    w.run_ms(1000);
    assert_eq!(w.response("victim.example.").rcode, SERVFAIL);
    assert_eq!(copies(&w, "victim.example."), 2);
    assert_eq!(w.response("sibling.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn u10_an_error_without_question_becomes_a_local_answer() {
    let mut w = warm(1);
    w.servers[0]
        .replies(|ask| vec![Step::after(10, Do::Answer(dns::questionless(ask.message, REFUSED)))]);
    w.ask("wHo.ExAmPlE.");
    w.run_ms(100);
    let response = w.response("wHo.ExAmPlE.");
    assert_eq!((response.rcode, response.upstream, response.took()), (REFUSED, false, ms(10)));
    assert_eq!(w.links.len(), 1, "the connection is kept");
    end(w);
}

#[test]
fn u10_an_answer_that_cannot_be_walked_is_servfail_and_the_connection_is_kept() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        let mut answer = ask.answer();
        answer[7] += 1;
        vec![Step::after(10, Do::Answer(answer))]
    });
    w.ask_edns("a.example.");
    w.run_ms(100);
    let response = w.response("a.example.");
    assert_eq!((response.rcode, response.extended_error), (SERVFAIL, Some(0)));
    assert_eq!(response.took(), ms(10));
    assert_eq!((w.links.len(), w.links[0].is_open()), (1, true));
    end(w);
}

#[test]
fn u10_whatever_comes_for_an_abandoned_id_frees_it() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.name {
        "late.example." => {
            vec![Step::after(5000, Do::Answer(wrong_question(ask)))]
        }
        _ => vec![ask.answer_after(10)],
    });
    w.ask("late.example.");
    for n in 0..60 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    assert_eq!((failures(&w), w.links.len()), (1, 1));
    end(w);
}

#[test]
fn u11_one_octet_at_a_time_and_many_messages_at_once() {
    let mut w = warm(1);
    w.roughness.read_max = 1;
    for n in 0..20 {
        w.ask(&numbered(n));
    }
    w.run_ms(1000);
    assert_eq!((failures(&w), w.links.len()), (0, 1));
    w.roughness.read_max = usize::MAX;
    let client = w.tcp_client();
    let bytes = (20..320).flat_map(|n| dns::framed(&question(n))).collect();
    w.tcp_send(client, bytes);
    w.run_ms(100);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 321));
    end(w);
}

#[test]
fn u12_an_answer_of_65535_octets() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        let answer = dns::answer(ask.message, ask.serial, NOERROR, 65_535);
        vec![Step::after(10, Do::Answer(answer))]
    });
    let client = w.tcp_client();
    let edns = Some(dns::Edns { size: 1232, dnssec_ok: false });
    w.tcp_send(client, dns::framed(&dns::query(1, "tcp.example.", dns::A, edns)));
    w.ask("udp.example.");
    w.ask_edns("edns.example.");
    w.run_ms(100);
    let whole = w.response("tcp.example.");
    assert_eq!((whole.length, whole.truncated), (65_535, false));
    for (name, most) in [("udp.example.", 512), ("edns.example.", 1232)] {
        let cut = w.response(name);
        assert!(cut.truncated && cut.upstream && cut.length <= most, "{cut:?}");
    }
    end(w);
}

#[test]
fn u10_octets_behind_the_last_record_are_left_out() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        let answer = [ask.answer(), b"behind".to_vec()].concat();
        vec![Step::after(10, Do::Answer(answer))]
    });
    let client = w.tcp_client();
    w.tcp_send(client, dns::framed(&dns::query(1, "tcp.example.", dns::A, None)));
    w.ask("udp.example.");
    w.ask_edns("edns.example.");
    w.run_ms(20);
    for name in ["tcp.example.", "udp.example.", "edns.example."] {
        let response = w.response(name);
        assert_eq!((response.rcode, response.upstream, response.trailing), (NOERROR, true, 0));
        assert_eq!(response.took(), ms(10));
    }
    end(w);
}

/// RFC 8945 sections 5.2 and 5.3. The upstream works, and the connection to it; only the answer is of no
/// use.
#[test]
fn u10_answers_with_a_signature_out_of_place_or_not_asked_for_go_to_nobody() {
    // Classes ANY and IN, with octets that matter to nobody here; a SIG that covers no type.
    const TSIG: &[u8] = b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x04xxxx";
    const TSIG_IN: &[u8] = b"\x03key\0\0\xfa\0\x01\0\0\0\0\0\x04xxxx";
    const SIG0: &[u8] = b"\0\0\x18\0\xff\0\0\0\0\0\x04\0\0xx";
    const A: &[u8] = b"\0\0\x01\0\x01\0\0\0\0\0\x04xxxx";
    type Records = &'static [&'static [u8]];
    let cases: [(Records, Records); 8] = [
        (&[], &[TSIG]),
        (&[], &[TSIG_IN]),
        (&[], &[SIG0]),
        (&[TSIG], &[]),
        (&[], &[TSIG, A]),
        (&[SIG0], &[]),
        (&[], &[TSIG, TSIG]),
        (&[TSIG], &[SIG0]),
    ];
    for (before_opt, behind_opt) in cases {
        let mut w = warm(1);
        w.servers[0].replies(move |ask| {
            let mut answer = ask.answer();
            if ask.name.starts_with("bad") {
                let opt = answer.split_off(answer.len() - 11);
                answer.extend([before_opt.concat(), opt, behind_opt.concat()].concat());
                answer[11] += (before_opt.len() + behind_opt.len()) as u8;
            }
            vec![Step::after(10, Do::Answer(answer))]
        });
        w.ask("bad.plain.example.");
        w.ask_edns("bad.edns.example.");
        w.ask("good.example.");
        w.run_ms(100);
        let what = format!("{before_opt:x?} OPT {behind_opt:x?}");
        for name in ["bad.plain.example.", "bad.edns.example."] {
            let response = w.response(name);
            assert_eq!((response.rcode, response.upstream), (SERVFAIL, false), "{name} {what}");
        }
        assert_eq!(w.response("bad.edns.example.").extended_error, Some(0), "{what}");
        assert_eq!((w.response("good.example.").rcode, w.links.len()), (NOERROR, 1), "{what}");
        assert_eq!(w.notices, [], "{what}");
        end(w);
    }
}

/// What is signed is not edited on its way, so that who signed must be beyond doubt.
#[test]
fn u10_a_signed_query_gets_no_answer_with_something_behind_its_signature() {
    const TSIG: &[u8] = b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x04xxxx";
    const A: &[u8] = b"\0\0\x01\0\x01\0\0\0\0\0\x04xxxx";
    for records in [[TSIG, A], [TSIG, TSIG]] {
        let mut w = warm(1);
        w.servers[0].replies(move |ask| {
            let mut answer = ask.answer();
            answer.extend(records.concat());
            answer[11] += 2;
            vec![Step::after(10, Do::Answer(answer))]
        });
        ask_with_sig0(&mut w, "signed.example.", 7);
        w.run_ms(100);
        let response = w.response("signed.example.");
        assert_eq!((response.rcode, response.upstream), (SERVFAIL, false), "{records:x?}");
        end(w);
    }
}

/// The judge takes no response with another spelling for one that is owed.
#[test]
fn u29_the_client_gets_its_own_spelling_from_a_server_that_changes_it() {
    let mut w = warm(2);
    for server in 0..2 {
        w.servers[server].replies(move |ask| {
            let size = if ask.name.starts_with("LaRgE") { 5000 } else { 0 };
            let rcode = if ask.name.starts_with("FaIl") { SERVFAIL } else { NOERROR };
            let mut answer = dns::answer(ask.message, ask.serial, rcode, size);
            dns::respell(&mut answer);
            vec![Step::after(10, Do::Answer(answer))]
        });
    }
    for kind in ["SmAlL", "LaRgE", "FaIl"] {
        let path = w.ask(&format!("{kind}.Plain.Example."));
        let again = dns::query(w.last_id(), &format!("{kind}.Plain.Example."), dns::A, None);
        w.datagram(path, again);
        w.ask_edns(&format!("{kind}.Edns.Example."));
        let client = w.tcp_client();
        let query = dns::query(7, &format!("{kind}.Tcp.Example."), dns::A, None);
        w.tcp_send(client, dns::framed(&query));
        w.run_ms(100);
        for (name, responses) in [("Plain", 2), ("Edns", 1), ("Tcp", 1)] {
            let name = format!("{kind}.{name}.Example.");
            let all = w.oracle.responses.iter().filter(|r| r.name == name && r.upstream);
            assert_eq!(all.count(), responses, "{name}");
        }
    }
    assert_eq!(w.forwarder.counts().retried, 1, "a second opinion");
    end(w);
}

/// EXTENDED-RCODE 1, with the lower bits 7: BADCOOKIE.
#[test]
fn an_rcode_that_needs_edns_is_servfail_for_a_client_without_and_a_failure_in_the_query_log() {
    let mut w = crate::with_limits(|limits| limits.query_log = Some(QueryLogStyle::default()));
    w.servers[0].replies(|ask| {
        let mut answer = ask.answer();
        // The OPT record is the last.
        let ttl = answer.len() - 6;
        answer[ttl] = 1;
        answer[3] |= 7;
        vec![Step::after(10, Do::Answer(answer))]
    });
    w.ask("plain.example.");
    w.ask_edns("edns.example.");
    w.run_ms(100);
    let plain = w.response("plain.example.");
    assert_eq!((plain.rcode, plain.upstream), (SERVFAIL, false));
    assert!(w.response("edns.example.").upstream);
    let line = w.query_log.iter().find(|line| line.contains("plain.example.")).expect("a line");
    assert!(line.starts_with("FAILURE") && line.contains("needs EDNS"), "{line}");
    end(w);
}

#[test]
fn u10_two_answers_to_another_question_cost_the_next_query_nothing() {
    // On a cold upstream, on one that answered; the only one, or one of two.
    for (cold, servers) in [(true, 1), (false, 1), (true, 2), (false, 2)] {
        let mut w = if cold { world(servers) } else { warm(servers) };
        w.servers[0].replies(|ask| match ask.name {
            "bad.example." => vec![Step::after(10, Do::Answer(wrong_question(ask)))],
            _ => vec![ask.answer_after(10)],
        });
        w.ask("bad.example.");
        w.run_ms(100);
        assert!(w.is_answered("bad.example."));
        w.ask("next.example.");
        w.run_ms(1500);
        let next = w.response("next.example.");
        assert_eq!(next.rcode, NOERROR);
        assert!(next.took() <= ms(30), "{cold} {servers}: {:?}", next.took());
        assert_eq!(w.notices, [], "{cold} {servers}");
        end(w);
    }
}
