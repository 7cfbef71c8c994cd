#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| simulator::fuzz::share(octets));
