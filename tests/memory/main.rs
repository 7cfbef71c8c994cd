//! The bounds that `--print-limits` prints hold, under the worst load there is: the query table full of
//! long queries, the client table full of clients that do not read, answers of 64 KiB, upstreams that
//! stop reading or stop in the middle of an answer, the query log on and nobody who reads it. So does the
//! bound on what an upstream may make the loop do at a time.

mod allocator;
mod cgroup;
mod counted;
mod instructions;
mod load;
mod program;
mod sockets;
