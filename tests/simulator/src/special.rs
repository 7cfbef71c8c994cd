//! What is due for special names, as text, written apart from the forwarder's own reading.

use dot_proxy::forwarder::SpecialNames;

use super::dns::{self, Due, NOERROR, NXDOMAIN};

const A: u16 = 1;
const NS: u16 = 2;
const SOA: u16 = 6;
const AAAA: u16 = 28;
const DS: u16 = 43;
const ANY: u16 = 255;

/// What is due for a question that would be forwarded but for its name.
pub fn due(names: &SpecialNames, question: &[u8]) -> Due {
    let SpecialNames::Local { forwarded } = names else {
        return Due::Upstream;
    };
    let (name, kind_and_class) = question.split_at(question.len() - 4);
    let &[high, low, 0, 1] = kind_and_class else {
        return Due::Upstream;
    };
    let kind = u16::from_be_bytes([high, low]);
    let name = dns::name_of(name).to_ascii_lowercase();
    if forwarded.iter().any(|zone| is_in(&name, &dns::name_of(zone))) {
        return Due::Upstream;
    }
    let Some(zone) = zones().find(|zone| is_in(&name, zone)) else {
        return Due::Upstream;
    };
    let asks_for = |kinds: [u16; 2]| {
        let count = kinds.iter().filter(|one| [**one, ANY].contains(&kind)).count();
        Due::Special { rcode: NOERROR, answers: count, authorities: usize::from(count == 0) }
    };
    let is_apex = name == zone;
    match zone.as_str() {
        "localhost." => asks_for([A, AAAA]),
        "invalid." | "test." | "onion." | "local." => NOTHING,
        _ if is_apex && kind == DS => Due::Upstream,
        "resolver.arpa." => Due::Special { rcode: NOERROR, answers: 0, authorities: 1 },
        _ if is_apex => asks_for([SOA, NS]),
        _ => NOTHING,
    }
}

/// The special zone that the name of this question is in, if a server may be asked whether there is one.
pub fn deniable_zone(names: &SpecialNames, question: &[u8]) -> Option<String> {
    let is_special = matches!(due(names, question), Due::Special { .. });
    let name = dns::name_of(question).to_ascii_lowercase();
    let zone = zones().filter(|_| is_special).find(|zone| is_in(&name, zone))?;
    (!["localhost.", "onion.", "resolver.arpa."].contains(&zone.as_str())).then_some(zone)
}

const NOTHING: Due = Due::Special { rcode: NXDOMAIN, answers: 0, authorities: 1 };

fn is_in(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone).is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

/// Every special zone.
pub fn zones() -> impl Iterator<Item = String> {
    let names = "localhost invalid test onion local home.arpa resolver.arpa";
    let v4 = "0 10 127 254.169 168.192 2.0.192 100.51.198 113.0.203 255.255.255.255";
    let v6 = "d.f 8.e.f 9.e.f a.e.f b.e.f 8.b.d.0.1.0.0.2";
    let names = names.split(' ').map(|name| format!("{name}."));
    let v4 = v4.split(' ').map(|zone| format!("{zone}.in-addr.arpa."));
    let v6 = v6.split(' ').map(|zone| format!("{zone}.ip6.arpa."));
    let loopback = ["0.", "1."].map(|digit| format!("{digit}{}ip6.arpa.", "0.".repeat(31)));
    names
        .chain(v4)
        .chain((16..32).map(|octet| format!("{octet}.172.in-addr.arpa.")))
        .chain((64..128).map(|octet| format!("{octet}.100.in-addr.arpa.")))
        .chain(v6)
        .chain(loopback)
}
