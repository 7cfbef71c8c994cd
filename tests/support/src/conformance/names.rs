//! Names that are nobody's, or this host's. Statements 63 to 65.

use super::client::Client;
use super::proxying::rcode;
use crate::Query;
use crate::forwarder::outcome::Outcome;
use crate::forwarder::stage::Stage;
use crate::forwarder::subject::Subject;
use crate::message::{self, A, AAAA, NOERROR, NXDOMAIN, SOA, TXT};
use crate::view::View;

const NS: u16 = 2;
const PTR: u16 = 12;
const MX: u16 = 15;
const DS: u16 = 43;
const SVCB: u16 = 64;

const AA: u16 = 0x0400;
const AD: u16 = 0x20;

/// What a local answer is to be: RCODE and numbers of answer and authority records.
type Due = (u16, usize, usize);

/// NXDOMAIN or NODATA with an SOA record (RFC 2308 section 2).
const NO_NAME: Due = (NXDOMAIN, 0, 1);
const NO_DATA: Due = (NOERROR, 0, 1);

/// Asks for what is to be answered locally; the response, if it is as it should be.
fn promise_local(
    outcome: &mut Outcome,
    stage: &Stage,
    client: &mut Client,
    (name, qtype): (&str, u16),
    due: Due,
) -> Option<Vec<u8>> {
    let response = client.ask(&Query::new(name, qtype));
    let view = response.as_ref().and_then(|octets| View::read(octets));
    let seen = view.map(|view| (view.rcode(), view.count(0), view.count(1)));
    outcome.promise(seen == Some(due), || {
        format!("{name} TYPE{qtype}: {seen:?} (RCODE, answers, authorities), not {due:?}")
    });
    let asked = stage.servers[0].log().queries_for(name);
    outcome.promise(asked == 0, || format!("{name} TYPE{qtype} was sent upstream"));
    response.filter(|_| seen == Some(due))
}

fn promise_forwarded(
    outcome: &mut Outcome,
    stage: &Stage,
    client: &mut Client,
    name: &str,
    qtype: u16,
) {
    let response = client.ask(&Query::new(name, qtype));
    let asked = stage.servers[0].log().queries_for(name);
    outcome.promise(asked > 0, || {
        format!("{name} TYPE{qtype} was not sent upstream, RCODE {:?}", rcode(response.as_ref()))
    });
}

pub fn special(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for name in ["localhost", "a.b.localhost", "LocalHost"] {
        for (qtype, data) in [
            (A, &[127, 0, 0, 1][..]),
            (AAAA, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..]),
        ] {
            let response = client.ask(&Query::new(name, qtype));
            let view = response.as_ref().and_then(|octets| View::read(octets));
            let right = view.is_some_and(|view| {
                view.rcode() == NOERROR
                    && view.records.first().is_some_and(|r| view.data(r) == data)
            });
            outcome.promise(right, || {
                format!("{name} TYPE{qtype}: RCODE {:?}, not loopback", rcode(response.as_ref()))
            });
        }
        promise_local(&mut outcome, &stage, &mut client, (name, MX), NO_DATA);
    }
    let asked = stage.servers[0].log().queries_for("localhost");
    outcome.promise(asked == 0, || "localhost was sent upstream".to_owned());
    for zone in ["invalid", "test", "onion", "local", "home.arpa"] {
        for (name, qtype) in [(format!("a.{zone}"), A), (format!("a.B.c.{zone}"), TXT)] {
            let asked = name.to_ascii_lowercase();
            promise_local(&mut outcome, &stage, &mut client, (&asked, qtype), NO_NAME);
        }
    }
    for name in ["a.example", "ipv4only.arpa", "a.internal", "notlocal", "a.testing"] {
        promise_forwarded(&mut outcome, &stage, &mut client, name, A);
    }
    Ok(outcome)
}

/// The zones of RFC 6303 sections 4.2 to 4.6 and RFC 7793.
fn reverse_zones() -> Vec<String> {
    let ipv4 = ["0", "10", "127", "254.169", "2.0.192", "168.192", "100.51.198", "113.0.203"]
        .map(str::to_owned)
        .into_iter()
        .chain((64..128).map(|n| format!("{n}.100")))
        .chain((16..32).map(|n| format!("{n}.172")))
        .chain(["255.255.255.255".to_owned()])
        .map(|zone| format!("{zone}.in-addr.arpa"));
    let zeros = vec!["0"; 31].join(".");
    let ipv6 = ["d.f", "8.e.f", "9.e.f", "a.e.f", "b.e.f", "8.b.d.0.1.0.0.2"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("0.{zeros}"), format!("1.{zeros}")])
        .map(|zone| format!("{zone}.ip6.arpa"));
    ipv4.chain(ipv6).collect()
}

/// The data of an SOA record: the apex, nobody.invalid and five numbers.
fn is_empty_zones_soa(data: &[u8], zone: &str, response: &[u8]) -> bool {
    let numbers: Vec<u8> =
        [1_u32, 3_600, 1_200, 604_800, 10_800].into_iter().flat_map(u32::to_be_bytes).collect();
    let mut expected = message::wire_name("nobody.invalid");
    expected.extend(&numbers);
    // The apex may be compressed.
    let Some(apex) = data.strip_suffix(&expected[..]) else { return false };
    let apex = match apex {
        [high, low] if *high >= 0xc0 => {
            let at = usize::from(u16::from_be_bytes([high & 0x3f, *low]));
            response.get(at..).unwrap_or_default()
        }
        name => name,
    };
    apex.to_ascii_lowercase().starts_with(&message::wire_name(zone))
}

pub fn reverse(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for zone in reverse_zones() {
        let below = format!("1.{zone}");
        let no_name = promise_local(&mut outcome, &stage, &mut client, (&below, PTR), NO_NAME);
        if let Some(response) = &no_name {
            let flags = message::flags(response) & (AA | AD);
            outcome.promise(flags == AA, || format!("{below}: AA|AD {flags:04x}"));
            let view = View::read(response).expect("read before");
            let soa = view.records.iter().find(|record| record.rtype == SOA);
            let right = soa.is_some_and(|soa| is_empty_zones_soa(view.data(soa), &zone, response));
            outcome.promise(right, || format!("{below}: another SOA than that of an empty zone"));
        }
        for (qtype, due) in [(SOA, (NOERROR, 1, 0)), (NS, (NOERROR, 1, 0)), (TXT, NO_DATA)] {
            promise_local(&mut outcome, &stage, &mut client, (&zone, qtype), due);
        }
        promise_forwarded(&mut outcome, &stage, &mut client, &zone, DS);
        if outcome.broken.len() > 20 {
            break;
        }
    }
    promise_forwarded(&mut outcome, &stage, &mut client, "home.arpa", DS);
    for name in ["1.11.in-addr.arpa", "1.63.100.in-addr.arpa", "1.32.172.in-addr.arpa"] {
        promise_forwarded(&mut outcome, &stage, &mut client, name, PTR);
    }
    Ok(outcome)
}

pub fn resolver(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for name in ["resolver.arpa", "_dns.resolver.arpa", "a.b.resolver.arpa"] {
        for qtype in [SVCB, A] {
            promise_local(&mut outcome, &stage, &mut client, (name, qtype), NO_DATA);
        }
    }
    promise_forwarded(&mut outcome, &stage, &mut client, "resolver.arpa", DS);
    Ok(outcome)
}
