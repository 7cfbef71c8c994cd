//! The command line of the real binary, as far as it goes without serving: what is printed where,
//! and the exit codes. Of what the README shows, the parts that can be checked so.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use dot_proxy::config::{self, Command as Asked, Host};
use rustls::pki_types::ServerName;
use support::skip::skip;

fn dot_proxy(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dot-proxy"));
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    dot_proxy(args).output().expect("the binary starts")
}

#[test]
fn help_is_on_stdout() {
    for args in [&["-h"][..], &["--help"], &["--bogus", "--help"]] {
        let output = run(args);

        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), config::usage(), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn limits_are_printed_and_nothing_is_served() {
    for args in [
        &["--print-limits"][..],
        &["--size", "small", "--print-limits", "--upstream", "9.9.9.9#dns.quad9.net"],
        // A port that nobody may have: it is not opened.
        &["--print-limits", "--listen", "192.0.2.1:53"],
    ] {
        let output = run(args);

        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        let sum = |name: &str| -> usize {
            let line = text.lines().find(|line| line.starts_with(name));
            let octets = line.and_then(|line| line.split_whitespace().last()).expect("a sum");
            octets.replace(',', "").parse().expect("a number")
        };
        assert!(text.starts_with("size "), "{text}");
        assert_eq!(sum("both"), sum("process") + sum("kernel"), "{text}");
        // The program is there, to the page.
        let file = std::fs::metadata(env!("CARGO_BIN_EXE_dot-proxy")).expect("the binary").len();
        assert!(
            sum("program") > 1_000_000 && sum("program") < file as usize + 10_000_000,
            "{text}"
        );
    }
}

#[test]
fn version_is_on_stdout() {
    for args in [["-V"], ["--version"]] {
        let output = run(&args);

        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(output.stdout, b"dot-proxy 0.1.0\n", "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_bad_command_line_is_one_line_on_stderr_and_exit_code_2() {
    for (args, expected) in BAD_COMMAND_LINES {
        let output = run(args);

        assert_eq!(String::from_utf8_lossy(&output.stderr), *expected);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

const BAD_COMMAND_LINES: &[(&[&str], &str)] = &[
    (&["--bogus"], "dot-proxy: --bogus: unknown flag; --help lists the flags\n"),
    (&["--upstrem=quad9"], "dot-proxy: --upstrem: unknown flag; did you mean --upstream?\n"),
    (&["chekc"], "dot-proxy: chekc: stray argument; did you mean check?\n"),
    (
        &["--listen", "lo"],
        "dot-proxy: --listen lo: is an interface; write an address of it, which `ip address show lo` shows\n",
    ),
    (
        &["--listen", "[::1"],
        "dot-proxy: --listen [::1: the bracket of [::1 is not closed; write ADDR[:PORT], such as 127.0.0.1:5300 \
             or [::1]:5300\n",
    ),
    (
        &["quad9"],
        "dot-proxy: quad9: stray argument; every value follows its flag, such as --upstream quad9\n",
    ),
    (
        &["--query-log=on", "--query-log=off"],
        "dot-proxy: --query-log off: is given twice; give this flag once\n",
    ),
    (
        &["--upstream", "dns.quad9.net"],
        "dot-proxy: --upstream dns.quad9.net: has no IP address (upstreams are not looked up by \
             name); write quad9\n",
    ),
    (
        &["--allow", "10.0.0.1/8"],
        "dot-proxy: --allow 10.0.0.1/8: is an address of that network; write 10.0.0.0/8\n",
    ),
    (
        &["--deny=fd00::/129"],
        "dot-proxy: --deny fd00::/129: the prefix length \"129\" is not a number up to 128; write \
             fd00::/128 for this address\n",
    ),
    (
        &["--allow=fd00::/8", "--deny=fd00::/8"],
        "dot-proxy: --deny fd00::/8: is allowed by --allow fd00::/8; give only one of them\n",
    ),
    (
        &["--refuse-denied", "on"],
        "dot-proxy: --refuse-denied on: is not known; write drop or refused\n",
    ),
    (
        &["--rate-limit", "0"],
        "dot-proxy: --rate-limit 0: is out of range: 1 to 1000000 queries a second; write off for no limit\n",
    ),
    (
        &["--rate-limit=100/50"],
        "dot-proxy: --rate-limit 100/50: BURST must be at least QPS; write 100/100 \
             or more\n",
    ),
    (
        &["--rate-prefix", "64"],
        "dot-proxy: --rate-prefix 64: is no pair of prefix lengths, of IPv4 up to 32 and of IPv6 up to \
             128; write 32/64\n",
    ),
    (
        &["--rate-exempt", "10.0.0.0/40"],
        "dot-proxy: --rate-exempt 10.0.0.0/40: the prefix length \"40\" is not a number up to 32; write \
             10.0.0.0/32 for this address\n",
    ),
    (
        &["--allow", "10.0.0.0/255.0.0.0"],
        "dot-proxy: --allow 10.0.0.0/255.0.0.0: is in another form than CIDR; write 10.0.0.0/8\n",
    ),
    (
        &["--deny", "any"],
        "dot-proxy: --deny any: is everybody; write --allow with what is to be served, and nobody else \
             is, loopback aside\n",
    ),
    (&["--acl=10.0.0.0/8"], "dot-proxy: --acl: unknown flag; write --allow 10.0.0.0/8\n"),
    (
        &["--tcp-clients-per-address-max", "200"],
        "dot-proxy: --tcp-clients-per-address-max 200: is more than all may have; raise \
             --tcp-clients-max, which is 150, as well\n",
    ),
];

#[test]
fn nobody_reading_stdout_is_no_failure() {
    for arg in ["--help", "--version"] {
        let (reader, writer) = io::pipe().expect("a pipe opens");
        drop(reader);

        let output = dot_proxy(&[arg]).stdout(writer).output().expect("the binary starts");

        assert_eq!(output.status.code(), Some(0), "{arg}");
        assert!(output.stderr.is_empty(), "{arg}: {output:?}");
    }
}

#[test]
fn a_full_disk_behind_stdout_is_a_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full opens");

    let output = dot_proxy(&["--help"]).stdout(full).output().expect("the binary starts");

    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.starts_with("dot-proxy: cannot write to stdout: "), "{error}");
}

#[test]
fn nobody_reading_stderr_changes_no_exit_code() {
    let (reader, writer) = io::pipe().expect("a pipe opens");
    drop(reader);

    let status = dot_proxy(&["--bogus"]).stderr(writer).status().expect("the binary starts");

    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_stuck_stderr_does_not_keep_the_process() {
    // The reader stays, and never reads.
    let (_reader, mut writer) = io::pipe().expect("a pipe opens");
    fill(&mut writer);

    let status = dot_proxy(&["--bogus"]).stderr(writer).status().expect("the binary starts");

    assert_eq!(status.code(), Some(2));
}

/// Writes until the pipe takes no more.
fn fill(pipe: &mut io::PipeWriter) {
    let flags = rustix::fs::fcntl_getfl(&pipe).expect("a pipe has flags");
    rustix::fs::fcntl_setfl(&pipe, flags | rustix::fs::OFlags::NONBLOCK).expect("flags are set");
    while pipe.write(&[b'.'; 4096]).is_ok() {}
    while pipe.write(b".").is_ok() {}
    rustix::fs::fcntl_setfl(&pipe, flags).expect("flags are set");
}

#[test]
fn errors_do_not_carry_control_octets_to_the_terminal() {
    let (mut reader, writer) = io::pipe().expect("a pipe opens");

    let status = dot_proxy(&["--upstream", "\u{1b}[2J\n#x"])
        .stderr(writer)
        .status()
        .expect("the binary starts");

    let mut error = String::new();
    reader.read_to_string(&mut error).expect("the error is UTF-8");
    assert_eq!(status.code(), Some(2));
    assert_eq!(error.matches(char::is_control).collect::<Vec<_>>(), ["\n"], "{error:?}");
}

#[test]
fn every_name_the_command_line_takes_is_one_rustls_takes() {
    let labels = [
        "a", "A1", "0", "12", "0x1g", "0x1f", "0x", "a-b", "a--b", "_a", "a_", "-a", "a-", "*", "",
    ];
    let names = labels
        .iter()
        .flat_map(|left| labels.map(|right| format!("{left}.{right}")))
        .chain(labels.map(str::to_owned))
        .chain(
            ["1.2.3.4", "::1", "2001:db8::1:2", "::ffff:1.2.3.4", "dns.example."]
                .map(str::to_owned),
        );
    let mut taken = 0;
    for name in names {
        let arguments = vec!["-u".into(), format!("127.0.0.1#{name}").into()];
        let command = config::parse(arguments, Host::default());
        let ours = match &command {
            Ok(Asked::Run(config)) => config.upstreams[0].name.as_deref(),
            _ => None,
        };
        let theirs = ServerName::try_from(name.as_str()).is_ok();
        assert_eq!(ours.is_some(), theirs, "{name}: {command:?}");
        if let Some(ours) = ours {
            assert!(ServerName::try_from(ours).is_ok(), "{ours}");
            taken += 1;
        }
    }
    assert!(taken > 50, "{taken}");
}

/// What a router is configured with would be left out without a word.
#[test]
fn every_flag_is_an_option_of_the_init_script() {
    let script = include_str!("../scripts/openwrt/dot-proxy.init");
    let options: Vec<_> = script
        .split("\tfor flag in ")
        .skip(1)
        .filter_map(|rest| rest.split_once("; do"))
        .flat_map(|(flags, _)| flags.split_whitespace())
        .collect();
    let page = include_str!("../scripts/FLAGS.md");
    let flags = page.lines().filter_map(|row| row.strip_prefix("| `--")?.split([' ', '`']).next());
    // Which ends the program.
    let flags = flags.filter(|flag| *flag != "print-limits");
    let missing: Vec<_> =
        flags.map(|flag| flag.replace('-', "_")).filter(|it| !options.contains(&&**it)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn the_page_of_flags_has_a_row_for_each() {
    let page = include_str!("../scripts/FLAGS.md");
    let (_, table) = page.split_once(FLAGS_HEAD).expect("a table of flags");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let rows = rows_of_flags();
    assert!(rows.len() > 15, "{rows:?}");
    assert_eq!(table.lines().collect::<Vec<_>>(), rows);
}

const FLAGS_HEAD: &str = "| flag | what it does | default |\n|---|---|---|\n";

/// A row of Markdown for each flag of `--help`.
fn rows_of_flags() -> Vec<String> {
    let usage = config::usage();
    let (_, flags) = usage.split_once("\n\n  -").expect("flags after the introduction");
    let row = |flag: &str| {
        // Two spaces stand between a flag and its text, on one line or two.
        let (head, text) = flag.split_once("  ").or(flag.split_once('\n')).expect("a text");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (text, default) = text.split_once(" [default: ").unwrap_or((&text, "]"));
        let default = default.strip_suffix(']').expect("the default is last");
        format!("| `-{}` | {text} | {default} |", head.trim_end().replace('|', "\\|"))
    };
    flags.split("\n  -").map(row).collect()
}

/// The units of systemd, by their names.
const UNITS: [(&str, &str); 3] = [
    ("dot-proxy.service", include_str!("../scripts/systemd/dot-proxy.service")),
    ("dot-proxy@.service", include_str!("../scripts/systemd/dot-proxy@.service")),
    ("dot-proxy.socket", include_str!("../scripts/systemd/dot-proxy.socket")),
];

/// Units differ in what cannot be the same, and a line that hardens one hardens the other.
#[test]
fn the_unit_and_the_template_are_one_but_for_three_lines() {
    let [(_, unit), (_, template), _] = UNITS;
    let instance = unit
        .replace("Description=DNS over TLS forwarder\n", "Description=DNS over TLS forwarder %i\n")
        .replace(" --freebind on\n", " --reuse-port on --freebind on\n");
    let settings = |unit: &str| unit.split_once("[Unit]").map(|(_, rest)| rest.to_owned());
    assert_eq!(settings(&instance), settings(template));
}

/// The arguments that a unit starts the program with.
fn arguments_of(unit: &str) -> Vec<&str> {
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=dot-proxy "));
    let words = start.expect("a command").split_whitespace();
    let here = |word| if word == "/etc/dot-proxy/dot-proxy.conf" { CONFIGURATION } else { word };
    words.map(here).collect()
}

/// The file that is installed as `/etc/dot-proxy/dot-proxy.conf`.
const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/systemd/dot-proxy.conf");

#[test]
fn links_between_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let suites = ["bench", "conformance", "faults", "memory", "scenarios"]
        .map(|suite| format!("tests/{suite}/README.md"));
    let mut links = 0;
    let others = ["README.md", "scripts/FLAGS.md", "tests/README.md", "tests/THREATS.md"];
    for document in others.into_iter().chain(suites.iter().map(String::as_str)) {
        let document = root.join(document);
        let text = std::fs::read_to_string(&document).expect("a document");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for (target, _) in targets.filter(|(target, _)| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file =
                if file.is_empty() { document.clone() } else { document.with_file_name(file) };
            assert!(file.exists(), "{}: {target}", document.display());
            if !heading.is_empty() {
                let text = std::fs::read_to_string(&file).expect("a document");
                let mut headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(headings.any(|known| known == heading), "{}: {target}", document.display());
            }
            links += 1;
        }
    }
    assert!(links > 30, "{links}");
}

/// The name by which a heading is linked to.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A test is named `FILE::TEST`, as in `proxy/trust::openssl`. The names of some are rows of a macro's list.
#[test]
fn tests_that_the_threats_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let words = include_str!("THREATS.md").split('`').skip(1).step_by(2);
    let tests: Vec<_> = words.filter_map(|word| word.rsplit_once("::")).collect();
    assert!(tests.len() > 50, "{tests:?}");
    for (file, test) in tests {
        let files = [
            format!("tests/{file}.rs"),
            format!("tests/{file}/main.rs"),
            format!("tests/support/src/{file}/mod.rs"),
            format!("src/{file}.rs"),
            format!("src/{file}/mod.rs"),
            format!("src/{file}/tests.rs"),
        ];
        let mut sources = files.iter().filter_map(|it| std::fs::read_to_string(root.join(it)).ok());
        let (function, row) = (format!("fn {test}()"), format!("{test}: "));
        let is_test = |source: String| {
            let before = source.split_once(&function).map(|(before, _)| before);
            let above = before.and_then(|before| before.rsplit("\n\n").next());
            above.is_some_and(|above| above.contains("#[test]"))
                || source.lines().any(|line| line.trim_start().starts_with(&row))
        };
        assert!(sources.any(is_test), "there is no test {file}::{test}");
    }
}

/// The configuration file of the README, with a file that there is.
#[test]
fn the_readme_has_a_configuration_that_is_right() {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once("```\nlisten ").expect("a configuration file");
    let (text, _) = rest.split_once("```").expect("its end");
    let text = format!("listen {text}")
        .replace("ca-file /etc/dot-proxy/ca.pem\n", "")
        .replace("192.168.1.2", "127.0.0.2");
    let file = TestFile::new("readme", &text);
    assert_eq!(checked(&file, &[]).lines().count(), text.lines().count() + 3, "{text}");
}

#[test]
fn the_readme_shows_log_lines_of_modules_that_there_are() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let readme = include_str!("../README.md");
    let modules: Vec<_> = readme.split("[dot_proxy::").skip(1).collect();
    assert!(!modules.is_empty());
    for rest in modules {
        let (module, _) = rest.split_once(']').expect("the end of a module's name");
        let file = src.join(module.replace("::", "/"));
        assert!(file.with_extension("rs").exists() || file.join("mod.rs").exists(), "{module}");
    }
}

#[test]
fn the_unit_starts_a_service_with_flags_that_there_are() {
    for (name, unit) in UNITS.into_iter().filter(|(name, _)| name.ends_with(".service")) {
        let arguments = arguments_of(unit).into_iter().map(Into::into).collect();
        let Ok(Asked::Run(config)) = config::parse(arguments, Host::default()) else {
            panic!("{unit}");
        };
        // The address that the README goes on with.
        assert_eq!(config.listen, ["127.0.0.1:53".parse().expect("an address")]);
        assert_eq!(config.reuse_port, name.contains('@'), "{name}");
        assert!(config.freebind, "{name}");
    }
}

#[test]
fn systemd_takes_the_unit() {
    const NAME: &str = "systemd_takes_the_unit";

    let analyze = |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).output();
    let version = match analyze(&["--version"]) {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return skip(NAME, &format!("systemd-analyze: {error}")),
    };
    let version = version.split_whitespace().nth(1).and_then(|number| number.parse::<u32>().ok());
    // The first that looks at a file that is not installed.
    if version.is_none_or(|version| version < 250) {
        return skip(NAME, "systemd-analyze is older than version 250");
    }
    let directory = std::env::temp_dir().join(format!("{NAME}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a writable directory");
    // All of them first, as the socket names its service.
    for (file, unit) in UNITS {
        let here =
            unit.replace("=dot-proxy --", concat!("=", env!("CARGO_BIN_EXE_dot-proxy"), " --"));
        std::fs::write(directory.join(file), here).expect("a writable directory");
    }
    for (file, _) in UNITS {
        let path = directory.join(file);
        let path = path.to_str().expect("a path of ours");
        let verify = analyze(&["verify", "--man=no", path]).expect("it started before");
        let said = String::from_utf8_lossy(&verify.stderr);
        // Version 254 brought these.
        let is_known = |line: &&str| version >= Some(254) || !line.contains("Unknown key 'Restart");
        let objections: Vec<_> =
            said.lines().filter(|line| line.contains(file)).filter(is_known).collect();
        assert!(verify.status.success() && objections.is_empty(), "{said}");
        if file.ends_with(".socket") {
            continue;
        }
        // Ten times what it prints: 1.5 at most.
        let security = ["security", "--offline=true", "--no-pager", "--threshold=15", path];
        let security = analyze(&security).expect("it started before");
        assert!(security.status.success(), "{}", String::from_utf8_lossy(&security.stdout));
    }
    std::fs::remove_dir_all(&directory).expect("a directory of ours");
}

/// A file in a directory of its own, that is removed with it.
struct TestFile(std::path::PathBuf);

impl TestFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dot-proxy-{name}-{}", std::process::id()));
        std::fs::write(&path, text).expect("a writable directory");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path of ours")
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

/// What `check-config` prints of a file and more flags.
#[track_caller]
fn checked(file: &TestFile, flags: &[&str]) -> String {
    let output = run(&[&["check-config", "--config", file.path()], flags].concat());
    let right = format!("dot-proxy: {} is right\n", file.path());
    // Behind warnings.
    assert!(String::from_utf8_lossy(&output.stderr).ends_with(&right));
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn what_check_config_prints_is_a_configuration_that_comes_to_the_same() {
    const PIN: &str = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let file = TestFile::new(
        "check",
        "\u{feff}# mine\r\nlisten 127.0.0.1\r\n\r\n  upstream=quad9 # by PCH\r\nsize small\r\nlog-level warn\r\n\
         forward-zone 10.in-addr.arpa\r\n",
    );
    let printed = checked(&file, &[]);
    assert_eq!(
        printed,
        "listen 127.0.0.1\nupstream 9.9.9.9#dns.quad9.net\nupstream [2620:fe::fe]#dns.quad9.net\n\
         upstream 149.112.112.112#dns.quad9.net\nupstream [2620:fe::9]#dns.quad9.net\nsize small\n\
         log-level warn\nforward-zone 10.in-addr.arpa\n"
    );
    assert_eq!(checked(&TestFile::new("check-again", &printed), &[]), printed);
    // Single values are replaced, lists add, and what is in both is there once.
    let flags = "--log-level=debug --size default -l 127.0.0.1 -l ::1 -u 9.9.9.9#dns.quad9.net -u 1.1.1.1#a.example";
    let printed = checked(&file, &flags.split(' ').collect::<Vec<_>>());
    assert_eq!(
        printed,
        "listen 127.0.0.1\nupstream 9.9.9.9#dns.quad9.net\nupstream [2620:fe::fe]#dns.quad9.net\n\
         upstream 149.112.112.112#dns.quad9.net\nupstream [2620:fe::9]#dns.quad9.net\nforward-zone 10.in-addr.arpa\n\
         log-level debug\nsize default\nlisten ::1\nupstream 1.1.1.1#a.example\n"
    );
    assert_eq!(checked(&TestFile::new("check-more", &printed), &[]), printed);
    let upstream = format!("[2001:db8::1]:8853#{PIN},dns.example,sni=off");
    let empty = TestFile::new("check-empty", "");
    let printed = checked(&empty, &["-u", &upstream, "-u", "1.1.1.1"]);
    assert_eq!(
        printed,
        format!(
            "upstream [2001:db8::1]:8853#dns.example,{PIN},sni=off\nupstream 1.1.1.1#1.1.1.1\n"
        )
    );
    assert_eq!(checked(&TestFile::new("check-pin", &printed), &[]), printed);
}

#[test]
fn an_error_in_a_file_is_one_line_with_its_place() {
    for (text, flags, expected) in [
        (
            "\nupstream dns.quad9.net",
            &[][..],
            ":2: upstream dns.quad9.net: has no IP address (upstreams are \
             not looked up by name); write quad9\n",
        ),
        (
            "allow ::1\ndeny ::1",
            &[],
            ":2: deny ::1: is allowed by allow ::1/128; give only one of them\n",
        ),
        // What is overridden must be right all the same.
        (
            "size tiny",
            &["--size=small"],
            ":1: size tiny: is not known; write small, default or large\n",
        ),
        (
            "builtin-roots off",
            &[],
            ":1: builtin-roots off: leaves no root to trust; give ca-file FILE as well\n",
        ),
        (
            "listen ::1\nupstream 1.1.1.1\nupstream [::1]:5300#x\nlisten [::1]:5300",
            &[],
            ":3: upstream [::1]:5300#x: is this program's own listener (listen [::1]:5300); give the address of \
             another server\n",
        ),
        ("tcp-clients-max 5", &["--tcp-clients-per-address-max", "6"], ""),
    ] {
        let file = TestFile::new("error", text);
        for command in [&["check-config"][..], &[]] {
            let output = run(&[command, &["--config", file.path()], flags].concat());

            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            if expected.is_empty() {
                assert!(
                    error.starts_with("dot-proxy: --tcp-clients-per-address-max 6: "),
                    "{error}"
                );
            } else {
                assert_eq!(error, format!("dot-proxy: {}{expected}", file.path()));
            }
            assert_eq!(output.status.code(), Some(2));
            assert!(output.stdout.is_empty());
        }
    }
    let output = run(&["--config", "/nowhere/x"]);
    let error = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert_eq!(
        error,
        "dot-proxy: --config /nowhere/x: cannot be read: no such file or directory\n"
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn check_config_says_all_that_is_wrong() {
    let nowhere = "ca-file /nowhere/a.pem\nca-file /nowhere/b.pem\nupstream 192.0.2.1#a\n";
    for (text, code, expected) in [
        (
            "upstrem quad9\nlisten 127.0.0.1\nsize tiny\n\ndrain x\n",
            2,
            &[
                ":1: upstrem: unknown flag; did you mean upstream?",
                ":3: size tiny: is not known; ",
                ":5: drain x: is not a number of seconds; ",
            ][..],
        ),
        (
            "ca-file /nowhere/a.pem\nsize tiny\nupstrem quad9\n",
            2,
            &[
                ":1: ca-file /nowhere/a.pem: cannot be read: ",
                ":2: size tiny: is not known; ",
                ":3: upstrem: unknown flag; ",
            ],
        ),
        (
            nowhere,
            2,
            &[
                ":1: ca-file /nowhere/a.pem: cannot be read: ",
                ":2: ca-file /nowhere/b.pem: cannot be",
            ],
        ),
    ] {
        let file = TestFile::new("all", text);
        let output = run(&["check-config", "--config", file.path()]);

        assert_eq!(output.status.code(), Some(code));
        assert!(output.stdout.is_empty());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(errors.lines().count(), expected.len(), "{errors}");
        for (error, expected) in errors.lines().zip(expected) {
            assert!(error.starts_with(&format!("dot-proxy: {}{expected}", file.path())), "{error}");
        }
        // A start says one of them: what is wrong with flags before what is wrong with files.
        let output = run(&["--config", file.path()]);
        assert_eq!(output.status.code(), Some(code));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.lines().count() == 1 && errors.contains(&error), "{error}");
    }
}

#[test]
fn what_is_to_be_written_in_a_file_is_right_in_one() {
    for (line, expected) in [
        ("allow all", "is everybody; write two lines: allow 0.0.0.0/0 and allow ::/0"),
        (
            "allow 0.0.0.0/0 allow ::/0",
            "is 2 in one; write two lines: allow 0.0.0.0/0 and allow ::/0",
        ),
        (
            "upstream quad9 cloudflare",
            "is 2 in one; write two lines: upstream quad9 and upstream cloud",
        ),
        (
            "listen 127.0.0.1 [::1]",
            "is 2 in one; write two lines: listen 127.0.0.1 and listen [::1]",
        ),
        (
            "listen 127.0.0.1,127.0.0.2,[::1]",
            "is 3 in one; write a line for each: listen 127.0.0.1, listen 127.0.0.2, listen [::1]",
        ),
    ] {
        let file = TestFile::new("lines", line);
        let output = run(&["check-config", "--config", file.path()]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn flags_that_do_not_do_what_was_surely_meant_are_warned_of() {
    let empty = TestFile::new("empty", "# nothing\n");
    let config = ["--config", empty.path()];
    let roots = ["--ca-file", concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")];
    let source = ["--upstream-source", "192.0.2.77"];
    for (flags, expected) in [
        (&config, "has no flags in it, so nothing but the defaults"),
        (&roots, "without --upstream cloudflare is asked, whose certificate leads to none of"),
        (&source, "is no address of this host now; upstreams are connected to once it is"),
    ] {
        let parsed =
            config::parse(flags.iter().map(|flag| (*flag).into()).collect(), Host::default());
        let Ok(Asked::Run(parsed)) = parsed else { panic!("{flags:?}") };
        let warnings = [parsed.warnings.clone(), parsed.upstream_source.missing()].concat();
        assert!(warnings.concat().contains(expected), "{flags:?}: {warnings:?}");
    }
    let output = run(&["check-config", "--upstream-source", "192.0.2.77"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--upstream-source 192.0.2.77: is no address of this host"), "{said}");
}

#[test]
fn without_flags_check_config_prints_the_defaults_as_comments() {
    let output = run(&["check-config"]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("# listen 127.0.0.1:5300\n# reuse-port off\n"), "{printed}");
    assert!(printed.contains("# upstream cloudflare\n"), "{printed}");
    assert!(printed.lines().all(|line| line.starts_with("# ")), "{printed}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "dot-proxy: the command line is right\n");
}

#[test]
fn addresses_that_are_not_there_are_wrong_for_check_config_unless_they_may_come() {
    for (freebind, code, way) in [
        ("off", 1, "those that are; freebind on serves it"),
        ("on", 0, "only a warning, as freebind on"),
    ] {
        let text = format!("freebind {freebind}\nlisten 192.0.2.1:53\n");
        let file = TestFile::new("address", &text);
        let output = run(&["check-config", "--config", file.path()]);

        assert_eq!(output.status.code(), Some(code));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let at = file.path();
        let problem =
            format!("dot-proxy: {at}:2: listen 192.0.2.1:53: is no address of this host now; ");
        assert!(said.starts_with(&problem) && said.contains(way), "{said}");
        assert_eq!(said.contains(&format!("{at} is right")), code == 0, "{said}");
    }
}

#[test]
fn a_subcommand_has_a_help_of_its_own() {
    for (args, first, others) in [
        (&["health", "--help"][..], "Usage: dot-proxy health [--listen", ["--upstream", "check"]),
        (
            &["check-config", "-h"],
            "Usage: dot-proxy check-config [OPTION]",
            ["--upstream", "health"],
        ),
        (
            &["check", "--help"],
            "Usage: dot-proxy check [OPTION]... [--json]",
            ["--listen", "health"],
        ),
    ] {
        let output = run(args);

        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.starts_with(first) && !others.iter().any(|it| text.contains(it)), "{text}");
    }
}

#[test]
fn a_subcommand_may_stand_behind_the_flags_of_an_image() {
    let listen = ["--listen", "127.0.0.1:5300"];
    let output =
        run(&[&listen[..], &["check-config", "--upstream", "192.0.2.1#dot.example"]].concat());
    assert_eq!(output.status.code(), Some(0));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(printed, "listen 127.0.0.1:5300\nupstream 192.0.2.1#dot.example\n");

    let nobody = ["--upstream", "127.0.0.1:9#dot.example"];
    let output = run(&[&listen[..], &["check"], &nobody].concat());
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("127.0.0.1:9#dot.example"), "{printed}");
}

#[test]
fn long_values_and_many_errors_leave_room_for_what_is_wrong() {
    let long = "x".repeat(5_000);
    let upstream = "127.0.0.1:9#dot.example";
    let output = run(&["--ca-file", &long, "--listen", "127.0.0.1:0", "--upstream", upstream]);
    let error = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
    assert!(error.starts_with("dot-proxy: --ca-file xxx") && error.ends_with("name too long\n"));

    let networks: Vec<_> =
        (0..1_200).map(|n| format!("deny 10.{}.{}.0/24\n", n / 256, n % 256)).collect();
    let networks = networks.concat();
    let file = TestFile::new("many", &networks);
    let output = run(&["check-config", "--config", file.path()]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), errors.lines().count()), (Some(2), 21), "{errors}");
    assert!(errors.ends_with("dot-proxy: and 180 more\n"), "{errors}");
}

#[test]
fn check_config_reads_the_files_that_are_named() {
    for command in [&["check-config"][..], &["check"], &[]] {
        let file = ["--upstream", "192.0.2.1#a.example", "--ca-file", "/nowhere/ca.pem"];
        let output = run(&[command, &file, &["--listen", "127.0.0.1:0"]].concat());
        assert_eq!(output.status.code(), Some(2), "{command:?}");
    }
    let output = run(&["check-config", "--ca-file", "/nowhere/ca.pem"]);
    assert!(output.stdout.is_empty());
    let error = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert_eq!(
        error,
        "dot-proxy: --ca-file /nowhere/ca.pem: cannot be read: no such file or directory\n"
    );
}
