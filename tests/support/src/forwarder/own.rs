//! The program of this repository as a forwarder like any.

use std::process::Command;

use crate::forwarder::subject::{self, Subject, Wanted};
use crate::proxy;

/// The program of this repository.
pub struct DotProxy;

impl Subject for DotProxy {
    fn command(&self, wanted: &Wanted<'_>) -> Result<Command, String> {
        let mut command = Command::new(proxy::program());
        command.args(["--listen", &wanted.listen.to_string(), "--query-log", "off"]);
        command.arg("--ca-file").arg(wanted.ca_file);
        for (address, name) in wanted.upstreams {
            let known_by = wanted.pins.behind(name);
            command.args(["--upstream", &format!("{address}#{known_by}")]);
        }
        if let Some(seconds) = wanted.client_idle {
            command.args(["--client-idle-timeout", &seconds.to_string()]);
        }
        if let Some(seconds) = wanted.upstream_idle {
            command.args(["--upstream-idle-timeout", &seconds.to_string()]);
        }
        Ok(command)
    }

    fn receive_buffer(&self) -> usize {
        subject::granted_receive_buffer()
    }
}
