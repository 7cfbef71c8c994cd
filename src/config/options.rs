//! What was given on the command line and in a file. Every default is here, with its reason; those that depend on
//! `--size` are in `sizes`.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::Host;
use super::address::{address, overlap, with_interface_indexes};
use super::choice::{Private, QueryLog, Special};
use super::presets::{CLOUDFLARE, Preset, v4};
use super::served::Served;
use super::sizes::{self, Size};
use super::suggest::{self, shown};
use super::upstream::{UpstreamSpec, upstreams};
use super::user::user;
use super::zone::{PRIVATE_ZONE_EXAMPLE, ZONE_EXAMPLE, zone};
use crate::forwarder::{ClientShown, Ecs, Hedge, Order, SpecialNames};
use crate::host::log_format::LogFormat;
use crate::host::network::source::Source;
use crate::host::rights::Ids;
use crate::host::sandbox::Sandbox;
use crate::tls::KeyExchange;

/// What was given, and the defaults of what was not.
pub(super) struct Options {
    pub(super) host: Host,
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
            if (self.host.interface_index)(&value).is_some() {
                return format!(
                    "is an interface; write an address of it, which `ip address show {}` shows",
                    shown(&value)
                );
            }
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

/// Loopback only (RFC 5625 section 6.2), on a port that needs no rights and that neither DNS (53)
/// nor multicast DNS (5353) holds.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(v4(127, 0, 0, 1), 5300);

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
