//! The flags: one table, from which the command line is read and `--help` is printed.

use log::LevelFilter;

use self::Form::{Named, OneOf};
use super::UsageError;
use super::choice::{Choice, Private, QueryLog, Special};
use super::numbers::{clients, drain, seconds, udp_size, wait_limit};
use super::options::{LISTEN_DEFAULT, Options, UPSTREAM_DEFAULT};
use super::served::{RATE_PREFIX_DEFAULT, rate_limit, rate_prefix};
use super::sizes::{CLIENTS_MAX, CLIENTS_PER_ADDRESS_MAX, LATE_DATAGRAMS_MAX, Size};
use super::suggest::{self, shown, words};
use crate::forwarder::{AccessDenial, ClientShown, Ecs, Hedge, Order};
use crate::host::log_format::LogFormat;
use crate::host::sandbox::Sandbox;
use crate::tls::KeyExchange;

/// A flag: everything that there is to know of it.
pub(super) struct Flag {
    /// How it is written: in short if there is such a way, then in full.
    pub(super) names: &'static [&'static str],
    /// What follows it; flags without a value are looked for before all others.
    pub(super) value: Option<Value>,
    /// What it does, for `--help`, which has numbers in place of what is in braces.
    pub(super) help: &'static str,
    /// What holds without it, of options of which none was given; empty if there is nothing to say.
    pub(super) default: fn(&Options) -> String,
}

/// The value of a flag.
pub(super) struct Value {
    pub(super) form: Form,
    /// Whether the flag may be given more than once.
    pub(super) is_repeatable: bool,
    pub(super) set: Set,
}

/// Takes a value, or says what is wrong with it.
type Set = fn(&mut Options, &str) -> Result<(), String>;

/// How a value is written.
pub(super) enum Form {
    /// A value by its name in `--help`, and what it is in words.
    Named(&'static str, &'static str),
    /// One of a few words.
    OneOf(fn() -> Vec<&'static str>),
}

impl Flag {
    /// The name in full.
    pub(super) fn long(&self) -> &'static str {
        self.names.last().copied().unwrap_or_default()
    }
}

impl Value {
    /// It is one of several words, and this is among them.
    pub(super) fn has_word(&self, word: &str) -> bool {
        match self.form {
            OneOf(known) => known().contains(&word),
            Named(form, _) => form.split('|').any(|known| known == word),
        }
    }

    /// Whether upstreams are added by it.
    pub(super) fn is_upstream(&self) -> bool {
        matches!(self.form, Named(SPEC, _))
    }

    /// Whether it is the name of a file.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.form, Named(FILE, _))
    }

    /// `text`, which is the rest of a line of a file, without the comment at its end. What may be a part of the
    /// value is none: in a pin or a name behind white space, and in the name of a file.
    pub(super) fn without_comment<'a>(&self, text: &'a str) -> &'a str {
        let is_blank = |c: Option<char>| c.is_none_or(char::is_whitespace);
        let begins = |&(at, _): &(usize, &str)| {
            let (before, behind) = (text[..at].chars().next_back(), text[at + 1..].chars().next());
            let may_be_of_value = || {
                // The first may be in front of the name, any in front of a pin.
                self.is_upstream()
                    && !is_blank(behind)
                    && (!text[..at].contains('#') || text[at + 1..].starts_with("sha256/"))
            };
            is_blank(before) && !may_be_of_value()
        };
        match self.form {
            Named(FILE, _) => text,
            _ => text.match_indices('#').find(begins).map_or(text, |(at, _)| text[..at].trim_end()),
        }
    }

    /// What it is, in words.
    pub(super) fn words(&self) -> String {
        match self.form {
            Named(_, form) => form.into(),
            OneOf(known) => words(known().into_iter()),
        }
    }
}

/// The flag of this name, and the name as it stands in the table.
pub(super) fn find(name: &str) -> Option<(&'static str, &'static Flag)> {
    let names = FLAGS.iter().flat_map(|flag| flag.names.iter().map(move |name| (*name, flag)));
    names.into_iter().find(|(known, _)| *known == name)
}

/// The value that the flag of an argument takes, `--flag` or `--flag=value`, with the flag and the name
/// that was used. If there is none, what is `behind` it helps to say what was meant.
pub(super) fn of_argument(
    arg: &str,
    behind: impl FnOnce() -> Option<String>,
    likely: &[&str],
) -> Result<(&'static str, &'static Flag, &'static Value), UsageError> {
    if !arg.starts_with('-') || arg == "-" || arg == "--" {
        return Err(UsageError::new(format!(
            "{}: stray argument; {}",
            if arg.is_empty() { "''".into() } else { shown(arg) },
            suggest::stray(arg, behind().as_deref(), likely)
        )));
    }
    let name = arg.split_once('=').map_or(arg, |(name, _)| name);
    let Some((name, flag)) = find(name) else {
        let remedy = suggest::flag(arg, behind().as_deref());
        let remedy = remedy.unwrap_or_else(|| "--help lists the flags".into());
        return Err(UsageError::new(format!("{}: unknown flag; {remedy}", shown(name))));
    };
    match &flag.value {
        Some(value) => Ok((name, flag, value)),
        None => Err(UsageError::new(format!("{name}: takes no value; write {name} alone"))),
    }
}

/// `150; by size: small 12, large 600`
fn by_size([small, default, large]: [usize; 3]) -> String {
    let [first, last] = [Size::Small.word(), Size::Large.word()];
    format!("{default}; by size: {first} {small}, {last} {large}")
}

fn no_default(_: &Options) -> String {
    String::new()
}

fn choose<T: Choice>(place: &mut T, value: &str) -> Result<(), String> {
    *place = T::read(value)?;
    Ok(())
}

const fn once(form: Form, set: Set) -> Value {
    Value { form, is_repeatable: false, set }
}

const fn repeatable(form: Form, set: Set) -> Value {
    Value { form, is_repeatable: true, set }
}

pub(super) const HELP: Flag = Flag {
    names: &["-h", "--help"],
    value: None,
    help: "Print this and exit.",
    default: no_default,
};

pub(super) const VERSION: Flag = Flag {
    names: &["-V", "--version"],
    value: None,
    help: "Print the version and exit.",
    default: no_default,
};

pub(super) const PRINT_LIMITS: Flag = Flag {
    names: &["--print-limits"],
    value: None,
    help: "Print how much memory the other flags allow at most, term by term, and exit.",
    default: no_default,
};

pub(super) const CONFIG: Flag = Flag {
    names: &["--config"],
    value: Some(once(Named(FILE, "a file with a flag a line"), |options, value| {
        options.file = Some(value.into());
        Ok(())
    })),
    help: "Read flags from FILE, one a line, without dashes: upstream quad9. Those of the command line replace \
           them; of lists all count, those of FILE first. # begins a comment.",
    default: no_default,
};

/// All flags, in the order of `--help`.
pub(super) static FLAGS: [Flag; 43] = [
    CONFIG,
    Flag {
        names: &["-l", "--listen"],
        value: Some(repeatable(LISTENER, Options::add_listener)),
        help: "Serve clients on this address over UDP and TCP; repeatable. Without a port: {port}. \
               Port 0: a free port, the same for both.",
        default: |_| LISTEN_DEFAULT.to_string(),
    },
    Flag {
        names: &["--reuse-port"],
        value: Some(once(OneOf(bool::words), |options, value| {
            choose(&mut options.reuse_port, value)
        })),
        help: "Let other processes of the same user serve the same addresses, one process for each \
               core; all of them need this flag.",
        default: |options| options.reuse_port.word().into(),
    },
    Flag {
        names: &["--freebind"],
        value: Some(once(OneOf(bool::words), |options, value| {
            choose(&mut options.freebind, value)
        })),
        help: "Listen on addresses that this host does not have yet, with a warning; off: do not start.",
        default: |options| options.freebind.word().into(),
    },
    Flag {
        names: &["--allow"],
        value: Some(repeatable(ALLOWED, |options, value| options.served.allow(value))),
        help: "Serve clients in this network, and none of the default ones but loopback; local: those in the \
               networks of this host's interfaces; default: the default ones besides; repeatable. Of networks in --allow \
               and --deny that a client is in, the smallest counts.",
        default: |_| "loopback, private and link-local ones".into(),
    },
    Flag {
        names: &["--deny"],
        value: Some(repeatable(NETWORK, |options, value| options.served.deny(value))),
        help: "Do not serve clients in this network; repeatable. Loopback is denied only by its own \
               networks, 127.0.0.0/8 and ::1, or parts of them.",
        default: no_default,
    },
    Flag {
        names: &["--refuse-denied"],
        value: Some(once(OneOf(AccessDenial::words), |options, value| {
            choose(&mut options.served.denial, value)
        })),
        help: "What a query over UDP gets that is not served: nothing, or REFUSED with EDE 18, 100 a \
               second at most; TCP is closed.",
        default: |options| options.served.denial.word().into(),
    },
    Flag {
        names: &["--rate-limit"],
        value: Some(once(RATE, |options, value| {
            rate_limit(value).map(|limit| options.served.rate_limit = Some(limit))
        })),
        help: "Answer each network this many queries a second, and BURST at once after a pause (5 times \
               QPS), over UDP and TCP each. Above that, every second query over UDP gets TC, the others \
               nothing, and TCP is read no faster.",
        default: |_| "off; 100/500 for public networks".into(),
    },
    Flag {
        names: &["--rate-prefix"],
        value: Some(once(RATE_PREFIX, |options, value| {
            rate_prefix(value).map(|lengths| options.served.rate_prefix = Some(lengths))
        })),
        help: "What one network is for --rate-limit: addresses that have this many bits in common; a link-local IPv6 \
               address is one by itself.",
        default: |_| RATE_PREFIX_DEFAULT.map(|len| len.to_string()).join("/"),
    },
    Flag {
        names: &["--rate-exempt"],
        value: Some(repeatable(NETWORK, |options, value| options.served.add_rate_exempt(value))),
        help: "Do not limit clients in this network; repeatable.",
        default: no_default,
    },
    Flag {
        names: &["--wait-limit"],
        value: Some(once(WAIT_LIMIT, |options, value| {
            wait_limit(value).map(|limit| options.late_datagrams_max = Some(limit))
        })),
        help: "When more than this many queries of a network over UDP wait for longer than a second, the \
               oldest get TC, and are asked again over TCP: late answers, all at once, could be an attack on \
               somebody whose address they were asked with. Loopback addresses are exempt.",
        default: |_| by_size(LATE_DATAGRAMS_MAX),
    },
    Flag {
        names: &["-u", "--upstream"],
        value: Some(repeatable(UPSTREAM, Options::add_upstreams)),
        help: "Ask this server: IP[:PORT]#NAME, [IPv6]:PORT#NAME or a preset: {presets}. \
               Repeatable; the first usable one is asked. Pins may follow NAME or replace it: \
               #NAME,sha256/BASE64; #NAME,sni=off does not tell it NAME. An IP alone is its own NAME.",
        default: |_| UPSTREAM_DEFAULT.word.into(),
    },
    Flag {
        names: &["--upstream-source"],
        value: Some(repeatable(SOURCE, Options::add_upstream_source)),
        help: "Connect to upstreams from this address, one for IPv4 and one for IPv6, or through this interface \
               (Linux 5.7), whatever routes say.",
        default: no_default,
    },
    Flag {
        names: &["--upstream-policy"],
        value: Some(once(OneOf(Order::words), |options, value| choose(&mut options.order, value))),
        help: "Ask the first usable upstream, the one that has answered fastest lately, or the one \
               with the fewest queries in flight.",
        default: |options| options.order.word().into(),
    },
    Flag {
        names: &["--hedge"],
        value: Some(once(OneOf(Hedge::words), |options, value| {
            Hedge::read(value).map(|hedge| options.hedge = Some(hedge))
        })),
        help: "When an answer is late, ask a second upstream, too. off: one with the same NAME, \
               after 1.5 seconds. same: one with the same NAME, sooner. any: any other.",
        default: |_| "same; any with fastest and spread".into(),
    },
    Flag {
        names: &["--retry-servfail"],
        value: Some(once(OneOf(bool::words), |options, value| {
            choose(&mut options.retry_servfail, value)
        })),
        help: "When an upstream answers SERVFAIL or REFUSED, ask one with another NAME, too.",
        default: |options| options.retry_servfail.word().into(),
    },
    Flag {
        names: &["--ecs"],
        value: Some(once(OneOf(Ecs::words), |options, value| choose(&mut options.ecs, value))),
        help: "Remove EDNS Client Subnet options and tell upstreams to add none, or let the options \
               pass.",
        default: |options| options.ecs.word().into(),
    },
    Flag {
        names: &["--special-names"],
        value: Some(once(OneOf(Special::words), |options, value| {
            choose(&mut options.special_names, value)
        })),
        help: "Answer names that are not in the public DNS here, or forward them: localhost, test, \
               local, onion, home.arpa, reverse names of private addresses and the like.",
        default: |options| options.special_names.word().into(),
    },
    Flag {
        names: &["--forward-zone"],
        value: Some(repeatable(ZONE, Options::add_forward_zone)),
        help: "Forward NAME, such as {zone}, and all names below it, although they are special; \
               repeatable.",
        default: no_default,
    },
    Flag {
        names: &["--private-answers"],
        value: Some(once(OneOf(Private::words), |options, value| {
            choose(&mut options.private_answers, value)
        })),
        help: "Let answers with private addresses pass, or take all their records out (NODATA, EDE 17), as \
               they let pages of others reach hosts here (DNS rebinding). 127.0.0.0/8 and ::1 pass unless it \
               is strip-loopback.",
        default: |options| options.private_answers.word().into(),
    },
    Flag {
        names: &["--private-zone"],
        value: Some(repeatable(PRIVATE_ZONE, Options::add_private_zone)),
        help: "Let private addresses pass in answers for NAME, such as {private}, and all names below it, \
               as they do for --forward-zone; repeatable.",
        default: no_default,
    },
    Flag {
        names: &["--ca-file"],
        value: Some(repeatable(Named(FILE, "a file of PEM certificates"), |options, value| {
            options.add_ca_file(value)
        })),
        help: "Trust the PEM certificates in FILE instead of the built-in roots; repeatable.",
        default: no_default,
    },
    Flag {
        names: &["--builtin-roots"],
        value: Some(once(OneOf(bool::words), |options, value| {
            bool::read(value).map(|is_on| options.builtin_roots = Some(is_on))
        })),
        help: "Trust the built-in roots, also besides those of --ca-file.",
        default: |_| "on; off with --ca-file".into(),
    },
    Flag {
        names: &["--client-cert"],
        value: Some(once(Named(FILE, "a file of PEM certificates"), |options, value| {
            options.client_cert = Some(value.into());
            Ok(())
        })),
        help: "Show the PEM certificate in FILE, with its issuers behind it, to every upstream that asks for one.",
        default: no_default,
    },
    Flag {
        names: &["--client-key"],
        value: Some(once(Named(FILE, "a file with a PEM key"), |options, value| {
            options.client_key = Some(value.into());
            Ok(())
        })),
        help: "The key of --client-cert, not encrypted.",
        default: no_default,
    },
    Flag {
        names: &["--key-exchange"],
        value: Some(once(OneOf(KeyExchange::words), |options, value| {
            choose(&mut options.key_exchange, value)
        })),
        help: "Offer upstreams X25519 with ML-KEM-768, so that what is recorded today cannot be \
               decrypted later, or classic key exchanges only, for networks that lose a long ClientHello.",
        default: |options| options.key_exchange.word().into(),
    },
    Flag {
        names: &["--user"],
        value: Some(once(USER, Options::set_user)),
        help: "Become this user, a name or a number, for good once every port and file is open, which takes \
               root; root: stay root.",
        default: |_| "65534:65534 if started as root".into(),
    },
    Flag {
        names: &["--sandbox"],
        value: Some(once(OneOf(Sandbox::words), |options, value| {
            choose(&mut options.sandbox, value)
        })),
        help: "Give up files, other ports and most system calls before serving, as far as the kernel \
               goes; require: all of it, or do not start.",
        default: |options| options.sandbox.word().into(),
    },
    Flag {
        names: &["--query-log"],
        value: Some(once(OneOf(QueryLog::words), |options, value| {
            choose(&mut options.query_log, value)
        })),
        help: "Write a line for each query to stderr; auto: only if stderr is a terminal; json: an object each, \
               with the time.",
        default: |options| options.query_log.word().into(),
    },
    Flag {
        names: &["--query-log-client"],
        value: Some(once(OneOf(ClientShown::words), |options, value| {
            choose(&mut options.query_log_client, value)
        })),
        help: "How much of a client's address these lines show: all, the first bits (24 of IPv4, 56 of IPv6), \
               or none.",
        default: |options| options.query_log_client.word().into(),
    },
    Flag {
        names: &["--log-level"],
        value: Some(once(OneOf(LevelFilter::words), |options, value| {
            choose(&mut options.log_level, value)
        })),
        help: "Log messages of this level and of graver ones.",
        default: |options| options.log_level.word().into(),
    },
    Flag {
        names: &["--metrics"],
        value: Some(once(METRICS, Options::set_metrics)),
        help: "Serve /metrics for Prometheus, /healthz and /readyz over HTTP on this address.",
        default: no_default,
    },
    Flag {
        names: &["--drain"],
        value: Some(once(SECONDS, |options, value| drain(value).map(|time| options.drain = time))),
        help: "After SIGTERM serve on for this long, {drain}, while /readyz says 503, then end.",
        default: |options| options.drain.as_secs().to_string(),
    },
    Flag {
        names: &["--log-format"],
        value: Some(once(OneOf(LogFormat::words), |options, value| {
            LogFormat::read(value).map(|format| options.log_format = Some(format))
        })),
        help: "How lines on stderr are written: plain; json: an object each, with the time; journald: with \
               the priority in front that systemd reads.",
        default: |_| "plain; journald under systemd".into(),
    },
    Flag {
        names: &["--upstream-idle-timeout"],
        value: Some(once(SECONDS, |options, value| {
            seconds(value).map(|timeout| options.upstream_idle_timeout = timeout)
        })),
        help: "Close a connection to an upstream after this long without use, {seconds}.",
        default: |options| options.upstream_idle_timeout.as_secs().to_string(),
    },
    Flag {
        names: &["--client-idle-timeout"],
        value: Some(once(SECONDS, |options, value| {
            seconds(value).map(|timeout| options.client_idle_timeout = timeout)
        })),
        help: "Close a TCP connection of a client after this long without use, {seconds}; sooner \
               when there are many.",
        default: |options| options.client_idle_timeout.as_secs().to_string(),
    },
    Flag {
        names: &["--size"],
        value: Some(once(OneOf(Size::words), |options, value| choose(&mut options.size, value))),
        help: "How much is served and held at a time; small takes less than 6 MB of memory (static binary, without \
               --config and --metrics) and {upstreams} upstreams.",
        default: |options| options.size.word().into(),
    },
    PRINT_LIMITS,
    Flag {
        names: &["--udp-size-max"],
        value: Some(once(Named("OCTETS", "a whole number"), |options, value| {
            udp_size(value).map(|octets| options.udp_size_max = Some(octets))
        })),
        help: "Send UDP responses of at most this many octets, {octets}.",
        default: |_| "1232; 4096 to loopback addresses".into(),
    },
    Flag {
        names: &["--tcp-clients-max"],
        value: Some(once(CLIENTS, |options, value| {
            clients(value).map(|clients| options.clients_max = Some(clients))
        })),
        help: "Serve at most this many TCP connections of clients at a time, {clients}.",
        default: |_| by_size(CLIENTS_MAX),
    },
    Flag {
        names: &["--tcp-clients-per-address-max"],
        value: Some(once(CLIENTS, |options, value| {
            clients(value).map(|clients| options.clients_per_address_max = Some(clients))
        })),
        help: "When all places are taken, free idle ones of an address that has more than this many. \
               Loopback addresses are exempt.",
        default: |_| by_size(CLIENTS_PER_ADDRESS_MAX),
    },
    HELP,
    VERSION,
];

const LISTENER: Form = Named("ADDR[:PORT]", "ADDR[:PORT], such as 127.0.0.1:5300");

const METRICS: Form = Named("ADDR:PORT", "ADDR:PORT, such as 127.0.0.1:9153");

const ALLOWED: Form =
    Named("CIDR|local|default", "a network, such as 192.168.0.0/16, or local, or default");

const NETWORK: Form = Named("CIDR", "a network, such as 192.168.0.0/16");

const RATE: Form = Named("QPS[/BURST]|off", "QPS[/BURST], such as 100/500, or off");

const RATE_PREFIX: Form = Named("V4/V6", "two prefix lengths, such as 32/56");

const WAIT_LIMIT: Form = Named("N|off", "a whole number, such as 1024, or off");

const UPSTREAM: Form =
    Named(SPEC, "IP[:PORT]#NAME, such as 1.1.1.1#cloudflare-dns.com, or a preset");

/// The name of an upstream in `--help`.
const SPEC: &str = "SPEC";

/// The name of a file in `--help`.
const FILE: &str = "FILE";

const SOURCE: Form = Named(
    "ADDRESS|INTERFACE",
    "an address of this host, such as 192.168.1.2, or an interface, such as eth1",
);

const ZONE: Form = Named("NAME", "a name, such as 10.in-addr.arpa");

const PRIVATE_ZONE: Form = Named("NAME", "a name, such as corp.example");

const USER: Form = Named("USER[:GROUP]", "a user, such as nobody or 65534:65534");

const SECONDS: Form = Named("SECONDS", "a whole number of seconds");

const CLIENTS: Form = Named("N", "a whole number");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::tests::{HOST, config};

    #[test]
    fn a_flag_has_no_default_but_the_one_that_help_shows() {
        // What is given where the default depends on other flags, and is told in words.
        let in_words = [
            ("--allow", ""),
            ("--rate-limit", "off"),
            ("--wait-limit", "1024"),
            ("--hedge", "same"),
            ("--user", ""),
            ("--builtin-roots", "on"),
            ("--log-format", "plain"),
            ("--udp-size-max", ""),
            ("--tcp-clients-max", "150"),
            ("--tcp-clients-per-address-max", "25"),
        ];
        // But for what was given.
        let shown = |line: &str| format!("{:?}", Config { flags: "".into(), ..config(line) });
        let without = shown("");
        for flag in &FLAGS {
            let default = (flag.default)(&Options::new(HOST));
            let given = in_words.iter().find(|(name, _)| *name == flag.long());
            let given = given.map_or(&*default, |(_, value)| {
                assert!(default.starts_with(value), "{default}");
                value
            });
            if !given.is_empty() {
                assert_eq!(shown(&format!("{} {given}", flag.long())), without, "{}", flag.long());
            }
        }
    }
}
