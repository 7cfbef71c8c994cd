//! Root certificates, which the certificates of servers with a name must lead to.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::host::os_error::system_error;
use crate::tls::explain::pem_words;

/// The root certificates that are trusted, shared by all connectors.
#[derive(Clone, Debug)]
pub(in crate::tls) struct Roots {
    pub(in crate::tls) store: Arc<RootCertStore>,
    /// The roots in words, to be read in a sentence: "the root in /etc/ca.pem".
    pub(in crate::tls) shown: Arc<str>,
}

impl Roots {
    /// The roots of Mozilla, which are built into the program.
    pub(in crate::tls) fn built_in() -> Self {
        let store = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect::<RootCertStore>();
        let shown = format!("the {} built-in roots", store.len());
        Self::new(store, &shown)
    }

    /// The roots in a file in PEM form. The error is one line that says what is wrong with the file.
    pub(in crate::tls) fn read(file: &Path) -> Result<Self, String> {
        let octets = read_file(file)?;
        let store = parse(&octets, file)?;
        let shown = match store.len() {
            1 => format!("the root in {}", file.display()),
            n => format!("the {n} roots in {}", file.display()),
        };
        Ok(Self::new(store, &shown))
    }

    pub(in crate::tls) fn new(store: RootCertStore, shown: &str) -> Self {
        Self { store: Arc::new(store), shown: shown.into() }
    }
}

/// The content of a file, or of a pipe, as a shell gives one for `<(command)`.
fn read_file(file: &Path) -> Result<Vec<u8>, String> {
    let path = file.display();
    // A device may never end.
    if fs::metadata(file).is_ok_and(|metadata| metadata.file_type().is_char_device()) {
        return Err(format!("cannot read {path}: it is a device; a file or a pipe was expected"));
    }
    let octets = fs::read(file).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::IsADirectory => "; one file was expected: `cat` puts several into one",
            io::ErrorKind::PermissionDenied => {
                "; the user that this program runs as must be able to read it and to enter the \
                 directories above it"
            }
            _ => "",
        };
        format!("cannot read {path}: {}{remedy}", system_error(&error))
    })?;
    if octets.is_empty() {
        return Err(format!("{path} is empty; certificates in PEM form were expected"));
    }
    Ok(octets)
}

fn parse(octets: &[u8], file: &Path) -> Result<RootCertStore, String> {
    let path = file.display();
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(octets).enumerate() {
        let number = index + 1;
        let certificate = certificate.map_err(|error| {
            format!("certificate {number} in {path} is damaged: {}", pem_words(&error))
        })?;
        roots.add(certificate).map_err(|_| {
            format!("certificate {number} in {path} is damaged: it is not an X.509 certificate")
        })?;
    }
    // The reader passes over certificates of OpenSSL with a purpose, and over those that do not begin a
    // line.
    let passed_over = certificates_begun(octets).saturating_sub(roots.len());
    if passed_over > 0 {
        return Err(format!(
            "{path}: {passed_over} of {} certificates cannot be read; each is expected between lines of \
             its own, \"-----BEGIN CERTIFICATE-----\" and \"-----END CERTIFICATE-----\"; openssl x509 -in \
             FILE writes one so",
            roots.len() + passed_over
        ));
    }
    if roots.is_empty() {
        return Err(format!(
            "{path} holds no certificate; one in PEM form, \"-----BEGIN CERTIFICATE-----\", was \
             expected"
        ));
    }
    Ok(roots)
}

/// How many certificates a file has, whether they can be read or not, under any of the names that OpenSSL
/// has for them: "CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE".
fn certificates_begun(octets: &[u8]) -> usize {
    let text = String::from_utf8_lossy(octets);
    let labels = text.split("-BEGIN ").skip(1).filter_map(|behind| behind.split('-').next());
    labels.filter(|label| label.trim_end().ends_with("CERTIFICATE")).count()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    /// What a shell gives for `<(command)` of a command that has ended.
    #[test]
    fn a_pipe_whose_writer_is_gone_ends() {
        for (written, expected) in [
            ("all", Ok(b"all".to_vec())),
            ("", Err("PATH is empty; certificates in PEM form were expected")),
        ] {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(written.as_bytes()).unwrap();
            drop(writer);
            let path = format!("/dev/fd/{}", reader.as_raw_fd());
            let expected = expected.map_err(|error| error.replace("PATH", &path));
            assert_eq!(read_file(path.as_ref()), expected);
        }
    }

    #[test]
    fn devices_are_refused() {
        for device in ["/dev/null", "/dev/zero"] {
            assert_eq!(
                read_file(device.as_ref()).unwrap_err(),
                format!("cannot read {device}: it is a device; a file or a pipe was expected")
            );
        }
    }
}
