//! The forwarder against random clients, random servers and random faults, under a virtual clock.
//!
//! A seed decides everything. Every fault is off in about half of the seeds, so that faults also meet
//! alone. After a while the faults stop, and then every query must be answered. Each seed runs twice,
//! and both runs must do the same; of those beyond the first 256 one in sixteen does.
//!
//! - `cargo test --test sim` runs 256 seeds.
//! - `SIM_SEED=n cargo test --test sim every_seed` runs one and traces it on stderr.
//! - `SIM_SEEDS=n cargo test --test sim` runs the first n; `scripts/sim-sweep` does, optimized.
//! - `SIM_DIGESTS=file` with it writes a line `SEED TURNS DIGEST` for each, to tell whether a change of the
//!   code is one of behaviour.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, fmt, fs, thread};

use dot_proxy::forwarder::{
    Access, AccessDenial, Closed, Counts, DatagramPath, Ecs, Hedge, Limits, Notice, Order, Policy,
    Prefix, PrivateAnswers, QueryLogForm, QueryLogStyle, Rate, SpecialNames, Stage,
};

use simulator::dns::{self, Edns, Shape};
use simulator::{
    Ask, Attempt, Direction, Do, Link, Manner, Random, Response, Roughness, Server, Step, To, What,
    World, default_limits, default_policy, ms, path_from, special,
};

#[test]
fn every_seed_keeps_the_promises() {
    if let Some(seed) = number("SIM_SEED") {
        let Summary { counts, notices, turns, ways_round, .. } = run(seed, true);
        assert_eq!(run_twice(seed), turns, "the same seed, run again");
        trace(format_args!("passed in {} turns, with {notices} notices: {counts:#?}", turns.len()));
        trace(format_args!("{ways_round} queries had a way round"));
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(256);
    let next = AtomicU64::new(0);
    let failed: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let digests: Mutex<BTreeMap<u64, (usize, u64)>> = Mutex::default();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seed < seeds
                {
                    let run = || {
                        let is_twice = seed < 256 || seed.is_multiple_of(16);
                        let turns = if is_twice { run_twice(seed) } else { run(seed, false).turns };
                        if (seed + 1).is_multiple_of(1_000) {
                            trace(format_args!("seed {seed} passed"));
                        }
                        let digest = turns.last().copied().unwrap_or_default();
                        let mut digests = digests.lock().expect("no panic while it is held");
                        digests.insert(seed, (turns.len(), digest));
                    };
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                        // The others finish what they began, which may fail with a lower seed.
                        next.store(seeds, Ordering::Relaxed);
                        let mut failed = failed.lock().expect("nothing panics with the lock held");
                        if failed.as_ref().is_none_or(|(lowest, _)| seed < *lowest) {
                            *failed = Some((seed, words(panic.as_ref())));
                        }
                    }
                }
            });
        }
    });
    if let Some((seed, message)) = failed.into_inner().expect("nothing panics with the lock held") {
        panic!(
            "seed {seed}: {message}\nto replay: SIM_SEED={seed} cargo test --test sim every_seed"
        );
    }
    if let Some(file) = env::var_os("SIM_DIGESTS") {
        let digests = digests.into_inner().expect("no thread panicked");
        let line = |(seed, (turns, digest))| format!("{seed} {turns} {digest:016x}\n");
        let lines: String = digests.into_iter().map(line).collect();
        fs::write(&file, lines).expect("the file that SIM_DIGESTS names can be written");
    }
}

/// Each of them has failed, far beyond those that every run tries.
#[test]
fn seeds_that_found_something_keep_the_promises() {
    let seeds = [
        923, 1586, 2916, 3313, 4195, 4367, 4880, 11_662, 11_981, 15_603, 17_013, 18_818, 18_945,
        19_715, 21_927, 22_748, 24_534, 24_955, 27_009, 28_964, 29_927, 32_562, 33_494, 35_060,
        47_328, 49_436, 50_727, 56_663, 59_510, 77_056,
    ];
    for seed in seeds {
        if let Err(panic) = catch_unwind(|| run(seed, false)) {
            panic!("seed {seed}: {}", words(panic.as_ref()));
        }
    }
}

#[test]
fn the_seeds_reach_what_matters() {
    let mut sum = Counts::default();
    let (mut notices, mut excepted, mut ways_round) = (0, 0, 0);
    for seed in 0..48 {
        let summary = run(seed, false);
        sum.answered += summary.counts.answered;
        sum.failed += summary.counts.failed;
        sum.local += summary.counts.local;
        sum.orphaned += summary.counts.orphaned;
        sum.unmatched += summary.counts.unmatched;
        sum.resent += summary.counts.resent;
        sum.connects += summary.counts.connects;
        sum.hedged += summary.counts.hedged;
        sum.retried += summary.counts.retried;
        sum.asked_plainer += summary.counts.asked_plainer;
        sum.shed += summary.counts.shed;
        sum.made_way += summary.counts.made_way;
        sum.made_room += summary.counts.made_room;
        sum.crowded_out += summary.counts.crowded_out;
        sum.came_back += summary.counts.came_back;
        sum.stripped += summary.counts.stripped;
        sum.refused += summary.counts.refused;
        sum.above_rate += summary.counts.above_rate;
        excepted += summary.excepted;
        ways_round += summary.ways_round;
        notices += summary.notices;
    }
    let reached =
        [sum.failed, sum.local, sum.orphaned, sum.unmatched, sum.resent, sum.shed, sum.made_room];
    assert!(sum.hedged > 0 && sum.retried > 0 && sum.made_way > 0, "{sum:?}");
    assert!(sum.asked_plainer > 0 && sum.crowded_out > 0 && sum.came_back > 0, "{sum:?}");
    assert!(excepted > 0, "no private address passed where one may");
    assert!(ways_round > 4, "{ways_round} queries had a way round");
    assert!(sum.stripped > 0 && sum.refused > 100 && sum.above_rate > 100, "{sum:?}");
    assert!(reached.iter().all(|count| *count >= 10), "{sum:?}");
    assert!(
        sum.answered > 1000 && sum.connects > 100 && notices > 10,
        "{sum:?}, {notices} notices"
    );
}

fn run_twice(seed: u64) -> Vec<u64> {
    let first = run(seed, false);
    let second = run(seed, false);
    let differs = first.turns.iter().zip(&second.turns).position(|(a, b)| a != b);
    assert_eq!(differs, None, "the second run differs, first in this turn");
    assert_eq!(first.counts, second.counts, "the second run ends differently");
    assert_eq!(first.turns.len(), second.turns.len(), "the second run has another length");
    first.turns
}

/// What is left of a run.
#[derive(Debug)]
struct Summary {
    counts: Counts,
    /// Answers with a private address that passed, as they are in an excepted zone.
    excepted: u64,
    /// Queries that were held up on a bad path and had a way round.
    ways_round: u64,
    notices: usize,
    turns: Vec<u64>,
}

/// One whole life of a forwarder.
fn run(seed: u64, is_traced: bool) -> Summary {
    let mut rng = Random::new(seed);
    let mut swarm = Swarm::new(&mut rng);
    let mut paths = Paths::drawn(seed, swarm.faults_end);
    match paths.weather {
        Weather::None => {}
        Weather::Clean | Weather::Bad => swarm.make_servers_well(&mut paths),
        Weather::Mixed => swarm.is_harmless = false,
    }
    let gate = Gate::drawn(seed, swarm.faults_end);
    gate.clone_into(&mut swarm.policy);
    if is_traced {
        trace(format_args!("{gate:#?} {paths:#?}"));
        trace(format_args!("seed {seed}: {swarm:#?}"));
    }
    let limits = limits(seed, &swarm, &mut rng);
    let servers = swarm
        .faults
        .iter()
        .map(|faults| server(faults.clone(), swarm.faults_end, swarm.policy.special_names.clone()));
    let mut world =
        World::with_policy(limits, swarm.policy.clone(), servers.collect(), &swarm.operators, seed);
    world.roughness = swarm.roughness;
    world.trace = is_traced;
    let weather = paths.weather;
    if matches!(weather, Weather::Clean | Weather::Bad) {
        let slowest = swarm.faults.iter().map(|it| ms(it.round_trip) + it.jitter).max();
        world.round_trip = slowest.map(|slowest| slowest + 2 * paths.delay_max);
    }
    if weather != Weather::None {
        world.path = Box::new(move |_, at| paths.next(at));
    }

    let mut workload = Workload::new(swarm, gate, rng);
    workload.chaos(&mut world);
    workload.recover(&mut world);
    workload.demand(&mut world);
    workload.wait_to_be_read(&mut world);
    workload.come_late(&mut world);
    world.finish();
    if workload.swarm.is_harmless {
        // A duplicate answer that comes when its ID is another query's costs the connection, and where
        // hundreds are asked within the time that it is late, a query can lose all of its sendings so.
        let is_bad_luck = |text: &str| text.ends_with("it answers another question");
        let failed = world
            .oracle
            .responses
            .iter()
            .find(|r| !r.upstream && r.rcode == dns::SERVFAIL && !is_bad_luck(&r.extra_text));
        assert!(failed.is_none(), "failed without a fault: {failed:?}");
        check_connections(&world, &workload.swarm);
    }
    if matches!(weather, Weather::Clean | Weather::Bad) {
        let most = (0..world.servers.len()).map(|server| world.most_conns_in_use(server)).max();
        assert!(most <= Some(4), "{most:?} connections to an upstream in use");
    }
    if weather == Weather::Clean {
        check_clean(&world);
    }
    check_facts(&world, &workload.gate);
    Summary {
        counts: world.forwarder.counts(),
        excepted: world.oracle.excepted,
        ways_round: world.judged_ways_round(),
        notices: world.notices.len(),
        turns: world.turns,
    }
}

/// What the forwarder may take.
fn limits(seed: u64, swarm: &Swarm, rng: &mut Random) -> Limits {
    let mut limits = default_limits();
    let form = if seed.is_multiple_of(2) { QueryLogForm::Words } else { QueryLogForm::Json };
    let style = QueryLogStyle { form, ..QueryLogStyle::default() };
    limits.query_log = rng.chance(500).then_some(style);
    if swarm.has(Trait::SmallLimits) {
        limits.queries_max = rng.within(16, 64);
        limits.query_bytes_max = 4096;
        limits.client_queries_max = rng.within(1, 16);
        limits.client_output_max = 66 << 10;
    }
    if swarm.has(Trait::FewUpstreamConns) {
        let least = swarm.faults.len().max(3);
        limits.upstream_conns_max = rng.within(least, least + 2);
        limits.upstream_output_max = rng.within(1_000, 10_000);
        limits.upstream_bytes_max = rng.within(160 << 10, 300 << 10);
        limits.output_kept = rng.within(0, 4_000);
    }
    if swarm.has(Trait::FewClients) {
        limits.clients_max = rng.within(1, 8);
        limits.clients_per_address_max = rng.within(1, limits.clients_max);
    }
    if swarm.has(Trait::FewClientBytes) {
        limits.client_bytes_max = rng.within(70 << 10, 200 << 10);
    }
    limits
}

/// Whatever clients do, each server has one connection, or few that follow each other, and another when one has idled.
fn check_connections(world: &World, swarm: &Swarm) {
    for (server, faults) in swarm.faults.iter().enumerate() {
        let links = world.links_to(server);
        let after_idling = links.windows(2).filter(|pair| follows_idling(pair[0], pair[1])).count();
        let links = links.len() - after_idling;
        // Answers to nothing asked end a connection when there are many.
        let is_well = faults.idle_close.is_none() && faults.duplicate + faults.unknown_id == 0;
        assert!(!is_well || links <= 3, "{links} connections to a server without a fault");
    }
}

/// Whether this connection was closed for having idled when the next one was made. It idles from its handshake on if
/// others took what it was made for.
fn follows_idling(before: &Link, next: &Link) -> bool {
    let idle_since = before.seen.last().map(|seen| seen.at).or(before.connected);
    let idled_out = idle_since.map(|at| at + default_limits().upstream_idle_timeout);
    before.closed.is_some_and(|(at, _)| {
        at <= next.attempted && idled_out.is_some_and(|idled_out| idled_out <= at)
    })
}

/// Where nothing is lost, only what is late has a copy, and is sent twice. An upstream has one connection, which another
/// follows only when it has idled, or for a copy.
fn check_clean(world: &World) {
    let counts = world.forwarder.counts();
    let late = late_answers(world) as u64;
    let is_fine = counts.hedged <= late && counts.resent <= counts.hedged && counts.rescued == 0;
    assert!(is_fine, "copies, with {late} late answers: {counts:?}");
    let mut for_copies = 0;
    for server in 0..world.servers.len() {
        for pair in world.links_to(server).windows(2) {
            for_copies += u64::from(!follows_idling(pair[0], pair[1]));
            let (at, closed) = (pair[1].attempted, pair[0].closed);
            assert!(for_copies <= counts.hedged, "a second connection at {at:?}: {closed:?}");
        }
    }
}

/// How many answers can have been late: a connection that could be asked for them stood for as long as that takes.
/// Octet by octet, in turns that are late, a long answer is read slowly.
fn late_answers(world: &World) -> usize {
    let is_late = |response: &&Response| {
        let is_carrier = |link: &&Link| link.seen.iter().any(|seen| seen.name == response.name);
        let connected = || world.links.iter().filter(is_carrier).filter_map(|link| link.connected);
        response.took() >= LATE_MIN
            && connected().any(|at| response.asked.max(at) + LATE_MIN <= response.at)
    };
    world.oracle.responses.iter().filter(is_late).count()
}

/// No answer is late before.
const LATE_MIN: Duration = Duration::from_millis(250);

/// An upstream fails and comes back in turns, and the log is not flooded.
fn check_facts(world: &World, gate: &Gate) {
    let mut failed: HashSet<&str> = HashSet::new();
    let mut plain: HashSet<(&str, dot_proxy::forwarder::Edns)> = HashSet::new();
    let mut summary: Option<Duration> = None;
    let mut of_clients = HashMap::new();
    let mut above_rate: HashMap<Prefix, Duration> = HashMap::new();
    for (at, notice) in &world.notices {
        match notice {
            Notice::UpstreamFailed { upstream, stage, .. } => {
                let is_news = failed.insert(upstream) || matches!(stage, Stage::Certificate);
                assert!(is_news, "{upstream} failed twice: {at:?}");
            }
            Notice::UpstreamStillFailed { upstream, .. } => {
                assert!(failed.contains(&**upstream), "{upstream} had not failed: {at:?}");
                let pause =
                    summary.replace(*at).map_or(Duration::MAX, |last| at.saturating_sub(last));
                assert!(pause >= ms(60_000), "summaries {pause:?} apart: {at:?}");
            }
            Notice::UpstreamUsable { upstream, .. } => {
                assert!(failed.remove(&**upstream), "{upstream} was usable: {at:?}");
            }
            Notice::UpstreamObjects { upstream, edns } => {
                assert!(plain.insert((upstream, *edns)), "{upstream} is told of twice: {at:?}");
            }
            Notice::AnswerStripped { .. }
            | Notice::CameBack
            | Notice::ClientMadeRoom { .. }
            | Notice::ClientRefused { .. }
            | Notice::ClientWaited { .. }
            | Notice::SourceRefused { .. }
            | Notice::TableFull { .. }
            | Notice::WaitLimit { .. } => {
                let is_refused = matches!(notice, Notice::SourceRefused { .. });
                assert!(!is_refused || gate.is_drawn(), "all sources are served here");
                let last = of_clients.insert(std::mem::discriminant(notice), *at);
                let is_late = last.is_none_or(|last| *at >= last + ms(60_000));
                assert!(is_late, "{notice}: twice in a minute, {last:?} and {at:?}");
            }
            Notice::UpstreamInTurn { .. } => {}
            Notice::WithinRate { network, .. } => {
                let last = above_rate.get(network).expect("it was above it");
                assert!(*at >= *last + ms(60_000), "{notice}: {last:?} and {at:?}");
            }
            Notice::AboveRate { network, .. } => {
                assert!(gate.rate.is_some(), "no rates are limited here");
                let last = above_rate.insert(*network, *at);
                let is_late = last.is_none_or(|last| *at >= last + ms(60_000));
                assert!(is_late, "{notice}: twice in a minute, {last:?} and {at:?}");
            }
        }
    }
}

/// What is drawn for a whole run.
#[derive(Debug)]
struct Swarm {
    policy: Policy,
    /// Whose each server is, by number.
    operators: Vec<usize>,
    faults: Vec<Faults>,
    faults_end: Duration,
    /// No fault is on that may cost an answer.
    is_harmless: bool,
    roughness: Roughness,
    traits: BTreeSet<Trait>,
    /// The mean time between bursts of queries.
    pause: Duration,
    burst_max: usize,
    sizes_max: usize,
}

/// Who is served and how much each network may ask, if that is not what it is by default. It is drawn from
/// chance of its own, so that all else of a seed is what it would be without.
#[derive(Debug)]
struct Gate {
    access: Option<Access>,
    rate: Option<Rate>,
    /// The subnets of the host's interfaces, and from when on.
    subnets: Vec<(Duration, Vec<Prefix>)>,
    rng: Random,
}

/// What the paths of connections are like. It is drawn from chance of its own, likewise.
#[derive(Debug)]
struct Paths {
    weather: Weather,
    /// What each takes one way at most.
    delay_max: Duration,
    /// Segments of 1,000 that are lost.
    loss: u64,
    /// Connections of 1,000 that fall silent in one direction.
    silent: u64,
    /// When all becomes well.
    end: Duration,
    rng: Random,
}

/// What paths do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Nothing at all: they take no time.
    None,
    /// They take a little time, and so do servers, which have no faults.
    Clean,
    /// They lose segments and fall silent, and servers have no faults.
    Bad,
    /// The same, and servers have what faults they have.
    Mixed,
}

impl Paths {
    fn drawn(seed: u64, end: Duration) -> Self {
        let mut rng = Random::new(seed ^ 0x9a7b);
        let weather = match rng.below(16) {
            0 => Weather::Clean,
            1 | 2 => Weather::Bad,
            3 => Weather::Mixed,
            _ => Weather::None,
        };
        let is_bad = matches!(weather, Weather::Bad | Weather::Mixed);
        let mut pick = |choices: &[u64]| if is_bad { rng.pick(choices) } else { 0 };
        let (loss, silent) = (pick(&[0, 0, 2, 10]), pick(&[0, 300, 500]));
        Self { weather, delay_max: rng.pick(&[ms(0), ms(5), ms(20)]), loss, silent, end, rng }
    }

    /// The path of a connection that is made now.
    fn next(&mut self, at: Duration) -> Manner {
        let rng = &mut self.rng;
        let delay = rng.up_to(self.delay_max);
        let mut silences = Vec::new();
        if at < self.end && rng.chance(self.silent) {
            let direction = rng.pick(&[Direction::ToServer, Direction::FromServer]);
            let soon = rng.pick(&[ms(400), ms(4000)]);
            let from = at + rng.up_to(soon);
            let until = if rng.chance(500) { Duration::MAX } else { from + rng.up_to(ms(4000)) };
            silences.push((direction, from, until));
        }
        Manner { delay, loss: self.loss, loss_ends: self.end, silences }
    }
}

/// Networks of all kinds of clients, of some of them, and of others around them.
const NETWORKS: [(&str, u8); 14] = [
    ("127.0.0.0", 8),
    ("127.0.0.1", 32),
    ("192.168.0.0", 16),
    ("192.168.1.10", 32),
    ("fd00::", 8),
    ("fd00::", 64),
    ("172.16.0.0", 12),
    ("172.17.0.8", 29),
    ("10.0.0.0", 8),
    ("10.1.0.0", 16),
    ("10.1.0.0", 29),
    ("10.2.0.1", 32),
    ("203.0.113.0", 24),
    ("0.0.0.0", 0),
];

/// Clients that are served whatever is drawn, as much as they like, so that all that becomes of others must not
/// become of them.
const FRIENDS: ([u8; 4], u8) = ([10, 77, 0, 0], 16);

impl Gate {
    fn drawn(seed: u64, faults_end: Duration) -> Self {
        let mut rng = Random::new(seed ^ 0x6a7e);
        let mut access = None;
        let mut subnets = Vec::new();
        if rng.chance(250) {
            let mut allowed = vec![friends()];
            if rng.chance(500) {
                allowed.extend(Access::LOCAL);
            } else {
                allowed.extend(Self::networks(&mut rng, 400));
            }
            let has_subnets = rng.chance(500);
            for _ in 0..rng.within(1, 5) {
                let from = rng.up_to(faults_end);
                subnets.push((from, Self::networks(&mut rng, 300)));
            }
            subnets.retain(|_| has_subnets);
            access = Some(Access {
                allowed,
                denied: Self::networks(&mut rng, 200),
                subnets: has_subnets,
                denial: rng.pick(&[AccessDenial::Drop, AccessDenial::Refused]),
            });
        }
        let rate = rng.chance(250).then(|| Rate {
            per_second: rng.pick(&[1, 2, 5, 20, 100]),
            burst: rng.pick(&[1, 2, 10, 100]),
            v4_len: rng.pick(&[32, 32, 24, 8]),
            v6_len: rng.pick(&[128, 64, 56]),
            exempt: [vec![friends()], Self::networks(&mut rng, 50)].concat(),
            // So many that networks do not share one.
            places: 1024,
        });
        Self { access, rate, subnets, rng }
    }

    fn networks(rng: &mut Random, per_mille: u64) -> Vec<Prefix> {
        let drawn = NETWORKS.into_iter().filter(|_| rng.chance(per_mille));
        drawn.map(|(address, len)| prefix(address.parse().expect("an address"), len)).collect()
    }

    /// Writes into a policy what was drawn.
    fn clone_into(&self, policy: &mut Policy) {
        if let Some(access) = &self.access {
            policy.access = access.clone();
        }
        policy.rate.clone_from(&self.rate);
    }

    fn is_drawn(&self) -> bool {
        self.access.is_some() || self.rate.is_some()
    }
}

fn friends() -> Prefix {
    let (address, len) = FRIENDS;
    prefix(address.into(), len)
}

fn prefix(address: IpAddr, len: u8) -> Prefix {
    Prefix::of(address, len).expect("an address has as many bits")
}

/// What a run has, or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trait {
    SmallLimits,
    FewClients,
    FewClientBytes,
    FewUpstreamConns,
    SlowNames,
    Poison,
    Errors,
    Special,
    Private,
    Retransmissions,
    Garbage,
    Tcp,
    HalfClose,
    Resets,
    Trickle,
    Deaf,
    Freezes,
    HostChanges,
}

/// How often a server, or the way to it, does what; out of 1,000 attempts, connections or answers.
#[derive(Clone, Debug, Default)]
struct Faults {
    round_trip: u64,
    refuse: u64,
    unreachable: u64,
    black_hole: u64,
    mute: u64,
    tls_failure: u64,
    certificate: u64,
    slow_handshake: u64,
    close_after: u64,
    reset_after: u64,
    forget: u64,
    silent: u64,
    answers_one: u64,
    stop_reading: u64,
    trickle: u64,
    in_turn: u64,
    idle_close: Option<Duration>,
    drop: u64,
    /// The same names each time, of 1,000.
    drop_names: u64,
    late: u64,
    duplicate: u64,
    unknown_id: u64,
    wrong_question: u64,
    not_a_response: u64,
    other_opcode: u64,
    questionless: u64,
    questionless_error: u64,
    short: u64,
    unwalkable: u64,
    trailing: u64,
    respell: u64,
    objects: Option<Objection>,
    returns: u64,
    jitter: Duration,
    reverse: u64,
    deaths: Vec<(Duration, Duration)>,
}

/// What a server objects to in queries, as long as it lives: an option, or (0) any OPT record.
#[derive(Clone, Copy, Debug)]
struct Objection {
    to: u16,
    rcode: u8,
    shape: Shape,
}

/// Mostly those of a user who says nothing about it.
fn special_names(rng: &mut Random) -> SpecialNames {
    let forwarded = match rng.below(10) {
        0 => return SpecialNames::Forward,
        1 => vec![b"\x0210\x07in-addr\x04arpa\0"[..].into(), b"\x09localhost\0"[..].into()],
        2 => vec![b"\x04arpa\0"[..].into()],
        _ => vec![],
    };
    SpecialNames::Local { forwarded }
}

/// The address of answers to private names is private with and without loopback.
fn private_answers(rng: &mut Random) -> PrivateAnswers {
    let strip =
        |loopback, except| PrivateAnswers::Strip { loopback, except, except_special: false };
    match rng.below(3) {
        0 => PrivateAnswers::Pass,
        1 => strip(false, vec![b"\x04corp\0"[..].into()]),
        _ => strip(true, vec![]),
    }
}

impl Swarm {
    fn has(&self, which: Trait) -> bool {
        self.traits.contains(&which)
    }

    fn new(rng: &mut Random) -> Self {
        let is_harmless = rng.chance(125);
        let faults_end = ms(5000) + rng.up_to(ms(30_000));
        // The faults that there are at all are drawn first, so that upstreams can share one.
        let on: Vec<bool> = (0..37).map(|_| !is_harmless && rng.chance(500)).collect();
        let gentle: Vec<bool> = (0..19).map(|_| rng.chance(500)).collect();
        let upstreams = rng.within(1, 4);
        let faults = (0..upstreams).map(|_| Faults::drawn(rng, &on, &gentle, faults_end)).collect();
        let roughness = Roughness {
            read_max: if gentle[5] { rng.pick(&[1, 2, 7, 100, 5000]) } else { usize::MAX },
            short_writes: gentle[6],
            late_max: if gentle[7] { ms(3) } else { Duration::ZERO },
        };
        let policy = Policy {
            order: rng.pick(&[Order::Ordered, Order::Ordered, Order::Fastest, Order::Spread]),
            hedge: rng.pick(&[Hedge::Off, Hedge::Same, Hedge::Any]),
            retry_servfail: rng.chance(500),
            ecs: rng.pick(&[Ecs::Pass, Ecs::Strip]),
            special_names: special_names(rng),
            private_answers: private_answers(rng),
            ..default_policy()
        };
        let operators = (0..upstreams).map(|_| rng.within(0, 1)).collect();
        let pause = rng.pick(&[ms(5), ms(20), ms(100), ms(500), ms(3000)]);
        let burst_max = rng.pick(&[1, 1, 3, 10, 40]);
        let special = rng.chance(500);
        let private = rng.chance(500);
        let traits = [
            (Trait::SmallLimits, on[23]),
            (Trait::FewClients, on[28]),
            (Trait::FewClientBytes, on[29]),
            (Trait::FewUpstreamConns, on[32]),
            (Trait::SlowNames, on[24]),
            (Trait::Poison, on[25]),
            (Trait::Errors, gentle[8]),
            (Trait::Special, special),
            (Trait::Private, private),
            (Trait::Retransmissions, gentle[9]),
            (Trait::Garbage, gentle[10]),
            (Trait::Tcp, gentle[11]),
            (Trait::HalfClose, gentle[12]),
            (Trait::Resets, gentle[13]),
            (Trait::Trickle, gentle[14]),
            (Trait::Deaf, gentle[15] || on[29]),
            (Trait::Freezes, on[26]),
            (Trait::HostChanges, on[27]),
        ];
        let traits =
            traits.into_iter().filter_map(|(which, is_on)| is_on.then_some(which)).collect();
        Self {
            policy,
            operators,
            faults,
            faults_end,
            is_harmless,
            roughness,
            traits,
            pause,
            burst_max,
            // Where clients may hold little, long answers are what matters.
            sizes_max: if on[29] {
                rng.pick(&[5000, 65_535])
            } else {
                rng.pick(&[0, 0, 600, 5000, 65_535])
            },
        }
    }
}

impl Swarm {
    /// Paths are all that may be bad, and how long answers take.
    fn make_servers_well(&mut self, paths: &mut Paths) {
        for faults in &mut self.faults {
            let round_trip = faults.round_trip.min(50);
            let jitter = paths.rng.pick(&[ms(0), ms(10), ms(100)]);
            *faults = Faults { round_trip, jitter, ..Faults::default() };
        }
        self.is_harmless = paths.weather == Weather::Clean;
        if paths.weather == Weather::Bad {
            // Segments are lost one by one, and while queries come.
            self.pause = paths.rng.pick(&[ms(20), ms(50), ms(100)]);
            self.burst_max = self.burst_max.min(3);
        }
        let ill = [
            Trait::SmallLimits,
            Trait::FewClients,
            Trait::FewClientBytes,
            Trait::FewUpstreamConns,
            Trait::SlowNames,
            Trait::Poison,
            Trait::Errors,
            Trait::Freezes,
            Trait::HostChanges,
        ];
        self.traits.retain(|which| !ill.contains(which));
    }
}

impl Faults {
    /// Faults of one server, of those that are on.
    fn drawn(rng: &mut Random, on: &[bool], gentle: &[bool], faults_end: Duration) -> Self {
        let mut draw = |which: usize, most: u64| {
            if on[which] && rng.chance(600) { rng.below(most) + 1 } else { 0 }
        };
        let mut faults = Faults {
            refuse: draw(0, 700),
            unreachable: draw(1, 700),
            black_hole: draw(2, 500),
            mute: draw(3, 500),
            tls_failure: draw(4, 500),
            certificate: draw(5, 1000),
            slow_handshake: draw(6, 700),
            close_after: draw(7, 1000),
            reset_after: draw(8, 1000),
            forget: draw(9, 700),
            silent: draw(10, 500),
            answers_one: draw(11, 500),
            stop_reading: draw(12, 500),
            trickle: draw(33, 500),
            in_turn: draw(34, 1000),
            drop: draw(13, 20),
            drop_names: draw(35, 700),
            returns: draw(36, 700),
            late: draw(14, 50),
            wrong_question: draw(15, 50),
            not_a_response: draw(16, 50),
            other_opcode: draw(17, 50),
            questionless: draw(18, 50),
            questionless_error: draw(19, 50),
            short: draw(20, 30),
            unwalkable: draw(21, 30),
            ..Faults::default()
        };
        if on[22] && rng.chance(600) {
            let from = rng.up_to(faults_end);
            faults.deaths.push((from, from + rng.up_to(faults_end)));
        }
        faults.round_trip = rng.pick(&[1, 5, 10, 20, 50, 100]);
        if gentle[0] {
            faults.idle_close = Some(rng.pick(&[ms(500), ms(1500), ms(2000), ms(10_000)]));
        }
        if gentle[1] {
            faults.duplicate = rng.below(50);
        }
        if gentle[2] {
            faults.unknown_id = rng.below(50);
        }
        if gentle[3] {
            faults.jitter = rng.up_to(ms(1000));
        }
        if gentle[4] {
            faults.reverse = rng.below(1000);
        }
        if gentle[16] {
            faults.trailing = rng.below(200);
        }
        if gentle[17] {
            faults.respell = rng.below(1000);
        }
        if gentle[18] && rng.chance(500) {
            faults.objects = Some(Objection {
                to: rng.pick(&[0, 8, 11, 12]),
                rcode: rng.pick(&[dns::FORMERR, dns::NOTIMP]),
                shape: rng.pick(&[Shape::WithOpt, Shape::WithoutOpt, Shape::NoQuestion]),
            });
        }
        faults
    }
}

/// What one connection to a faulty server is going to suffer.
#[derive(Clone, Debug, Default)]
struct Fate {
    close_after: Option<(usize, Closed)>,
    forget_at: Option<usize>,
    silent: bool,
    answers_one: bool,
    stop_reading_at: Option<usize>,
    /// From then on answers arrive an octet at a time.
    trickle_at: Option<usize>,
    /// For a server that works on one query at a time: for how long on each, and until when it is busy.
    in_turn: Option<(Duration, Duration)>,
}

/// A server that has `faults` until `faults_end`.
fn server(faults: Faults, faults_end: Duration, names: SpecialNames) -> Server {
    let fates: Rc<RefCell<HashMap<usize, Fate>>> = Rc::default();
    let idle_close = faults.idle_close;
    let (attempt_faults, attempt_fates) = (faults.clone(), Rc::clone(&fates));
    Server {
        attempt: Box::new(move |link, at, rng| {
            if at >= faults_end {
                return Attempt::good(attempt_faults.round_trip);
            }
            attempt_fates.borrow_mut().insert(link, Fate::new(&attempt_faults, rng));
            attempt(&attempt_faults, at, rng)
        }),
        reply: Box::new(move |ask, rng| {
            let is_denied = special::deniable_zone(&names, dns::first_question(ask.message))
                .is_some_and(|zone| zone == ask.name);
            if is_denied && rng.chance(700) {
                let (ttl, signature) = rng.pick(&[(70, 600), (7_200, 64)]);
                let denial = dns::denial(ask.message, ttl, signature);
                return vec![Step::after(faults.round_trip, Do::Answer(denial))];
            }
            assert!(dns::hops(ask.message) <= 3, "{} goes round", ask.name);
            let mut fates = fates.borrow_mut();
            let fate = fates.entry(ask.link).or_default();
            if ask.at >= faults_end {
                return vec![ask_answer(ask, &faults)];
            }
            reply(&faults, fate, ask, rng)
        }),
        idle_close,
    }
}

impl Fate {
    fn new(faults: &Faults, rng: &mut Random) -> Self {
        let mut fate = Self::default();
        if rng.chance(faults.close_after) {
            fate.close_after = Some((rng.pick(&[1, 1, 2, 5, 20]), Closed::Eof));
        } else if rng.chance(faults.reset_after) {
            fate.close_after = Some((rng.pick(&[1, 1, 2, 5, 20]), Closed::Reset));
        }
        if rng.chance(faults.forget) {
            fate.forget_at = Some(rng.within(1, 40));
        }
        fate.silent = rng.chance(faults.silent);
        fate.answers_one = rng.chance(faults.answers_one);
        if rng.chance(faults.stop_reading) {
            fate.stop_reading_at = Some(rng.within(1, 20));
        }
        if rng.chance(faults.trickle) {
            fate.trickle_at = Some(rng.within(1, 20));
        }
        if rng.chance(faults.in_turn) {
            fate.in_turn = Some((rng.pick(&[ms(20), ms(150), ms(400)]), Duration::ZERO));
        }
        fate
    }
}

fn attempt(faults: &Faults, at: Duration, rng: &mut Random) -> Attempt {
    let is_dead = faults.deaths.iter().any(|(from, until)| (*from..*until).contains(&at));
    if is_dead || rng.chance(faults.black_hole) {
        Attempt::black_hole()
    } else if rng.chance(faults.refuse) {
        Attempt::refused()
    } else if rng.chance(faults.unreachable) {
        Attempt::unreachable()
    } else if rng.chance(faults.mute) {
        Attempt::mute()
    } else if rng.chance(faults.tls_failure) {
        Attempt::failed(Stage::Tls, "handshake failure")
    } else if rng.chance(faults.certificate) {
        Attempt::failed(Stage::Certificate, "the certificate expired")
    } else if rng.chance(faults.slow_handshake) {
        Attempt::slow_tls(rng.pick(&[1000, 3000, 7000]))
    } else {
        Attempt::good(faults.round_trip)
    }
}

/// The answer a name asks for: its first label says what is special about it.
fn ask_answer(ask: &Ask<'_>, faults: &Faults) -> Step {
    if let Some(Objection { to, rcode, shape }) = faults.objects
        && dns::has_option(ask.message, to)
    {
        let objection = dns::objection(ask.message, ask.serial, rcode, shape);
        return Step::after(faults.round_trip, Do::Answer(objection));
    }
    if ask.name.starts_with("private") {
        let answer = dns::answer_with_address(ask.message, ask.serial, dns::NOERROR, [10, 0, 0, 1]);
        return Step::after(faults.round_trip, Do::Answer(answer));
    }
    let rcode = match ask.name {
        name if name.starts_with("nx") => dns::NXDOMAIN,
        name if name.starts_with("fail") => dns::SERVFAIL,
        name if name.starts_with("refuse") => dns::REFUSED,
        _ => dns::NOERROR,
    };
    let digits: String = ask
        .name
        .chars()
        .skip_while(|c| *c != '-')
        .skip(1)
        .take_while(char::is_ascii_digit)
        .collect();
    let size = digits.parse().unwrap_or(0);
    let answer = dns::answer(ask.message, ask.serial, rcode, size);
    Step::after(faults.round_trip, Do::Answer(answer))
}

/// What a server says instead of its answer, if anything.
fn spoilt(
    faults: &Faults,
    ask: &Ask<'_>,
    answer: Vec<u8>,
    may_trail: bool,
    rng: &mut Random,
) -> Option<Vec<u8>> {
    if rng.chance(faults.wrong_question) {
        let mut other = dns::query(0, "wrong.example.org.", dns::A, None);
        other[..2].copy_from_slice(&answer[..2]);
        return Some(dns::answer(&other, ask.serial | 1 << 63, dns::NOERROR, 0));
    }
    if rng.chance(faults.not_a_response) {
        return Some(ask.message.to_vec());
    }
    if rng.chance(faults.other_opcode) {
        // It has a number of its own, as the answer itself may come in the same turn.
        let mut other = dns::answer(ask.message, ask.serial | 1 << 63, dns::NOERROR, 0);
        other[..2].copy_from_slice(&answer[..2]);
        other[2] |= 0x10;
        return Some(other);
    }
    if rng.chance(faults.questionless) {
        return Some(dns::questionless(ask.message, dns::NOERROR));
    }
    if rng.chance(faults.questionless_error) {
        let rcode = rng.pick(&[dns::SERVFAIL, dns::REFUSED, dns::FORMERR]);
        return Some(dns::questionless(ask.message, rcode));
    }
    if rng.chance(faults.short) {
        return Some(answer[..rng.within(0, 11)].to_vec());
    }
    if rng.chance(faults.unwalkable) {
        // One more record than there are; ARCOUNT, as the other counts may be at their octet's end.
        let mut other = answer;
        other[11] += 1;
        return Some(other);
    }
    if rng.chance(faults.trailing) && may_trail {
        return Some([answer, vec![0; rng.within(1, 20)]].concat());
    }
    None
}

fn reply(faults: &Faults, fate: &mut Fate, ask: &Ask<'_>, rng: &mut Random) -> Vec<Step> {
    if ask.name.starts_with("poison") {
        return vec![Step::after(faults.round_trip, Do::Close(Closed::Eof))];
    }
    if fate.forget_at.is_some_and(|nth| ask.nth >= nth) {
        return vec![Step::after(0, Do::Forget)];
    }
    if fate.stop_reading_at.is_some_and(|nth| ask.nth >= nth) {
        return vec![Step::after(0, Do::StopReading)];
    }
    let is_lost = rng.chance(faults.drop) || is_among(ask.name, faults.drop_names);
    if fate.silent || (fate.answers_one && ask.nth > 1) || is_lost {
        return Vec::new();
    }
    let mut step = ask_answer(ask, faults);
    step.after += rng.up_to(faults.jitter);
    if rng.chance(faults.reverse) {
        // The last of four queries sent at once is answered first.
        step.after += ms(50) * (4 - ask.nth as u32 % 4);
    }
    if ask.name.starts_with("slow") {
        step.after += ms(3000);
    }
    if rng.chance(faults.late) {
        step.after += ms(4000) + rng.up_to(ms(4000));
    }
    let Do::Answer(answer) = &mut step.what else { unreachable!("it is an answer") };
    if rng.chance(faults.respell) && answer[5] != 0 {
        dns::respell(answer);
    }
    let answer = answer.clone();
    let mut extra = Vec::new();
    if rng.chance(faults.duplicate) {
        extra.push(Step { after: step.after + rng.up_to(ms(100)), what: step.what.clone() });
    }
    if rng.chance(faults.unknown_id) {
        let mut unknown = answer.clone();
        unknown[..2].copy_from_slice(&0xfffe_u16.to_be_bytes());
        extra.push(Step { after: step.after, what: Do::Answer(unknown) });
    }
    let may_trail = extra.is_empty() && answer.len() < 60_000;
    if let Some(spoilt) = spoilt(faults, ask, answer, may_trail, rng) {
        step.what = Do::Answer(spoilt);
    }
    if let Some((each, busy_until)) = &mut fate.in_turn {
        *busy_until = (*busy_until).max(ask.at) + *each;
        step.after += busy_until.saturating_sub(ask.at);
    }
    let after = step.after;
    let mut steps = Vec::new();
    if fate.trickle_at == Some(ask.nth) {
        steps.push(Step::after(0, Do::Pace(1, ms(700))));
    }
    steps.push(step);
    steps.extend(extra);
    if rng.chance(faults.returns) && ask.name.starts_with('q') {
        steps.push(Step::after(1, Do::Return(ask.message.to_vec())));
    }
    if let Some((answers, how)) = &fate.close_after
        && ask.nth >= *answers
    {
        steps.push(Step { after, what: Do::Close(how.clone()) });
    }
    steps
}

/// Whether a name is one of so many of 1,000, however it is spelled.
fn is_among(name: &str, of_1000: u64) -> bool {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, octet| {
        (hash ^ u64::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    });
    hash % 1000 < of_1000
}

/// The clients.
struct Workload {
    swarm: Swarm,
    gate: Gate,
    rng: Random,
    names: u64,
    stubs: Vec<DatagramPath>,
    /// Open TCP clients.
    streams: Vec<usize>,
}

impl Workload {
    fn new(swarm: Swarm, gate: Gate, mut rng: Random) -> Self {
        let stubs = (0..rng.within(1, 12)).map(|stub| stub_path(stub as u16, &mut rng)).collect();
        Self { swarm, gate, rng, names: 0, stubs, streams: Vec::new() }
    }

    /// Queries and faults.
    fn chaos(&mut self, world: &mut World) {
        for (server, faults) in self.swarm.faults.iter().enumerate() {
            for (from, _) in &faults.deaths {
                world.schedule(*from, What::ServerDies { server });
            }
        }
        for (from, subnets) in std::mem::take(&mut self.gate.subnets) {
            world.schedule(from, What::Subnets { subnets });
        }
        let mut queries = 0;
        while world.at() < self.swarm.faults_end && queries < 400 {
            for _ in 0..self.rng.within(1, self.swarm.burst_max) {
                queries += 1;
                self.act(world);
            }
            if self.gate.is_drawn() && self.gate.rng.chance(50) {
                self.flood(world);
            }
            let pause = self.rng.up_to(2 * self.swarm.pause);
            world.run_for(pause);
        }
        let left = self.swarm.faults_end.saturating_sub(world.at());
        world.run_for(left);
    }

    /// The faults have stopped. Until what they left behind is found out, a query may fail.
    fn recover(&mut self, world: &mut World) {
        world.schedule(Duration::ZERO, What::ServersRead);
        if self.gate.is_drawn() {
            self.stubs = (0..3).map(|n| path_from(friend(n))).collect();
        }
        self.swarm.traits.remove(&Trait::SlowNames);
        self.swarm.traits.remove(&Trait::Poison);
        for _ in 0..60 {
            self.ask_datagram(world);
            world.run_ms(250);
        }
        if self.swarm.faults.iter().any(|faults| faults.certificate > 0) {
            // After a bad certificate the next attempt may be 60 s away, and a quarter more.
            for _ in 0..70 {
                self.ask_datagram(world);
                world.run_ms(1000);
            }
        }
        world.run_ms(5000);
    }

    /// Every query is answered, over UDP and TCP, one by one and at once.
    fn demand(&mut self, world: &mut World) {
        self.swarm.traits.remove(&Trait::Errors);
        self.swarm.traits.remove(&Trait::Special);
        self.swarm.traits.remove(&Trait::Private);
        let before = world.oracle.responses.len();
        if self.swarm.has(Trait::FewClients) {
            // With one place for all, its turn would come when those before it have all they asked for.
            world.empty_places();
            world.run_ms(1);
        }
        let client = self.connect(world);
        if self.gate.is_drawn() {
            world.clients[client].peer = friend(3);
        }
        for _ in 0..10 {
            self.ask_datagram(world);
            self.ask_stream(world, client, 1);
            world.run_ms(200);
        }
        for _ in 0..10 {
            self.ask_datagram(world);
        }
        world.run_ms(5000);
        // Some clients have asked so much that it is still being read, one query at a time.
        let is_new = |to| matches!(to, To::Datagram(_)) || to == To::Stream(client);
        let responses: Vec<_> =
            world.oracle.responses[before..].iter().filter(|r| is_new(r.to)).collect();
        assert!(responses.len() >= 30, "only {} responses after the faults", responses.len());
        // Where many queries of one network are late, some are to be asked over TCP.
        let is_late = |r: &Response| r.truncated && r.took() >= ms(400);
        // Where others, who are read at their rates, ask at the same time, there can be too many for a small table.
        let is_crowded = |r: &Response| {
            r.is_crowded && r.rcode == dns::SERVFAIL && ["", CROWDED].contains(&&*r.extra_text)
        };
        let mut failed = responses.iter().filter(|r| r.rcode != dns::NOERROR || !r.upstream);
        let failed = failed.find(|r| !is_late(r) && !is_crowded(r));
        assert!(failed.is_none(), "after the faults stopped: {failed:?}");
    }

    /// Whoever has asked more than its network may over TCP is read at its rate, and nothing of it is lost.
    fn wait_to_be_read(&mut self, world: &mut World) {
        let is_held_up = |which| self.swarm.has(which);
        let others = [Trait::SmallLimits, Trait::FewClients, Trait::FewClientBytes];
        let is_slow = self.gate.rate.as_ref().is_some_and(|rate| rate.per_second <= 5);
        // Else other limits may be the stricter ones.
        if is_slow && !others.into_iter().any(is_held_up) {
            world.run_at_rate(ms(20_000));
        }
    }

    /// Some connect in the last moments, and ask when the end has come.
    fn come_late(&mut self, world: &mut World) {
        for _ in 0..self.rng.below(4) {
            let client = self.connect(world);
            let bytes = dns::framed(&self.query());
            let pause = self.rng.up_to(ms(5));
            world.run_for(pause);
            let after = self.rng.up_to(ms(70));
            world.schedule(after, What::ClientBytes { client, bytes });
        }
    }

    /// Many ask at once from one address, which may be one of others, or be served or not.
    fn flood(&mut self, world: &mut World) {
        let rng = &mut self.gate.rng;
        let source: IpAddr = match rng.below(3) {
            0 => stub_ip(rng),
            1 => [10, 1, 0, rng.below(20) as u8].into(),
            _ => [203, 0, 113, rng.below(4) as u8].into(),
        };
        let port = 45_000 + rng.below(100) as u16;
        for _ in 0..rng.pick(&[2, 10, 60]) {
            let message = self.query();
            world.datagram(path_from(SocketAddr::new(source, port)), message);
        }
    }

    /// One thing a client, or the host, does.
    fn act(&mut self, world: &mut World) {
        if self.swarm.has(Trait::Freezes) && self.rng.chance(5) {
            let length = ms(100) + self.rng.up_to(ms(20_000));
            world.schedule(Duration::ZERO, What::Freeze { length });
        }
        if self.swarm.has(Trait::HostChanges) && self.rng.chance(10) {
            let what = if self.rng.chance(500) {
                let server = self.rng.below(world.servers.len() as u64) as usize;
                What::NetworkChange { server, lost: self.rng.chance(500) }
            } else {
                What::Resume
            };
            world.schedule(Duration::ZERO, what);
        }
        if self.swarm.has(Trait::Garbage) && self.rng.chance(50) {
            let path = self.rng.pick(&self.stubs);
            let message = self.garbage();
            world.datagram(path, message);
        }
        if !self.swarm.has(Trait::Tcp) || self.rng.chance(500) {
            return self.ask_datagram(world);
        }
        if self.swarm.has(Trait::FewClients) && self.rng.chance(30) {
            self.crowd(world);
        }
        let known = self.streams.len() as u64;
        let client = if known == 0 || self.rng.chance(150) {
            let client = self.connect(world);
            self.streams.push(client);
            client
        } else {
            self.streams[self.rng.below(known) as usize]
        };
        let count = self.rng.pick(&[1, 1, 2, 5, 30]);
        self.ask_stream(world, client, count);
        self.end_stream(world, client);
    }

    fn connect(&mut self, world: &mut World) -> usize {
        let client = world.tcp_client();
        world.clients[client].polite = self.rng.chance(800);
        if self.swarm.has(Trait::FewClients) {
            // Some have an address together.
            let port = world.clients[client].peer.port();
            world.clients[client].peer = SocketAddr::new(stub_ip(&mut self.rng), port);
        }
        if self.swarm.has(Trait::Deaf) && self.rng.chance(200) && !self.is_over(world) {
            world.clients[client].room = Some(self.rng.within(0, 2000));
            world.clients[client].offender = true;
            if self.rng.chance(500) {
                let after = self.rng.up_to(ms(9000));
                world.schedule(after, What::ClientReads { client });
            }
        }
        client
    }

    /// One address wants every place, and asks something on some of them.
    fn crowd(&mut self, world: &mut World) {
        let ip = stub_ip(&mut self.rng);
        for _ in 0..10 {
            let client = self.connect(world);
            let port = world.clients[client].peer.port();
            world.clients[client].peer = SocketAddr::new(ip, port);
            if self.rng.chance(500) {
                self.ask_stream(world, client, 1);
            }
        }
    }

    /// Some clients leave, in one way or another.
    fn end_stream(&mut self, world: &mut World, client: usize) {
        let leaves = if self.swarm.has(Trait::HalfClose) && self.rng.chance(200) {
            world.schedule(self.rng.up_to(ms(50)), What::ClientFin { client });
            true
        } else if self.swarm.has(Trait::Resets) && self.rng.chance(100) {
            world.schedule(self.rng.up_to(ms(500)), What::ClientResets { client });
            true
        } else if self.swarm.has(Trait::Trickle) && self.rng.chance(50) {
            world.clients[client].offender = true;
            for octet in 0..60 {
                let bytes = vec![1];
                world.schedule(ms(500) * octet, What::ClientBytes { client, bytes });
            }
            true
        } else if self.swarm.has(Trait::FewClientBytes) && self.rng.chance(100) {
            world.clients[client].offender = true;
            let bytes = [vec![0xff; 2], vec![0; self.rng.within(1000, 60_000)]].concat();
            world.tcp_send(client, bytes);
            true
        } else if self.swarm.has(Trait::Garbage) && self.rng.chance(50) {
            let bytes = dns::framed(&self.garbage());
            world.tcp_send(client, bytes);
            true
        } else {
            false
        };
        if leaves {
            self.streams.retain(|stream| *stream != client);
        }
    }

    fn ask_datagram(&mut self, world: &mut World) {
        let path = self.rng.pick(&self.stubs);
        let message = self.query();
        world.datagram(path, message.clone());
        if self.swarm.has(Trait::Retransmissions) && self.rng.chance(200) && !self.is_over(world) {
            for again in 1..=self.rng.below(3) as u32 {
                let after = again * (ms(200) + self.rng.up_to(ms(1500)));
                let message = message.clone();
                world.schedule(after, What::Datagram { path, message, cut: false });
            }
        }
    }

    fn ask_stream(&mut self, world: &mut World, client: usize, count: usize) {
        let mut bytes = Vec::new();
        for _ in 0..count {
            bytes.extend(dns::framed(&self.query()));
        }
        if self.rng.chance(200) {
            // The second part must not come after what the client sends next.
            let rest = bytes.split_off(self.rng.within(0, bytes.len()));
            world.tcp_send(client, bytes);
            world.run_for(self.rng.up_to(ms(20)));
            bytes = rest;
        }
        world.tcp_send(client, bytes);
    }

    fn query(&mut self) -> Vec<u8> {
        self.names += 1;
        let mut kind = "q";
        if self.rng.chance(20) && self.swarm.has(Trait::SlowNames) {
            kind = "slow";
        } else if self.rng.chance(20) && self.swarm.has(Trait::Poison) {
            kind = "poison";
        } else if self.rng.chance(200) && self.swarm.has(Trait::Errors) {
            kind = self.rng.pick(&["nx", "fail", "refuse"]);
        } else if self.rng.chance(100) && self.swarm.has(Trait::Private) {
            kind = "private";
        }
        let size = match self.swarm.sizes_max {
            0 => 0,
            most if self.rng.chance(100) => self.rng.within(0, most),
            _ => 0,
        };
        let suffix =
            self.rng.pick(&["example.com.", "eXAMPLE.Net.", "a-rather-long-one.example.org."]);
        // Nothing is drawn for it, so that all else of a seed is what it would be without.
        let is_excepted = kind == "private" && self.names.is_multiple_of(3);
        let suffix = if is_excepted { "x.CORP." } else { suffix };
        let name = format!("{kind}{}-{size}.{suffix}", self.names);
        let edns = self.rng.chance(500).then(|| Edns {
            size: self.rng.pick(&[0, 512, 1232, 4096, 65_535]),
            dnssec_ok: self.rng.chance(500),
        });
        if self.swarm.has(Trait::Special) && self.rng.chance(50) {
            let name = self.special_name();
            let kind = self.rng.pick(&[1, 2, 6, 12, 28, 43, 64, 255]);
            // An ID of its own, as the name is not always.
            return dns::query(self.names as u16, &name, kind, edns);
        }
        let id = self.rng.pick(&[7, 0, 0xffff, self.names as u16]);
        dns::query(id, &name, self.rng.pick(&[1, 28, 16, 15, 65, 65_280]), edns)
    }

    /// A name that may be answered here, or one above or below it.
    fn special_name(&mut self) -> String {
        let zone = self.rng.below(special::zones().count() as u64);
        let zone = special::zones().nth(zone as usize).expect("a number below the count");
        match self.rng.below(4) {
            0 => zone,
            1 => zone.split_once('.').map_or(String::new(), |(_, above)| above.to_owned()),
            2 => format!("s{}.{zone}", self.names).to_uppercase(),
            _ => format!("1.s{}.{zone}", self.names),
        }
    }

    /// A message with something wrong, or with nothing but noise.
    fn garbage(&mut self) -> Vec<u8> {
        let mut message = self.query();
        match self.rng.below(7) {
            0 => message.truncate(self.rng.within(0, 11)),
            1 => message[2] |= 0x80,
            2 => message[2] |= self.rng.pick(&[0x08, 0x10, 0x20, 0x28]),
            3 => message[5] = self.rng.pick(&[0, 2]),
            4 => message.truncate(self.rng.within(12, message.len() - 1)),
            5 => message.extend([0, 1, 2]),
            _ => {
                let kind = self.rng.pick(&[251, 252]);
                message = dns::query(self.names as u16, "zone.example.com.", kind, None);
            }
        }
        message
    }

    fn is_over(&self, world: &World) -> bool {
        world.at() >= self.swarm.faults_end
    }
}

/// What a query is told for which there is no place.
const CROWDED: &str = "too many queries at once";

/// One of those that are always served.
fn friend(n: u8) -> SocketAddr {
    let ([a, b, ..], _) = FRIENDS;
    SocketAddr::from(([a, b, 0, n], 40_100 + u16::from(n)))
}

fn stub_path(stub: u16, rng: &mut Random) -> DatagramPath {
    path_from(SocketAddr::new(stub_ip(rng), 40_000 + stub))
}

fn stub_ip(rng: &mut Random) -> IpAddr {
    match rng.below(4) {
        0 => IpAddr::from(Ipv4Addr::LOCALHOST),
        1 => IpAddr::from(Ipv4Addr::new(192, 168, 1, 10)),
        2 => IpAddr::from(Ipv6Addr::from_str("fd00::15").expect("a unique local address")),
        _ => IpAddr::from(Ipv4Addr::new(172, 17, 0, 9)),
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}

/// Writes what the test harness does not hold back.
fn trace(what: fmt::Arguments<'_>) {
    writeln!(io::stderr(), "{what}").expect("stderr is open");
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().cloned();
    said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned())).unwrap_or_default()
}
