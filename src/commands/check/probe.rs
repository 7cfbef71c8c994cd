//! What is tried at one upstream, step by step.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::conversation::{Answer, ClearText, Conversation, Question, connect, is_established};
use super::failure::Failure;
use super::report::{Report, Resumption, Tenths, Tls};
use crate::config::UpstreamSpec;
use crate::forwarder::message::Rcode;
use crate::forwarder::message::edit::Edns;
use crate::forwarder::{Ecs, Stage};
use crate::host::network::source::Source;
use crate::host::os_error::system_error;
use crate::tls::{Connector, Witness};

/// What is found out about an upstream, with what a run would connect with.
pub(super) struct Probe<'a> {
    connector: Connector,
    witness: Arc<Witness>,
    source: &'a Source,
    ecs: Ecs,
    registry: &'a Registry,
    token: Token,
    /// What the upstream understands.
    edns: Edns,
    report: Report,
    step: Step,
    /// When the step began.
    begin: Instant,
    /// When the step ends at the latest.
    deadline: Instant,
    /// When the connection was begun.
    connecting: Instant,
    link: Link,
    answers: Vec<Answer>,
}

/// What a probe is at. The first three have to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connect,
    ShakeHands,
    /// The name servers of the root, which every resolver knows; asked again without what the upstream does not
    /// understand, as in a run.
    Ask,
    /// Once more, for the time of an answer on an open connection.
    AskAgain,
    /// With a question that takes longer before it, for the order of answers.
    AskInOrder,
    /// A second connection, which may take up the session of the first.
    ConnectAgain,
    ShakeHandsAgain,
    AskOnSecond,
    ConnectInClear,
    ListenInClear,
    Done,
}

enum Link {
    None,
    Tcp(TcpStream),
    Tls(Box<Conversation>),
    Clear(ClearText),
}

impl<'a> Probe<'a> {
    pub(super) fn new(
        spec: &UpstreamSpec,
        mut connector: Connector,
        (source, ecs): (&'a Source, Ecs),
        (registry, token): (&'a Registry, Token),
    ) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let begin = Instant::now();
        let mut probe = Self {
            witness: connector.watch(),
            connector,
            source,
            ecs,
            registry,
            token,
            edns: Edns::Ours,
            report: Report::new(spec, now),
            step: Step::Connect,
            begin,
            deadline: begin + CONNECT_TIME_MAX,
            connecting: begin,
            link: Link::None,
            answers: Vec::new(),
        };
        if let Err(failure) = probe.connect(begin) {
            probe.step = probe.fail(failure, begin);
        }
        probe
    }

    /// When it goes on whatever the socket says.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it has come to its end.
    pub(super) fn is_done(&self) -> bool {
        self.step == Step::Done
    }

    /// What was found out.
    pub(super) fn into_report(self) -> Report {
        self.report
    }

    /// Goes on as far as the socket lets it.
    pub(super) fn turn(&mut self) {
        while self.step != Step::Done {
            let done = match &mut self.link {
                Link::None => Ok(true),
                Link::Tcp(tcp) => is_established(tcp, self.report.spec.address),
                Link::Tls(conversation) => match self.step {
                    Step::ShakeHands | Step::ShakeHandsAgain => conversation.shake_hands(),
                    _ => conversation.listen(&mut self.answers),
                },
                Link::Clear(clear) => Ok(clear.is_over()),
            };
            let now = Instant::now();
            let done = match done {
                Ok(false) if now < self.deadline => return,
                Ok(false) => Err(self.late()),
                Ok(true) => Ok(()),
                Err(failure) => Err(failure),
            };
            if self.step == Step::ShakeHands {
                self.report.certificate = self.witness.take();
            }
            let next = done.and_then(|()| self.succeed(now));
            self.step = next.unwrap_or_else(|failure| self.fail(failure, now));
            self.begin = now;
        }
    }

    /// What is wrong if the step lasts too long.
    fn late(&self) -> Failure {
        match (&self.link, self.step) {
            (Link::Tls(conversation), Step::ShakeHands | Step::ShakeHandsAgain) => {
                Failure::new(Stage::Tls, format!("timed out{}", conversation.tls.advice()))
            }
            (Link::Tls(_), _) => {
                let limit = self.deadline.saturating_duration_since(self.begin).as_millis();
                // The nearest, as the deadline was set a moment before.
                let limit = Tenths((limit as u16 + 50) / 100);
                Failure::of_answer(format!("no answer in {limit} s"))
            }
            _ => Failure::of_late_connect(self.report.spec.address),
        }
    }

    /// The step has come to its end: what the next one is, which is begun.
    fn succeed(&mut self, now: Instant) -> Result<Step, Failure> {
        match self.step {
            Step::Connect => {
                self.report.connect = Some(now - self.connecting);
                self.deadline = now + HANDSHAKE_TIME_MAX;
                self.start_tls(now)?;
                Ok(Step::ShakeHands)
            }
            Step::ShakeHands => {
                self.note_handshake(now);
                self.deadline = now + ANSWER_TIME_MAX;
                self.ask([Question::root()], now)?;
                Ok(Step::Ask)
            }
            Step::Ask => self.judge_first(now),
            Step::AskAgain => {
                self.report.warm = self.answers.pop().map(|answer| answer.took);
                self.ask([Question::unknown(), Question::root(), Question::root()], now)?;
                Ok(Step::AskInOrder)
            }
            Step::AskInOrder => {
                self.note_order();
                self.connect_again(now)
            }
            Step::ConnectAgain => {
                self.start_tls(now)?;
                Ok(Step::ShakeHandsAgain)
            }
            Step::ShakeHandsAgain => {
                self.ask([Question::root()], now)?;
                Ok(Step::AskOnSecond)
            }
            Step::AskOnSecond => {
                if let Link::Tls(conversation) = &self.link {
                    let tls = &conversation.tls;
                    let is_resumed = tls.handshake().is_some_and(|handshake| handshake.resumed);
                    self.report.resumption = Some(match tls.offers_session() {
                        _ if is_resumed => Resumption::Resumed(now - self.connecting),
                        true => Resumption::Refused,
                        false => Resumption::NoTicket,
                    });
                }
                Ok(self.end())
            }
            Step::ConnectInClear => {
                if let Link::Tcp(tcp) = std::mem::replace(&mut self.link, Link::None) {
                    self.link = Link::Clear(ClearText::new(tcp));
                }
                Ok(Step::ListenInClear)
            }
            Step::ListenInClear | Step::Done => Ok(self.end()),
        }
    }

    /// The step has failed: what is done then.
    fn fail(&mut self, failure: Failure, now: Instant) -> Step {
        match self.step {
            Step::Connect | Step::ShakeHands | Step::Ask => {
                self.close();
                let is_explained = failure.is_explained_in_clear(self.report.certificate.as_ref());
                self.report.failure = Some(failure);
                self.deadline = now + CLEAR_TIME_MAX;
                if is_explained && self.connect(now).is_ok() {
                    return Step::ConnectInClear;
                }
                self.end()
            }
            Step::AskAgain | Step::AskInOrder => {
                self.note_order();
                self.connect_again(now).unwrap_or_else(|failure| self.fail(failure, now))
            }
            Step::ConnectAgain | Step::ShakeHandsAgain | Step::AskOnSecond => {
                self.report.resumption = Some(Resumption::Failed(failure));
                self.end()
            }
            Step::ConnectInClear | Step::ListenInClear | Step::Done => self.end(),
        }
    }

    fn end(&mut self) -> Step {
        let heard = match &self.link {
            Link::Clear(clear) => clear.line(),
            _ => None,
        };
        let Report { spec, certificate, failure, .. } = &mut self.report;
        if let Some(failure) = failure {
            failure.advise(spec, certificate.as_ref(), heard);
        }
        self.close();
        Step::Done
    }

    fn connect(&mut self, now: Instant) -> Result<(), Failure> {
        let address = self.report.spec.address;
        let mut tcp = connect(address, self.source)?;
        self.registry
            .register(&mut tcp, self.token, Interest::READABLE | Interest::WRITABLE)
            .map_err(|error| Failure::new(Stage::Connect, system_error(&error)))?;
        self.connecting = now;
        self.link = Link::Tcp(tcp);
        Ok(())
    }

    fn start_tls(&mut self, now: Instant) -> Result<(), Failure> {
        let tls = self.connector.start(now)?;
        if let Link::Tcp(tcp) = std::mem::replace(&mut self.link, Link::None) {
            self.link = Link::Tls(Box::new(Conversation::new(tcp, tls, now)));
        }
        Ok(())
    }

    fn ask<const N: usize>(
        &mut self,
        questions: [Option<Question>; N],
        now: Instant,
    ) -> Result<(), Failure> {
        self.answers.clear();
        let Link::Tls(conversation) = &mut self.link else { return Ok(()) };
        let questions = questions.into_iter().flatten().collect();
        conversation.ask(questions, (self.edns, self.ecs), now)
    }

    fn note_handshake(&mut self, now: Instant) {
        let Link::Tls(conversation) = &self.link else { return };
        let tls = &conversation.tls;
        self.connector.handle_connected(now, tls);
        self.report.tls = tls.handshake().map(|handshake| Tls {
            version: handshake.version,
            cipher_suite: tls.cipher_suite().unwrap_or_default(),
            key_exchange: handshake.group.and_then(|group| group.as_str()).unwrap_or_default(),
            has_alpn: tls.has_alpn(),
            took: now - self.begin,
        });
    }

    /// The answer that every resolver has to give.
    fn judge_first(&mut self, now: Instant) -> Result<Step, Failure> {
        let Some(answer) = self.answers.pop() else {
            return Err(Failure::new(Stage::Read, "no answer"));
        };
        let objects = matches!(answer.rcode, Rcode::FORMERR | Rcode::NOTIMP | Rcode::BADVERS);
        if objects && self.edns == Edns::Ours {
            self.edns = Edns::Absent;
            self.ask([Question::root()], now)?;
            return Ok(Step::Ask);
        }
        if answer.rcode != Rcode::NOERROR {
            let text = answer.opt.and_then(|opt| opt.ede_texts(&answer.message).next());
            return Err(Failure::of_rcode(answer.rcode, text));
        }
        self.report.cold = Some(now - self.connecting);
        if let Some(opt) = answer.opt {
            self.report.keepalive = opt.keepalive_timeout(&answer.message);
            self.report.padded = opt.padding(&answer.message).map(|_| answer.message.len());
        }
        self.deadline = now + EXTRA_TIME_MAX;
        self.step = Step::AskAgain;
        self.ask([Question::root()], now)?;
        Ok(Step::AskAgain)
    }

    /// What the answers that came tell of their order. Some may be missing.
    fn note_order(&mut self) {
        if let Some(usual) = self.report.warm {
            self.report.out_of_order = order(&self.answers, usual);
        }
    }

    fn connect_again(&mut self, now: Instant) -> Result<Step, Failure> {
        self.close();
        self.step = Step::ConnectAgain;
        self.deadline = now + SECOND_TIME_MAX;
        self.connect(now)?;
        Ok(Step::ConnectAgain)
    }

    fn close(&mut self) {
        if let Link::Tls(conversation) = std::mem::replace(&mut self.link, Link::None) {
            conversation.close();
        }
    }
}

/// Whether answers overtook the one to the first question, which takes longer than the others; `None`: it did not
/// take so long that one could tell. `usual`: how long answers take otherwise.
fn order(answers: &[Answer], usual: Duration) -> Option<bool> {
    let first = answers.first()?;
    if first.question != 0 {
        return Some(true);
    }
    (first.took > 2 * usual + QUICK).then_some(false)
}

/// How long a run waits: SYN, and two retransmissions after 1 and 2 s.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// How long a run waits.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(8);

/// What is answered later is of no use to clients.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(4500);

/// For what is only good to know, on the first connection.
const EXTRA_TIME_MAX: Duration = Duration::from_secs(2);

/// For the second connection.
const SECOND_TIME_MAX: Duration = Duration::from_secs(3);

/// For a look at what is said in clear text.
const CLEAR_TIME_MAX: Duration = Duration::from_secs(2);

/// What answers differ by for no reason.
const QUICK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_answers_tells_whether_they_wait() {
        let usual = Duration::from_millis(10);
        for (answers, expected) in [
            (&[][..], None),
            (&[(1, 10), (2, 10), (0, 80)][..], Some(true)),
            (&[(1, 10)], Some(true)),
            (&[(0, 80), (1, 80), (2, 80)], Some(false)),
            (&[(0, 20), (1, 20), (2, 20)], None),
        ] {
            let answers: Vec<_> = answers
                .iter()
                .map(|&(question, took)| Answer {
                    question,
                    took: Duration::from_millis(took),
                    rcode: Rcode::NOERROR,
                    opt: None,
                    message: Vec::new(),
                })
                .collect();
            assert_eq!(order(&answers, usual), expected);
        }
    }
}
