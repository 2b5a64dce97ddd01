#![no_main]

#[path = "../../crates/madang-wire/tests/fuzz/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::handshake_responder(data));
