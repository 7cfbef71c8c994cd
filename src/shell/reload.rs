//! The configuration and the files of certificates, read again while the program runs.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::access::{ServedSubnets, log_served};
use super::reactor::upstream_identities;
use super::sockets::Context;
use super::upstream::{self, UpstreamTarget};
use crate::config::{self, Command, Config, Host, UpstreamSpec};
use crate::forwarder::{UpstreamIndex, UpstreamUpdate};
use crate::host::network::Network;
use crate::tls::Connector;

/// By what the configuration is read again.
#[derive(Debug)]
pub struct Source {
    /// The arguments of the program.
    pub args: Vec<OsString>,
    /// The host, as it was at the start: inside the sandbox, users and interfaces are not found.
    pub host: Host,
}

impl Source {
    fn read(&self) -> Result<Config, String> {
        match config::parse(self.args.clone(), self.host) {
            Ok(Command::Run(config)) => Ok(*config),
            Ok(_) => Err("the arguments ask for something else".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What is read again, and what came of it the last time.
#[derive(Debug)]
pub(crate) struct Reloader {
    source: Option<Source>,
    config: Config,
    /// The ports of upstreams at the start, if no others can be connected to.
    ports: Option<Vec<u16>>,
}

impl Reloader {
    pub(crate) fn new(config: &Config) -> Self {
        Self { source: None, config: config.clone(), ports: None }
    }

    /// Returns the files that are read again.
    pub(crate) fn set_source(&mut self, source: Source) -> Vec<PathBuf> {
        self.source = Some(source);
        let Config { file, files, .. } = &self.config;
        file.iter().cloned().chain(files.paths().map(Path::to_path_buf)).collect()
    }

    pub(crate) fn note_confined_ports(&mut self) {
        let upstreams = self.config.upstreams.iter();
        self.ports = Some(upstreams.map(|upstream| upstream.address.port()).collect());
    }

    /// Reads everything again. Nothing changes if anything is wrong.
    pub(crate) fn reload(
        &mut self,
        cx: &mut Context,
        network: Option<&mut Network>,
        subnets: &mut Option<ServedSubnets>,
    ) -> Reload {
        match self.prepare(cx) {
            Ok(Some(new)) => {
                self.change(new, cx, network, subnets);
                return Reload::Done;
            }
            Ok(None) => log::info!(
                "SIGHUP: nothing is read again, as neither --config nor --ca-file nor --client-cert is given"
            ),
            Err(problem) => {
                log::error!("SIGHUP: nothing is changed: {problem}");
                return Reload::Failed;
            }
        }
        Reload::Nothing
    }

    /// The upstreams that are asked, in order of preference.
    pub(crate) fn upstreams(&self) -> &[UpstreamSpec] {
        &self.config.upstreams
    }

    /// What everything is to be; `None`: there is nothing to read.
    fn prepare(&self, cx: &Context) -> Result<Option<New>, String> {
        let config = match &self.source {
            Some(source) if self.config.file.is_some() => source.read().map_err(explained)?,
            _ if self.config.files.paths().next().is_some() => self.config.clone(),
            _ => return Ok(None),
        };
        let needing_restart = needing_restart(&self.config, &config);
        if !needing_restart.is_empty() {
            let names = needing_restart.join(", ");
            return Err(format!("{names}: what is said of that counts after a restart only"));
        }
        self.check_ports(&config)?;
        for (flag, file) in config.files.given() {
            // A pipe could be waited for.
            if fs::metadata(file).is_ok_and(|metadata| !metadata.is_file()) {
                let file = file.display();
                let problem = format!("{flag} {file}: is no file, and only files are read again");
                return Err(config.placed(problem));
            }
        }
        let connectors = upstream::connectors(&config).map_err(explained)?;
        let (updates, targets) = plan(&config, connectors, cx)?;
        Ok(Some(New { config, updates, targets }))
    }

    fn check_ports(&self, config: &Config) -> Result<(), String> {
        let Some(ports) = &self.ports else { return Ok(()) };
        let mut upstreams = config.upstreams.iter();
        match upstreams.find(|upstream| !ports.contains(&upstream.address.port())) {
            Some(upstream) => Err(format!(
                "--upstream {upstream}: no upstream had port {} at the start, and the sandbox lets no other be \
                 connected to: restart, or start with --sandbox off",
                upstream.address.port()
            )),
            None => Ok(()),
        }
    }

    fn change(
        &mut self,
        New { config, updates, targets }: New,
        cx: &mut Context,
        mut network: Option<&mut Network>,
        subnets: &mut Option<ServedSubnets>,
    ) {
        let fresh = targets.len();
        for (index, target) in targets {
            if let Some(network) = &mut network {
                network.forget_way(index.index());
            }
            match cx.targets.get_mut(index.index()) {
                Some(place) => *place = target,
                None => cx.targets.push(target),
            }
        }
        for (index, target) in cx.targets.iter_mut().enumerate() {
            if !updates.iter().any(|update| update.index.index() == index) {
                target.forget_session();
            }
        }
        let count = updates.len();
        cx.forwarder.handle_upstreams(cx.now, updates);
        if !config.policy.access.subnets {
            *subnets = None;
        }
        let served = subnets.as_ref().map_or(&[][..], ServedSubnets::served);
        let policy = config.policy.clone();
        cx.forwarder.handle_policy(cx.now, policy, &config.limits, served);
        log::set_max_level(config.log_level);
        log::info!("SIGHUP: read again: upstreams: {count}, of which {fresh} are new or changed");
        let Config { policy: before, warnings, .. } = &self.config;
        for warning in config.warnings.iter().filter(|warning| !warnings.contains(warning)) {
            log::warn!("{warning}");
        }
        if (&before.access, &before.rate) != (&config.policy.access, &config.policy.rate) {
            log_served(&config.policy, config.listeners());
        }
        self.config = config;
    }
}

/// What came of reading everything again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    /// It may be another than before.
    Done,
    /// Something is wrong.
    Failed,
    /// There is nothing to read.
    Nothing,
}

/// Everything as it is to be.
struct New {
    config: Config,
    updates: Vec<UpstreamUpdate>,
    /// The upstreams that are new, or known by something else than before.
    targets: Targets,
}

/// Upstreams by their indexes.
type Targets = Vec<(UpstreamIndex, UpstreamTarget)>;

/// By which index each upstream is asked. One that is still there by address and name keeps its own.
fn plan(
    config: &Config,
    connectors: Vec<Connector>,
    cx: &Context,
) -> Result<(Vec<UpstreamUpdate>, Targets), String> {
    let free: Vec<UpstreamIndex> = cx.forwarder.free_upstreams().collect();
    let mut unused = free.iter().copied();
    let (mut updates, mut targets) = (Vec::new(), Vec::new());
    let identities = upstream_identities(&config.upstreams);
    for ((upstream, identity), connector) in config.upstreams.iter().zip(identities).zip(connectors)
    {
        let mut known = (0..cx.targets.len()).map(UpstreamIndex::new);
        let known = known.find(|index| {
            let target = &cx.targets[index.index()];
            let is_it = target.address() == upstream.address && *target.shown() == *identity.shown;
            is_it && !free.contains(index)
        });
        let index = known.or_else(|| unused.next()).ok_or(
            "connections to upstreams that were removed before are still in use, and with those that are new \
             they are more than 16: send SIGHUP again in some seconds",
        )?;
        let is_new = known.is_none_or(|index| !cx.targets[index.index()].is_same(&connector));
        if is_new {
            let shown = identity.shown.clone();
            targets.push((index, UpstreamTarget::new(shown, upstream.address, connector)));
        }
        updates.push(UpstreamUpdate { index, identity, is_new });
    }
    Ok((updates, targets))
}

/// Flags of which another value counts after a restart only, as sockets, tables or rights depend on them.
fn needing_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let is_other = [
        ("--listen", old.listen != new.listen),
        ("--reuse-port", old.reuse_port != new.reuse_port),
        ("--freebind", old.freebind != new.freebind),
        ("--upstream-source", old.upstream_source != new.upstream_source),
        ("--allow local", !old.policy.access.subnets && new.policy.access.subnets),
        ("--metrics", old.metrics != new.metrics),
        ("--drain", old.drain != new.drain),
        ("--log-format", old.log_format != new.log_format),
        ("--user", old.user != new.user),
        ("--sandbox", old.sandbox != new.sandbox),
        ("--size", old.size != new.size),
        ("--tcp-clients-max", old.limits.clients_max != new.limits.clients_max),
        (
            "--tcp-clients-per-address-max",
            old.limits.clients_per_address_max != new.limits.clients_per_address_max,
        ),
    ];
    // Other limits follow from the size.
    let is_named = |of_size: bool, flag: &str| !of_size || !flag.starts_with("--tcp-");
    let of_size = old.size != new.size;
    let named =
        is_other.into_iter().filter(|(flag, is_other)| *is_other && is_named(of_size, flag));
    named.map(|(flag, _)| flag).collect()
}

/// What is wrong, with why that may be so now and was not at the start.
fn explained(problem: String) -> String {
    if problem.to_lowercase().contains("permission denied") {
        return problem
            + " (root was given up, and the sandbox lets only files in the folders of those be read that were \
               named at the start)";
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: &str) -> Config {
        let args = line.split_whitespace().map(Into::into).collect();
        Source { args, host: Host::default() }.read().unwrap()
    }

    #[test]
    fn what_takes_a_restart_is_named() {
        let base = "--listen 127.0.0.1:53";
        for (line, expected) in [
            ("--listen 127.0.0.1:53 --upstream quad9 --log-level debug --rate-limit 5", &[][..]),
            ("--listen 127.0.0.1:54", &["--listen"]),
            ("--listen 127.0.0.1:53 --size small", &["--size"]),
            ("--listen 127.0.0.1:53 --tcp-clients-max 90", &["--tcp-clients-max"]),
            (
                "--listen 127.0.0.1:53 --user 7 --sandbox off --reuse-port on --allow local",
                &["--reuse-port", "--allow local", "--user", "--sandbox"],
            ),
        ] {
            assert_eq!(needing_restart(&config(base), &config(line)), expected, "{line}");
        }
    }
}
