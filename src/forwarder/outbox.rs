//! What the core has to say, until the shell takes it.

use std::collections::VecDeque;
use std::time::Instant;

use super::action::{Action, DatagramPath};
use super::datagrams::DatagramOutput;
use super::late_answers::LateAnswers;
use super::limits::Limits;
use super::measures::Measures;
use super::query_log::QueryLog;
use super::report::{Counts, Notice};

/// Everything that leaves the core, except octets of connections.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) actions: VecDeque<Action>,
    pub(super) datagrams: DatagramOutput,
    pub(super) late_answers: LateAnswers,
    pub(super) query_log: QueryLog,
    /// What happened so far.
    pub(super) counts: Counts,
    /// What queries were and what became of them.
    pub(super) measures: Measures,
}

impl Outbox {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            actions: VecDeque::new(),
            datagrams: DatagramOutput::new(limits.datagram_bytes_max, limits.datagrams_max),
            late_answers: LateAnswers::new(
                limits.late_answers_max(),
                limits.late_answer_bytes_max(),
            ),
            query_log: QueryLog::new(limits.query_log, limits.query_log_max),
            counts: Counts::default(),
            measures: Measures::default(),
        }
    }

    /// Has the shell do something.
    pub(super) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// Responds by datagram with what `write` appends, at most `most` octets.
    pub(super) fn respond(
        &mut self,
        path: DatagramPath,
        most: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let len = self.datagrams.push(path, most, write);
        debug_assert!(len <= most);
        self.counts.datagrams_dropped += self.datagrams.shed();
    }

    /// Sends the late responses that may leave now.
    pub(super) fn send_late_answers(&mut self, now: Instant) {
        let Self { late_answers, datagrams, counts, .. } = self;
        late_answers.send(now, |path, message| {
            datagrams.push(path, message.len(), |out| out.extend_from_slice(message));
            counts.datagrams_dropped += datagrams.shed();
        });
    }

    /// Tells the person who runs this program.
    pub(super) fn log(&mut self, notice: Notice) {
        self.push(Action::Log(notice));
    }
}
