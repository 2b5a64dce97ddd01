//! Everybody comes back at once: 2,000 log-ins a second, each a whole handshake, while 500 sessions play on.

use std::time::Duration;

use super::comparison::{Comparison, Others};
use super::line::Line;
use super::parts::Of;
use super::stage::Stage;
use crate::load::visitors::Sort;

const PER_SECOND: u64 = 2_000;
const HERTZ: u64 = 20;

pub(super) fn play(stage: &Stage<'_>) -> anyhow::Result<Vec<Line>> {
    let storm = stage.scaled(PER_SECOND);
    let house = stage.open(|settings| settings.embryos_max = 16_384)?;
    let others = Others {
        arguments: &format!("--connections 1 --rate 20 --storm {storm} --spread 250"),
        here: 0,
        settle: Duration::ZERO,
        log_ins: storm,
    };
    let comparison = Comparison::play(stage, &house, &stage.joined_crowd(HERTZ), 0, &others)?;
    let slowest = comparison.came(Sort::LogIn).took.p99_us / 1e3;
    let mut lines = vec![comparison.judged("joined sessions' p99", Of::Echoes, 20)];
    lines.push(comparison.honest_failures());
    lines.push(Line::told("a log-in's p99, client's share included", format!("{slowest:.1} ms")));
    lines.extend(comparison.visitors(Sort::LogIn));
    lines.push(Line::told("handshakes worked out", house.figures().handshakes));
    lines.push(house.close()?);
    Ok(lines)
}
