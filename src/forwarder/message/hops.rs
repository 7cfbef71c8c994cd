//! How many hops over TLS a query has behind it, as its padding says.
//!
//! Behind a server that ends its TLS, an upstream may be this program, or another that forwards to it, and a
//! query would go round until its deadline. Nobody pads what is sent in clear (RFC 7830 section 6), so a query
//! that comes padded was sent over TLS before. It is sent on with a count in its padding, and ends where that
//! is high. What clients send is padded with zeros, as RFC 7830 section 3 recommends; it allows other octets,
//! and all must be accepted. The count tells nothing of host, client and connection.

use super::Opt;
use super::opt::OPTION_PADDING;

/// Hops over TLS that the query which has this OPT record has behind it.
pub(crate) fn hops(query: &[u8], opt: Option<&Opt>) -> u8 {
    let padding = opt.and_then(|opt| opt.options(query).find(|(code, _)| *code == OPTION_PADDING));
    match padding.map(|(_, data)| data.strip_prefix(MARK)) {
        None => 0,
        Some(Some([hops, ..])) => hops.saturating_add(1),
        // It was sent for the first time, or by another program.
        Some(_) => 1,
    }
}

/// Octets of padding that tell it from any other; the number of hops follows.
pub(crate) const MARK: &[u8; 8] = b"dotproxy";

/// More hops than programs like this one stand in a row.
pub(crate) const HOPS_MAX: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_known_by_the_padding() {
        let read = |options: &[u8]| {
            let message = [&[7; 11], options].concat();
            hops(&message, Some(&Opt::new(0, message.len(), 512, 0)))
        };
        assert_eq!(hops(b"", None), 0);
        let cases: &[(&[u8], u8)] = &[
            (b"", 0),
            (b"\0\x0b\0\x09dotproxy\x02", 0),
            (b"\0\x0c\0\0", 1),
            (b"\0\x0c\0\x09\0\0\0\0\0\0\0\0\0", 1),
            (b"\0\x0c\0\x08dotproxy", 1),
            (b"\0\x0c\0\x09dotprox?\x02", 1),
            (b"\0\x0c\0\x09dotproxy\x01", 2),
            (b"\0\x0b\0\0\0\x0c\0\x0bdotproxy\x02\0\0", 3),
            (b"\0\x0c\0\x09dotproxy\xff", 255),
        ];
        for (options, expected) in cases {
            assert_eq!(read(options), *expected, "{options:x?}");
        }
    }
}
