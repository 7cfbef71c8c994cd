//! Answers with private addresses (`--private-answers`), as dig shows them.

use std::process::Command;

use support::message::{A, NOERROR, record};
use support::skip::skip;
use support::{Act, Bed, answers};

#[test]
fn dig_says_why_an_answer_has_no_records() {
    if Command::new("dig").arg("-v").output().is_err() {
        return skip("dig_says_why_an_answer_has_no_records", "no dig here");
    }
    let flags = ["--private-answers", "strip", "--private-zone", "corp.example"];
    let bed = Bed::with_args(&flags, |setup| {
        setup.handler(|query| {
            let address = record(A, &[192, 168, 1, 1]);
            vec![Act::Send(answers::assemble(query.message, NOERROR, &[address], &[]))]
        })
    });
    let dig = |name: &str| {
        let address = bed.proxy.address();
        let (server, port) = (format!("@{}", address.ip()), address.port().to_string());
        let output = Command::new("dig").args([&*server, "-p", &port, name, "A"]).output();
        String::from_utf8(output.expect("dig runs").stdout).expect("its words")
    };
    let stripped = dig("rebound.example");
    for part in ["status: NOERROR", "ANSWER: 0", "EDE: 17 (Filtered)", "--private-answers"] {
        assert!(stripped.contains(part), "no {part} in {stripped}");
    }
    let passed = dig("nas.corp.example");
    assert!(passed.contains("ANSWER: 1") && passed.contains("192.168.1.1"), "{passed}");
}
