//! Measures the servers side by side; see `madang_bench::runner`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use madang_bench::host;
use madang_bench::load::Span;
use madang_bench::runner::judge::Limits;
use madang_bench::runner::measure::Method;
use madang_bench::runner::plan::{self, Profile, Scenario};
use madang_bench::runner::process::Stage;
use madang_bench::runner::record::{Head, Record, Row};
use madang_bench::runner::report::Report;

#[derive(Parser)]
#[command(about = "Measures the servers side by side and judges the limits")]
struct Args {
    #[arg(long, value_enum, default_value = "quick")]
    profile: Profile,
    /// Only the loads whose name contains one of these (`echo-1000x32`, `idle`).
    #[arg(long)]
    only: Vec<String>,
    /// Rounds of every load, instead of the profile's.
    #[arg(long)]
    rounds: Option<usize>,
    /// Keep the windows in this file (JSON lines). What it holds already counts, so that a measurement that was stopped
    /// goes on where it was; do not mix commits in one.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Stop after about so many seconds; with a record, run again to go on.
    #[arg(long)]
    seconds: Option<u64>,
    /// Print the record's report and measure nothing.
    #[arg(long)]
    report_only: bool,
    /// Also write the report as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The limits; by default those of the checkout this was built from.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/limits.toml"), hide_default_value = true)]
    limits: PathBuf,
    /// A round counts if nobody waited for a CPU for more than this share of a window.
    #[arg(long, default_value_t = 0.05)]
    noise: f64,
    #[arg(long, default_value_t = 200)]
    warm_up_ms: u64,
    #[arg(long, default_value_t = 450)]
    window_ms: u64,
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Use the programs that lie beside this one as they are.
    #[arg(long)]
    no_build: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let limits = Limits::read(&args.limits)?;
    let scenarios = args.scenarios();
    let mut record = args.record.as_deref().map_or_else(|| Ok(Record::default()), Record::open)?;
    if !args.report_only {
        if !args.no_build {
            Stage::build(&[])?;
        }
        record.add(Row::Head(head()))?;
        args.method()?.measure(&scenarios, &mut record)?;
    }
    let report = Report::new(&record.rows, &scenarios, &limits, args.noise);
    print!("{}", report.markdown());
    if let Some(path) = args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(())
}

impl Args {
    fn scenarios(&self) -> Vec<Scenario> {
        let mut scenarios = plan::scenarios(self.profile);
        scenarios.retain(|scenario| {
            let name = scenario.load.name();
            self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
        });
        for scenario in &mut scenarios {
            scenario.rounds = self.rounds.unwrap_or(scenario.rounds);
        }
        scenarios
    }

    fn method(&self) -> anyhow::Result<Method> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        let program = std::env::current_exe()?;
        Ok(Method {
            stage: Stage {
                programs: program.parent().context("a program lies in a directory")?.to_owned(),
                server_cpu: self.server_cpu,
                client_cpu: self.client_cpu,
                under: Vec::new(),
            },
            span: Span {
                warm_up: Duration::from_millis(self.warm_up_ms),
                measure: Duration::from_millis(self.window_ms),
            },
            noise_max: self.noise,
            until: self.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
            interrupted,
        })
    }
}

fn head() -> Head {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let changes = output("git", &["status", "--porcelain", "--untracked-files=no"]);
    let mark = if changes.is_empty() { "" } else { "+" };
    Head {
        date: output("date", &["-u", "+%F"]),
        machine: host::machine(),
        commit: output("git", &["rev-parse", "--short=12", "HEAD"]) + mark,
        command: format!(
            "cargo run --release --manifest-path bench/Cargo.toml --bin runner -- {}",
            arguments.join(" ")
        ),
    }
}

/// What a command prints, or nothing: a missing tool must not stop a measurement.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
