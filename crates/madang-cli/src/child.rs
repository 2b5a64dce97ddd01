//! Crowds of clients: this same program, as processes of their own.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow};

/// So much of what a crowd complains about is kept, its last: one that cannot go on says why at its end.
const COMPLAINT_LINES: usize = 4;

/// A subcommand of this program whose lines are read. It runs for a bounded time by itself; dropping it ends it.
pub(crate) struct Crowd {
    name: &'static str,
    child: Child,
    /// For its words; some listen to none.
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Of its standard error; whole once its lines have ended.
    complaint: Arc<Mutex<VecDeque<String>>>,
}

impl Crowd {
    pub(crate) fn start(name: &'static str, arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
        command.arg(name).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C at the terminal is for the demo, which passes it on.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().with_context(|| format!("cannot start `madang {name}`"))?;
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("`madang {name}` has no output"))?;
        let stderr = child.stderr.take().ok_or_else(|| anyhow!("`madang {name}` has no standard error"))?;
        let complaint = Arc::<Mutex<VecDeque<String>>>::default();
        let complained = Arc::clone(&complaint);
        let complains = std::thread::spawn(move || listen(stderr, &complained));
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
            // Its lines have ended when all of it has: who then asks why hears everything.
            let _ended = complains.join();
        });
        let stdin = child.stdin.take();
        Ok(Self { name, child, stdin, lines, complaint })
    }

    /// The next line if there is one; an error at the end of all.
    pub(crate) fn line(&self) -> Result<Option<String>, Ended> {
        match self.lines.try_recv() {
            Ok(line) => Ok(Some(line)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Ended),
        }
    }

    /// What it complained about last; once its lines have ended, why it could not go on.
    pub(crate) fn complaint(&self) -> String {
        let lines = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<_> = lines.iter().map(|line| format!("; {line}")).collect();
        format!("`madang {}`{}", self.name, lines.concat())
    }

    /// Says a word to it that it listens to.
    pub(crate) fn say(&mut self, word: &str) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().ok_or_else(|| anyhow!("`madang {}` has no input", self.name))?;
        writeln!(stdin, "{word}").with_context(|| format!("`madang {}` does not listen any more", self.name))
    }

    /// Asks it to come to its end now, in good order.
    pub(crate) fn interrupt(&mut self) {
        #[cfg(unix)]
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // A process that is gone already needs no word.
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        #[cfg(not(unix))]
        let _gone = self.child.kill();
    }

    /// Its verdict, once its lines have ended: whether all was right.
    pub(crate) fn verdict(mut self) -> anyhow::Result<bool> {
        let status = self.child.wait()?;
        match status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(anyhow!("a crowd could not do its work ({status}): {}", self.complaint())),
        }
    }
}

/// Reads to the end, and keeps the last lines.
fn listen(complaints: impl Read, kept: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(complaints).lines().map_while(Result::ok) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == COMPLAINT_LINES {
            kept.pop_front();
        }
        kept.push_back(line.trim().to_owned());
    }
}

/// A crowd closed its output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended;

impl Drop for Crowd {
    fn drop(&mut self) {
        // Both fail for a process that was waited for, and that is the usual case.
        let _gone = self.child.kill();
        let _waited = self.child.wait();
    }
}
