//! The host: signals, clocks, the network's ways, descriptors and the error output.

pub(crate) mod clocks;
pub(crate) mod descriptors;
pub(crate) mod interfaces;
pub(crate) mod logged;
pub(crate) mod network;
pub(crate) mod os_error;
pub mod signals;
pub mod stderr;
