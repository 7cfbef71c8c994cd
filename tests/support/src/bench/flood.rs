//! Sends datagrams at a rate from an address that gets no answers, while a good client asks from another.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pico_args::Arguments;

use super::cpu;
use super::datagrams::Batch;
use super::programs::{finish, option, print};
use super::queries::{Queries, Verdict, judge};

/// What became of the queries of the good client.
#[derive(Default)]
struct Good {
    asked: u64,
    answered: u64,
    /// Those that were asked more than once.
    again: u64,
}

/// Floods, and prints what was measured.
pub fn flood(mut args: Arguments) -> Result<(), String> {
    let target: SocketAddr = args.value_from_str("--target").map_err(|error| error.to_string())?;
    let source: IpAddr = args.value_from_str("--source").map_err(|error| error.to_string())?;
    let pid: u32 = args.value_from_str("--pid").map_err(|error| error.to_string())?;
    let rate: u32 = option(&mut args, "--rate")?.unwrap_or(50_000);
    let seconds: u32 = option(&mut args, "--seconds")?.unwrap_or(10);
    let pause: u32 = option(&mut args, "--good-pause-ms")?.unwrap_or(20);
    finish(args)?;
    let error = |error: io::Error| format!("flooding {target} from {source}: {error}");
    let socket = UdpSocket::bind((source, 0)).map_err(error)?;
    socket.connect(target).map_err(error)?;
    let is_over = AtomicBool::new(false);
    let drops = dropped(target.port()).map_err(error)?;
    let used = cpu::from_outside(pid).map_err(error)?;
    let start = Instant::now();
    let time = Duration::from_secs(seconds.into());
    let (sent, good) = std::thread::scope(|scope| {
        let good = scope.spawn(|| ask(target, Duration::from_millis(pause.into()), &is_over));
        let sent = send(&socket, rate, start, time);
        is_over.store(true, Ordering::Relaxed);
        (sent, good.join().expect("no panic"))
    });
    let passed = start.elapsed().as_secs_f64();
    let used = cpu::from_outside(pid).map_err(error)?.saturating_sub(used).as_secs_f64();
    let drops = dropped(target.port()).map_err(error)?.saturating_sub(drops);
    let Good { asked, answered, again } = good.map_err(error)?;
    let read = sent.saturating_sub(drops).max(1);
    print(&format!(
        "seconds={passed:.2} sent={sent} rate={:.0} dropped_by_kernel={drops} busy={:.3} \
         us_each={:.3} good_asked={asked} good_answered={answered} good_asked_again={again}\n",
        sent as f64 / passed,
        used / passed,
        used * 1e6 / read as f64,
    ))
}

/// Sends what is due, once a millisecond; returns how many left.
fn send(socket: &UdpSocket, rate: u32, start: Instant, time: Duration) -> u64 {
    let queries = queries();
    let mut batch = Batch::new();
    let mut sent = 0;
    let mut number = 0_u64;
    while start.elapsed() < time {
        let due = (start.elapsed().as_micros() * u128::from(rate) / 1_000_000) as u64;
        // After a pause of the machine what was missed is not sent at once.
        number = number.max(due.saturating_sub(u64::from(rate) / 100));
        let first = number;
        while number < due {
            Queries::set(batch.push(queries.message()), number as u16, number);
            number += 1;
        }
        let failed = batch.send(socket) as u64;
        sent += number - first - failed;
        std::thread::sleep(Duration::from_millis(1));
    }
    sent
}

/// Asks one name after the other, each up to three times.
fn ask(target: SocketAddr, pause: Duration, is_over: &AtomicBool) -> io::Result<Good> {
    let socket = UdpSocket::bind((target.ip(), 0))?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let queries = queries();
    let mut good = Good::default();
    let mut message = queries.message().to_vec();
    let mut octets = [0; 2048];
    while !is_over.load(Ordering::Relaxed) {
        // Far from the numbers of the flood.
        let number = (1 << 40) + good.asked;
        Queries::set(&mut message, good.asked as u16, number);
        good.asked += 1;
        for attempt in 0..3 {
            good.again += u64::from(attempt == 1);
            socket.send(&message)?;
            if is_answered(&socket, &mut octets, number) {
                good.answered += 1;
                break;
            }
        }
        std::thread::sleep(pause);
    }
    Ok(good)
}

fn is_answered(socket: &UdpSocket, octets: &mut [u8], number: u64) -> bool {
    while let Ok(len) = socket.recv(octets) {
        match judge(&octets[..len], number) {
            Verdict::Answered => return true,
            Verdict::Failed => return false,
            Verdict::Wrong => {}
        }
    }
    false
}

fn queries() -> Queries {
    let tag = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Queries::new(tag.as_nanos() as u32, false)
}

/// Datagrams for which the sockets of this port had no room, as the kernel counts them (proc(5)).
fn dropped(port: u16) -> io::Result<u64> {
    let suffix = format!(":{port:04X}");
    let text = fs::read_to_string("/proc/net/udp")? + &fs::read_to_string("/proc/net/udp6")?;
    let of_port = text.lines().filter(|line| {
        line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&suffix))
    });
    Ok(of_port.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum())
}
