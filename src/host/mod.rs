//! The host: signals, clocks, the network, open files, rights and what is taken away beyond
//! them, the service manager and the sockets that it hands over, errors of the system and the error output.

pub(crate) mod clocks;
pub(crate) mod descriptors;
pub(crate) mod file;
pub mod inherited;
pub mod log_format;
pub mod network;
pub mod notify;
pub(crate) mod os_error;
pub(crate) mod process;
pub mod rights;
pub mod sandbox;
pub mod signals;
pub mod stderr;
