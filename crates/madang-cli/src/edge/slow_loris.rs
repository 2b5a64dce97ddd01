//! Strangers who hold a place: 2,000 at all times, half of them mute, half with a byte now and then, while 500 honest
//! clients talk 20 times a second.

use super::line::Line;
use super::stage::Stage;
use crate::load::visitors::Sort;

const STRANGERS: u64 = 2_000;
const HONEST: u64 = 500;
const HERTZ: u64 = 20;

/// A stranger is gone by the deadline if it is so much later at the most: the server looks each 100 ms or so, and so does
/// who counts.
const SLACK_MS: f64 = 400.0;

pub(super) fn play(stage: &Stage<'_>) -> anyhow::Result<Vec<Line>> {
    let (strangers, honest) = (stage.scaled(STRANGERS), stage.scaled(HONEST));
    let mut deadline_ms = 0;
    let house = stage.open(|settings| {
        settings.embryos_max = (strangers + honest) as usize * 2;
        deadline_ms = settings.greeting_timeout_ms;
    })?;
    let comparison = stage.compare(
        &house,
        &format!("--connections {honest} --rate {} --size 64 --spread 50", honest * HERTZ),
        &format!("--connections 1 --rate 20 --strangers {strangers} --dribble --spread 200"),
    )?;
    let (quiet, disturbed) = comparison.medians(|run| run.latency.p99_us);
    let came = || comparison.others.iter().flat_map(|run| &run.visitors);
    let here = came().map(|came| came.here_most).min().unwrap_or(0) as u64;
    let longest_ms = came().map(|came| came.took.max_us / 1e3).fold(0.0, f64::max);
    let mut lines = vec![
        Line::within("honest p99", quiet, disturbed, 10),
        comparison.honest_failures(),
        Line::exactly("strangers at a time", here, strangers),
        Line::new(
            "the longest that one was suffered",
            format!("{longest_ms:.0} ms"),
            &format!("{deadline_ms} ms, and {SLACK_MS:.0}"),
            longest_ms > 0.0 && longest_ms <= deadline_ms as f64 + SLACK_MS,
        ),
    ];
    lines.extend(comparison.visitors(Sort::Stranger));
    lines.push(Line::exactly("strangers left at the end", house.figures().embryos, 0));
    lines.push(house.close()?);
    Ok(lines)
}
