//! Checks and CI helpers.
fn main() {}
