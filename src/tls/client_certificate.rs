//! Certificates of clients, which are not supported: whether a server asks for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

/// A resolver that has no certificate, and remembers whether the server asked for one in the last full
/// handshake: servers that do not go on without seldom say so.
#[derive(Debug, Default)]
pub(super) struct ClientCertificate(AtomicBool);

impl ClientCertificate {
    pub(super) fn was_asked_for(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn forget(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
