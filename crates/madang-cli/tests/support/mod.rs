//! The command, as a user runs it.

use std::process::{Command, Output, Stdio};

/// The command, with its output in our hands.
pub(super) fn madang(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_madang"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub(super) fn output(arguments: &[&str]) -> Output {
    madang(arguments).output().expect("the binary that was just built")
}

/// All that it said.
pub(super) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
