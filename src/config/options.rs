//! What was given on the command line and in a file, and the [`Config`] that it comes to. Every default is here, with
//! its reason; those that depend on `--size` are in `sizes`.

use std::fmt::Display;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;

use super::address::{address, overlap, reaches, with_interface_indexes};
use super::presets::{CLOUDFLARE, Preset, v4};
use super::served::Served;
use super::sizes::{self, Size};
use super::suggest::{self, shown, words};
use super::upstream::{UpstreamSpec, upstreams};
use super::user::user;
use super::zone::{PRIVATE_ZONE_EXAMPLE, ZONE_EXAMPLE, zone};
use super::{Config, Host, UsageError};
use crate::forwarder::{AccessDenial, ClientShown, Ecs, Hedge, Limits, Order, Policy};
use crate::forwarder::{PrivateAnswers, QueryLogForm, QueryLogStyle, SpecialNames};
use crate::host::log_format::LogFormat;
use crate::host::network::source::Source;
use crate::host::rights::Ids;
use crate::host::sandbox::Sandbox;
use crate::tls::{Files, KeyExchange};

/// What was given, and the defaults of what was not.
pub(super) struct Options {
    host: Host,
    pub(super) file: Option<PathBuf>,
    /// None: [`LISTEN_DEFAULT`].
    pub(super) listen: Vec<SocketAddr>,
    pub(super) reuse_port: bool,
    pub(super) freebind: bool,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) drain: Duration,
    pub(super) served: Served,
    /// None: those of [`UPSTREAM_DEFAULT`].
    pub(super) upstreams: Vec<UpstreamSpec>,
    /// How many of them, the first ones, are those of the file.
    pub(super) upstreams_of_file: usize,
    pub(super) upstream_source: Source,
    pub(super) order: Order,
    /// None: what suits the order.
    pub(super) hedge: Option<Hedge>,
    pub(super) retry_servfail: bool,
    pub(super) ecs: Ecs,
    pub(super) special_names: Special,
    pub(super) forward_zones: Vec<Box<[u8]>>,
    pub(super) private_answers: Private,
    pub(super) private_zones: Vec<Box<[u8]>>,
    pub(super) ca_files: Vec<PathBuf>,
    /// None: if no file is given.
    pub(super) builtin_roots: Option<bool>,
    pub(super) client_cert: Option<PathBuf>,
    pub(super) client_key: Option<PathBuf>,
    pub(super) key_exchange: KeyExchange,
    /// None: nobody, if started as root.
    pub(super) user: Option<Ids>,
    pub(super) sandbox: Sandbox,
    pub(super) query_log: QueryLog,
    pub(super) query_log_client: ClientShown,
    pub(super) log_level: LevelFilter,
    /// None: what suits whoever reads stderr.
    pub(super) log_format: Option<LogFormat>,
    pub(super) upstream_idle_timeout: Duration,
    pub(super) client_idle_timeout: Duration,
    pub(super) udp_size_max: Option<u16>,
    /// None: by size, as those below.
    pub(super) late_datagrams_max: Option<usize>,
    pub(super) size: Size,
    pub(super) clients_max: Option<usize>,
    pub(super) clients_per_address_max: Option<usize>,
}

impl Options {
    /// Nothing was given yet.
    pub(super) fn new(host: Host) -> Self {
        Self {
            host,
            file: None,
            listen: Vec::new(),
            // A second process is a mistake more often than not, and an error then.
            reuse_port: false,
            // An address that the host does not have is a mistake more often than not, too.
            freebind: false,
            // Counts say what clients do, if not who: nobody gets them unasked.
            metrics: None,
            drain: Duration::ZERO,
            served: Served::new(host),
            upstreams: Vec::new(),
            upstreams_of_file: 0,
            upstream_source: Source::default(),
            // One operator sees all names, and no other sees any of them while it works.
            order: Order::Ordered,
            hedge: None,
            // A failure of one operator is nobody's answer while another may have one.
            retry_servfail: true,
            // A part of the client's address is nobody's business (RFC 7871 section 2).
            ecs: Ecs::Strip,
            // RFC 6761 and RFC 6303: the public DNS is not to be asked for them.
            special_names: Special::Local,
            forward_zones: Vec::new(),
            // Names of one's own network may be in the public DNS.
            private_answers: Private::Pass,
            private_zones: Vec::new(),
            ca_files: Vec::new(),
            builtin_roots: None,
            client_cert: None,
            client_key: None,
            // What is asked today may be recorded, and read when X25519 falls.
            key_exchange: KeyExchange::Hybrid,
            user: None,
            // Whoever finds a fault to run code through is to find nothing else.
            sandbox: Sandbox::On,
            // A person at a terminal wants to see queries; a kept log shows its readers what was asked.
            query_log: QueryLog::Auto,
            // Whoever reads who asked what is to know whose mistake it is; others have it cut.
            query_log_client: ClientShown::Full,
            // Changes of state are for whoever runs the program; everything finer is for who looks for
            // a fault.
            log_level: LevelFilter::Info,
            log_format: None,
            upstream_idle_timeout: UPSTREAM_IDLE_TIMEOUT,
            client_idle_timeout: CLIENT_IDLE_TIMEOUT,
            udp_size_max: None,
            late_datagrams_max: None,
            size: Size::Default,
            clients_max: None,
            clients_per_address_max: None,
        }
    }

    pub(super) fn add_listener(&mut self, value: &str) -> Result<(), String> {
        let value = with_interface_indexes(value, self.host.interface_index);
        let address = address(&value, LISTEN_PORT).map_err(|problem| {
            suggest::listener(&value).unwrap_or_else(|| {
                format!("{problem}; write ADDR[:PORT], such as {LISTEN_DEFAULT} or [::1]:5300")
            })
        })?;
        let kind = match address.ip() {
            ip if ip.is_multicast() => Some("a multicast"),
            ip if ip == Ipv4Addr::BROADCAST => Some("the broadcast"),
            _ => None,
        };
        if let Some(kind) = kind {
            return Err(format!("is {kind} address; write an address of this machine"));
        }
        // Two listeners of port 0 get a port each.
        if address.port() != 0 {
            // A user who adds flags to an image's own need not know what those are.
            // Nor need who has systemd bind an address know whether the unit has that flag.
            if self.listen.contains(&address) || self.host.inherited.contains(&address) {
                return Ok(());
            }
            if let Some(other) = self.host.inherited.iter().find(|it| overlap(**it, address)) {
                return Err(format!(
                    "overlaps with {other}, a socket that was handed over (LISTEN_FDS); give only one of them"
                ));
            }
            if let Some(other) = self.listen.iter().find(|other| overlap(**other, address)) {
                return Err(if address.ip().is_unspecified() {
                    format!("overlaps with --listen {other}; give only one of them")
                } else {
                    format!("is served by --listen {other} already; give only one of them")
                });
            }
        }
        if self.host.inherited.len() + self.listen.len() == LISTENERS_MAX {
            return Err(format!(
                "is one listener too many; give at most {LISTENERS_MAX}, or 0.0.0.0 or [::] for all \
                 addresses"
            ));
        }
        self.listen.push(address);
        Ok(())
    }

    pub(super) fn set_metrics(&mut self, value: &str) -> Result<(), String> {
        const NONE: u16 = 0;

        let value = with_interface_indexes(value, self.host.interface_index);
        let example = "write ADDR:PORT, such as 127.0.0.1:9153";
        let address = address(&value, NONE).map_err(|problem| format!("{problem}; {example}"))?;
        // Port 0 may be meant, but not by leaving it out.
        if address.port() == NONE && !value.ends_with(":0") {
            return Err(format!("has no port; {example}"));
        }
        if address.ip().is_multicast() {
            return Err("is a multicast address; write an address of this machine".into());
        }
        self.metrics = Some(address);
        Ok(())
    }

    pub(super) fn add_upstreams(&mut self, value: &str) -> Result<(), String> {
        let read = upstreams(&with_interface_indexes(value, self.host.interface_index));
        let read = read.map_err(|problem| {
            let name = value.split(':').next().unwrap_or_default();
            match (self.host.user)(name) {
                // The short form of --user elsewhere.
                Some(_) => format!(
                    "is a user of this host, and this flag is for upstreams; write --user {}",
                    shown(value)
                ),
                None => problem,
            }
        });
        for upstream in read? {
            // The log could not tell them apart.
            let shown = upstream.to_string();
            if self.upstreams[..self.upstreams_of_file].contains(&upstream) {
                continue;
            }
            if let Some(other) = self.upstreams.iter().find(|other| other.to_string() == shown) {
                let with = if other.pins == upstream.pins { "" } else { ", with all its pins" };
                return Err(format!("{shown} is given twice; give each upstream once{with}"));
            }
            let most = Size::Large.of(sizes::UPSTREAMS_MAX);
            if self.upstreams.len() == most {
                return Err(format!("is one upstream too many; give at most {most}"));
            }
            self.upstreams.push(upstream);
        }
        Ok(())
    }

    pub(super) fn add_upstream_source(&mut self, value: &str) -> Result<(), String> {
        let example =
            "write an address of this host, such as 192.168.1.2, or an interface, such as eth1";
        let Source { v4, v6, interface } = &mut self.upstream_source;
        let bare = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match bare.unwrap_or(value).parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST => {
                Err(format!("is no address of one host; {example}"))
            }
            Ok(IpAddr::V4(ip)) => set_once(v4, ip, "an IPv4 address"),
            Ok(IpAddr::V6(ip)) if ip.is_unicast_link_local() => {
                Err("is a link-local address; write the interface".into())
            }
            Ok(IpAddr::V6(ip)) => set_once(v6, ip, "an IPv6 address"),
            // Names that the kernel takes, but none that is likely a slip in an address.
            Err(_)
                if value.len() > INTERFACE_LEN_MAX
                    || value.contains(|c: char| c.is_whitespace() || "/:%#".contains(c))
                    || value.starts_with(|c: char| c.is_ascii_digit()) && value.contains('.') =>
            {
                Err(format!("is neither an address nor an interface; {example}"))
            }
            Err(_) => set_once(interface, value.into(), "an interface"),
        }
    }

    /// What of `--upstream-source` may be meant otherwise.
    fn source_warnings(&self) -> Vec<String> {
        let Source { v4, v6, interface } = &self.upstream_source;
        let mut warnings = Vec::new();
        if let Some(interface) = interface
            && (self.host.interface_index)(interface).is_none()
        {
            warnings.push(format!(
                "--upstream-source {interface}: there is no such interface now; upstreams are connected to once there is"
            ));
        }
        let has = |is_v4: bool| self.upstreams.iter().any(|it| it.address.is_ipv4() == is_v4);
        for (given, other, is_v4, name) in [
            (v4.map(IpAddr::from), v6.is_some(), false, "IPv6"),
            (v6.map(IpAddr::from), v4.is_some(), true, "IPv4"),
        ] {
            if let Some(given) = given.filter(|_| !other && interface.is_none() && has(is_v4)) {
                warnings.push(format!(
                    "--upstream-source {given}: upstreams with {name} are connected to from any address; give one for \
                     {name}, or the interface, too"
                ));
            }
        }
        warnings
    }

    pub(super) fn add_ca_file(&mut self, value: &str) -> Result<(), String> {
        if self.ca_files.iter().any(|file| *file == *value) {
            return Ok(());
        }
        if self.ca_files.len() == CA_FILES_MAX {
            return Err(format!(
                "is one file too many; give at most {CA_FILES_MAX}, as `cat` puts several into one"
            ));
        }
        self.ca_files.push(value.into());
        Ok(())
    }

    pub(super) fn set_user(&mut self, value: &str) -> Result<(), String> {
        self.user = Some(user(value, self.host)?);
        Ok(())
    }

    pub(super) fn add_forward_zone(&mut self, value: &str) -> Result<(), String> {
        if let Some(problem) = suggest::zone("--forward-zone", value) {
            return Err(problem);
        }
        if let Some(right) = suggest::reverse_zone(value) {
            return Err(format!(
                "is an address; write the name of its reverse zone, such as {right}"
            ));
        }
        let zone = zone(value, ZONE_EXAMPLE, "--special-names forward")?;
        if !SpecialNames::has_special(&zone) {
            return Err(
                "has no special names in it, and all others are forwarded anyway; leave it out"
                    .into(),
            );
        }
        add_zone(&mut self.forward_zones, zone)
    }

    pub(super) fn add_private_zone(&mut self, value: &str) -> Result<(), String> {
        if let Some(problem) = suggest::zone("--private-zone", value) {
            return Err(problem);
        }
        if suggest::reverse_zone(value).is_some() {
            return Err(format!(
                "is an address; write the name that has it, or one above, such as {PRIVATE_ZONE_EXAMPLE}"
            ));
        }
        add_zone(
            &mut self.private_zones,
            zone(value, PRIVATE_ZONE_EXAMPLE, "--private-answers pass")?,
        )
    }

    fn private_answers(&mut self) -> PrivateAnswers {
        let loopback = match self.private_answers {
            Private::Pass => return PrivateAnswers::Pass,
            Private::Strip => false,
            Private::StripLoopback => true,
        };
        // What is asked of an upstream as special has addresses of this network.
        let mut except = mem::take(&mut self.private_zones);
        except.append(&mut self.forward_zones);
        PrivateAnswers::Strip {
            loopback,
            except,
            except_special: self.special_names == Special::Forward,
        }
    }

    /// Everything that the program is told, or what does not go together.
    pub(super) fn into_config(mut self) -> Result<Config, UsageError> {
        let inherited = self.host.inherited;
        if inherited.len() > LISTENERS_MAX {
            return Err(UsageError(format!(
                "LISTEN_FDS: {} addresses were handed over; give at most {LISTENERS_MAX}, or 0.0.0.0 or [::] for \
                 all addresses",
                inherited.len()
            )));
        }
        if self.listen.is_empty() && inherited.is_empty() {
            self.listen.push(LISTEN_DEFAULT);
        }
        if self.upstreams.is_empty() {
            self.upstreams.extend(UPSTREAM_DEFAULT.upstreams());
        }
        self.check_upstreams()?;
        self.check_metrics()?;
        let limits = self.limits()?;
        let files = self.files()?;
        let mut listeners = inherited.iter().chain(&self.listen);
        let is_public = !listeners.all(|listener| listener.ip().is_loopback());
        let (access, rate, mut warnings) = self.served.resolve(self.size, is_public);
        let special_names = match self.special_names {
            Special::Forward => SpecialNames::Forward,
            Special::Local => SpecialNames::Local { forwarded: self.forward_zones.clone() },
        };
        warnings.extend(self.needless_private_zone(&special_names));
        warnings.extend(self.unreached_wait_limit());
        warnings.extend(self.source_warnings());
        let log_format = self.log_format();
        let private_answers = self.private_answers();
        // With one operator asked before the others, these are not to see a part of the names.
        let hedge = if self.order == Order::Ordered { Hedge::Same } else { Hedge::Any };
        Ok(Config {
            file: self.file,
            flags_of_file: 0,
            flags: "".into(),
            listen: self.listen,
            inherited,
            reuse_port: self.reuse_port,
            freebind: self.freebind,
            metrics: self.metrics,
            drain: self.drain,
            upstreams: self.upstreams,
            upstream_source: self.upstream_source,
            files,
            key_exchange: self.key_exchange,
            user: self.user,
            sandbox: self.sandbox,
            log_level: self.log_level,
            log_format,
            policy: Policy {
                order: self.order,
                hedge: self.hedge.unwrap_or(hedge),
                retry_servfail: self.retry_servfail,
                ecs: self.ecs,
                access,
                rate,
                special_names,
                private_answers,
            },
            warnings,
            size: self.size,
            limits,
            sockets: self.size.sockets(),
        })
    }

    fn log_format(&self) -> LogFormat {
        let suitable =
            if self.host.is_stderr_journal { LogFormat::Journald } else { LogFormat::Plain };
        self.log_format.unwrap_or(suitable)
    }

    fn files(&mut self) -> Result<Files, UsageError> {
        let roots = mem::take(&mut self.ca_files);
        let builtin_roots = self.builtin_roots.unwrap_or(roots.is_empty());
        if roots.is_empty() && !builtin_roots {
            return Err(UsageError(
                "--builtin-roots off: leaves no root to trust; give --ca-file FILE as well".into(),
            ));
        }
        let client = match (self.client_cert.take(), self.client_key.take()) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(file), None) => return Err(alone("--client-cert", &file, "--client-key")),
            (None, Some(file)) => return Err(alone("--client-key", &file, "--client-cert")),
        };
        Ok(Files { roots, builtin_roots, client })
    }

    fn needless_private_zone(&self, special_names: &SpecialNames) -> Option<String> {
        if self.private_answers == Private::Pass && !self.private_zones.is_empty() {
            return Some("--private-zone: changes nothing without --private-answers strip".into());
        }
        let zone = self.private_zones.iter().find_map(|zone| special_names.all_of(zone))?;
        Some(format!(
            "--private-zone {zone}: changes nothing, as its names are special and answered here; write \
             --forward-zone {zone} in its place"
        ))
    }

    fn unreached_wait_limit(&self) -> Option<String> {
        // A quarter of all places is not for datagrams.
        let queries = self.size.of(sizes::QUERIES_MAX) * 3 / 4;
        // Whoever wrote off knows that there is no limit.
        let limit =
            self.late_datagrams_max.filter(|limit| (queries..usize::MAX).contains(limit))?;
        Some(format!(
            "--wait-limit {limit}: is never reached, as --size {} has places for {queries} queries over UDP; write \
             less, such as {}, or off",
            self.size.word(),
            self.size.of(sizes::LATE_DATAGRAMS_MAX)
        ))
    }

    fn check_upstreams(&self) -> Result<(), UsageError> {
        let most = self.size.of(sizes::UPSTREAMS_MAX);
        if let Some(upstream) = self.upstreams.get(most) {
            return Err(UsageError(format!(
                "--upstream {upstream}: is one upstream too many for --size {}; give at most {most}, or \
                 another size",
                self.size.word()
            )));
        }
        // A query that came back to its sender would go round until its deadline.
        for upstream in &self.upstreams {
            let own = self.listen.iter().chain(self.host.inherited);
            let mut own = own.filter(|own| reaches(upstream.address, **own));
            if let Some(listener) = own.next() {
                return Err(UsageError(format!(
                    "--upstream {upstream}: is this program's own listener (--listen {listener}); \
                     give the address of another server"
                )));
            }
        }
        Ok(())
    }

    fn check_metrics(&self) -> Result<(), UsageError> {
        let Some(metrics) = self.metrics.filter(|metrics| metrics.port() != 0) else {
            return Ok(());
        };
        match self.listen.iter().find(|own| **own == metrics || overlap(**own, metrics)) {
            Some(listener) => Err(UsageError(format!(
                "--metrics {metrics}: is served by --listen {listener} already; give another port"
            ))),
            None => Ok(()),
        }
    }

    fn limits(&self) -> Result<Limits, UsageError> {
        let size = self.size;
        let clients_max = self.clients_max.unwrap_or(size.of(sizes::CLIENTS_MAX));
        let per_address = self.clients_per_address_max;
        if let Some(per_address) = per_address.filter(|per_address| *per_address > clients_max) {
            return Err(UsageError(format!(
                "--tcp-clients-per-address-max {per_address}: is more than all may have; raise \
                 --tcp-clients-max, which is {clients_max}, as well"
            )));
        }
        Ok(Limits {
            query_timeout: QUERY_TIMEOUT,
            upstream_idle_timeout: self.upstream_idle_timeout,
            client_idle_timeout: self.client_idle_timeout,
            queries_max: size.of(sizes::QUERIES_MAX),
            query_bytes_max: size.of(sizes::QUERY_BYTES_MAX),
            clients_max,
            clients_per_address_max: per_address.unwrap_or(size.of(sizes::CLIENTS_PER_ADDRESS_MAX)),
            client_queries_max: size.of(sizes::CLIENT_QUERIES_MAX),
            client_output_max: size.of(sizes::CLIENT_OUTPUT_MAX),
            client_bytes_max: size.of(sizes::CLIENT_BYTES_MAX),
            udp_size_max: self.udp_size_max,
            datagram_bytes_max: size.of(sizes::DATAGRAM_BYTES_MAX),
            datagrams_max: size.of(sizes::DATAGRAMS_MAX),
            late_datagrams_max: self
                .late_datagrams_max
                .unwrap_or(size.of(sizes::LATE_DATAGRAMS_MAX)),
            upstream_conns_max: size.upstream_conns_max(match self.file {
                // When it is read again there may be more.
                Some(_) => size.of(sizes::UPSTREAMS_MAX),
                None => self.upstreams.len(),
            }),
            upstream_output_max: size.of(sizes::UPSTREAM_OUTPUT_MAX),
            upstream_bytes_max: size.of(sizes::UPSTREAM_BYTES_MAX),
            output_kept: size.of(sizes::OUTPUT_KEPT),
            query_log_max: size.of(sizes::QUERY_LOG_MAX),
            query_log: self.query_log_style(),
        })
    }

    fn query_log_style(&self) -> Option<QueryLogStyle> {
        let Host { is_stderr_terminal, takes_colour, .. } = self.host;
        let form = match self.query_log {
            QueryLog::Off => return None,
            QueryLog::Auto if !is_stderr_terminal => return None,
            QueryLog::Json => QueryLogForm::Json,
            QueryLog::Auto | QueryLog::On
                if is_stderr_terminal && takes_colour && self.log_format() == LogFormat::Plain =>
            {
                QueryLogForm::Columns
            }
            QueryLog::Auto | QueryLog::On => QueryLogForm::Words,
        };
        Some(QueryLogStyle { form, client: self.query_log_client })
    }
}

/// A flag that means nothing without another.
fn alone(flag: &str, file: &Path, other: &str) -> UsageError {
    UsageError(format!("{flag} {}: needs {other} FILE as well", shown(&file.to_string_lossy())))
}

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

/// Takes what can be there once; `what` it is.
fn set_once<T: PartialEq + Display>(
    place: &mut Option<T>,
    value: T,
    what: &str,
) -> Result<(), String> {
    match place {
        Some(other) if *other != value => {
            Err(format!("is one too many, as {other} is {what}, too; give one of them"))
        }
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

fn add_zone(zones: &mut Vec<Box<[u8]>>, zone: Box<[u8]>) -> Result<(), String> {
    // A user who adds flags to an image's own need not know what those are.
    if zones.contains(&zone) {
        return Ok(());
    }
    if zones.len() == ZONES_MAX {
        return Err(format!("is one zone too many; give at most {ZONES_MAX}, or one above them"));
    }
    zones.push(zone);
    Ok(())
}

pub(super) fn seconds(value: &str) -> Result<Duration, String> {
    whole_number(value, &IDLE_SECONDS, " seconds").map(Duration::from_secs)
}

pub(super) fn drain(value: &str) -> Result<Duration, String> {
    whole_number(value, &DRAIN_SECONDS, " seconds").map(Duration::from_secs)
}

pub(super) fn clients(value: &str) -> Result<usize, String> {
    whole_number(value, &TCP_CLIENTS, "")
}

pub(super) fn wait_limit(value: &str) -> Result<usize, String> {
    if value.eq_ignore_ascii_case("off") {
        return Ok(usize::MAX);
    }
    let most = *sizes::QUERIES_MAX.last().unwrap_or(&0);
    whole_number(value, &(1..=most), "").map_err(|problem| format!("{problem}, or off"))
}

pub(super) fn udp_size(value: &str) -> Result<u16, String> {
    whole_number(value, &UDP_SIZES, "")
}

/// `unit` follows a number.
pub(super) fn whole_number<T>(
    value: &str,
    range: &RangeInclusive<T>,
    unit: &str,
) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let (min, max) = (range.start(), range.end());
    let of = if unit.is_empty() { "" } else { " of" };
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        // What no integer holds is a number all the same.
        _ if value.bytes().all(|octet| octet.is_ascii_digit()) => {
            Err(format!("is out of range: {min} to {max}{unit}"))
        }
        _ => Err(format!("is not a number{of}{unit}; write a whole number from {min} to {max}")),
    }
}

/// Loopback only (RFC 5625 section 6.2), on a port that needs no rights and that neither DNS (53)
/// nor multicast DNS (5353) holds.
pub(super) const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(v4(127, 0, 0, 1), 5300);

/// The port of a listener that is written without one: that of DNS.
pub(super) const LISTEN_PORT: u16 = 53;

/// A socket pair each, watched all the time; the wildcard addresses serve any number of addresses.
pub(super) const LISTENERS_MAX: usize = 32;

/// Lines name each of them where a certificate leads to none.
pub(super) const CA_FILES_MAX: usize = 16;

/// `IFNAMSIZ` without the zero at the end.
const INTERFACE_LEN_MAX: usize = 15;

/// Each is compared with every special name that is asked for, or every name that has a private address. Where
/// they are many, one above them does: `100.in-addr.arpa` stands for the 64 zones of the shared addresses.
pub(super) const ZONES_MAX: usize = 64;

/// The program must work with nothing configured, so one has to be it.
pub(super) const UPSTREAM_DEFAULT: Preset = CLOUDFLARE;

/// Stub resolvers give up after 5 s (glibc's default); the SERVFAIL that says why must be there
/// before.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_millis(4_500);

/// Bridges the pauses of one person at work. Longer would mostly hold dead sockets: public resolvers
/// close idle connections within seconds (RFC 7766 section 6.2.3).
const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// RFC 9210 section 4.2 suggests 10 s; idle connections hold the places of busy ones.
const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Below 1 s a connection would hardly outlive a round trip; connections to upstreams are replaced
/// after about an hour anyway.
pub(super) const IDLE_SECONDS: RangeInclusive<u64> = 1..=3600;

/// Load balancers notice within seconds; longer than an hour, nobody means.
pub(super) const DRAIN_SECONDS: RangeInclusive<u64> = 0..=3600;

/// What every client takes (RFC 1035 section 4.2.1), and what RFC 5625 section 4.4.3 asks for.
pub(super) const UDP_SIZES: RangeInclusive<u16> = 512..=4096;

/// DNS over TCP is not optional (RFC 7766 section 5), so the least is 1. Ten thousand connections may keep
/// 180 MB of buffers, and every close looks through those of its address.
pub(super) const TCP_CLIENTS: RangeInclusive<usize> = 1..=10_000;
