//! A DNS-over-TLS server that answers any name, to try dot-proxy without internet:
//! `cargo run -p dot-proxy-support --bin dot-server`, then the command it prints.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use support::{Act, Authority, DotServer, Identity, Setup};

const USAGE: &str = "\
usage: dot-server [--listen ADDR:PORT] [--ca-out FILE] [--identity DIR] [--name NAME] [--delay-ms N]
  --listen ADDR:PORT  where to listen, port 0 for a free one (127.0.0.1:8853)
  --ca-out FILE       where to write the root certificate (./target/dot-server-ca.pem)
  --identity DIR      where the root and the certificate are kept from one start to the next; those
                      that are there are used, whatever --name says (made anew each time)
  --name NAME         the name in the certificate (dot.example)
  --delay-ms N        answer so many milliseconds late (0)
It answers A, AAAA and TXT of any name, NXDOMAIN for nx. names, and N octets for TXT of size-N. names.
";

fn main() -> ExitCode {
    match parse().and_then(|options| options.map_or(Ok(()), |options| run(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dot-server: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    listen: SocketAddr,
    ca_out: PathBuf,
    identity: Option<PathBuf>,
    name: String,
    delay: Duration,
}

/// `None`: only help was wanted.
fn parse() -> Result<Option<Options>, String> {
    let mut args = pico_args::Arguments::from_env();
    if args.contains(["-h", "--help"]) {
        print!("{USAGE}");
        return Ok(None);
    }
    let wrong = |error: pico_args::Error| error.to_string();
    let listen: Option<SocketAddr> = args.opt_value_from_str("--listen").map_err(wrong)?;
    let ca_out: Option<PathBuf> = args.opt_value_from_str("--ca-out").map_err(wrong)?;
    let identity: Option<PathBuf> = args.opt_value_from_str("--identity").map_err(wrong)?;
    let name: Option<String> = args.opt_value_from_str("--name").map_err(wrong)?;
    let delay_ms: Option<u64> = args.opt_value_from_str("--delay-ms").map_err(wrong)?;
    if let Some(stray) = args.finish().first() {
        return Err(format!("unknown argument {}; see --help", stray.display()));
    }
    Ok(Some(Options {
        listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8853))),
        ca_out: ca_out.unwrap_or_else(|| Path::new("./target/dot-server-ca.pem").to_owned()),
        identity,
        name: name.unwrap_or_else(|| "dot.example".to_owned()),
        delay: Duration::from_millis(delay_ms.unwrap_or_default()),
    }))
}

/// Serves until the process is killed.
fn run(options: &Options) -> Result<(), String> {
    let (root, identity) = match &options.identity {
        Some(directory) => kept(directory, &options.name)
            .map_err(|error| format!("--identity {}: {error}", directory.display()))?,
        None => made(&options.name),
    };
    let delay = options.delay;
    let setup = Setup::new(identity).handler(move |query| {
        if delay.is_zero() { query.answer() } else { vec![Act::After(delay, query.answer())] }
    });
    let server = DotServer::start_on(options.listen, setup)
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    // Not before: the certificate of a server that runs already must stay.
    let ca_out = options.ca_out.display();
    if let Some(directory) = options.ca_out.parent() {
        fs::create_dir_all(directory)
            .map_err(|error| format!("cannot create the directory of {ca_out}: {error}"))?;
    }
    fs::write(&options.ca_out, root).map_err(|error| format!("cannot write {ca_out}: {error}"))?;
    let address = server.address();
    let name = &options.name;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening {address}")
        .and_then(|()| {
            writeln!(
                stdout,
                "cargo run --release -- --upstream {address}#{name} --ca-file {ca_out}"
            )
        })
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("cannot write to standard output: {error}"))?;
    loop {
        std::thread::park();
    }
}

/// A root as PEM, and a certificate that it signed.
fn made(name: &str) -> (String, Identity) {
    let authority = Authority::new();
    (authority.pem(), authority.identity(name))
}

/// The same as in `directory`, where it is written if it is not there.
fn kept(directory: &Path, name: &str) -> io::Result<(String, Identity)> {
    let [root_file, certificate_file, key_file] =
        ["root.pem", "certificate.der", "key.der"].map(|file| directory.join(file));
    if key_file.exists() {
        let key = PrivateKeyDer::try_from(fs::read(key_file)?).map_err(io::Error::other)?;
        let certificate = fs::read(certificate_file)?.into();
        return Ok((fs::read_to_string(root_file)?, Identity { certificate, key }));
    }
    let (root, identity) = made(name);
    fs::create_dir_all(directory)?;
    fs::write(root_file, &root)?;
    fs::write(certificate_file, &identity.certificate)?;
    // The last, as the others are taken to be there if it is.
    fs::write(key_file, identity.key.secret_der())?;
    Ok((root, identity))
}
