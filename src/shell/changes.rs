//! What another configuration changes.

use crate::config::Config;

/// The flags that are given otherwise than before, without their dashes.
pub(super) fn changed(old: &Config, new: &Config) -> Vec<String> {
    let mut names: Vec<&str> = old.flags.lines().chain(new.flags.lines()).map(name).collect();
    let mut known = Vec::new();
    names.retain(|name| {
        let is_first = !known.contains(name);
        known.push(*name);
        is_first
    });
    names.retain(|name| !values(old, name).eq(values(new, name)));
    names.into_iter().map(String::from).collect()
}

/// That something takes a restart, each flag with both of its values, if something does. What connections hold was
/// counted at the start, with a certificate of ours if one was given then.
pub(super) fn needing_restart(old: &Config, new: &Config, has_client: bool) -> Result<(), String> {
    let all: Vec<_> = other(old, new, has_client)
        .into_iter()
        .map(|flag| {
            let (flag, only) = flag.split_once(' ').unwrap_or((flag, ""));
            let name = flag.trim_start_matches('-');
            let missing_in = |values: &str, config| {
                let values = values.to_owned();
                !self::values(config, name).any(|value| value == values)
            };
            let is_meant = |value: &&str| only.is_empty() || *value == only;
            let before = values(old, name).find(|value| missing_in(value, new));
            let now = values(new, name).filter(is_meant).find(|value| missing_in(value, old));
            new.placed(match (before, now) {
                (Some(before), Some(now)) => format!("{flag} {now}: was {before}"),
                (None, Some(now)) => format!("{flag} {now}: is new"),
                (Some(before), None) => format!("{flag}: is not given any more, was {before}"),
                (None, None) => flag.to_owned(),
            })
        })
        .collect();
    if all.is_empty() { Ok(()) } else { Err(format!("{} (this takes a restart)", all.join("; "))) }
}

/// The flag of a line.
fn name(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// What is given of a flag, in order.
fn values<'a>(config: &'a Config, flag: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = config.flags.lines().filter(move |line| name(line) == flag);
    lines.filter_map(|line| line.split_once(' ')).map(|(_, value)| value)
}

/// Flags of which another value counts after a restart only, if they have one.
fn other(old: &Config, new: &Config, has_client: bool) -> Vec<&'static str> {
    // Other limits follow from the size.
    let of_size = old.size != new.size;
    let is_named = |flag: &str| !of_size || !flag.starts_with("--tcp-");
    let other = compared(old, new, has_client).into_iter();
    other.filter(|(flag, is_other)| *is_other && is_named(flag)).map(|(flag, _)| flag).collect()
}

/// Flags on which sockets, tables or rights depend, and whether they have another value.
fn compared(old: &Config, new: &Config, has_client: bool) -> [(&'static str, bool); 14] {
    let (limits, new_limits) = (&old.limits, &new.limits);
    [
        ("--listen", !same_listeners(old, new)),
        ("--reuse-port", old.reuse_port != new.reuse_port),
        ("--freebind", old.freebind != new.freebind),
        ("--upstream-source", old.upstream_source != new.upstream_source),
        ("--allow local", !old.policy.access.subnets && new.policy.access.subnets),
        ("--metrics", old.metrics != new.metrics),
        ("--drain", old.drain != new.drain),
        ("--log-format", old.log_format != new.log_format),
        // Each connection may hold as much as it is.
        ("--client-cert", !has_client && new.files.client.is_some()),
        ("--user", old.user != new.user),
        ("--sandbox", old.sandbox != new.sandbox),
        ("--size", old.size != new.size),
        ("--tcp-clients-max", limits.clients_max != new_limits.clients_max),
        (
            "--tcp-clients-per-address-max",
            limits.clients_per_address_max != new_limits.clients_per_address_max,
        ),
    ]
}

/// Whether they listen at the same addresses, in whatever order.
fn same_listeners(old: &Config, new: &Config) -> bool {
    let is_in = |config: &Config, address| config.listen.contains(address);
    old.listen.len() == new.listen.len() && old.listen.iter().all(|address| is_in(new, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Command, Host, parse};

    fn config(line: &str) -> Config {
        match parse(line.split_whitespace().map(Into::into).collect(), Host::default()) {
            Ok(Command::Run(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_takes_a_restart_is_named_with_both_values() {
        let base = "--listen 127.0.0.1:53 --drain 5";
        for (line, expected) in [
            (
                "--listen 127.0.0.1:53 --drain 5 --upstream quad9 --log-level debug --rate-limit 5",
                "",
            ),
            // The same in other words.
            ("--listen 127.0.0.1 --drain 05", ""),
            ("--listen 127.0.0.1:54 --drain 5", "--listen 127.0.0.1:54: was 127.0.0.1:53"),
            (
                "--listen 127.0.0.1 --size small",
                "--drain: is not given any more, was 5; --size small: is new",
            ),
            (
                "--listen 127.0.0.1 --drain 6 --tcp-clients-max 90",
                "--drain 6: was 5; --tcp-clients-max 90: is new",
            ),
            (
                "--listen 127.0.0.1 --drain 5 --allow 10.0.0.0/8 --allow local",
                "--allow local: is new",
            ),
        ] {
            let said =
                needing_restart(&config(base), &config(line), false).err().unwrap_or_default();
            let said = said.strip_suffix(" (this takes a restart)").unwrap_or(&said);
            assert_eq!(said, expected, "{line}");
        }
    }

    #[test]
    fn listeners_in_another_order_take_no_restart() {
        let old = config("--listen 127.0.0.1:53 --listen 127.0.0.2:53");
        let new = config("--listen 127.0.0.2:53 --listen 127.0.0.1:53");
        assert_eq!(needing_restart(&old, &new, false), Ok(()));
    }

    #[test]
    fn what_takes_a_restart_is_in_the_readme() {
        let readme = include_str!("../../README.md");
        let (_, section) = readme.split_once("### Reload").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        for (flag, _) in compared(&config(""), &config(""), false) {
            assert!(section.contains(&format!("`{flag}`")), "{flag}");
        }
    }

    #[test]
    fn flags_that_changed_are_named_once_each() {
        let upstreams =
            ["--upstream 1.1.1.1#a --upstream 1.1.1.2#a", "--ecs pass --allow 10.0.0.0/8"];
        let old = config(&upstreams.join(" "));
        for (line, expected) in [
            (&*upstreams.join(" "), &[][..]),
            // Their order counts.
            (
                "--upstream 1.1.1.2#a --upstream 1.1.1.1#a --ecs pass --allow 10.0.0.0/8",
                &["upstream"],
            ),
            (
                "--upstream 1.1.1.1#a --ecs strip --hedge off",
                &["upstream", "ecs", "allow", "hedge"],
            ),
        ] {
            assert_eq!(changed(&old, &config(line)), expected, "{line}");
        }
    }
}
