//! The CPU time of processes, from outside and from inside.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What a process used so far, in user and in kernel mode, with its threads that have ended.
pub fn of_process(pid: u32) -> io::Result<Duration> {
    if pid == std::process::id() {
        return Ok(own());
    }
    from_outside(pid)
}

/// The same, as others see it: to the nanosecond as long as no thread has ended, else to the hundredth of
/// a second. A thread that ends takes its time out of the first of the two.
pub fn from_outside(pid: u32) -> io::Result<Duration> {
    Ok(of_threads(pid)?.max(in_ticks(pid)?))
}

/// What the threads used that are there.
fn of_threads(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        nanoseconds += first.ok_or_else(|| io::Error::other("schedstat has no number"))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// What was counted for the process as a whole.
fn in_ticks(pid: u32) -> io::Result<Duration> {
    /// Milliseconds: `USER_HZ` is 100 on every architecture but Alpha.
    const TICK: u64 = 10;

    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses, in which there may be anything. Fields 14 and 15 of
    // proc_pid_stat(5).
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace().skip(11));
    let ticks = fields.into_iter().flatten().take(2).map_while(|word| word.parse::<u64>().ok());
    Ok(Duration::from_millis(ticks.sum::<u64>() * TICK))
}

/// What this process used so far.
pub fn own() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.try_into().expect("not below zero")
}
