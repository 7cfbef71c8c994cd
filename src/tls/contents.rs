//! What a file holds in place of what was expected.

use std::path::Path;

use super::files::{CA_FILE, CLIENT_CERT, CLIENT_KEY};

/// Says what the file of a flag holds that has nothing in PEM form that was expected, and what to do.
pub(super) fn unexpected(octets: &[u8], flag: &str, file: &Path) -> String {
    let is_key = flag == CLIENT_KEY;
    let (noun, label) =
        if is_key { ("key", "PRIVATE KEY") } else { ("certificate", "CERTIFICATE") };
    let text = String::from_utf8_lossy(octets);
    let pem = labels(&text).next().map(str::trim_end);
    let is_label = |label: &&str| label.len() <= LABEL_MAX && !label.contains(char::is_control);
    let pem = pem.filter(is_label);
    let der = if pem.is_none() { der(octets) } else { None };
    let holds = match (pem, der) {
        (Some(label), _) => format!("\"-----BEGIN {label}-----\""),
        (None, Some(Der::Certificate)) => "a certificate in DER form".into(),
        (None, Some(Der::Key)) => "a key in DER form".into(),
        (None, Some(Der::Pkcs7)) => "PKCS #7".into(),
        (None, Some(Der::Pkcs12)) => "PKCS #12".into(),
        (None, None) => format!("no {noun}"),
    };
    let command = match der {
        Some(Der::Certificate) if !is_key => "x509 -inform der",
        Some(Der::Key) if is_key => "pkey -inform der",
        Some(Der::Pkcs7) if !is_key => "pkcs7 -inform der -print_certs",
        Some(Der::Pkcs12) => "pkcs12 -nodes",
        _ => "",
    };
    let is_other = if is_key {
        pem.is_some_and(|label| label.ends_with("CERTIFICATE")) || der == Some(Der::Certificate)
    } else {
        pem.is_some_and(|label| label.ends_with("PRIVATE KEY")) || der == Some(Der::Key)
    };
    let remedy = if !command.is_empty() {
        let file = file.display();
        format!("; openssl {command} -in {file} -out {file}.pem writes it so")
    } else if is_other && flag != CA_FILE {
        format!("; are {CLIENT_CERT} and {CLIENT_KEY} swapped?")
    } else {
        String::new()
    };
    format!(
        "holds {holds}; a {noun} in PEM form, \"-----BEGIN {label}-----\", was expected{remedy}"
    )
}

/// The names of what begins in a text in PEM form (RFC 7468 section 2).
pub(super) fn labels(text: &str) -> impl Iterator<Item = &str> {
    text.split("-BEGIN ").skip(1).filter_map(|behind| behind.split('-').next())
}

/// A form that is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Der {
    Certificate,
    Key,
    Pkcs7,
    Pkcs12,
}

/// Which form it is, by its first octets.
fn der(octets: &[u8]) -> Option<Der> {
    match within(octets)? {
        // `PrivateKeyInfo` and `ECPrivateKey` of RFC 5958 and RFC 5915, `PFX` of RFC 7292: their versions.
        [INTEGER, 1, 0 | 1, ..] => Some(Der::Key),
        [INTEGER, 1, 3, ..] => Some(Der::Pkcs12),
        // `ContentInfo` of RFC 2315: the type of its content.
        [OBJECT_IDENTIFIER, ..] => Some(Der::Pkcs7),
        // `Certificate` of RFC 5280: version and serial number. That of a request is followed by its version.
        content => match within(content)? {
            [VERSION, ..] => Some(Der::Certificate),
            _ => None,
        },
    }
}

/// What is within the sequence at the beginning.
fn within(octets: &[u8]) -> Option<&[u8]> {
    let [SEQUENCE, len, rest @ ..] = octets else { return None };
    rest.get(usize::from(len.checked_sub(0x80).unwrap_or(0))..)
}

/// Octets of a label that is shown.
const LABEL_MAX: usize = 40;

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// What is said of a file by the name of F.
    fn said(octets: &[u8], flag: &str) -> String {
        unexpected(octets, flag, Path::new("F"))
    }

    #[test]
    fn what_a_file_holds_is_said_with_what_to_do() {
        const SWAPPED: &str = "; are --client-cert and --client-key swapped?";
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["dot.example".to_owned()]).unwrap();
        let certificate = params.clone().self_signed(&key).unwrap();
        let request = params.serialize_request(&key).unwrap();
        let begin = |label: &str| format!("\"-----BEGIN {label}-----\"");
        let write = |command: &str| format!("; openssl {command} -in F -out F.pem writes it so");
        let (der_certificate, der_key) = ("a certificate in DER form", "a key in DER form");
        let pkcs12 = b"\x30\x82\x09\x01\x02\x01\x03";
        let pkcs7 = b"\x30\x80\x06\x09\x2a";
        // What is in the file, what it holds, and what to do if a certificate was wanted, and if a key was.
        let long = format!("-----BEGIN {}-----", "A".repeat(41)).into_bytes();
        let (key_der, key_pem, pem) = (key.serialize_der(), key.serialize_pem(), certificate.pem());
        let (begins_key, begins) = (begin("PRIVATE KEY"), begin("CERTIFICATE"));
        let (x509, pkey) = (write("x509 -inform der"), write("pkey -inform der"));
        let (to_pem, printed) = (write("pkcs12 -nodes"), write("pkcs7 -inform der -print_certs"));
        let cases: [(&[u8], &str, &str, &str); 10] = [
            (certificate.der(), der_certificate, &x509, SWAPPED),
            (&key_der, der_key, SWAPPED, &pkey),
            (key_pem.as_bytes(), &begins_key, SWAPPED, ""),
            (pem.as_bytes(), &begins, "", SWAPPED),
            (pkcs12, "PKCS #12", &to_pem, &to_pem),
            (pkcs7, "PKCS #7", &printed, ""),
            (request.der(), "no NOUN", "", ""),
            (b"0 none at all", "no NOUN", "", ""),
            // What could play tricks on a terminal, or is no label.
            (b"-----BEGIN \x1b[2J KEY-----", "no NOUN", "", ""),
            (&long, "no NOUN", "", ""),
        ];
        for (octets, holds, for_certificate, for_key) in cases {
            for (flag, noun, label, remedy) in [
                (CLIENT_CERT, "certificate", "CERTIFICATE", for_certificate),
                (CLIENT_KEY, "key", "PRIVATE KEY", for_key),
                (CA_FILE, "certificate", "CERTIFICATE", for_certificate.trim_end_matches(SWAPPED)),
            ] {
                let holds = holds.replace("NOUN", noun);
                let begin = begin(label);
                assert_eq!(
                    said(octets, flag),
                    format!("holds {holds}; a {noun} in PEM form, {begin}, was expected{remedy}")
                );
            }
        }
        // However little there is.
        for len in 0..40 {
            assert!(said(&certificate.der()[..len], CLIENT_KEY).starts_with("holds "));
        }
    }
}
