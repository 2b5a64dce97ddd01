//! Clients that do not read: 500 of them, under 20 messages a second to everybody, beside 500 that do.

use std::time::{Duration, Instant};

use madang::LeaveReason;
use serde::Deserialize;

use super::line::Line;
use super::stage::{House, Stage};
use crate::serve::broadcast::Broadcast;
use crate::signals::Signals;

const DEAF: u64 = 500;
const HONEST: u64 = 500;
const BROADCAST: Broadcast = Broadcast { per_second: 20, bytes: 1_200 };

/// What the kernels of both sides hold for one who does not read, about: small, or it takes minutes to notice.
const SEND_BUFFER: usize = 32 * 1024;
const KERNEL_BYTES: u64 = 128 * 1024;

/// Until the last of them is noticed and gone.
const SLACK: Duration = Duration::from_secs(3);

/// What the dummies say of it.
#[derive(Debug, Deserialize)]
struct Verdict {
    repelled: u64,
    slowest_end_us: u64,
}

pub(super) fn play(stage: &Stage<'_>) -> anyhow::Result<Vec<Line>> {
    let (deaf, honest) = (stage.scaled(DEAF), stage.scaled(HONEST));
    let mut in_time = Duration::ZERO;
    let house = stage.open(|settings| {
        settings.send_buffer_bytes = SEND_BUFFER;
        // What is sent fills the kernels, then the soft limit, which is suffered for a time.
        let bytes = KERNEL_BYTES + settings.queue_soft_bytes as u64;
        let a_second = u64::from(BROADCAST.per_second) * BROADCAST.bytes as u64;
        in_time = Duration::from_millis(bytes * 1_000 / a_second + settings.queue_soft_ms) + SLACK;
    })?;
    std::thread::scope(|scope| {
        let end = Signals::default();
        let (remote, ends) = (house.remote(), end.clone());
        scope.spawn(move || BROADCAST.run(&remote, &ends, None));
        let lines = judged(stage, &house, deaf, honest, in_time);
        end.raise();
        lines
    })
    .and_then(|mut lines| {
        lines.push(house.close()?);
        Ok(lines)
    })
}

fn judged(
    stage: &Stage<'_>,
    house: &House,
    deaf: u64,
    honest: u64,
    in_time: Duration,
) -> anyhow::Result<Vec<Line>> {
    let crowd = format!("--connections {honest} --rate {} --size 64 --spread 50", honest * 2);
    let quiet = stage.measure(house, &crowd)?;
    settle(house, 0);
    let pool_before = house.figures().pool.in_use.bytes as u64;

    let dummies = stage.dummies(house, "deaf", deaf, in_time.as_secs() + 20)?;
    settle(house, deaf);
    let seconds = stage.options.seconds.max(in_time.as_secs());
    let disturbed = stage.load(house, seconds, &crowd)?;
    let disturbed = stage.report(disturbed)?;
    let mut verdict = None;
    stage.lines(dummies, |line: Verdict| verdict = Some(line))?;
    let verdict = verdict.unwrap_or(Verdict { repelled: 0, slowest_end_us: 0 });
    settle(house, 0);

    let figures = house.figures();
    let slow = figures.leaves[usize::from(LeaveReason::SlowConsumer.code())];
    let pool_after = figures.pool.in_use.bytes as u64;
    let expected = honest * u64::from(BROADCAST.per_second) * seconds;
    let heard = disturbed.broadcasts;
    Ok(vec![
        Line::exactly("left as slow consumers", slow, deaf),
        Line::exactly("saw their end", verdict.repelled, deaf),
        Line::new(
            "the longest that one was suffered",
            format!("{:.1} s", verdict.slowest_end_us as f64 / 1e6),
            &format!("{:.1} s", in_time.as_secs_f64()),
            verdict.slowest_end_us > 0 && verdict.slowest_end_us as f64 / 1e6 <= in_time.as_secs_f64(),
        ),
        Line::within("honest p99", quiet.latency.p99_us, disturbed.latency.p99_us, 20),
        Line::exactly("honest connections that failed", quiet.failed + disturbed.failed, 0),
        Line::new(
            "messages to everybody that the honest heard",
            heard,
            &format!("{expected}, within 2 %"),
            heard.abs_diff(expected) * 50 <= expected,
        ),
        Line::new(
            "bytes in packets when all are gone",
            pool_after,
            &format!("{pool_before} as before"),
            pool_after <= pool_before,
        ),
    ])
}

/// Waits until so many are joined and nobody is on the way out; the lines say what became of it if that does not come.
fn settle(house: &House, sessions: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let settled = || {
        let figures = house.figures();
        figures.sessions >= sessions && (sessions > 0 || figures.sessions + figures.sessions_leaving == 0)
    };
    while !settled() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
}
