//! What the system tells about a process.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions, waitpid};

/// The processor time of a process, to tell one that waits from one that spins.
pub(crate) struct Busy {
    pid: Pid,
    since: Instant,
    before: Duration,
}

impl Busy {
    pub(crate) fn since_now(pid: Pid) -> Self {
        Self { pid, since: Instant::now(), before: processor_time(pid) }
    }

    /// Panics if more than a fifth of the time since then was spent computing. One that spins has all
    /// of a processor, or, where others want it too, its share, which is still more than that.
    #[track_caller]
    pub(crate) fn assert_low(&self) {
        let spent = processor_time(self.pid).saturating_sub(self.before);
        let passed = self.since.elapsed();
        assert!(passed > Duration::from_millis(900), "too short to tell: {passed:?}");
        assert!(spent < passed / 5, "{spent:?} of {passed:?} spent: it spins");
    }
}

fn processor_time(pid: Pid) -> Duration {
    /// Milliseconds of a tick: `USER_HZ` is 100 on every architecture but Alpha.
    const TICK: u64 = 10;

    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The second field is a name in parentheses, in which there may be anything.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    // Fields 14 and 15 of proc_pid_stat(5): in user mode and in the kernel.
    let ticks = fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("n"));
    Duration::from_millis(ticks.sum::<u64>() * TICK)
}

/// The numbers of the file descriptors that a process has open.
pub(crate) fn descriptors(pid: Pid) -> BTreeSet<u64> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it runs")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.to_str().and_then(|name| name.parse().ok()).expect("a number"))
        .collect()
}

/// Waits until a process is stopped by a signal.
#[track_caller]
pub(crate) fn await_stop(pid: Pid) {
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED)
        .expect("a child of ours")
        .expect("it was waited for");
    assert!(status.stopped(), "it ended: {status:?}");
}

/// The local ports of the TCP connections over IPv4 that stand between a process's network and this
/// address.
pub(crate) fn ports_connected_to(pid: Pid, address: SocketAddr) -> Vec<u16> {
    const ESTABLISHED: &str = "01";

    let SocketAddr::V4(address) = address else { panic!("an address of IPv4") };
    // The kernel prints an address in the machine's order of octets.
    let ip = u32::from_ne_bytes(address.ip().octets());
    let remote = format!("{ip:08X}:{:04X}", address.port());
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("it runs");
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[2] == remote && row[3] == ESTABLISHED)
        .map(|row| row[1].split_once(':').expect("a port").1)
        .map(|port| u16::from_str_radix(port, 16).expect("a hexadecimal number"))
        .collect()
}
