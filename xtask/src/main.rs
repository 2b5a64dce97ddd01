//! Checks that keep the walls of the house. `cargo xtask tidy` runs those that only read; `cargo xtask api` asks the
//! compiler. Each failure says which wall (the numbers are those of ARCHITECTURE.md, "Never"), where, and why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

mod walls;

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy(),
        Some("api") => api(),
        _ => Err(anyhow::anyhow!("usage: cargo xtask tidy | api")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Every reading check, all failures at once.
fn tidy() -> Result<()> {
    let root = root();
    let mut faults = Vec::new();
    for check in walls::ALL {
        check(&root, &mut faults)?;
    }
    if !faults.is_empty() {
        bail!("{}\n{} faults", faults.join("\n"), faults.len());
    }
    println!("tidy: {} checks hold", walls::ALL.len());
    Ok(())
}

/// Never 3: the handler-facing API shows no type of the driver. The compiler is asked to treat dependencies as private,
/// which is an unstable switch, hence the bootstrap variable; it reports each private type in a public interface.
fn api() -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .env("RUSTC_BOOTSTRAP", "1")
        .args([
            "check",
            "-q",
            "-p",
            "madang",
            "-Zpublic-dependency",
            "--target-dir",
            "target/api",
            "--config",
        ])
        .arg("build.rustflags=['-Wexported_private_dependencies']")
        .output()
        .context("cannot run cargo")?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("the API check did not compile:\n{text}");
    }
    // The lint must be alive: the packet crate is re-exported on purpose, so it is always reported.
    if !text.contains("madang_packet") {
        bail!("the API check saw nothing, not even madang-packet: does the switch still work?\n{text}");
    }
    let shown: Vec<&str> = text.lines().filter(|line| line.contains("madang_driver")).collect();
    if !shown.is_empty() {
        bail!("never 3: the handler-facing API shows driver types:\n{}", shown.join("\n"));
    }
    println!("api: no driver type shows");
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// Every file below `folder` whose name ends in `end`, with its text, in a steady order.
fn files(folder: &Path, end: &str) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                if !path.file_name().is_some_and(|name| name == "target" || name == ".git") {
                    folders.push(path);
                }
            } else if path.to_string_lossy().ends_with(end) {
                let text =
                    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                found.push((path, text));
            }
        }
    }
    found.sort();
    Ok(found)
}
