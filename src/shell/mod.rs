//! The shell: sockets, listeners and the loop that turns what happens to them into calls of the forwarder.

mod burst;
pub mod datagram;
mod listener;
pub(crate) mod outgoing;
pub mod reactor;
pub(crate) mod socket;
