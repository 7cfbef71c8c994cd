//! Flags that change what is done with queries and connections, each given and not given.

use std::time::{Duration, Instant};

use support::message::{A, NOERROR, SERVFAIL};
use support::{
    Act, Authority, DotServer, Proxy, Query, Received, Response, Setup, TcpClient, UdpClient,
};
use support::{Bed, answers, proxy};

/// Two servers, and a proxy before them with these names for them.
fn two(
    names: [&str; 2],
    handlers: [fn(&Received<'_>) -> Vec<Act>; 2],
    flags: &[&str],
) -> (Proxy, [DotServer; 2]) {
    let authority = Authority::new();
    let mut args = vec!["--ca-file".to_owned(), authority.file().display().to_string()];
    let mut servers = Vec::new();
    for (name, handler) in names.into_iter().zip(handlers) {
        let server = DotServer::start(Setup::new(authority.identity(name)).handler(handler));
        args.extend(["--upstream".to_owned(), format!("{}#{name}", server.address())]);
        servers.push(server);
    }
    args.extend(flags.iter().map(|&flag| flag.to_owned()));
    let Ok(servers) = servers.try_into() else { unreachable!("two of two") };
    (Proxy::start(&args), servers)
}

fn answer(query: &Received<'_>) -> Vec<Act> {
    query.answer()
}

/// Late, but before it counts as silence.
fn late(query: &Received<'_>) -> Vec<Act> {
    match query.name.as_str() {
        "late.example" => vec![Act::After(Duration::from_millis(900), query.answer())],
        _ => query.answer(),
    }
}

fn refuse(query: &Received<'_>) -> Vec<Act> {
    vec![Act::Send(answers::bare(query.message, SERVFAIL))]
}

#[track_caller]
fn ask(proxy: &Proxy, name: &str) -> u16 {
    let query = Query::new(name, A).bytes();
    Response::read(&UdpClient::new(proxy.address()).ask(&query)).rcode
}

#[test]
fn reuse_port_says_whether_a_second_may_listen() {
    let query = Query::new("n.example", A).bytes();
    for (flags, is_shared) in
        [(&[][..], false), (&["--reuse-port", "off"], false), (&["--reuse-port", "on"], true)]
    {
        let bed = Bed::with_args(flags, |setup| setup);
        let address = bed.proxy.address().to_string();
        let args = [&["--listen", &address], flags].concat();
        if is_shared {
            let second = Proxy::before(&bed.authority, &[&bed.server], &args);
            bed.proxy.stop();
            let client = UdpClient::new(second.address());
            assert_eq!(Response::read(&client.ask(&query)).rcode, NOERROR);
        } else {
            let (code, _, stderr) = proxy::run(&args);
            assert_eq!(code, Some(1), "{flags:?}: {stderr}");
            assert!(stderr.contains("address in use; another program"), "{flags:?}: {stderr}");
        }
    }
}

#[test]
fn upstream_policy_says_who_is_asked() {
    for (policy, is_shared) in [("ordered", false), ("spread", true), ("fastest", true)] {
        let flags = ["--upstream-policy", policy, "--hedge", "off"];
        let (proxy, servers) = two(["a.example", "b.example"], [answer; 2], &flags);
        let mut asked = 0;
        // The second one has to be connected to first, however long that takes.
        let started = Instant::now();
        while asked < 20
            || is_shared
                && servers[1].log().queries.is_empty()
                && started.elapsed() < Duration::from_secs(30)
        {
            assert_eq!(ask(&proxy, &format!("n{asked}.example")), NOERROR);
            asked += 1;
        }
        let second = servers[1].log().queries.len();
        assert_eq!(second > 0, is_shared, "{policy}: {second} of {asked}");
        assert_eq!(servers[0].log().queries.len() + second, asked, "{policy}");
    }
}

#[test]
fn hedge_says_who_gets_a_copy_of_what_is_late() {
    const SAME: [&str; 2] = ["a.example", "a.example"];
    const OTHER: [&str; 2] = ["a.example", "b.example"];
    for (names, flags, is_copied) in [
        (SAME, &[][..], true),
        (SAME, &["--hedge", "off"], false),
        (OTHER, &[], false),
        (OTHER, &["--hedge", "any"], true),
    ] {
        let (proxy, servers) = two(names, [late, answer], flags);
        assert_eq!(ask(&proxy, "warm.example"), NOERROR);
        assert_eq!(ask(&proxy, "late.example"), NOERROR);
        let copies = servers[1].log().queries_for("late.example");
        assert_eq!(copies, usize::from(is_copied), "{names:?} {flags:?}");
    }
}

#[test]
fn retry_servfail_says_whether_another_operator_is_asked() {
    for (flags, rcode) in [(&[][..], NOERROR), (&["--retry-servfail", "off"], SERVFAIL)] {
        let (proxy, servers) = two(["a.example", "b.example"], [refuse, answer], flags);
        assert_eq!(ask(&proxy, "n.example"), rcode, "{flags:?}");
        assert_eq!(servers[1].log().queries.len(), usize::from(rcode == NOERROR), "{flags:?}");
    }
}

#[test]
fn ecs_says_whether_client_subnets_pass() {
    // Option 8: IPv4, 24 of 32 bits of 192.0.2.0.
    const SUBNET: [u8; 7] = [0, 1, 24, 0, 192, 0, 2];
    for (flags, passes) in [(&[][..], false), (&["--ecs", "pass"], true)] {
        let bed = Bed::with_args(flags, |setup| setup);
        let query = Query::new("n.example", A).opt(1232).option(8, &SUBNET).bytes();
        assert_eq!(Response::read(&bed.udp().ask(&query)).rcode, NOERROR);
        let sent = bed.server.log().queries[0].1.clone();
        let has = |octets: &[u8]| sent.windows(octets.len()).any(|window| window == octets);
        assert_eq!(has(&SUBNET), passes, "{flags:?}");
        assert_eq!(has(&[0, 8, 0, 4, 0, 1, 0, 0]), !passes, "{flags:?}: none is to be added");
    }
}

#[test]
fn tcp_clients_max_says_how_many_stay_connected() {
    let flags = ["--tcp-clients-max", "2"];
    let bed = Bed::with_args(&flags, |setup| setup);
    let query = Query::new("n.example", A).bytes();
    let mut clients: Vec<TcpClient> = Vec::new();
    for _ in 0..3 {
        let mut client = bed.tcp();
        assert_eq!(Response::read(&client.ask(&query)).rcode, NOERROR);
        clients.push(client);
    }
    // The one idle for longest made room for the third.
    clients[0].await_end();
    for client in &mut clients[1..] {
        assert_eq!(Response::read(&client.ask(&query)).rcode, NOERROR);
    }
}

#[test]
fn size_says_how_many_are_served() {
    let query = Query::new("n.example", A).bytes();
    for (flags, stays) in [(&["--size", "small"][..], false), (&[], true)] {
        let bed = Bed::with_args(flags, |setup| setup);
        let mut clients: Vec<TcpClient> = Vec::new();
        for _ in 0..9 {
            let mut client = bed.tcp();
            assert_eq!(Response::read(&client.ask(&query)).rcode, NOERROR);
            clients.push(client);
        }
        if stays {
            assert_eq!(Response::read(&clients[0].ask(&query)).rcode, NOERROR);
        } else {
            clients[0].await_end();
        }
        assert_eq!(Response::read(&clients[8].ask(&query)).rcode, NOERROR);
    }
}
