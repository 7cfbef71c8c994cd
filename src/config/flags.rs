//! The flags that there are.

use std::net::IpAddr;

use super::upstream::UPSTREAM_EXAMPLE;
use super::words::shown;
use super::{UsageError, suggest};

/// A flag that takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    CaFile,
    ClientIdleTimeout,
    Ecs,
    ForwardZone,
    Hedge,
    Listen,
    LogLevel,
    QueryLog,
    RetryServfail,
    ReusePort,
    Size,
    SpecialNames,
    UdpSizeMax,
    TcpClientsMax,
    TcpClientsPerAddressMax,
    Upstream,
    UpstreamIdleTimeout,
    UpstreamPolicy,
}

impl Flag {
    /// The flag of an argument, `--flag` or `--flag=value`, and which of its spellings was used. If there
    /// is none, `value` is what follows, and `listen` the listener before it: what was meant may be
    /// said with them.
    pub(super) fn of(
        arg: &str,
        value: Option<&str>,
        listen: Option<IpAddr>,
    ) -> Result<(Self, &'static str), UsageError> {
        if !arg.starts_with('-') || arg == "-" || arg == "--" {
            return Err(UsageError(format!(
                "{}: stray argument; every value follows its flag, such as {}",
                if arg.is_empty() { "''".into() } else { shown(arg) },
                suggest::stray(arg, UPSTREAM_EXAMPLE)
            )));
        }
        let name = arg.split_once('=').map_or(arg, |(name, _)| name);
        if let Some(found) = SPELLINGS.into_iter().find(|(spelling, _)| *spelling == name) {
            return Ok((found.1, found.0));
        }
        if HELP.contains(&name) || VERSION.contains(&name) || name == PRINT_LIMITS {
            return Err(UsageError(format!("{name}: takes no value; write {name} alone")));
        }

        let alone = HELP.into_iter().chain(VERSION).chain([PRINT_LIMITS]);
        let known = SPELLINGS.into_iter().map(|(spelling, _)| spelling).chain(alone);
        let remedy = suggest::flag(arg, value, listen, known)
            .unwrap_or_else(|| "--help lists the flags".into());
        Err(UsageError(format!("{}: unknown flag; {remedy}", shown(name))))
    }

    /// What its value is, in words.
    pub(super) fn value(self) -> &'static str {
        match self {
            Self::CaFile => "a file of PEM certificates",
            Self::ClientIdleTimeout | Self::UpstreamIdleTimeout => "a whole number of seconds",
            Self::Ecs => "strip or pass",
            Self::ForwardZone => "a name, such as 10.in-addr.arpa",
            Self::Hedge => "off, same or any",
            Self::Listen => "ADDR[:PORT], such as 127.0.0.1:5300",
            Self::LogLevel => "error, warn, info, debug or trace",
            Self::QueryLog => "on, off or auto",
            Self::RetryServfail | Self::ReusePort => "on or off",
            Self::Size => "small, default or large",
            Self::SpecialNames => "local or forward",
            Self::TcpClientsMax | Self::TcpClientsPerAddressMax | Self::UdpSizeMax => {
                "a whole number"
            }
            Self::Upstream => "IP[:PORT]#NAME, such as 1.1.1.1#cloudflare-dns.com, or a preset",
            Self::UpstreamPolicy => "ordered, fastest or spread",
        }
    }
}

pub(super) const HELP: [&str; 2] = ["-h", "--help"];
pub(super) const VERSION: [&str; 2] = ["-V", "--version"];
pub(super) const PRINT_LIMITS: &str = "--print-limits";

/// Every way to write a flag that takes a value.
pub(super) const SPELLINGS: [(&str, Flag); 20] = [
    ("-l", Flag::Listen),
    ("--listen", Flag::Listen),
    ("--reuse-port", Flag::ReusePort),
    ("-u", Flag::Upstream),
    ("--upstream", Flag::Upstream),
    ("--upstream-policy", Flag::UpstreamPolicy),
    ("--hedge", Flag::Hedge),
    ("--retry-servfail", Flag::RetryServfail),
    ("--ecs", Flag::Ecs),
    ("--special-names", Flag::SpecialNames),
    ("--forward-zone", Flag::ForwardZone),
    ("--ca-file", Flag::CaFile),
    ("--query-log", Flag::QueryLog),
    ("--log-level", Flag::LogLevel),
    ("--upstream-idle-timeout", Flag::UpstreamIdleTimeout),
    ("--client-idle-timeout", Flag::ClientIdleTimeout),
    ("--size", Flag::Size),
    ("--udp-size-max", Flag::UdpSizeMax),
    ("--tcp-clients-max", Flag::TcpClientsMax),
    ("--tcp-clients-per-address-max", Flag::TcpClientsPerAddressMax),
];
