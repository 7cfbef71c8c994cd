//! What is said at the start: on a terminal a block in plain words, elsewhere lines of the log.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::access::log_served;
use crate::config::Config;
use crate::forwarder::Order;

/// Where clients, and those who want metrics, are served.
#[derive(Clone, Debug)]
pub struct Served {
    /// The addresses for clients, over UDP and TCP each.
    pub clients: Vec<SocketAddr>,
    /// The address for metrics.
    pub metrics: Option<SocketAddr>,
}

/// Says in the log who is served, where, and who is asked.
#[cold]
pub fn log_start(config: &Config, served: &Served) {
    log_served(&config.policy, served.clients.iter().copied());
    log::info!("{}", upstreams(config));
    for address in &served.clients {
        log::info!("listening on {address}, UDP and TCP");
    }
    if let Some(address) = served.metrics {
        log::info!("metrics on http://{address}/metrics");
    }
}

/// The same for a person at a terminal, with who is asked and how to try it, in lines.
#[cold]
///
/// `own`: an address of this host by which others reach it, if the person is likely on another one.
pub fn block(config: &Config, served: &Served, own: Option<IpAddr>, has_colour: bool) -> String {
    let addresses: Vec<_> = served.clients.iter().map(ToString::to_string).collect();
    let is_for_this_host = served.clients.iter().all(|address| address.ip().is_loopback());
    let rows = [
        ("listens on", Some(format!("{}, over UDP and TCP", addresses.join(", ")))),
        ("asks", Some(asked(config))),
        ("checks", Some(checked(config))),
        ("serves", Some(if is_for_this_host { "this host".into() } else { clients(config) })),
        ("metrics", served.metrics.map(|address| format!("http://{address}/metrics"))),
        ("try", served.clients.first().map(|address| dig(*address, own))),
    ];
    let [bold, plain] = if has_colour { ["\x1b[1m", "\x1b[0m"] } else { [""; 2] };
    let mut text = format!("{bold}dot-proxy {}{plain}\n", env!("CARGO_PKG_VERSION"));
    for (what, words) in rows {
        let Some(words) = words else { continue };
        // Writing to a string does not fail, here and below.
        writeln!(text, "  {bold}{what:<11}{plain}{words}").ok();
    }
    text
}

/// Who is asked, and how it is known that it is they, in a line.
#[cold]
fn upstreams(config: &Config) -> String {
    format!("asking {}; checking {}", asked(config), checked(config))
}

/// Who is asked, the first of them.
#[cold]
fn asked(config: &Config) -> String {
    const SHOWN_MAX: usize = 4;

    let names: Vec<_> = config.upstreams.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    let names = match config.upstreams.len() - names.len() {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    };
    match (config.upstreams.len(), config.policy.order) {
        (1, _) => names,
        (_, Order::Ordered) => format!("the first usable one of {names}"),
        (_, Order::Fastest) => format!("the fastest one of {names}"),
        (_, Order::Spread) => format!("the least busy one of {names}"),
    }
}

/// By what upstreams are known.
#[cold]
fn checked(config: &Config) -> String {
    let of_name = config.upstreams.iter().filter(|upstream| upstream.name.is_some());
    if of_name.clone().next().is_none() {
        return "that each server has a key that is pinned".into();
    }
    let roots = config.files.roots.iter().map(|file| format!("in {}", file.display()));
    let builtin = config.files.builtin_roots.then(|| "that is built in".to_owned());
    let roots: Vec<_> = roots.chain(builtin).collect();
    let mut text = format!(
        "that a certificate proves the name behind #, or the address, by an authority {}",
        roots.join(" or ")
    );
    if of_name.clone().any(|upstream| !upstream.pins.is_empty()) {
        text += "; that keys are those that are pinned";
    }
    let count = config.upstreams.len() - of_name.count();
    if count > 0 {
        write!(text, "; {count} of them by the pinned key alone").ok();
    }
    text
}

fn clients(config: &Config) -> String {
    let limit = config.policy.rate.as_ref().map(|rate| format!("; {rate}"));
    format!("{}{}", config.policy.access, limit.unwrap_or_default())
}

/// How to ask there.
#[cold]
fn dig(mut address: SocketAddr, own: Option<IpAddr>) -> String {
    if address.ip().is_unspecified() {
        let loopback = match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let own = own.filter(|own| own.is_ipv4() == address.is_ipv4());
        address.set_ip(own.unwrap_or(loopback));
    }
    let port = match address.port() {
        53 => String::new(),
        port => format!(" -p {port}"),
    };
    let zone = match address {
        SocketAddr::V6(address) if address.scope_id() != 0 => format!("%{}", address.scope_id()),
        _ => String::new(),
    };
    format!("dig @{}{zone}{port} example.com", address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Command, Host};

    fn config(line: &str) -> Box<Config> {
        let args = line.split_whitespace().map(Into::into).collect();
        let Ok(Command::Run(config)) = config::parse(args, Host::default()) else {
            panic!("{line}");
        };
        config
    }

    fn block_of(line: &str, clients: &[&str], has_colour: bool) -> String {
        let config = config(line);
        let clients = clients.iter().map(|address| address.parse().unwrap()).collect();
        let metrics = config.metrics;
        block(&config, &Served { clients, metrics }, None, has_colour)
    }

    #[test]
    fn a_person_reads_who_is_served_and_who_is_asked() {
        assert_eq!(
            block_of("", &["127.0.0.1:5300"], false),
            format!(
                "dot-proxy {}\n  \
                   listens on 127.0.0.1:5300, over UDP and TCP\n  \
                   asks       the first usable one of 1.1.1.1#cloudflare-dns.com, [2606:4700:4700::1111]#cloudflare-dns.com, \
                 1.0.0.1#cloudflare-dns.com, [2606:4700:4700::1001]#cloudflare-dns.com\n  \
                   checks     that a certificate proves the name behind #, or the address, by an authority that is built \
                 in\n  \
                   serves     this host\n  \
                   try        dig @127.0.0.1 -p 5300 example.com\n",
                env!("CARGO_PKG_VERSION")
            )
        );
        let pin = format!("sha256/{}A=", "A".repeat(42));
        let line = format!(
            "--listen 0.0.0.0 --upstream 192.0.2.1#{pin} --upstream 192.0.2.2#x.example,{pin} --upstream-policy \
             spread --ca-file ca.pem --metrics 127.0.0.1:9153 --allow 10.0.0.0/8"
        );
        let text = block_of(&line, &["0.0.0.0:53", "[::]:53"], true);
        for words in [
            "\u{1b}[1mlistens on \u{1b}[0m0.0.0.0:53, [::]:53, over UDP and TCP\n",
            "the least busy one of 192.0.2.1#sha256/",
            "by an authority in ca.pem; that keys are those that are pinned; 1 of them by the pinned key alone\n",
            "10.0.0.0/8",
            "\u{1b}[0mhttp://127.0.0.1:9153/metrics\n",
            "\u{1b}[0mdig @127.0.0.1 example.com\n",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let pins = format!("--upstream 192.0.2.1#{pin}");
        assert!(
            block_of(&pins, &["[::]:5300"], false)
                .contains("that each server has a key that is pinned")
        );
    }

    #[test]
    fn a_line_of_the_log_says_who_is_asked_and_how_that_is_verified() {
        assert_eq!(
            upstreams(&config("--upstream 192.0.2.1#x.example --upstream 192.0.2.2#y.example")),
            "asking the first usable one of 192.0.2.1#x.example, 192.0.2.2#y.example; checking that a certificate \
             proves the name behind #, or the address, by an authority that is built in"
        );
    }

    #[test]
    fn dig_is_told_where_to_ask() {
        let own = Some([172, 17, 0, 2].into());
        for (address, own, expected) in [
            ("127.0.0.1:53", own, "dig @127.0.0.1 example.com"),
            ("[::]:53", own, "dig @::1 example.com"),
            ("0.0.0.0:5300", None, "dig @127.0.0.1 -p 5300 example.com"),
            ("0.0.0.0:53", own, "dig @172.17.0.2 example.com"),
            ("[fe80::1%3]:53", own, "dig @fe80::1%3 example.com"),
        ] {
            assert_eq!(dig(address.parse().unwrap(), own), expected);
        }
    }
}
