//! The real program between DNS clients and DoT servers of the test, all on loopback.
//!
//! Each test has its own proxy and its own servers, on ports that the kernel chose.

mod check;
mod flags;
mod health;
mod interop;
mod metrics;
mod pins;
mod private;
mod process;
mod query_log;
mod reload;
mod source;
mod special;
mod status;
mod transport;
mod truncation;
mod trust;
mod upstream;
