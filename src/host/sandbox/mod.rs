//! The sandbox: what serving does not need is taken from the process, for whoever may come to run code in it.
//!
//! Landlock takes away files, TCP ports and signals. It looks at what a call is about. `calls` takes away
//! system calls, by number and by what their arguments are. Nothing is opened by name once the process serves but
//! the files that are read again when that is asked for, so that both are strict.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod calls;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::os_error::system_error;

/// Whether there is a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// None, and the process may be looked into by others of its user.
    Off,
    /// As much of it as the kernel has.
    On,
    /// All of it, or no start.
    Require,
}

/// What is out of reach in the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confined {
    /// Files in other folders than those of the files that are read again.
    pub files: bool,
    /// TCP ports that no upstream had at the start.
    pub ports: bool,
}

/// Enters the sandbox, from which there is no way out. The process may then connect over TCP to these ports
/// only, those of its upstreams, where `binds` from addresses that it chooses, and read what is in the folders of
/// these files, as they are named and where links lead to. Returns what is out of reach.
///
/// To be called once everything is open, while there is one thread. It is an error if the kernel has less than
/// is required, one line for the user.
pub fn enter(
    sandbox: Sandbox,
    ports: impl IntoIterator<Item = u16>,
    binds: bool,
    files: &[&Path],
) -> Result<Confined, String> {
    if sandbox == Sandbox::Off {
        log::warn!("sandbox: off, as --sandbox says: whoever breaks in may do what this user may");
        return Ok(Confined::default());
    }
    if let Err(error) = hide() {
        let not_hidden =
            format!("names and keys are not hidden from debuggers: {}", system_error(&error));
        if sandbox == Sandbox::Require {
            return Err(required(&not_hidden));
        }
        log::warn!("{not_hidden}");
    }
    // No ruleset, as in a container that knows no Landlock, is as good as a kernel without.
    let landlock = confine(ports, binds, files).unwrap_or(ABI::Unsupported);
    let taken = Taken { calls: restrict_calls(!files.is_empty(), binds), landlock };
    if sandbox == Sandbox::Require && !taken.is_all() {
        return Err(required(&taken));
    }
    let level = if taken.is_nothing() { log::Level::Warn } else { log::Level::Info };
    log::log!(level, "sandbox: {taken}");
    Ok(Confined { files: landlock >= ABI::V1, ports: landlock >= ABI::V4 })
}

fn required(missing: &dyn fmt::Display) -> String {
    format!("--sandbox require: {missing}; write --sandbox on to start all the same")
}

/// Hides the memory, with names and keys in it, from other processes of the user, and keeps it out of files
/// (core(5)).
fn hide() -> io::Result<()> {
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(hidden?)
}

/// Takes away by Landlock what the kernel can, and returns the version that it has. Files that are open stay
/// open.
fn confine(
    ports: impl IntoIterator<Item = u16>,
    binds: bool,
    files: &[&Path],
) -> Result<ABI, RulesetError> {
    let rule = |port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp));
    // Any port that is free; none of those that clients know.
    let any_port = binds.then(|| Ok::<_, RulesetError>(NetPort::new(0, AccessNet::BindTcp)));
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rules(ports.into_iter().map(rule).chain(any_port))?
        .add_rules(path_beneath_rules(readable(files), AccessFs::ReadFile))?
        .restrict_self()?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => Ok(effective_abi),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => Ok(ABI::Unsupported),
    }
}

/// The folders of files, as they are named and where links lead to: a file that takes the place of another has
/// its name, and behind links its folder. Of the root of all files it is the file alone.
fn readable(files: &[&Path]) -> Vec<PathBuf> {
    let named = files.iter().map(|file| file.to_path_buf());
    let resolved = files.iter().filter_map(|file| file.canonicalize().ok());
    let folder = |file: PathBuf| {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = parent.unwrap_or(Path::new("."));
        let is_root = folder.canonicalize().is_ok_and(|folder| folder.parent().is_none());
        if is_root { file } else { folder.to_owned() }
    };
    named.chain(resolved).map(folder).collect()
}

/// The newest version of Landlock that is made use of. Later ones restrict datagrams, and answers go anywhere.
const LANDLOCK: ABI = ABI::V6;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn restrict_calls(reads_files: bool, binds: bool) -> bool {
    calls::restrict(reads_files, binds)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn restrict_calls(_reads_files: bool, _binds: bool) -> bool {
    false
}

/// What was taken away.
#[derive(Clone, Copy)]
struct Taken {
    calls: bool,
    landlock: ABI,
}

impl Taken {
    fn parts(self) -> [(&'static str, bool); 4] {
        [
            ("system calls", self.calls),
            ("files", self.landlock >= ABI::V1),
            ("TCP ports", self.landlock >= ABI::V4),
            ("signals", self.landlock >= ABI::V6),
        ]
    }

    fn is_all(self) -> bool {
        self.parts().iter().all(|(_, is_taken)| *is_taken)
    }

    fn is_nothing(self) -> bool {
        !self.parts().iter().any(|(_, is_taken)| *is_taken)
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |wanted| {
            let parts = self.parts().into_iter().filter(|(_, is_taken)| *is_taken == wanted);
            parts.map(|(what, _)| what).collect::<Vec<_>>().join(", ")
        };
        let (taken, left) = (list(true), list(false));
        if !taken.is_empty() {
            write!(f, "{taken} restricted")?;
        }
        if !left.is_empty() {
            let and = if taken.is_empty() { "" } else { "; " };
            write!(f, "{and}{left} not, as the kernel, or a container, does not let it")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
