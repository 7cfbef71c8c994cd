//! The command line, turned into a checked [`Config`].
//!
//! Every default and every limit is a constant here, with its reason.

mod address;
mod flags;
mod sizes;
mod suggest;
mod upstream;
mod words;
mod zone;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;
use pico_args::Arguments;

use crate::forwarder::{Ecs, Hedge, Limits, Order, Policy, SpecialNames};
use address::{address, overlap, reaches};
use flags::{Flag, HELP, PRINT_LIMITS, VERSION};
pub use sizes::{QUERIES_MAX, Size, SocketLimits};
use sizes::{SIZES, UPSTREAMS_MAX};
use upstream::{CLOUDFLARE, PRESETS, Preset, preset_names, upstreams, v4};
pub use upstream::{UPSTREAM_PORT, Upstream};
use words::{shown, words};
use zone::{ZONE_EXAMPLE, zone};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Print [`usage`].
    Help,
    /// Print how much memory that takes at most.
    PrintLimits(Box<Config>),
    /// Forward queries.
    Run(Box<Config>),
    /// Print the version.
    Version,
}

/// Everything the program is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients are served, UDP and TCP each; at least one. Port 0: any one port for both.
    pub listen: Vec<SocketAddr>,
    /// Whether other processes may listen there, too.
    pub reuse_port: bool,
    /// Who is asked, in order of preference; at least one, no two alike.
    pub upstreams: Vec<Upstream>,
    /// Which certificates upstreams must lead to.
    pub roots: Roots,
    /// Whether there is a line per query. [`QueryLog::Auto`] is for `main` to resolve, into
    /// [`Limits::query_log`].
    pub query_log: QueryLog,
    /// The least severe log record that is written.
    pub log_level: LevelFilter,
    /// How upstreams are chosen, and what is answered here.
    pub policy: Policy,
    /// The set of limits that [`Self::limits`] and [`Self::sockets`] come from.
    pub size: Size,
    /// The bounds of the forwarder.
    pub limits: Limits,
    /// The bounds of its sockets.
    pub sockets: SocketLimits,
}

/// Where trust in upstreams begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Mozilla's root certificates, as of the build.
    BuiltIn,
    /// The PEM certificates of this file, and no others.
    File(PathBuf),
}

impl Roots {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::BuiltIn => None,
            Self::File(file) => Some(file),
        }
    }
}

/// Whether a line is written for every query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryLog {
    /// If stderr is a terminal.
    Auto,
    /// No.
    Off,
    /// Yes.
    On,
}

/// What is wrong with the command line: one line that names the flag, what is wrong with it and
/// what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Reads the arguments, without the program's own name.
///
/// `--help` anywhere wins over everything else, then `--version`.
pub fn parse(args: Vec<OsString>) -> Result<Command, UsageError> {
    let mut args = Arguments::from_vec(args);
    if args.contains(HELP) {
        return Ok(Command::Help);
    }
    if args.contains(VERSION) {
        return Ok(Command::Version);
    }

    let mut prints_limits = false;
    while args.contains(PRINT_LIMITS) {
        prints_limits = true;
    }
    let mut options = Options::default();
    let mut rest = args.finish().into_iter().peekable();
    while let Some(arg) = rest.next() {
        // pico-args looks through all arguments for one spelling of a flag after the other, which
        // would lose the order of upstreams; so it is shown one flag and its value at a time.
        let value =
            rest.peek().filter(|next| !is_like_a_flag(next)).map(|next| next.to_string_lossy());
        let listen = options.listen.last().map(SocketAddr::ip);
        let (flag, spelling) = Flag::of(&arg.to_string_lossy(), value.as_deref(), listen)?;
        let mut pair = vec![arg];
        if pair[0] == *spelling {
            pair.extend(rest.next_if(|next| !is_like_a_flag(next)));
        }
        match Arguments::from_vec(pair).value_from_str::<_, String>(spelling) {
            Ok(value) if !value.is_empty() => options.set(flag, spelling, &value)?,
            Err(pico_args::Error::NonUtf8Argument | pico_args::Error::MissingOption(_)) => {
                return Err(UsageError(format!(
                    "{spelling}: the value is not UTF-8; give {}",
                    flag.value()
                )));
            }
            Ok(_) | Err(_) => {
                return Err(UsageError(format!(
                    "{spelling}: the value is missing; give {}",
                    flag.value()
                )));
            }
        }
    }
    let config = Box::new(options.into_config()?);
    Ok(if prints_limits { Command::PrintLimits(config) } else { Command::Run(config) })
}

/// The text of `--help`.
pub fn usage() -> String {
    let presets = preset_names();
    format!(
        "\
Forwards plain DNS (UDP and TCP) to an authenticated DNS-over-TLS resolver.

Usage: dot-proxy [OPTION]...

  -l, --listen ADDR[:PORT]  Serve clients on this address over UDP and TCP;
                            repeatable. Without a port: {LISTEN_PORT}. Port 0: a free port,
                            the same for both. [default: {LISTEN_DEFAULT}]
  --reuse-port on|off       Let other processes of the same user serve the same
                            addresses, one process for each core; all of them
                            need this flag. [default: off]
  -u, --upstream SPEC       Ask this server: IP[:PORT]#NAME, [IPv6]:PORT#NAME or
                            a preset: {presets}.
                            Repeatable; the first usable one is asked. Pins may
                            follow NAME or replace it: #NAME,sha256/BASE64. An
                            IP alone is its own NAME. [default: {UPSTREAM_DEFAULT}]
  --upstream-policy ordered|fastest|spread
                            Ask the first usable upstream, the one that has
                            answered fastest lately, or the one with the fewest
                            queries in flight. [default: ordered]
  --hedge off|same|any      When an answer is late, ask a second upstream, too.
                            off: one with the same NAME, after 1.5 seconds.
                            same: one with the same NAME, sooner. any: any
                            other. [default: same; any with fastest and spread]
  --retry-servfail on|off   When an upstream answers SERVFAIL or REFUSED, ask
                            one with another NAME, too. [default: on]
  --ecs strip|pass          Remove EDNS Client Subnet options and tell upstreams
                            to add none, or let the options pass.
                            [default: strip]
  --special-names local|forward
                            Answer names that are not for the public DNS here,
                            or forward them: localhost, test, local, onion,
                            home.arpa, reverse names of private addresses and
                            the like. [default: local]
  --forward-zone NAME       Forward NAME, such as {ZONE_EXAMPLE}, and all names
                            below it, although they are special; repeatable.
  --ca-file FILE            Trust the PEM certificates in FILE instead of the
                            built-in roots.
  --query-log on|off|auto   Write a line for each query to stderr; auto: only if
                            stderr is a terminal. [default: auto]
  --log-level LEVEL         Log messages of this level and of those before it:
                            {levels}. [default: {log_level}]
  --upstream-idle-timeout SECONDS
                            Close a connection to an upstream after this long
                            without use, {idle_min} to {idle_max}. [default: {upstream_idle}]
  --client-idle-timeout SECONDS
                            Close a TCP connection of a client after this long
                            without use, {idle_min} to {idle_max}; sooner when there are
                            many. [default: {client_idle}]
  --size small|default|large
                            How much is served and held at a time; small stays
                            under 6 MB of memory and takes {small_upstreams} upstreams.
                            [default: default]
  --print-limits            Print how much memory the other flags allow at most,
                            term by term, and exit.
  --udp-size-max OCTETS     Send UDP responses of at most this many octets, 512
                            to 4096. [default: 1232; 4096 to loopback addresses]
  --tcp-clients-max N       Serve at most this many TCP connections of clients
                            at a time, {clients_least} to {clients_most}.
                            [default: {clients}; by size: {clients_by_size}]
  --tcp-clients-per-address-max N
                            When all places are taken, free those of an address
                            that has more than this many. Loopback addresses are
                            exempt. [default: {per_address}; by size: {per_address_by_size}]
  -h, --help                Print this and exit.
  -V, --version             Print the version and exit.
",
        levels = words(LOG_LEVELS.iter().map(|(word, _)| *word)),
        log_level = level_name(LOG_LEVEL_DEFAULT),
        upstream_idle = UPSTREAM_IDLE_TIMEOUT.as_secs(),
        client_idle = CLIENT_IDLE_TIMEOUT.as_secs(),
        idle_min = IDLE_SECONDS.start(),
        idle_max = IDLE_SECONDS.end(),
        small_upstreams = Size::Small.of(UPSTREAMS_MAX),
        clients = Size::Default.of(sizes::CLIENTS_MAX),
        clients_by_size = by_size(sizes::CLIENTS_MAX),
        per_address = Size::Default.of(sizes::CLIENTS_PER_ADDRESS_MAX),
        per_address_by_size = by_size(sizes::CLIENTS_PER_ADDRESS_MAX),
        clients_least = TCP_CLIENTS.start(),
        clients_most = TCP_CLIENTS.end(),
    )
}

/// What was given on the command line, before the defaults.
#[derive(Default)]
struct Options {
    listen: Vec<SocketAddr>,
    reuse_port: Option<bool>,
    upstreams: Vec<Upstream>,
    order: Option<Order>,
    hedge: Option<Hedge>,
    retry_servfail: Option<bool>,
    ecs: Option<Ecs>,
    special_names_forwarded: Option<bool>,
    forward_zones: Vec<Box<[u8]>>,
    roots: Option<Roots>,
    query_log: Option<QueryLog>,
    log_level: Option<LevelFilter>,
    upstream_idle_timeout: Option<Duration>,
    client_idle_timeout: Option<Duration>,
    udp_size_max: Option<u16>,
    size: Option<Size>,
    clients_max: Option<usize>,
    clients_per_address_max: Option<usize>,
}

impl Options {
    fn set(&mut self, flag: Flag, spelling: &str, value: &str) -> Result<(), UsageError> {
        let result = match flag {
            Flag::CaFile => once(&mut self.roots, Ok(Roots::File(value.into()))),
            Flag::ClientIdleTimeout => once(&mut self.client_idle_timeout, seconds(value)),
            Flag::Ecs => once(&mut self.ecs, choice(value, &ECS)),
            Flag::ForwardZone => self.add_forward_zone(value),
            Flag::Hedge => once(&mut self.hedge, choice(value, &HEDGES)),
            Flag::Listen => self.add_listener(value),
            Flag::LogLevel => once(&mut self.log_level, choice(value, &LOG_LEVELS)),
            Flag::QueryLog => once(&mut self.query_log, choice(value, &QUERY_LOGS)),
            Flag::RetryServfail => once(&mut self.retry_servfail, choice(value, &ON_OFF)),
            Flag::ReusePort => once(&mut self.reuse_port, choice(value, &ON_OFF)),
            Flag::Size => once(&mut self.size, choice(value, &SIZES)),
            Flag::SpecialNames => {
                once(&mut self.special_names_forwarded, choice(value, &SPECIAL_NAMES))
            }
            Flag::UdpSizeMax => once(&mut self.udp_size_max, udp_size(value)),
            Flag::TcpClientsMax => once(&mut self.clients_max, clients(value)),
            Flag::TcpClientsPerAddressMax => {
                once(&mut self.clients_per_address_max, clients(value))
            }
            Flag::Upstream => self.add_upstreams(value),
            Flag::UpstreamIdleTimeout => once(&mut self.upstream_idle_timeout, seconds(value)),
            Flag::UpstreamPolicy => once(&mut self.order, choice(value, &ORDERS)),
        };
        result.map_err(|problem| UsageError(format!("{spelling} {}: {problem}", shown(value))))
    }

    fn add_listener(&mut self, value: &str) -> Result<(), String> {
        let address = address(value, LISTEN_PORT).map_err(|problem| {
            suggest::listener(value).unwrap_or_else(|| {
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
            // Who adds flags to a command that has some, an image's, need not know them.
            if self.listen.contains(&address) {
                return Ok(());
            }
            if let Some(other) = self.listen.iter().find(|other| overlap(**other, address)) {
                return Err(if address.ip().is_unspecified() {
                    format!("overlaps with --listen {other}; give only one of them")
                } else {
                    format!("is served by --listen {other} already; give only one of them")
                });
            }
        }
        if self.listen.len() == LISTENERS_MAX {
            return Err(format!(
                "is one listener too many; give at most {LISTENERS_MAX}, or 0.0.0.0 or [::] for all \
                 addresses"
            ));
        }
        self.listen.push(address);
        Ok(())
    }

    fn add_upstreams(&mut self, value: &str) -> Result<(), String> {
        for upstream in upstreams(value)? {
            // The log could not tell them apart.
            let shown = upstream.to_string();
            if let Some(other) = self.upstreams.iter().find(|other| other.to_string() == shown) {
                let with = if *other == upstream { "" } else { ", with all its pins" };
                return Err(format!("{shown} is given twice; give each upstream once{with}"));
            }
            let most = Size::Large.of(UPSTREAMS_MAX);
            if self.upstreams.len() == most {
                return Err(format!("is one upstream too many; give at most {most}"));
            }
            self.upstreams.push(upstream);
        }
        Ok(())
    }

    fn add_forward_zone(&mut self, value: &str) -> Result<(), String> {
        if let Some(zones) = suggest::dnsmasq_zones(value) {
            let mut remedies = zones
                .iter()
                .filter(|name| zone(name).is_ok_and(|zone| SpecialNames::has_special(&zone)));
            let remedy = match remedies.next() {
                Some(name) => format!("write {}", shown(name)),
                None => "leave it out, names that are not special go there anyway".into(),
            };
            return Err(format!(
                "is dnsmasq's notation of a zone with a server of its own; here its names go to the \
                 upstreams: {remedy}"
            ));
        }
        let zone = zone(value)?;
        if !SpecialNames::has_special(&zone) {
            return Err(
                "has no special names in it, and all others are forwarded anyway; leave it out"
                    .into(),
            );
        }
        // As with listeners, who adds flags need not know those that are there.
        if self.forward_zones.contains(&zone) {
            return Ok(());
        }
        if self.forward_zones.len() == FORWARD_ZONES_MAX {
            return Err(format!(
                "is one zone too many; give at most {FORWARD_ZONES_MAX}, or one above them"
            ));
        }
        self.forward_zones.push(zone);
        Ok(())
    }

    fn into_config(self) -> Result<Config, UsageError> {
        let mut listen = self.listen;
        if listen.is_empty() {
            listen.push(LISTEN_DEFAULT);
        }
        let mut upstreams = self.upstreams;
        if upstreams.is_empty() {
            upstreams.extend(UPSTREAM_DEFAULT.upstreams());
        }
        let size = self.size.unwrap_or(Size::Default);
        let most = size.of(UPSTREAMS_MAX);
        if let Some(upstream) = upstreams.get(most) {
            return Err(UsageError(format!(
                "--upstream {upstream}: is one upstream too many for --size {}; give at most {most}, or \
                 another size",
                size.word()
            )));
        }
        // A query that came back to its sender would go round until its deadline.
        for upstream in &upstreams {
            if let Some(listener) =
                listen.iter().find(|listener| reaches(upstream.address, **listener))
            {
                return Err(UsageError(format!(
                    "--upstream {upstream}: is this program's own listener (--listen {listener}); \
                     give the address of another server"
                )));
            }
        }

        let query_log = self.query_log.unwrap_or(QueryLog::Auto);
        let clients_max = self.clients_max.unwrap_or(size.of(sizes::CLIENTS_MAX));
        let per_address = self.clients_per_address_max;
        if let Some(per_address) = per_address.filter(|per_address| *per_address > clients_max) {
            return Err(UsageError(format!(
                "--tcp-clients-per-address-max {per_address}: is more than all may have; raise \
                 --tcp-clients-max, which is {clients_max}, as well"
            )));
        }

        let upstream_conns_max = size.upstream_conns_max(upstreams.len());
        let order = self.order.unwrap_or(Order::Ordered);
        // Who asks for one operator before the others does not show all of them a part of the names.
        let hedge = if order == Order::Ordered { Hedge::Same } else { Hedge::Any };
        Ok(Config {
            listen,
            reuse_port: self.reuse_port.unwrap_or(false),
            upstreams,
            roots: self.roots.unwrap_or(Roots::BuiltIn),
            query_log,
            log_level: self.log_level.unwrap_or(LOG_LEVEL_DEFAULT),
            policy: Policy {
                order,
                hedge: self.hedge.unwrap_or(hedge),
                retry_servfail: self.retry_servfail.unwrap_or(true),
                ecs: self.ecs.unwrap_or(Ecs::Strip),
                special_names: match self.special_names_forwarded {
                    Some(true) => SpecialNames::Forward,
                    Some(false) | None => SpecialNames::Local { forwarded: self.forward_zones },
                },
            },
            size,
            sockets: size.sockets(),
            limits: Limits {
                query_timeout: QUERY_TIMEOUT,
                upstream_idle_timeout: self.upstream_idle_timeout.unwrap_or(UPSTREAM_IDLE_TIMEOUT),
                client_idle_timeout: self.client_idle_timeout.unwrap_or(CLIENT_IDLE_TIMEOUT),
                queries_max: size.of(QUERIES_MAX),
                query_bytes_max: size.of(sizes::QUERY_BYTES_MAX),
                clients_max,
                clients_per_address_max: per_address
                    .unwrap_or(size.of(sizes::CLIENTS_PER_ADDRESS_MAX)),
                client_queries_max: size.of(sizes::CLIENT_QUERIES_MAX),
                client_output_max: size.of(sizes::CLIENT_OUTPUT_MAX),
                client_bytes_max: size.of(sizes::CLIENT_BYTES_MAX),
                udp_size_max: self.udp_size_max,
                datagram_bytes_max: size.of(sizes::DATAGRAM_BYTES_MAX),
                datagrams_max: size.of(sizes::DATAGRAMS_MAX),
                upstream_conns_max,
                upstream_output_max: size.of(sizes::UPSTREAM_OUTPUT_MAX),
                upstream_bytes_max: size.of(sizes::UPSTREAM_BYTES_MAX),
                output_kept: size.of(sizes::OUTPUT_KEPT),
                query_log_max: size.of(sizes::QUERY_LOG_MAX),
                query_log: query_log == QueryLog::On,
            },
        })
    }
}

/// Whether this is no value: `-x`, but not `-1`, which is a bad one.
fn is_like_a_flag(arg: &OsStr) -> bool {
    match arg.as_encoded_bytes() {
        [b'-', second, ..] => !second.is_ascii_digit(),
        [b'-'] => true,
        _ => false,
    }
}

fn seconds(value: &str) -> Result<Duration, String> {
    let (min, max) = (IDLE_SECONDS.start(), IDLE_SECONDS.end());
    match value.parse() {
        Ok(seconds) if IDLE_SECONDS.contains(&seconds) => Ok(Duration::from_secs(seconds)),
        // Of any length: what no integer holds is a number all the same.
        _ if value.bytes().all(|octet| octet.is_ascii_digit()) => {
            Err(format!("is out of range: {min} to {max} seconds"))
        }
        _ => Err(format!("is not a number of seconds; write a whole number from {min} to {max}")),
    }
}

fn clients(value: &str) -> Result<usize, String> {
    whole_number(value, &TCP_CLIENTS)
}

fn udp_size(value: &str) -> Result<u16, String> {
    whole_number(value, &UDP_SIZES)
}

fn whole_number<T>(value: &str, range: &RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    let (min, max) = (range.start(), range.end());
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ if value.bytes().all(|octet| octet.is_ascii_digit()) => {
            Err(format!("is out of range: {min} to {max}"))
        }
        _ => Err(format!("is not a number; write a whole number from {min} to {max}")),
    }
}

fn choice<T: Copy>(value: &str, choices: &[(&str, T)]) -> Result<T, String> {
    match choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(value)) {
        Some((_, choice)) => Ok(*choice),
        None => Err(not_known(&choices.iter().map(|(word, _)| *word).collect::<Vec<_>>())),
    }
}

/// What there is instead: once in the program, rather than for each type of choice.
#[cold]
fn not_known(known: &[&str]) -> String {
    format!("is not known; write {}", words(known.iter().copied()))
}

/// Puts a value where none may be yet.
fn once<T>(place: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    if place.is_some() {
        return Err("is given twice; give this flag once".into());
    }
    *place = Some(value?);
    Ok(())
}

/// `small 12, large 600`
fn by_size(numbers: [usize; 3]) -> String {
    let others = SIZES.into_iter().filter(|(_, size)| *size != Size::Default);
    let words: Vec<_> = others.map(|(word, size)| format!("{word} {}", size.of(numbers))).collect();
    words.join(", ")
}

fn level_name(level: LevelFilter) -> &'static str {
    LOG_LEVELS.into_iter().find(|(_, known)| *known == level).map_or("off", |(word, _)| word)
}

const LOG_LEVELS: [(&str, LevelFilter); 5] = [
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

const ORDERS: [(&str, Order); 3] =
    [("ordered", Order::Ordered), ("fastest", Order::Fastest), ("spread", Order::Spread)];

const ECS: [(&str, Ecs); 2] = [("strip", Ecs::Strip), ("pass", Ecs::Pass)];

const HEDGES: [(&str, Hedge); 3] =
    [("off", Hedge::Off), ("same", Hedge::Same), ("any", Hedge::Any)];

const ON_OFF: [(&str, bool); 2] = [("on", true), ("off", false)];

const SPECIAL_NAMES: [(&str, bool); 2] = [("local", false), ("forward", true)];

const QUERY_LOGS: [(&str, QueryLog); 3] =
    [("on", QueryLog::On), ("off", QueryLog::Off), ("auto", QueryLog::Auto)];

/// Loopback only (RFC 5625 section 6.2), on a port that needs no rights and that neither DNS (53)
/// nor multicast DNS (5353) holds.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(v4(127, 0, 0, 1), 5300);

/// Who writes an address without a port means DNS.
pub const LISTEN_PORT: u16 = 53;

/// A socket pair each, watched all the time; the wildcard addresses serve any number of addresses.
pub const LISTENERS_MAX: usize = 32;

/// Each is compared with every special name that is asked for. Where they are many, one above them does:
/// `100.in-addr.arpa` stands for the 64 zones of the shared addresses.
pub const FORWARD_ZONES_MAX: usize = 64;

/// The program must work with nothing configured, so one has to be it.
const UPSTREAM_DEFAULT: Preset = CLOUDFLARE;

/// State changes are for whoever runs the program; everything finer is for who looks for a fault.
const LOG_LEVEL_DEFAULT: LevelFilter = LevelFilter::Info;

/// Stub resolvers give up after 5 s (glibc's default); the SERVFAIL that says why must be there
/// before.
pub const QUERY_TIMEOUT: Duration = Duration::from_millis(4_500);

/// Bridges the pauses of one person at work. Longer would mostly hold dead sockets: public resolvers
/// close idle connections within seconds (RFC 7766 section 6.2.3).
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// RFC 9210 section 4.2 suggests 10 s; idle connections hold the places of busy ones.
pub const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Below 1 s a connection would hardly outlive a round trip; connections to upstreams are replaced
/// after about an hour anyway.
const IDLE_SECONDS: RangeInclusive<u64> = 1..=3600;

/// What every client takes (RFC 1035 section 4.2.1), and what RFC 5625 section 4.4.3 asks for.
const UDP_SIZES: RangeInclusive<u16> = 512..=4096;

/// Nobody can do without DNS over TCP (RFC 7766 section 5). Ten thousand connections may keep 180 MB
/// of buffers, and every close looks through those of its address.
const TCP_CLIENTS: RangeInclusive<usize> = 1..=10_000;

/// A message of any length fits behind its two octets of length (RFC 1035 section 4.2.2).
const FRAME_LEN_MAX: usize = 2 + 65_535;

const _: () = assert!(UPSTREAM_PORT == 853 && LISTEN_PORT == 53);

#[cfg(test)]
mod tests;
