//! Row H2: the process is stopped for a while and goes on. Its clocks go on meanwhile; that of a
//! suspended machine does not, which is in the unit tests of the reactor and the simulator.

use std::time::Duration;

use rustix::process::Signal;

use crate::observe::await_stop;
use support::message::{A, NOERROR};
use support::{Act, Bed, End, Query, Response};

#[test]
fn h02_stopped_and_continued() {
    let bed = Bed::with_args(&["--upstream-idle-timeout", "1"], |setup| setup);
    let client = bed.udp();
    assert_eq!(Response::read(&client.ask(&Query::new("a.example", A).bytes())).rcode, NOERROR);

    bed.proxy.signal(Signal::STOP);
    await_stop(bed.proxy.pid());
    client.send(&Query::new("b.example", A).bytes());
    // Past the idle timeout, with nothing that could tell of it. Only time is waited for.
    std::thread::sleep(Duration::from_millis(1100));
    bed.proxy.signal(Signal::CONT);
    assert_eq!(Response::read(&client.receive()).rcode, NOERROR);

    // The old connection still stands, so the server would have seen it there.
    let log = bed.server.log();
    let connections: Vec<_> = log.queries.iter().map(|(connection, _)| *connection).collect();
    assert_eq!(connections, [0, 1], "the old connection is not to be trusted: {log:#?}");
}

#[test]
fn h02_closed_by_the_server_while_stopped() {
    for end in [End::Notify, End::Fin, End::Reset] {
        let bed = Bed::start();
        let client = bed.udp();
        assert_eq!(Response::read(&client.ask(&Query::new("a.example", A).bytes())).rcode, NOERROR);

        bed.proxy.signal(Signal::STOP);
        await_stop(bed.proxy.pid());
        bed.server.perform(Act::End(end));
        client.send(&Query::new("b.example", A).bytes());
        bed.proxy.signal(Signal::CONT);
        assert_eq!(Response::read(&client.receive()).rcode, NOERROR, "{end:?}");
        assert_eq!(bed.server.log().connections.len(), 2, "{end:?}");
        let lines = bed.proxy.stop();
        assert!(!lines.iter().any(|line| line.contains("not usable")), "{end:?}: {lines:#?}");
    }
}
