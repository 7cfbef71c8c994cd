//! The programs of the benchmark do their work, so that they do when they are needed. How fast they are is
//! judged by nobody here.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use support::bench::bare_loop::BareLoop;
use support::bench::cpu;
use support::bench::delay::Delay;
use support::bench::load::{self, Pace, Plan, Report, Transport};
use support::bench::paths::network::{self, Loss, Network, Path};
use support::bench::upstream::{Counts, Upstream};
use support::server::LIMIT;
use support::skip::skip;
use support::{Authority, Proxy};

#[test]
fn the_bare_loop_forwards_everything() {
    let bed = Bed::start(None, Duration::ZERO);
    let (file, upstream) = (bed.authority.file().to_owned(), bed.upstream);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let forwarder = BareLoop::start(ANY_PORT, upstream, NAME, &file).expect("a bare loop");
        sender.send(forwarder.address().expect("an address")).expect("it is received below");
        panic!("{}", forwarder.run());
    });

    bed.assert_forwards_everything(receiver.recv().expect("a bare loop"));
}

#[test]
fn dot_proxy_forwards_everything() {
    for version in [&TLS12, &TLS13] {
        let bed = Bed::start(Some(version), Duration::ZERO);
        let proxy = bed.proxy();

        bed.assert_forwards_everything(proxy.address());
    }
}

#[test]
fn a_slow_upstream_shows_in_the_latency() {
    const DELAY: Duration = Duration::from_millis(20);
    let bed = Bed::start(None, DELAY);
    let proxy = bed.proxy();

    let report =
        load::run(&plan(proxy.address(), Transport::Udp, Pace::InFlight(20))).expect("a target");

    assert_eq!((report.lost, report.failed, report.strays), (0, 0, 0), "{report}");
    let shortest = report.latency.quantile(0).expect("a query");
    assert!(shortest >= DELAY.mul_f64(0.98), "a bucket of the histogram is as wide: {report}");
}

#[test]
fn what_is_not_answered_is_lost() {
    let silent = UdpSocket::bind(ANY_PORT).expect("a free port");
    let mut plan = plan(silent.local_addr().expect("an address"), Transport::Udp, Pace::Rate(200));
    plan.timeout = Duration::from_millis(50);

    let report = load::run(&plan).expect("a target");

    assert!(report.sent > 0, "{report}");
    assert_eq!((report.lost, report.answered, report.responses), (report.sent, 0, 0), "{report}");
}

#[test]
fn what_is_no_answer_does_not_count() {
    let echo = UdpSocket::bind(ANY_PORT).expect("a free port");
    let mut plan = plan(echo.local_addr().expect("an address"), Transport::Udp, Pace::Rate(200));
    plan.timeout = Duration::from_millis(50);
    std::thread::spawn(move || {
        const QR: u8 = 0x80;
        let mut buffer = [0; 512];
        // Queries come back as they are, then as responses without a record.
        for number in 0_u32.. {
            let (len, from) = echo.recv_from(&mut buffer).expect("a query");
            buffer[2] |= if number % 2 == 0 { 0 } else { QR };
            echo.send_to(&buffer[..len], from).expect("a way back");
        }
    });

    let report = load::run(&plan).expect("a target");

    assert_eq!((report.answered, report.responses), (0, 0), "{report}");
    assert!(report.failed > 0 && report.strays > 0 && report.lost > 0, "{report}");
    assert_eq!(report.failed + report.lost, report.sent, "{report}");
}

#[test]
fn what_threads_used_counts_when_they_have_ended() {
    const USED: Duration = Duration::from_millis(200);
    const TICKS: Duration = Duration::from_millis(20);
    let pid = std::process::id();
    for of_process in [cpu::of_process, cpu::from_outside] {
        let (sender, used) = mpsc::channel();
        let before = cpu::own();
        let thread = std::thread::spawn(move || {
            // Others only add to it.
            while cpu::own() < before + USED {}
            sender.send(of_process(pid).expect("its own")).expect("it is received below");
        });
        let used = used.recv().expect("a time");
        thread.join().expect("no panic");

        let after = of_process(pid).expect("its own");

        assert!(after + TICKS >= used, "{after:?} after {used:?}");
    }
}

#[test]
fn a_path_loses_packets_in_both_directions() {
    const COUNT: u64 = 1_000;
    for loss in [Loss::NONE, Loss::per_mille(500)] {
        let path = Path { loss, way: Duration::ZERO, congestion: None };
        let network = match Network::new(path) {
            Ok(network) => network,
            Err(why) => return skip("a_path_loses_packets_in_both_directions", &why),
        };
        let echo = network.far(|| UdpSocket::bind(network::UPSTREAM).expect("its address"));
        let asker = network.near(|| UdpSocket::bind("0.0.0.0:0").expect("a free port"));
        asker.connect(network::UPSTREAM).expect("a route");
        for socket in [&asker, &echo] {
            socket.set_nonblocking(true).expect("a socket");
        }
        let (mut there, mut back) = (0, 0);
        let mut buffer = [0; 16];
        let mut receive = || {
            while let Ok((len, from)) = echo.recv_from(&mut buffer) {
                echo.send_to(&buffer[..len], from).expect("room");
                there += 1;
            }
            while asker.recv(&mut buffer).is_ok() {
                back += 1;
            }
            back
        };
        for _ in 0..COUNT {
            asker.send(b"there").expect("room");
            receive();
        }
        // What another core has in its hands comes a little later.
        let deadline = Instant::now() + LIMIT;
        while receive() + network.lost() < COUNT {
            assert!(Instant::now() < deadline, "datagrams are neither lost nor there");
        }

        if loss == Loss::NONE {
            assert_eq!((there, back), (COUNT, COUNT));
        } else {
            assert!((400..600).contains(&there), "{there} came");
            assert!(
                (there * 4 / 10..there * 6 / 10).contains(&back),
                "{back} of {there} came back"
            );
        }
    }
}

/// A running upstream, as long as the test.
struct Bed {
    authority: Authority,
    upstream: SocketAddr,
    counts: Arc<Counts>,
}

impl Bed {
    fn start(version: Option<&'static SupportedProtocolVersion>, delay: Duration) -> Self {
        let authority = Authority::new();
        let identity = authority.identity(NAME);
        let upstream =
            Upstream::bind(ANY_PORT, identity, version, Delay::Fixed(delay)).expect("an upstream");
        let (address, counts) = (upstream.address().expect("an address"), upstream.counts());
        std::thread::spawn(move || panic!("{}", upstream.run()));
        Self { authority, upstream: address, counts }
    }

    fn proxy(&self) -> Proxy {
        let upstreams = [self.upstream];
        let more = ["--query-log", "off"];
        Proxy::start(&support::proxy::arguments(&self.authority, &upstreams, &more))
    }

    #[track_caller]
    fn assert_forwards_everything(&self, address: SocketAddr) {
        for transport in [Transport::Udp, Transport::Tcp] {
            for pace in [Pace::InFlight(20), Pace::Rate(500)] {
                let seen = self.counts.queries.load(Ordering::Relaxed);
                let mut plan = plan(address, transport, pace);
                plan.edns = transport == Transport::Tcp;

                let report = load::run(&plan).expect("a target");

                let seen = self.counts.queries.load(Ordering::Relaxed) - seen;
                assert_all_answered(&report);
                assert!(seen >= report.sent, "{seen} seen by the upstream, {report}");
            }
        }
        assert_eq!(self.counts.connections.load(Ordering::Relaxed), 1);
    }
}

#[track_caller]
fn assert_all_answered(report: &Report) {
    assert!(report.sent > 0 && report.responses > 0, "{report}");
    assert_eq!(report.answered, report.sent, "{report}");
    assert_eq!((report.lost, report.failed), (0, 0), "{report}");
    assert_eq!((report.strays, report.closed), (0, 0), "{report}");
    assert!((1..report.sent).contains(&report.latency.total()), "{report}");
    let (name, used) = &report.watched[0];
    assert_eq!(name, "own");
    assert!(!used.is_zero(), "{report}");
}

/// Short; nothing is lost only because the machine is slow.
fn plan(target: SocketAddr, transport: Transport, pace: Pace) -> Plan {
    Plan {
        target,
        transport,
        clients: 3,
        pace,
        edns: false,
        warm_up: Duration::from_millis(50),
        time: Duration::from_millis(500),
        timeout: LIMIT,
        watched: vec![("own".to_owned(), std::process::id())],
        interrupted: Arc::default(),
    }
}

const NAME: &str = "dot.example";
const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
