//! The parts of a DNS message as octets (RFC 1035 section 4.1): header, question, the start of a
//! record, names.

use super::types::{Class, Rtype};

/// The header of a message.
pub(crate) struct Header {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) qdcount: u16,
    pub(crate) ancount: u16,
    pub(crate) nscount: u16,
    pub(crate) arcount: u16,
}

impl Header {
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_LEN] = message.first_chunk()?;
        let field = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        Some(Self {
            id: field(0),
            flags: field(2),
            qdcount: field(4),
            ancount: field(6),
            nscount: field(8),
            arcount: field(10),
        })
    }

    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        for field in [self.id, self.flags, self.qdcount, self.ancount, self.nscount, self.arcount] {
            out.extend_from_slice(&field.to_be_bytes());
        }
    }
}

/// Changes the number of additional records that the header says. A message too short for a header is
/// left as it is.
pub(crate) fn add_to_arcount(message: &mut [u8], difference: i16) {
    if let Some([.., high, low]) = message.first_chunk_mut::<HEADER_LEN>() {
        let arcount = u16::from_be_bytes([*high, *low]).saturating_add_signed(difference);
        [*high, *low] = arcount.to_be_bytes();
    }
}

/// The question of a message.
pub(crate) struct Question {
    pub(crate) qtype: Rtype,
    pub(crate) qclass: Class,
    pub(crate) end: usize,
}

impl Question {
    /// Reads the first question. Its name cannot be compressed, as no name comes before it.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let mut at = HEADER_LEN;
        loop {
            match *message.get(at)? {
                0 => break,
                len @ 1..=LABEL_LEN_MAX => at += 1 + usize::from(len),
                _ => return None,
            }
        }
        at += 1;
        if at - HEADER_LEN > NAME_LEN_MAX {
            return None;
        }
        let [t0, t1, c0, c1] = *message.get(at..)?.first_chunk()?;
        Some(Self {
            qtype: Rtype(u16::from_be_bytes([t0, t1])),
            qclass: Class(u16::from_be_bytes([c0, c1])),
            end: at + QUESTION_FIXED_LEN,
        })
    }
}

/// A record whose RDATA may reach beyond the message.
pub(crate) struct RecordStart {
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) rdata_start: usize,
    pub(crate) rdata_len: usize,
}

impl RecordStart {
    pub(crate) fn read(message: &[u8], at: usize) -> Option<Self> {
        let name_end = name_end(message, at)?;
        let fixed: &[u8; RECORD_FIXED_LEN] = message.get(name_end..)?.first_chunk()?;
        let [t0, t1, c0, c1, ttl0, ttl1, ttl2, ttl3, l0, l1] = *fixed;
        Some(Self {
            rtype: u16::from_be_bytes([t0, t1]),
            class: u16::from_be_bytes([c0, c1]),
            ttl: u32::from_be_bytes([ttl0, ttl1, ttl2, ttl3]),
            rdata_start: name_end + RECORD_FIXED_LEN,
            rdata_len: usize::from(u16::from_be_bytes([l0, l1])),
        })
    }

    pub(crate) fn rdata<'a>(&self, message: &'a [u8]) -> Option<&'a [u8]> {
        message.get(self.rdata_start..self.end())
    }

    pub(crate) fn end(&self) -> usize {
        self.rdata_start + self.rdata_len
    }
}

/// Where the name at `start` ends, if it is a name: at most 255 octets when expanded. The labels that a
/// pointer aims at have to end before the labels that the pointer follows, so that a name does not depend
/// on anything behind it, which may be cut off. They cannot lie in the header, whose ID changes.
pub(crate) fn name_end(message: &[u8], start: usize) -> Option<usize> {
    // The octets that the labels being read may lie in, where these labels started, and how many
    // octets the name had before them.
    let mut readable = message;
    let mut labels_start = start;
    let mut expanded_before = 0;
    let mut at = start;
    let mut end = None;
    let mut pointers = 0;
    loop {
        match *readable.get(at)? {
            0 => return Some(end.unwrap_or(at + 1)),
            len @ 1..=LABEL_LEN_MAX => {
                at += 1 + usize::from(len);
                // The root's octet comes on top.
                if expanded_before + at - labels_start >= NAME_LEN_MAX {
                    return None;
                }
            }
            high @ 0xc0.. => {
                let low = *readable.get(at + 1)?;
                let target = usize::from(u16::from_be_bytes([high & 0x3f, low]));
                pointers += 1;
                if target < HEADER_LEN || pointers > POINTERS_MAX {
                    return None;
                }
                expanded_before += at - labels_start;
                end.get_or_insert(at + 2);
                readable = message.get(..labels_start)?;
                labels_start = target;
                at = target;
            }
            _ => return None,
        }
    }
}

/// The name at `start`, which is one that [`name_end`] knows, without pointers.
#[cold]
pub(crate) fn expanded_name(message: &[u8], start: usize) -> Vec<u8> {
    let mut name = Vec::new();
    let mut at = start;
    while let Some(&len) = message.get(at) {
        if len >= 0xc0 {
            let low = message.get(at + 1).copied().unwrap_or_default();
            at = usize::from(u16::from_be_bytes([len & 0x3f, low]));
            continue;
        }
        let end = at + 1 + usize::from(len);
        name.extend_from_slice(message.get(at..end).unwrap_or_default());
        if len == 0 {
            break;
        }
        at = end;
    }
    name
}

/// Octets of a message's header.
pub const HEADER_LEN: usize = 12;

/// Octets of a question behind its name: type and class.
pub(crate) const QUESTION_FIXED_LEN: usize = 4;

/// Octets of a record between its name and its data: type, class, TTL and the length of the data.
const RECORD_FIXED_LEN: usize = 10;

/// Octets of the longest label (RFC 1035 section 2.3.4).
pub(crate) const LABEL_LEN_MAX: u8 = 63;
/// Octets of the longest name (RFC 1035 section 2.3.4).
const NAME_LEN_MAX: usize = 255;

/// Pointers in one name: as many as a name has labels. More would be pointers to pointers, made to cost time.
const POINTERS_MAX: usize = 127;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_expanded_to_255_octets_at_most() {
        // A question of 253 octets, and a record whose owner is `prefix` and a pointer to it.
        for (prefix, readable) in [(&b""[..], true), (b"\x01b", true), (b"\x02bc", false)] {
            let mut message = vec![0; HEADER_LEN];
            for len in [63, 63, 63, 59] {
                message.push(len);
                message.resize(message.len() + usize::from(len), b'a');
            }
            message.extend_from_slice(b"\0\0\x01\0\x01");
            let at = message.len();
            message.extend_from_slice(prefix);
            message.extend_from_slice(b"\xc0\x0c");
            assert_eq!(name_end(&message, at), readable.then_some(message.len()), "{prefix:x?}");
        }
    }

    #[test]
    fn names() {
        let cases: [(&[u8], usize, Option<usize>); 18] = [
            (b"\0", 0, Some(1)),
            (b"\x01a\0", 0, Some(3)),
            (b"\x01a\0", 2, Some(3)),
            (b"", 0, None),
            (b"\0", 1, None),
            (b"\x01", 0, None),
            (b"\x01a", 0, None),
            (b"\x40a\0", 0, None),
            (b"\x80a\0", 0, None),
            (b"\x01a\0\xc0\x00", 3, Some(5)),
            (b"\x01a\0\xc0", 3, None),
            (b"\x01a\0\x01b\xc0\x00", 3, Some(7)),
            // To a pointer; to itself; into its own labels; forward.
            (b"\0\xc0\x00\xc0\x01", 3, Some(5)),
            (b"\0\xc0\x01", 1, None),
            (b"\0\x02\0\0\xc0\x02", 1, None),
            (b"\xc0\x02\0", 0, None),
            // To labels that end before this name, and to some that run into it.
            (b"\x02\x01a\0\xc0\x01", 4, Some(6)),
            (b"\x02\x02a\0\xc0\x01", 4, None),
        ];
        for (octets, at, end) in cases {
            // Behind a header, with the pointers moved.
            let mut message = vec![0; HEADER_LEN];
            let mut previous = 0;
            for &octet in octets {
                message.push(if previous == 0xc0 { octet + 12 } else { octet });
                previous = octet;
            }
            let expected = end.map(|end| end + HEADER_LEN);
            assert_eq!(name_end(&message, at + HEADER_LEN), expected, "{octets:x?} at {at}");
        }
        assert_eq!(name_end(b"\0\0\0\0\0\0\0\0\0\0\0\0\xc0\x0b", 12), None, "into the header");
    }

    #[test]
    fn chains_of_pointers_are_bounded() {
        let mut message = vec![0; HEADER_LEN + 1];
        for hop in 0..200 {
            let target = if hop == 0 { 12 } else { message.len() - 2 };
            let at = message.len();
            message.extend_from_slice(&(0xc000 | target as u16).to_be_bytes());
            assert_eq!(name_end(&message, at).is_some(), hop < 127, "{} pointers", hop + 1);
        }
    }
}
