#![no_main]

#[path = "../bodies/mod.rs"]
#[allow(dead_code, unused_imports, reason = "each target uses one")]
mod bodies;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| bodies::frame(octets));
