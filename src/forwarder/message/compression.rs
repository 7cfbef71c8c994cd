//! Compressed names (RFC 1035 section 4.1.4) in records that move because octets in front of them are
//! taken out of a message.

use std::ops::Range;

use super::record::{RecordStart, name_end};

/// Whether the names in the records behind `gap` can be kept when its octets are taken out, as
/// [`append_moved`] does it.
///
/// A name cannot be kept if it needs octets of the gap, or a pointer that is part of no name known here, as
/// in the data of a type whose names must not be compressed (RFC 3597 section 4): such a pointer would have
/// to be adapted too, and nobody can say whether it is a pointer.
#[cold]
pub(crate) fn is_movable(message: &[u8], gap: &Range<usize>) -> bool {
    let mut adapted = Adapted { pointers: [0; ADAPTED_WORDS] };
    let mut is_movable = true;
    for_each_name(message, gap.end, |name| {
        is_movable = is_movable && adapted.note(message, gap, name).is_some();
    });
    is_movable
}

/// Appends the records of `message` behind `gap` so that they can follow what lies in front of it:
/// their pointers that aim behind the gap are adapted.
pub(crate) fn append_moved(out: &mut Vec<u8>, message: &[u8], gap: &Range<usize>) {
    let moved_start = out.len();
    out.extend_from_slice(message.get(gap.end..).unwrap_or_default());
    for_each_name(message, gap.end, |name| {
        if let Some(labels) = Labels::read(message, name)
            && let Some(target) = labels.target.filter(|target| *target >= gap.end)
        {
            let at = moved_start + labels.end - gap.end;
            let target = (target - gap.len()) as u16;
            out[at..at + POINTER_LEN].copy_from_slice(&(POINTER | target).to_be_bytes());
        }
    });
}

/// The pointers that have been adapted so far.
///
/// A pointer aims back, so everything that a name depends on was seen before the name. A pointer aims at
/// 0x3fff at most, so no pointer behind that place is ever aimed at.
struct Adapted {
    /// A bit for every octet at which an adapted pointer starts.
    pointers: [u64; ADAPTED_WORDS],
}

impl Adapted {
    /// Notes the name at `start`. `None` if it would not stay what it is.
    fn note(&mut self, message: &[u8], gap: &Range<usize>, start: usize) -> Option<()> {
        let mut labels = Labels::read(message, start)?;
        if labels.target.is_some_and(|target| target >= gap.end) {
            self.insert(labels.end);
        }
        while let Some(start) = labels.target {
            labels = Labels::read(message, start)?;
            let end = labels.end + if labels.target.is_some() { POINTER_LEN } else { 1 };
            if start < gap.end && gap.start < end {
                return None;
            }
            if start < gap.end {
                continue;
            }
            // Octets of a pointer that is adapted cannot be anything else in another name.
            let mut octets = start - 1..end;
            let is_right = if labels.target.is_some_and(|target| target >= gap.end) {
                octets.all(|at| self.contains(at) == (at == labels.end))
            } else {
                !octets.any(|at| self.contains(at))
            };
            if !is_right {
                return None;
            }
        }
        Some(())
    }

    fn insert(&mut self, at: usize) {
        if let Some(word) = self.pointers.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    fn contains(&self, at: usize) -> bool {
        self.pointers.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}

/// The labels at one place, up to the root or a pointer.
struct Labels {
    /// Where the root or the pointer is.
    end: usize,
    /// The place that the pointer aims at.
    target: Option<usize>,
}

impl Labels {
    fn read(message: &[u8], start: usize) -> Option<Self> {
        let mut end = start;
        loop {
            match *message.get(end)? {
                0 => return Some(Self { end, target: None }),
                high @ 0xc0.. => {
                    let target = u16::from_be_bytes([high & 0x3f, *message.get(end + 1)?]);
                    return Some(Self { end, target: Some(target.into()) });
                }
                len => end += 1 + usize::from(len),
            }
        }
    }
}

/// Calls `visit` with where each name of the records from `start` on starts, in order: the owners,
/// and those in the data of types whose names may be compressed or were in the past.
fn for_each_name(message: &[u8], start: usize, mut visit: impl FnMut(usize)) {
    let mut at = start;
    while let Some(record) = RecordStart::read(message, at) {
        visit(at);
        for_each_name_in_data(message, &record, &mut visit);
        at = record.end();
    }
}

/// Calls `visit` for the names in the data of one record. Data that is not as its type wants it is left alone
/// from the first deviation on.
fn for_each_name_in_data(
    message: &[u8],
    record: &RecordStart,
    visit: &mut impl FnMut(usize),
) -> Option<()> {
    let layout = Layout::of(record.rtype)?;
    let mut at = record.rdata_start + layout.fixed;
    for _ in 0..layout.strings {
        at += 1 + usize::from(*message.get(at)?);
    }
    for _ in 0..layout.names {
        let end = name_end(message, at).filter(|end| *end <= record.end())?;
        visit(at);
        at = end;
    }
    Some(())
}

/// Where in the data of a record names are.
struct Layout {
    /// Octets in front of the first string or name.
    fixed: usize,
    /// Character strings behind those octets.
    strings: usize,
    /// Names behind the strings.
    names: usize,
}

impl Layout {
    /// The layout of a type, if it is one that RFC 3597 section 4 lists, because servers compress its names or
    /// did, or one close enough to those for a server to be wrong about it.
    fn of(rtype: u16) -> Option<Self> {
        let (fixed, strings, names) = match rtype {
            // NS, MD, MF, CNAME, MB, MG, MR, PTR; NXT, DNAME, NSEC.
            2..=5 | 7..=9 | 12 | 30 | 39 | 47 => (0, 0, 1),
            // SOA, MINFO; RP.
            6 | 14 | 17 => (0, 0, 2),
            // MX; AFSDB, RT, KX.
            15 | 18 | 21 | 36 => (2, 0, 1),
            // PX.
            26 => (2, 0, 2),
            // SRV.
            33 => (6, 0, 1),
            // NAPTR.
            35 => (4, 3, 1),
            // SIG, RRSIG.
            24 | 46 => (18, 0, 1),
            _ => return None,
        };
        Some(Self { fixed, strings, names })
    }
}

const POINTER: u16 = 0xc000;
const POINTER_LEN: usize = 2;

/// Words of a bit for each octet that a pointer can aim at, for the longest name, and for a pointer behind it.
const ADAPTED_WORDS: usize = (0x4000 + 256) / 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// A header; "a.b." at 0x0c, "c." at 0x11; labels at 0x1e and 0x1f that reach into the gap and, one
    /// of them, beyond it; the gap from 0x20 to 0x2b, with "\0." at its start.
    const FRONT: &[u8] = b"............\x01a\x01b\0\x01c\0..........\x0d\x01\x01\0\0________";
    const GAP: Range<usize> = 0x20..0x2b;

    /// Type A with data, behind an owner.
    fn a(owner: &[u8], data: &[u8]) -> Vec<u8> {
        record(owner, 1, data)
    }

    fn record(owner: &[u8], rtype: u8, data: &[u8]) -> Vec<u8> {
        [owner, &[0, rtype, 0, 1, 0, 0, 0, 0, 0, data.len() as u8], data].concat()
    }

    fn moved(records: &[u8]) -> Option<Vec<u8>> {
        assert_eq!(FRONT.len(), GAP.end);
        let message = [FRONT, records].concat();
        let mut out = FRONT[..GAP.start].to_vec();
        append_moved(&mut out, &message, &GAP);
        assert_eq!(out.len(), message.len() - GAP.len());
        is_movable(&message, &GAP).then(|| out.split_off(GAP.start))
    }

    #[test]
    fn pointers_behind_the_gap_are_adapted() {
        let first = a(b"\x01d\xc0\x0c", b"....");
        let len = first.len() as u8;
        let kept = |target: u8| target - GAP.len() as u8;
        let cases = [
            // In front of the gap, at the record itself, to a pointer that stays and one that moves.
            (a(b"\xc0\x11", b"...."), a(b"\xc0\x11", b"....")),
            (a(b"\x01e\xc0\x2b", b""), a(&[1, b'e', 0xc0, kept(0x2b)], b"")),
            (
                [a(b"\xc0\x2b", b""), a(&[0xc0, 0x2b + len], b"")].concat(),
                [a(&[0xc0, kept(0x2b)], b""), a(&[0xc0, kept(0x2b + len)], b"")].concat(),
            ),
            // In the data, of a type known; of one that is not, they are no pointers.
            (record(b"\0", 2, b"\xc0\x2b"), record(b"\0", 2, &[0xc0, kept(0x2b)])),
            (a(b"\0", b"\xc0\x2b"), a(b"\0", b"\xc0\x2b")),
            (record(b"\0", 15, b"\0\x05\xc0\x2b"), record(b"\0", 15, &[0, 5, 0xc0, kept(0x2b)])),
            (
                record(b"\0", 6, b"\x01m\0\xc0\x2b...................."),
                record(
                    b"\0",
                    6,
                    &[&b"\x01m\0\xc0"[..], &[kept(0x2b)], b"...................."].concat(),
                ),
            ),
            (
                record(b"\0", 35, b"\0\x01\0\x02\x01s\0\x03xyz\xc0\x2b"),
                record(b"\0", 35, &[b"\0\x01\0\x02\x01s\0\x03xyz\xc0", &[kept(0x2b)][..]].concat()),
            ),
            // Data too short for its type.
            (record(b"\0", 2, b""), record(b"\0", 2, b"")),
            (record(b"\0", 15, b"\xc0"), record(b"\0", 15, b"\xc0")),
            (record(b"\0", 35, b"\0\x01\0\x02\xff"), record(b"\0", 35, b"\0\x01\0\x02\xff")),
        ];
        for (records, expected) in cases {
            let all = [&first[..], &records].concat();
            let expected = [&first[..], &expected].concat();
            assert_eq!(moved(&all), Some(expected), "{records:x?}");
        }
    }

    #[test]
    fn names_that_would_change() {
        let cases: &[(&str, &[Vec<u8>])] = &[
            ("in the gap", &[a(b"\xc0\x20", b"")]),
            ("from in front into the gap", &[a(b"\xc0\x1f", b"")]),
            ("in data, in the gap", &[record(b"\0", 2, b"\x01x\xc0\x20")]),
            ("across both ends of the gap", &[a(b"\0", b"/\0"), a(b"\xc0\x1e", b"")]),
            // The pointer at 0x37 is in data that has no names.
            ("through a pointer that stays", &[a(b"\xc0\x0c", b"\xc0\x2b"), a(b"\xc0\x37", b"")]),
            // The low octet of the pointer at 0x36 is the length of a label.
            (
                "through octets that are adapted",
                &[record(b"\0", 2, b"\xc0\x2b"), a(b"\0", &[0; 60]), a(b"\xc0\x37", b"")],
            ),
        ];
        for (what, records) in cases {
            assert_eq!(moved(&records.concat()), None, "{what}");
        }
        // Nothing needs to be adapted here.
        for data in [b"\xc0\x0c", b"\0\0"] {
            let through = [a(b"\xc0\x0c", data), a(b"\xc0\x37", b"")].concat();
            assert!(moved(&through).is_some());
        }
    }

    #[test]
    fn pointers_up_to_the_last_that_can_be_aimed_at() {
        // Three records far behind: the second aims at the first, the third at the second.
        for first in 0x3f80..0x4000 {
            let data_len = first - GAP.end - 11;
            let mut message = [FRONT, &[0, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
            message.extend((data_len as u16).to_be_bytes());
            message.resize(first, 0);
            message.extend(a(b"\x01d\0", b""));
            let second = message.len();
            message.extend(a(&(POINTER | first as u16).to_be_bytes(), b""));
            if second < 0x4000 {
                message.extend(a(&(POINTER | second as u16).to_be_bytes(), b""));
            }
            assert!(is_movable(&message, &GAP));
            let mut out = message[..GAP.start].to_vec();
            append_moved(&mut out, &message, &GAP);
            let at = second - GAP.len();
            assert_eq!(out[at..at + 2], (POINTER | (first - GAP.len()) as u16).to_be_bytes());
            if second < 0x4000 {
                let last = at + 12;
                assert_eq!(out[last..last + 2], (POINTER | at as u16).to_be_bytes());
            }
        }
    }
}
