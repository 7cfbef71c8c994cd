//! Which file of `src/` may name which crate and which module, and who may be unsafe or look at the
//! clock. Paths are found anywhere in the code, not only in `use`; comments and strings do not
//! count. What is not allowed is refused: a new dependency, or a new file outside the forwarder,
//! needs a row here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A row: the file (or the directory, for files that have no row above), and the crates and the
/// modules or single items of this crate that it may name besides `std`, `log` and itself.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

const TABLE: &[Row] = &[
    ("main.rs", &["dot_proxy", "simple_logger"], &[]),
    ("lib.rs", &[], &[]),
    (
        "config.rs",
        &["pico_args"],
        &[
            "forwarder::Ecs",
            "forwarder::Hedge",
            "forwarder::Limits",
            "forwarder::Order",
            "forwarder::Policy",
            "forwarder::SpecialNames",
        ],
    ),
    ("config/", &[], &["config", "interfaces::index", "pin"]),
    (
        "reactor.rs",
        &["mio", "rustix", "socket2"],
        &[
            "forwarder",
            "tls",
            "datagram",
            "config",
            "clocks",
            "descriptors",
            "interfaces",
            "signals",
            "stderr",
            "listener",
            "logged",
            "network",
            "socket",
            "words",
        ],
    ),
    ("burst.rs", &[], &[]),
    ("clocks.rs", &["rustix"], &[]),
    ("descriptors.rs", &["rustix"], &["config", "network"]),
    ("interfaces.rs", &["rustix"], &[]),
    (
        "listener.rs",
        &["mio", "rustix", "socket2"],
        &[
            "config::Size",
            "config::SocketLimits",
            "datagram",
            "forwarder::DatagramPath",
            "interfaces",
            "logged",
            "words",
        ],
    ),
    (
        "memory.rs",
        &[],
        &["config", "datagram", "forwarder", "network", "outgoing", "socket", "tls"],
    ),
    ("outgoing.rs", &["mio", "rustix"], &[]),
    (
        "socket.rs",
        &["mio", "rustix", "socket2"],
        &["burst", "config::SocketLimits", "forwarder", "outgoing", "tls", "words"],
    ),
    ("pin.rs", &[], &[]),
    ("tls.rs", &["rustls", "webpki_roots"], &["pin", "words"]),
    ("tls/chain.rs", &["ring", "rustls", "webpki"], &["pin", "tls"]),
    ("tls/keys.rs", &["ring", "rustls"], &["pin", "tls"]),
    ("tls/pins.rs", &["rustls", "webpki"], &["pin", "tls"]),
    ("tls/", &["rustls", "webpki_roots"], &["tls"]),
    ("words.rs", &[], &[]),
    ("logged.rs", &[], &[]),
    ("datagram.rs", &["libc", "mio"], &["forwarder::DatagramPath", "words"]),
    ("signals.rs", &["mio", "nix", "signal_hook", "signal_hook_mio"], &[]),
    ("network.rs", &["mio", "rustix"], &[]),
    ("stderr.rs", &["rustix"], &[]),
    // The forwarder's tools, each of use without the rest.
    ("forwarder/access.rs", &[], &["forwarder::fact"]),
    ("forwarder/arena.rs", &["slab"], &[]),
    ("forwarder/compression.rs", &[], &["forwarder::wire"]),
    (
        "forwarder/edit.rs",
        &[],
        &["forwarder::compression", "forwarder::edns", "forwarder::message", "forwarder::wire"],
    ),
    ("forwarder/edns.rs", &[], &["forwarder::arena::Id"]),
    ("forwarder/fact.rs", &[], &["forwarder::Edns", "forwarder::Stage"]),
    ("forwarder/frame.rs", &[], &["forwarder::arena::Id"]),
    ("forwarder/in_flight.rs", &[], &["forwarder::arena::Id"]),
    ("forwarder/joinable.rs", &[], &["forwarder::arena::Id", "forwarder::DatagramPath"]),
    (
        "forwarder/message.rs",
        &[],
        &[
            "forwarder::compression",
            "forwarder::edns",
            "forwarder::presentation",
            "forwarder::wire",
        ],
    ),
    ("forwarder/output.rs", &[], &["forwarder::arena::Id", "forwarder::DatagramPath"]),
    ("forwarder/presentation.rs", &[], &["forwarder::wire::LABEL_LEN_MAX"]),
    ("forwarder/random.rs", &[], &[]),
    ("forwarder/special.rs", &[], &["forwarder::message", "forwarder::wire"]),
    ("forwarder/timeouts.rs", &[], &["forwarder::arena::Id"]),
    ("forwarder/wire.rs", &[], &["forwarder::presentation"]),
    // The rest of it, one state machine: any sibling, no crate.
    ("forwarder/", &[], &["forwarder"]),
];

/// The only file that may be unsafe.
const UNSAFE: &str = "datagram.rs";

/// The only files that read a clock, in one place each: the loop its time, the other the time of day.
const CLOCKS: [&str; 2] = ["clocks.rs", "reactor.rs"];

/// What the forwarder has nothing to do with, under whatever path it is reached.
const NOT_IN_FORWARDER: &str = "SystemTime TcpListener TcpStream UdpSocket UnixDatagram UnixListener UnixStream libc \
    mio rustix rustls sleep socket2 spawn thread thread_rng";

#[test]
fn every_file_names_only_what_it_may() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = Vec::new();
    let mut clock_in_forwarder_tests = 0;
    for file in files(&src, "") {
        let text = fs::read_to_string(src.join(&file)).expect("a source file is readable");
        let code = Code::read(&text);
        violations.extend(check(&file, &code));
        if file.starts_with("forwarder/") {
            clock_in_forwarder_tests += code.clock_readings(true).count();
        }
    }

    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
    assert!(clock_in_forwarder_tests <= 1, "one base instant is enough for the forwarder's tests");
}

#[test]
fn every_row_has_a_file_and_every_dependency_a_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = BTreeSet::from_iter(files(&root.join("src"), ""));
    for (file, ..) in TABLE.iter().filter(|(file, ..)| !file.ends_with('/')) {
        assert!(files.contains(*file), "the table has a row for {file}, which does not exist");
    }

    let mut named: BTreeSet<_> = TABLE.iter().flat_map(|(_, crates, _)| *crates).copied().collect();
    assert!(named.remove("dot_proxy"));
    named.insert("log");
    let dependencies = dependencies("dependencies");
    assert_eq!(named, dependencies.iter().map(String::as_str).collect());
}

#[test]
fn planted_violations_are_found() {
    let table = r###"
        config.rs: use mio::Poll; ==> crate mio
        config.rs: use {std::fmt, rustls::{self as fmt2}}; ==> crate rustls
        config.rs: use ::socket2::Socket; ==> crate socket2
        config.rs: fn f() -> ::libc::c_int { return ::libc::c_int::MAX; } ==> crate libc
        config.rs: fn f() { let x = <mio::Poll as Sized>::x(); } ==> crate mio
        config.rs: fn f(p: &mut mio :: Poll) {} ==> crate mio
        config.rs: use pico_args::Arguments; extern crate libc; ==> extern crate
        config.rs: fn f() { libc::close(1); } ==> crate libc
        config.rs: fn f() { m!(a, rustix::io::close); } ==> crate rustix
        config.rs: #[derive(serde::Serialize)] struct S; ==> serde
        config.rs: fn f() -> r#mio::Poll {} ==> crate mio
        config.rs: use crate::reactor::Reactor; ==> module reactor::Reactor
        config.rs: use crate::forwarder::{Limits, Forwarder}; ==> module forwarder::Forwarder
        config.rs: use crate::forwarder; ==> module forwarder
        config.rs: use crate::forwarder::*; ==> module forwarder
        config.rs: use super::tls::Tls; ==> module tls::Tls
        config.rs: fn f() { crate::tls::connect(); } ==> module tls::connect
        config.rs: use crate::{config, tls as config2}; ==> module tls
        config.rs: macro_rules! m { () => { $crate::tls::x() } } ==> module tls::x
        config.rs: mod inner { use super::super::tls::Tls; } ==> module tls::Tls
        config.rs: mod inner { mod deep { fn f() { super::super::super::tls::x() } } } ==> module tls::x
        config.rs: pub use crate::*; ==> module crate
        config.rs: #[cfg(test)] mod tests { use super::*; } use mio::Poll; ==> crate mio
        config.rs: #[cfg(test)] mod tests { use mio::Poll; } ==> crate mio
        config.rs: #[cfg(test)] use rcgen::a; use rcgen::b; ==> crate rcgen
        config.rs: struct S { #[cfg(test)] a: u8, b: rcgen::B } ==> crate rcgen
        config.rs: fn f() { let c = '"'; let l: &'static str = "\""; mio::x(); } ==> crate mio
        config.rs: fn f() { r#""# ; b'\''; b"\\"; br##""#"##; c""; mio::x() } ==> crate mio
        config.rs: /* /* */ */ use mio::Poll; ==> crate mio
        config.rs: use std::time; fn f() { time::Instant::now(); } ==> the clock
        tls.rs: fn f(t: SystemTime) { SystemTime::now(); } ==> the clock
        tls.rs: fn f() { unsafe { g() } } ==> unsafe
        forwarder/client.rs: unsafe impl Send for X {} ==> unsafe
        reactor.rs: fn f() { Instant::now(); } fn g() { Instant::now(); } ==> the clock twice
        reactor.rs: use rustls::ClientConnection; ==> crate rustls
        reactor.rs: use dot_proxy::forwarder; ==> dot_proxy
        datagram.rs: use crate::forwarder::Forwarder; ==> module forwarder::Forwarder
        main.rs: use mio::Poll; ==> crate mio
        lib.rs: pub mod tls; pub use tls::Tls; ==> module tls::Tls
        tls/words.rs: use crate::config::Upstream; ==> module config::Upstream
        tls/words.rs: use ring::digest; ==> crate ring
        pin.rs: use crate::tls::Identity; ==> module tls::Identity
        forwarder/client.rs: use crate::config::Config; ==> module config::Config
        forwarder/client.rs: use super::super::tls::Tls; ==> module tls::Tls
        forwarder/client.rs: use slab::Slab; ==> crate slab
        forwarder/frame.rs: use super::message::Message; ==> module forwarder::message::Message
        forwarder/frame.rs: use super::arena::Arena; ==> module forwarder::arena::Arena
        forwarder/frame.rs: fn f() { super::super::forwarder::client::x() } ==> module forwarder::client::x
        forwarder/frame.rs: use super::*; ==> module forwarder
        forwarder/mod.rs: fn f() { super::tls::x() } ==> module tls::x
        forwarder/mod.rs: use std::net::UdpSocket as U; ==> UdpSocket
        forwarder/mod.rs: use std::{thread as t}; ==> thread
        forwarder/mod.rs: use std::time::SystemTime; ==> SystemTime
        forwarder/mod.rs: fn f() { Instant::now(); } ==> the clock
        forwarder/mod.rs: fn f() { Instant :: now } ==> the clock
        forwarder/mod.rs: fn f(t: Instant) { t.elapsed(); } ==> the clock
        forwarder/mod.rs: #[cfg(test)] mod t { fn f() { std::thread::yield_now(); } } ==> thread
        forwarder/new.rs: use slab::Slab; ==> crate slab
        cache.rs:  ==> no row"###;
    for (file, planted) in rows(table) {
        let (source, expected) = planted.split_once("==> ").expect("a row has an arrow");
        let violations = check(file, &Code::read(source));
        assert!(
            violations.iter().any(|violation| violation.contains(expected)),
            "{file}: {source}\n  should be refused for {expected}: {violations:?}"
        );
    }
}

#[test]
fn what_is_allowed_passes() {
    let table = r###"
        config.rs: const X: &str = "use mio::Poll; \" unsafe";
        config.rs: const X: &str = r##"mio::Poll "# unsafe"##; const Y: &[u8] = b"mio::x";
        config.rs: use std::io::{self, Write as _}; fn f() { io::stderr(); }
        config.rs: use std::fmt; impl fmt::Display for X<'_> { fn a<'a>(x: &'a u8) -> u16 { u16::MAX } }
        config.rs: use pico_args::Arguments; fn f() { pico_args::x(); log::info!(""); }
        config.rs: use crate::forwarder::Limits; fn f() -> crate::forwarder::Limits { Self::x() }
        config.rs: mod inner { use super::X; fn f() { self::g(); super::h(); } } fn g() { inner::f() }
        config.rs: #[expect(clippy::todo, reason = "")] fn f() { parse::<u8>(); Vec::<u8>::new(); }
        config.rs: #[cfg(test)] mod tests { use super::*; use domain::base::Name; }
        config.rs: #[cfg(test)] fn f<A, B>(x: [u8; 4]) { Instant::now(); rcgen::x(); }
        config.rs: fn f() -> impl Iterator + use<'_> {}
        config.rs: #![deny(unsafe_code)] fn f() { let c = 'u'; 1..2; 0x1f_u8; 1.0e3; x.0.1; }
        datagram.rs: fn f() { unsafe { libc::recvmmsg() } }
        reactor.rs: use crate::{forwarder::{self, Action}, tls::Tls}; fn f() { Instant::now(); }
        main.rs: use dot_proxy::config; use simple_logger::SimpleLogger; fn f() { crate::g() }
        lib.rs: pub mod config; mod tls;
        forwarder/mod.rs: mod arena; use arena::{Arena, Id}; fn f() { client::g(); } mod client;
        forwarder/client.rs: use super::{Action, frame::{self, Deframer}}; fn f() { frame::x() }
        forwarder/frame.rs: use super::arena::Id; use std::time::Instant;
        forwarder/frame.rs: fn f(elapsed: Duration, x: X) { g(elapsed, x.elapsed) }
        forwarder/frame.rs: #[cfg(test)] mod tests { use super::super::arena::Arena; use super::*; }"###;
    let comments = "// mio::Poll\n/* use mio::Poll; /* unsafe */ */ //! libc::x\n/// [`crate::tls`]\nfn f() {}";
    for (file, source) in rows(table).chain([("config.rs", comments)]) {
        let violations = check(file, &Code::read(source));
        assert!(violations.is_empty(), "{file}: {source}\n  {violations:?}");
    }
}

/// The rows of a table written as `file: text`.
fn rows(table: &str) -> impl Iterator<Item = (&str, &str)> {
    table.lines().skip(1).map(|row| row.trim().split_once(": ").expect("a row has a colon"))
}

/// What is wrong with the code of `file`, a path below `src/`.
fn check(file: &str, code: &Code) -> Vec<String> {
    let is_row_of = |name: &str| name == file || name.ends_with('/') && file.starts_with(name);
    let Some((_, crates, modules)) = TABLE.iter().find(|(name, ..)| is_row_of(name)) else {
        return vec![format!("src/{file}: no row in the table of tests/layering.rs")];
    };
    let in_forwarder = file.starts_with("forwarder/");
    let own = own_module(file);
    let dev_dependencies = dependencies("dev-dependencies");
    let mut violations = Vec::new();
    let mut report =
        |line: usize, what: String| violations.push(format!("src/{file}:{line}: {what}"));

    for path in &code.paths {
        let may_name_crate = |name: &str| {
            ["std", "core", "alloc", "log"].contains(&name)
                || crates.contains(&name)
                || path.in_test && dev_dependencies.contains(name)
        };
        match path.resolve(&own, code) {
            Target::Crate(name) if may_name_crate(&name) => {}
            Target::Crate(name) => report(path.line, format!("may not name the crate {name}")),
            Target::Module(target) => {
                let is_below = |module: &str| {
                    let module: Vec<_> = module.split("::").collect();
                    target.len() >= module.len() && target.iter().zip(&module).all(|(a, b)| a == b)
                };
                let is_own = !own.is_empty() && is_below(&own.join("::")) || file == "main.rs";
                let is_for_test = path.in_test && in_forwarder && is_below("forwarder");
                if !is_own && !is_for_test && !modules.iter().any(|module| is_below(module)) {
                    let target = if target.is_empty() { "crate".into() } else { target.join("::") };
                    report(path.line, format!("may not name the module {target}"));
                }
            }
            Target::Local => {}
        }
    }

    for token in &code.tokens {
        let Kind::Word(word) = &token.kind else {
            continue;
        };
        if word == "unsafe" && file != UNSAFE {
            report(token.line, format!("unsafe is for {UNSAFE}"));
        }
        if in_forwarder && has_word(NOT_IN_FORWARDER, word) {
            report(token.line, format!("{word} has no place in the forwarder"));
        }
    }

    for (count, line) in code.clock_readings(false).enumerate() {
        if !CLOCKS.contains(&file) {
            report(line, format!("reading the clock is for {}", CLOCKS.join(" and ")));
        } else if count > 0 {
            report(line, "reads the clock twice".into());
        }
    }
    violations
}

/// A file's text without comments and literals, and the paths in it.
struct Code {
    tokens: Vec<Token>,
    paths: Vec<CodePath>,
    /// What `use`, `mod` and `macro_rules!` bring into scope.
    names: BTreeSet<String>,
    /// Modules declared with `mod name;` or `mod name { .. }`.
    modules: BTreeSet<String>,
}

struct Token {
    kind: Kind,
    line: usize,
    /// Below `#[cfg(test)]`.
    in_test: bool,
    /// Names of the inline modules around it.
    inside: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Mark(char),
    PathSeparator,
    Word(String),
}

struct CodePath {
    segments: Vec<String>,
    /// It begins with `::`.
    is_global: bool,
    /// It is what a `use` brings in, so names brought in do not excuse it.
    in_use: bool,
    line: usize,
    in_test: bool,
    inside: Vec<String>,
}

enum Target {
    Crate(String),
    /// A path from the root of this crate.
    Module(Vec<String>),
    /// A type, a primitive, or something a `use` brought in, which was looked at there.
    Local,
}

impl CodePath {
    fn resolve(&self, own: &[String], code: &Code) -> Target {
        let first = self.segments[0].as_str();
        if self.is_global {
            return Target::Crate(first.into());
        }
        let mut module = [own, &self.inside].concat();
        let mut rest = self.segments.as_slice();
        match first {
            "crate" => {
                module.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    module.pop();
                    rest = &rest[1..];
                }
            }
            _ if code.modules.contains(first) => {
                // Which of the modules around declares it makes no difference for inline ones.
                module = own.to_vec();
            }
            _ if code.names.contains(first) && !self.in_use => return Target::Local,
            _ if first.starts_with(|c: char| c.is_uppercase()) => return Target::Local,
            _ if has_word(PRIMITIVES, first) || has_word(TOOLS, first) => return Target::Local,
            _ => return Target::Crate(first.into()),
        }
        module.extend(rest.iter().filter(|segment| *segment != "self" && *segment != "*").cloned());
        Target::Module(module)
    }
}

impl Code {
    fn read(text: &str) -> Self {
        let mut code = Self {
            tokens: lex(text),
            paths: Vec::new(),
            names: BTreeSet::new(),
            modules: BTreeSet::new(),
        };
        code.find_regions();
        code.find_paths();
        code
    }

    fn word(&self, index: usize) -> Option<&str> {
        match &self.tokens.get(index)?.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    fn is(&self, index: usize, kind: &Kind) -> bool {
        self.tokens.get(index).is_some_and(|token| token.kind == *kind)
    }

    fn is_mark(&self, index: usize, mark: char) -> bool {
        self.is(index, &Kind::Mark(mark))
    }

    /// Fills in what is below `#[cfg(test)]` and inside which inline module.
    fn find_regions(&mut self) {
        struct Scope {
            in_test: bool,
            module: Option<String>,
        }
        let mut scopes: Vec<Scope> = Vec::new();
        // Set from `#[cfg(test)]` to the end of what it applies to, with the nesting of brackets at
        // that place and whether it is an item, which goes on behind commas.
        let mut pending: Option<(usize, bool)> = None;
        let mut brackets = 0;
        for index in 0..self.tokens.len() {
            let in_test = pending.is_some() || scopes.iter().any(|scope| scope.in_test);
            self.tokens[index].in_test = in_test;
            self.tokens[index].inside =
                scopes.iter().filter_map(|scope| scope.module.clone()).collect();

            match self.tokens[index].kind.clone() {
                Kind::Mark('#') => {
                    let attribute = ["[", "cfg", "(", "test", ")", "]"];
                    if (index + 1..).zip(attribute).all(|(at, expected)| self.spells(at, expected))
                    {
                        pending = Some((brackets, false));
                    }
                }
                Kind::Mark('(' | '[') => brackets += 1,
                Kind::Mark(')' | ']') => brackets -= 1,
                Kind::Mark('{') => {
                    let module = match self.word(index.wrapping_sub(2)) {
                        Some("mod") => self.word(index - 1).map(str::to_owned),
                        _ => None,
                    };
                    // Braces within `use` belong to the item.
                    let ends_pending = !self.is(index.wrapping_sub(1), &Kind::PathSeparator)
                        && self.word(index.wrapping_sub(1)) != Some("use");
                    let in_test = pending.is_some();
                    if ends_pending {
                        pending = None;
                    }
                    scopes.push(Scope { in_test, module });
                }
                Kind::Mark('}') => {
                    scopes.pop();
                    if pending.is_some_and(|(_, is_item)| !is_item) {
                        pending = None;
                    }
                }
                Kind::Mark(';') if pending.is_some_and(|(depth, _)| depth == brackets) => {
                    pending = None;
                }
                Kind::Mark(',') if pending == Some((brackets, false)) => pending = None,
                Kind::Word(word) if has_word(ITEMS, &word) => {
                    if let Some((_, is_item)) = &mut pending {
                        *is_item = true;
                    }
                }
                _ => {}
            }
        }
    }

    fn spells(&self, index: usize, text: &str) -> bool {
        match self.tokens.get(index).map(|token| &token.kind) {
            Some(Kind::Mark(mark)) => text.chars().eq([*mark]),
            Some(Kind::Word(word)) => word == text,
            _ => false,
        }
    }

    fn find_paths(&mut self) {
        let mut index = 0;
        while index < self.tokens.len() {
            match self.word(index) {
                Some("use") if !self.is_mark(index + 1, '<') => {
                    index = self.use_tree(index + 1, &[], false);
                    continue;
                }
                Some("extern") if self.word(index + 1) == Some("crate") => {
                    self.add_path(index, vec!["extern crate".into()], true, false);
                }
                Some("mod") => {
                    if let Some(name) = self.word(index + 1).map(str::to_owned) {
                        self.modules.insert(name);
                    }
                }
                Some(word) if self.is(index + 1, &Kind::PathSeparator) => {
                    let is_global = self.is_global(index);
                    let is_continued = index > 0 && self.is(index - 1, &Kind::PathSeparator);
                    if is_global || !is_continued {
                        let mut segments = vec![word.to_owned()];
                        let mut at = index + 1;
                        while self.is(at, &Kind::PathSeparator)
                            && let Some(word) = self.word(at + 1)
                        {
                            segments.push(word.to_owned());
                            at += 2;
                        }
                        // `parse::<u8>` is a function, not a path.
                        if segments.len() > 1 || is_global {
                            self.add_path(index, segments, is_global, false);
                        }
                    }
                }
                Some(word) if self.is_global(index) => {
                    self.add_path(index, vec![word.to_owned()], true, false);
                }
                _ => {}
            }
            index += 1;
        }
    }

    /// Whether the word at `index` follows a `::` that follows nothing a path could go on from.
    fn is_global(&self, index: usize) -> bool {
        if index == 0 || !self.is(index - 1, &Kind::PathSeparator) {
            return false;
        }
        match index.checked_sub(2).map(|before| &self.tokens[before].kind) {
            Some(Kind::Word(word)) => has_word(KEYWORDS, word),
            Some(Kind::Mark(mark)) => *mark != '>',
            _ => true,
        }
    }

    /// Reads a `use` tree from `index` on and returns where it ends.
    fn use_tree(&mut self, mut index: usize, prefix: &[String], is_global: bool) -> usize {
        let mut segments = prefix.to_vec();
        let mut is_global = is_global;
        loop {
            match self.tokens.get(index).map(|token| token.kind.clone()) {
                Some(Kind::PathSeparator) => {
                    is_global |= segments.is_empty();
                    index += 1;
                }
                Some(Kind::Mark('{')) => {
                    index += 1;
                    while index < self.tokens.len() && !self.is_mark(index, '}') {
                        index = self.use_tree(index, &segments, is_global);
                        if self.is_mark(index, ',') {
                            index += 1;
                        }
                    }
                    return index + 1;
                }
                Some(Kind::Mark('*')) => {
                    segments.push("*".into());
                    index += 1;
                }
                Some(Kind::Word(word)) if word == "as" => {
                    self.names.extend(self.word(index + 1).map(str::to_owned));
                    self.add_path(index, segments, is_global, true);
                    return index + 2;
                }
                Some(Kind::Word(word)) => {
                    segments.push(word);
                    index += 1;
                }
                // Also the end of a file that does not compile.
                _ => {
                    let named = segments.iter().rev().find(|segment| *segment != "self").cloned();
                    self.names.extend(named);
                    self.add_path(index.saturating_sub(1), segments, is_global, true);
                    return index;
                }
            }
        }
    }

    fn add_path(&mut self, index: usize, segments: Vec<String>, is_global: bool, in_use: bool) {
        if segments.is_empty() {
            return;
        }
        let token = &self.tokens[index];
        self.paths.push(CodePath {
            segments,
            is_global,
            in_use,
            line: token.line,
            in_test: token.in_test,
            inside: token.inside.clone(),
        });
    }

    /// The lines that read the clock, in tests or outside of them.
    fn clock_readings(&self, in_test: bool) -> impl Iterator<Item = usize> {
        self.tokens.iter().enumerate().filter_map(move |(index, token)| {
            let is_now = matches!(self.word(index), Some("Instant" | "SystemTime"))
                && self.is(index + 1, &Kind::PathSeparator)
                && self.word(index + 2) == Some("now");
            let is_elapsed = matches!(token.kind, Kind::Mark('.') | Kind::PathSeparator)
                && self.word(index + 1) == Some("elapsed")
                && self.is_mark(index + 2, '(');
            let is_clock = is_now || is_elapsed;
            (is_clock && token.in_test == in_test).then_some(token.line)
        })
    }
}

/// The words and marks of Rust code. Comments, literals and lifetimes leave nothing.
fn lex(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut index = 0;
    let mut line = 1;
    let mut counted = 0;
    while index < chars.len() {
        line += chars[counted..index].iter().filter(|c| **c == '\n').count();
        counted = index;
        let mut push = |kind| {
            tokens.push(Token { kind, line, in_test: false, inside: Vec::new() });
        };
        match at(index) {
            '/' if at(index + 1) == '/' => {
                while index < chars.len() && at(index) != '\n' {
                    index += 1;
                }
            }
            '/' if at(index + 1) == '*' => {
                let mut depth = 1;
                index += 2;
                while index < chars.len() && depth > 0 {
                    match (at(index), at(index + 1)) {
                        ('/', '*') => (depth, index) = (depth + 1, index + 2),
                        ('*', '/') => (depth, index) = (depth - 1, index + 2),
                        _ => index += 1,
                    }
                }
            }
            '"' => index = behind_quoted(&chars, index, '"'),
            // A character, else a lifetime.
            '\'' if at(index + 1) == '\\' || at(index + 2) == '\'' => {
                index = behind_quoted(&chars, index, '\'');
            }
            '\'' => {
                index += 1;
                while at(index).is_alphanumeric() || at(index) == '_' {
                    index += 1;
                }
            }
            ':' if at(index + 1) == ':' => {
                push(Kind::PathSeparator);
                index += 2;
            }
            c if c.is_ascii_digit() => {
                while at(index).is_alphanumeric()
                    || at(index) == '_'
                    || at(index) == '.' && at(index + 1).is_ascii_digit()
                {
                    index += 1;
                }
            }
            c if c.is_alphanumeric() || c == '_' => {
                let start = index;
                while at(index).is_alphanumeric() || at(index) == '_' {
                    index += 1;
                }
                let word: String = chars[start..index].iter().collect();
                let hashes = chars[index..].iter().take_while(|c| **c == '#').count();
                match word.as_str() {
                    "b" | "c" if at(index) == '"' => index = behind_quoted(&chars, index, '"'),
                    "b" if at(index) == '\'' => index = behind_quoted(&chars, index, '\''),
                    "r" | "br" | "cr" if at(index + hashes) == '"' => {
                        index = behind_raw(&chars, index + hashes + 1, hashes);
                    }
                    // A raw identifier: the name follows.
                    "r" if hashes == 1 => index += 1,
                    _ => push(Kind::Word(word)),
                }
            }
            c => {
                if !c.is_whitespace() {
                    push(Kind::Mark(c));
                }
                index += 1;
            }
        }
    }
    tokens
}

/// The place behind a literal in quotes that begins at `start`.
fn behind_quoted(chars: &[char], start: usize, quote: char) -> usize {
    let mut index = start + 1;
    while index < chars.len() && chars[index] != quote {
        index += if chars[index] == '\\' { 2 } else { 1 };
    }
    index + 1
}

/// The place behind a raw string with so many hashes, whose content begins at `start`.
fn behind_raw(chars: &[char], start: usize, hashes: usize) -> usize {
    let mut index = start;
    while index < chars.len() {
        let closing = chars[index..].iter().skip(1).take_while(|c| **c == '#').take(hashes).count();
        if chars[index] == '"' && closing == hashes {
            return index + 1 + hashes;
        }
        index += 1;
    }
    index
}

fn has_word(words: &str, word: &str) -> bool {
    words.split(' ').any(|known| known == word)
}

/// The path of the module a file holds.
fn own_module(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    match path {
        "lib" | "main" => Vec::new(),
        _ => path.split('/').map(str::to_owned).collect(),
    }
}

/// The `.rs` files below `dir`, as paths from there.
fn files(dir: &Path, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("src is readable") {
        let entry = entry.expect("src is readable");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().expect("a file has a type").is_dir() {
            found.extend(files(&entry.path(), &format!("{name}/")));
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            found.push(name);
        }
    }
    found
}

/// The crates in a section of `Cargo.toml`, as code spells them.
fn dependencies(section: &str) -> BTreeSet<String> {
    include_str!("../Cargo.toml")
        .lines()
        .skip_while(|line| *line != format!("[{section}]"))
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")))
        .collect()
}

const ITEMS: &str = "const enum extern fn impl macro_rules mod static struct trait type use";

const KEYWORDS: &str = "as break const dyn else for if impl in let match move mut pub ref return static use where \
    while";

const PRIMITIVES: &str =
    "bool char f32 f64 i8 i16 i32 i64 i128 isize str u8 u16 u32 u64 u128 usize";

const TOOLS: &str = "clippy rustdoc rustfmt";
