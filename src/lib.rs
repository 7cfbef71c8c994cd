//! A forwarder of plain DNS to DNS over TLS.
pub mod forwarder;
