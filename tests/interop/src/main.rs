//! A DoT server on rustls with aws-lc-rs: GROUPS CERTIFICATE KEY, the files in DER. Prints its port; every
//! query is its own answer.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::{env, fs};

use rustls::crypto::aws_lc_rs::{Ticketer, default_provider, kx_group};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [groups, certificate, key] = &arguments[..] else {
        return Err("wanted GROUPS CERTIFICATE KEY".into());
    };
    let mut provider = default_provider();
    provider.kx_groups = match &groups[..] {
        "p256" => vec![kx_group::SECP256R1],
        _ => vec![kx_group::X25519MLKEM768, kx_group::X25519],
    };
    let versions =
        if groups == "tls12" { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
    let certificate = CertificateDer::from(fs::read(certificate)?);
    let key = PrivateKeyDer::try_from(fs::read(key)?)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"dot".to_vec()];
    config.ticketer = Ticketer::new()?;
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    for socket in listener.incoming() {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config))?, socket?);
        loop {
            let mut length = [0; 2];
            match stream.read_exact(&mut length) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                result => result?,
            }
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message)?;
            message[2..4].copy_from_slice(&[0x81, 0x80]);
            stream.write_all(&[&length[..], &message].concat())?;
        }
    }
    Ok(())
}
