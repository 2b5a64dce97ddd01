//! What was measured, one JSON line each, so that a long measurement can be made in pieces and appended.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::contender::Contender;
use super::plan::Load;
use crate::load::Window;

/// One line of a record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "row", rename_all = "lowercase")]
pub enum Row {
    /// Starts a piece; the rows below it were measured like this.
    Head(Head),
    /// One window of one server.
    Window(WindowRow),
    /// One reading of idle memory.
    Idle(IdleRow),
}

/// On what, from what and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Day of the measurement.
    pub date: String,
    /// Processor and kernel.
    pub machine: String,
    /// Commit of the checkout, with a `+` when it had changes.
    pub commit: String,
    /// What was typed.
    pub command: String,
}

/// A window and where it belongs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WindowRow {
    /// What was done.
    pub load: Load,
    /// Windows of the same round are compared. Unique for a load within a record.
    pub round: usize,
    /// To whom.
    pub contender: Contender,
    /// What it gave.
    pub window: Window,
}

/// Resident memory with one session and with many.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IdleRow {
    /// What was done.
    pub load: Load,
    /// Whose memory.
    pub contender: Contender,
    /// Bytes with one session, after its receive memory has been used up once.
    pub one_bytes: u64,
    /// Bytes with all of them.
    pub many_bytes: u64,
    /// How many more than one.
    pub sessions: usize,
}

impl IdleRow {
    /// Bytes that one more idle session costs.
    #[must_use]
    pub fn bytes_per_session(&self) -> f64 {
        self.many_bytes.saturating_sub(self.one_bytes) as f64 / self.sessions as f64
    }
}

/// Rows, on disk or only in memory.
#[derive(Default)]
pub struct Record {
    file: Option<File>,
    /// Everything in it.
    pub rows: Vec<Row>,
}

impl Record {
    /// Opens a record to read and append, or starts one.
    ///
    /// # Errors
    /// The file cannot be opened, or a line of it is no row.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open the record {}", path.display()))?;
        let mut rows = Vec::new();
        for (number, line) in BufReader::new(&file).lines().enumerate() {
            let row = serde_json::from_str(&line?);
            rows.push(row.with_context(|| format!("{}, line {}", path.display(), number + 1))?);
        }
        Ok(Self { file: Some(file), rows })
    }

    /// Adds a row, to the file at once.
    ///
    /// # Errors
    /// The disk is full.
    pub fn add(&mut self, row: Row) -> anyhow::Result<()> {
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", serde_json::to_string(&row)?)?;
        }
        self.rows.push(row);
        Ok(())
    }
}

/// The windows of one round.
pub type Round = BTreeMap<Contender, Window>;

/// The rounds of a load, in order.
#[must_use]
pub fn rounds(rows: &[Row], load: Load) -> BTreeMap<usize, Round> {
    let mut rounds = BTreeMap::<usize, Round>::new();
    for row in rows {
        if let Row::Window(row) = row {
            if row.load == load {
                rounds.entry(row.round).or_default().insert(row.contender, row.window.clone());
            }
        }
    }
    rounds
}
