//! The `madang` command: one subcommand a file.
//!
//! | | |
//! |---|---|
//! | `demo` | server and clients together, with live figures |
//! | `keygen` | a key for a WAN server |
//! | `serve` | an echo server, with the settings of a file |
//! | `dummy` | many simple clients that judge an echo server |
//! | `load` | as much traffic as an echo server takes, and its latencies |
//! | `edge` | what a WAN server must stand, one scenario a time, with a verdict |
//! | `sim` | whole servers in the simulated world, from seeds |

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "the command is a program beside the engine: it may read clocks and start threads as it likes"
)]

mod child;
mod demo;
mod driver;
mod dummy;
mod edge;
mod framing;
mod keygen;
mod load;
mod log;
mod process;
mod serve;
mod signals;
mod sim;
mod wan;

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
    /// See it run: an echo server and thousands of clients on this machine, with live figures and a summary
    Demo(demo::Options),
    /// Make the key of a WAN server, and print the public half, which its clients pin
    Keygen(keygen::Options),
    /// Run an echo server until Ctrl-C; the exit code says whether the stop left anything behind
    Serve(serve::Options),
    /// Play simple blocking clients against an echo server; the exit code says whether every echo was right
    Dummy(dummy::Options),
    /// Load an echo server as hard as it goes, or at an even pace, and measure its latencies
    Load(load::Options),
    /// See what a WAN server stands: strangers, floods, storms, clients that do not read; the exit code is the verdict
    Edge(edge::Options),
    /// Run whole servers in the simulated world, from seeds: thousands, or one again
    Sim(sim::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Keygen(options) => keygen::run(&options),
        Command::Serve(options) => serve::run(&options),
        Command::Dummy(options) => dummy::run(&options),
        Command::Load(options) => load::run(&options),
        Command::Edge(options) => edge::run(&options),
        Command::Sim(options) => sim::run(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(COULD_NOT_RUN)
    })
}
