//! Children of a measurement. Each is killed by its process id when its handle goes, and by the kernel if the runner
//! itself is killed.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::contender::Contender;
use crate::host;
use crate::load::{Span, Window};

/// Where the programs lie and which CPUs they get.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Directory of the built programs.
    pub programs: PathBuf,
    /// The servers' CPU.
    pub server_cpu: usize,
    /// The load client's CPU.
    pub client_cpu: usize,
    /// A tool, with its options, that the servers run under; empty for none.
    pub under: Vec<String>,
}

impl Stage {
    /// Builds all programs beside the running one (a `cargo run --bin runner` builds the runner alone), with `more`
    /// arguments for cargo.
    ///
    /// # Errors
    /// The build fails.
    pub fn build(more: &[&str]) -> anyhow::Result<()> {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let arguments = ["build", "--release", "--bins", "--manifest-path", manifest];
        let status = Command::new(cargo).args(arguments).args(more).status()?;
        ensure!(status.success(), "the programs do not build");
        Ok(())
    }
}

/// A child that does not outlive its handle.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone and reaped afterwards.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running server.
pub struct Server {
    child: Owned,
    contender: Contender,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts a contender's server on a port of its own and waits until it listens.
    ///
    /// # Errors
    /// The program is missing or ends at once.
    pub fn start(stage: &Stage, contender: Contender, mode: &str) -> anyhow::Result<Self> {
        let (program, arguments) = contender.program();
        let program = stage.programs.join(program);
        let mut command = match stage.under.split_first() {
            None => Command::new(program),
            Some((tool, options)) => {
                let mut command = Command::new(tool);
                command.args(options).arg(program);
                command
            }
        };
        // Under a tool the port must be known beforehand, see `reached`.
        let port = if stage.under.is_empty() { 0 } else { free_port()? };
        let mut child = spawn(
            command
                .args(["--listen", &format!("127.0.0.1:{port}"), "--mode", mode])
                .args(["--cpu", &stage.server_cpu.to_string()])
                .args(arguments)
                .stdin(Stdio::null()),
        )?;
        let lines = Lines::of(child.0.stdout.take().context("the server's output is a pipe")?);
        let address = if port > 0 { reached(port) } else { announced(&lines) };
        Ok(Self { child, contender, address: address.with_context(|| contender.name())? })
    }

    /// Its process id.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.0.id()
    }
}

/// A load client with its connections open, waiting for orders.
pub struct LoadClient {
    orders: ChildStdin,
    answers: Lines,
    _child: Owned,
}

impl LoadClient {
    /// Starts one against `server` and waits until it is connected.
    ///
    /// # Errors
    /// It cannot connect; its own output says why.
    pub fn start(stage: &Stage, server: &Server, arguments: &[String]) -> anyhow::Result<Self> {
        let mut child = spawn(
            Command::new(stage.programs.join("loadgen"))
                .args(arguments)
                .args(["--control", "--server", &server.address.to_string()])
                .args(["--server-process", &server.process().to_string()])
                .args(["--framing", server.contender.framing().name()])
                .args(["--cpu", &stage.client_cpu.to_string()])
                .stdin(Stdio::piped()),
        )?;
        let orders = child.0.stdin.take().context("the client's input is a pipe")?;
        let answers = Lines::of(child.0.stdout.take().context("the client's output is a pipe")?);
        let client = Self { orders, answers, _child: child };
        match client.answer()?.as_str() {
            "ready" => Ok(client),
            other => bail!("the load client said {other:?}"),
        }
    }

    /// One window.
    ///
    /// # Errors
    /// The load failed; the client's own output says why.
    pub fn window(&mut self, span: Span) -> anyhow::Result<Window> {
        writeln!(self.orders, "window {} {}", span.warm_up.as_millis(), span.measure.as_millis())?;
        Ok(serde_json::from_str(&self.answer()?)?)
    }

    /// On every connection once what its loop has outstanding, at most `at_most` messages at a time.
    ///
    /// # Errors
    /// As [`LoadClient::window`].
    pub fn sweep(&mut self, at_most: usize) -> anyhow::Result<()> {
        writeln!(self.orders, "sweep {at_most}")?;
        ensure!(self.answer()? == "done", "the sweep did not end");
        Ok(())
    }

    fn answer(&self) -> anyhow::Result<String> {
        // The client has said on its standard error why it ended.
        self.answers.next(PATIENCE).context("the load client gave no answer")
    }
}

/// More than any window, ramp or start takes; a child that hangs must not hang the measurement.
const PATIENCE: Duration = Duration::from_secs(60);

/// The lines that a child prints, with a deadline for each, which a pipe does not have.
struct Lines(Receiver<String>);

impl Lines {
    fn of(out: ChildStdout) -> Self {
        let (sender, lines) = mpsc::channel();
        // Ends with the child, or when nobody listens any more.
        thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self(lines)
    }

    fn next(&self, patience: Duration) -> Result<String, RecvTimeoutError> {
        self.0.recv_timeout(patience)
    }
}

/// Where a server says that it listens.
fn announced(lines: &Lines) -> anyhow::Result<SocketAddr> {
    let line = lines.next(PATIENCE).context("the server does not listen")?;
    host::announced(&line).with_context(|| format!("{line:?} is not where it listens"))
}

/// A server's address, once it accepts there. Valgrind 3.19 holds its one big lock while a thread sleeps in
/// `io_uring_enter`, so that the thread that is to announce the address may never come to it.
fn reached(port: u16) -> anyhow::Result<SocketAddr> {
    const PAUSE: Duration = Duration::from_millis(100);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect_timeout(&address, PATIENCE).is_err() {
        ensure!(Instant::now() < deadline, "nobody listens at {address}");
        thread::sleep(PAUSE);
    }
    Ok(address)
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn spawn(command: &mut Command) -> anyhow::Result<Owned> {
    let child = command.stdout(Stdio::piped()).spawn();
    Ok(Owned(child.with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?))
}
