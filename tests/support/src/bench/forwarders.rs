//! The forwarders, and how each is started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bench::machine::Cores;
use crate::forwarder::known::Known;
use crate::forwarder::subject::{self, Pins, Running, Wanted};

#[derive(Clone)]
pub struct Forwarder {
    pub name: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    BareLoop,
    DotProxy { program: PathBuf, processes: usize },
    Peer(Known),
}

/// Where queries are to go.
pub struct Destination<'a> {
    pub address: SocketAddr,
    pub ca_file: &'a Path,
}

impl Forwarder {
    /// The forwarders that are compared if nothing else is said.
    pub fn all() -> Vec<Self> {
        let peers = PEERS.map(|known| Self { name: known.name().into(), kind: Kind::Peer(known) });
        let own = Self::dot_proxy(DOT_PROXY.to_owned(), dot_proxy_program(), 1);
        let bare = Self { name: BARE_LOOP.to_owned(), kind: Kind::BareLoop };
        [own].into_iter().chain(peers).chain([bare]).collect()
    }

    /// The one of this name; `NAME=FILE` is another build of dot-proxy.
    pub fn find(word: &str) -> Result<Self, String> {
        if let Some((name, file)) = word.split_once('=') {
            return Ok(Self::dot_proxy(name.to_owned(), file.into(), 1));
        }
        Self::all().into_iter().find(|forwarder| forwarder.name == word).ok_or_else(|| {
            let names: Vec<_> = Self::all().into_iter().map(|forwarder| forwarder.name).collect();
            format!(
                "{word}: no such forwarder: {} or NAME=FILE, another dot-proxy",
                names.join(", ")
            )
        })
    }

    /// Two processes of the same program that share a port, or why that cannot be.
    pub fn twice(&self) -> Result<Self, String> {
        let Kind::DotProxy { program, .. } = &self.kind else {
            return Err("only dot-proxy is started twice".to_owned());
        };
        let help = Command::new(program).arg("--help").stdin(Stdio::null()).output();
        let help = help.map_err(|error| format!("{}: {error}", program.display()))?;
        if !String::from_utf8_lossy(&help.stdout).contains(SHARE) {
            return Err(format!("{} has no {SHARE}", program.display()));
        }
        Ok(Self::dot_proxy(format!("2 x {}", self.name), program.clone(), 2))
    }

    fn dot_proxy(name: String, program: PathBuf, processes: usize) -> Self {
        Self { name, kind: Kind::DotProxy { program, processes } }
    }

    /// dot-proxy, whichever build.
    pub fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::DotProxy { .. })
    }

    pub fn is_peer(&self) -> bool {
        matches!(self.kind, Kind::Peer(_))
    }

    pub fn is_bare_loop(&self) -> bool {
        matches!(self.kind, Kind::BareLoop)
    }

    /// Whether it says on its standard output that it listens.
    pub fn tells(&self) -> bool {
        !self.is_peer()
    }

    /// Starts it on its core, and waits until it listens on a port of its own.
    pub fn start(
        &self,
        cores: &Cores,
        destination: &Destination<'_>,
    ) -> Result<Vec<Running>, String> {
        let listen = SocketAddr::from((subject::own_host(), PORT));
        let processes = match self.kind {
            Kind::DotProxy { processes, .. } => processes,
            _ => 1,
        };
        (0..processes)
            .map(|number| {
                let core = if number == 0 { cores.forwarder } else { cores.second };
                let command = self.command(listen, destination)?;
                cores
                    .on(core, || Running::start_command(command, listen))
                    .map_err(|error| format!("{}: {error}", self.name))
            })
            .collect()
    }

    /// The command that starts one process of it.
    pub fn command(
        &self,
        listen: SocketAddr,
        destination: &Destination<'_>,
    ) -> Result<Command, String> {
        let Destination { address, ca_file } = *destination;
        let upstream = format!("{address}#{NAME}");
        let mut command = match &self.kind {
            Kind::Peer(known) => {
                let wanted = Wanted {
                    listen,
                    upstreams: &[(address, NAME)],
                    ca_file,
                    pins: Pins::default(),
                    client_idle: None,
                    upstream_idle: None,
                };
                return known.command_with(&wanted, settings(*known));
            }
            Kind::BareLoop => {
                let own = std::env::current_exe()
                    .map_err(|error| format!("where is this program? {error}"))?;
                let mut command = Command::new(own);
                command.arg(BARE_LOOP);
                command
            }
            Kind::DotProxy { program, processes } => {
                let mut command = Command::new(program);
                command.args(["--query-log", "off"]);
                if *processes > 1 {
                    command.args([SHARE, "on"]);
                }
                command
            }
        };
        command.args(["--listen", &listen.to_string(), "--upstream", &upstream]);
        command.arg("--ca-file").arg(ca_file);
        Ok(command)
    }

    /// The program, if it is on this machine.
    pub fn missing(&self) -> Option<String> {
        let is_file = |file: PathBuf| file.is_file();
        match &self.kind {
            Kind::BareLoop => None,
            Kind::DotProxy { program, .. } => {
                (!program.is_file()).then(|| format!("there is no {}", program.display()))
            }
            Kind::Peer(known) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let found = std::env::split_paths(&path)
                    .any(|directory| is_file(directory.join(known.name())));
                (!found).then(|| "not here; scripts/install-test-packages installs it".to_owned())
            }
        }
    }
}

/// What a peer is told besides what it needs for forwarding over TLS: to log nothing, and to be as fast on
/// one core as it can be. A cache is of no use where every name is new, and without it unbound needs a
/// tenth less; so it does with connections that carry more than 200 queries, which also lose none. With more
/// or fewer than its ten threads for TCP and TLS dnsdist is not faster.
fn settings(known: Known) -> &'static str {
    match known {
        Known::Unbound => {
            "server:\n  verbosity: 0\n  num-threads: 1\n  so-reuseport: no\n  so-rcvbuf: 1m\n  \
             msg-cache-size: 0\n  rrset-cache-size: 0\n  max-reuse-tcp-queries: 60000\n"
        }
        Known::Dnsdist => "setVerboseHealthChecks(false)\n",
        _ => "",
    }
}

fn dot_proxy_program() -> PathBuf {
    std::env::var_os("DOT_PROXY").map_or_else(|| "target/release/dot-proxy".into(), PathBuf::from)
}

/// The name in the upstream's certificate.
pub const NAME: &str = "dot.example";

const DOT_PROXY: &str = "dot-proxy";
const BARE_LOOP: &str = "bare-loop";
const PEERS: [Known; 3] = [Known::Unbound, Known::Dnsdist, Known::Stubby];

/// The flag by which several processes share a port.
const SHARE: &str = "--reuse-port";

/// The port, free as the address is this program's alone.
const PORT: u16 = 5300;
