//! The configuration and the files of certificates, read again while the program runs.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::access::{ServedSubnets, log_served};
use super::changes::{changed, needing_restart};
use super::reactor::upstream_identities;
use super::sockets::Context;
use super::upstream::{self, UpstreamTarget};
use crate::config::{self, Command, Config, Host};
use crate::forwarder::{UPSTREAMS_MAX, UpstreamIndex, UpstreamUpdate};
use crate::host::network::Network;
use crate::host::sandbox::Confined;
use crate::host::{file, rights};
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
    /// Whether files can be read in the folders alone of those of the start.
    are_files_confined: bool,
    /// Whether connections may hold a certificate of ours, as they are counted at the start.
    has_client: bool,
    /// Octets that all files of certificates may have.
    files_max: usize,
    /// Whether root, who may read all files, is given up.
    gives_up_root: bool,
}

impl Reloader {
    pub(crate) fn new(config: &Config) -> Self {
        let files_max = config.files.octets_again_max();
        let gives_up_root = rights::gives_up_root(config.user);
        Self {
            source: None,
            config: config.clone(),
            ports: None,
            are_files_confined: false,
            has_client: config.files.client.is_some(),
            files_max,
            gives_up_root,
        }
    }

    /// Returns the files that are read again.
    pub(crate) fn set_source(&mut self, source: Source) -> Vec<PathBuf> {
        self.source = Some(source);
        read_files(&self.config).map(Path::to_path_buf).collect()
    }

    pub(crate) fn note_confined(&mut self, confined: Confined) {
        self.are_files_confined = confined.files;
        let ports = || self.config.upstreams.iter().map(|upstream| upstream.address.port());
        self.ports = confined.ports.then(|| ports().collect());
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

    /// The configuration that counts.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// What everything is to be; `None`: there is nothing to read.
    fn prepare(&self, cx: &Context) -> Result<Option<New>, String> {
        let mut config = match &self.source {
            Some(source) if self.config.file.is_some() => {
                source.read().map_err(|problem| self.explained(problem, &self.config))?
            }
            _ if self.config.files.paths().next().is_some() => self.config.clone(),
            _ => return Ok(None),
        };
        if let Some(file) = config.file.as_ref().filter(|_| config.flags_of_file == 0)
            && self.config.flags_of_file > 0
        {
            // It is being written, or was cut off.
            return Err(format!("--config {}: has no flag any more", file.display()));
        }
        needing_restart(&self.config, &config, self.has_client)?;
        self.check_ports(&config)?;
        config.files.again = Some(self.files_max);
        let connectors =
            upstream::connectors(&config).map_err(|problem| self.explained(problem, &config))?;
        let (updates, targets) = plan(&config, connectors, cx)?;
        Ok(Some(New { config, updates, targets }))
    }

    /// What is wrong, with why that may be so now and was not at the start.
    fn explained(&self, problem: String, config: &Config) -> String {
        let is_denied = |path: &&Path| {
            file::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        let is_it = problem.contains(file::NOT_PERMITTED);
        let Some(denied) = read_files(config).find(is_denied).filter(|_| is_it) else {
            return problem;
        };
        // The sandbox lets no directory be opened. What it is, is a matter of words here.
        if denied.is_dir() {
            return problem
                .replace(file::NOT_PERMITTED, "; it is no file, and only files are read again");
        }
        if !rights::may_read(denied) {
            let why = if self.gives_up_root { " (root was given up after the start)" } else { "" };
            return problem + why;
        }
        if self.are_files_confined {
            return problem.replace(file::NOT_PERMITTED, SANDBOXED);
        }
        problem
    }

    fn check_ports(&self, config: &Config) -> Result<(), String> {
        let Some(ports) = &self.ports else { return Ok(()) };
        let mut upstreams = config.upstreams.iter();
        match upstreams.find(|upstream| !ports.contains(&upstream.address.port())) {
            Some(upstream) => Err(config.placed(format!(
                "--upstream {upstream}: no upstream had port {} at the start, and the sandbox lets no other be \
                 connected to: restart, or start with --sandbox off",
                upstream.address.port()
            ))),
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
        let flags = changed(&self.config, &config);
        let flags = if flags.is_empty() { "no flag".into() } else { flags.join(", ") };
        log::info!(
            "SIGHUP: read again: {flags} changed; upstreams: {count}, of which {fresh} are new or changed"
        );
        if self.config.policy.access.subnets && !config.policy.access.subnets {
            log::warn!(
                "--allow local: is not given any more, and to give it again takes a restart"
            );
        }
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

/// The files that are read again, in the order in which they are.
fn read_files(config: &Config) -> impl Iterator<Item = &Path> {
    config.file.iter().map(PathBuf::as_path).chain(config.files.paths())
}

/// Why a file cannot be read whose mode lets it be read, and what to do.
const SANDBOXED: &str = "; its mode lets it be read, and the sandbox does not: it lets files be read only in the folders \
                         of those that were named at the start, and not in others that took their names, or to which \
                         links lead since: put it there, restart, or start with --sandbox off";

/// By which index each upstream is asked. One that is still there by address, name and trust keeps its own. What is
/// known otherwise gets another: connections to what it was before may not speak for it.
fn plan(
    config: &Config,
    connectors: Vec<Connector>,
    cx: &Context,
) -> Result<(Vec<UpstreamUpdate>, Targets), String> {
    let free: Vec<UpstreamIndex> = cx.forwarder.free_upstreams().collect();
    let most = config.size.upstream_indexes_max();
    let in_use = UPSTREAMS_MAX - free.len();
    let mut unused = free.iter().copied().take(most.saturating_sub(in_use));
    let (mut updates, mut targets) = (Vec::new(), Vec::new());
    let identities = upstream_identities(&config.upstreams);
    for ((upstream, identity), connector) in config.upstreams.iter().zip(identities).zip(connectors)
    {
        let mut known = (0..cx.targets.len()).map(UpstreamIndex::new);
        let known = known.find(|index| {
            let target = &cx.targets[index.index()];
            let is_it = target.address() == upstream.address && *target.shown() == *identity.shown;
            is_it && target.is_same(&connector) && !free.contains(index)
        });
        let index = known.or_else(|| unused.next()).ok_or_else(|| {
            format!(
                "connections to upstreams that were removed before are still in use, and with those that are \
                 new they are more than {most}: send SIGHUP again in some seconds"
            )
        })?;
        let is_new = known.is_none();
        if is_new {
            let shown = identity.shown.clone();
            targets.push((index, UpstreamTarget::new(shown, upstream.address, connector)));
        }
        updates.push(UpstreamUpdate { index, identity, is_new });
    }
    Ok((updates, targets))
}
