//! Names, types, classes and response codes as people write them (RFC 1035 section 5.1).

use std::fmt;

use super::record::LABEL_LEN_MAX;

/// A name of a message in presentation form (RFC 1035 section 5.1), with the dot at its end.
///
/// The octets are those from the start of an uncompressed name on; octets behind the name are ignored.
/// Characters that could be mistaken for syntax are escaped, and so is every octet that is not a printable
/// ASCII character, so that no name can control a terminal or end a log line.
#[derive(Clone, Copy, Debug)]
pub struct NameDisplay<'a>(pub &'a [u8]);

impl fmt::Display for NameDisplay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut is_root = true;
        while let Some((&len @ 1..=LABEL_LEN_MAX, tail)) = rest.split_first()
            && let Some((label, tail)) = tail.split_at_checked(usize::from(len))
        {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(octet))?;
                    }
                    0x21..=0x7e => fmt::Write::write_char(f, char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
            is_root = false;
            rest = tail;
        }
        if is_root { f.write_str(".") } else { Ok(()) }
    }
}

/// A record or query type; `Display` writes its mnemonic, or else `TYPE65280` (RFC 3597 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtype(pub u16);

impl Rtype {
    /// An IPv4 address.
    pub const A: Self = Self(1);
    /// A name server of a zone.
    pub const NS: Self = Self(2);
    /// The start of a zone.
    pub const SOA: Self = Self(6);
    /// An IPv6 address (RFC 3596).
    pub const AAAA: Self = Self(28);
    /// The digest of a signed zone's key, as its parent has it (RFC 4034 section 5).
    pub const DS: Self = Self(43);
    /// Where and how a service is reached (RFC 9460).
    pub const SVCB: Self = Self(64);
    /// The same of HTTP (RFC 9460).
    pub const HTTPS: Self = Self(65);
    /// A signature over records (RFC 4034 section 3).
    pub const RRSIG: Self = Self(46);
    /// The types that there are at a name, and the next name (RFC 4034 section 4).
    pub const NSEC: Self = Self(47);
    /// The types that there are at a name, and the next name, as digests (RFC 5155).
    pub const NSEC3: Self = Self(50);
    /// An incremental zone transfer (RFC 1995).
    pub const IXFR: Self = Self(251);
    /// A zone transfer (RFC 5936).
    pub const AXFR: Self = Self(252);
    /// A request for key material, or the reply (RFC 2930).
    pub const TKEY: Self = Self(249);
    /// Records of any type.
    pub const ANY: Self = Self(255);
}

impl fmt::Display for Rtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "A",
            2 => "NS",
            5 => "CNAME",
            6 => "SOA",
            10 => "NULL",
            12 => "PTR",
            13 => "HINFO",
            15 => "MX",
            16 => "TXT",
            17 => "RP",
            18 => "AFSDB",
            24 => "SIG",
            25 => "KEY",
            28 => "AAAA",
            29 => "LOC",
            33 => "SRV",
            35 => "NAPTR",
            37 => "CERT",
            39 => "DNAME",
            41 => "OPT",
            42 => "APL",
            43 => "DS",
            44 => "SSHFP",
            45 => "IPSECKEY",
            46 => "RRSIG",
            47 => "NSEC",
            48 => "DNSKEY",
            49 => "DHCID",
            50 => "NSEC3",
            51 => "NSEC3PARAM",
            52 => "TLSA",
            53 => "SMIMEA",
            55 => "HIP",
            59 => "CDS",
            60 => "CDNSKEY",
            61 => "OPENPGPKEY",
            62 => "CSYNC",
            63 => "ZONEMD",
            64 => "SVCB",
            65 => "HTTPS",
            99 => "SPF",
            108 => "EUI48",
            109 => "EUI64",
            249 => "TKEY",
            250 => "TSIG",
            251 => "IXFR",
            252 => "AXFR",
            255 => "ANY",
            256 => "URI",
            257 => "CAA",
            other => return write!(f, "TYPE{other}"),
        })
    }
}

/// A class; `Display` writes its mnemonic, or else `CLASS32` (RFC 3597 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(pub u16);

impl Class {
    /// The Internet.
    pub const IN: Self = Self(1);
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "IN",
            3 => "CH",
            4 => "HS",
            254 => "NONE",
            255 => "ANY",
            other => return write!(f, "CLASS{other}"),
        })
    }
}

/// A response code with its extended bits; `Display` writes its mnemonic, or else `RCODE24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rcode(pub u16);

impl Rcode {
    /// No error.
    pub const NOERROR: Self = Self(0);
    /// The query could not be read.
    pub const FORMERR: Self = Self(1);
    /// The query could not be answered.
    pub const SERVFAIL: Self = Self(2);
    /// The name does not exist.
    pub const NXDOMAIN: Self = Self(3);
    /// The kind of query is not supported.
    pub const NOTIMP: Self = Self(4);
    /// The query is refused by policy.
    pub const REFUSED: Self = Self(5);
    /// The EDNS version is not supported (RFC 6891 section 6.1.3).
    pub const BADVERS: Self = Self(16);
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "NOERROR",
            1 => "FORMERR",
            2 => "SERVFAIL",
            3 => "NXDOMAIN",
            4 => "NOTIMP",
            5 => "REFUSED",
            6 => "YXDOMAIN",
            7 => "YXRRSET",
            8 => "NXRRSET",
            9 => "NOTAUTH",
            10 => "NOTZONE",
            11 => "DSOTYPENI",
            16 => "BADVERS",
            17 => "BADKEY",
            18 => "BADTIME",
            19 => "BADMODE",
            20 => "BADNAME",
            21 => "BADALG",
            22 => "BADTRUNC",
            23 => "BADCOOKIE",
            other => return write!(f, "RCODE{other}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presentation() {
        let names: [(&[u8], &str); 7] = [
            (b"\0", "."),
            (b"\x06gOogle\x03com\0\0\x01", "gOogle.com."),
            (b"\x03a.b\x01c\0", "a\\.b.c."),
            (b"\x08\\\"();@$ \0", "\\\\\\\"\\(\\)\\;\\@\\$\\032."),
            (b"\x05\0\x1b\n\x7f\xff\0", "\\000\\027\\010\\127\\255."),
            (b"\x01!\x01~\x02_x\0", "!.~._x."),
            (b"\x03ab", "."),
        ];
        for (name, expected) in names {
            assert_eq!(NameDisplay(name).to_string(), expected);
        }
        let types: Vec<_> = [1, 28, 65, 255, 0, 65_280].map(|code| Rtype(code).to_string()).into();
        assert_eq!(types, ["A", "AAAA", "HTTPS", "ANY", "TYPE0", "TYPE65280"]);
        let classes: Vec<_> = [1, 3, 254, 32].map(|code| Class(code).to_string()).into();
        assert_eq!(classes, ["IN", "CH", "NONE", "CLASS32"]);
        let rcodes: Vec<_> = [0, 3, 16, 12, 4_095].map(|code| Rcode(code).to_string()).into();
        assert_eq!(rcodes, ["NOERROR", "NXDOMAIN", "BADVERS", "RCODE12", "RCODE4095"]);
    }
}
