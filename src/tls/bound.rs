//! What TLS allocates at most, as rustls 0.23 does it.

use rustls::ClientConfig;

use super::client_certificate::CHAIN_MAX;
use super::key_exchange::{CLIENT_SHARE_LEN, STARTED_OCTETS};
use super::meter::{READ_MAX, UNUSED_MAX};
use super::sessions::{SESSION_LEN_MAX, Session};
use super::trust::Verifier;
use super::{Connector, TlsLimits, TlsStream};

/// Octets that one connection allocates at most.
pub(crate) fn connection_octets(limits: &TlsLimits) -> usize {
    // The connection itself, its configuration and its state, in boxes.
    let own = size_of::<TlsStream>() + size_of::<ClientConfig>() + STATE_OCTETS;
    // `DeframerVecBuffer`: what was received and not yet understood, and room for a read, in a vector
    // that doubles. It holds a record of the greatest length, or a message in several records, which
    // the meter bounds.
    let in_records = UNUSED_MAX.max(limits.handshake_max) + READ_MAX;
    let received = 2 * RECORD_WIRE_MAX.max(in_records);
    // `sendable_tls`: what waits to be written, in records.
    let sent = limits.output_max + (limits.output_max / RECORD_MAX + 2) * RECORD_OVERHEAD;
    // `received_plaintext`: empty, but as long as it once was.
    let plaintext = RECORDS_READ_MAX.next_power_of_two() * size_of::<Vec<u8>>();
    // `peer_certificates`, for as long as the connection lives; a key exchange is over before they come.
    let certificates = limits.handshake_max.max(HYBRID_OCTETS);
    own + received + sent + plaintext + certificates
}

/// What a connection allocates besides, where a certificate of ours may be asked for: the transcript of the whole
/// handshake, in a vector that doubles, and our own certificates as a message.
pub(crate) fn client_certificate_octets(limits: &TlsLimits) -> usize {
    2 * (limits.handshake_max + CHAIN_MAX) + CHAIN_MAX
}

/// Octets kept of one upstream for the next connection: its certificates, and either tickets of TLS 1.3
/// or a session of TLS 1.2 that came in the handshake, each with those certificates.
pub(crate) fn session_octets(limits: &TlsLimits) -> usize {
    let tickets = limits.tickets_max * (limits.handshake_max + SESSION_LEN_MAX + TICKET_OCTETS);
    let session = 2 * limits.handshake_max + TICKET_OCTETS;
    limits.handshake_max + tickets.max(session) + size_of::<Session>()
}

/// Octets allocated while one message is looked at, for one connection at a time.
pub(crate) fn message_octets(limits: &TlsLimits) -> usize {
    // `HandshakeDeframer`: a note of 40 octets for each message in a record, which has four octets or
    // more, in a vector that doubles, and a copy of one.
    let notes = RECORD_MAX / 4 * 40 * 3 / 2 + RECORD_MAX;
    // An error about a certificate for other names lists all of them, each of six octets or more as a
    // string of 40.
    let names = limits.handshake_max / 6 * 64;
    notes.max(names)
}

/// Octets of what connections to an upstream are made of.
pub(crate) const CONNECTOR_OCTETS: usize = size_of::<Connector>() + size_of::<Verifier>() + 1024;

/// Octets of the built-in roots, as a list.
pub(crate) const ROOTS_OCTETS: usize = size_of_val(webpki_roots::TLS_SERVER_ROOTS);

/// Octets of `received_plaintext` while it is given away: a record, and what else a read brought.
pub(crate) const PLAINTEXT_OCTETS: usize = RECORD_WIRE_MAX + READ_MAX;

/// Records in what is read at a time: each has 24 octets or more.
const RECORDS_READ_MAX: usize = READ_MAX / 24 + 1;

/// Keys, transcript and state of a connection, and the notes of all the records that the meter allows.
const STATE_OCTETS: usize = 10 * 1024;

/// A hybrid key exchange that waits for the server, and its share in the `ClientHello`: as a message, encoded,
/// and for the transcript.
const HYBRID_OCTETS: usize = STARTED_OCTETS + 3 * CLIENT_SHARE_LEN;

/// What belongs to a ticket beside its octets.
const TICKET_OCTETS: usize = 512;

/// The longest plaintext of a record (RFC 8446 section 5.1).
const RECORD_MAX: usize = 16 * 1024;

/// A record with all that may be around it (RFC 5246 section 6.2.3).
const RECORD_WIRE_MAX: usize = RECORD_MAX + 2048 + 5;

/// Header, tag, content type or explicit nonce of a record, and the vector that the record is in.
const RECORD_OVERHEAD: usize = 64;
