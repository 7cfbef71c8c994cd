//! What servers show of themselves, for a person to read, whether they are accepted or not.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::EndEntityCert;

use super::explain::{CLOCK_MIN, date, fit_for_terminal, presented_name};
use super::pin::Pin;
use super::trust::pin;
use super::validity::{element, not_after, not_before};
use super::{Connector, NAMELESS};

/// The certificates that a server showed. Nothing says that they are good, nor that they can be read.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The server's own, then those that it sent with it.
    certificates: Vec<CertificateDer<'static>>,
}

impl Presented {
    /// The names that the certificate is for (RFC 5280 section 4.2.1.6), fit for a terminal.
    pub fn names(&self) -> Vec<String> {
        let Some(certificate) = self.own() else { return Vec::new() };
        // All names come with the error about one that is not among them.
        match certificate.verify_is_valid_for_subject_name(&NAMELESS.into()) {
            Err(webpki::Error::CertNotValidForName(context)) => {
                context.presented.iter().map(|name| presented_name(name)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether the certificate has this name, whatever else is wrong with it.
    pub fn is_for(&self, name: &str) -> bool {
        let (Some(certificate), Ok(name)) = (self.own(), ServerName::try_from(name)) else {
            return false;
        };
        certificate.verify_is_valid_for_subject_name(&name).is_ok()
    }

    /// The first DNS name of the certificate that an upstream could be given, which is no wildcard.
    pub fn dns_name(&self) -> Option<String> {
        let certificate = self.own()?;
        let name = certificate.valid_dns_names().find(|name| !name.starts_with('*'))?;
        Some(name.to_owned())
    }

    /// Who issued the certificate, fit for a terminal: "Example CA, Example Inc". Empty: nobody is named.
    pub fn issuer(&self) -> String {
        self.own().map_or_else(String::new, |certificate| distinguished_name(certificate.issuer()))
    }

    /// When the certificate begins, in seconds from 1970.
    pub fn not_before(&self) -> Option<u64> {
        not_before(self.certificates.first()?)
    }

    /// When the certificate ends, in seconds from 1970.
    pub fn not_after(&self) -> Option<u64> {
        not_after(self.certificates.first()?)
    }

    /// The pins of all certificates that can be read, the server's own first.
    pub fn pins(&self) -> Vec<Pin> {
        let certificates = self
            .certificates
            .iter()
            .filter_map(|certificate| EndEntityCert::try_from(certificate).ok());
        certificates.map(|certificate| pin(&certificate.subject_public_key_info())).collect()
    }

    fn own(&self) -> Option<EndEntityCert<'_>> {
        EndEntityCert::try_from(self.certificates.first()?).ok()
    }
}

/// Whether a time in seconds from 1970 is that of a clock that was never set.
pub fn is_unset(seconds: u64) -> bool {
    seconds < CLOCK_MIN
}

/// A time in seconds from 1970: "2025-01-31 23:59:59 UTC".
pub fn shown_date(seconds: u64) -> String {
    date(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
}

/// What servers showed last, whether they were accepted or not.
#[derive(Debug, Default)]
pub struct Witness {
    presented: Mutex<Option<Presented>>,
}

impl Witness {
    /// What was shown in the last full handshake since the last call. One that resumes a session shows nothing.
    pub fn take(&self) -> Option<Presented> {
        self.presented.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A server shows these.
    pub(super) fn note(&self, first: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) {
        let all = std::iter::once(first).chain(rest);
        let certificates = all.map(|certificate| certificate.clone().into_owned()).collect();
        *self.presented.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Presented { certificates });
    }
}

impl Connector {
    /// Keeps from now on what the server shows, also where it is refused.
    pub fn watch(&mut self) -> Arc<Witness> {
        let witness = Arc::<Witness>::default();
        let verifier = self.verifier.watched_by(Arc::clone(&witness));
        self.config.dangerous().set_certificate_verifier(Arc::new(verifier));
        witness
    }
}

/// The common names and the organizations in a distinguished name (RFC 5280 section 4.1.2.4) without its outer
/// tag, the most specific first, fit for a terminal.
fn distinguished_name(mut sets: &[u8]) -> String {
    let mut parts = [String::new(), String::new()];
    while let Some((_, mut set, rest)) = element(sets) {
        sets = rest;
        while let Some((_, attribute, rest)) = element(set) {
            set = rest;
            let Some((_, kind, behind)) = element(attribute) else { continue };
            let Some((tag, value, _)) = element(behind) else { continue };
            let Some(part) = KINDS.iter().position(|known| *known == kind) else { continue };
            let value = match tag {
                BMP_STRING => String::from_utf16_lossy(
                    &value
                        .chunks_exact(2)
                        .map(|it| u16::from(it[0]) << 8 | u16::from(it[1]))
                        .collect::<Vec<_>>(),
                ),
                _ => String::from_utf8_lossy(value).into_owned(),
            };
            let comma = if parts[part].is_empty() { "" } else { ", " };
            // Writing to a string does not fail.
            write!(parts[part], "{comma}{}", fit_for_terminal(&value)).ok();
        }
    }
    parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(", ")
}

/// Object identifiers of commonName and organizationName (RFC 5280 appendix A.1).
const KINDS: [&[u8]; 2] = [&[0x55, 4, 3], &[0x55, 4, 10]];

const BMP_STRING: u8 = 0x1e;

#[cfg(test)]
mod tests {
    use rcgen::string::BmpString;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn presented(params: &CertificateParams) -> Presented {
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Presented { certificates: vec![certificate.der().clone()] }
    }

    #[test]
    fn names_of_every_kind_are_fit_for_a_terminal() {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::DnsName("*.b.example".try_into().unwrap()));
        params.subject_alt_names.push(SanType::DnsName("\u{1b}[2J\u{7}\"x".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress("192.0.2.1".parse().unwrap()));
        let bmp = DnValue::BmpString(BmpString::try_from("Ü\u{1b}").unwrap());
        params.distinguished_name.push(DnType::OrganizationName, bmp);
        params.distinguished_name.push(DnType::CommonName, "x\n\u{9b}CA");
        params.distinguished_name.push(DnType::CountryName, "DE");
        let presented = presented(&params);
        let names = presented.names();
        assert_eq!(names[..2], ["a.example", "*.b.example"]);
        assert_eq!(names[2], "\\u{1b}[2J\\u{7}\\\"x");
        assert_eq!(names[3], "192.0.2.1");
        assert_eq!(presented.issuer(), "x\\n\\u{9b}CA, Ü\\u{1b}");
        assert_eq!(presented.pins().len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        let whole = presented(&params).certificates[0].clone();
        for len in 0..whole.len() {
            let certificates = vec![whole[..len].to_vec().into()];
            let presented = Presented { certificates };
            assert_eq!(presented.names(), [""; 0], "{len}");
            assert_eq!((presented.issuer(), presented.pins().len()), (String::new(), 0), "{len}");
        }
        let none = Presented { certificates: Vec::new() };
        assert_eq!((none.not_before(), none.not_after()), (None, None));
        for octets in [
            &[0x31][..],
            &[0x31, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x31, 2, 0x30, 0],
            b"1\x04\x30\x02\x06\x00",
        ] {
            assert_eq!(distinguished_name(octets), "");
        }
    }
}
