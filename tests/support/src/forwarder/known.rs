//! Forwarders other than the one of the tests: any command, and some whose settings are known.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::SockRef;

use crate::forwarder::subject::{self, Pins, Subject, Wanted};

/// A command with places for what changes.
pub struct Template {
    words: Vec<String>,
    /// The words that are repeated for every upstream.
    upstream: Option<(usize, usize)>,
}

impl Template {
    pub fn new(words: &[String]) -> Result<Self, String> {
        let has = |word: &String, places: &[&str]| places.iter().any(|place| word.contains(place));
        if !words.iter().any(|word| has(word, &["{listen_ip}", "{listen_port}"])) {
            return Err(format!("{}: no {{listen_ip}} in the command; see --help", words[0]));
        }
        let about: Vec<_> = (0..words.len())
            .filter(|n| has(&words[*n], &["{upstream_ip}", "{upstream_port}", "{name}"]))
            .collect();
        let upstream = match about[..] {
            [] => return Err(format!("{}: no {{upstream_ip}} in the command", words[0])),
            // The words of another shell.
            [n] if words[n].contains(char::is_whitespace) => None,
            [n] if n > 0 && words[n - 1].starts_with('-') => Some((n - 1, n + 1)),
            [n] => Some((n, n + 1)),
            _ => None,
        };
        Ok(Self { words: words.to_vec(), upstream })
    }
}

impl Subject for Template {
    fn command(&self, wanted: &Wanted<'_>) -> Result<Command, String> {
        if !wanted.pins.any_of.is_empty() {
            return Err("the command has no place for pins".to_owned());
        }
        let (start, end) = match self.upstream {
            Some(place) => place,
            None if wanted.upstreams.len() > 1 => {
                return Err("the command has no place for a second upstream".to_owned());
            }
            None => (self.words.len(), self.words.len()),
        };
        let mut words: Vec<_> =
            self.words[..start].iter().map(|word| filled(word, wanted, 0)).collect();
        for upstream in 0..wanted.upstreams.len() {
            let repeated = &self.words[start..end];
            words.extend(repeated.iter().map(|word| filled(word, wanted, upstream)));
        }
        words.extend(self.words[end..].iter().map(|word| filled(word, wanted, 0)));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        Ok(command)
    }

    fn receive_buffer(&self) -> usize {
        usual_receive_buffer()
    }
}

/// A word with its places filled.
fn filled(word: &str, wanted: &Wanted<'_>, upstream: usize) -> String {
    let (address, name) = wanted.upstreams[upstream];
    word.replace("{listen_ip}", &wanted.listen.ip().to_string())
        .replace("{listen_port}", &wanted.listen.port().to_string())
        .replace("{upstream_ip}", &address.ip().to_string())
        .replace("{upstream_port}", &address.port().to_string())
        .replace("{name}", name)
        .replace("{ca}", &wanted.ca_file.display().to_string())
}

/// Forwarders whose configuration is written here, as their documentation recommends it for forwarding
/// over TLS with verification, and with limits raised where they are meant for a few users.
#[derive(Clone, Copy)]
pub enum Known {
    DotProxy,
    Unbound,
    Stubby,
    Dnsdist,
    Kresd,
}

impl Known {
    pub const ALL: [Self; 5] =
        [Self::DotProxy, Self::Unbound, Self::Stubby, Self::Dnsdist, Self::Kresd];

    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::DotProxy => "dot-proxy",
            Self::Unbound => "unbound",
            Self::Stubby => "stubby",
            Self::Dnsdist => "dnsdist",
            Self::Kresd => "kresd",
        }
    }

    /// By which stubby tells which syntax a file is in.
    fn extension(self) -> &'static str {
        if let Self::Stubby = self { "yml" } else { "conf" }
    }

    /// Starts it with more settings than it has otherwise.
    pub fn command_with(self, wanted: &Wanted<'_>, more: &str) -> Result<Command, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);

        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = directory().join(format!("{}-{number}.{}", self.name(), self.extension()));
        fs::create_dir_all(directory())
            .map_err(|error| format!("cannot create {}: {error}", directory().display()))?;
        fs::write(&file, self.configuration(wanted) + more)
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        let mut command = Command::new(self.name());
        match self {
            Self::DotProxy => &mut command,
            Self::Unbound => command.arg("-d").arg("-c").arg(file),
            Self::Stubby => command.arg("-C").arg(file),
            Self::Dnsdist => command.arg("--supervised").arg("-C").arg(file),
            Self::Kresd => {
                // kresd keeps its cache and its control socket in the directory it is given.
                let own = file.with_extension("d");
                fs::create_dir_all(&own)
                    .map_err(|error| format!("cannot create {}: {error}", own.display()))?;
                command.arg("-n").arg("-c").arg(file).arg(own)
            }
        };
        Ok(command)
    }

    fn configuration(self, wanted: &Wanted<'_>) -> String {
        let (ip, port) = (wanted.listen.ip(), wanted.listen.port());
        let ca = wanted.ca_file.display();
        let upstreams = |line: &dyn Fn(String, u16, &str) -> String| -> String {
            let one = |(address, name): &(SocketAddr, &str)| {
                line(address.ip().to_string(), address.port(), name)
            };
            wanted.upstreams.iter().map(one).collect()
        };
        let digests: Vec<_> =
            wanted.pins.any_of.iter().filter_map(|pin| pin.strip_prefix("sha256/")).collect();
        match self {
            Self::DotProxy => String::new(),
            Self::Unbound => format!(
                "server:\n  directory: \"/tmp\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  \
                 use-syslog: no\n  interface: {ip}@{port}\n  access-control: 127.0.0.0/8 allow\n  \
                 do-not-query-localhost: no\n  tls-cert-bundle: \"{ca}\"\n  module-config: \"iterator\"\n  \
                 incoming-num-tcp: 150\n  outgoing-num-tcp: 50\n  num-queries-per-thread: 4096\n\
                 remote-control:\n  control-enable: no\n\
                 forward-zone:\n  name: \".\"\n  forward-tls-upstream: yes\n{}",
                upstreams(&|ip, port, name| format!("  forward-addr: {ip}@{port}#{name}\n"))
            ),
            Self::Stubby => format!(
                "resolution_type: GETDNS_RESOLUTION_STUB\n\
                 dns_transport_list:\n  - GETDNS_TRANSPORT_TLS\n\
                 tls_authentication: GETDNS_AUTHENTICATION_REQUIRED\n\
                 tls_query_padding_blocksize: 128\nedns_client_subnet_private: 1\n\
                 round_robin_upstreams: 1\nidle_timeout: 10000\ntls_ca_file: \"{ca}\"\n\
                 listen_addresses:\n  - {ip}@{port}\n\
                 upstream_recursive_servers:\n{}",
                upstreams(&|ip, port, name| {
                    let name = if wanted.pins.alone {
                        String::new()
                    } else {
                        format!("    tls_auth_name: \"{name}\"\n")
                    };
                    let pin = |pin| format!("      - digest: \"sha256\"\n        value: {pin}\n");
                    let pins: String = digests.iter().map(pin).collect();
                    let pinset = if pins.is_empty() { "" } else { "    tls_pubkey_pinset:\n" };
                    format!("  - address_data: {ip}\n    tls_port: {port}\n{name}{pinset}{pins}")
                })
            ),
            Self::Dnsdist => format!(
                "setSecurityPollSuffix(\"\")\nsetACL({{\"127.0.0.0/8\"}})\n\
                 setLocal(\"{ip}:{port}\", {{maxInFlight=1000}})\n\
                 setServerPolicy(firstAvailable)\nsetServFailWhenNoServer(true)\n{}",
                upstreams(&|ip, port, name| format!(
                    "newServer({{address=\"{ip}:{port}\", tls=\"openssl\", subjectName=\"{name}\", \
                     validateCertificates=true, caStore=\"{ca}\", maxInFlight=1000}})\n"
                ))
            ),
            // Without the trust anchor: the servers of the tests sign nothing.
            Self::Kresd => format!(
                "net.listen('{ip}', {port}, {{ kind = 'dns' }})\ntrust_anchors.remove('.')\n\
                 cache.size = 10 * MB\npolicy.add(policy.all(policy.TLS_FORWARD({{\n{}}})))\n",
                upstreams(&|ip, port, name| {
                    let known_by = if wanted.pins.alone {
                        format!("pin_sha256 = {{ '{}' }}", digests.join("', '"))
                    } else {
                        format!("hostname = '{name}', ca_file = '{ca}'")
                    };
                    format!("  {{ '{ip}@{port}', {known_by} }},\n")
                })
            ),
        }
    }
}

impl Subject for Known {
    fn command(&self, wanted: &Wanted<'_>) -> Result<Command, String> {
        if let Self::DotProxy = self {
            let program = std::env::var("DOT_PROXY");
            let program = program.unwrap_or_else(|_| "target/release/dot-proxy".to_owned());
            let words = [
                &program,
                "--listen",
                "{listen_ip}:{listen_port}",
                "--query-log",
                "off",
                "--ca-file",
                "{ca}",
                "--upstream",
                "{upstream_ip}:{upstream_port}#{name}",
            ];
            let known_by =
                |(address, name): &(SocketAddr, &str)| (*address, wanted.pins.behind(name));
            let upstreams: Vec<_> = wanted.upstreams.iter().map(known_by).collect();
            let upstreams: Vec<_> =
                upstreams.iter().map(|(address, known_by)| (*address, &**known_by)).collect();
            let wanted = Wanted { upstreams: &upstreams, pins: Pins::default(), ..*wanted };
            return Template::new(&words.map(str::to_owned))?.command(&wanted);
        }
        match (self, wanted.pins) {
            (_, Pins { any_of: [], .. }) => {}
            (Self::Unbound | Self::Dnsdist, _) => {
                return Err("it has no setting for pins".to_owned());
            }
            (Self::Kresd, Pins { alone: false, .. }) => {
                return Err("it takes pins in place of names only".to_owned());
            }
            _ => {}
        }
        self.command_with(wanted, "")
    }

    fn receive_buffer(&self) -> usize {
        match self {
            Self::DotProxy => subject::granted_receive_buffer(),
            _ => usual_receive_buffer(),
        }
    }
}

/// Where configurations are written; whoever used it removes it.
pub fn directory() -> PathBuf {
    std::env::temp_dir().join(format!("dot-proxy-faults-{}", std::process::id()))
}

/// What a socket has that asks for nothing.
fn usual_receive_buffer() -> usize {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    SockRef::from(&socket).recv_buffer_size().expect("a socket")
}
