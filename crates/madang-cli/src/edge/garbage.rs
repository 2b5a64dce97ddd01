//! Connections that do not speak the protocol, 5,000 a second: probes, noise, preambles without the right tag. None gets a
//! byte or a curve, and honest clients log in as if they were not there.

use super::line::Line;
use super::stage::Stage;
use crate::load::report::Run;
use crate::load::visitors::Sort;

const PER_SECOND: u64 = 5_000;
const LOG_INS_PER_SECOND: u64 = 50;

pub(super) fn play(stage: &Stage<'_>) -> anyhow::Result<Vec<Line>> {
    let garbage = stage.scaled(PER_SECOND);
    let house = stage.open(|settings| {
        settings.embryos_max = 16_384;
        // What is measured is the gate; the pace of accepting would save it the work.
        settings.accept_rate_max = Some(0);
    })?;
    let comparison = stage.compare(
        &house,
        &format!("--connections 50 --rate 500 --size 64 --storm {LOG_INS_PER_SECOND}"),
        &format!("--connections 1 --rate 20 --garbage {garbage} --spread 250"),
    )?;
    let log_ins = |run: &Run| {
        run.visitors
            .iter()
            .find(|came| came.sort == Sort::LogIn.name())
            .map_or(f64::INFINITY, |came| came.took.p99_us)
    };
    let (quiet, disturbed) = comparison.medians(log_ins);
    let echoes = comparison.medians(|run| run.latency.p99_us);
    let strangers = house.figures().strangers;
    let mut lines = vec![
        Line::within("an honest log-in's p99", quiet, disturbed, 20),
        Line::told("echoes' p99", format!("{:.0} µs beside {:.0} µs undisturbed", echoes.1, echoes.0)),
        comparison.honest_failures(),
    ];
    lines.extend(comparison.visitors(Sort::Garbage));
    lines.push(Line::told("turned away at the gate", strangers));
    lines.push(house.close()?);
    Ok(lines)
}
