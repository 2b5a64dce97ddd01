#![no_main]

#[path = "../../crates/madang-wire/tests/fuzz/bodies.rs"]
#[allow(dead_code, reason = "the other targets' bodies lie there too")]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::lan_deframer(data));
