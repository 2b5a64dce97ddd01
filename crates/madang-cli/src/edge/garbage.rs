//! Connections that do not speak the protocol, 5,000 a second: probes, noise, preambles without the right tag. None gets a
//! byte or a curve, and honest clients log in as if they were not there; joined ones are not kept waiting, also where
//! there are more than `accept_rate_max` lets in.

use std::time::Duration;

use super::comparison::{Comparison, Others};
use super::line::Line;
use super::parts::Of;
use super::stage::{House, Stage};
use crate::load::visitors::Sort;

const PER_SECOND: u64 = 5_000;
const HERTZ: u64 = 20;

/// As many as a second's p99 needs to be more than its slowest.
const LOG_INS_PER_SECOND: u64 = 200;

/// What the joined may hear of as many accepts as the pace lets in: a third of a shard's time, but no stall.
const PACED_PERCENT: u32 = 100;

pub(super) fn play(stage: &Stage<'_>) -> anyhow::Result<Vec<Line>> {
    let mut lines = at_the_gate(stage)?;
    lines.extend(at_the_pace(stage)?);
    Ok(lines)
}

/// All of them reach the gate: the pace of accepting would save it the work.
fn at_the_gate(stage: &Stage<'_>) -> anyhow::Result<Vec<Line>> {
    let house = stage.open(|settings| {
        settings.embryos_max = 16_384;
        settings.accept_rate_max = Some(0);
    })?;
    let honest = format!("--connections 50 --rate 500 --size 64 --storm {LOG_INS_PER_SECOND}");
    let comparison = beside(stage, &house, &honest, LOG_INS_PER_SECOND)?;
    let strangers = house.figures().strangers;
    let mut lines = vec![
        comparison.judged("an honest log-in's p99", Of::LogIns, 20),
        comparison.unjudged("echoes' p99", Of::Echoes),
        comparison.honest_failures(),
    ];
    lines.extend(comparison.visitors(Sort::Garbage));
    lines.push(Line::told("turned away at the gate", strangers));
    lines.push(house.close()?);
    Ok(lines)
}

/// With the pace that a server has by itself: those beyond it wait in the backlog, and none of the joined for them.
fn at_the_pace(stage: &Stage<'_>) -> anyhow::Result<Vec<Line>> {
    let house = stage.open(|settings| settings.embryos_max = 16_384)?;
    let comparison = beside(stage, &house, &stage.joined_crowd(HERTZ), 0)?;
    let pauses = house.figures().accept_pauses;
    let lines = vec![
        comparison.judged("joined sessions' p99, accepting paced", Of::Echoes, PACED_PERCENT),
        comparison.honest_failures(),
        Line::told("pauses of accepting", pauses),
        house.close()?,
    ];
    Ok(lines)
}

fn beside(stage: &Stage<'_>, house: &House, honest: &str, honest_log_ins: u64) -> anyhow::Result<Comparison> {
    let garbage = stage.scaled(PER_SECOND);
    let others = Others {
        arguments: &format!("--connections 1 --rate 20 --garbage {garbage} --spread 250"),
        here: 0,
        settle: Duration::ZERO,
        log_ins: 0,
    };
    Comparison::play(stage, house, honest, honest_log_ins, &others)
}
