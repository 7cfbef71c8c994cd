//! Asks a forwarder, as fast as it answers or at a fixed rate, and measures what became of the queries.

mod clients;
mod window;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::cpu;
use super::histogram::Histogram;
use super::queries::{Queries, Verdict, judge};
use clients::Clients;
use window::Window;

/// What is asked, and how.
#[derive(Clone)]
pub struct Plan {
    pub target: SocketAddr,
    pub transport: Transport,
    /// Sockets or connections.
    pub clients: u16,
    pub pace: Pace,
    /// With OPT in each query.
    pub edns: bool,
    /// Asked, but not measured, before the rest.
    pub warm_up: Duration,
    pub time: Duration,
    /// After which a query is lost.
    pub timeout: Duration,
    /// Names, and the processes whose CPU time goes under that name.
    pub watched: Vec<(String, u32)>,
    /// Set when there is no more use in going on.
    pub interrupted: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So many queries at a time: for each that is answered, the next is sent.
    InFlight(u32),
    /// So many queries a second, evenly spaced.
    Rate(u32),
}

/// What was measured.
pub struct Report {
    pub time: Duration,
    /// Responses with a record that came in that time.
    pub responses: u64,
    /// Queries sent, before that time, too, and what became of them: one that is lost early is missing
    /// later.
    pub sent: u64,
    /// The last of them, whose latency counts.
    pub measured: u64,
    pub answered: u64,
    pub failed: u64,
    pub lost: u64,
    /// Responses to nothing that was in flight, or to something else.
    pub strays: u64,
    /// Connections that the forwarder closed.
    pub closed: u64,
    pub latency: Histogram,
    /// By how much queries were sent later than they were to be.
    pub lateness: Histogram,
    /// CPU time of this program.
    pub own: Duration,
    /// CPU time of others.
    pub watched: Vec<(String, Duration)>,
}

impl Report {
    /// Microseconds of CPU time for each response.
    fn per_response(&self, used: Duration) -> f64 {
        used.as_secs_f64() * 1e6 / self.responses as f64
    }
}

/// One line, `name=value` each.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64();
        let micros = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64() * 1e6;
        write!(
            f,
            "seconds={seconds:.3} sent={} answered={} failed={} lost={} strays={} closed={} \
             rate={:.0} median_us={:.1} p99_us={:.1} max_us={:.1} late_p99_us={:.1} \
             load_us={:.2} load_busy={:.3}",
            self.sent,
            self.answered,
            self.failed,
            self.lost,
            self.strays,
            self.closed,
            self.responses as f64 / seconds,
            micros(self.latency.quantile(500)),
            micros(self.latency.quantile(990)),
            micros(self.latency.quantile(1000)),
            micros(self.lateness.quantile(990)),
            self.per_response(self.own),
            self.own.as_secs_f64() / seconds,
        )?;
        for (name, used) in &self.watched {
            let busy = used.as_secs_f64() / seconds;
            write!(f, " {name}_us={:.2} {name}_busy={busy:.3}", self.per_response(*used))?;
        }
        Ok(())
    }
}

/// Asks, and returns when every query is answered or lost.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let mut run = Run::start(plan)?;
    let mut events = Events::with_capacity(1024);
    loop {
        match run.poll.poll(&mut events, Some(TICK_MAX)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            if event.token() == TIMER {
                // Before it is read, it does not tick again.
                rustix::io::read(&run.timer, &mut [0; 8]).ok();
            } else {
                run.receive(event.token().0, event.is_writable())?;
            }
        }
        if plan.interrupted.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        if run.advance()? {
            return Ok(run.report);
        }
    }
}

struct Run<'a> {
    plan: &'a Plan,
    poll: Poll,
    clients: Clients,
    window: Window,
    start: Instant,
    interval: Duration,
    phase: Phase,
    /// The number of the first query of which the latency counts.
    first: Option<u64>,
    report: Report,
    timer: rustix::fd::OwnedFd,
}

enum Phase {
    WarmUp,
    Measure { since: Instant, own: Duration, watched: Vec<(String, Duration)> },
    Wait,
}

impl<'a> Run<'a> {
    fn start(plan: &'a Plan) -> io::Result<Self> {
        let poll = Poll::new()?;
        let tag = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let tag = (tag.as_nanos() as u32) ^ std::process::id().rotate_left(16);
        let queries = Queries::new(tag, plan.edns);
        let clients = Clients::new(plan, queries, poll.registry())?;
        let interval = match plan.pace {
            Pace::InFlight(_) => TICK,
            Pace::Rate(rate) => Duration::from_secs(1) / rate,
        };
        // Sends what is due more than once a tick rather than wake up for nothing else.
        let tick = Timespec::try_from(interval.max(TICK_MIN)).map_err(io::Error::other)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        let every = Itimerspec { it_interval: tick, it_value: tick };
        let source = timer.as_raw_fd();
        poll.registry().register(&mut SourceFd(&source), TIMER, Interest::READABLE)?;
        let start = Instant::now();
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)?;
        Ok(Self {
            plan,
            poll,
            clients,
            window: Window::new(plan.clients),
            start,
            interval,
            phase: Phase::WarmUp,
            first: None,
            report: Report {
                time: Duration::ZERO,
                responses: 0,
                sent: 0,
                measured: 0,
                answered: 0,
                failed: 0,
                lost: 0,
                strays: 0,
                closed: 0,
                latency: Histogram::new(),
                lateness: Histogram::new(),
                own: Duration::ZERO,
                watched: Vec::new(),
            },
            timer,
        })
    }

    fn receive(&mut self, client: usize, is_writable: bool) -> io::Result<()> {
        let Self { clients, window, phase, first, report, poll, .. } = self;
        let is_open = clients.receive(client, |now, response| {
            let number = response
                .first_chunk()
                .and_then(|id| window.find(client, u16::from_be_bytes(*id)))
                .filter(|number| judge(response, *number) != Verdict::Wrong);
            let Some((number, sent)) =
                number.and_then(|number| window.take(number).map(|sent| (number, sent)))
            else {
                report.strays += 1;
                return;
            };
            let is_answered = judge(response, number) == Verdict::Answered;
            if is_answered && matches!(phase, Phase::Measure { .. }) {
                report.responses += 1;
            }
            if !is_answered {
                report.failed += 1;
                return;
            }
            report.answered += 1;
            if first.is_some_and(|first| number >= first) {
                report.latency.add(now.saturating_duration_since(sent));
            }
        })?;
        if !is_open {
            report.closed += 1;
            clients.reconnect(client, poll.registry())?;
        } else if is_writable {
            clients.flush(client);
        }
        Ok(())
    }

    /// Does what is due; true at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        self.report.lost += self.window.expire(now, self.plan.timeout);
        match &self.phase {
            // Where the process did not run meanwhile, the first query comes late, and is not measured.
            Phase::WarmUp if now >= self.start + self.plan.warm_up && self.window.next() > 0 => {
                let watched = self.watched()?;
                self.phase = Phase::Measure { since: now, own: cpu::own(), watched };
                self.first = Some(self.window.next());
            }
            Phase::WarmUp => {}
            Phase::Measure { since, own, watched } => {
                if now >= *since + self.plan.time {
                    self.report.time = now - *since;
                    self.report.own = cpu::own().saturating_sub(*own);
                    let differences = self.watched()?.into_iter().zip(watched);
                    let differences = differences
                        .map(|((name, end), (_, start))| (name, end.saturating_sub(*start)));
                    self.report.watched = differences.collect();
                    self.report.sent = self.window.next();
                    self.report.measured = self.window.next() - self.first.unwrap_or_default();
                    self.phase = Phase::Wait;
                }
            }
            Phase::Wait => return Ok(self.window.in_flight() == 0),
        }
        if !matches!(self.phase, Phase::Wait) {
            self.send(now);
        }
        Ok(false)
    }

    fn send(&mut self, now: Instant) {
        let passed = now - self.start;
        let count = match self.plan.pace {
            Pace::InFlight(most) => {
                // All at once would be more than a socket's buffer has room for.
                let share = u128::from(most) * passed.min(RAMP).as_micros() / RAMP.as_micros();
                (share as u64).saturating_sub(self.window.in_flight())
            }
            Pace::Rate(_) => {
                let due = passed.as_nanos() / self.interval.as_nanos();
                let count = (due as u64).saturating_sub(self.window.next());
                if count > 0 && matches!(self.phase, Phase::Measure { .. }) {
                    for number in self.window.next() + 1..=self.window.next() + count {
                        let at = self.interval.as_nanos() * u128::from(number);
                        let late = passed.as_nanos().saturating_sub(at);
                        self.report.lateness.add(Duration::from_nanos(late as u64));
                    }
                }
                count
            }
        };
        let count = count.min(self.window.room());
        if count > 0 {
            let numbers = self.window.extend(count, now);
            self.clients.ask(numbers, |number, at| self.window.set_time(number, at));
        }
    }

    fn watched(&self) -> io::Result<Vec<(String, Duration)>> {
        let mut sums: Vec<(String, Duration)> = Vec::new();
        for (name, pid) in &self.plan.watched {
            let used = cpu::of_process(*pid).map_err(|error| {
                io::Error::other(format!("cannot read the CPU time of process {pid}: {error}"))
            })?;
            match sums.iter_mut().find(|(other, _)| other == name) {
                Some((_, sum)) => *sum += used,
                None => sums.push((name.clone(), used)),
            }
        }
        Ok(sums)
    }
}

const TIMER: Token = Token(usize::MAX - 1);

/// With a fixed number in flight, how often it is seen that some are lost.
const TICK: Duration = Duration::from_millis(1);

const TICK_MIN: Duration = Duration::from_micros(20);

/// The timer ticks sooner.
const TICK_MAX: Duration = Duration::from_secs(1);

/// In which the number in flight grows to what it shall be.
const RAMP: Duration = Duration::from_millis(200);
