//! SIGHUP: the configuration and the files that it names are read again while queries are under way.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::metrics::scrape;
use support::message::{A, NOERROR, SERVFAIL};
use support::skip::skip;
use support::{Authority, DotServer, Proxy, Query, Response, Setup, TcpClient, UdpClient};

/// A configuration in a file, and the proxy that it is for.
struct Bed {
    authority: Authority,
    servers: Vec<DotServer>,
    file: PathBuf,
    proxy: Option<Proxy>,
}

impl Bed {
    fn new(name: &str, servers: usize) -> Self {
        let authority = Authority::new();
        let server = |_| DotServer::start(Setup::new(authority.identity("dot.example")));
        let servers = (0..servers).map(server).collect();
        // A folder of its own: the sandbox lets everything in it be read.
        let folder =
            std::env::temp_dir().join(format!("dot-proxy-reload-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a writable directory");
        Self { authority, servers, file: folder.join("conf"), proxy: None }
    }

    /// The lines of a configuration with these servers.
    fn lines(&self, servers: &[usize], more: &str) -> String {
        let upstream = |server: &usize| self.servers[*server].address().to_string();
        let upstreams = servers.iter().map(|it| format!("upstream {}#dot.example\n", upstream(it)));
        let upstreams: String = upstreams.collect();
        let ca = self.authority.file().display();
        format!("ca-file {ca}\nquery-log on\n{upstreams}{more}")
    }

    fn write(&self, lines: &str) {
        // As editors do it, and ConfigMaps: another file takes its name.
        let new = self.file.with_extension("new");
        fs::write(&new, lines).expect("a writable directory");
        fs::rename(&new, &self.file).expect("a writable directory");
    }

    fn start(self, lines: &str, more: &[&str]) -> Self {
        self.start_with(lines, fs::Permissions::from_mode(0o644), more)
    }

    fn start_with(mut self, lines: &str, permissions: fs::Permissions, more: &[&str]) -> Self {
        self.write(lines);
        fs::set_permissions(&self.file, permissions).expect("our file");
        let file = self.file.display().to_string();
        self.proxy = Some(Proxy::start(&[&["--config", &file], more].concat()));
        self
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("it was started")
    }

    /// Has the configuration read again, and gives the line about it.
    #[track_caller]
    fn reload(&self) -> String {
        let is_line = |line: &str| line.contains("SIGHUP: ");
        let before = self.proxy().lines().iter().filter(|line| is_line(line)).count();
        self.proxy().signal(Signal::HUP);
        self.proxy().await_lines("line about it", before + 1, is_line).pop().expect("a line")
    }

    #[track_caller]
    fn assert_reloads(&self, lines: &str) {
        self.write(lines);
        let line = self.reload();
        assert!(line.contains("SIGHUP: read again"), "{line}");
    }

    /// Whether the last reload succeeded, when the configuration was read last, and how often it was, well or not.
    fn counted(&self) -> [String; 4] {
        let samples = scrape(self.proxy().metrics());
        [
            "last_reload_successful",
            "last_reload_success_timestamp_seconds",
            "reloads_total{result=\"success\"}",
            "reloads_total{result=\"failure\"}",
        ]
        .map(|name| samples[&format!("dot_proxy_config_{name}")].to_string())
    }

    fn ask(&self, name: &str) -> u16 {
        let query = Query::new(name, A).bytes();
        Response::read(&UdpClient::new(self.proxy().address()).ask(&query)).rcode
    }

    fn queries(&self, server: usize) -> usize {
        self.servers[server].log().queries.len()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(folder) = self.file.parent() {
            fs::remove_dir_all(folder).ok();
        }
    }
}

#[test]
fn metrics_have_what_came_of_it_and_when() {
    let bed = Bed::new("counted", 1);
    let lines = bed.lines(&[0], "");
    let bed = bed.start(&lines, &["--metrics", "127.0.0.1:0"]);
    let [successful, at_start, done, failed] = bed.counted();
    assert_eq!([successful, done, failed], ["1", "0", "0"]);
    let time = |text: &str| text.parse::<f64>().expect("a number");
    assert!(time(&at_start) > 1.7e9, "{at_start}");
    bed.write("no-such-flag on\n");
    assert!(bed.reload().contains("no-such-flag"));
    assert_eq!(bed.counted(), ["0", &at_start, "0", "1"]);
    bed.assert_reloads(&lines);
    let [successful, at, done, failed] = bed.counted();
    assert_eq!([successful, done, failed], ["1", "1", "1"]);
    assert!(time(&at) > time(&at_start), "{at} {at_start}");
}

#[test]
fn the_bound_of_memory_grows_with_the_networks_of_another_configuration() {
    let bed = Bed::new("bound", 1);
    let lines = bed.lines(&[0], "");
    let bed = bed.start(&lines, &["--metrics", "127.0.0.1:0"]);
    let bound = || -> u64 {
        let samples = scrape(bed.proxy().metrics());
        samples["dot_proxy_memory_bound_bytes"].to_string().parse().expect("a number")
    };
    let before = bound();
    let network = |n| format!("allow 10.{}.{}.0/24\n", n / 250, n % 250);
    let networks = (0..900).map(network).collect::<Vec<_>>().concat();
    bed.assert_reloads(&bed.lines(&[0], &networks));
    assert!(bound() > before + 900 * 32, "{before} {}", bound());
    bed.assert_reloads(&lines);
    assert_eq!(bound(), before);
}

#[test]
fn that_it_works_again_is_said_once_it_does_and_what_is_wrong_now_at_once() {
    let bed = Bed::new("wrong", 1);
    let right = bed.lines(&[0], "");
    let named = |name: &str| right.replace("#dot.example", &format!("#{name}"));
    let bed = bed.start(&named("wrong1.example"), &[]);
    let outages = |n| {
        let is_outage = |line: &str| line.contains("no upstream works");
        bed.proxy().await_lines("outage", n, is_outage).pop().expect("a line")
    };
    assert_eq!(bed.ask("a.example"), SERVFAIL);
    assert!(outages(1).contains("#wrong1.example: certificate"));
    bed.assert_reloads(&named("wrong2.example"));
    assert_eq!(bed.ask("a.example"), SERVFAIL);
    assert!(outages(2).contains("#wrong2.example: certificate"));
    let is_good = |line: &str| line.contains("answered again");
    assert!(!bed.proxy().lines().iter().any(|line| is_good(line)), "{:#?}", bed.proxy().lines());
    bed.assert_reloads(&right);
    assert_eq!(bed.ask("a.example"), NOERROR);
    bed.proxy().await_line("that it works", is_good);
}

#[test]
fn upstreams_are_swapped_and_those_that_stay_keep_their_connection() {
    let bed = Bed::new("swap", 3);
    let lines = bed.lines(&[0, 1], "");
    let bed = bed.start(&lines, &["--sandbox", "off"]);
    assert_eq!(bed.ask("a.example"), NOERROR);
    bed.write(&bed.lines(&[0, 2], "ecs pass\n"));
    let line = bed.reload();
    assert!(
        line.contains("read again: upstream, ecs changed; upstreams: 2, of which 1 are"),
        "{line}"
    );
    assert_eq!(bed.ask("b.example"), NOERROR);
    assert_eq!((bed.queries(0), bed.servers[0].log().connections.len()), (2, 1));
    bed.assert_reloads(&bed.lines(&[2], ""));
    assert_eq!(bed.ask("c.example"), NOERROR);
    assert_eq!((bed.queries(0), bed.queries(2)), (2, 1));
}

/// As many as there may be, each in use, when what all of them depend on changes.
#[test]
fn all_upstreams_are_changed_at_once() {
    const SERVERS: usize = 16;

    let all: Vec<_> = (0..SERVERS).collect();
    let bed = Bed::new("all", SERVERS);
    let lines = bed.lines(&all, "upstream-policy spread\n");
    let bed = bed.start(&lines, &[]);
    for n in 0..4 * SERVERS {
        assert_eq!(bed.ask(&format!("a{n}.example")), NOERROR);
    }
    assert!(all.iter().all(|server| bed.queries(*server) > 0), "each has a connection");
    bed.write(&bed.lines(&all, "upstream-policy spread\nkey-exchange classic\n"));
    let line = bed.reload();
    assert!(line.ends_with("upstreams: 16, of which 16 are new or changed"), "{line}");
    for n in 0..4 * SERVERS {
        assert_eq!(bed.ask(&format!("b{n}.example")), NOERROR);
    }
    // The first are still in use, or not any more.
    bed.write(&lines);
    while bed.reload().contains("send SIGHUP again in some seconds") {}
    assert_eq!(bed.ask("c.example"), NOERROR);
}

#[test]
fn a_hundred_reloads_under_load_lose_nothing_and_close_no_client() {
    let bed = Bed::new("load", 2);
    let lines = bed.lines(&[0], "");
    let bed = bed.start(&lines, &["--sandbox", "off"]);
    let mut over_tcp = TcpClient::new(bed.proxy().address());
    let client = UdpClient::new(bed.proxy().address());
    let mut id = 0;
    for round in 0..100 {
        for _ in 0..10 {
            id += 1;
            client.send(&Query::new(&format!("u{id}.example"), A).id(id).bytes());
            over_tcp.send(&Query::new(&format!("t{id}.example"), A).id(id).bytes());
        }
        bed.assert_reloads(&bed.lines(&[(round + 1) % 2], ""));
        for _ in 0..10 {
            assert_eq!(Response::read(&client.receive()).rcode, NOERROR);
            assert_eq!(Response::read(&over_tcp.receive()).rcode, NOERROR);
        }
    }
    assert!(bed.queries(0) > 100 && bed.queries(1) > 100);
}

#[test]
fn an_error_changes_nothing() {
    let bed = Bed::new("error", 2);
    let lines = bed.lines(&[0], "");
    let bed = bed.start(&lines, &[]);
    assert_eq!(bed.ask("before.example"), NOERROR);
    let at = bed.file.display().to_string();
    let empty = bed.file.with_file_name("empty.pem");
    fs::write(&empty, "").expect("our folder");
    for (more, expected) in [
        ("upstrem quad9\n", format!("{at}:4: upstrem: unknown flag; did you mean upstream?")),
        ("rate-limit 0\n", format!("{at}:4: rate-limit 0: is out of range")),
        (
            "size small\nlisten 127.0.0.1:1\n",
            format!("{at}:5: listen 127.0.0.1:1: is new; {at}:4: size small: is new"),
        ),
        (
            &*format!("ca-file {}\n", empty.display()),
            format!("{at}:4: ca-file {}: is empty", empty.display()),
        ),
        (
            &*format!("ca-file {at}x\n"),
            format!("{at}:4: ca-file {at}x: cannot be read: no such file"),
        ),
    ] {
        bed.write(&bed.lines(&[0], more));
        let line = bed.reload();
        assert!(line.contains("SIGHUP: nothing is changed: "), "{line}");
        assert!(line.to_lowercase().contains(&expected.to_lowercase()), "{line}: {expected}");
        assert_eq!(bed.ask("after.example"), NOERROR);
    }
    // As an editor leaves it while it writes, or a full disk.
    for cut_off in ["", "# dot-proxy\n"] {
        bed.write(cut_off);
        let line = bed.reload();
        assert!(
            line.ends_with(&format!("nothing is changed: --config {at}: has no flag any more"))
        );
        assert_eq!(bed.ask("cut.example"), NOERROR);
    }
    fs::remove_file(&bed.file).expect("our file");
    let line = bed.reload();
    assert!(line.contains("--config") && line.contains("cannot be read"), "{line}");
    assert_eq!(bed.ask("last.example"), NOERROR);
    assert_eq!(bed.servers[0].log().connections.len(), 1);
}

#[test]
fn who_is_served_and_what_is_logged_changes() {
    let bed = Bed::new("access", 1);
    let lines = bed.lines(&[0], "refuse-denied refused\n");
    let bed = bed.start(&lines, &[]);
    assert_eq!(bed.ask("a.example"), NOERROR);
    let denied = bed.lines(&[0], "refuse-denied refused\ndeny 127.0.0.0/8\n");
    bed.assert_reloads(&denied);
    assert_eq!(bed.ask("b.example"), 5);
    bed.assert_reloads(&bed.lines(&[0], "").replace("query-log on", "query-log off"));
    assert_eq!(bed.ask("c.example"), NOERROR);
    let lines = bed.proxy().lines();
    assert!(!lines.iter().any(|line| line.contains("c.example")), "{lines:#?}");
}

/// Without a configuration the files of certificates are read again, inside the sandbox.
#[test]
fn another_ca_is_trusted_from_then_on() {
    let mut bed = Bed::new("ca", 1);
    let ca = bed.file.with_file_name("ca.pem");
    fs::copy(bed.authority.file(), &ca).expect("our folder");
    let upstream = format!("{}#dot.example", bed.servers[0].address());
    let ca_file = ca.display().to_string();
    let args = ["--ca-file", &ca_file, "--upstream", &upstream];
    bed.proxy = Some(Proxy::start(&args));
    assert_eq!(bed.ask("a.example"), NOERROR);
    // Nothing has changed yet.
    let line = bed.reload();
    assert!(line.ends_with("upstreams: 1, of which 0 are new or changed"), "{line}");
    let other = Authority::new();
    fs::copy(other.file(), &ca).expect("our folder");
    let line = bed.reload();
    assert!(line.ends_with("upstreams: 1, of which 1 are new or changed"), "{line}");
    assert_eq!(bed.ask("b.example"), SERVFAIL);
    bed.servers[0].replace_identity(other.identity("dot.example"));
    bed.reload();
    // What is wrong is not asked again at once.
    let mut answers = std::iter::repeat_with(|| bed.ask("c.example")).take(20);
    assert!(answers.any(|rcode| rcode == NOERROR));
}

#[test]
fn another_certificate_of_ours_is_shown_from_then_on() {
    let authority = Authority::new();
    let mut setup = Setup::new(authority.identity("dot.example"));
    setup.clients = Some(authority.roots());
    let mut bed = Bed::new("client", 0);
    (bed.servers, bed.authority) = (vec![DotServer::start(setup)], authority);
    let certificate = bed.file.with_file_name("client.pem");
    fs::write(&certificate, Authority::new().client_pem()).expect("our folder");
    let shown = certificate.display();
    let lines = bed.lines(&[0], &format!("client-cert {shown}\nclient-key {shown}\n"));
    let bed = bed.start(&lines, &[]);
    assert_eq!(bed.ask("a.example"), SERVFAIL, "it does not trust that one");
    fs::write(&certificate, bed.authority.client_pem()).expect("our folder");
    let line = bed.reload();
    assert!(
        line.ends_with("no flag changed; upstreams: 1, of which 1 are new or changed"),
        "{line}"
    );
    assert_eq!(bed.ask("b.example"), NOERROR);

    // What connections hold was counted with it at the start.
    bed.assert_reloads(&bed.lines(&[0], ""));
    bed.assert_reloads(&lines);
}

/// What is connected to, and what is read, was decided before the sandbox was entered.
#[test]
fn the_sandbox_allows_no_other_port_and_no_other_folder() {
    const NAME: &str = "the_sandbox_allows_no_other_port_and_no_other_folder";

    let bed = Bed::new("confined", 2);
    // Beside the configuration: in the folder for temporary files all others could be read, too.
    let beside = bed.file.with_file_name("ca.pem");
    fs::copy(bed.authority.file(), &beside).expect("our folder");
    let lines = |server: usize, more: &str| {
        let upstream = bed.servers[server].address();
        format!("ca-file {}\nupstream {upstream}#dot.example\n{more}", beside.display())
    };
    let (at_first, other_port) = (lines(0, ""), lines(1, ""));
    let elsewhere = bed.file.parent().expect("it has one").with_extension("elsewhere");
    let ca = elsewhere.join("ca.pem");
    let other_folder = lines(0, &format!("ca-file {}\n", ca.display()));
    let bed = bed.start(&at_first, &[]);
    let confined = bed.proxy().await_line("sandbox", |line| line.contains("sandbox: "));
    if !["files", "ports"].iter().all(|word| confined.contains(word)) {
        return skip(NAME, "the kernel has no Landlock that restricts ports");
    }
    bed.write(&other_port);
    let line = bed.reload();
    let port = bed.servers[1].address().port();
    let place = format!("{}:2: upstream ", bed.file.display());
    let words = [&*place, &format!("no upstream had port {port} at the start"), "restart"];
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
    fs::create_dir_all(&elsewhere).expect("a writable directory");
    fs::copy(bed.authority.file(), &ca).expect("our folder");
    bed.write(&other_folder);
    let line = bed.reload();
    fs::remove_dir_all(&elsewhere).expect("our folder");
    let words = [&*format!(":3: ca-file {}: ", ca.display()), "only in the folders", "restart"];
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
    assert_eq!(bed.ask("after.example"), NOERROR);
}

/// Each file in a folder of its own, below one that is for no other files.
struct Scattered {
    bed: Bed,
    above: Above,
}

/// A folder that goes with all that is in it.
struct Above(PathBuf);

impl Drop for Above {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

impl Scattered {
    const NAMES: [&str; 4] = ["config", "ca-file", "client-cert", "client-key"];

    fn file(&self, name: &str) -> PathBuf {
        self.above.0.join(name).join("file")
    }

    fn start(name: &str) -> Self {
        let bed = Bed::new(name, 1);
        fs::remove_dir_all(bed.file.parent().expect("it has one")).expect("our folder");
        // Files below that for temporary files may all be read.
        let process = std::process::id();
        let above = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{process}"));
        let mut scattered = Self { bed, above: Above(above) };
        for name in Self::NAMES {
            fs::create_dir_all(scattered.above.0.join(name)).expect("our folder");
        }
        fs::copy(scattered.bed.authority.file(), scattered.file("ca-file")).expect("our folder");
        let both = scattered.bed.authority.client_pem();
        for name in ["client-cert", "client-key"] {
            fs::write(scattered.file(name), &both).expect("our folder");
        }
        scattered.bed.file = scattered.file("config");
        let upstream = scattered.bed.servers[0].address();
        let files = &Self::NAMES[1..];
        let files = files.iter().map(|it| format!("{it} {}\n", scattered.file(it).display()));
        let lines = format!("{}upstream {upstream}#dot.example\n", files.collect::<String>());
        scattered.bed = scattered.bed.start(&lines, &[]);
        scattered
    }

    /// Has everything read again, and gives what is said of the file of this flag.
    #[track_caller]
    fn problem(&self, name: &str) -> String {
        let line = self.bed.reload();
        let file =
            format!("{name} {}: cannot be read: permission denied; ", self.file(name).display());
        let said =
            line.to_lowercase().split_once(&file.to_lowercase()).map(|(_, said)| said.into());
        said.unwrap_or_else(|| panic!("{name}: {line}"))
    }
}

#[test]
fn who_keeps_a_file_from_being_read_is_told_apart() {
    const NAME: &str = "who_keeps_a_file_from_being_read_is_told_apart";
    const SANDBOX: &str = "its mode lets it be read, and the sandbox does not: ";

    let scattered = Scattered::start("scattered");
    let confined = scattered.bed.proxy().await_line("sandbox", |line| line.contains("sandbox: "));
    let restricted = confined.split_once(" restricted");
    if !restricted.is_some_and(|(restricted, _)| restricted.contains("files")) {
        return skip(NAME, "the kernel has no Landlock");
    }
    let is_root = rustix::process::geteuid().is_root();
    for name in Scattered::NAMES {
        let (file, folder) = (scattered.file(name), scattered.above.0.join(name));
        // Another folder takes the name of that one.
        let old = scattered.above.0.join("old");
        fs::rename(&folder, &old).expect("our folder");
        fs::create_dir(&folder).expect("our folder");
        fs::copy(old.join("file"), &file).expect("our folder");
        let said = scattered.problem(name);
        assert!(said.starts_with(SANDBOX) && said.contains("restart"), "{name}: {said}");
        fs::remove_dir_all(&folder).expect("our folder");
        fs::rename(&old, &folder).expect("our folder");
        // A directory, which is opened in no folder.
        let elsewhere = scattered.above.0.join("elsewhere");
        fs::rename(&file, &elsewhere).expect("our file");
        fs::create_dir(&file).expect("our folder");
        let said = scattered.problem(name);
        assert!(said.starts_with("it is no file, and only files are read again"), "{name}: {said}");
        fs::remove_dir(&file).expect("our folder");
        // A link that leads where nothing could be read.
        symlink(&elsewhere, &file).expect("our folder");
        assert!(scattered.problem(name).starts_with(SANDBOX), "{name}");
        fs::rename(&elsewhere, &file).expect("our file");
        // A file that root alone may read, or nobody.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("our file");
        let said = scattered.problem(name);
        assert!(said.starts_with("the user that this program runs as must"), "{name}: {said}");
        assert_eq!(said.contains("(root was given up"), is_root, "{name}: {said}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("our file");
        let line = scattered.bed.reload();
        assert!(line.contains("SIGHUP: read again"), "{name}: {line}");
    }
    assert_eq!(scattered.bed.ask("a.example"), NOERROR);
}

#[test]
fn a_flood_of_signals_is_worked_on_ten_times_a_second_and_the_last_counts() {
    let bed = Bed::new("flood", 1);
    let lines = bed.lines(&[0], "");
    let bed = bed.start(&lines, &[]);
    let is_done = |line: &str| line.contains("SIGHUP: ") || line.contains("dot-proxy: up ");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        for signal in [Signal::HUP, Signal::USR1] {
            bed.proxy().signal(signal);
        }
        assert_eq!(bed.ask("during.example"), NOERROR);
    }
    bed.write(&bed.lines(&[0], "rate-limit 1000\n"));
    bed.proxy().signal(Signal::HUP);
    bed.proxy().await_line("the last one", |line| line.contains("rate-limit changed"));
    let most = 2 * (2 + start.elapsed().as_millis() / 100);
    let done = bed.proxy().lines().iter().filter(|line| is_done(line)).count();
    assert!((4..=most as usize).contains(&done), "{done}, and at most {most}");
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
    let mut bed = Bed::new("pipe", 1);
    let ca = bed.file.with_file_name("ca.pem");
    fs::copy(bed.authority.file(), &ca).expect("our folder");
    let upstream = format!("{}#dot.example", bed.servers[0].address());
    let ca_file = ca.display().to_string();
    bed.proxy = Some(Proxy::start(&["--ca-file", &ca_file, "--upstream", &upstream]));
    fs::remove_file(&ca).expect("our file");
    mknodat(CWD, &ca, FileType::Fifo, Mode::RUSR | Mode::ROTH, 0).expect("our folder");
    let line = bed.reload();
    let expected = format!(
        "--ca-file {ca_file}: cannot be read: it is no file, and only files are read again"
    );
    assert!(line.ends_with(&expected), "{line}");
    assert_eq!(bed.ask("a.example"), NOERROR);
}

#[test]
fn sighup_during_a_drain_is_no_reload() {
    let bed = Bed::new("drain", 1);
    let lines = bed.lines(&[0], "");
    let mut bed = bed.start(&lines, &["--drain", "3600"]);
    bed.proxy().signal(Signal::TERM);
    bed.proxy().await_line("drain", |line| line.contains("serving on for 3600 s"));
    let line = bed.reload();
    assert!(line.contains("WARN") && line.ends_with("nothing is read again, as SIGTERM came"));
    assert_eq!(bed.ask("a.example"), NOERROR);
    bed.proxy().signal(Signal::INT);
    bed.proxy().await_line("end", |line| line.contains("the end begins now, before --drain"));
    let proxy = bed.proxy.as_mut().expect("it was started");
    assert_eq!(proxy.await_exit().code(), Some(0));
}

#[test]
fn without_files_there_is_nothing_to_read() {
    let mut bed = Bed::new("none", 0);
    bed.proxy = Some(Proxy::start(&["--upstream", "127.0.0.1:1#x"]));
    let line = bed.reload();
    assert!(line.contains("SIGHUP: nothing is read again"), "{line}");
}

#[test]
fn what_only_root_may_read_is_not_read_again() {
    const NAME: &str = "what_only_root_may_read_is_not_read_again";

    if !rustix::process::geteuid().is_root() {
        return skip(NAME, "this takes root");
    }
    let bed = Bed::new("root", 1);
    let lines = bed.lines(&[0], "");
    let secret = fs::Permissions::from_mode(0o600);
    let bed = bed.start_with(&lines, secret, &["--user", "12345"]);
    let at = bed.file.display().to_string();
    bed.proxy().await_line("warning", |line| {
        line.contains("WARN") && line.contains(&format!("{at}: SIGHUP will not read it again"))
    });
    let line = bed.reload();
    let words = ["nothing is changed: --config", "ermission denied", "root was given up"];
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
    assert_eq!(bed.ask("a.example"), NOERROR);
    bed.assert_reloads(&bed.lines(&[0], "rate-limit 1000\n"));
}
