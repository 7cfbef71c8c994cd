//! What is tried at one upstream, step by step.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::conversation::{Answer, Conversation, Question, connect};
use super::failure::Failure;
use super::report::{Report, Resumption, Tls};
use crate::config::UpstreamSpec;
use crate::forwarder::message::Rcode;
use crate::forwarder::message::edit::Edns;
use crate::forwarder::{Ecs, Stage};
use crate::host::network::source::Source;
use crate::tls::{Connector, Witness};

/// Tries the upstream with what a run would connect with, and from there.
pub(super) fn probe(
    spec: &UpstreamSpec,
    mut connector: Connector,
    source: &Source,
    ecs: Ecs,
) -> Report {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let witness = connector.watch();
    let mut probe =
        Probe { connector, witness, source, ecs, edns: Edns::Ours, report: Report::new(spec, now) };
    let done = probe.try_out();
    let Probe { mut report, .. } = probe;
    if let Err(mut failure) = done {
        let deadline = Instant::now() + CLEAR_TIME_MAX;
        failure.advise(spec, report.certificate.as_ref(), now, (source, deadline));
        report.failure = Some(failure);
    }
    report
}

struct Probe<'a> {
    connector: Connector,
    witness: Arc<Witness>,
    source: &'a Source,
    ecs: Ecs,
    /// What the upstream understands.
    edns: Edns,
    report: Report,
}

impl Probe<'_> {
    /// All that an upstream must be able to do, and then what is good to know besides.
    fn try_out(&mut self) -> Result<(), Failure> {
        let Some(root) = Question::root() else { return Ok(()) };
        let begin = Instant::now();
        let mut conversation = self.open()?;
        let answer = match self.ask_first(&mut conversation, &root) {
            Ok(answer) => answer,
            Err(failure) => {
                conversation.close();
                return Err(failure);
            }
        };
        self.report.cold = Some(begin.elapsed());
        if let Some(opt) = answer.opt {
            self.report.keepalive = opt.keepalive_timeout(&answer.message);
            self.report.padded = opt.padding(&answer.message).map(|_| answer.message.len());
        }
        let deadline = Instant::now() + EXTRA_TIME_MAX;
        self.ask_more(&mut conversation, &root, deadline);
        conversation.close();
        self.report.resumption = Some(self.resume(&root, deadline));
        Ok(())
    }

    /// TCP and TLS.
    fn open(&mut self) -> Result<Conversation, Failure> {
        let begin = Instant::now();
        let tcp = connect(self.report.spec.address, self.source, begin + CONNECT_TIME_MAX)?;
        self.report.connect = Some(begin.elapsed());
        let begin = Instant::now();
        let mut conversation = Conversation::new(tcp, self.connector.start(begin)?);
        let done = conversation.shake_hands(begin + HANDSHAKE_TIME_MAX);
        self.report.certificate = self.witness.take();
        if let Err(failure) = done {
            conversation.close();
            return Err(failure);
        }
        self.connector.handle_connected(Instant::now(), &conversation.tls);
        let tls = &conversation.tls;
        self.report.tls = tls.handshake().map(|handshake| Tls {
            version: handshake.version,
            cipher_suite: tls.cipher_suite().unwrap_or_default(),
            key_exchange: handshake.group.and_then(|group| group.as_str()).unwrap_or_default(),
            has_alpn: tls.has_alpn(),
            took: begin.elapsed(),
        });
        Ok(conversation)
    }

    /// The first question, asked again without what the upstream does not understand, as in a run.
    fn ask_first(
        &mut self,
        conversation: &mut Conversation,
        root: &Question,
    ) -> Result<Answer, Failure> {
        let deadline = Instant::now() + ANSWER_TIME_MAX;
        let mut answer = self.ask(conversation, root, deadline)?;
        let objects = matches!(answer.rcode, Rcode::FORMERR | Rcode::NOTIMP | Rcode::BADVERS);
        if objects {
            self.edns = Edns::Absent;
            answer = self.ask(conversation, root, deadline)?;
        }
        if answer.rcode == Rcode::NOERROR {
            return Ok(answer);
        }
        let text = answer.opt.and_then(|opt| opt.ede_texts(&answer.message).next());
        Err(Failure::of_rcode(answer.rcode, text))
    }

    fn ask(
        &self,
        conversation: &mut Conversation,
        question: &Question,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let mut answers = Vec::new();
        conversation.ask(&[question], self.edns, self.ecs, deadline, &mut answers)?;
        answers.pop().ok_or_else(|| Failure::new(Stage::Read, "no answer"))
    }

    /// How long an answer takes on an open connection, and whether it waits for others.
    fn ask_more(&mut self, conversation: &mut Conversation, root: &Question, deadline: Instant) {
        let deadline = deadline.min(Instant::now() + ORDER_TIME_MAX);
        let Ok(answer) = self.ask(conversation, root, deadline) else { return };
        self.report.warm = Some(answer.took);
        let Some(unknown) = Question::unknown() else { return };
        let mut answers = Vec::new();
        let questions = [&unknown, root, root];
        // Some answers may be missing then.
        conversation.ask(&questions, self.edns, self.ecs, deadline, &mut answers).ok();
        self.report.out_of_order = order(&answers, answer.took);
    }

    /// A second connection, which may take up the session of the first.
    fn resume(&mut self, root: &Question, deadline: Instant) -> Resumption {
        let begin = Instant::now();
        let mut conversation = match connect(self.report.spec.address, self.source, deadline)
            .and_then(|tcp| Ok(Conversation::new(tcp, self.connector.start(begin)?)))
        {
            Ok(conversation) => conversation,
            Err(failure) => return Resumption::Failed(failure),
        };
        let done = conversation
            .shake_hands(deadline)
            .and_then(|()| self.ask(&mut conversation, root, deadline));
        let took = begin.elapsed();
        let is_resumed = conversation.tls.handshake().is_some_and(|handshake| handshake.resumed);
        let offers_session = conversation.tls.offers_session();
        conversation.close();
        match done {
            Err(failure) => Resumption::Failed(failure),
            Ok(_) if is_resumed => Resumption::Resumed(took),
            Ok(_) if offers_session => Resumption::Refused,
            Ok(_) => Resumption::NoTicket,
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

/// For all that is only good to know.
const EXTRA_TIME_MAX: Duration = Duration::from_secs(5);

/// For the part of it that waits for others.
const ORDER_TIME_MAX: Duration = Duration::from_secs(2);

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
