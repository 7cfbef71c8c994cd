//! draft-ietf-tls-ecdhe-mlkem, and what RFC 8446 asks of key exchanges. Statements 71 and 72.

use rustls::crypto::SupportedKxGroup;
use rustls::crypto::ring::kx_group::{SECP256R1, SECP384R1, X25519};

use super::client::Client;
use super::proxying::is_answer;
use super::tls::hellos;
use crate::forwarder::outcome::Outcome;
use crate::forwarder::stage::Stage;
use crate::forwarder::subject::Subject;
use crate::key_exchange::Hybrid;
use crate::message::A;
use crate::{Query, Setup};

/// X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem section 5.1), and the length of a client's share of it (section
/// 4.1).
const HYBRID: (u16, usize) = (0x11ec, 1_216);

pub fn hybrid(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut outcome = Outcome::default();
    let response = Client::new(&stage).ask(&Query::new("a.s71.example", A));
    outcome.promise(is_answer(response.as_ref()), || "not answered".to_owned());
    for hello in hellos(&stage.servers[0])? {
        let groups = hello.groups().unwrap_or_default();
        outcome.promise(groups.contains(&HYBRID.0), || format!("groups {groups:04x?} offered"));
        let shares = hello.shares().unwrap_or_default();
        let of_it = shares.iter().find(|(group, _)| *group == HYBRID.0);
        outcome.promise(of_it == Some(&HYBRID), || format!("shares {shares:04x?}"));
    }
    let log = stage.servers[0].log();
    let groups: Vec<_> = log.handshakes().map(|handshake| handshake.group).collect();
    let is_used = groups.iter().all(|group| group.map(u16::from) == Some(HYBRID.0));
    outcome.promise(is_used, || format!("{groups:?} used"));
    Ok(outcome)
}

pub fn shares(subject: &dyn Subject) -> Result<Outcome, String> {
    let cases: [(&str, &[&'static dyn SupportedKxGroup]); 4] = [
        ("the hybrid", &[&Hybrid]),
        ("X25519", &[X25519]),
        ("P-256", &[SECP256R1]),
        ("P-384", &[SECP384R1]),
    ];
    let mut outcome = Outcome::default();
    for (what, groups) in cases {
        let groups = groups.to_vec();
        let stage = Stage::one(subject, |setup| Setup { groups, ..setup })?;
        let response = Client::new(&stage).ask(&Query::new("a.s72.example", A));
        // Nobody has to offer the hybrid.
        if what != "the hybrid" {
            let is_answered = is_answer(response.as_ref());
            outcome.promise(is_answered, || format!("a server with {what} alone: not answered"));
        }
        for hello in hellos(&stage.servers[0])? {
            let (Some(groups), Some(shares)) = (hello.groups(), hello.shares()) else {
                outcome.promise(false, || "a ClientHello without groups or shares".to_owned());
                continue;
            };
            let mut left = groups.iter();
            let in_order = shares.iter().all(|(group, _)| left.any(|offered| offered == group));
            outcome.promise(in_order, || format!("shares {shares:04x?} for groups {groups:04x?}"));
        }
    }
    Ok(outcome)
}
