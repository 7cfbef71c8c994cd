//! What a row saw: counts for the table, and the promises that were not kept.

use std::time::Duration;

use crate::forwarder::asker::{Asked, Asker};
use crate::{DotServer, Response};

/// A response later than its deadline by this much is late; the rest is for a slow machine. Every
/// promise about time leaves as much room, since what it excludes is a timer of a second or more.
pub const SLACK: Duration = Duration::from_secs(1);

/// A query is answered, if only with SERVFAIL, this long after it came.
pub const DEADLINE: Duration = Duration::from_millis(4_500);

#[derive(Default)]
pub struct Outcome {
    pub answered: usize,
    /// Errors of any kind.
    pub servfail: usize,
    pub lost: usize,
    /// The longest time that a response took.
    pub worst: Duration,
    /// To the servers of the row.
    pub connections: usize,
    /// What else is worth telling in the table.
    pub notes: Vec<String>,
    /// Promises that were not kept.
    pub broken: Vec<String>,
    /// Extended DNS Errors (RFC 8914) of the error responses, without repetition.
    pub errors: Vec<(u16, String)>,
    /// What the forwarder wrote to its standard output and standard error.
    pub lines: Vec<String>,
}

impl Outcome {
    /// Counts the queries of this client, all of which must have got one response.
    pub fn count(&mut self, asker: &Asker) {
        for asked in asker.queries() {
            self.count_one(asked);
        }
        let strays = asker.strays();
        self.promise(strays == 0, || format!("{strays} responses to no query"));
    }

    fn count_one(&mut self, asked: &Asked) {
        match &asked.reply {
            None => self.lost += 1,
            Some(_) if asked.is_answered() => self.answered += 1,
            Some(reply) => {
                self.servfail += 1;
                let opt = Response::read(&reply.octets).opt;
                for error in opt.into_iter().flat_map(|opt| opt.errors) {
                    if !self.errors.contains(&error) {
                        self.errors.push(error);
                    }
                }
            }
        }
        self.worst = self.worst.max(asked.delay().unwrap_or_default());
    }

    /// Counts connections to this server.
    pub fn count_connections(&mut self, server: &DotServer) {
        self.connections += server.log().connections.len();
    }

    /// Counts something that was asked by other means than an asker.
    pub fn count_other(&mut self, answered: usize, servfail: usize, lost: usize) {
        self.answered += answered;
        self.servfail += servfail;
        self.lost += lost;
    }

    pub fn promise(&mut self, kept: bool, broken: impl FnOnce() -> String) {
        if !kept {
            self.broken.push(broken());
        }
    }

    /// Every query was answered, and none with an error.
    pub fn promise_all_answered(&mut self) {
        let (servfail, lost) = (self.servfail, self.lost);
        self.promise(servfail + lost == 0, || {
            format!("{servfail} got an error, {lost} got nothing")
        });
    }

    /// No query was answered, and none got nothing.
    pub fn promise_all_failed(&mut self) {
        let (answered, lost) = (self.answered, self.lost);
        self.promise(answered + lost == 0, || {
            format!("{answered} were answered, {lost} got nothing")
        });
    }

    /// Every query got a response.
    pub fn promise_none_lost(&mut self) {
        let lost = self.lost;
        self.promise(lost == 0, || format!("{lost} got nothing"));
    }

    /// No response came later than this.
    pub fn promise_within(&mut self, limit: Duration) {
        let worst = self.worst;
        self.promise(worst <= limit, || format!("a response took {worst:.1?}, not {limit:.1?}"));
    }

    /// No response came later than its deadline.
    pub fn promise_deadline(&mut self) {
        self.promise_within(DEADLINE + SLACK);
    }

    /// No more connections than this took queries of the row; connections for other ends, as those of a
    /// forwarder that asks a server now and then whether it works, do not count.
    pub fn promise_connections(&mut self, server: &DotServer, most: usize) {
        let used = server.log().connections_for(".example");
        self.promise(used <= most, || format!("{used} connections, not {most}"));
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}
