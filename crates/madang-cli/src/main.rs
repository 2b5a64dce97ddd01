//! The `madang` command: one subcommand a file.
//!
//! `madang dummy` plays many simple clients against an echo server and judges what comes back.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "the command is a program beside the engine: it may read clocks and start threads as it likes"
)]

mod dummy;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the load command comes with the engine's client; its arithmetic is here")
)]
mod load;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The exit code of a command that could not do its work, as clap uses it for wrong options. 1 is left for a verdict.
const COULD_NOT_RUN: u8 = 2;

/// Network engine for game servers: tools to run, judge and measure it.
#[derive(Parser)]
#[command(name = "madang", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play simple blocking clients against an echo server; the exit code says whether every echo was right
    Dummy(dummy::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Dummy(options) => dummy::run(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(COULD_NOT_RUN)
    })
}
