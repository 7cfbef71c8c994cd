//! What the process allocates, octet by octet.

use std::process::Command;

use dot_proxy::config::{self, Command as Asked, Host};
use dot_proxy::forwarder::QueryLogStyle;
use dot_proxy::memory::Bound;
use dot_proxy::shell::reactor::{Given, Reactor};

use crate::allocator::{allocated, forget_most, most_allocated};
use crate::load::Load;
use crate::program::Program;

/// The arguments of the program, one a line. With them the test binary is that program, so that
/// allocations are counted where there are no others.
const ARGUMENTS: &str = "DOT_PROXY_COUNTED";

#[test]
fn allocations_stay_below_their_bound() {
    if let Ok(arguments) = std::env::var(ARGUMENTS) {
        return run(&arguments);
    }
    for size in ["small", "default"] {
        let load = Load::new(size, &[]);
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "counted::allocations_stay_below_their_bound", "--nocapture"]);
        command.env(ARGUMENTS, load.arguments().join("\n"));
        let mut program = Program::start(command);

        load.run(program.address());

        program.terminate();
        let [idle, most, bound] = ["idle ", "most ", "bound "]
            .map(|start| program.await_line(start).parse::<usize>().expect("a number of octets"));
        println!("{size}: {idle} octets allocated at first, {most} at most, {bound} is the bound");
        assert!(most <= bound, "{size}: {most} octets of {bound} were allocated");
        // A bound that is far away is of no use.
        assert!(3 * most > bound, "{size}: {most} octets of {bound} were allocated");
    }
}

/// What `main` does, and what it came to.
fn run(arguments: &str) {
    let before = allocated();
    let arguments = arguments.lines().map(Into::into).collect();
    let Ok(Asked::Run(mut config)) = config::parse(arguments, Host::default()) else {
        panic!("these are arguments to run with");
    };
    config.limits.query_log = Some(QueryLogStyle::default());
    let bound = Bound::of(&config, 0).allocated;
    forget_most();
    let mut reactor = Reactor::bind(&config, Given::default()).expect("it starts");
    for address in reactor.served().clients {
        println!("listening {address} udp tcp");
    }
    let idle = allocated() - before;
    reactor.run().expect("it ends");
    println!("\nidle {idle}\nmost {}\nbound {bound}", most_allocated() - before);
}
