//! Row H8 in containers of a real Docker engine, whose own filter of system calls is around the program's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::rights::{Rights, line_of_status, warnings};
use support::message::{A, NOERROR};
use support::proxy::{arguments, program};
use support::skip::skip;
use support::{Authority, DotServer, Proxy, Query, Response, Setup, UdpClient};

/// What docker prints. The error is why it does not.
fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).output();
    let output = output.map_err(|error| format!("docker: {error}"))?;
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// An image that holds the libraries of the program and nothing else; removed when dropped.
struct Image(String);

impl Image {
    fn new() -> Result<Self, String> {
        const IMPORT: &str = "tar -c --dereference -C / -T /dev/null \
             $(ldd \"$0\" | grep -o '/[^ ]*' | cut -c 2-) | docker import - \"$1\"";

        docker(&["info"])?;
        let name = format!("dot-proxy-libraries:{}", std::process::id());
        let import = Command::new("sh").args(["-c", IMPORT]).arg(program()).arg(&name).output();
        let import = import.map_err(|error| error.to_string())?;
        let image = Self(name);
        match docker(&["image", "inspect", &image.0]) {
            Ok(_) => Ok(image),
            Err(_) => Err(String::from_utf8_lossy(&import.stderr).into_owned()),
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        drop(docker(&["image", "rm", &self.0]));
    }
}

/// A container, removed when dropped.
struct Container(String);

impl Container {
    fn pid(&self) -> String {
        docker(&["inspect", "--format", "{{.State.Pid}}", &self.0]).expect("it runs")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // One that ended is gone.
        drop(docker(&["rm", "--force", &self.0]));
    }
}

#[test]
fn h08_containers() {
    let image = match Image::new() {
        Ok(image) => image,
        Err(reason) => return skip("h08_containers", &reason),
    };
    let authority = Authority::new();
    fs::set_permissions(authority.file(), fs::Permissions::from_mode(0o644)).expect("our file");
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    let nothing = ["--cap-drop", "ALL", "--read-only", "--security-opt", "no-new-privileges"];
    let as_nobody = ["--user", "65534:65534"];
    let one_right = ["--cap-add", "NET_BIND_SERVICE"];
    let recipe = ["--cap-add", "SETGID", "--cap-add", "SETUID"];
    for (number, (options, user, warned)) in [
        (vec![], 65_534, 0),
        (as_nobody.to_vec(), 65_534, 0),
        ([&nothing[..], &as_nobody].concat(), 65_534, 0),
        ([&nothing[..], &one_right, &recipe].concat(), 65_534, 0),
        // Root may be nobody else.
        ([&nothing[..], &one_right].concat(), 0, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let container = Container(format!("dot-proxy-test-{}-{number}", std::process::id()));
        let program = program().display();
        let ca = authority.file().display();
        let (program, ca) = (format!("{program}:{program}:ro"), format!("{ca}:{ca}:ro"));
        let run = ["docker", "run", "--rm", "--network", "host", "--name", &container.0];
        let mounts = ["--volume", &program, "--volume", &ca];
        let wrapper = [&run[..], &mounts, &options, &[&image.0]].concat();
        let proxy =
            Proxy::start_through(&wrapper, &arguments(&authority, &[server.address()], &[]));

        let response = UdpClient::new(proxy.address()).ask(&Query::new("a.example", A).bytes());
        assert_eq!(Response::read(&response).rcode, NOERROR, "{options:?}");
        let pid = container.pid();
        let expected = Rights::only(user, user);
        let rights = Rights::of(&pid);
        assert_eq!(rights.users, expected.users, "{options:?}");
        assert_eq!(rights.capabilities, expected.capabilities, "{options:?}");
        assert_eq!(line_of_status(&pid, "NoNewPrivs"), "1");
        proxy.await_line("line about the sandbox", |line| {
            line.contains("sandbox: system calls") && line.contains("restricted")
        });
        let lines = proxy.stop();
        assert_eq!(warnings(&lines).len(), warned, "{options:?}: {lines:#?}");
    }
}
