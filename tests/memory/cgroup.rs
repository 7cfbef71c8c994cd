//! The real program in a control group that gives it no more than the bounds.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use dot_proxy::memory::STACK;

use crate::load::Load;
use crate::program::Program;
use support::skip::skip;

#[test]
fn a_small_one_lives_within_its_bounds() {
    lives_within_its_bounds("a_small_one_lives_within_its_bounds", "small");
}

#[test]
fn a_default_one_lives_within_its_bounds() {
    lives_within_its_bounds("a_default_one_lives_within_its_bounds", "default");
}

/// With less memory it would be killed, with a smaller stack too.
fn lives_within_its_bounds(name: &str, size: &str) {
    let load = Load::new(size, &[]);
    let copy = Copy::of_program(name);
    let (program_file, process, kernel) = bounds(&copy.0, load.arguments());
    let group = match Group::new(name, process, kernel) {
        Ok(group) => group,
        Err(reason) => return skip(name, &reason),
    };
    let mut command = Command::new("sh");
    let script = format!("ulimit -s {} && echo $$ > \"$0\" && exec \"$@\"", STACK / 1024);
    command.args(["-c", &script]).arg(group.path.join("cgroup.procs")).arg(&copy.0);
    command.args(load.arguments());
    let mut program = Program::start(command);

    load.run(program.address());

    assert!(program.is_running(), "it was killed");
    let status = fs::read_to_string(format!("/proc/{}/status", program.pid())).expect("it runs");
    let resident: Vec<_> = status
        .lines()
        .filter(|line| line.starts_with("VmHWM") || line.starts_with("VmStk"))
        .collect();
    let used = group.most_used();
    println!(
        "{size}: {process} and {kernel} octets are the bounds; {resident:?}; {}",
        group.usage()
    );
    group.check();
    // The program itself is in the caches of whoever read it first.
    if let Some(used) = used {
        assert!(used + program_file <= process + kernel, "{used} octets were used at most");
    }
}

/// What `--print-limits` prints for these arguments: the program, the sum of the process and that of the
/// kernel.
fn bounds(program: &Path, arguments: &[String]) -> (u64, u64, u64) {
    let output = Command::new(program).args(arguments).arg("--print-limits").output();
    let output = output.expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("text");
    let sum = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        let octets = line.and_then(|line| line.split_whitespace().last()).expect("a sum");
        octets.replace(',', "").parse::<u64>().expect("a number")
    };
    assert_eq!(sum("both"), sum("process") + sum("kernel"));
    (sum("program"), sum("process"), sum("kernel"))
}

/// A copy of the program, of which the kernel has every page already.
struct Copy(PathBuf);

impl Copy {
    fn of_program(name: &str) -> Self {
        let program = std::env::var_os("DOT_PROXY")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_dot-proxy")), PathBuf::from);
        let copy = std::env::temp_dir().join(format!("dot-proxy-{}-{name}", std::process::id()));
        // Not by ourselves: a test beside this one that starts a program would hold the file open for
        // writing meanwhile, and then it cannot be run.
        let status = Command::new("cp").arg(program).arg(&copy).status().expect("cp");
        assert!(status.success(), "cp cannot copy the program to {}", copy.display());
        Self(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // A file that is left behind does no harm.
        drop(fs::remove_file(&self.0));
    }
}

/// A control group of our own, removed when dropped.
struct Group {
    path: PathBuf,
    is_v1: bool,
}

impl Group {
    /// One with so much memory. The error is why this machine has none.
    fn new(name: &str, process: u64, kernel: u64) -> Result<Self, String> {
        let name = format!("dot-proxy-{}-{name}", std::process::id());
        let mut reason = "there is no control group for memory at /sys/fs/cgroup".to_owned();
        for (parent, is_v1) in parents() {
            let path = parent.join(&name);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) => {
                    reason = format!("cannot make {}: {error}", path.display());
                    continue;
                }
            }
            let group = Self { path, is_v1 };
            match group.limit(process, kernel) {
                Ok(()) => return Ok(group),
                Err(error) => reason = format!("cannot limit {}: {error}", group.path.display()),
            }
        }
        Err(reason)
    }

    fn limit(&self, process: u64, kernel: u64) -> std::io::Result<()> {
        let pages = |octets: u64| octets.next_multiple_of(4_096).to_string();
        if self.is_v1 {
            self.write("memory.limit_in_bytes", &pages(process + kernel))?;
            // Sockets have a count of their own there.
            self.write("memory.kmem.tcp.limit_in_bytes", &pages(kernel))?;
            // Without swap there is no such file.
            self.write("memory.memsw.limit_in_bytes", &pages(process + kernel)).or_else(absent)
        } else {
            self.write("memory.max", &pages(process + kernel))?;
            self.write("memory.swap.max", "0").or_else(absent)
        }
    }

    fn write(&self, file: &str, value: &str) -> std::io::Result<()> {
        File::options().write(true).open(self.path.join(file))?.write_all(value.as_bytes())
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_default().trim().replace('\n', ", ")
    }

    fn usage(&self) -> String {
        let files: &[&str] = if self.is_v1 {
            &[
                "memory.max_usage_in_bytes",
                "memory.kmem.max_usage_in_bytes",
                "memory.kmem.tcp.max_usage_in_bytes",
                "memory.failcnt",
                "memory.kmem.tcp.failcnt",
            ]
        } else {
            &["memory.peak", "memory.events"]
        };
        let lines: Vec<_> =
            files.iter().map(|file| format!("{file} {}", self.read(file))).collect();
        lines.join("; ")
    }

    /// The most octets that were used at a time, where the kernel tells.
    fn most_used(&self) -> Option<u64> {
        let file = if self.is_v1 { "memory.max_usage_in_bytes" } else { "memory.peak" };
        self.read(file).parse().ok()
    }

    /// Asserts that no process was killed, and no socket was short of memory.
    fn check(&self) {
        if self.is_v1 {
            assert_eq!(self.read("memory.kmem.tcp.failcnt"), "0", "{}", self.usage());
        } else {
            assert!(self.read("memory.events").contains("oom_kill 0"), "{}", self.usage());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The program in it was killed before.
        drop(fs::remove_dir(&self.path));
    }
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Where a group can be made: below our own, or below the first of all.
fn parents() -> Vec<(PathBuf, bool)> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut parents = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let is_v1 = controllers.split(',').any(|controller| controller == "memory");
        if !is_v1 && !controllers.is_empty() {
            continue;
        }
        let root = Path::new(if is_v1 { "/sys/fs/cgroup/memory" } else { "/sys/fs/cgroup" });
        parents.push((root.join(path.trim_start_matches('/')), is_v1));
        parents.push((root.to_owned(), is_v1));
    }
    let has_memory = |parent: &Path, is_v1: bool| {
        let file = if is_v1 { "memory.limit_in_bytes" } else { "cgroup.subtree_control" };
        let text = fs::read_to_string(parent.join(file));
        text.is_ok_and(|text| is_v1 || text.split_whitespace().any(|word| word == "memory"))
    };
    parents.retain(|(parent, is_v1)| has_memory(parent, *is_v1));
    parents
}
