//! Networks in the forms of other programs, as they are written here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{REPEATED_MAX, parts, shown};
use crate::config::address::network_begun;
use crate::forwarder::Prefix;

/// What is wrong with a network that is not written as here, and how it is written here behind `flag`.
pub(in crate::config) fn network(flag: &str, value: &str, is_interface: bool) -> Option<String> {
    let is_allow = flag == "--allow";
    let word = value.to_ascii_lowercase().replace(" /", "/").replace("/ ", "/");
    match &*word {
        "*" | "all" | "any" | "everybody" | "everyone" if flag == "--deny" => {
            return Some(DENY_EVERYBODY.into());
        }
        "*" | "all" | "any" | "everybody" | "everyone" => {
            return Some(format!("is everybody; write {flag} 0.0.0.0/0 {flag} ::/0"));
        }
        "lan" | "localnet" | "localnets" if is_allow => {
            return Some("is local here; write --allow local".into());
        }
        _ if !is_allow && parts(&word).contains(&"local") => {
            return Some(
                "is for --allow; write the networks of this host's interfaces, which `ip address` shows".into(),
            );
        }
        _ if is_interface && is_allow => {
            let name = shown(value);
            return Some(format!(
                "is an interface; write --allow local for the networks of all interfaces, or that of \
                 {name}, which `ip address` shows"
            ));
        }
        _ if is_interface => {
            return Some("is an interface; write its network, which `ip address` shows".into());
        }
        _ => {}
    }
    let (ip, len) = value.split_once('/').unwrap_or((value, "0"));
    if ip.parse::<IpAddr>().is_ok() && len.bytes().all(|octet| octet.is_ascii_digit()) {
        // The form is right; something else is not.
        return None;
    }
    let ends = word.split_once('-');
    let listed = match ends.and_then(|(first, last)| range(first.trim(), last.trim())) {
        Some(Ok(networks)) => networks.into_iter().map(|network| (flag, network)).collect(),
        Some(Err(remedy)) => return Some(remedy),
        None => access_entries(flag, &word)?,
    };
    match &listed[..] {
        [(_, network)] if flag == "--deny" && network == "0.0.0.0/0" => Some(DENY_EVERYBODY.into()),
        [(same, network)] if *same == flag => {
            Some(format!("is in another form than CIDR; write {network}"))
        }
        [(other, network)] => Some(format!("write {other} {network}")),
        several => Some(format!("is {} in one; write {}", several.len(), shown_entries(several))),
    }
}

const DENY_EVERYBODY: &str =
    "is everybody; write --allow with what is to be served, and nobody else is, loopback aside";

/// What a list of networks of another program is here: flags, each with one of them.
pub(super) fn access_list(flag: &str, value: &str) -> Option<String> {
    let list = shown_entries(&access_entries(flag, &value.to_ascii_lowercase())?);
    let is_answered =
        flag != "--rate-exempt" && words_of(value).any(|word| word.contains("refuse"));
    Some(if is_answered { format!("{list} --refuse-denied refused") } else { list })
}

fn shown_entries(entries: &[(&str, String)]) -> String {
    let shown =
        entries.iter().take(REPEATED_MAX).map(|(flag, network)| format!("{flag} {network}"));
    let more = if entries.len() > REPEATED_MAX { " ..." } else { "" };
    format!("{}{more}", shown.collect::<Vec<_>>().join(" "))
}

/// The networks in a list, each behind the flag that it takes: `flag`, or another one if a word of the list or an
/// exclamation mark says so. None: something else is in it, or nothing is.
fn access_entries<'a>(flag: &'a str, list: &str) -> Option<Vec<(&'a str, String)>> {
    let denies = words_of(list).filter_map(verb).next_back();
    let flag = match denies {
        Some(true) if flag != "--rate-exempt" => "--deny",
        Some(false) if flag != "--rate-exempt" => "--allow",
        _ => flag,
    };
    let mut networks: Vec<String> = Vec::new();
    for word in words_of(list).filter(|word| verb(word).is_none() && !FILLERS.contains(word)) {
        // A mask or a length may stand behind a space.
        match networks.last_mut() {
            Some(address) if address.parse::<IpAddr>().is_ok() && is_mask(word) => {
                *address += "/";
                *address += word;
            }
            _ => networks.push(word.to_owned()),
        }
    }
    let entry = |network: String| {
        let (flag, bare) = match network.strip_prefix('!') {
            Some(bare) if flag == "--allow" => ("--deny", bare),
            _ => (flag, &*network),
        };
        match network_within(bare) {
            Some(prefix) => Some((flag, prefix.to_string())),
            None => (flag == "--allow" && ["default", "local"].contains(&bare))
                .then(|| (flag, bare.to_owned())),
        }
    };
    let entries = networks.into_iter().map(entry).collect::<Option<Vec<_>>>()?;
    (!entries.is_empty()).then_some(entries)
}

/// The words of a list, without what programs put around them. A slash belongs to what is beside it.
fn words_of(list: &str) -> impl DoubleEndedIterator<Item = &str> {
    let marks = [',', ';', ' ', '{', '}', '(', ')', '"', '\'', '='];
    list.split(marks).map(str::trim).filter(|word| !word.is_empty())
}

/// Whether a word of an access list says that the networks beside it are not served; None: it is no such word.
pub(in crate::config) fn verb(word: &str) -> Option<bool> {
    let word = word.to_ascii_lowercase();
    let begins = |verbs: &[&str]| {
        verbs.iter().any(|verb| {
            word.strip_prefix(verb).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        })
    };
    if begins(&["deny", "refuse", "block", "drop", "filter", "reject"]) {
        Some(true)
    } else {
        begins(&["allow", "accept", "permit"]).then_some(false)
    }
}

/// Words of access lists that say nothing here.
const FILLERS: [&str; 4] = ["net", "mask", "netmask", "yes"];

/// Whether a word is the length of a prefix, a netmask or a wildcard mask.
fn is_mask(word: &str) -> bool {
    word.parse::<u8>().is_ok_and(|len| len <= 128)
        || word.parse::<Ipv4Addr>().is_ok_and(|mask| matches!(mask.octets()[0], 0 | 255))
}

/// The network that was likely meant: with a netmask or a wildcard mask, with some of its octets, in brackets,
/// with a port or an interface.
fn network_within(text: &str) -> Option<Prefix> {
    let (ip, len) = text.split_once('/').map_or((text, None), |(ip, len)| (ip, Some(len)));
    let ip = ip.trim_start_matches('[');
    let ip = ip.split([']', '%']).next().unwrap_or_default();
    let with_port = ip.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    let ip = match with_port {
        Some((v4, _)) if !v4.contains(':') => v4,
        _ => ip,
    };
    let octets = ip.trim_end_matches(".*").trim_end_matches('.');
    let count = octets.split('.').count();
    let (address, whole) = match ip.parse::<IpAddr>() {
        Ok(address)
            if len.is_none()
                && let Some(begun) = network_begun(address) =>
        {
            return Some(begun);
        }
        Ok(address) => (address, if address.is_ipv4() { 32 } else { 128 }),
        Err(_) if count < 4 => {
            let padded = octets.to_owned() + &".0".repeat(4 - count);
            // A number alone is hardly a network.
            let whole =
                if len.is_some() || count > 1 || octets != ip { 8 * count } else { return None };
            (IpAddr::V4(padded.parse().ok()?), whole)
        }
        Err(_) => return None,
    };
    let len = match len {
        None => whole.try_into().ok()?,
        Some(len) => match len.parse::<Ipv4Addr>() {
            Ok(mask) if address.is_ipv4() => {
                let mask = mask.to_bits();
                // A wildcard mask has ones where a netmask has zeros.
                let mask = if mask.leading_ones() == 0 && mask != 0 { !mask } else { mask };
                let ones = mask.leading_ones();
                (ones == mask.count_ones()).then_some(ones as u8)?
            }
            _ => len.parse().ok()?,
        },
    };
    Prefix::of(address, len)
}

/// The networks that make up a range of addresses, or what to write if they are many. Of the last address the
/// last octet may stand alone.
fn range(first: &str, last: &str) -> Option<Result<Vec<String>, String>> {
    let first: IpAddr = first.parse().ok()?;
    let last: IpAddr = match (first, last.parse::<u8>()) {
        (IpAddr::V4(v4), Ok(octet)) => {
            let [a, b, c, _] = v4.octets();
            [a, b, c, octet].into()
        }
        _ => last.parse().ok()?,
    };
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let most: u32 = if first.is_ipv4() { 32 } else { 128 };
    let (mut at, end) = (bits(first), bits(last));
    if first.is_ipv4() != last.is_ipv4() || at > end {
        return None;
    }
    let prefix = |at: u128, zeros: u32| {
        let ip = match first {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(at as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(at)),
        };
        Prefix::of(ip, (most - zeros) as u8).map(|prefix| prefix.to_string())
    };
    let mut networks = Vec::new();
    loop {
        let left = (end - at).checked_add(1).map_or(128, u128::ilog2);
        let zeros = at.trailing_zeros().min(left).min(most);
        networks.push(prefix(at, zeros)?);
        let next = 1_u128.checked_shl(zeros).and_then(|len| at.checked_add(len));
        match next.filter(|next| *next <= end) {
            Some(next) => at = next,
            None => break,
        }
    }
    if networks.len() > REPEATED_MAX {
        let zeros = 128 - (bits(first) ^ end).leading_zeros();
        return Some(Err(format!(
            "is a range; write the network around it, {}",
            prefix(end, zeros)?
        )));
    }
    Some(Ok(networks))
}
