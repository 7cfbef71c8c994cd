//! Values that are one of a few words.

use log::LevelFilter;

use super::sizes::Size;
use super::suggest::words;
use crate::forwarder::{AccessDenial, ClientShown, Ecs, Hedge, Order};
use crate::host::log_format::LogFormat;
use crate::host::sandbox::Sandbox;
use crate::tls::KeyExchange;

/// A value that is one of a few words.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// What there is to choose from, as it is written.
    const WORDS: &'static [(&'static str, Self)];

    fn read(text: &str) -> Result<Self, String> {
        match Self::WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            Some((_, choice)) => Ok(*choice),
            None => Err(not_known(&Self::words())),
        }
    }

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, choice)| *choice == self).map_or("", |(word, _)| word)
    }

    fn words() -> Vec<&'static str> {
        Self::WORDS.iter().map(|(word, _)| *word).collect()
    }
}

/// What there is instead: once in the program, rather than for each type of choice.
#[cold]
fn not_known(known: &[&str]) -> String {
    format!("is not known; write {}", words(known.iter().copied()))
}

/// Whether a line is written for every query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueryLog {
    /// If stderr is a terminal.
    Auto,
    Off,
    On,
    /// As objects.
    Json,
}

/// What becomes of special names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Forward,
    /// Special names are answered here, but for those in the zones that are forwarded.
    Local,
}

/// What becomes of answers with private addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Private {
    Pass,
    Strip,
    /// Loopback addresses count as private, too.
    StripLoopback,
}

impl Choice for bool {
    const WORDS: &'static [(&'static str, Self)] = &[("on", true), ("off", false)];
}

impl Choice for AccessDenial {
    const WORDS: &'static [(&'static str, Self)] =
        &[("drop", Self::Drop), ("refused", Self::Refused)];
}

impl Choice for ClientShown {
    const WORDS: &'static [(&'static str, Self)] =
        &[("full", Self::Full), ("prefix", Self::Prefix), ("off", Self::Off)];
}

impl Choice for Ecs {
    const WORDS: &'static [(&'static str, Self)] = &[("strip", Self::Strip), ("pass", Self::Pass)];
}

impl Choice for Hedge {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("same", Self::Same), ("any", Self::Any)];
}

impl Choice for KeyExchange {
    const WORDS: &'static [(&'static str, Self)] =
        &[("hybrid", Self::Hybrid), ("classic", Self::Classic)];
}

impl Choice for LevelFilter {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] =
        &[("plain", Self::Plain), ("json", Self::Json), ("journald", Self::Journald)];
}

impl Choice for Order {
    const WORDS: &'static [(&'static str, Self)] =
        &[("ordered", Self::Ordered), ("fastest", Self::Fastest), ("spread", Self::Spread)];
}

impl Choice for QueryLog {
    const WORDS: &'static [(&'static str, Self)] =
        &[("on", Self::On), ("off", Self::Off), ("auto", Self::Auto), ("json", Self::Json)];
}

impl Choice for Sandbox {
    const WORDS: &'static [(&'static str, Self)] =
        &[("on", Self::On), ("off", Self::Off), ("require", Self::Require)];
}

impl Choice for Size {
    const WORDS: &'static [(&'static str, Self)] =
        &[("small", Self::Small), ("default", Self::Default), ("large", Self::Large)];
}

impl Choice for Private {
    const WORDS: &'static [(&'static str, Self)] =
        &[("pass", Self::Pass), ("strip", Self::Strip), ("strip-loopback", Self::StripLoopback)];
}

impl Choice for Special {
    const WORDS: &'static [(&'static str, Self)] =
        &[("local", Self::Local), ("forward", Self::Forward)];
}
