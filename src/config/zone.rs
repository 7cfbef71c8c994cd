//! Zones as they are written on the command line.

use super::upstream::{LABEL_LEN_MAX, NAME_LEN_MAX};

/// A zone's name as it stands in messages, in lower case, or what is wrong with it. `example` is a right one, and
/// `all` does for all names.
pub(super) fn zone(text: &str, example: &str, all: &str) -> Result<Box<[u8]>, String> {
    let form = format!("write a name, such as {example}");
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(format!("is above all names; write {all}"));
    }
    if !name.is_ascii() {
        return Err("is not in its ASCII form (A-labels, xn--...)".into());
    }
    if name.len() > NAME_LEN_MAX {
        return Err(format!("is {} octets long, more than {NAME_LEN_MAX}; {form}", name.len()));
    }
    let mut octets = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let problem = if label.is_empty() {
            "has an empty label"
        } else if label.len() > LABEL_LEN_MAX {
            "has a label of more than 63 octets"
        } else if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/".contains(&b)) {
            // The slash is for reverse zones of less than an octet (RFC 2317 section 4).
            "has something else than letters, digits, hyphens, underscores and slashes"
        } else {
            octets.push(label.len() as u8);
            octets.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
            continue;
        };
        return Err(format!("{problem}; {form}"));
    }
    octets.push(0);
    Ok(octets.into())
}

pub(super) const ZONE_EXAMPLE: &str = "10.in-addr.arpa";

pub(super) const PRIVATE_ZONE_EXAMPLE: &str = "corp.example";
