//! A message is read, as a query and as a response, and answered here.

use dot_proxy::forwarder::PrivateAnswers;
use dot_proxy::forwarder::message::{
    self, Ede, HEADER_LEN, LocalResponse, Rcode, Refusal, ResponseCheck, Stripped,
};

/// The first two octets say how large the answer may be.
pub fn message(octets: &[u8]) {
    const UDP_SIZE: u16 = 1_232;

    let Some((limit, message)) = octets.split_first_chunk() else { return };
    let limit = usize::from(u16::from_be_bytes(*limit)).max(512);
    let mut out = Vec::new();
    match message::parse_query(message, false) {
        Ok(parsed) => {
            assert!(parsed.question_end > HEADER_LEN && parsed.question_end <= message.len());
            assert_eq!(message::id(message), Some(parsed.id));
            if let Some(opt) = parsed.opt {
                assert!(opt.offset >= parsed.question_end && opt.version == 0);
                assert!(opt.offset + opt.len <= message.len());
            }
            let ede = Ede { code: Ede::NETWORK_ERROR, text: "the upstream said nothing" };
            let keepalive = Some(100).filter(|_| limit % 2 == 1);
            let response = parsed.local_response(Rcode::SERVFAIL, Some(ede));
            let response = LocalResponse { keepalive, ..response };
            message::local_response(&mut out, message, &response, UDP_SIZE, limit);
            assert!(out.len() <= limit);
            assert_eq!(
                out[HEADER_LEN..parsed.question_end],
                message[HEADER_LEN..parsed.question_end]
            );
            // What was made here is an answer to what was asked.
            let check = message::check_response(&out, message, parsed.question_end);
            let ResponseCheck::Answer(info) = check else { panic!("{check:?}") };
            assert_eq!(info.opt.is_some(), parsed.opt.is_some());
            let told = info.opt.and_then(|opt| opt.keepalive_timeout(&out));
            assert_eq!(told, keepalive.filter(|_| parsed.opt.is_some()));
        }
        Err(Refusal::Respond(response)) => {
            message::local_response(&mut out, message, &response, UDP_SIZE, limit);
            assert!(out.len() >= HEADER_LEN && out.len() <= limit);
            assert_eq!(message::id(&out), message::id(message));
            // An answer is answered by nobody.
            assert_eq!(message::parse_query(&out, false), Err(Refusal::Drop));
        }
        Err(Refusal::Drop) => {}
    }
    // A datagram that was cut is no query to be forwarded, whatever is left of it.
    assert!(message::parse_query(message, true).is_err());
    // A response to itself, with QR set, if it has a question that can be read.
    let mut response = message.to_vec();
    let Some(flags) = response.get_mut(2) else { return };
    *flags |= 0x80;
    for question_end in [HEADER_LEN + 5, HEADER_LEN + 20] {
        let question_end = question_end.min(response.len());
        if let ResponseCheck::Answer(info) =
            message::check_response(&response, message, question_end)
        {
            assert!(info.end <= response.len());
            assert!(info.opt.is_none_or(|opt| opt.offset + opt.len <= info.end));
            let Ok(parsed) = message::parse_query(message, false) else { continue };
            let strips = |loopback, except| {
                let policy = PrivateAnswers::Strip { loopback, except, except_special: false };
                policy.strips(&response, &info, message, &parsed) != Stripped::Nothing
            };
            assert!(
                strips(true, vec![]) || !strips(false, vec![]),
                "private without loopback only"
            );
            let name = &message[HEADER_LEN..parsed.question_end - 4];
            assert!(
                strips(true, vec![]) || !strips(true, vec![name.into()]),
                "private with an exception only"
            );
        }
    }
}
