//! Counts what each server itself executes for a message: user-space instructions, under callgrind.
//!
//! CPU time per message is mostly the kernel's and moves with the machine; this figure is the server's own and hardly
//! moves at all. It is taken as the difference of two callgrind dumps of one running server, between which an exact number
//! of messages was echoed; so start-up, connecting and warming up do not count.
//!
//! Needs `valgrind` (3.19 knows io_uring well enough) and the right to trace one's own children. The servers are built
//! apart for it, with rustix on libc: by itself rustix looks for the vDSO, which valgrind hides, and crashes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use madang_bench::runner::contender::Contender;
use madang_bench::runner::plan::Load;
use madang_bench::runner::process::{LoadClient, Server, Stage};

#[derive(Parser)]
#[command(about = "Counts each server's own instructions per message")]
struct Args {
    #[arg(long, default_value_t = 32)]
    size: usize,
    #[arg(long, default_value_t = 200)]
    connections: usize,
    /// Sweeps to count; each is one turn of all connections.
    #[arg(long, default_value_t = 50)]
    sweeps: u32,
    /// Use the programs of the last time as they are.
    #[arg(long)]
    no_build: bool,
    /// Keep callgrind's dumps beside the programs, for `callgrind_annotate`: the second of each pair is the measured part.
    #[arg(long)]
    keep: bool,
}

const CONTENDERS: [Contender; 5] = [
    Contender::Floor,
    Contender::MadangUring,
    Contender::MadangReadiness,
    Contender::TokioTuned,
    Contender::TokioCodec,
];

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).context("a program lies in a target directory")?;
    let target = target.join("valgrind");
    if !args.no_build {
        // Of what rustc links by default (lld), valgrind 3.19 reads no symbols.
        let rustflags = r#"build.rustflags=["--cfg=rustix_use_libc", "-Clinker-features=-lld"]"#;
        Stage::build(&["--config", rustflags, "--target-dir", &target.to_string_lossy()])?;
    }
    let programs = target.join("release");
    println!("| server | one outstanding | sixteen outstanding |\n|---|--:|--:|");
    for contender in CONTENDERS {
        if contender.is_built(&programs) {
            let [one, sixteen] = [1, 16].map(|depth| per_message(&args, &programs, contender, depth));
            println!("| {} | {:.0} | {:.0} |", contender.name(), one?, sixteen?);
        }
    }
    Ok(())
}

/// Instructions per message of one server in one load.
fn per_message(args: &Args, programs: &Path, contender: Contender, depth: u32) -> anyhow::Result<f64> {
    /// Fills pools and caches and lets every branch be seen.
    const WARM_UP_SWEEPS: u32 = 5;

    let dumps = Dumps::new(programs, contender, depth, args.keep)?;
    let stage = Stage { programs: programs.to_owned(), server_cpu: 0, client_cpu: 1, under: dumps.tool() };
    let load = Load::Echo { connections: args.connections, size: args.size, depth };
    let server = Server::start(&stage, contender, load.mode())?;
    let mut client = LoadClient::start(&stage, &server, &load.arguments())?;
    let mut sweep = |times: u32| (0..times).try_for_each(|_| client.sweep(usize::MAX));
    sweep(WARM_UP_SWEEPS)?;
    dumps.take(&server, 1)?;
    sweep(args.sweeps)?;
    let instructions = dumps.take(&server, 2)?;
    let messages = u64::from(args.sweeps) * u64::from(depth) * args.connections as u64;
    Ok(instructions as f64 / messages as f64)
}

/// The files that callgrind writes for one server; removed at the end, unless they are to be kept.
struct Dumps {
    directory: PathBuf,
    keep: bool,
}

impl Dumps {
    fn new(programs: &Path, contender: Contender, depth: u32, keep: bool) -> anyhow::Result<Self> {
        let directory = programs.join(format!("callgrind-{}-{depth}", contender.name()));
        // Left over from a run that was stopped.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        Ok(Self { directory, keep })
    }

    fn file(&self) -> PathBuf {
        self.directory.join("out")
    }

    fn tool(&self) -> Vec<String> {
        let out = format!("--callgrind-out-file={}", self.file().display());
        ["valgrind", "--quiet", "--tool=callgrind", &out].map(str::to_owned).to_vec()
    }

    /// Has callgrind write dump `number`, and returns the instructions since the one before.
    fn take(&self, server: &Server, number: u32) -> anyhow::Result<u64> {
        const PATIENCE: Duration = Duration::from_secs(10);

        let process = server.process().to_string();
        let answer = Command::new("callgrind_control").args(["--dump", &process]).output();
        let answer = answer.context("callgrind_control comes with valgrind")?;
        ensure!(answer.status.success(), "no dump: {}", String::from_utf8_lossy(&answer.stderr));
        let path = self.file().with_extension(number.to_string());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&path).unwrap_or_default();
            if let Some(total) = text.lines().find_map(|line| line.strip_prefix("totals: ")) {
                return Ok(total.trim().parse()?);
            }
            ensure!(Instant::now() < deadline, "callgrind wrote no {}", path.display());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Dumps {
    fn drop(&mut self) {
        // Only tidiness: the directory lies among the built programs.
        if !self.keep {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
