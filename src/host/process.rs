//! What the process itself uses, for metrics. What takes a file is opened before the sandbox hides files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::str;
use std::time::Duration;

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::descriptors::open_files;

/// Where to look for what the process uses.
#[derive(Debug)]
pub(crate) struct Process {
    /// How many pages it has; `None` where there is no such file.
    pages: Option<File>,
    started: Duration,
    files: usize,
    files_max: Option<u64>,
}

impl Process {
    /// To be called when everything is open.
    pub(crate) fn open() -> Self {
        let pages = File::open("/proc/self/statm").ok();
        Self {
            pages,
            started: time_of_day(),
            files: open_files(),
            files_max: getrlimit(Resource::Nofile).current,
        }
    }

    /// The time of day when the process started to serve, from 1970.
    pub(crate) fn started(&self) -> Duration {
        self.started
    }

    /// Processor time.
    pub(crate) fn processor_time() -> Duration {
        time(ClockId::ProcessCPUTime)
    }

    /// Octets of memory: all that have addresses, and those that are resident.
    pub(crate) fn memory(&self) -> Option<[u64; 2]> {
        let mut text = [0; 128];
        let len = self.pages.as_ref()?.read_at(&mut text, 0).ok()?;
        let mut numbers = str::from_utf8(&text[..len]).ok()?.split(' ');
        let mut octets = || Some(numbers.next()?.parse::<u64>().ok()? * page_size() as u64);
        Some([octets()?, octets()?])
    }

    /// Files that were open when the process started to serve.
    pub(crate) fn files(&self) -> usize {
        self.files
    }

    /// Files that may be open; `None`: any number.
    pub(crate) fn files_max(&self) -> Option<u64> {
        self.files_max
    }
}

/// The time from 1970, as the system clock has it.
pub(crate) fn time_of_day() -> Duration {
    time(ClockId::Realtime)
}

fn time(clock: ClockId) -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    Duration::new(tv_sec.cast_unsigned(), tv_nsec.cast_unsigned() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_uses_is_found() {
        let process = Process::open();
        let Some([all, resident]) = process.memory() else { panic!("no memory: {process:?}") };
        assert!(resident > 100_000 && all >= resident, "{all} {resident}");
        assert!(process.files() >= 3 && process.files_max() > Some(process.files() as u64));
        let before = Process::processor_time();
        let mut sum = 0_u64;
        while Process::processor_time() == before {
            sum = sum.wrapping_add(1);
        }
        assert!(process.started().as_secs() > 1_700_000_000, "{sum}");
    }
}
