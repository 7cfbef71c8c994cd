//! Which part of `src/` may name which: the arrows between its folders. What is not allowed is refused, so a
//! new folder needs a row. That only one file is unsafe is the lint `unsafe_code`'s to say, that only one
//! reads the clock and that the forwarder has no socket are `clippy.toml`'s.

use std::fs;
use std::path::Path;

/// What the owners of the forwarder's state may name. They never name each other or the forwarder: what must
/// leave them is returned.
const OF_OWNERS: &[&str] = &[
    "forwarder/action",
    "forwarder/collections",
    "forwarder/limits",
    "forwarder/message",
    "forwarder/outbox",
    "forwarder/report",
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
    ("tls", &["forwarder/action/Stage", "host/os_error"]),
    ("host", &[]),
    ("shell", &["config", "forwarder", "host", "tls"]),
    ("config", &["forwarder/limits", "tls/pin"]),
    ("memory", &["config", "forwarder", "host", "shell", "tls"]),
    ("main", &["config", "forwarder", "host", "memory", "shell", "tls"]),
    ("lib", &[]),
];

#[test]
fn every_arrow_is_allowed() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    list(&src, "", &mut files);
    assert!(files.len() > 50, "the sources are not where they are looked for: {files:?}");
    let texts: Vec<(String, String)> = files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(src.join(&file)).expect("a source file is readable");
            (file, text)
        })
        .collect();
    let forwarder =
        &texts.iter().find(|(file, _)| file == "forwarder/mod.rs").expect("it is there").1;
    let exports = exports(forwarder);
    let refused: Vec<String> =
        texts.iter().flat_map(|(file, text)| refused(file, text, &exports)).collect();
    assert!(refused.is_empty(), "\n{}\n", refused.join("\n"));
}

#[test]
fn arrows_that_are_not_allowed_are_found() {
    let exports = [("Limits".to_owned(), "forwarder/limits/Limits".to_owned())];
    for (file, text, target) in [
        ("config/mod.rs", "use crate::tls::Connector;", "tls/Connector"),
        ("config/mod.rs", "use crate::{tls::{pin, sessions::Store}};", "tls/sessions/Store"),
        ("config/zone.rs", "fn f() { super::super::shell::run() }", "shell/run"),
        ("tls/mod.rs", "use crate::forwarder::Limits;", "forwarder/limits/Limits"),
        ("tls/pin.rs", "fn f() -> crate::config::Config {}", "config/Config"),
        (
            "forwarder/message/mod.rs",
            "use super::collections::arena;",
            "forwarder/collections/arena",
        ),
        ("forwarder/message/edit.rs", "use super::super::Limits;", "forwarder/limits/Limits"),
        ("forwarder/message/edit.rs", "use super::super::{Limits, Other as X};", "forwarder/Other"),
        ("forwarder/finish.rs", "use crate::tls::pin::Pin;", "tls/pin/Pin"),
        ("forwarder/finish.rs", "/* x */ use crate::host::clocks; // y", "host/clocks"),
        ("metrics/mod.rs", "use crate::tls;", "no row"),
    ] {
        let found = refused(file, text, &exports);
        assert!(found.iter().any(|found| found.contains(target)), "{file}: {text}: {found:?}");
    }
    for (file, text) in [
        ("config/mod.rs", "use crate::forwarder::{Limits}; use crate::tls::pin::{self, Pin};"),
        ("forwarder/message/edit.rs", "use super::record; use crate::forwarder::message::opt;"),
        (
            "forwarder/finish.rs",
            "// crate::tls\nconst X: &str = \"crate::tls\"; use super::message;",
        ),
        ("forwarder/message/mod.rs", "#[cfg(test)]\nmod tests { use crate::tls::Connector; }"),
    ] {
        assert_eq!(refused(file, text, &exports), [] as [String; 0], "{file}: {text}");
    }
}

/// Every `.rs` file below `dir`, but those that are tests.
fn list(dir: &Path, below: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("the sources can be listed") {
        let entry = entry.expect("the sources can be listed");
        let name = entry.file_name().into_string().expect("file names are text");
        let path = format!("{below}{name}");
        if entry.path().is_dir() {
            list(&entry.path(), &format!("{path}/"), files);
        } else if entry.path().extension().is_some_and(|e| e == "rs") && name != "tests.rs" {
            files.push(path);
        }
    }
}

/// What `forwarder/mod.rs` exports of its modules, by name, with the path where it is defined.
fn exports(text: &str) -> Vec<(String, String)> {
    let code = code(text);
    let uses = code.split("pub use ").skip(1).filter_map(|rest| rest.split_once(';'));
    let mut exports = Vec::new();
    for (tree, _) in uses {
        for path in expand(tree) {
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            exports.push((name, format!("forwarder/{path}")));
        }
    }
    exports
}

/// The arrows of a file that no row allows.
fn refused(file: &str, text: &str, exports: &[(String, String)]) -> Vec<String> {
    let own = file.strip_suffix(".rs").unwrap_or(file);
    let Some((part, allowed)) = ARROWS.iter().find(|(part, _)| is_below(own, part)) else {
        return vec![format!("src/{file}: no row in tests/layering.rs")];
    };
    let mut module: Vec<&str> = own.split('/').collect();
    if matches!(module.last(), Some(&"mod" | &"lib" | &"main")) {
        module.pop();
    }
    let targets = paths(&code(text), &module);
    let mut refused = Vec::new();
    for target in targets {
        let exported = target
            .strip_prefix("forwarder/")
            .and_then(|name| exports.iter().find(|(export, _)| export == name));
        let target = exported.map_or(target.as_str(), |(_, path)| path);
        let is_allowed = is_below(target, part)
            || *part == "main"
            || allowed.iter().any(|allowed| is_below(target, allowed));
        if !is_allowed {
            refused.push(format!("src/{file} may not name {target}"));
        }
    }
    refused
}

fn is_below(path: &str, part: &str) -> bool {
    path.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The text up to its tests, without comments and strings.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find("\"'").map_or(rest.len(), |end| end + 3)
        } else if first == '"' {
            string_len(rest)
        } else {
            code.push(first);
            first.len_utf8()
        };
        rest = &rest[skipped..];
    }
    code
}

/// Octets of the string literal that `text` begins with.
fn string_len(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\\' if !is_escaped => is_escaped = true,
            '"' if !is_escaped => return at + 1,
            _ => is_escaped = false,
        }
    }
    text.len()
}

/// The paths that `code` of `module` names, from the root of the crate, with `/` between their parts.
fn paths(code: &str, module: &[&str]) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("::") {
        let before = &code[..at];
        let start = before.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
        let first = &before[start..];
        let is_first = !before[..start].ends_with("::");
        if !is_first || !matches!(first, "crate" | "dot_proxy" | "super") {
            continue;
        }
        let mut own =
            if first == "super" { &module[..module.len().saturating_sub(1)] } else { &[] };
        let mut tree = &code[at + 2..];
        while let Some(rest) = tree.strip_prefix("super::") {
            own = &own[..own.len().saturating_sub(1)];
            tree = rest;
        }
        let tree = &tree[..tree_len(tree)];
        paths.extend(expand(tree).into_iter().map(|path| {
            let whole: Vec<&str> = own.iter().copied().chain([path.as_str()]).collect();
            whole.join("/").trim_end_matches('/').to_owned()
        }));
    }
    paths
}

/// Octets of the path or tree of paths that `text` begins with.
fn tree_len(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 1 => depth -= 1,
            '}' if depth == 1 => return at + 1,
            _ if depth > 0 || c.is_alphanumeric() || matches!(c, '_' | ':' | '*') => {}
            _ => return at,
        }
    }
    text.len()
}

/// `a::{b, c::{self, D as E}}` as `a/b`, `a/c` and `a/c/D`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().replace("::", "/");
        return vec![path.trim_end_matches("/*").trim_end_matches("/self").to_owned()];
    };
    let inner = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let mut depth = 0;
    let is_cut = |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    };
    let items: Vec<&str> =
        inner.split(is_cut).map(str::trim).filter(|item| !item.is_empty()).collect();
    let whole = |item: &str| expand(&format!("{head}{item}"));
    items.into_iter().flat_map(whole).collect()
}
