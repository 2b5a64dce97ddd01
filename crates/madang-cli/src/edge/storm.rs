//! Everybody comes back at once: 2,000 log-ins a second, each a whole handshake, while 500 sessions play on.

use super::line::Line;
use super::stage::Stage;
use crate::load::visitors::Sort;

const PER_SECOND: u64 = 2_000;
const JOINED: u64 = 500;
const HERTZ: u64 = 20;

pub(super) fn play(stage: &Stage<'_>) -> anyhow::Result<Vec<Line>> {
    let (storm, joined) = (stage.scaled(PER_SECOND), stage.scaled(JOINED));
    let house = stage.open(|settings| settings.embryos_max = 16_384)?;
    let comparison = stage.compare(
        &house,
        &format!("--connections {joined} --rate {} --size 64 --spread 50", joined * HERTZ),
        &format!("--connections 1 --rate 20 --storm {storm} --spread 250"),
    )?;
    let (quiet, disturbed) = comparison.medians(|run| run.latency.p99_us);
    let log_ins: Vec<_> = comparison.others.iter().flat_map(|run| &run.visitors).collect();
    let slowest = log_ins.iter().map(|came| came.took.p99_us / 1e3).fold(0.0, f64::max);
    let mut lines = vec![
        Line::within("joined sessions' p99", quiet, disturbed, 20),
        comparison.honest_failures(),
        Line::told("a log-in's p99, client's share included", format!("{slowest:.1} ms at the most")),
    ];
    lines.extend(comparison.visitors(Sort::LogIn));
    lines.push(Line::told("handshakes worked out", house.figures().handshakes));
    lines.push(house.close()?);
    Ok(lines)
}
