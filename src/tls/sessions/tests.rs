use std::cell::Cell;

use rcgen::{CertificateParams, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::ProducesTickets;

use super::super::Connector;
use super::super::tests::{
    Authority, LIMITS, Link, NAME, Signer, Time, VERSIONS, extension, hello_of, server, start,
};
use super::*;
use crate::forwarder::Stage;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// 2030-01-01 00:00:00 UTC.
const NEW_YEAR: u64 = 1_893_456_000;

#[test]
fn connections_after_the_first_resume() {
    let authority = Authority::new();
    for (version, words) in VERSIONS {
        let server = authority.server(version, |config| {
            config.ticketer = Arc::<LastTicket>::default();
            config.send_tls13_tickets = 1;
        });
        let mut connector = authority.connector(NAME);
        let first = Link::established(&mut connector, &server);
        assert_eq!((first.version, first.resumed), (words, false));
        // Each needs the ticket that the one before it was given. TLS 1.2 gives it before the
        // handshake ends, TLS 1.3 after that.
        for _ in 0..3 {
            let next = Link::established(&mut connector, &server);
            assert_eq!((next.version, next.resumed), (words, true));
        }
    }
}

#[test]
fn session_ids_are_resumed() {
    let authority = Authority::new();
    let server = authority.server(&rustls::version::TLS12, |_| ());
    let mut connector = authority.connector(NAME);
    let resumed = [0; 3].map(|_| Link::established(&mut connector, &server).resumed);
    assert_eq!(resumed, [false, true, true]);
}

#[test]
fn a_ticket_is_used_once_and_by_its_own_connector() {
    let authority = Authority::new();
    let server = authority.server(&rustls::version::TLS13, |config| {
        with_tickets(config);
        config.send_tls13_tickets = 1;
    });
    let [mine, other] = &mut authority.connectors(&[NAME, NAME])[..] else { unreachable!() };
    assert!(!Link::established(mine, &server).resumed);
    let (second, third) = (start(mine), start(mine));
    let now = Instant::now();
    let is_resumed =
        |link: Link| link.client.handshake().is_some_and(|handshake| handshake.resumed);
    assert!(!is_resumed(Link::finished_at(now, mine, third, &server)));
    assert!(is_resumed(Link::finished_at(now, mine, second, &server)));
    assert!(!Link::established(other, &server).resumed);
}

#[test]
fn every_hello_shows_another_ticket() {
    const PRE_SHARED_KEY: u16 = 41;

    let authority = Authority::new();
    let server = authority.server(&rustls::version::TLS13, |config| {
        with_tickets(config);
        config.send_tls13_tickets = 4;
    });
    let mut connector = authority.connector(NAME);
    Link::established(&mut connector, &server);
    let mut streams = [0; 5].map(|_| start(&mut connector));
    let tickets = streams.each_mut().map(|stream| {
        let hello = hello_of(stream);
        extension(&hello, PRE_SHARED_KEY).map(|identities| {
            let len = usize::from(u16::from_be_bytes([identities[2], identities[3]]));
            identities[4..4 + len].to_vec()
        })
    });
    let [first @ .., last] = &tickets;
    for (index, ticket) in first.iter().enumerate() {
        assert!(ticket.as_ref().is_some_and(|ticket| !ticket.is_empty()));
        assert!(!first[..index].contains(ticket), "ticket {index} was shown before");
    }
    assert_eq!(*last, None, "there were four");
}

#[test]
fn a_changed_ticket_key_means_a_full_handshake() {
    let authority = Authority::new();
    for (version, words) in VERSIONS {
        let [before, after] = [0, 1].map(|_| authority.server(version, with_tickets));
        let mut connector = authority.connector(NAME);
        Link::established(&mut connector, &before);
        assert!(!Link::established(&mut connector, &after).resumed, "{words}");
        assert!(Link::established(&mut connector, &after).resumed, "{words}");
        assert!(!Link::established(&mut connector, &before).resumed, "{words}");
    }
}

#[test]
fn a_session_ends_a_day_after_its_full_handshake_however_often_it_is_resumed() {
    let authority = Authority::new();
    for (version, words) in VERSIONS {
        let server = authority.server(version, with_tickets);
        let mut connector = authority.connector(NAME);
        let begin = Instant::now();
        let mut is_resumed = |at| Link::established_at(begin + at, &mut connector, &server).resumed;
        assert!(!is_resumed(Duration::ZERO), "{words}");
        assert!(is_resumed(HOUR), "{words}");
        assert!(is_resumed(23 * HOUR), "{words}");
        assert!(!is_resumed(24 * HOUR), "{words}");
        assert!(is_resumed(47 * HOUR), "{words}");
        assert!(!is_resumed(48 * HOUR), "{words}");
    }
}

#[test]
fn a_forgotten_session_is_not_resumed() {
    let authority = Authority::new();
    for (version, words) in VERSIONS {
        let server = authority.server(version, with_tickets);
        let mut connector = authority.connector(NAME);
        Link::established(&mut connector, &server);
        let begun = start(&mut connector);
        connector.forget_session();
        // The client showed a ticket of before; those it is given are of before, too.
        Link::finished_at(Instant::now(), &mut connector, begun, &server);
        assert!(!Link::established(&mut connector, &server).resumed, "{words}");
        assert!(Link::established(&mut connector, &server).resumed, "{words}");
    }
}

#[test]
fn an_expired_certificate_is_refused_though_its_session_could_be_resumed() {
    let authority = Authority::new();
    for (version, words) in VERSIONS {
        let keys = ring::Ticketer::new().unwrap();
        let with = |year| {
            let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, 1, 1);
            server(version, &params, &Signer::Issuer(&authority.issuer), |config| {
                config.ticketer = Arc::clone(&keys);
            })
        };
        let (old, renewed) = (with(2030), with(2031));
        let time = Arc::new(Time::from(NEW_YEAR - 7));
        let mut connector = authority.connector(NAME);
        connector.config.time_provider = Arc::<Time>::clone(&time);
        let mut other = authority.connector(NAME);
        other.config.time_provider = Arc::<Time>::clone(&time);

        for connector in [&mut connector, &mut other] {
            assert!(!Link::established(connector, &old).resumed, "{words}");
            assert!(Link::established(connector, &old).resumed, "{words}");
        }
        time.set(NEW_YEAR - 1);
        assert!(Link::established(&mut connector, &old).resumed, "{words}");
        time.set(NEW_YEAR + 1);
        let failure = Link::refused(&mut connector, &old);
        assert_eq!(failure.stage, Stage::Certificate, "{words}");
        let detail = "the certificate expired on 2030-01-01 00:00:00 UTC, \
                      and the system clock says 2030-01-01 00:00:01 UTC: have its owner renew it, or set the \
                      clock of this host, if that is wrong";
        assert_eq!(&*failure.detail, detail, "{words}");

        // The server would resume still; that it has a new certificate is worth no failure.
        assert!(!Link::established(&mut other, &renewed).resumed, "{words}");
    }
}

#[test]
fn certificates_are_verified_again_once_unless_they_expire_within_the_day() {
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let day = 24 * 60 * 60;
    for (begin, counts) in [
        (NEW_YEAR - 25 * 60 * 60, [1, 1, 1]),
        // Each time for the end of the session first, but that is answered by the dates.
        (NEW_YEAR - 23 * 60 * 60, [2, 3, 4]),
    ] {
        let (mut outlasted, calls) = (None, Cell::new(0));
        for count in counts {
            let verifies = |time: UnixTime| {
                calls.set(calls.get() + 1);
                time < at(NEW_YEAR)
            };
            assert!(is_good(&mut outlasted, at(begin + day), Some(at(begin)), verifies));
            assert_eq!(calls.get(), count);
        }
    }
}

#[test]
fn a_handshake_given_up_is_not_tried_the_same_way_again() {
    let authority = Authority::new();
    for (version, words) in VERSIONS {
        let server = authority.server(version, with_tickets);
        let mut connector = authority.connector(NAME);
        Link::established(&mut connector, &server);
        let mut mute = start(&mut connector);
        hello_of(&mut mute);
        drop(mute);
        assert!(!Link::established(&mut connector, &server).resumed, "{words}");
        assert!(Link::established(&mut connector, &server).resumed, "{words}");
    }
}

#[test]
fn a_server_that_was_refused_is_not_accepted_for_an_old_ticket() {
    let authority = Authority::new();
    let stranger = Authority::named("stranger");
    for (version, words) in VERSIONS {
        let good = authority.server(version, with_tickets);
        let bad = stranger.server(version, |_| ());
        let mut connector = authority.connector(NAME);
        Link::established(&mut connector, &good);
        assert_eq!(Link::refused(&mut connector, &bad).stage, Stage::Certificate, "{words}");
        assert!(!Link::established(&mut connector, &good).resumed, "{words}");
    }
}

#[test]
fn a_connection_that_ends_with_an_alert_is_not_resumed() {
    let authority = Authority::new();
    for (version, words) in VERSIONS {
        let server = authority.server(version, with_tickets);
        for before in [0, 1] {
            let mut connector = authority.connector(NAME);
            for _ in 0..before {
                Link::established(&mut connector, &server);
            }
            let stream = start(&mut connector);
            let now = Instant::now();
            let mut link = Link::finished_at(now, &mut connector, stream, &server);
            // A damaged record of ours makes the server send one.
            assert_eq!(link.client.send(b"query"), 5);
            link.client.flush(&mut link.to_server).unwrap();
            *link.to_server.octets.back_mut().unwrap() ^= 1;
            link.run();
            assert_eq!(link.failure.map(|failure| failure.stage), Some(Stage::Read));
            let next = Link::established(&mut connector, &server);
            assert!(!next.resumed, "{words}, {before} before");
        }
    }
}

#[test]
fn a_session_keeps_so_many_tickets_and_no_more() {
    let authority = Authority::new();
    let server = authority.server(&rustls::version::TLS13, |config| {
        with_tickets(config);
        config.send_tls13_tickets = 6;
    });
    let mut connector = authority.connector(NAME);
    for _ in 0..3 {
        Link::established(&mut connector, &server);
    }
    let held = |connector: &Connector| {
        connector.session.as_ref().map(|session| session.tickets.lock().tls13.len())
    };
    assert_eq!(held(&connector), Some(LIMITS.tickets_max));
}

#[test]
fn a_ticket_that_is_too_long_is_not_kept() {
    /// Tickets of this length.
    #[derive(Debug)]
    struct Long(usize);

    impl ProducesTickets for Long {
        fn enabled(&self) -> bool {
            true
        }

        fn lifetime(&self) -> u32 {
            3_600
        }

        fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
            Some(vec![7; self.0])
        }

        fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
            None
        }
    }

    let authority = Authority::new();
    for (len, expected) in [(2_000, 1), (SESSION_LEN_MAX, 0), (16_000, 0)] {
        let server = authority.server(&rustls::version::TLS13, |config| {
            config.ticketer = Arc::new(Long(len));
            config.send_tls13_tickets = 1;
        });
        let mut connector = authority.connector(NAME);
        Link::established(&mut connector, &server);
        let held = connector.session.as_ref().map(|session| session.tickets.lock().tls13.len());
        assert_eq!(held, Some(expected), "{len} octets");
    }
}

#[test]
fn connections_of_an_earlier_session_keep_no_ticket() {
    let authority = Authority::new();
    let server = authority.server(&rustls::version::TLS13, with_tickets);
    let mut connector = authority.connector(NAME);
    let streams = [start(&mut connector), start(&mut connector)];
    let now = Instant::now();
    let [first, second] =
        streams.map(|stream| Link::finished_at(now, &mut connector, stream, &server));
    let held = |link: &Link| link.client.sessions.new.lock().tls13.len();
    assert_eq!(held(&first), 0);
    assert!(held(&second) > 0);
    connector.forget_session();
    assert_eq!(held(&second), 0);
}

fn with_tickets(config: &mut ServerConfig) {
    config.ticketer = ring::Ticketer::new().unwrap();
}

/// Only the last ticket that was given is good for anything.
#[derive(Debug, Default)]
struct LastTicket(Mutex<(u64, Vec<u8>)>);

impl ProducesTickets for LastTicket {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        3_600
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut last = self.0.lock().unwrap();
        *last = (last.0 + 1, plain.to_vec());
        Some(last.0.to_be_bytes().to_vec())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let last = self.0.lock().unwrap();
        (ticket == last.0.to_be_bytes()).then(|| last.1.clone())
    }
}
