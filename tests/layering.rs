//! The arrows between the folders of `src/`: which may name which. What is not allowed is refused, so a
//! new folder needs a row. That only one file is unsafe is the lint `unsafe_code`'s to say, that only one
//! reads the clock and that the forwarder has no socket are `clippy.toml`'s.

use std::fs;
use std::path::Path;

/// What the owners of the forwarder's state may name. They never name each other or the forwarder: what must
/// leave them is returned.
const OF_OWNERS: &[&str] = &[
    "forwarder/DatagramPath",
    "forwarder/action",
    "forwarder/collections",
    "forwarder/limits",
    "forwarder/loss",
    "forwarder/measures",
    "forwarder/message",
    "forwarder/network",
    "forwarder/outbox",
    "forwarder/report",
];

/// The choices and bounds that the command line sets, users, and the pins of upstreams.
const OF_CONFIG: &[&str] = &[
    "forwarder/Access",
    "forwarder/AccessDenial",
    "forwarder/ClientShown",
    "forwarder/Ecs",
    "forwarder/Hedge",
    "forwarder/Limits",
    "forwarder/Order",
    "forwarder/Policy",
    "forwarder/Prefix",
    "forwarder/PrivateAnswers",
    "forwarder/QueryLogForm",
    "forwarder/QueryLogStyle",
    "forwarder/Rate",
    "forwarder/SpecialNames",
    "forwarder/UPSTREAMS_MAX",
    "forwarder/shown_prefixes",
    "host/file",
    "host/log_format/LogFormat",
    "host/network/source/Source",
    "host/os_error/system_error",
    "host/rights/Ids",
    "host/sandbox/Sandbox",
    "tls/Files",
    "tls/KeyExchange",
    "tls/pin",
];

/// A part of `src/`, a folder or a file without its ending, and the parts that it may name besides itself.
/// The first row that fits a path is its row.
const ARROWS: &[(&str, &[&str])] = &[
    ("forwarder/message", &[]),
    ("forwarder/collections", &[]),
    ("forwarder/queries", OF_OWNERS),
    ("forwarder/clients", OF_OWNERS),
    ("forwarder/upstreams", OF_OWNERS),
    ("forwarder", &[]),
    ("tls", &["forwarder/Stage", "host/file", "host/os_error"]),
    ("host", &[]),
    (
        "commands",
        &["config", "forwarder/Ecs", "forwarder/Stage", "forwarder/message", "host", "tls"],
    ),
    ("shell", &["config", "forwarder", "host", "tls"]),
    ("config", OF_CONFIG),
    ("memory", &["config", "forwarder", "host", "shell", "tls"]),
    ("main", &[]),
    ("lib", &[]),
];

#[test]
fn every_arrow_is_allowed() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    list(&src, "", &mut files);
    assert!(files.len() > 50, "the sources are not where they are looked for: {files:?}");
    let refused: Vec<String> = files
        .iter()
        .flat_map(|file| {
            refused(file, &fs::read_to_string(src.join(file)).expect("a source file is readable"))
        })
        .collect();
    assert!(refused.is_empty(), "\n{}\n", refused.join("\n"));
}

#[test]
fn arrows_that_are_not_allowed_are_found() {
    for (file, text, target) in [
        ("config/mod.rs", "use crate::tls::Connector;", "tls/Connector"),
        ("config/mod.rs", "use crate::tls::{pin, sessions::Store};", "tls/sessions/Store"),
        ("config/zone.rs", "fn f() { super::super::shell::run() }", "shell/run"),
        ("tls/mod.rs", "use crate::forwarder::{Limits,\n Stage};", "forwarder/Limits"),
        ("tls/pin.rs", "fn f() -> crate::config::Config {}", "config/Config"),
        ("forwarder/message/mod.rs", "use super::collections::arena;", "forwarder/collections"),
        ("forwarder/message/edit.rs", "use super::super::Limits;", "forwarder/Limits"),
        ("forwarder/finish.rs", "use crate::tls::pin::Pin;", "tls/pin/Pin"),
        ("metrics/mod.rs", "use crate::tls;", "no row"),
    ] {
        let found = refused(file, text);
        assert!(found.iter().any(|found| found.contains(target)), "{file}: {text}: {found:?}");
    }
    for (file, text) in [
        ("config/mod.rs", "use crate::forwarder::{Limits}; use crate::tls::pin::{self, Pin};"),
        ("forwarder/message/edit.rs", "use super::record; use crate::forwarder::message::opt;"),
        ("forwarder/finish.rs", "  // crate::tls\nuse super::message;"),
        ("forwarder/message/mod.rs", "#[cfg(test)]\nmod tests { use crate::tls::Connector; }"),
    ] {
        assert_eq!(refused(file, text), [] as [String; 0], "{file}: {text}");
    }
}

/// Every `.rs` file below `dir`, but those that are tests.
fn list(dir: &Path, below: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("the sources can be listed") {
        let entry = entry.expect("the sources can be listed");
        let name = entry.file_name().into_string().expect("file names are text");
        let path = format!("{below}{name}");
        if entry.path().is_dir() && name == "tests" {
            // Nothing of it is in the program.
        } else if entry.path().is_dir() {
            list(&entry.path(), &format!("{path}/"), files);
        } else if entry.path().extension().is_some_and(|e| e == "rs") && name != "tests.rs" {
            files.push(path);
        }
    }
}

/// The arrows of a file that no row allows.
fn refused(file: &str, text: &str) -> Vec<String> {
    let own = file.strip_suffix(".rs").unwrap_or(file);
    let Some((part, allowed)) = ARROWS.iter().find(|(part, _)| is_below(own, part)) else {
        return vec![format!("src/{file}: no row in tests/layering.rs")];
    };
    let mut module: Vec<&str> = own.split('/').collect();
    if matches!(module.last(), Some(&"mod" | &"lib" | &"main")) {
        module.pop();
    }
    let is_allowed = |target: &String| {
        is_below(target, part) || allowed.iter().any(|allowed| is_below(target, allowed))
    };
    let targets = targets(&code(text), &module).into_iter();
    targets
        .filter(|target| !is_allowed(target))
        .map(|target| format!("src/{file} may not name {target}"))
        .collect()
}

fn is_below(path: &str, part: &str) -> bool {
    path.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The text up to its tests, without lines of comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths that `code` of `module` names, from the root of the crate, with `/` between their parts.
fn targets(code: &str, module: &[&str]) -> Vec<String> {
    let mut targets = Vec::new();
    for (at, first) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        if code[..at].ends_with("super::") {
            continue;
        }
        let above = module.len().saturating_sub(1);
        let mut base = if first == "super::" { &module[..above] } else { &[] };
        let mut rest = &code[at + first.len()..];
        while let Some(behind) = rest.strip_prefix("super::") {
            base = &base[..base.len().saturating_sub(1)];
            rest = behind;
        }
        let (path, rest) = split_path(rest);
        let list = rest.strip_prefix('{').and_then(|list| list.split('}').next());
        assert!(list.is_none_or(|list| !list.contains('{')), "a list in a list: {list:?}");
        for item in list.unwrap_or_default().split(',') {
            let (item, _) = split_path(item.trim());
            let parts = base.iter().copied().chain(path.split("::")).chain(item.split("::"));
            let parts: Vec<_> = parts.filter(|part| !["", "self"].contains(part)).collect();
            targets.push(parts.join("/"));
        }
    }
    targets
}

/// The path that `text` begins with, and what is behind it.
fn split_path(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| !c.is_alphanumeric() && !"_:".contains(c)).unwrap_or(text.len()),
    )
}
