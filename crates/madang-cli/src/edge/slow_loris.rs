//! Strangers who hold a place: 2,000 at all times, half of them mute, half with a byte now and then, while 500 honest
//! clients talk 20 times a second.

use std::time::Duration;

use super::comparison::{Comparison, Others};
use super::line::Line;
use super::parts::Of;
use super::stage::Stage;
use crate::load::visitors::Sort;

const STRANGERS: u64 = 2_000;
const HERTZ: u64 = 20;

/// A stranger is gone by the deadline if it is so much later at the most: the server looks each 100 ms or so, and so does
/// who counts.
const SLACK_MS: f64 = 400.0;

pub(super) fn play(stage: &Stage<'_>) -> anyhow::Result<Vec<Line>> {
    let (strangers, honest) = (stage.scaled(STRANGERS), stage.joined());
    let house = stage.open(|settings| settings.embryos_max = (strangers + honest) as usize * 2)?;
    let deadline_ms = house.settings().greeting_timeout_ms;
    let others = Others {
        arguments: &format!("--connections 1 --rate 20 --strangers {strangers} --dribble --spread 200"),
        here: strangers as usize,
        // From then on some are sent away at all times, and others come.
        settle: Duration::from_millis(deadline_ms),
        log_ins: 0,
    };
    let comparison = Comparison::play(stage, &house, &stage.joined_crowd(HERTZ), 0, &others)?;
    let came = comparison.came(Sort::Stranger);
    let longest_ms = came.took.max_us / 1e3;
    let mut lines = vec![comparison.judged("honest p99", Of::Echoes, 10)];
    lines.extend([
        comparison.honest_failures(),
        Line::exactly("strangers at a time", came.here_most as u64, strangers),
        Line::new(
            "the longest that one was suffered",
            format!("{longest_ms:.0} ms"),
            &format!("{deadline_ms} ms, and {SLACK_MS:.0}"),
            longest_ms > 0.0 && longest_ms <= deadline_ms as f64 + SLACK_MS,
        ),
    ]);
    lines.extend(comparison.visitors(Sort::Stranger));
    lines.push(Line::exactly("strangers left at the end", house.figures().embryos, 0));
    lines.push(house.close()?);
    Ok(lines)
}
