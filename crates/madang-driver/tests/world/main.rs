//! The simulated world itself: equal seeds give equal runs, every fault happens, broken rules are named, and its network
//! does what real ones were seen to do.

#![allow(unreachable_pub)] // a test binary has no outside

mod clerk;
mod network;
mod ports;
mod rules;
mod scheduling;
mod town;

use madang_driver::sim::{FaultCounts, Harm};

/// `MADANG_SEED=n` runs one seed, `MADANG_SEEDS=n` so many.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let number =
        |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a seed is a number"));
    match number("MADANG_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MADANG_SEEDS").unwrap_or(default),
    }
}

#[test]
fn towns_come_to_rest_with_nothing_lost_mixed_or_left_and_every_fault_has_happened() {
    let mut counts = FaultCounts::default();
    let mut completions = 0;
    let seeds = seeds(150);
    let is_batch = seeds.end - seeds.start > 1;
    for seed in seeds {
        let report = town::live(seed);
        counts.add(&report.faults);
        completions += report.completions;
    }
    for (kind, count) in counts.iter() {
        eprintln!("{count:>9}  {kind}");
    }
    eprintln!("{completions:>9}  completions");
    // Nothing is sealed here: nobody tampers.
    let mut never = counts.never();
    never.retain(|kind| kind.harm() != Harm::Tampering);
    assert!(!is_batch || never.is_empty(), "these faults never happened: {never:?}");
}

#[test]
fn equal_seeds_give_equal_traces_and_different_seeds_do_not() {
    let mut hashes: Vec<u64> = (1_000..1_012).map(|seed| town::live(seed).trace_hash).collect();
    let again: Vec<u64> = (1_000..1_012).map(|seed| town::live(seed).trace_hash).collect();
    assert_eq!(hashes, again);
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 12);
}
