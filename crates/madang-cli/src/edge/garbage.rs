//! Connections that do not speak the protocol, 5,000 a second: probes, noise, preambles without the right tag. None gets a
//! byte or a curve, and honest clients log in as if they were not there.

use std::time::Duration;

use super::comparison::{Comparison, Others};
use super::line::Line;
use super::parts::Of;
use super::stage::Stage;
use crate::load::visitors::Sort;

const PER_SECOND: u64 = 5_000;

/// As many as a second's p99 needs to be more than its slowest.
const LOG_INS_PER_SECOND: u64 = 200;

pub(super) fn play(stage: &Stage<'_>) -> anyhow::Result<Vec<Line>> {
    let garbage = stage.scaled(PER_SECOND);
    let house = stage.open(|settings| {
        settings.embryos_max = 16_384;
        // What is measured is the gate; the pace of accepting would save it the work.
        settings.accept_rate_max = Some(0);
    })?;
    let others = Others {
        arguments: &format!("--connections 1 --rate 20 --garbage {garbage} --spread 250"),
        here: 0,
        settle: Duration::ZERO,
        log_ins: 0,
    };
    let honest = format!("--connections 50 --rate 500 --size 64 --storm {LOG_INS_PER_SECOND}");
    let comparison = Comparison::play(stage, &house, &honest, LOG_INS_PER_SECOND, &others)?;
    let strangers = house.figures().strangers;
    let mut lines = vec![
        comparison.judged("an honest log-in's p99", Of::LogIns, 20),
        comparison.unjudged("echoes' p99", Of::Echoes),
    ];
    lines.push(comparison.honest_failures());
    lines.extend(comparison.visitors(Sort::Garbage));
    lines.push(Line::told("turned away at the gate", strangers));
    lines.push(house.close()?);
    Ok(lines)
}
