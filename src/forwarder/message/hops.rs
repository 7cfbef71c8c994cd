//! How many hops over TLS a query has behind it, as its padding says.
//!
//! Behind a server that ends its TLS, an upstream may be this program, or another that forwards to it, and a
//! query would go round until its deadline. Nobody pads what is sent in clear (RFC 7830 section 6), so a query
//! that comes padded was sent over TLS before. It is sent on with a count in its padding, and ends where that
//! is high. What clients send is padded with zeros, as RFC 7830 section 3 recommends; it allows other octets,
//! and all must be accepted. The count tells nothing of host, client and connection.

use super::Opt;
use super::opt::{OPT_LEN_MIN, OPTION_PADDING};

/// Hops over TLS that the query which has this OPT record has behind it.
pub(crate) fn hops(query: &[u8], opt: Option<&Opt>) -> u8 {
    let Some(opt) = opt.filter(|opt| opt.len > OPT_LEN_MIN) else {
        return 0;
    };
    let paddings = opt.options(query).filter(|(code, _)| *code == OPTION_PADDING);
    let counts = paddings.map(|(_, data)| match data.strip_prefix(MARK) {
        Some([hops, ..]) => hops.saturating_add(1),
        // It was sent for the first time, or by another program.
        _ => 1,
    });
    // Whoever adds a second padding does not begin anew.
    counts.max().unwrap_or(0)
}

/// Whether the query has gone round, or could without an end: one so long that the count has no room in it.
pub(crate) fn has_come_back(query: &[u8], opt: Option<&Opt>) -> bool {
    match hops(query, opt) {
        0 => false,
        hops => hops > HOPS_MAX || query.len() > LEN_MAX,
    }
}

/// Octets of padding that tell it from any other; the number of hops follows.
pub(crate) const MARK: &[u8; 8] = b"dotproxy";

/// More hops than programs like this one stand in a row.
const HOPS_MAX: u8 = 3;

/// The longest message that the options of this hop and the count can be added to.
const LEN_MAX: usize = 65_535 - 256;

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
            (b"\0\x0c\0\0\0\x0c\0\x09dotproxy\x02\0\x0c\0\x01\0", 3),
        ];
        for (options, expected) in cases {
            assert_eq!(read(options), *expected, "{options:x?}");
        }
    }

    #[test]
    fn a_query_too_long_for_the_count_goes_no_further() {
        for (mark, len, expected) in [
            (&b"dotproxy\x02"[..], 600, false),
            (b"dotproxy\x03", 600, true),
            (b"\0\0\0\0\0\0\0\0\0", LEN_MAX, false),
            (b"\0\0\0\0\0\0\0\0\0", LEN_MAX + 1, true),
        ] {
            let padding = (len - 15) as u16;
            let mut query = [&[7; 11][..], &[0, 12], &padding.to_be_bytes(), mark].concat();
            query.resize(len, 0);
            let opt = Opt::new(0, query.len(), 512, 0);
            assert_eq!(has_come_back(&query, Some(&opt)), expected, "{mark:x?} {len}");
            assert!(!has_come_back(&query, None));
        }
    }
}
