//! Root certificates, which the certificates of servers with a name must lead to.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;

use crate::tls::files::{self, CA_FILE, Files, Reading};

/// The root certificates that are trusted, shared by all connectors.
#[derive(Clone, Debug)]
pub(in crate::tls) struct Roots {
    pub(in crate::tls) store: Arc<RootCertStore>,
    /// The roots in words, to be read in a sentence: "the root in /etc/ca.pem".
    pub(in crate::tls) shown: Arc<str>,
}

impl Roots {
    /// The roots in files, and Mozilla's, which are built into the program, where these are wanted or no file is
    /// given. The error is one line that says what is wrong with which file.
    pub(in crate::tls) fn of(files: &Files, reading: &mut Reading) -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        let mut shown = Vec::new();
        for file in &files.roots {
            let path = file.display();
            let before = store.len();
            add(&mut store, file, reading)?;
            shown.push(match store.len() - before {
                1 => format!("the root in {path}"),
                n => format!("the {n} roots in {path}"),
            });
        }
        if files.builtin_roots || files.roots.is_empty() {
            let built_in = webpki_roots::TLS_SERVER_ROOTS;
            store.extend(built_in.iter().cloned());
            shown.push(format!("the {} built-in roots", built_in.len()));
        }
        Ok(Self::new(store, &shown.join(" or ")))
    }

    pub(in crate::tls) fn new(store: RootCertStore, shown: &str) -> Self {
        Self { store: Arc::new(store), shown: shown.into() }
    }
}

fn add(store: &mut RootCertStore, file: &Path, reading: &mut Reading) -> Result<(), String> {
    let certificates = files::certificates(CA_FILE, file, reading)?;
    for (index, certificate) in certificates.into_iter().enumerate() {
        store.add(certificate).map_err(|_| {
            let problem =
                format!("certificate {} is damaged: it is not an X.509 certificate", index + 1);
            files::named(CA_FILE, file, &problem)
        })?;
    }
    Ok(())
}
