//! A forwarder that is tried, whichever it is: how it is started, asked and judged.

pub mod asker;
pub mod known;
pub mod outcome;
pub mod own;
pub mod runner;
pub mod stage;
pub mod subject;
