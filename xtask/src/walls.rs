//! The walls, one function each.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::files;

type Check = fn(&Path, &mut Vec<String>) -> Result<()>;

/// All of them.
pub(crate) const ALL: &[Check] =
    &[edges, no_unsafe, no_systems, no_locks, no_platforms, wire_lints, no_leftovers, twins];

/// Never 1 and 2: which crate may name which.
fn edges(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    const ALLOWED: &[(&str, &[&str])] = &[
        ("madang-packet", &[]),
        ("madang-wire", &[]),
        ("madang-driver", &["madang-packet"]),
        ("madang", &["madang-packet", "madang-wire", "madang-driver"]),
        ("madang-cli", &["madang", "madang-driver", "madang-packet", "madang-wire"]),
    ];
    for (name, allowed) in ALLOWED {
        let path = root.join("crates").join(name).join("Cargo.toml");
        let manifest =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let normal = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for line in normal.lines().filter(|line| line.starts_with("madang")) {
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            // The manifest's own tables and features may begin with the same letters.
            if dependency != *name && !allowed.contains(&dependency) {
                faults.push(format!("never 1, 2: {name} depends on {dependency}"));
            }
        }
    }
    Ok(())
}

/// Never 4: `unsafe` in the packet and driver crates alone.
fn no_unsafe(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    for name in ["madang-wire/src/lib.rs", "madang/src/lib.rs", "madang-cli/src/main.rs"] {
        let text = fs::read_to_string(root.join("crates").join(name))?;
        if !text.contains("#![forbid(unsafe_code)]") {
            faults.push(format!("never 4: crates/{name} does not forbid unsafe code"));
        }
    }
    Ok(())
}

/// Never 1 and 8: the wire and the engine name no socket, clock, thread or randomness of the system. (Clippy's disallowed
/// methods see calls; this sees names.) The engine starts threads in two files, and says so here.
fn no_systems(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let wire = [
        "std::net::Tcp",
        "std::net::Udp",
        "std::time",
        "std::thread",
        "std::fs",
        "madang_packet",
        "SessionId",
    ];
    let engine =
        ["std::net::Tcp", "std::net::Udp", "Instant::now", "thread::sleep", "std::collections::HashMap"];
    // The face of starting and stopping lies beside the driver, like the threads themselves.
    let seams: &[&str] = &["engine.rs", "offload.rs", "server.rs", "client.rs"];
    names(root, "madang-wire", &wire, &[], "never 1", faults)?;
    names(root, "madang", &engine, &[], "never 8", faults)?;
    names(root, "madang", &["std::thread"], seams, "never 8", faults)?;
    names(root, "madang-driver", &["SessionId", "Handler", "madang_wire"], &[], "never 2", faults)
}

/// Never 12: no lock on the data path. The three that exist are named here: a client's list of links, and the book of IP
/// rules, which only their faces take, and the bell of the offload threads, which is theirs.
fn no_locks(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let locks = ["Mutex", "RwLock", "Condvar", "SpinLock"];
    names(
        root,
        "madang",
        &locks,
        &["client.rs", "offload.rs", "gate/book.rs", "simulation"],
        "never 12",
        faults,
    )?;
    names(root, "madang-packet", &locks, &[], "never 12", faults)?;
    names(root, "madang-driver", &locks, &["sim"], "never 12", faults)
}

/// Never 11: what differs between systems is the driver's.
fn no_platforms(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let systems = ["cfg(target_os", "cfg(unix", "cfg(windows", "cfg(target_family"];
    for name in ["madang-packet", "madang-wire", "madang"] {
        names(root, name, &systems, &[], "never 11", faults)?;
    }
    Ok(())
}

/// Never 10: the crate that reads strangers' bytes cannot panic by the usual ways.
fn wire_lints(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root.join("crates/madang-wire/src/lib.rs"))?;
    for lint in ["unwrap_used", "expect_used", "panic", "indexing_slicing", "arithmetic_side_effects"] {
        if !text.contains(&format!("clippy::{lint}")) {
            faults.push(format!("never 10: madang-wire does not deny clippy::{lint}"));
        }
    }
    Ok(())
}

/// Nothing unfinished, no test that is skipped.
fn no_leftovers(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("FIX", "ME"),
        concat!("#[ign", "ore"),
    ];
    for folder in ["crates", "xtask", "bench"] {
        for (path, text) in files(&root.join(folder), ".rs")? {
            for (number, line) in text.lines().enumerate() {
                // A test that needs a process of its own is started by another test, and says by which.
                if line.contains(" start") {
                    continue;
                }
                if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
                    faults.push(format!("left over: {}:{}: {mark}", path.display(), number + 1));
                }
            }
        }
    }
    Ok(())
}

/// The Korean README keeps step with the English one: the same headings, code blocks and tables.
fn twins(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let shape = |name: &str| -> Result<Vec<String>> {
        let text = fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {name}"))?;
        let mut in_code = false;
        Ok(text
            .lines()
            .filter_map(|line| {
                if line.starts_with("```") {
                    in_code = !in_code;
                    return Some(line.to_owned());
                }
                if in_code {
                    return (!line.contains('#') && !line.contains("//")).then(|| line.to_owned());
                }
                let level = line.bytes().take_while(|byte| *byte == b'#').count();
                (level > 0).then(|| "#".repeat(level))
            })
            .collect())
    };
    let (english, korean) = (shape("README.md")?, shape("README.ko.md")?);
    if english != korean {
        let at =
            english.iter().zip(&korean).position(|(a, b)| a != b).unwrap_or(english.len().min(korean.len()));
        let line = english.get(at).or(korean.get(at)).cloned().unwrap_or_default();
        faults.push(format!("README.md and README.ko.md differ in headings or code, first at `{line}`"));
    }
    Ok(())
}

/// Looks for words in the sources of a crate (tests apart), outside comments, and outside the files named.
fn names(
    root: &Path,
    name: &str,
    words: &[&str],
    except: &[&str],
    wall: &str,
    faults: &mut Vec<String>,
) -> Result<()> {
    let sources = root.join("crates").join(name).join("src");
    for (path, text) in files(&sources, ".rs")? {
        let inside = path.strip_prefix(&sources)?.to_string_lossy().into_owned();
        let is_test = inside.ends_with("tests.rs") || inside.contains("tests/");
        if is_test || except.iter().any(|file| inside == *file || inside.starts_with(&format!("{file}/"))) {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                faults.push(format!("{wall}: crates/{name}/src/{inside}:{}: {word}", number + 1));
            }
        }
    }
    Ok(())
}
