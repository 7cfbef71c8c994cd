//! Clients that misbehave: C1 to C9, C11. The server of these rows does everything right.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::forwarder::asker::{Asked, Asker, PATIENCE};
use crate::forwarder::outcome::{Outcome, SLACK};
use crate::forwarder::stage::{Idle, Stage};
use crate::forwarder::subject::Subject;
use crate::message::{self, A, AXFR, BADVERS, FORMERR, NOERROR, NOTIMP, QR, RD, REFUSED, TXT};
use crate::server::LIMIT;
use crate::{Act, Query, Setup, TcpClient};

/// What a client may cost in memory.
const GROWTH_MAX_KIB: usize = 16 << 10;

fn names(row: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("n{n}.{row}.example"))
}

/// Answers at once, but `slow` names after a while and `held` names never.
fn slow_and_held(setup: Setup, slow: Duration) -> Setup {
    setup.handler(move |query| match query.name.split(['.', '-']).next() {
        Some("slow") => vec![Act::After(slow, query.answer())],
        Some("held") => Vec::new(),
        _ => query.answer(),
    })
}

/// Whether the other side has closed, or closes within this time.
fn is_closed(stream: &TcpStream, wait: Duration) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::IN | PollFlags::RDHUP)];
    let wait = Timespec::try_from(wait).expect("a short time");
    poll(&mut fds, Some(&wait)).expect("an open socket");
    let over = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    fds[0].revents().intersects(over)
}

/// Whether the forwarder at this address has a connection of this client open, as the kernel tells: the
/// number of its open files would tell of others, too.
fn is_held(forwarder: SocketAddr, client: &TcpStream) -> bool {
    const ESTABLISHED: &str = "01";
    const CLOSE_WAIT: &str = "08";

    let client = client.local_addr().expect("a connection");
    let [local, remote] = [forwarder, client].map(|address| {
        let IpAddr::V4(ip) = address.ip() else { panic!("an address of IPv4") };
        // In the machine's order of octets.
        format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port())
    });
    // The table of the network that this thread is in.
    let table = fs::read_to_string("/proc/thread-self/net/tcp").expect("a table");
    table.lines().any(|row| {
        let mut row = row.split_whitespace().skip(1);
        let addresses = (row.next(), row.next());
        addresses == (Some(&local), Some(&remote))
            && row.next().is_some_and(|state| [ESTABLISHED, CLOSE_WAIT].contains(&state))
    })
}

pub fn one_octet_at_a_time(subject: &dyn Subject) -> Result<Outcome, String> {
    const LONGEST: Duration = Duration::from_secs(35);
    const EVERY: Duration = Duration::from_millis(500);

    let idle = Idle { client: Some(3), ..Idle::default() };
    let stage = Stage::one_idle(subject, idle, |setup| setup)?;
    let mut asker = stage.asker();
    let (trickle, partial) = (stage.tcp(), stage.tcp());
    let query = message::framed(&Query::new("trickle.c1.example", A).opt(1232).bytes());
    let query = [&[0xff, 0xff], &query[..]].concat();
    let mut partial_closed = None;
    let mut trickle_closed = None;
    // A length and nothing more.
    (&mut partial.stream()).write_all(&query[..2]).expect("an open connection");
    let start = Instant::now();
    for octet in query.iter().cycle() {
        if trickle_closed.is_none() && (&mut trickle.stream()).write_all(&[*octet]).is_err() {
            trickle_closed = Some(start.elapsed());
        }
        asker.send(&format!("n{}.c1.example", asker.queries().len()));
        asker.listen(EVERY);
        if trickle_closed.is_none() && is_closed(trickle.stream(), Duration::ZERO) {
            trickle_closed = Some(start.elapsed());
        }
        if partial_closed.is_none() && is_closed(partial.stream(), Duration::ZERO) {
            partial_closed = Some(start.elapsed());
        }
        if start.elapsed() > LONGEST || (trickle_closed.is_some() && partial_closed.is_some()) {
            break;
        }
    }
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_within(SLACK);
    for (what, closed) in [("one octet a time", trickle_closed), ("a length", partial_closed)] {
        match closed {
            Some(after) => {
                outcome.note(format!("{what}: closed after {:.0} s", after.as_secs_f32()));
            }
            None => outcome.promise(false, || format!("{what}: not closed in {LONGEST:.0?}")),
        }
    }
    Ok(outcome)
}

pub fn idle_connections(subject: &dyn Subject) -> Result<Outcome, String> {
    const CLIENTS: usize = 1_000;
    /// Descriptors for the clients, and for the other rows of the same process.
    const FILES: u64 = CLIENTS as u64 + 500;

    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < FILES) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), ..limit })
            .map_err(|_| format!("{FILES} open files are not allowed here"))?;
    }
    let stage = Stage::one(subject, |setup| slow_and_held(setup, 2 * SLACK))?;
    let mut busy = stage.tcp();
    busy.send(&Query::new("slow.c2.example", A).id(1).bytes());
    stage.servers[0].await_log("the query", |log| log.queries_for("slow.c2.example") > 0);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        match TcpStream::connect_timeout(&stage.address(), PATIENCE) {
            Ok(client) => clients.push(client),
            Err(_) => break,
        }
    }
    let mut asker = stage.asker();
    asker.ask_each(names("c2", 20));
    let mut newcomer = stage.tcp();
    let newcomer = try_ask(&mut newcomer, &Query::new("newcomer.c2.example", A).bytes());
    let busy = busy.try_receive().is_ok();

    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_within(SLACK);
    for (what, answered) in [("a new connection", newcomer), ("a busy connection", busy)] {
        outcome.count_other(usize::from(answered), 0, usize::from(!answered));
        outcome.promise(answered, || format!("{what} got no answer"));
    }
    outcome.promise_all_answered();
    let open = clients.iter().filter(|client| !is_closed(client, Duration::ZERO)).count();
    outcome.note(format!("{open} of {CLIENTS} idle ones kept"));
    Ok(outcome)
}

/// Whether a query over TCP is answered; the connection may be dead already.
fn try_ask(client: &mut TcpClient, query: &[u8]) -> bool {
    client.stream().write_all(&message::framed(query)).is_ok()
        && client.try_receive().is_ok_and(|octets| message::flags(&octets) & (QR | 15) == QR)
}

pub fn early_close(subject: &dyn Subject) -> Result<Outcome, String> {
    const OWED: u16 = 10;
    const CLOSED: usize = 20;

    let stage = Stage::one(subject, |setup| slow_and_held(setup, Duration::from_millis(500)))?;
    let mut asker = stage.asker();
    asker.ask("first.c3.example");
    let files_before = stage.running.open_files();

    let mut half_closed = stage.tcp();
    for id in 0..OWED {
        half_closed.send(&Query::new(&format!("slow-{id}.c3.example"), A).id(id).bytes());
    }
    half_closed.finish();
    let owed = (0..OWED).map_while(|_| half_closed.try_receive().ok()).count();
    let ended = is_closed(half_closed.stream(), PATIENCE);
    drop(half_closed);

    let clients: Vec<_> = (0..CLOSED)
        .map(|n| {
            let mut client = stage.tcp();
            client.send(&Query::new(&format!("held-{n}.c3.example"), A).bytes());
            client
        })
        .collect();
    // What is sent later is answered later: the queries before it have been read.
    asker.ask("second.c3.example");
    drop(clients);
    let closed = Instant::now();
    let mut files_after = stage.running.open_files();
    while files_after > files_before && closed.elapsed() < PATIENCE {
        asker.ask(&format!("n{}.c3.example", asker.queries().len()));
        asker.listen(Duration::from_millis(50));
        files_after = stage.running.open_files();
    }

    let mut outcome = stage.outcome(&[&asker]);
    outcome.count_other(owed, 0, usize::from(OWED) - owed);
    outcome.promise_all_answered();
    outcome.promise(ended, || "no end after the half-closed one had its answers".to_owned());
    if let (Some(before), Some(after)) = (files_before, files_after) {
        // Connections to the server may have become more, too.
        outcome.promise(after < before + CLOSED / 2, || {
            format!("{after} open files at the end, {before} at the start")
        });
    }
    Ok(outcome)
}

pub fn never_reads(subject: &dyn Subject) -> Result<Outcome, String> {
    const LONGEST: Duration = Duration::from_secs(18);
    const QUERIES: u16 = 200;

    let stage = Stage::one(subject, |setup| setup)?;
    let mut asker = stage.asker();
    asker.ask("first.c4.example");
    let before = stage.running.peak_memory();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a socket");
    socket.connect(&stage.address().into()).expect("a listener");
    let deaf = TcpStream::from(socket);
    let queries = (0..QUERIES).map(|id| {
        let name = format!("size-60000.n{id}.c4.example");
        message::framed(&Query::new(&name, TXT).id(id).bytes())
    });
    (&deaf).write_all(&queries.collect::<Vec<_>>().concat()).expect("room for the queries");
    asker.ask("second.c4.example");
    let start = Instant::now();
    // The end of the connection waits behind what the client does not read.
    while start.elapsed() < LONGEST && is_held(stage.address(), &deaf) {
        asker.send(&format!("n{}.c4.example", asker.queries().len()));
        asker.listen(Duration::from_millis(250));
    }
    let after_time = start.elapsed();
    asker.finish();
    let after = stage.running.peak_memory();
    // The kernel may have stopped trying for a while to send what was left.
    deaf.set_read_timeout(Some(LIMIT)).expect("a time");
    let (mut received, mut octets, mut ended) = (0, vec![0; 65_536], true);
    loop {
        match (&deaf).read(&mut octets) {
            Ok(0) => break,
            Ok(n) => received += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                ended = error.kind() != ErrorKind::WouldBlock;
                break;
            }
        }
    }

    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_within(SLACK);
    let closed = ended && received < 60_000 * usize::from(QUERIES);
    outcome.promise(closed, || format!("not closed within {LONGEST:.0?}"));
    if closed {
        outcome.note(format!("closed after {:.0} s", after_time.as_secs_f32()));
    }
    promise_memory(&mut outcome, before, after);
    Ok(outcome)
}

fn promise_memory(outcome: &mut Outcome, before: Option<usize>, after: Option<usize>) {
    if let (Some(before), Some(after)) = (before, after) {
        let growth = after.saturating_sub(before);
        outcome.promise(growth < GROWTH_MAX_KIB, || format!("memory grew by {growth} KiB"));
        outcome.note(format!("memory grew by {:.1} MiB", growth as f64 / 1_024.0));
    }
}

pub fn thousand_in_one_write(subject: &dyn Subject) -> Result<Outcome, String> {
    const QUERIES: u16 = 1_000;

    let stage = Stage::one(subject, |setup| slow_and_held(setup, SLACK))?;
    let mut client = stage.tcp();
    let queries = (0..QUERIES).map(|id| {
        let first = if id == 0 { "slow".to_owned() } else { format!("n{id}") };
        message::framed(&Query::new(&format!("{first}.c5.example"), A).id(id).bytes())
    });
    client.send_raw(&queries.collect::<Vec<_>>().concat());
    let start = Instant::now();
    let (mut answered, mut servfail, mut worst, mut last) = (0, 0, Duration::ZERO, None);
    while let Ok(response) = client.try_receive() {
        let flags = message::flags(&response);
        *if flags & 15 == NOERROR { &mut answered } else { &mut servfail } += 1;
        worst = start.elapsed();
        last = Some(message::id(&response));
        if answered + servfail == usize::from(QUERIES) {
            break;
        }
    }
    let mut outcome = stage.outcome(&[]);
    outcome.count_other(answered, servfail, usize::from(QUERIES) - answered - servfail);
    outcome.worst = worst;
    outcome.promise_all_answered();
    outcome.promise_within(3 * SLACK);
    outcome.promise(last == Some(0), || "the others waited for the slow one".to_owned());
    Ok(outcome)
}

pub fn flood(subject: &dyn Subject) -> Result<Outcome, String> {
    const FLOOD: usize = 10_000;
    const STEP: usize = 50;

    let stage = Stage::one(subject, |setup| slow_and_held(setup, SLACK))?;
    let mut other = Asker::from(Ipv4Addr::new(127, 0, 0, 2), stage.address());
    other.ask("first.c6.example");
    let before = stage.running.peak_memory();
    let mut flooder = stage.asker();
    for step in 0..FLOOD / STEP {
        for n in 0..STEP {
            flooder.send(&format!("held-{n}.step{step}.c6.example"));
        }
        if step % 10 == 0 {
            other.send(&format!("n{step}.c6.example"));
        }
        flooder.listen(Duration::from_millis(20));
        other.listen(Duration::ZERO);
    }
    let at_once =
        flooder.queries().iter().filter_map(Asked::delay).filter(|delay| *delay < SLACK).count();
    flooder.finish();
    other.finish();
    let during = other.queries().len();
    other.ask_each(names("after.c6", 20));
    let after = stage.running.peak_memory();

    let mut outcome = stage.outcome(&[&other]);
    outcome.promise_all_answered();
    outcome.promise_within(SLACK);
    let slow = other.queries()[during..].iter().filter(|asked| !asked.is_answered()).count();
    outcome.promise(slow == 0, || format!("{slow} not answered when the flood was over"));
    let refused = flooder.queries().iter().filter(|asked| asked.is_failed()).count();
    let dropped = FLOOD - refused;
    outcome.note(format!(
        "of {FLOOD} in the flood {at_once} refused at once, {} later, {dropped} got nothing",
        refused - at_once
    ));
    outcome.promise(at_once > 0, || "no query was refused at a limit".to_owned());
    promise_memory(&mut outcome, before, after);
    Ok(outcome)
}

pub fn burst(subject: &dyn Subject) -> Result<Outcome, String> {
    /// What the kernel charges for a datagram of a query, in octets.
    const CHARGED: usize = 832;

    let stage = Stage::one(subject, |setup| setup)?;
    let mut asker = stage.asker();
    asker.ask("first.c7.example");
    let granted = subject.receive_buffer();
    for name in names("c7", granted / CHARGED * 8 / 10) {
        asker.send(&name);
    }
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.note(format!("{} at once", asker.queries().len() - 1));
    Ok(outcome)
}

/// The messages of C8, and the RCODE that is due; none for what is no query.
fn malformed() -> Vec<(&'static str, Vec<u8>, Option<u16>)> {
    const IQUERY: u16 = 1 << 11;
    const UPDATE: u16 = 5 << 11;
    const DSO: u16 = 6 << 11;

    let query = Query::new("a.c8.example", A);
    let plain = query.bytes();
    let with_opt = query.clone().opt(1232).bytes();
    let opt = &with_opt[plain.len()..];
    let mut two_questions = [&plain[..], &plain[12..]].concat();
    two_questions[5] = 2;
    let mut two_opts = [&with_opt[..], opt].concat();
    two_opts[11] = 2;
    let garbage = [&message::header(0, RD, [1, 0, 0, 0])[..], &[0x7f; 40]].concat();
    let opcode = |opcode| query.clone().flags(opcode | RD).bytes();
    vec![
        ("a response", query.clone().flags(QR | RD).bytes(), None),
        ("11 octets", plain[..11].to_vec(), None),
        ("nothing", Vec::new(), None),
        ("no question", message::header(0, RD, [0; 4]), Some(FORMERR)),
        ("two questions", two_questions, Some(FORMERR)),
        ("IQUERY", opcode(IQUERY), Some(NOTIMP)),
        ("UPDATE", opcode(UPDATE), Some(NOTIMP)),
        ("DSO", opcode(DSO), Some(NOTIMP)),
        ("garbage", garbage, Some(FORMERR)),
        ("a cut question", plain[..plain.len() - 3].to_vec(), Some(FORMERR)),
        ("two OPT", two_opts, Some(FORMERR)),
        ("EDNS version 1", query.clone().opt(1232).edns_version(1).bytes(), Some(BADVERS)),
        ("AXFR", Query::new("a.c8.example", AXFR).bytes(), Some(REFUSED)),
    ]
}

pub fn malformed_queries(subject: &dyn Subject) -> Result<Outcome, String> {
    /// An answer to what is dropped would be there by then.
    const PROBE: &str = "probe.c8.example";

    let stage = Stage::one(subject, |setup| setup)?;
    let mut outcome = Outcome::default();
    for (n, (what, query, due)) in malformed().into_iter().enumerate() {
        let id = n as u16 + 1;
        let query = if query.len() < 2 { query } else { message::with_id(&query, id) };
        let got = exchange(&stage, &query, id, PROBE);
        outcome.count_other(
            usize::from(got.is_some() && got == due),
            usize::from(got != due && got.is_some()),
            usize::from(got.is_none() && due.is_some()),
        );
        outcome.promise(got == due, || match got {
            Some(rcode) => format!("{what}: RCODE {rcode}"),
            None => format!("{what}: no answer"),
        });
    }
    let mut asker = stage.asker();
    asker.ask_each(names("c8", 5));
    outcome.count(&asker);
    for server in &stage.servers {
        outcome.count_connections(server);
        let forwarded = server.log().queries_for("a.c8.example");
        outcome.note(format!("{forwarded} forwarded"));
    }
    outcome.lines = stage.running.end();
    let failed = asker.queries().iter().filter(|asked| !asked.is_answered()).count();
    outcome.promise(failed == 0, || format!("{failed} not answered afterwards"));
    Ok(outcome)
}

/// The RCODE with the upper bits of OPT that a datagram gets, if it gets one before a query sent after
/// it is answered, or soon after.
fn exchange(stage: &Stage, query: &[u8], id: u16, probe: &str) -> Option<u16> {
    const PROBE_ID: u16 = 0x7000;
    const SOON: Duration = Duration::from_millis(500);

    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.connect(stage.address()).expect("a loopback address");
    socket.send(query).expect("room for a datagram");
    socket.send(&Query::new(probe, A).id(PROBE_ID).bytes()).expect("room for a datagram");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    let (mut octets, mut rcode) = ([0; 4_096], None);
    loop {
        match socket.recv(&mut octets) {
            Ok(n) if n >= 12 && message::id(&octets) == id => {
                let version_bits = extended_rcode(&octets[..n]);
                rcode = Some(version_bits << 4 | message::flags(&octets) & 15);
            }
            Ok(_) => socket.set_read_timeout(Some(SOON)).expect("a time"),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return rcode,
        }
    }
}

/// The upper bits of the RCODE, in an OPT record that follows the question or the header.
fn extended_rcode(message: &[u8]) -> u16 {
    let at = match message[4..6] {
        [0, 0] => Some(12),
        _ => message::question_end(message),
    };
    let opt = at.and_then(|at| message.get(at..at + 11));
    opt.filter(|opt| opt[..3] == [0, 0, 41]).map_or(0, |opt| opt[5].into())
}

pub fn retransmissions(subject: &dyn Subject) -> Result<Outcome, String> {
    const COPIES: usize = 2;
    const SOCKETS: usize = 20;

    let stage = Stage::one(subject, |setup| slow_and_held(setup, SLACK))?;
    // Twice from one socket: the same octets, while the first is on its way.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.connect(stage.address()).expect("a loopback address");
    socket.set_read_timeout(Some(3 * SLACK)).expect("a time");
    let query = Query::new("slow-again.c9.example", A).id(99).bytes();
    for _ in 0..COPIES {
        socket.send(&query).expect("room for a datagram");
    }
    let mut octets = [0; 4_096];
    let is_answer =
        |octets: &[u8]| (message::id(octets), message::flags(octets) & 15) == (99, NOERROR);
    let responses =
        (0..=COPIES).map_while(|_| socket.recv(&mut octets).ok().map(|_| is_answer(&octets)));
    let answered = responses.filter(|good| *good).count();
    let copies = stage.servers[0].log().queries_for("slow-again.c9.example");

    // The same ID and question from many sockets.
    let mut askers: Vec<_> = (0..SOCKETS)
        .map(|_| {
            let mut asker = stage.asker();
            asker.send("slow-same.c9.example");
            asker
        })
        .collect();
    askers.iter_mut().for_each(Asker::finish);
    let mut outcome = stage.outcome(&askers.iter().collect::<Vec<_>>());
    outcome.count_other(answered.min(COPIES), 0, COPIES.saturating_sub(answered));
    outcome.promise_all_answered();
    outcome.promise(answered <= COPIES, || format!("{answered} answers to {COPIES} datagrams"));
    outcome.promise(copies == 1, || format!("the upstream got {copies} copies"));
    Ok(outcome)
}

pub fn resets(subject: &dyn Subject) -> Result<Outcome, String> {
    const RESETS: usize = 120;
    const EVERY: Duration = Duration::from_millis(40);
    const SLOW: Duration = Duration::from_secs(3);

    let stage = Stage::one(subject, |setup| slow_and_held(setup, SLOW))?;
    let mut asker = stage.asker();
    asker.ask("first.c11.example");
    for n in 0..RESETS {
        let mut client = stage.tcp();
        for m in 0..3 {
            client.send(&Query::new(&format!("slow-{n}-{m}.c11.example"), A).id(m).bytes());
        }
        asker.listen(EVERY);
        socket2::SockRef::from(client.stream())
            .set_linger(Some(Duration::ZERO))
            .expect("a connected socket");
        drop(client);
        if n % 5 == 4 {
            asker.ask(&format!("n{n}.c11.example"));
        }
    }
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_within(SLACK);
    outcome.promise_connections(&stage.servers[0], 4);
    Ok(outcome)
}
