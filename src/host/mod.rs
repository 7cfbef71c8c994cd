//! The host: signals, clocks, the network, open files, errors of the system and the error output.

pub(crate) mod clocks;
pub(crate) mod descriptors;
pub mod network;
pub(crate) mod os_error;
pub mod signals;
pub mod stderr;
