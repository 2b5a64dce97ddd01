//! The rules as the gate reads them: made once, read at every accept, swapped whole.
//!
//! Prefixes either lie inside each other or apart, so all addresses fall into a row of spans, in each of which the same
//! rules hold. What they come to is worked out when the table is made; a look is one binary search:
//!
//! ```text
//!   rules   ├──────────── exempt 10.0.0.0/8 ────────────┤
//!                   ├─ ban 10.3.0.0/16 ─┤
//!   spans   └exempt─┴───── banned ──────┴──── exempt ───┴── nothing …
//! ```

use std::net::IpAddr;
use std::time::Duration;

use madang_driver::Time;

use super::prefix::{Prefix, number};
use super::rules::RuleKind;
use crate::planted::{Planted, planted};

/// A rule's place among the figures.
pub(super) type Slot = u32;

#[derive(Debug, Default)]
pub(super) struct Table {
    v4: Spans,
    v6: Spans,
    allow_only: bool,
}

/// One rule on its way into a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) prefix: Prefix,
    pub(super) kind: RuleKind,
    /// The end of a block; others have none.
    pub(super) until: Time,
    pub(super) slot: Slot,
}

/// What the rules say of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Enter {
        /// Neither the limits nor patch control apply.
        exempt: bool,
    },
    Banned(Slot),
    Blocked(Slot),
    NotListed,
}

impl Table {
    /// `lines` in the order of their prefixes, wider ones before those inside them.
    pub(super) fn new(lines: impl Iterator<Item = Line> + Clone, allow_only: bool) -> Table {
        Table {
            v4: Spans::new(lines.clone().filter(|line| line.prefix.is_v4())),
            v6: Spans::new(lines.filter(|line| !line.prefix.is_v4())),
            allow_only,
        }
    }

    pub(super) fn judge(&self, address: IpAddr, now: Time) -> Verdict {
        let address = address.to_canonical();
        let spans = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let holds = spans.at(number(address));
        if let Some((len, slot)) = holds.ban {
            if holds.exempt.is_none_or(|exempt| exempt <= len) {
                return Verdict::Banned(slot);
            }
        }
        if self.allow_only && !holds.allowed {
            return Verdict::NotListed;
        }
        match holds.block {
            Some((until, slot)) if holds.exempt.is_none() && blocks(now, until) => Verdict::Blocked(slot),
            _ => Verdict::Enter { exempt: holds.exempt.is_some() },
        }
    }
}

fn blocks(now: Time, until: Time) -> bool {
    if planted(Planted::BlockEndsEarly) {
        return now + Duration::from_millis(50) < until;
    }
    now < until || planted(Planted::BlockWithoutEnd)
}

/// What holds in a span of addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Holds {
    /// The narrowest ban, with its length.
    ban: Option<(u8, Slot)>,
    /// The block that lasts longest.
    block: Option<(Time, Slot)>,
    /// The length of the narrowest exemption.
    exempt: Option<u8>,
    allowed: bool,
}

impl Holds {
    /// And `line` as well, which is no wider than what holds already.
    fn and(mut self, line: &Line) -> Holds {
        match line.kind {
            RuleKind::Ban => self.ban = Some((line.prefix.bits(), line.slot)),
            RuleKind::Exempt => self.exempt = Some(line.prefix.bits()),
            RuleKind::Allow => self.allowed = true,
            RuleKind::Block => {
                if self.block.is_none_or(|(until, _)| until < line.until) {
                    self.block = Some((line.until, line.slot));
                }
            }
        }
        self
    }
}

/// The addresses of one kind, cut into spans: where each begins (looked through, so kept close together), and what holds.
#[derive(Debug, Default)]
struct Spans {
    starts: Vec<u128>,
    holds: Vec<Holds>,
}

impl Spans {
    fn new(lines: impl Iterator<Item = Line>) -> Spans {
        let mut spans = Spans::default();
        let mut around: Vec<(u128, Holds)> = Vec::new();
        let outer = |around: &[(u128, Holds)]| around.last().map_or(Holds::default(), |(_, holds)| *holds);
        for line in lines {
            let (first, last) = line.prefix.bounds();
            while let Some((end, _)) = around.last().filter(|(end, _)| *end < first).copied() {
                around.pop();
                spans.push(end + 1, outer(&around));
            }
            let holds = outer(&around).and(&line);
            spans.push(first, holds);
            around.push((last, holds));
        }
        while let Some((end, _)) = around.pop() {
            if let Some(next) = end.checked_add(1) {
                spans.push(next, outer(&around));
            }
        }
        spans
    }

    fn push(&mut self, start: u128, holds: Holds) {
        if self.starts.last() == Some(&start) {
            self.holds.pop();
        } else {
            self.starts.push(start);
        }
        self.holds.push(holds);
    }

    fn at(&self, address: u128) -> Holds {
        match self.starts.partition_point(|start| *start <= address) {
            0 => Holds::default(),
            behind => self.holds[behind - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * SECOND)
    }

    /// A table of rules, each named by its place in the list.
    fn table(rules: &[(&str, RuleKind, u64)], allow_only: bool) -> Table {
        let mut lines: Vec<Line> = (0..)
            .zip(rules)
            .map(|(slot, (prefix, kind, until))| Line {
                prefix: prefix.parse().unwrap(),
                kind: *kind,
                until: at(*until),
                slot,
            })
            .collect();
        lines.sort_by_key(|line| (line.prefix, line.kind));
        Table::new(lines.iter().copied(), allow_only)
    }

    #[test]
    fn o3_the_narrowest_word_counts_and_exemptions_end_blocks() {
        use RuleKind::{Allow, Ban, Block, Exempt};
        let rules = [
            ("10.0.0.0/8", Ban, 0),
            ("10.1.0.0/16", Exempt, 0),
            ("10.1.2.0/24", Ban, 0),
            ("10.1.2.3", Exempt, 0),
            ("20.0.0.0/8", Block, 50),
            ("20.1.0.0/16", Block, 20),
            ("20.2.0.0/16", Exempt, 0),
            ("20.2.2.2", Block, 90),
            ("2001:db8::/32", Ban, 0),
            ("30.0.0.0/8", Allow, 0),
            ("30.1.0.0/16", Ban, 0),
            ("255.255.255.255", Ban, 0),
        ];
        let (open, listed) = (table(&rules, false), table(&rules, true));
        let enter = Verdict::Enter { exempt: false };
        let exempt = Verdict::Enter { exempt: true };
        let check = |address: &str, now, expected: Verdict| {
            assert_eq!(open.judge(address.parse().unwrap(), at(now)), expected, "{address} at {now}");
        };
        check("9.255.255.255", 10, enter);
        check("10.0.0.0", 10, Verdict::Banned(0));
        check("10.255.255.255", 10, Verdict::Banned(0));
        check("11.0.0.0", 10, enter);
        check("10.1.0.1", 10, exempt);
        check("10.1.2.4", 10, Verdict::Banned(2));
        check("10.1.2.3", 10, exempt);
        check("20.0.0.1", 49, Verdict::Blocked(4));
        check("20.0.0.1", 50, enter);
        check("20.1.0.1", 10, Verdict::Blocked(4));
        check("20.1.0.1", 49, Verdict::Blocked(4));
        check("20.1.0.1", 51, enter);
        check("20.2.2.2", 10, exempt);
        check("2001:db8:ffff::1", 10, Verdict::Banned(8));
        check("2001:db9::1", 10, enter);
        check("::ffff:10.0.0.1", 10, Verdict::Banned(0));
        check("30.0.0.1", 10, enter);
        check("255.255.255.255", 10, Verdict::Banned(11));
        let check = |address: &str, expected: Verdict| {
            assert_eq!(listed.judge(address.parse().unwrap(), at(10)), expected, "only listed: {address}");
        };
        check("9.0.0.1", Verdict::NotListed);
        check("30.0.0.1", enter);
        check("30.1.0.1", Verdict::Banned(10));
        check("10.1.2.3", Verdict::NotListed);
    }

    #[test]
    fn a_rule_for_all_addresses_of_a_kind_leaves_the_other_kind_alone() {
        let everything = table(&[("::/0", RuleKind::Ban, 0)], false);
        assert_eq!(everything.judge("::".parse().unwrap(), at(1)), Verdict::Banned(0));
        let last = std::net::Ipv6Addr::from_bits(u128::MAX).into();
        assert_eq!(everything.judge(last, at(1)), Verdict::Banned(0));
        assert_eq!(everything.judge("1.2.3.4".parse().unwrap(), at(1)), Verdict::Enter { exempt: false });
    }

    /// Against a reader of the same rules that knows no spans.
    #[test]
    fn spans_say_what_the_rules_say() {
        let mut state = 7u64;
        let mut dice = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..300 {
            // Few distinct addresses and lengths, so that prefixes nest and touch.
            let rules: Vec<(Prefix, RuleKind, Time)> = (0..dice(12))
                .map(|_| {
                    let address = std::net::Ipv4Addr::from_bits((dice(64) as u32) << 26);
                    let kind =
                        [RuleKind::Ban, RuleKind::Block, RuleKind::Exempt, RuleKind::Allow][dice(4) as usize];
                    let until = if kind == RuleKind::Block { at(dice(20)) } else { at(0) };
                    (Prefix::new(address.into(), dice(7) as u8).unwrap(), kind, until)
                })
                .collect();
            let mut lines: Vec<Line> = (0..)
                .zip(&rules)
                .map(|(slot, (prefix, kind, until))| Line {
                    prefix: *prefix,
                    kind: *kind,
                    until: *until,
                    slot,
                })
                .collect();
            lines.sort_by_key(|line| (line.prefix, line.kind));
            lines.dedup_by_key(|line| (line.prefix, line.kind));
            let allow_only = dice(2) == 0;
            let table = Table::new(lines.iter().copied(), allow_only);
            for block in 0..64u32 {
                let (address, now) = (IpAddr::from(std::net::Ipv4Addr::from_bits(block << 26)), at(dice(20)));
                let of = |kind| lines.iter().filter(move |l| l.kind == kind && l.prefix.contains(address));
                let narrowest = |kind| of(kind).map(|line| line.prefix.bits()).max();
                let banned =
                    narrowest(RuleKind::Ban).is_some_and(|ban| narrowest(RuleKind::Exempt) <= Some(ban));
                let exempt = narrowest(RuleKind::Exempt).is_some();
                let blocked = !exempt && of(RuleKind::Block).any(|line| now < line.until);
                let listed = !allow_only || narrowest(RuleKind::Allow).is_some();
                let verdict = table.judge(address, now);
                match verdict {
                    Verdict::Banned(_) => assert!(banned),
                    Verdict::NotListed => assert!(!banned && !listed),
                    Verdict::Blocked(_) => assert!(!banned && listed && blocked),
                    Verdict::Enter { exempt: told } => {
                        assert!(!banned && listed && !blocked && told == exempt)
                    }
                }
            }
        }
    }
}
