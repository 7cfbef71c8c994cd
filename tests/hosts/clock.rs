//! Row H3: the clock is wrong. libfaketime shows the program another one.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::steady::{Asked, ask_steadily, assert_all_answered};
use support::message::{A, NOERROR, SERVFAIL};
use support::proxy::arguments;
use support::skip::skip;
use support::{Act, Authority, DotServer, End, Proxy, Query, Response, Setup, UdpClient};

#[test]
fn h03_clock_at_1970() {
    set_after("h03_clock_at_1970", Duration::from_secs(1));
}

/// The clock is at 1970 for so long, and then set.
#[track_caller]
fn set_after(name: &str, wrong: Duration) {
    const PACE: Duration = Duration::from_millis(100);
    const RECOVERY_MAX: Duration = Duration::from_secs(5);

    let library = match faketime() {
        Ok(library) => library,
        Err(reason) => return skip(name, &reason),
    };
    let clock = Clock::set("@1970-01-01 00:01:00");
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    let proxy =
        clock.show(&library, &arguments(&authority, &[server.address()], &["--query-log", "on"]));

    let query = Query::new("early.example", A).opt(1232).bytes();
    let response = Response::read(&UdpClient::new(proxy.address()).ask(&query));
    assert_eq!(response.rcode, SERVFAIL);
    let errors = response.opt.expect("OPT answers OPT").errors;
    let text = &errors.first().expect("an error").1;
    let logged =
        proxy.await_line("line about the query", |line| line.starts_with("FAILURE early."));
    for word in [&*server.address().to_string(), "certificate", "clock", "1970-01-01", "NTP", "pin"]
    {
        for text in [text, &logged] {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
    }
    let is_about_the_clock =
        |line: &str| line.contains("not usable") && line.contains("clock") && line.contains("1970");
    proxy.await_line("line about the clock", is_about_the_clock);
    assert_eq!(server.log().application_octets(), 0);

    let mut set_at = None;
    let set_before = (wrong.as_millis() / PACE.as_millis()) as u16;
    let rest = (RECOVERY_MAX.as_millis() / PACE.as_millis()) as u16;
    let asked = ask_steadily(proxy.address(), set_before + rest, PACE, |number| {
        if number == set_before {
            clock.change("+0");
            set_at = Some(Instant::now());
        }
    });
    let set_at = set_at.expect("it was set");
    let answered = asked.iter().filter(|one| one.rcode == NOERROR).map(Asked::answered);
    let Some(recovered) = answered.min() else {
        panic!("no answer {RECOVERY_MAX:?} after the clock was set");
    };
    let took = recovered.saturating_duration_since(set_at);
    assert!(took < RECOVERY_MAX, "answers {took:?} after the clock was set");
    assert!(asked.iter().filter(|one| one.sent > recovered).all(|one| one.rcode == NOERROR));
    proxy.await_line("line about the return", |line| line.contains("usable again"));

    let lines = proxy.stop();
    let about_the_clock = lines.iter().filter(|line| is_about_the_clock(line)).count();
    assert_eq!(about_the_clock, 1, "{lines:#?}");
}

#[test]
fn h03_clock_set_late() {
    // The pause between attempts would be 8 s now, and grow to 60 s.
    set_after("h03_clock_set_late", Duration::from_secs(10));
}

#[test]
fn h03_clock_set_while_sessions_are_resumed() {
    let library = match faketime() {
        Ok(library) => library,
        Err(reason) => return skip("h03_clock_set_while_sessions_are_resumed", &reason),
    };
    let authority = Authority::new();
    // Valid until 2002, on a server that wants a handshake for every query.
    let setup = Setup::new(authority.expired("dot.example"))
        .handler(|query| [query.answer(), vec![Act::End(End::Notify)]].concat());
    let server = DotServer::start(setup);
    let clock = Clock::set("@2001-12-30 12:00:00");
    let proxy = clock.show(&library, &arguments(&authority, &[server.address()], &[]));
    let client = UdpClient::new(proxy.address());
    let ask = |name: &str| Response::read(&client.ask(&Query::new(name, A).bytes())).rcode;
    for n in 0..3 {
        assert_eq!(ask(&format!("n{n}.example")), NOERROR);
    }
    // So little that the tickets themselves would last.
    clock.change("@2001-12-30 13:00:00");
    for n in 3..5 {
        assert_eq!(ask(&format!("n{n}.example")), NOERROR);
    }
    let resumed: Vec<_> = server.log().handshakes().map(|handshake| handshake.resumed).collect();
    assert_eq!(resumed, [false, true, true, false, true]);

    clock.change("@2002-01-01 01:00:00");
    assert_eq!(ask("late.example"), SERVFAIL);
    proxy.await_line("line about the certificate", |line| {
        line.contains("not usable") && line.contains("expired on 2002-01-01")
    });
    assert_eq!(server.log().queries_for("late.example"), 0);
}

#[test]
fn h03_pins_stand_in_for_the_clock() {
    let library = match faketime() {
        Ok(library) => library,
        Err(reason) => return skip("h03_pins_stand_in_for_the_clock", &reason),
    };
    let clock = Clock::set("@1970-01-01 00:01:00");
    let authority = Authority::new();
    let identities = ["dot.example"; 2].map(|name| authority.identity(name));
    let pin = identities[1].pin();
    // Both servers want a handshake for every query, so that sessions are resumed by that clock, too.
    let [named, pinned] = identities.map(|identity| {
        let setup = Setup::new(identity)
            .handler(|query| [query.answer(), vec![Act::End(End::Notify)]].concat());
        DotServer::start(setup)
    });
    let mut args = arguments(&authority, &[named.address()], &[]);
    args.extend(["--upstream".to_owned(), format!("{}#{pin}", pinned.address())]);
    let proxy = clock.show(&library, &args);

    let client = UdpClient::new(proxy.address());
    let ask = |name: &str| Response::read(&client.ask(&Query::new(name, A).bytes())).rcode;
    for n in 0..4 {
        assert_eq!(ask(&format!("early{n}.example")), NOERROR);
    }
    assert_eq!(named.log().application_octets(), 0);
    let resumed: Vec<_> = pinned.log().handshakes().map(|handshake| handshake.resumed).collect();
    assert_eq!(resumed, [false, true, true, true]);

    clock.change("+0");
    assert_all_answered(&ask_steadily(proxy.address(), 50, Duration::from_millis(100), |_| ()));
    proxy.await_line("line about the return", |line| {
        line.contains(&format!("{}#dot.example: usable again", named.address()))
    });
    assert_eq!(ask("late.example"), NOERROR);
    assert_eq!(named.log().queries_for("late.example"), 1, "it is the first in order again");
    let lines = proxy.stop();
    let blamed = format!("{}#sha256/", pinned.address());
    let blamed = |line: &String| line.contains(&blamed) && line.contains("not usable");
    assert!(!lines.iter().any(blamed), "{lines:#?}");
}

/// What libfaketime reads before it tells the time.
struct Clock {
    file: PathBuf,
}

impl Clock {
    fn set(time: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);

        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hosts-test-clock-{}-{number}", std::process::id());
        let clock = Self { file: std::env::temp_dir().join(name) };
        clock.change(time);
        clock
    }

    fn change(&self, time: &str) {
        // Whole or not at all, as the program may read it at any moment.
        let new = self.file.with_extension("new");
        fs::write(&new, time).expect("a writable directory");
        fs::rename(&new, &self.file).expect("a writable directory");
    }

    /// A proxy that goes by it, and has no sandbox: the library reads the file again and again.
    fn show(&self, library: &str, args: &[impl AsRef<OsStr>]) -> Proxy {
        let args = args.iter().map(AsRef::as_ref);
        let args: Vec<_> = args.chain(["--sandbox", "off"].map(OsStr::new)).collect();
        let preload = format!("LD_PRELOAD={library}");
        let file = format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display());
        let faketime = ["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", &preload, &file];
        Proxy::start_through(&[&["env", "TZ=UTC"], &faketime[..]].concat(), &args)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        // A file that is gone already is as good.
        drop(fs::remove_file(&self.file));
    }
}

/// The path of libfaketime, or why there is none.
fn faketime() -> Result<String, String> {
    // faketime knows where its library is, and sets LD_PRELOAD to that.
    let output = Command::new("faketime")
        .args(["-f", "+0", "sh", "-c", "echo \"$LD_PRELOAD\""])
        .env_remove("LD_PRELOAD")
        .output()
        .map_err(|error| {
            format!("cannot run faketime, which scripts/install-test-packages installs: {error}")
        })?;
    let library = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if library.is_empty() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(library)
}
