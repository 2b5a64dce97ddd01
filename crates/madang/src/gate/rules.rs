//! Who may come in, by address: the face for every thread.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::book::RuleBook;
use super::prefix::Prefix;

/// The IP rules of a server, for any thread: bans, temporary blocks, exemptions, the allow-list, and the smallest app
/// version that is admitted. What is changed here holds from the next accept on; sessions that are here already stay
/// (disconnect them). The rules outlive a stop: a server that is started again has them still.
///
/// What they come to, for one address:
///
/// | | |
/// |---|---|
/// | banned | by a ban, unless an exemption is narrower than it |
/// | not listed | while only listed addresses may enter, and no [`Allow`](RuleKind::Allow) covers it |
/// | blocked | by a block that has not ended, unless any exemption covers it |
/// | exempt | enters past the limits of its prefix and past patch control |
///
/// Each change makes the table anew and swaps it whole; no shard waits for it or is stopped. The thread that changes or
/// lists them takes a lock of their own, held for as long as the copy of a table takes: less than a millisecond with
/// `rules_max` rules, and never while a file is read or written. A client has rules too, and nobody who asks them.
#[derive(Clone)]
pub struct Rules {
    pub(crate) book: Arc<RuleBook>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RuleKind {
    /// Turned away until it is taken back.
    Ban,
    /// Turned away until its end.
    Block,
    /// Never blocked, never limited, of any app version. Banned only by a ban that is at least as narrow.
    Exempt,
    /// Enters while only listed addresses may.
    Allow,
}

/// A rule, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Whom it is about.
    pub prefix: Prefix,
    /// What it does.
    pub kind: RuleKind,
    /// How long a block lasts yet; `None` for the other kinds.
    pub remaining: Option<Duration>,
    /// Peers that it turned away.
    pub turned_away: u64,
}

/// All rules at once: what a file holds, and what is swapped in one step.
///
/// ```
/// let rules = madang::RuleSet::from_toml(
///     "allow_only = false
///      app_version_min = 12
///      [[rule]]
///      prefix = '203.0.113.0/24'
///      kind = 'ban'",
/// )?;
/// assert_eq!(rules.rule.len(), 1);
/// # Ok::<(), madang::RuleError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RuleSet {
    /// Only addresses with an `allow` may enter.
    pub allow_only: bool,
    /// Peers whose greeting tells a smaller app version are refused, and told so. The larger of this and the setting of the
    /// same name counts.
    pub app_version_min: u32,
    /// The rules.
    pub rule: Vec<RuleLine>,
}

/// A rule, as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleLine {
    /// Whom it is about.
    pub prefix: Prefix,
    /// What it does.
    pub kind: RuleKind,
    /// When a block ends, in seconds since the Unix epoch; other kinds have no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<u64>,
}

/// Why a rule could not be made, read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// No address, and no prefix of one.
    #[error("`{0}` is no address and no prefix: write 203.0.113.9, 203.0.113.0/24 or 2001:db8::/32")]
    NoPrefix(String),
    /// The table is full of rules that last longer. Raise `rules_max`, or use wider prefixes.
    #[error(
        "the table of IP rules is full: {0} rules, none of which can be merged or ends sooner; raise `rules_max`"
    )]
    Full(usize),
    /// The prefix is exempt, so that blocking it would do nothing.
    #[error("{0} is exempt from blocks")]
    Exempt(Prefix),
    /// A file of rules cannot be used; the rules that held before hold on.
    #[error("IP rules of {file}: {problem}")]
    File {
        /// Which.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Rules {
    /// Turns a prefix away for so long, in place of a firewall that takes over later. A second block of the same prefix
    /// lasts as long as the longer of the two.
    ///
    /// # Errors
    /// [`RuleError::Exempt`] when it would have no effect; [`RuleError::Full`].
    pub fn block(&self, prefix: impl Into<Prefix>, lasts: Duration) -> Result<(), RuleError> {
        self.book.block(prefix.into(), lasts)
    }

    /// Blocks a prefix that misbehaved, for `first` the first time, and twice as long as the last time whenever it comes
    /// again before as much time has passed after the block as the block lasted; never longer than a day. What automation
    /// should use: a mistake about an address that many share ends by itself, soon. Answers how long this one lasts.
    ///
    /// # Errors
    /// As [`block`](Rules::block).
    pub fn strike(&self, prefix: impl Into<Prefix>, first: Duration) -> Result<Duration, RuleError> {
        self.book.strike(prefix.into(), first)
    }

    /// Turns a prefix away until [`pardon`](Rules::pardon).
    ///
    /// # Errors
    /// [`RuleError::Full`].
    pub fn ban(&self, prefix: impl Into<Prefix>) -> Result<(), RuleError> {
        self.book.add(prefix.into(), RuleKind::Ban)
    }

    /// Takes bans and blocks of exactly this prefix back. Whether there were any: rules that were merged for want of room are
    /// listed, and taken back, as one.
    pub fn pardon(&self, prefix: impl Into<Prefix>) -> bool {
        self.book.remove(prefix.into(), &[RuleKind::Ban, RuleKind::Block])
    }

    /// Exempts a prefix from blocks, limits and patch control: an address that a whole PC bang shares, the company's own.
    ///
    /// # Errors
    /// [`RuleError::Full`].
    pub fn exempt(&self, prefix: impl Into<Prefix>) -> Result<(), RuleError> {
        self.book.add(prefix.into(), RuleKind::Exempt)
    }

    /// Takes an exemption back; whether there was one.
    pub fn unexempt(&self, prefix: impl Into<Prefix>) -> bool {
        self.book.remove(prefix.into(), &[RuleKind::Exempt])
    }

    /// From now on only these may enter, as after a patch that the company tries first. In one step: nobody slips through.
    ///
    /// # Errors
    /// [`RuleError::Full`]; then nothing has changed.
    pub fn allow_only<P: Into<Prefix>>(
        &self,
        prefixes: impl IntoIterator<Item = P>,
    ) -> Result<(), RuleError> {
        let prefixes: Vec<Prefix> = prefixes.into_iter().map(Into::into).collect();
        self.book.allow_only(&prefixes)
    }

    /// Opens the server to all again, and forgets the list.
    pub fn allow_all(&self) {
        self.book.allow_all();
    }

    /// The smallest app version that is admitted from now on; older clients are refused at their greeting, and told why.
    /// Exempt addresses are admitted with any. The larger of this and the setting of the same name counts.
    pub fn set_app_version_min(&self, version: u32) {
        self.book.set_app_version_min(version);
    }

    /// The rules that hold now, with what they did. In the order of their prefixes.
    pub fn list(&self) -> Vec<Rule> {
        self.book.list()
    }

    /// The rules that hold now, as a file would hold them.
    pub fn get(&self) -> RuleSet {
        self.book.get()
    }

    /// Swaps all rules, in one step. Their counts begin anew.
    ///
    /// # Errors
    /// [`RuleError::Full`]; then the rules are those of before.
    pub fn set(&self, rules: &RuleSet) -> Result<(), RuleError> {
        self.book.set(rules)
    }

    /// Writes the rules to a file, whole or not at all: another file beside it first, which then takes its name.
    ///
    /// # Errors
    /// [`RuleError::File`] says what the system said.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), RuleError> {
        self.get().save(path.as_ref())
    }

    /// Swaps all rules for those of a file. Blocks that ended meanwhile are passed over.
    ///
    /// # Errors
    /// [`RuleError::File`], [`RuleError::Full`]; then the rules are those of before.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<(), RuleError> {
        self.set(&RuleSet::from_file(path.as_ref())?)
    }
}

impl RuleSet {
    /// Reads rules from TOML text.
    ///
    /// # Errors
    /// [`RuleError::File`] says in which line what is wrong.
    pub fn from_toml(text: &str) -> Result<RuleSet, RuleError> {
        RuleSet::read(text, "a text")
    }

    /// Reads rules from a file.
    ///
    /// # Errors
    /// [`RuleError::File`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<RuleSet, RuleError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|error| file_error(path, format!("cannot be read: {error}")))?;
        RuleSet::read(&text, &path.display().to_string())
    }

    fn read(text: &str, file: &str) -> Result<RuleSet, RuleError> {
        let wrong = |problem: String| RuleError::File { file: file.to_owned(), problem };
        let set: RuleSet = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        for line in &set.rule {
            if line.ends.is_some() != (line.kind == RuleKind::Block) {
                return Err(wrong(format!("{}: a block has `ends`, the other kinds have none", line.prefix)));
            }
        }
        Ok(set)
    }

    /// As TOML text.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("numbers, flags and short texts can be written")
    }

    fn save(&self, path: &Path) -> Result<(), RuleError> {
        use std::io::Write;
        let cannot = |error: std::io::Error| file_error(path, format!("cannot be written: {error}"));
        // Beside it, because a name can only be taken over within a file system; of this process, because another may be
        // saving too.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.new", std::process::id()));
        let written = std::fs::File::create(&beside).and_then(|mut file| {
            file.write_all(self.to_toml().as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, path)
        });
        written.map_err(|error| {
            let _ = std::fs::remove_file(&beside);
            cannot(error)
        })
    }
}

fn file_error(path: &Path, problem: String) -> RuleError {
    RuleError::File { file: path.display().to_string(), problem }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rules")
    }
}
