use std::sync::Arc;

use ::ring::digest::{SHA256, digest};
#[expect(deprecated, reason = "the vectors have keys in this form")]
use ml_kem::ExpandedKeyEncoding;
use rustls::crypto::CompletedKeyExchange;
use rustls::crypto::ring::kx_group::SECP256R1;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ServerConfig};
use support::key_exchange as server_side;

use super::super::Connector;
use super::super::tests::{Authority, Link, NAME, extension, hello_of, start};
use super::*;

const X25519MLKEM768: u16 = 0x11ec;
const P256: u16 = 0x17;
const P384: u16 = 0x18;
const PLAIN_X25519: u16 = 0x1d;

/// A server that knows these groups, by preference.
fn server(authority: &Authority, groups: &[&'static dyn SupportedKxGroup]) -> Arc<ServerConfig> {
    let mut provider = ring::default_provider();
    provider.kx_groups = groups.to_vec();
    authority.server_with(provider, &TLS13, |_| ())
}

/// The groups of a `ClientHello`, and those of its shares with their lengths.
fn offered(hello: &[u8]) -> (Vec<u16>, Vec<(u16, usize)>) {
    let number = |octets: &[u8]| u16::from_be_bytes([octets[0], octets[1]]);
    let groups = extension(hello, 10).expect("supported_groups")[2..].chunks(2).map(number);
    let mut shares = Vec::new();
    let mut left = &extension(hello, 51).expect("key_share")[2..];
    while !left.is_empty() {
        let len = usize::from(number(&left[2..]));
        shares.push((number(left), len));
        left = &left[4 + len..];
    }
    (groups.collect(), shares)
}

#[test]
fn the_vectors_of_acvp() {
    let octets = |text: &str| -> Vec<u8> {
        let octet = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
        (0..text.len()).step_by(2).map(octet).collect()
    };
    let hash = |octets: &[u8]| digest(&SHA256, octets).as_ref().to_vec();
    let (mut keys, mut secrets) = (0, 0);
    for line in include_str!("acvp.txt").lines().filter(|line| !line.starts_with('#')) {
        let (kind, rest) = line.split_once(' ').expect("a kind");
        let fields: Vec<_> = rest.split(' ').map(octets).collect();
        match (kind, &fields[..]) {
            ("key", [d, z, encapsulation, decapsulation]) => {
                let seed = [&d[..], z].concat();
                let key = DecapsulationKey::from_seed(seed[..].try_into().expect("a seed"));
                let mut exported = Vec::new();
                export(&key, &mut exported);
                assert_eq!(hash(&exported), *encapsulation, "{line}");
                #[expect(deprecated, reason = "the vectors have keys in this form")]
                let expanded = key.to_expanded_bytes();
                assert_eq!(hash(&expanded), *decapsulation, "{line}");
                keys += 1;
            }
            ("decapsulate", [key, ciphertext, secret]) => {
                let key = key[..].try_into().expect("an expanded key");
                #[expect(deprecated, reason = "the vectors have keys in this form")]
                let key = DecapsulationKey::from_expanded_bytes(key).expect("a key");
                let mut ours = Vec::new();
                decapsulate(&key, ciphertext[..].try_into().expect("a ciphertext"), &mut ours);
                assert_eq!(ours, *secret, "{line}");
                secrets += 1;
            }
            _ => panic!("{line}"),
        }
    }
    assert_eq!((keys, secrets), (25, 10));
}

#[test]
fn the_hybrid_is_first_with_shares_of_both_in_one_hello() {
    let authority = Authority::new();
    let hello = hello_of(&mut start(&mut authority.connector(NAME)));
    let groups = vec![X25519MLKEM768, PLAIN_X25519, P256, P384];
    let shares = vec![(X25519MLKEM768, CLIENT_SHARE_LEN), (PLAIN_X25519, 32)];
    assert_eq!(offered(&hello), (groups.clone(), shares));
    // The classic share is the end of the hybrid one, so that the work is done once.
    let share = extension(&hello, 51).unwrap();
    let (hybrid, classic) = (&share[6..6 + CLIENT_SHARE_LEN], &share[10 + CLIENT_SHARE_LEN..]);
    assert!(hybrid.ends_with(classic));

    let hello = hello_of(&mut start(&mut authority.classic_connector(NAME)));
    assert_eq!(offered(&hello), (groups[1..].to_vec(), vec![(PLAIN_X25519, 32)]));
}

#[test]
fn servers_choose_what_they_know_in_one_flight_where_that_can_be() {
    let authority = Authority::new();
    let full = HandshakeKind::Full;
    let again = HandshakeKind::FullWithHelloRetryRequest;
    let hybrid: &dyn SupportedKxGroup = &server_side::Hybrid;
    for (groups, group, kind) in [
        (vec![hybrid, X25519, SECP256R1], "X25519MLKEM768", full),
        (vec![hybrid], "X25519MLKEM768", full),
        (vec![X25519, SECP256R1], "X25519", full),
        (vec![SECP256R1], "secp256r1", again),
    ] {
        let server = server(&authority, &groups);
        let stream = start(&mut authority.connector(NAME));
        let mut link = Link::new(stream, &server, 100, true);
        link.run();
        assert_eq!(link.failure, None, "{group}");
        let handshake = link.client.handshake().unwrap();
        assert_eq!(handshake.to_string(), format!("TLS 1.3, {group}, full handshake"));
        assert_eq!(link.client.conn.handshake_kind(), Some(kind), "{group}");
    }
}

#[test]
fn a_resumed_session_has_a_key_exchange_of_its_own_but_not_with_tls_1_2() {
    let authority = Authority::new();
    for (version, expected) in
        [(&TLS13, "TLS 1.3, X25519MLKEM768, resumed"), (&TLS12, "TLS 1.2, resumed")]
    {
        let server = authority.server_with(server_side::hybrid(), version, |_| ());
        let mut connector = authority.connector(NAME);
        Link::established(&mut connector, &server);
        assert_eq!(Link::established(&mut connector, &server).to_string(), expected);
    }
    let server = authority.server_with(server_side::hybrid(), &TLS12, |_| ());
    let full = Link::established(&mut authority.connector(NAME), &server);
    assert_eq!(full.to_string(), "TLS 1.2, X25519, full handshake");
}

/// A group of a server that changes its share.
struct Bent(fn(&mut Vec<u8>));

impl SupportedKxGroup for Bent {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        server_side::Hybrid.start()
    }

    fn start_and_complete(&self, share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let mut completed = server_side::Hybrid.start_and_complete(share)?;
        self.0(&mut completed.pub_key);
        Ok(completed)
    }

    fn name(&self) -> NamedGroup {
        server_side::Hybrid.name()
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }
}

impl fmt::Debug for Bent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

const CIPHERTEXT_LEN: usize = 1_088;

#[test]
fn wrong_shares_of_servers_end_the_handshake_in_words() {
    const INVALID: &str = "the server broke the TLS protocol: invalid key share";
    const UNREADABLE: &str = "a record of the server could not be decrypted";
    // rustls as a server sends no empty share.
    static CASES: [(Bent, &str); 11] = [
        (Bent(|share| share.truncate(1)), INVALID),
        (Bent(|share| share.truncate(32)), INVALID),
        (Bent(|share| share.truncate(CIPHERTEXT_LEN)), INVALID),
        (Bent(|share| share.truncate(CIPHERTEXT_LEN + 31)), INVALID),
        (Bent(|share| share.push(0)), INVALID),
        (Bent(|share| share.resize(16_000, 7)), INVALID),
        (Bent(|share| share.fill(0)), INVALID),
        (Bent(|share| share[CIPHERTEXT_LEN..].fill(0)), INVALID),
        (Bent(|share| share[..CIPHERTEXT_LEN].fill(0)), UNREADABLE),
        (Bent(|share| share[..CIPHERTEXT_LEN].fill(0xff)), UNREADABLE),
        (Bent(|share| share.rotate_left(32)), UNREADABLE),
    ];

    let authority = Authority::new();
    for (number, (group, detail)) in CASES.iter().enumerate() {
        let server = server(&authority, &[group]);
        let failure = Link::refused(&mut authority.connector(NAME), &server);
        assert_eq!(&*failure.detail, *detail, "{number}");
    }
}

#[test]
fn the_hybrid_is_offered_whatever_happened_before() {
    let authority = Authority::new();
    let mut connector = authority.connector(NAME);
    let hybrid = server(&authority, &[&server_side::Hybrid, X25519]);
    let no_hybrid = server(&authority, &[X25519]);
    let p256 = server(&authority, &[SECP256R1]);
    let tls12 = authority.server_with(server_side::hybrid(), &TLS12, |_| ());
    let bent = server(&authority, &[const { &Bent(|share| share.truncate(1)) }]);
    let check = |connector: &mut Connector, before: &str| {
        let (groups, shares) = offered(&hello_of(&mut start(connector)));
        assert_eq!(groups[0], X25519MLKEM768, "{before}");
        assert_eq!(shares[0], (X25519MLKEM768, CLIENT_SHARE_LEN), "{before}");
    };
    check(&mut connector, "nothing");
    drop(start(&mut connector));
    check(&mut connector, "a handshake without an answer");
    Link::refused(&mut connector, &bent);
    check(&mut connector, "a share that is none");
    for (server, before) in [
        (&no_hybrid, "X25519 alone"),
        (&p256, "P-256"),
        (&tls12, "TLS 1.2"),
        (&hybrid, "the hybrid"),
    ] {
        for _ in 0..2 {
            Link::established(&mut connector, server);
            check(&mut connector, before);
        }
        connector.forget_session();
    }
}

#[test]
fn the_flag_is_named_where_nothing_answered_a_long_hello() {
    for (key_exchange, received, is_named) in [
        (KeyExchange::Hybrid, 0, true),
        (KeyExchange::Hybrid, 1, false),
        (KeyExchange::Classic, 0, false),
        (KeyExchange::Classic, 1, false),
    ] {
        let advice = advice(key_exchange, received);
        assert_eq!(advice.contains("--key-exchange classic"), is_named, "{key_exchange:?}");
        assert_eq!(advice.contains("DNS-over-TLS port"), received == 0);
    }
}
