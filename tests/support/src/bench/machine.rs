//! The cores of the machine, and who runs on which.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores for the load, the forwarder and the upstream.
pub struct Cores {
    /// The cores that this program was given.
    all: CpuSet,
    pub load: usize,
    pub upstream: usize,
    pub forwarder: usize,
    /// For the second process of a forwarder.
    pub second: usize,
}

impl Cores {
    pub fn find() -> Result<Self, String> {
        let all = sched_getaffinity(None).map_err(|error| format!("sched_getaffinity: {error}"))?;
        // One of each pair that shares a core is enough, if there are others.
        let mut numbers: Vec<usize> = Vec::new();
        for number in (0..CpuSet::MAX_CPU).filter(|number| all.is_set(*number)) {
            if numbers.iter().all(|other| !are_siblings(*other, number)) {
                numbers.push(number);
            }
        }
        let [load, .., forwarder] = numbers[..] else {
            return Err("two cores are needed, one for the forwarder and one for the rest".into());
        };
        let (upstream, second) = match numbers[..] {
            [_, upstream, .., second, _] => (upstream, second),
            _ => (load, forwarder),
        };
        Ok(Self { all, load, upstream, forwarder, second })
    }

    /// Whether two processes of a forwarder have a core each.
    pub fn has_second(&self) -> bool {
        self.second != self.forwarder
    }

    /// Does something on one core; what is started there stays there.
    pub fn on<T>(
        &self,
        core: usize,
        action: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        let mut one = CpuSet::new();
        one.set(core);
        let set = |cores: &CpuSet| {
            sched_setaffinity(None, cores)
                .map_err(|error| format!("cannot keep to core {core}: {error}"))
        };
        set(&one)?;
        let result = action();
        set(&self.all)?;
        result
    }
}

fn are_siblings(one: usize, other: usize) -> bool {
    let read = |number: usize| {
        let file = format!("/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list");
        fs::read_to_string(file).ok()
    };
    read(one).is_some_and(|siblings| read(other) == Some(siblings))
}

/// How long a core had nothing to do since the machine was started.
pub fn idle_time(core: usize) -> Option<Duration> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let name = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name))?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [_, _, _, idle, io_wait, ..] = ticks[..] else { return None };
    // In hundredths of a second, whatever the kernel counts in.
    Some(Duration::from_millis((idle + io_wait) * 10))
}

/// What this machine is, for whoever reads the figures.
pub fn description() -> String {
    let line = |file: &str, name: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches([' ', '\t', ':']).trim_end().to_owned())
    };
    let unknown = || "?".to_owned();
    let cores = fs::read_to_string("/proc/cpuinfo")
        .map_or(0, |text| text.lines().filter(|line| line.starts_with("processor")).count());
    format!(
        "{cores} cores, {}, Linux {}",
        line("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
        line("/proc/sys/kernel/osrelease", "").unwrap_or_else(unknown),
    )
}

/// A directory for what lasts as long as this program.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("dot-proxy-bench-{}", std::process::id()));
        fs::create_dir(&path)
            .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nothing is lost if it stays.
        fs::remove_dir_all(&self.0).ok();
    }
}
