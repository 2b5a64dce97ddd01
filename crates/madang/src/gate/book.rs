//! The IP rules themselves: one book for a server's whole life, stops included.
//!
//! ```text
//!   any thread ── change ──► Book (a lock of the face) ── Table, whole ──► fresh (one place, the newest) ──► the gate
//! ```
//!
//! The gate looks whether there is a fresh table at each accept; whoever makes two before it looks replaces the first.
//! Rules have numbered places in one array of counters, so that a table is plain numbers: taking one and dropping the old
//! one cost the gate the same whatever is in them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use madang_driver::{Clock, Time};

use super::prefix::Prefix;
use super::rules::{Rule, RuleError, RuleKind, RuleLine, RuleSet};
use super::table::{Line, Slot, Table};

/// No block by strikes lasts longer: an address changes hands.
const STRIKE_MAX: Duration = Duration::from_secs(86_400);

pub(crate) struct RuleBook {
    clock: Clock,
    /// Taken by whoever changes or lists the rules. The gate never takes it.
    book: Mutex<Book>,
    fresh: ArrayQueue<Box<Table>>,
    /// Peers turned away, by the place of the rule.
    turned_away: Arc<[AtomicU64]>,
    /// Read by the shards at each greeting.
    app_version_min: AtomicU32,
}

#[derive(Clone)]
struct Book {
    rules: BTreeMap<(Prefix, RuleKind), Entry>,
    allow_only: bool,
    /// Places that no rule has.
    free: Vec<Slot>,
    turned_away: Arc<[AtomicU64]>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    slot: Slot,
    /// The end of a block; never for the others.
    until: Time,
    /// How long a block by strikes lasts; zero for the others. It is remembered for as long again after its end.
    struck: Duration,
}

impl RuleBook {
    pub(crate) fn new(clock: Clock, rules_max: usize) -> RuleBook {
        let turned_away: Arc<[AtomicU64]> = (0..rules_max).map(|_| AtomicU64::new(0)).collect();
        RuleBook {
            clock,
            book: Mutex::new(Book::empty(Arc::clone(&turned_away))),
            fresh: ArrayQueue::new(1),
            turned_away,
            app_version_min: AtomicU32::new(0),
        }
    }

    /// The newest table, if there is one that the gate has not got.
    pub(super) fn fresh(&self) -> Option<Box<Table>> {
        if self.fresh.is_empty() { None } else { self.fresh.pop() }
    }

    /// The table that holds now, for a gate that begins.
    pub(super) fn table(&self) -> Box<Table> {
        let book = self.lock();
        let _ = self.fresh.pop();
        Box::new(book.table(self.clock.now()))
    }

    /// The gate turned somebody away by the rule in this place.
    pub(super) fn count(&self, slot: Slot) {
        // Relaxed: the counter stands for itself.
        self.turned_away[slot as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn app_version_min(&self) -> u32 {
        // Relaxed: nothing else is published with it.
        self.app_version_min.load(Ordering::Relaxed)
    }

    pub(super) fn set_app_version_min(&self, version: u32) {
        self.app_version_min.store(version, Ordering::Relaxed);
    }

    pub(super) fn block(&self, prefix: Prefix, lasts: Duration) -> Result<(), RuleError> {
        let until = self.clock.now() + lasts;
        self.change(|book, now| {
            if book.is_exempt(prefix) {
                return Err(RuleError::Exempt(prefix));
            }
            let longer = book.rules.get(&(prefix, RuleKind::Block)).filter(|block| block.until >= until);
            match longer {
                Some(_) => Ok(()),
                None => book.put(prefix, RuleKind::Block, until, Duration::ZERO, now),
            }
        })
    }

    pub(super) fn strike(&self, prefix: Prefix, first: Duration) -> Result<Duration, RuleError> {
        self.change(|book, now| {
            if book.is_exempt(prefix) {
                return Err(RuleError::Exempt(prefix));
            }
            let last = book.rules.get(&(prefix, RuleKind::Block)).filter(|last| last.is_remembered(now));
            let (struck, until) = last.map_or((Duration::ZERO, now), |last| (last.struck, last.until));
            let lasts = if struck.is_zero() { first } else { struck * 2 }.min(STRIKE_MAX);
            book.put(prefix, RuleKind::Block, until.max(now + lasts), lasts, now)?;
            Ok(lasts)
        })
    }

    pub(super) fn add(&self, prefix: Prefix, kind: RuleKind) -> Result<(), RuleError> {
        self.change(|book, now| book.put(prefix, kind, Time::MAX, Duration::ZERO, now))
    }

    pub(super) fn remove(&self, prefix: Prefix, kinds: &[RuleKind]) -> bool {
        self.change(|book, now| {
            let removed =
                kinds.iter().filter_map(|kind| book.take(prefix, *kind)).filter(|rule| rule.until > now);
            removed.count() > 0
        })
    }

    pub(super) fn allow_only(&self, prefixes: &[Prefix]) -> Result<(), RuleError> {
        self.change(|book, now| {
            let mut listed = book.clone();
            listed.forget_list();
            for prefix in prefixes {
                listed.put(*prefix, RuleKind::Allow, Time::MAX, Duration::ZERO, now)?;
            }
            listed.allow_only = true;
            *book = listed;
            Ok(())
        })
    }

    pub(super) fn allow_all(&self) {
        self.change(|book, _| {
            book.forget_list();
            book.allow_only = false;
        });
    }

    pub(super) fn list(&self) -> Vec<Rule> {
        let (book, now) = (self.lock(), self.clock.now());
        let rules = book.rules.iter().filter(|(_, entry)| entry.until > now);
        rules
            .map(|((prefix, kind), entry)| Rule {
                prefix: *prefix,
                kind: *kind,
                remaining: (*kind == RuleKind::Block).then(|| entry.until.since(now)),
                turned_away: self.turned_away[entry.slot as usize].load(Ordering::Relaxed),
            })
            .collect()
    }

    pub(super) fn get(&self) -> RuleSet {
        let (book, now, wall) = (self.lock(), self.clock.now(), self.clock.wall());
        let rules = book.rules.iter().filter(|(_, entry)| entry.until > now);
        let line = |((prefix, kind), entry): (&(Prefix, RuleKind), &Entry)| {
            // The second in which it has ended for sure: a block is not cut short by a save and a load.
            let ends = (wall + entry.until.since(now)).as_secs().saturating_add(1);
            RuleLine { prefix: *prefix, kind: *kind, ends: (*kind == RuleKind::Block).then_some(ends) }
        };
        RuleSet {
            allow_only: book.allow_only,
            app_version_min: self.app_version_min(),
            rule: rules.map(line).collect(),
        }
    }

    pub(super) fn set(&self, set: &RuleSet) -> Result<(), RuleError> {
        let wall = self.clock.wall();
        self.change(|book, now| {
            let mut fresh = Book::empty(Arc::clone(&self.turned_away));
            for line in &set.rule {
                let until = match line.ends {
                    None => Time::MAX,
                    Some(ends) => now + Duration::from_secs(ends).saturating_sub(wall),
                };
                if until > now {
                    fresh.put(line.prefix, line.kind, until, Duration::ZERO, now)?;
                }
            }
            fresh.allow_only = set.allow_only;
            self.set_app_version_min(set.app_version_min);
            *book = fresh;
            Ok(())
        })
    }

    /// Changes the book, and hands the gate what it comes to.
    fn change<R>(&self, change: impl FnOnce(&mut Book, Time) -> R) -> R {
        let mut book = self.lock();
        let now = self.clock.now();
        let result = change(&mut book, now);
        // Whatever the gate has not taken is older than this.
        drop(self.fresh.force_push(Box::new(book.table(now))));
        result
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nothing panics under this lock")
    }
}

impl Entry {
    fn is_remembered(&self, now: Time) -> bool {
        now < self.until + self.struck
    }
}

impl Book {
    fn empty(turned_away: Arc<[AtomicU64]>) -> Book {
        let free = (0..turned_away.len() as Slot).rev().collect();
        Book { rules: BTreeMap::new(), allow_only: false, free, turned_away }
    }

    fn table(&self, now: Time) -> Table {
        let lines =
            self.rules.iter().filter(|(_, entry)| entry.until > now).map(|((prefix, kind), entry)| Line {
                prefix: *prefix,
                kind: *kind,
                until: entry.until,
                slot: entry.slot,
            });
        Table::new(lines, self.allow_only)
    }

    /// Whether an exemption covers all of a prefix.
    fn is_exempt(&self, prefix: Prefix) -> bool {
        let mut around = Some(prefix);
        while let Some(prefix) = around {
            if self.rules.contains_key(&(prefix, RuleKind::Exempt)) {
                return true;
            }
            around = prefix.parent().map(|(parent, _)| parent);
        }
        false
    }

    /// Adds a rule or changes the one that there is. Makes room if it must and can.
    fn put(
        &mut self,
        prefix: Prefix,
        kind: RuleKind,
        until: Time,
        struck: Duration,
        now: Time,
    ) -> Result<(), RuleError> {
        if let Some(entry) = self.rules.get_mut(&(prefix, kind)) {
            (entry.until, entry.struck) = (until, struck);
            return Ok(());
        }
        if self.free.is_empty() {
            self.make_room(until, now)?;
        }
        self.insert(prefix, kind, until, struck);
        Ok(())
    }

    /// Adds a rule that is not there; there is room.
    fn insert(&mut self, prefix: Prefix, kind: RuleKind, until: Time, struck: Duration) {
        let slot = self.free.pop().expect("there is room");
        self.turned_away[slot as usize].store(0, Ordering::Relaxed);
        self.rules.insert((prefix, kind), Entry { slot, until, struck });
    }

    fn take(&mut self, prefix: Prefix, kind: RuleKind) -> Option<Entry> {
        let entry = self.rules.remove(&(prefix, kind))?;
        self.free.push(entry.slot);
        Some(entry)
    }

    /// Finds a place for a rule that lasts until then: what has ended goes, then halves of one prefix become one rule, then
    /// the block that ends first makes way, if it ends sooner than the new rule.
    fn make_room(&mut self, until: Time, now: Time) -> Result<(), RuleError> {
        self.retain(|_, entry| entry.is_remembered(now));
        if self.free.is_empty() {
            self.merge();
        }
        if self.free.is_empty() {
            let blocks = self.rules.iter().filter(|((_, kind), _)| *kind == RuleKind::Block);
            let first = blocks.min_by_key(|(_, entry)| entry.until).map(|(key, entry)| (*key, entry.until));
            match first {
                Some(((prefix, kind), ends)) if ends < until => self.take(prefix, kind),
                _ => return Err(RuleError::Full(self.turned_away.len())),
            };
        }
        Ok(())
    }

    /// Two halves of a prefix with rules of one kind become one rule for the prefix: the same addresses, and of blocks the
    /// later end.
    fn merge(&mut self) {
        let keys: Vec<(Prefix, RuleKind)> = self.rules.keys().copied().collect();
        for (mut half, kind) in keys {
            while let Some((parent, other)) = half.parent() {
                let both = [half, other].map(|half| self.rules.get(&(half, kind)).copied());
                let [Some(one), Some(two)] = both else { break };
                if !self.may_merge(parent, kind) {
                    break;
                }
                self.take(half, kind);
                self.take(other, kind);
                let (until, struck) = (one.until.max(two.until), one.struck.max(two.struck));
                match self.rules.get_mut(&(parent, kind)) {
                    Some(around) => around.until = around.until.max(until),
                    None => self.insert(parent, kind, until, struck),
                }
                half = parent;
            }
        }
    }

    /// Whether rules for the halves of a prefix mean the same as one for the prefix. Bans and exemptions are weighed by
    /// their lengths, so they are let alone where they meet.
    fn may_merge(&self, parent: Prefix, kind: RuleKind) -> bool {
        match kind {
            RuleKind::Block | RuleKind::Allow => true,
            RuleKind::Exempt => false,
            RuleKind::Ban => {
                let mut exempt = self.rules.keys().filter(|(_, kind)| *kind == RuleKind::Exempt);
                !exempt.any(|(other, _)| parent.contains(other.address()) || other.contains(parent.address()))
            }
        }
    }

    fn forget_list(&mut self) {
        self.retain(|kind, _| kind != RuleKind::Allow);
    }

    fn retain(&mut self, keeps: impl Fn(RuleKind, &Entry) -> bool) {
        let free = &mut self.free;
        self.rules.retain(|(_, kind), entry| {
            let kept = keeps(*kind, entry);
            if !kept {
                free.push(entry.slot);
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::thread;

    use super::super::table::Verdict;
    use super::*;

    fn book(rules_max: usize) -> RuleBook {
        RuleBook::new(Clock::machine(), rules_max)
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn turns_away(book: &RuleBook, address: &str) -> bool {
        let now = book.clock.now();
        let verdict = book.table().judge(address.parse::<IpAddr>().unwrap(), now);
        if let Verdict::Banned(slot) | Verdict::Blocked(slot) = verdict {
            book.count(slot);
        }
        !matches!(verdict, Verdict::Enter { .. })
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn o3_rules_come_and_go() {
        let book = book(16);
        let check = |address: &str, out: bool| assert_eq!(turns_away(&book, address), out, "{address}");
        book.add(prefix("10.0.0.0/8"), RuleKind::Ban).unwrap();
        book.block(prefix("20.0.0.1"), HOUR).unwrap();
        check("10.9.9.9", true);
        check("20.0.0.1", true);
        check("20.0.0.2", false);
        let told: Vec<(String, u64)> =
            book.list().into_iter().map(|rule| (rule.prefix.to_string(), rule.turned_away)).collect();
        assert_eq!(told, [("10.0.0.0/8".to_owned(), 1), ("20.0.0.1".to_owned(), 1)]);
        assert!(book.remove(prefix("20.0.0.1"), &[RuleKind::Ban, RuleKind::Block]));
        assert!(!book.remove(prefix("20.0.0.1"), &[RuleKind::Ban, RuleKind::Block]));
        check("20.0.0.1", false);
        book.allow_only(&[prefix("30.0.0.0/8"), prefix("10.1.0.0/16")]).unwrap();
        check("20.0.0.1", true);
        check("30.0.0.1", false);
        check("10.1.0.1", true);
        book.allow_all();
        check("20.0.0.1", false);
        assert_eq!(book.list().len(), 1);
    }

    #[test]
    fn a09_a_full_table_forgets_merges_and_lets_the_shortest_block_go_but_no_ban() {
        let book = book(4);
        book.block(prefix("1.0.0.1"), Duration::from_nanos(1)).unwrap();
        thread::yield_now();
        book.block(prefix("1.0.0.2"), HOUR).unwrap();
        book.block(prefix("1.0.0.3"), 2 * HOUR).unwrap();
        book.block(prefix("1.0.0.9"), 3 * HOUR).unwrap();
        book.add(prefix("2.0.0.1"), RuleKind::Ban).unwrap();
        assert_eq!(book.list().len(), 4, "the block that had ended made way");
        book.add(prefix("2.0.0.2"), RuleKind::Ban).unwrap();
        let listed: Vec<String> = book.list().iter().map(|rule| rule.prefix.to_string()).collect();
        assert_eq!(listed, ["1.0.0.2/31", "1.0.0.9", "2.0.0.1", "2.0.0.2"], "two halves became one rule");
        let whole = &book.list()[0];
        assert!(whole.remaining > Some(HOUR), "nobody is blocked shorter than was said: {whole:?}");
        book.add(prefix("3.0.0.1"), RuleKind::Ban).unwrap();
        book.add(prefix("4.0.0.1"), RuleKind::Ban).unwrap();
        assert!(book.list().iter().all(|rule| rule.kind == RuleKind::Ban), "blocks make way for bans");
        assert_eq!(book.add(prefix("5.0.0.1"), RuleKind::Ban), Err(RuleError::Full(4)));
        assert_eq!(book.block(prefix("5.0.0.1"), HOUR), Err(RuleError::Full(4)));
        assert_eq!(book.list().len(), 4);
        // Where an exemption weighs, bans are not merged.
        book.remove(prefix("4.0.0.1"), &[RuleKind::Ban]);
        book.remove(prefix("3.0.0.1"), &[RuleKind::Ban]);
        book.add(prefix("2.0.0.3"), RuleKind::Ban).unwrap();
        book.add(prefix("2.0.0.3"), RuleKind::Exempt).unwrap();
        assert_eq!(book.add(prefix("5.0.0.1"), RuleKind::Ban), Err(RuleError::Full(4)));
        assert!(turns_away(&book, "2.0.0.3"));
    }

    #[test]
    fn a10_strikes_double_while_they_are_remembered_and_spare_the_exempt() {
        let book = book(8);
        let pc_bang = prefix("7.7.7.7");
        assert_eq!(book.strike(pc_bang, HOUR), Ok(HOUR));
        assert_eq!(book.strike(pc_bang, HOUR), Ok(2 * HOUR));
        for _ in 0..10 {
            book.strike(pc_bang, HOUR).unwrap();
        }
        assert_eq!(book.strike(pc_bang, HOUR), Ok(STRIKE_MAX), "but never longer than a day");
        assert!(turns_away(&book, "7.7.7.7"));
        book.add(prefix("7.7.7.0/24"), RuleKind::Exempt).unwrap();
        assert!(!turns_away(&book, "7.7.7.7"));
        assert_eq!(book.strike(pc_bang, HOUR), Err(RuleError::Exempt(pc_bang)));
        assert_eq!(book.block(pc_bang, HOUR), Err(RuleError::Exempt(pc_bang)));
        assert!(book.block(prefix("7.7.0.0/16"), HOUR).is_ok(), "more than the exempt ones");
        assert!(!turns_away(&book, "7.7.7.7"));
        let short = prefix("8.8.8.8");
        book.strike(short, Duration::from_nanos(1)).unwrap();
        thread::park_timeout(Duration::from_millis(1));
        assert_eq!(book.strike(short, HOUR), Ok(HOUR), "what is long past is forgotten");
    }

    #[test]
    fn rules_are_what_they_were_after_a_save_and_a_load() {
        let book = book(8);
        book.add(prefix("10.0.0.0/8"), RuleKind::Ban).unwrap();
        book.add(prefix("2001:db8::/32"), RuleKind::Exempt).unwrap();
        book.block(prefix("20.0.0.1"), HOUR).unwrap();
        book.allow_only(&[prefix("30.0.0.0/8")]).unwrap();
        book.set_app_version_min(12);
        let saved = book.get();
        let read = RuleSet::from_toml(&saved.to_toml()).unwrap();
        assert_eq!(read, saved);
        let again = RuleBook::new(Clock::machine(), 8);
        again.set(&read).unwrap();
        let same = |book: &RuleBook| -> Vec<(Prefix, RuleKind)> {
            book.list().iter().map(|rule| (rule.prefix, rule.kind)).collect()
        };
        assert_eq!(same(&again), same(&book));
        assert_eq!((again.app_version_min(), again.get().allow_only), (12, true));
        let remaining = again.list().into_iter().find_map(|rule| rule.remaining).unwrap();
        assert!(remaining > HOUR - Duration::from_secs(5) && remaining <= HOUR + Duration::from_secs(2));

        let few = RuleBook::new(Clock::machine(), 2);
        few.add(prefix("9.9.9.9"), RuleKind::Ban).unwrap();
        assert_eq!(few.set(&read), Err(RuleError::Full(2)));
        assert_eq!(same(&few), [(prefix("9.9.9.9"), RuleKind::Ban)], "all or nothing");
        assert_eq!(few.app_version_min(), 0);
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_place_of_the_mistake() {
        let check = |text: &str, word: &str| {
            let error = RuleSet::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        check("allow_onli = true", "allow_onli");
        check("[[rule]]\nprefix = '1.2.3'\nkind = 'ban'", "1.2.3");
        check("[[rule]]\nprefix = '1.2.3.4'\nkind = 'bann'", "bann");
        check("[[rule]]\nprefix = '1.2.3.4'\nkind = 'block'", "ends");
        check("[[rule]]\nprefix = '1.2.3.4'\nkind = 'ban'\nends = 5", "ends");
    }
}
