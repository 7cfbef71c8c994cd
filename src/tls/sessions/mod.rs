//! The sessions that a server lets us resume, and how long we may.
//!
//! A resumed handshake shows no certificate (RFC 8446 section 2.2): it stands for the one that the
//! last full handshake showed, so a session ends when that one does, and a day after it was seen.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

/// The outcome of a full handshake, and what the server gave to resume it by.
#[derive(Debug)]
pub(super) struct Session {
    certificates: Vec<CertificateDer<'static>>,
    verified_at: Instant,
    /// The moment of `verified_at` in the time that certificates go by.
    verified_time: UnixTime,
    /// Whether the certificates outlast the session; `None` before it matters.
    outlasted: Option<bool>,
    tickets: Arc<Tickets>,
}

impl Session {
    /// A session of the connection whose handshake it was, which has this `store`.
    pub(super) fn new(
        certificates: &[CertificateDer<'static>],
        verified_at: Instant,
        verified_time: UnixTime,
        store: &SessionStore,
    ) -> Self {
        Self {
            certificates: certificates.to_vec(),
            verified_at,
            verified_time,
            outlasted: None,
            tickets: Arc::clone(&store.new),
        }
    }

    /// Whether the session may be offered. `verifies` says whether certificates are good at a time.
    ///
    /// To verify a chain of P-384 keys takes 1 ms, in which nothing else is served, and some servers
    /// end every connection after one answer. So the chain is verified once, for the end of the session,
    /// which nearly always comes before that of the certificates. Only on the days in which a certificate
    /// expires is it verified each time.
    pub(super) fn is_resumable(
        &mut self,
        now: Instant,
        time: Option<UnixTime>,
        verifies: impl Fn(&[CertificateDer<'_>], UnixTime) -> bool,
    ) -> bool {
        if now.saturating_duration_since(self.verified_at) >= SESSION_TIMEOUT {
            return false;
        }
        if self.tickets.is_empty() {
            // There is nothing to offer now, but its connections may be given tickets yet.
            return true;
        }
        let end = self.verified_time.as_secs().saturating_add(SESSION_TIMEOUT.as_secs());
        let end = UnixTime::since_unix_epoch(Duration::from_secs(end));
        is_good(&mut self.outlasted, end, time, |time| verifies(&self.certificates, time))
    }

    /// Ends the session: no connection keeps anything more for it.
    pub(super) fn discard(&self) {
        self.tickets.discard();
    }

    /// Whether there is something to offer.
    pub(super) fn has_tickets(&self) -> bool {
        !self.tickets.is_empty()
    }

    /// Tickets for a connection that may resume the session.
    pub(super) fn tickets(&self) -> Arc<Tickets> {
        Arc::clone(&self.tickets)
    }
}

/// Whether something is good at the `end` of its use, which `outlasted` remembers, or else at `time`.
fn is_good(
    outlasted: &mut Option<bool>,
    end: UnixTime,
    time: Option<UnixTime>,
    verifies: impl Fn(UnixTime) -> bool,
) -> bool {
    *outlasted.get_or_insert_with(|| verifies(end)) || time.is_some_and(verifies)
}

/// The sessions as one connection sees them: one that it may resume, and room for what it is given.
///
/// A connection is given tickets before it is known whether its handshake is a full one; only then
/// is it clear to which session they belong.
#[derive(Debug)]
pub(super) struct SessionStore {
    earlier: Option<Arc<Tickets>>,
    new: Arc<Tickets>,
    tickets_max: usize,
    resumed: AtomicBool,
    /// The session that the server gives now may be too long to be kept.
    is_long: AtomicBool,
    /// Tickets given since the last [`Self::take_given`], kept or not.
    given: AtomicUsize,
}

impl SessionStore {
    pub(super) fn new(earlier: Option<Arc<Tickets>>, tickets_max: usize) -> Self {
        Self {
            earlier,
            new: Arc::default(),
            tickets_max,
            resumed: AtomicBool::new(false),
            is_long: AtomicBool::new(false),
            given: AtomicUsize::new(0),
        }
    }

    /// How many tickets the server gave since the last call.
    pub(super) fn take_given(&self) -> usize {
        self.given.swap(0, Ordering::Relaxed)
    }

    /// Takes note that a session given now is in the last `octets` received: rustls does not tell how
    /// long it is.
    pub(super) fn expect(&self, octets: usize) {
        self.is_long.store(octets > SESSION_LEN_MAX, Ordering::Relaxed);
    }

    /// Has the earlier session go on: what the server gave, and gives from now on, is for that one.
    pub(super) fn handle_resumed(&self) {
        if let Some(earlier) = &self.earlier {
            self.resumed.store(true, Ordering::Relaxed);
            let new = mem::take(&mut *self.new.lock());
            earlier.lock().append(new, self.tickets_max);
        }
    }

    /// Ends the sessions that this connection resumed, or would let others resume.
    pub(super) fn discard(&self) {
        for tickets in self.earlier.iter().chain([&self.new]) {
            tickets.discard();
        }
    }

    fn append(&self, newer: Held) {
        self.home().append(newer, self.tickets_max);
    }

    fn home(&self) -> MutexGuard<'_, Held> {
        match &self.earlier {
            Some(earlier) if self.resumed.load(Ordering::Relaxed) => earlier.lock(),
            _ => self.new.lock(),
        }
    }
}

/// A store serves one server only, so the names do not matter.
impl ClientSessionStore for SessionStore {
    /// What one server chose is not held against it: a share of that alone would leave out the better ones,
    /// which it may have learned meanwhile.
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        // The limit of the handshake bounds the session.
        self.append(Held { tls12: Some(session), ..Held::default() });
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.earlier.as_ref()?.lock().tls12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        for tickets in self.earlier.iter().chain([&self.new]) {
            tickets.lock().tls12 = None;
        }
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.given.fetch_add(1, Ordering::Relaxed);
        if !self.is_long.load(Ordering::Relaxed) {
            self.append(Held { tls13: vec![ticket], ..Held::default() });
        }
    }

    /// Gives each ticket once: a server, or whoever listens, could tell two connections with the same
    /// ticket for one client's (RFC 8446 section C.4).
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.earlier.as_ref()?.lock().tls13.pop()
    }
}

/// What a session can be resumed by, shared by its connections. The lock is for rustls, which
/// expects threads.
#[derive(Default)]
pub(super) struct Tickets(Mutex<Held>);

impl Tickets {
    fn is_empty(&self) -> bool {
        let held = self.lock();
        held.tls12.is_none() && held.tls13.is_empty()
    }

    fn discard(&self) {
        *self.lock() = Held { is_discarded: true, ..Held::default() };
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tickets {
    /// Shows no secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

/// What [`Tickets`] hold.
#[derive(Default)]
struct Held {
    /// The session has ended: nothing is taken in any more.
    is_discarded: bool,
    tls12: Option<Tls12ClientSessionValue>,
    /// Tickets of TLS 1.3, the newest last.
    tls13: Vec<Tls13ClientSessionValue>,
}

impl Held {
    fn append(&mut self, newer: Self, tickets_max: usize) {
        if self.is_discarded {
            return;
        }
        self.tls12 = newer.tls12.or(self.tls12.take());
        self.tls13.extend(newer.tls13);
        let excess = self.tls13.len().saturating_sub(tickets_max);
        self.tls13.drain(..excess);
    }
}

/// How long a full handshake stands: long enough to spare nearly all others, and a server that lost its
/// key or its certificate cannot hide that for longer. RFC 8446 section 4.6.1 would allow a week.
const SESSION_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Octets of a session that is kept, and of what may come with it, such as answers. Tickets of ordinary
/// servers have 200 to 300 octets, and 2,000 with a client's certificate in them.
pub(super) const SESSION_LEN_MAX: usize = 4_608;

#[cfg(test)]
mod tests;
