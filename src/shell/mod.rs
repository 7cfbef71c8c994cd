//! The shell: sockets, listeners and the loop that turns what happens to them into calls of the forwarder.

mod access;
mod changes;
mod client;
pub mod datagram;
mod listener;
pub(crate) mod metrics;
mod origin;
mod path;
pub mod reactor;
pub mod reload;
pub(crate) mod sockets;
pub mod start;
mod status;
pub(crate) mod stream;
pub(crate) mod upstream;

pub use metrics::ProcessBound;
pub use upstream::{connectors, file_problems};
