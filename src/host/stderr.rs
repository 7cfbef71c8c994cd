//! Lines to stderr that never wait, and never end the program.
//!
//! Whoever reads stderr may stop, leave, or run out of disk, and DNS must go on. `eprintln!` waits
//! in the first case and panics in the others, so nothing that runs beside the event loop uses it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use log::{Level, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec, write};

use super::log_format::{LogFormat, Rfc3339};

/// The process's stderr. Clones write to the same output and keep their lines apart.
#[derive(Clone, Debug)]
pub struct Stderr(Arc<Mutex<Output>>);

impl Stderr {
    /// Stderr as it is now.
    pub fn new() -> Self {
        let stderr = Self::over(rustix::stdio::stderr());
        let mut output = stderr.output();
        output.is_shared = output.fd.is_none();
        drop(output);
        stderr
    }

    /// The process's stdout, which may be the same terminal, written to in the same way.
    pub fn stdout() -> Self {
        Self::over(rustix::stdio::stdout())
    }

    fn over(fd: BorrowedFd<'_>) -> Self {
        Self(Arc::new(Mutex::new(Output::over(fd))))
    }

    /// Writes `lines`, each with its line feed, as far as they go at once. The others are dropped,
    /// and a line says how many as soon as there is room for it. A call without lines only makes up for
    /// what did not go earlier.
    ///
    /// A line over 4,096 octets is always dropped. After the reader left, all are.
    pub fn write_lines(&mut self, lines: &[u8]) {
        self.output().write_lines(lines);
    }

    /// Writes lines of the query log, as [`Self::write_lines`] does. Objects get the time as their first member, and
    /// words become objects where the log has objects.
    pub fn write_query_log(&mut self, lines: &[u8]) {
        let mut output = self.output();
        let is_objects = lines.first() == Some(&b'{');
        if lines.is_empty() || !is_objects && output.format != LogFormat::Json {
            return output.write_lines(lines);
        }
        let time = format!("{{\"time\":\"{}\",", Rfc3339::now());
        // As many lines at a time as go, since each write is a system call.
        let (mut piece, mut filled) = ([0; PIECE_MAX], 0);
        for line in lines.split_inclusive(|&octet| octet == b'\n') {
            let object = if let Some(members) = line.strip_prefix(b"{") {
                [time.as_bytes(), members].concat()
            } else {
                let text = String::from_utf8_lossy(line);
                LogFormat::Json.remark(Level::Info, &text.trim_end()).into_bytes()
            };
            if filled + object.len() > PIECE_MAX {
                output.write_lines(&piece[..filled]);
                filled = 0;
            }
            if let Some(free) = piece.get_mut(filled..filled + object.len()) {
                free.copy_from_slice(&object);
                filled += object.len();
            } else {
                // It is too long to be written, which is counted.
                output.write_lines(&object);
            }
        }
        output.write_lines(&piece[..filled]);
    }

    /// Writes why the program ends, in one line.
    pub fn write_failure(&mut self, failure: &str) {
        failure.lines().for_each(|line| self.remark(Level::Error, line));
    }

    /// Writes a line that was asked for, whatever the level of the log.
    pub fn write_remark(&mut self, text: &str) {
        self.remark(Level::Info, text);
    }

    fn remark(&mut self, level: Level, text: &str) {
        let mut output = self.output();
        let format = output.format;
        let line = fitting(text, |text| format.remark(level, &format_args!("dot-proxy: {text}")));
        output.write_lines(line.as_bytes());
    }

    /// Has the lines of the log written in this form from now on.
    pub fn set_format(&mut self, format: LogFormat) {
        self.output().format = format;
    }

    /// Has a panic say what is wrong on one line here. The hook of the standard library waits until stderr takes
    /// it, so that the process would hang where it is to end, and be started again.
    pub fn report_panics(&self) {
        let stderr = self.clone();
        std::panic::set_hook(Box::new(move |panic| {
            // Whoever panics while it writes holds the lock.
            let mut output = match stderr.0.try_lock() {
                Ok(output) => output,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let line = panic.to_string().replace('\n', " ");
            let line = output.format.remark(Level::Error, &format_args!("dot-proxy: {line}"));
            output.write_lines(line.as_bytes());
        }));
    }

    /// How many lines were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.output().dropped
    }

    /// Ends the output, after a last attempt to write what did not go earlier.
    pub fn finish(&mut self) {
        let mut output = self.output();
        output.catch_up();
        output.end();
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Stderr {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes the log records that another logger wants, in the form `simple_logger` gives them,
/// through [`Stderr`].
#[derive(Debug)]
pub struct GuardedLogger<L> {
    filter: L,
    stderr: Stderr,
}

impl<L: Log> GuardedLogger<L> {
    /// `filter` is only asked which records are enabled: `simple_logger` itself prints them with
    /// `eprintln!`, and no look at stderr before that can promise that it is neither full nor gone
    /// a moment later.
    pub fn new(filter: L, stderr: Stderr) -> Self {
        Self { filter, stderr }
    }
}

impl<L: Log> Log for GuardedLogger<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // What is shown may take its time, panic, or log itself: with the lock held that would say nothing, or
            // wait for itself.
            let format = self.stderr.output().format;
            let text = record.args().to_string();
            let line = fitting(&text, |text| format.record(record.level(), record.target(), &text));
            self.stderr.output().write_lines(line.as_bytes());
        }
    }

    fn flush(&self) {
        self.stderr.output().write_lines(&[]);
    }
}

/// The line that `write` makes of the text, or of its beginning and its end where the line would be too long to be
/// written: what is wrong stands behind what a user gave.
fn fitting(text: &str, write: impl Fn(&str) -> String) -> String {
    let line = write(text);
    if line.len() <= PIECE_MAX {
        return line;
    }
    let chars = text.chars().count();
    let front: String = text.chars().take(SHOWN_OF_LONG).collect();
    let end: String = text.chars().skip(chars.saturating_sub(SHOWN_OF_LONG)).collect();
    write(&format!("{front} [...] {end}"))
}

/// Characters of the beginning and of the end, of 6 octets at most, as an object has them.
const SHOWN_OF_LONG: usize = 300;

/// A file that is written to without waiting.
#[derive(Debug)]
struct Output {
    /// `None` once there is nobody to write to, or if none could be had.
    fd: Option<OwnedFd>,
    /// No descriptor was free for one, so that the process's stderr itself is written to: why that is so is to be
    /// read there.
    is_shared: bool,
    format: LogFormat,
    /// For how many octets POLLOUT promises room, if a write to `fd` returns only when all of it is
    /// written.
    promised: Option<usize>,
    /// The end of a line of which the front was written, and less than [`PIECE_MAX`].
    rest: Vec<u8>,
    dropped: u64,
    /// Dropped lines that are not counted by any line yet.
    unreported: u64,
}

impl Output {
    /// An output to what `fd` refers to, which does not wait, whatever kind of file it is.
    ///
    /// `O_NONBLOCK` belongs to the open file description, which other processes share, so terminals
    /// and pipes are opened a second time. Others are not: a regular file because a second
    /// description has an offset of its own, at which it would overwrite what is written through
    /// the first; a socket because it cannot be.
    ///
    /// A terminal of another user (su, setpriv) cannot be opened again. poll(2) promises room for one
    /// octet there, and a write of more may wait.
    fn over(fd: BorrowedFd<'_>) -> Self {
        let kind = fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let own = match kind {
            Ok(FileType::CharacterDevice | FileType::Fifo) => open(
                format!("/proc/self/fd/{}", fd.as_raw_fd()),
                OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .ok(),
            _ => None,
        };
        match (own, kind) {
            (Some(own), _) => Self::new(Some(own), None),
            (None, Ok(FileType::CharacterDevice)) => Self::waiting(fd, 1),
            (None, _) => Self::waiting(fd, PIECE_MAX),
        }
    }

    fn new(fd: Option<OwnedFd>, promised: Option<usize>) -> Self {
        Self {
            fd,
            is_shared: false,
            format: LogFormat::default(),
            promised,
            rest: Vec::new(),
            dropped: 0,
            unreported: 0,
        }
    }

    /// An output whose writes wait unless POLLOUT promises room for so many octets.
    fn waiting(fd: BorrowedFd<'_>, promised: usize) -> Self {
        Self::new(fcntl_dupfd_cloexec(fd, FIRST_AFTER_STDIO).ok(), Some(promised))
    }

    /// What is written to.
    fn target(&self) -> Option<BorrowedFd<'_>> {
        let shared = self.is_shared.then(rustix::stdio::stderr);
        self.fd.as_ref().map(AsFd::as_fd).or(shared)
    }

    /// Writes no more.
    fn end(&mut self) {
        (self.fd, self.is_shared) = (None, false);
    }

    fn write_lines(&mut self, mut lines: &[u8]) {
        while self.catch_up() && !lines.is_empty() {
            let window = &lines[..lines.len().min(PIECE_MAX)];
            let Some(last) = window.iter().rposition(|&octet| octet == b'\n') else {
                let end = lines.iter().position(|&octet| octet == b'\n');
                let (long, others) = lines.split_at(end.map_or(lines.len(), |end| end + 1));
                self.count(long);
                lines = others;
                continue;
            };
            let (piece, others) = lines.split_at(last + 1);
            if !self.begin(piece) {
                break;
            }
            lines = others;
        }
        self.count(lines);
    }

    /// Finishes what was begun and says what was dropped, and returns whether something new can begin.
    fn catch_up(&mut self) -> bool {
        loop {
            if !self.rest.is_empty() {
                let rest = std::mem::take(&mut self.rest);
                let written = self.write_some(&rest);
                self.rest.extend_from_slice(&rest[written..]);
                if written == 0 {
                    return false;
                }
            } else if self.unreported > 0 {
                let notice = match self.unreported {
                    1 => "(1 line was not written: stderr did not take it)".to_owned(),
                    n => format!("({n} lines were not written: stderr did not take them)"),
                };
                let notice = self.format.remark(Level::Warn, &notice);
                if !self.begin(notice.as_bytes()) {
                    return false;
                }
                self.unreported = 0;
            } else {
                return self.target().is_some();
            }
        }
    }

    /// Writes what goes of `piece`, keeps the rest for [`Self::catch_up`], and returns whether any went.
    fn begin(&mut self, piece: &[u8]) -> bool {
        let written = self.write_some(piece);
        if written > 0 {
            self.rest.extend_from_slice(&piece[written..]);
        }
        written > 0
    }

    /// Writes what goes at once, and returns how many octets that were.
    fn write_some(&mut self, octets: &[u8]) -> usize {
        loop {
            let Some(fd) = self.target() else { return 0 };
            let result = match self.promised {
                None => write(fd, octets),
                Some(promised) => match write_while_ready(fd, octets, promised) {
                    // Who may have no file open may not ask for any. The next line is the last.
                    Err(Errno::INVAL) if self.is_shared => write(fd, octets),
                    result => result,
                },
            };
            match result {
                Ok(written) => return written,
                Err(Errno::INTR) => {}
                // The reader left, or the terminal hung up. Anything else may pass: a full disk.
                Err(Errno::BADF | Errno::IO | Errno::NXIO | Errno::PIPE) => self.end(),
                Err(_) => return 0,
            }
        }
    }

    fn count(&mut self, lines: &[u8]) {
        let count = lines.split_inclusive(|&octet| octet == b'\n').count() as u64;
        self.dropped += count;
        self.unreported += count;
    }
}

/// Writes what goes at once, up to `piece_max` octets at a time, and returns how many octets that were.
fn write_while_ready(
    fd: BorrowedFd<'_>,
    octets: &[u8],
    piece_max: usize,
) -> rustix::io::Result<usize> {
    let mut written = 0;
    while written < octets.len() {
        let rest = &octets[written..];
        match write_if_ready(fd, &rest[..rest.len().min(piece_max)]) {
            Ok(len) => written += len,
            // The next write has the same error.
            Err(_) if written > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Writes unless that would wait. POLLOUT promises room for `PIPE_BUF` octets in a pipe, and for more in a
/// socket.
fn write_if_ready(fd: BorrowedFd<'_>, octets: &[u8]) -> rustix::io::Result<usize> {
    let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    let ready = fds[0].revents();
    if ready.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
        return Err(Errno::PIPE);
    }
    if !ready.contains(PollFlags::OUT) {
        return Err(Errno::AGAIN);
    }
    write(fd, octets)
}

/// The lowest descriptor that a duplicate may get.
const FIRST_AFTER_STDIO: i32 = 3;

/// The longest line, and Linux' `PIPE_BUF`: so much goes into a pipe whole or not at all, even with other writers.
const PIECE_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::fs::File;
    use std::io::{self, PipeWriter, Read, Seek, Write as _};
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    use log::LevelFilter;
    use rustix::fs::fcntl_getfl;
    use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, pidfd_open, setrlimit};
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

    use super::*;

    const RECORD: &str = "INFO  [dot_proxy] 7 words";

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn lines_go_out_in_order() {
        for open in OPENERS {
            let (mut reader, writer) = io::pipe().unwrap();
            let mut stderr = open(&writer);
            stderr.write_lines(b"one\ntwo\n");
            stderr.clone().write_lines(b"three\n");
            assert_eq!(stderr.dropped(), 0);
            drop((stderr, writer));
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "one\ntwo\nthree\n");
        }
    }

    #[test]
    fn an_unread_pipe_is_never_waited_for_and_dropped_lines_are_reported() {
        for open in OPENERS {
            within_limit(move || {
                let (mut reader, writer) = io::pipe().unwrap();
                let mut stderr = open(&writer);
                let mut all = Vec::new();
                while stderr.dropped() == 0 {
                    let batch: Vec<_> = (all.len()..all.len() + 32).map(line).collect();
                    stderr.write_lines(&batch.concat());
                    all.extend(batch);
                }
                let dropped = stderr.dropped();
                stderr.write_lines(b"lost\nlost\n");
                assert_eq!(stderr.dropped(), dropped + 2);
                all.truncate(all.len() - dropped as usize);

                let mut text = vec![0; all.len() * line(0).len()];
                reader.read_exact(&mut text).unwrap();
                assert!(text == all.concat());
                stderr.write_lines(b"after\n");
                stderr.write_lines(b"later\n");
                drop((stderr, writer));
                let mut text = String::new();
                reader.read_to_string(&mut text).unwrap();
                let reported = dropped + 2;
                assert_eq!(
                    text,
                    format!(
                        "({reported} lines were not written: stderr did not take them)\nafter\nlater\n"
                    )
                );
            });
        }
    }

    #[test]
    fn dropped_lines_are_reported_without_a_new_one() {
        for open in OPENERS {
            within_limit(move || {
                let (mut reader, writer) = io::pipe().unwrap();
                let mut stderr = open(&writer);
                while stderr.dropped() == 0 {
                    stderr.write_lines(&line(0));
                }
                reader.read_exact(&mut [0; PIECE_MAX]).unwrap();
                stderr.write_lines(&[]);
                drop((stderr, writer));
                let mut text = String::new();
                reader.read_to_string(&mut text).unwrap();
                assert!(text.ends_with("(1 line was not written: stderr did not take it)\n"));
            });
        }
    }

    #[test]
    fn a_reader_that_left_ends_it() {
        for open in OPENERS {
            let (reader, writer) = io::pipe().unwrap();
            let mut stderr = open(&writer);
            drop(reader);
            stderr.write_lines(b"one\ntwo\n");
            assert!(stderr.output().fd.is_none());
            logger(&stderr).log(&record(Level::Info));
            assert_eq!(stderr.dropped(), 3);
        }
    }

    #[test]
    fn a_reader_that_was_gone_at_the_start_ends_it() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut stderr = Stderr::over(writer.as_fd());
        stderr.write_lines(b"one\n");
        assert!(stderr.output().fd.is_none());
    }

    #[test]
    fn a_terminal_that_nobody_reads_is_never_waited_for() {
        for open in [Output::over, |fd: BorrowedFd<'_>| Output::waiting(fd, 1)] {
            within_limit(move || {
                let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
                unlockpt(&terminal).unwrap();
                let peer =
                    ioctl_tiocgptpeer(&terminal, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
                let flags = fcntl_getfl(&peer).unwrap();
                let mut stderr = Stderr(Arc::new(Mutex::new(open(peer.as_fd()))));
                assert_eq!(fcntl_getfl(&peer).unwrap(), flags);

                let mut submitted = 0;
                while stderr.dropped() < 10 {
                    stderr.write_lines(&line(submitted));
                    logger(&stderr).log(&record(Level::Info));
                    submitted += 1;
                }

                let text = read_terminal(&terminal, &mut stderr, 2 * submitted as u64);
                let mut last = None;
                for line in text.lines().filter(|line| !line.starts_with('(') && *line != RECORD) {
                    assert_eq!(line.len(), 127);
                    let number = line.parse::<usize>().unwrap();
                    assert!(last < Some(number), "{last:?} before {number}");
                    last = Some(number);
                }

                drop(terminal);
                let start = Instant::now();
                while stderr.output().fd.is_some() {
                    assert!(start.elapsed() < LIMIT);
                    stderr.write_lines(b"hung up\n");
                }
            });
        }
    }

    #[test]
    fn what_may_not_be_polled_is_not_waited_for() {
        const ALONE: &str = "DOT_PROXY_TEST_STDERR_ALONE";
        const NAME: &str = "host::stderr::tests::what_may_not_be_polled_is_not_waited_for";

        if std::env::var_os(ALONE).is_none() {
            let mut alone = Command::new(std::env::current_exe().unwrap());
            let output = alone.args(["--exact", NAME]).env(ALONE, "").output().unwrap();
            assert!(output.status.success(), "{output:?}");
            return;
        }
        within_limit(|| {
            let (_reader, writer) = UnixStream::pair().unwrap();
            let mut stderr = Stderr::over(writer.as_fd());
            while stderr.dropped() == 0 {
                stderr.write_lines(&line(0));
            }
            // As prlimit(1) lowers it for a process that runs.
            setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
            let dropped = stderr.dropped();
            stderr.write_lines(b"lost\n");
            assert_eq!(stderr.dropped(), dropped + 1);
        });
    }

    #[test]
    fn a_socket_that_nobody_reads_is_never_waited_for() {
        within_limit(|| {
            let (mut reader, writer) = UnixStream::pair().unwrap();
            let mut stderr = Stderr::over(writer.as_fd());
            while stderr.dropped() == 0 {
                stderr.write_lines(&line(0));
            }
            drop(writer);
            let copy = reader.try_clone().unwrap();
            copy.set_nonblocking(true).unwrap();
            while io::copy(&mut (&copy).take(4_096), &mut io::sink()).is_ok() {}
            copy.set_nonblocking(false).unwrap();
            stderr.write_lines(b"after\n");
            drop(stderr);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "(1 line was not written: stderr did not take it)\nafter\n");
        });
    }

    /// In a process of its own, as there is one hook. The test runs itself again for that.
    #[test]
    fn a_panic_ends_the_process_whether_stderr_is_read_or_not() {
        const HOW: &str = "DOT_PROXY_TEST_PANIC";

        if let Ok(how) = std::env::var(HOW) {
            let stderr = Stderr::new();
            stderr.report_panics();
            let panicked = std::panic::catch_unwind(|| {
                let _held = (how == "while it writes").then(|| stderr.output());
                panic!("two\nlines");
            });
            std::process::exit(if panicked.is_err() { 7 } else { 0 });
        }
        for (how, is_full) in [("read", false), ("unread", true), ("while it writes", false)] {
            let (mut reader, writer) = io::pipe().unwrap();
            if is_full {
                let mut filler = Stderr::over(writer.as_fd());
                while filler.dropped() == 0 {
                    filler.write_lines(&line(0));
                }
            }
            let name =
                "host::stderr::tests::a_panic_ends_the_process_whether_stderr_is_read_or_not";
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture"])
                .env(HOW, how)
                .stdout(Stdio::null())
                .stderr(writer)
                .spawn()
                .unwrap();
            let pid = Pid::from_child(&child);
            let fd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            let limit = Timespec { tv_sec: LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
            if poll(&mut fds, Some(&limit)).unwrap() == 0 {
                child.kill().unwrap();
                panic!("{how}: the process waits");
            }
            assert_eq!(child.wait().unwrap().code(), Some(7), "{how}");
            if how == "read" {
                let mut text = String::new();
                reader.read_to_string(&mut text).unwrap();
                let line = text.strip_prefix("dot-proxy: panicked at src/host/stderr.rs:").unwrap();
                assert!(line.ends_with(" two lines\n") && line.lines().count() == 1, "{text:?}");
            }
        }
    }

    #[test]
    fn a_regular_file_keeps_one_offset_with_its_other_writers() {
        let path = std::env::temp_dir().join(format!("dot-proxy-stderr-{}", std::process::id()));
        let mut file = File::create_new(&path).unwrap();
        let mut stderr = Stderr::over(file.as_fd());
        stderr.write_lines(b"one\n");
        file.write_all(b"two\n").unwrap();
        stderr.write_lines(b"three\n");
        file.write_all(b"four\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text, "one\ntwo\nthree\nfour\n");
        assert_eq!(file.stream_position().unwrap(), text.len() as u64);
    }

    #[test]
    fn a_full_disk_costs_lines_only() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut stderr = Stderr::over(full.as_fd());
        stderr.write_lines(b"one\ntwo\n");
        logger(&stderr).log(&record(Level::Info));
        assert_eq!(stderr.dropped(), 3);
        assert!(stderr.output().fd.is_some());
    }

    #[test]
    fn only_whole_lines_of_bounded_length_are_written() {
        for open in OPENERS {
            let (mut reader, writer) = io::pipe().unwrap();
            let mut stderr = open(&writer);
            let longest = [&[b'x'; PIECE_MAX - 1][..], b"\n"].concat();
            stderr.write_lines(b"first\n");
            stderr.write_lines(&[b"x", &longest[..], &longest[..], b"no line feed"].concat());
            assert_eq!(stderr.dropped(), 2);
            stderr.write_lines(b"last\n");
            drop((stderr, writer));
            let mut text = Vec::new();
            reader.read_to_end(&mut text).unwrap();
            // A line that was too long is reported before the line after it.
            let report = |n| match n {
                1 => &b"(1 line was not written: stderr did not take it)\n"[..],
                _ => unreachable!(),
            };
            assert!(text == [b"first\n", report(1), &longest[..], report(1), b"last\n"].concat());
        }
    }

    #[test]
    fn a_record_is_written_if_the_filter_wants_it() {
        let (mut reader, writer) = io::pipe().unwrap();
        let logger = logger(&Stderr::over(writer.as_fd()));
        for level in [Level::Warn, Level::Info, Level::Debug] {
            logger.log(&record(level));
        }
        drop((logger, writer));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "WARN  [dot_proxy] 7 words\nINFO  [dot_proxy] 7 words\n");
    }

    /// What panics while it is shown, or logs itself, must find the output free.
    #[test]
    fn a_record_is_shown_while_nobody_holds_the_output() {
        struct Looks(Stderr);

        impl fmt::Display for Looks {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(if self.0.0.try_lock().is_ok() { "free" } else { "held" })
            }
        }

        let (mut reader, writer) = io::pipe().unwrap();
        let stderr = Stderr::over(writer.as_fd());
        let logger = logger(&stderr);
        let args = Looks(stderr.clone());
        logger.log(&Record::builder().level(Level::Info).args(format_args!("{args}")).build());
        drop((logger, stderr, args, writer));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "INFO  [] free\n");
    }

    #[test]
    fn what_is_written_has_the_form_that_was_asked_for() {
        for (format, expected) in [
            (
                LogFormat::Plain,
                ["INFO  [dot_proxy] 7 words", "LOCAL a", ",\"b\":1}", "dot-proxy: no"],
            ),
            (
                LogFormat::Journald,
                ["<6>INFO  [dot_proxy] 7 words", "LOCAL a", ",\"b\":1}", "<3>dot-proxy: no"],
            ),
            (
                LogFormat::Json,
                [
                    "\"level\":\"info\",\"target\":\"dot_proxy\",\"message\":\"7 words\"}",
                    "\"level\":\"info\",\"target\":\"dot_proxy\",\"message\":\"LOCAL a\"}",
                    ",\"b\":1}",
                    "\"level\":\"error\",\"target\":\"dot_proxy\",\"message\":\"dot-proxy: no\"}",
                ],
            ),
        ] {
            let (mut reader, writer) = io::pipe().unwrap();
            let mut stderr = Stderr::over(writer.as_fd());
            stderr.set_format(format);
            logger(&stderr).log(&record(Level::Info));
            stderr.write_query_log(b"LOCAL a\n");
            stderr.write_query_log(b"{\"b\":1}\n");
            stderr.write_failure("no");
            stderr.finish();
            drop(writer);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            let lines: Vec<_> = text.lines().collect();
            assert_eq!(lines.len(), expected.len(), "{text}");
            for (line, expected) in lines.iter().zip(expected) {
                let is_object = format == LogFormat::Json || expected.starts_with(',');
                let is_right = if is_object {
                    line.starts_with("{\"time\":\"20") && line.ends_with(expected)
                } else {
                    *line == expected
                };
                assert!(is_right, "{line}: {expected}");
            }
        }
    }

    /// Outputs with a description of their own, and with the fallback where that cannot be had.
    const OPENERS: [fn(&PipeWriter) -> Stderr; 2] = [
        |writer| {
            let stderr = Stderr::over(writer.as_fd());
            assert!(stderr.output().promised.is_none());
            stderr
        },
        |writer| {
            let stderr = Stderr::over(writer.as_fd());
            *stderr.output() = Output::waiting(writer.as_fd(), PIECE_MAX);
            stderr
        },
    ];

    struct UpTo(LevelFilter);

    impl Log for UpTo {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= self.0
        }
        fn log(&self, _: &Record<'_>) {}
        fn flush(&self) {}
    }

    fn logger(stderr: &Stderr) -> GuardedLogger<UpTo> {
        GuardedLogger::new(UpTo(LevelFilter::Info), stderr.clone())
    }

    fn record(level: Level) -> Record<'static> {
        Record::builder().level(level).target("dot_proxy").args(format_args!("7 words")).build()
    }

    /// A line of 128 octets: 32 of them fill a page of a pipe to the last octet.
    fn line(number: usize) -> Vec<u8> {
        format!("{number:0127}\n").into_bytes()
    }

    /// What comes out of a terminal, until it accounts for as many lines as were given to `stderr`.
    fn read_terminal(terminal: &OwnedFd, stderr: &mut Stderr, submitted: u64) -> String {
        let mut text = String::new();
        let start = Instant::now();
        while !text.ends_with('\n') || accounted(&text) < submitted {
            assert!(start.elapsed() < LIMIT, "{text:?}");
            stderr.write_lines(&[]);
            let mut fds = [PollFd::new(terminal, PollFlags::IN)];
            // The kernel makes room a moment after it was read out, and tells this side nothing.
            let moment = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            if poll(&mut fds, Some(&moment)).unwrap() > 0 {
                let mut octets = [0; 4_096];
                let len = rustix::io::read(terminal, &mut octets).unwrap();
                let octets = octets[..len].iter().filter(|&&octet| octet != b'\r');
                text.extend(octets.map(|&octet| char::from(octet)));
            }
        }
        assert_eq!(accounted(&text), submitted);
        text
    }

    /// How many lines are there or reported as missing.
    fn accounted(text: &str) -> u64 {
        let count = |line: &str| match line.strip_prefix('(') {
            Some(notice) => notice.split(' ').next().unwrap().parse().unwrap(),
            None => 1,
        };
        text.lines().map(count).sum()
    }

    /// Fails rather than hangs if a write waits.
    fn within_limit(test: impl FnOnce() + Send + 'static) {
        let (done, finished) = mpsc::channel();
        let thread = thread::spawn(move || {
            test();
            done.send(()).unwrap();
        });
        match finished.recv_timeout(LIMIT) {
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("a write waits for its reader"),
            _ => thread.join().unwrap(),
        }
    }
}
