//! Rights that only the start needs: root and capabilities, for a port below 1024 or a file that only root
//! reads.

use std::fmt;
use std::io;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, getegid, geteuid, getgid, getgroups, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::file;
use super::os_error::system_error;

/// A user and a group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl Ids {
    /// The user who may do everything.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };

    /// The user who owns nothing, by convention.
    pub const NOBODY: Self = Self { uid: 65_534, gid: 65_534 };

    /// The user of this name in `/etc/passwd`, with the group that it has there. To ask the C library would
    /// need its modules (NSS), which a static program has not.
    pub fn find(name: &str) -> Option<Self> {
        find_in(&file::text("/etc/passwd".as_ref())?, name)
    }

    /// The group of this name in `/etc/group`.
    pub fn find_group(name: &str) -> Option<u32> {
        find_group_in(&file::text("/etc/group".as_ref())?, name)
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// Becomes `user`, and gives up for good everything that the start alone needs. `None` is [`Ids::NOBODY`] if
/// the process was started as root, and otherwise whoever started it.
///
/// To be called once everything is open, while there is one thread. It is an error if `user` cannot be had,
/// one line for the user; without `user`, what the kernel refuses is a warning.
pub fn give_up(user: Option<Ids>) -> Result<(), String> {
    // A program that is started later gets no rights from its file either.
    if let Err(error) = set_no_new_privs(true) {
        log::warn!("rights may be had again: no_new_privs: {}", words(error));
    }
    let is_root = getuid().is_root() || geteuid().is_root();
    let target = Target::of(user, is_root);
    if target == Target::Root {
        log::warn!("runs as root, as --user says: whoever breaks in is root");
        return Ok(());
    }
    empty_bounding_set();
    let not_had = match target {
        Target::Ids(ids) => become_user(ids).err(),
        Target::Root | Target::Same => None,
    };
    let not_emptied = empty_capabilities().err();
    match (not_had.or(not_emptied), user) {
        (Some(Problem { what, remedy }), Some(ids)) => {
            return Err(format!("--user {ids}: {what}; {remedy}, or leave --user out"));
        }
        (Some(Problem { what, remedy }), None) => {
            log::warn!("runs as {}: {what}; {remedy}", who());
        }
        (None, _) if can_have_root() => {
            return Err("rights were given up, and root can be had back".into());
        }
        (None, _) if target == Target::Same => {}
        (None, _) => log::info!("runs as {}", who()),
    }
    Ok(())
}

/// Whether [`give_up`] is going to make somebody else of root.
pub(crate) fn gives_up_root(user: Option<Ids>) -> bool {
    let is_root = geteuid().is_root();
    is_root && Target::of(user, is_root) != Target::Root
}

/// Whether this process may read a file that is there, as far as rights go: Landlock takes no part in it.
pub fn may_read(file: &Path) -> bool {
    accessat(CWD, file, Access::READ_OK, AtFlags::empty()) != Err(Errno::ACCESS)
}

/// Who the process is, in words.
fn who() -> String {
    let without = if has_capabilities() { "" } else { ", without capabilities" };
    match (getuid().as_raw(), getgid().as_raw()) {
        (0, _) => format!("root{without}"),
        (uid, gid) => format!("user {}{without}", Ids { uid, gid }),
    }
}

/// Something that was not given up, in words.
struct Problem {
    what: String,
    /// What lets it be given up.
    remedy: &'static str,
}

/// Who the process is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Ids(Ids),
    /// Root, which it is.
    Root,
    /// Whoever it is.
    Same,
}

impl Target {
    fn of(user: Option<Ids>, is_root: bool) -> Self {
        match (user, is_root) {
            (Some(Ids::ROOT), true) => Self::Root,
            (Some(ids), _) => Self::Ids(ids),
            (None, true) => Self::Ids(Ids::NOBODY),
            (None, false) => Self::Same,
        }
    }
}

/// Groups go first, as they can only be given up by who may still change them. The group itself may be among
/// them, as Docker has it.
fn become_user(ids: Ids) -> Result<(), Problem> {
    let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
    let groups = getgroups().map_err(|error| Problem {
        what: format!("the groups cannot be read: {}", words(error)),
        remedy: "start without more groups",
    })?;
    let is_already = [getuid(), geteuid()] == [uid; 2] && [getgid(), getegid()] == [gid; 2];
    if is_already {
        let Some(other) = groups.iter().find(|group| **group != gid) else { return Ok(()) };
        return set_thread_groups(&[]).map_err(|error| Problem {
            what: format!("group {other} cannot be given up: {}", words(error)),
            remedy: "start without more groups",
        });
    }
    let give_up_groups = || if groups.is_empty() { Ok(()) } else { set_thread_groups(&[]) };
    give_up_groups().and_then(|()| set_ids(uid, gid)).map_err(|error| Problem {
        what: format!("user {ids} cannot be had: {}", words(error)),
        remedy: "start as root with CAP_SETUID and CAP_SETGID, or as that user",
    })
}

/// The group first: who is another user already may not change it any more.
fn set_ids(uid: Uid, gid: Gid) -> Result<(), Errno> {
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// Whether who has given up root becomes it again, or may do something of what it may.
fn can_have_root() -> bool {
    // Nothing else is tried: it would be refused for the groups alone.
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_ok() || has_capabilities()
}

fn has_capabilities() -> bool {
    capabilities(None) != Ok(NO_CAPABILITIES)
}

/// Has no program that is started later get a capability. That needs `CAP_SETPCAP`; without it nothing is
/// lost, as no such program gets more than the process has.
fn empty_bounding_set() {
    let mut each = (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    // The first that is refused is behind the last that there is, or all are.
    each.find(|capability| remove_capability_from_bounding_set(*capability).is_err());
}

/// Has no capability that may be used, be had or be inherited; those that a program inherits in any case go
/// with them.
fn empty_capabilities() -> Result<(), Problem> {
    if !has_capabilities() {
        return Ok(());
    }
    set_capabilities(None, NO_CAPABILITIES).map_err(|error| Problem {
        what: format!("capabilities cannot be given up: {}", words(error)),
        remedy: "let capset(2) pass",
    })
}

const NO_CAPABILITIES: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

/// The user of this name in a `passwd`, whose columns are name, password, user, group and others.
fn find_in(passwd: &str, name: &str) -> Option<Ids> {
    passwd.lines().find_map(|line| {
        let mut columns = line.split(':');
        let is_it = columns.next() == Some(name);
        let (uid, gid) = (columns.nth(1)?.parse().ok()?, columns.next()?.parse().ok()?);
        is_it.then_some(Ids { uid, gid })
    })
}

/// The group of this name in a `group`, whose columns are name, password, group and members.
fn find_group_in(group: &str, name: &str) -> Option<u32> {
    let mut lines = group.lines().map(|line| line.split(':'));
    lines.find_map(|mut columns| {
        columns.next().filter(|it| *it == name).and(columns.nth(1)?.parse().ok())
    })
}

fn words(error: Errno) -> Box<str> {
    match error {
        Errno::INVAL => "not in this user namespace".into(),
        error => system_error(&io::Error::from(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_the_process_is_to_be() {
        let other = Ids { uid: 7, gid: 8 };
        for (user, is_root, expected) in [
            (None, false, Target::Same),
            (None, true, Target::Ids(Ids::NOBODY)),
            (Some(other), false, Target::Ids(other)),
            (Some(other), true, Target::Ids(other)),
            (Some(Ids::ROOT), true, Target::Root),
            // It is tried, and refused by the kernel.
            (Some(Ids::ROOT), false, Target::Ids(Ids::ROOT)),
        ] {
            assert_eq!(Target::of(user, is_root), expected, "{user:?} {is_root}");
        }
    }

    /// In threads, each with users of its own.
    #[test]
    fn root_that_can_be_had_back_is_noticed() {
        if !geteuid().is_root() {
            return println!("skipped: root only becomes others");
        }
        let ids = Ids::NOBODY;
        let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
        for (saved, expected) in [(uid, false), (Uid::ROOT, true)] {
            let thread = std::thread::spawn(move || {
                set_thread_groups(&[]).unwrap();
                set_thread_res_gid(gid, gid, gid).unwrap();
                set_thread_res_uid(uid, uid, saved).unwrap();
                assert!(empty_capabilities().is_ok());
                can_have_root()
            });
            assert_eq!(thread.join().unwrap(), expected, "{saved:?}");
        }
    }

    #[test]
    fn names_are_found_in_a_passwd() {
        let passwd = "\
root:x:0:0:root:/root:/bin/bash
# a comment
short:x:1
no-number:x:a:2::/:
dns:x:100:65534::/nonexistent:/usr/sbin/nologin
dns:x:101:101::/:
last:x:102:103";
        for (name, expected) in [
            ("root", Some((0, 0))),
            ("dns", Some((100, 65_534))),
            ("last", Some((102, 103))),
            ("short", None),
            ("no-number", None),
            ("dn", None),
            ("", None),
        ] {
            let expected = expected.map(|(uid, gid)| Ids { uid, gid });
            assert_eq!(find_in(passwd, name), expected, "{name}");
        }
        let group = "root:x:0:\n# a comment\nshort:x\ndns:x:101:a,b\ndns:x:102:\nlast:x:103";
        for (name, expected) in [
            ("root", Some(0)),
            ("dns", Some(101)),
            ("last", Some(103)),
            ("short", None),
            ("", None),
        ] {
            assert_eq!(find_group_in(group, name), expected, "{name}");
        }
    }
}
