//! The OPT record (RFC 6891): reading it, its options, and writing one.

use std::ops::Range;

/// The OPT record of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt {
    /// Where the record starts in the message.
    pub offset: usize,
    /// Octets of the record.
    pub len: usize,
    /// The largest UDP message its sender takes; values below 512 read as 512 (RFC 6891 section
    /// 6.2.5).
    pub udp_size: u16,
    /// The upper eight bits of the RCODE.
    pub extended_rcode: u8,
    /// The EDNS version.
    pub version: u8,
    /// The DO bit (RFC 3225).
    pub dnssec_ok: bool,
}

impl Opt {
    /// Reads the fixed part of the record at `offset`: `class` and `ttl` hold what OPT keeps there.
    pub(crate) fn new(offset: usize, len: usize, class: u16, ttl: u32) -> Self {
        let [extended_rcode, version, flags, _] = ttl.to_be_bytes();
        Self {
            offset,
            len,
            udp_size: class.max(UDP_SIZE_MIN),
            extended_rcode,
            version,
            dnssec_ok: flags & DNSSEC_OK != 0,
        }
    }

    /// Whether the query that has this OPT record asks for the idle timeout of its connection
    /// (RFC 7828 section 3.2.1).
    pub fn asks_keepalive(&self, query: &[u8]) -> bool {
        self.options(query).any(|(code, _)| code == OPTION_KEEPALIVE)
    }

    /// The idle timeout in units of 100 ms that the response which has this OPT record announces for
    /// its connection (RFC 7828 section 3.1).
    pub fn keepalive_timeout(&self, response: &[u8]) -> Option<u16> {
        self.options(response).find_map(|(code, data)| match (code, data) {
            (OPTION_KEEPALIVE, &[high, low]) => Some(u16::from_be_bytes([high, low])),
            _ => None,
        })
    }

    /// Octets of padding in the message which has this OPT record (RFC 7830), if there is such an option.
    pub fn padding(&self, message: &[u8]) -> Option<usize> {
        let mut options = self.options(message);
        options.find_map(|(code, data)| (code == OPTION_PADDING).then_some(data.len()))
    }

    /// The INFO-CODEs of the Extended DNS Errors in the response which has this OPT record.
    pub fn ede_codes<'a>(&self, response: &'a [u8]) -> impl Iterator<Item = u16> + use<'a> {
        self.options(response).filter_map(|(code, data)| match (code, data) {
            (OPTION_EDE, &[high, low, ..]) => Some(u16::from_be_bytes([high, low])),
            _ => None,
        })
    }

    /// The EXTRA-TEXTs of the Extended DNS Errors in the response which has this OPT record, where there is one.
    pub fn ede_texts<'a>(&self, response: &'a [u8]) -> impl Iterator<Item = &'a str> + use<'a> {
        self.options(response).filter_map(|(code, data)| match (code, data) {
            (OPTION_EDE, [_, _, text @ ..]) => {
                str::from_utf8(text).ok().filter(|it| !it.is_empty())
            }
            _ => None,
        })
    }

    /// Codes and data of its options.
    pub(crate) fn options<'a>(
        &self,
        message: &'a [u8],
    ) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let rdata = self.range().start + OPT_LEN_MIN..self.range().end;
        // A message with an option that overruns is not passed on.
        Options::new(message.get(rdata).unwrap_or_default())
    }

    /// Where the record is.
    pub(crate) fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// An Extended DNS Error (RFC 8914).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ede<'a> {
    /// The INFO-CODE.
    pub code: u16,
    /// The EXTRA-TEXT: a few words for a person.
    pub text: &'a str,
}

impl Ede<'_> {
    /// Another error, told by the text.
    pub const OTHER: u16 = 0;
    /// Starting up or shutting down.
    pub const NOT_READY: u16 = 14;
    /// The answer is not given, as the client's side asked for.
    pub const FILTERED: u16 = 17;
    /// Who asks is not authorized.
    pub const PROHIBITED: u16 = 18;
    /// The operation or query is not supported.
    pub const NOT_SUPPORTED: u16 = 21;
    /// No upstream could be connected to.
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;
    /// An upstream was connected to, but its answer did not come.
    pub const NETWORK_ERROR: u16 = 23;

    /// What BADVERS has here and nowhere else. `health` knows the program by it.
    pub const PROGRAM: Ede<'static> = Ede { code: Ede::OTHER, text: env!("CARGO_PKG_NAME") };
}

/// The options in the RDATA of an OPT record, code and data each, up to one that overruns it.
#[derive(Clone, Debug)]
pub(crate) struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    pub(crate) fn new(rdata: &'a [u8]) -> Self {
        Self(rdata)
    }

    /// Whether none overruns the RDATA.
    pub(crate) fn are_whole(mut self) -> bool {
        self.by_ref().for_each(drop);
        self.0.is_empty()
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[c0, c1, l0, l1], rest) = self.0.split_first_chunk()?;
        let (data, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
        self.0 = rest;
        Some((u16::from_be_bytes([c0, c1]), data))
    }
}

/// Appends an OPT record of version 0 of at most `room` octets, if any fits.
///
/// Where room is short, the end of the error's text goes first, then the error, then the idle time.
pub(crate) fn append_opt(
    out: &mut Vec<u8>,
    udp_size: u16,
    extended_rcode: u8,
    dnssec_ok: bool,
    options: OwnOptions<'_>,
    room: usize,
) {
    let Some(mut room) = room.checked_sub(OPT_LEN_MIN) else {
        return;
    };
    out.push(0);
    out.extend_from_slice(&TYPE_OPT.to_be_bytes());
    out.extend_from_slice(&udp_size.to_be_bytes());
    out.extend_from_slice(&[extended_rcode, 0, if dnssec_ok { DNSSEC_OK } else { 0 }, 0]);
    let rdlen_at = out.len();
    out.extend_from_slice(&[0, 0]);
    if let Some(timeout) = options.keepalive
        && let Some(left) = room.checked_sub(OPTION_HEADER_LEN + 2)
    {
        out.extend_from_slice(&OPTION_KEEPALIVE.to_be_bytes());
        out.extend_from_slice(&[0, 2]);
        out.extend_from_slice(&timeout.to_be_bytes());
        room = left;
    }
    if let Some(ede) = options.ede
        && let Some(room) = room.checked_sub(OPTION_HEADER_LEN + 2)
    {
        let [text, rest] = start_of(ede.text, room.min(EXTRA_TEXT_MAX));
        out.extend_from_slice(&OPTION_EDE.to_be_bytes());
        out.extend_from_slice(&((2 + text.len() + rest.len()) as u16).to_be_bytes());
        out.extend_from_slice(&ede.code.to_be_bytes());
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(rest.as_bytes());
    }
    let rdlen = (out.len() - rdlen_at - 2) as u16;
    out[rdlen_at..rdlen_at + 2].copy_from_slice(&rdlen.to_be_bytes());
}

/// The options of an OPT record that is written here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OwnOptions<'a> {
    /// How long the client's connection may idle, in units of 100 ms (RFC 7828 section 3.1).
    pub(crate) keepalive: Option<u16>,
    pub(crate) ede: Option<Ede<'a>>,
}

/// The start of `text`, as far as it fits in `len` octets, and what says that some of it is left out. It ends
/// behind a word, if there are several: half a pin would be taken for one.
pub(crate) fn start_of(text: &str, len: usize) -> [&str; 2] {
    if text.len() <= len {
        return [text, ""];
    }
    let Some(mut end) = len.checked_sub(LEFT_OUT.len()) else {
        return ["", ""];
    };
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let start = &text[..end];
    [start.rsplit_once(' ').map_or(start, |(whole, _)| whole), LEFT_OUT]
}

const LEFT_OUT: &str = "...";

pub(crate) const TYPE_OPT: u16 = 41;

/// Octets of an OPT record without options, its owner (the root) included.
pub(crate) const OPT_LEN_MIN: usize = 11;

/// Octets that every DNS implementation takes over UDP (RFC 1035 section 2.3.4).
pub(crate) const UDP_SIZE_MIN: u16 = 512;

pub(crate) const DNSSEC_OK: u8 = 0x80;

/// EDNS Client Subnet (RFC 7871).
pub(crate) const OPTION_ECS: u16 = 8;
/// DNS Cookies (RFC 7873).
pub(crate) const OPTION_COOKIE: u16 = 10;
/// edns-tcp-keepalive (RFC 7828).
pub(crate) const OPTION_KEEPALIVE: u16 = 11;
/// Padding (RFC 7830).
pub(crate) const OPTION_PADDING: u16 = 12;
/// Extended DNS Errors (RFC 8914).
const OPTION_EDE: u16 = 15;

/// Octets of an option in front of its data: code and length.
pub(crate) const OPTION_HEADER_LEN: usize = 4;

/// A long text may cause truncation, which no explanation is worth (RFC 8914 section 3).
pub(crate) const EXTRA_TEXT_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_in_order_until_one_overruns() {
        type Case<'a> = (&'a [u8], &'a [(u16, &'a [u8])], bool);
        let cases: &[Case<'_>] = &[
            (b"", &[], true),
            (b"\0\x0a\0\0", &[(10, b"")], true),
            (b"\0\x0a\0\x02ab\xff\xfe\0\x01c", &[(10, b"ab"), (0xfffe, b"c")], true),
            (b"\0", &[], false),
            (b"\0\x0a\0", &[], false),
            (b"\0\x0a\0\x03ab", &[], false),
            (b"\0\x0a\0\x01a\0\x0b\xff\xff", &[(10, b"a")], false),
        ];
        for (rdata, expected, are_whole) in cases {
            assert_eq!(Options::new(rdata).collect::<Vec<_>>(), *expected, "{rdata:x?}");
            assert_eq!(Options::new(rdata).are_whole(), *are_whole, "{rdata:x?}");
        }
    }

    #[test]
    fn fixed_part() {
        let opt = Opt::new(7, 30, 100, 0x0102_8000);
        assert_eq!((opt.offset, opt.len), (7, 30));
        assert_eq!(opt.udp_size, 512, "smaller sizes read as 512");
        assert_eq!((opt.extended_rcode, opt.version, opt.dnssec_ok), (1, 2, true));

        let opt = Opt::new(0, 11, 1_232, 0x0000_7fff);
        assert_eq!((opt.udp_size, opt.dnssec_ok), (1_232, false));
    }

    #[test]
    fn options_that_are_read() {
        let read = |options: &[u8]| {
            let message = [&[7; 11], options].concat();
            let opt = Opt::new(0, message.len(), 512, 0);
            let codes: Vec<_> = opt.ede_codes(&message).collect();
            (opt.asks_keepalive(&message), opt.keepalive_timeout(&message), codes)
        };
        let cases: &[(&[u8], _)] = &[
            (b"", (false, None, vec![])),
            (b"\0\x0b\0\0", (true, None, vec![])),
            (b"\0\x0b\0\x01\x05\0\x0b\0\x02\x01\x2c\0\x0b\0\x02\0\0", (true, Some(300), vec![])),
            (b"\0\x0f\0\x01\0\0\x0f\0\x02\0\x16\0\x0f\0\x04\0\x17ab", (false, None, vec![22, 23])),
            (b"\0\x0f\0\x02\0\x16\0\x0b\0\x02\x01", (false, None, vec![22])),
        ];
        for (options, expected) in cases {
            assert_eq!(read(options), *expected, "{options:x?}");
        }
        let padded = b"\0\x0b\0\0\0\x0c\0\x03abc";
        assert_eq!(
            Opt::new(0, 11 + padded.len(), 512, 0).padding(&[&[7; 11], &padded[..]].concat()),
            Some(3)
        );
        // The OPT record of one message, looked for in another.
        let opt = Opt::new(40, 60, 512, 0);
        assert_eq!(opt.keepalive_timeout(&[0; 50]), None);
    }

    #[test]
    fn ede_gives_way_where_room_is_short() {
        let ede = Ede { code: 23, text: "abé" };
        let option = |text: &str| {
            let len = text.len() as u8;
            [&[0, len + 6, 0, 15, 0, len + 2, 0, 23], text.as_bytes()].concat()
        };
        let none = vec![0, 0];
        let cases = [
            (10, None),
            (11, Some(none.clone())),
            (16, Some(none)),
            (17, Some(option(""))),
            (18, Some(option(""))),
            (20, Some(option("..."))),
            (21, Some(option("abé"))),
            (9_000, Some(option("abé"))),
        ];
        for (room, rdata) in cases {
            let mut out = Vec::new();
            let options = OwnOptions { ede: Some(ede), keepalive: None };
            append_opt(&mut out, 1_232, 1, true, options, room);
            let expected = rdata.map_or(vec![], |rdata| {
                [&[0, 0, 41, 0x04, 0xd0, 1, 0, 0x80, 0], &rdata[..]].concat()
            });
            assert_eq!(out, expected, "room for {room}");
            assert!(out.len() <= room);
        }
    }

    #[test]
    fn the_idle_time_gives_way_after_ede() {
        let options = OwnOptions { keepalive: Some(300), ede: Some(Ede { code: 23, text: "ab" }) };
        let cases: [(usize, &[u8]); 5] = [
            (16, b"\0\0"),
            (17, b"\0\x06\0\x0b\0\x02\x01\x2c"),
            (22, b"\0\x06\0\x0b\0\x02\x01\x2c"),
            (23, b"\0\x0c\0\x0b\0\x02\x01\x2c\0\x0f\0\x02\0\x17"),
            (512, b"\0\x0e\0\x0b\0\x02\x01\x2c\0\x0f\0\x04\0\x17ab"),
        ];
        for (room, rdata) in cases {
            let mut out = Vec::new();
            append_opt(&mut out, 1_232, 0, false, options, room);
            assert_eq!(out[9..], *rdata, "room for {room}");
            assert!(out.len() <= room);
        }
    }

    #[test]
    fn without_options_and_flags() {
        let mut out = Vec::new();
        append_opt(&mut out, 512, 0, false, OwnOptions::default(), 512);
        assert_eq!(out, [0, 0, 41, 2, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn long_texts_are_cut() {
        let mut out = Vec::new();
        let text = "x".repeat(70_000);
        let options = OwnOptions { ede: Some(Ede { code: 0, text: &text }), keepalive: None };
        append_opt(&mut out, 512, 0, false, options, 80_000);
        assert_eq!(out.len(), OPT_LEN_MIN + OPTION_HEADER_LEN + 2 + EXTRA_TEXT_MAX);
        for (text, len, expected) in [
            ("one two", 7, ["one two", ""]),
            ("one two", 6, ["one", "..."]),
            ("one two three", 12, ["one two", "..."]),
            ("one two three", 10, ["one", "..."]),
            ("one", 2, ["", ""]),
            ("Grüße", 6, ["Gr", "..."]),
        ] {
            assert_eq!(start_of(text, len), expected, "{text} {len}");
        }
    }
}
