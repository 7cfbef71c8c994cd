//! Key exchanges with other implementations of TLS: OpenSSL, and rustls on aws-lc-rs.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use support::message::{A, NOERROR};
use support::proxy;
use support::skip::skip;
use support::{Authority, Proxy, Query, Response, UdpClient};

/// Groups of the server, and what the log says of the first connection to it.
const CASES: [(&str, &str); 3] = [
    ("any", "connected, TLS 1.3, X25519MLKEM768, full handshake"),
    ("p256", "connected, TLS 1.3, secp256r1, full handshake"),
    ("tls12", "connected, TLS 1.2, X25519, full handshake"),
];

#[test]
fn openssl() {
    const TEST: &str = "interop::openssl";

    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let python = || {
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", &packages).stdin(Stdio::null()).stderr(Stdio::null());
        python
    };
    let has_openssl = || {
        let version = "import sys; from OpenSSL import SSL; \
                       sys.exit(SSL.OPENSSL_VERSION_NUMBER < 0x30500000)";
        python().args(["-c", version]).status().is_ok_and(|status| status.success())
    };
    if !has_openssl() {
        // The package brings an OpenSSL of its own.
        let install = ["-m", "pip", "install", "--quiet", "--retries=0", "--timeout=5", "--target"];
        drop(python().args(install).arg(&packages).arg("pyopenssl").stdout(Stdio::null()).status());
        if !has_openssl() {
            return skip(TEST, "no pyOpenSSL with OpenSSL 3.5 or later, and none to be had by pip");
        }
    }
    for (groups, expected) in CASES {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proxy/openssl_server.py");
        let mut command = python();
        command.arg(script).arg(groups);
        assert_agreed(command, expected);
    }
}

#[test]
fn rustls_on_aws_lc_rs() {
    const TEST: &str = "interop::rustls_on_aws_lc_rs";

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .stdin(Stdio::null())
        .output();
    match built {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            return skip(TEST, reason.lines().next().unwrap_or("it does not build"));
        }
        Err(error) => return skip(TEST, &error.to_string()),
    }
    for (groups, expected) in CASES {
        let mut command = Command::new(target.join("debug/interop-server"));
        command.arg(groups).stdin(Stdio::null());
        assert_agreed(command, expected);
    }
}

/// Starts the server, which takes two files as arguments and prints its port, and asks it through the proxy,
/// on a connection with a full handshake and on a resumed one.
#[track_caller]
fn assert_agreed(mut command: Command, expected: &str) {
    let authority = Authority::new();
    let identity = authority.identity("dot.example");
    let files = Files::new(&[identity.certificate.as_ref(), identity.key.secret_der()]);
    let child = command.args(&files.0).stdout(Stdio::piped()).spawn().expect("the server starts");
    let mut server = Killed(child);
    let mut port = String::new();
    let stdout = server.0.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut port).expect("a line");
    let port: u16 = port.trim().parse().expect("a port");
    let address = SocketAddr::from(([127, 0, 0, 1], port));

    let flags = ["--log-level", "debug", "--upstream-idle-timeout", "1"];
    let proxy = Proxy::start(&proxy::arguments(&authority, &[address], &flags));
    let client = UdpClient::new(proxy.address());
    let ask = |name: &str| {
        let response = Response::read(&client.ask(&Query::new(name, A).bytes()));
        assert_eq!(response.rcode, NOERROR, "{expected}");
    };
    ask("a.example");
    proxy.await_line(expected, |line| line.ends_with(expected));
    proxy.await_line("a close", |line| line.ends_with("closed here: idle"));
    ask("b.example");
    let kind = ", resumed";
    proxy.await_line(kind, |line| line.contains(": connected, ") && line.ends_with(kind));
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Files that are gone afterwards.
struct Files(Vec<PathBuf>);

impl Files {
    fn new(contents: &[&[u8]]) -> Self {
        let name = std::thread::current().name().unwrap_or_default().replace(':', "-");
        let files = contents.iter().zip(0..).map(|(content, number)| {
            let name = format!("dot-proxy-{name}-{}-{number}", std::process::id());
            let path = env::temp_dir().join(name);
            let mut file = fs::File::create(&path).expect("a writable directory");
            file.write_all(content).expect("a writable directory");
            path
        });
        Self(files.collect())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.0 {
            drop(fs::remove_file(path));
        }
    }
}
