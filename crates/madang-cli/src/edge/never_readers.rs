//! Clients that do not read: 500 of them, under 20 messages a second to everybody, beside 500 that do.
//!
//! A message to everybody is so many sends in a row, some milliseconds in which an echo waits; twice as many sessions are
//! twice as long a row, whoever they are. What must not be is that those who do not read cost the others more than as many
//! who read: that is what the honest are compared with, and what they see alone is told beside it.

use std::time::{Duration, Instant};

use madang::LeaveReason;
use serde::Deserialize;

use super::line::Line;
use super::parts::{Of, Side};
use super::stage::{House, Stage};
use crate::serve::broadcast::Broadcast;
use crate::serve::end::End;
use crate::signals::Signals;

const DEAF: u64 = 500;
const HERTZ: u64 = 4;
const BROADCAST: Broadcast = Broadcast { per_second: 20, bytes: 1_200 };

/// What the kernels of both sides hold for one who does not read, about: small, or it takes minutes to notice.
const SEND_BUFFER: usize = 32 * 1024;
const KERNEL_BYTES: u64 = 128 * 1024;

/// A round takes half a minute, and its parts are long.
const ROUNDS_MOST: u64 = 6;

/// Until the last of them is noticed and gone.
const SLACK: Duration = Duration::from_secs(3);

/// What the dummies say of it.
#[derive(Debug, Deserialize)]
struct Verdict {
    repelled: u64,
    slowest_end_us: u64,
}

pub(super) fn play(stage: &Stage<'_>) -> anyhow::Result<Vec<Line>> {
    let (deaf, honest) = (stage.scaled(DEAF), stage.joined());
    let house = stage.open(|settings| settings.send_buffer_bytes = SEND_BUFFER)?;
    // What is sent fills the kernels, then the soft limit, which is suffered for a time.
    let bytes = KERNEL_BYTES + house.settings().queue_soft_bytes as u64;
    let a_second = u64::from(BROADCAST.per_second) * BROADCAST.bytes as u64;
    let in_time = Duration::from_millis(bytes * 1_000 / a_second + house.settings().queue_soft_ms) + SLACK;
    std::thread::scope(|scope| {
        let end = Signals::default();
        let (remote, ends) = (house.remote(), end.clone());
        scope.spawn(move || BROADCAST.run(&remote, End::of(&ends, None)));
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
    settle(house, 0);
    let pool_before = house.figures().pool.in_use.bytes as u64;
    let rounds = stage.options.rounds.min(ROUNDS_MOST);
    let (mut alone, mut beside_readers, mut beside_deaf) =
        (Side::default(), Side::default(), Side::default());
    let (mut repelled, mut slowest_end) = (0, 0.0_f64);

    let crowd = stage.guided(house, &stage.joined_crowd(HERTZ))?;
    crowd.until("it speaks", |live| live.messages_per_second > 0.0)?;
    for round in 0..rounds {
        let mut parts: [&mut dyn FnMut() -> anyhow::Result<()>; 3] = [
            &mut || {
                alone.add(crowd.seconds(stage.options.seconds)?);
                Ok(())
            },
            &mut || {
                let readers =
                    stage.yielding(house, &format!("--connections {deaf} --rate 20 --spread 50"))?;
                readers.until("all are here", |live| live.connections as u64 == deaf)?;
                beside_readers.add(crowd.seconds(stage.options.seconds)?);
                anyhow::ensure!(readers.end()?.failed == 0, "those who read did not stay");
                settle(house, honest);
                Ok(())
            },
            &mut || {
                let dummies = stage.dummies(house, "deaf", deaf, in_time.as_secs() + 20)?;
                settle(house, honest + deaf);
                // As long as one of them is here.
                beside_deaf.add(crowd.while_so(|| house.figures().sessions > honest)?);
                stage.lines(dummies, |line: Verdict| {
                    repelled += line.repelled;
                    slowest_end = slowest_end.max(line.slowest_end_us as f64 / 1e6);
                })
            },
        ];
        if round % 2 == 1 {
            parts.reverse();
        }
        parts.into_iter().try_for_each(|part| part())?;
    }
    let crowd = crowd.end()?;
    settle(house, 0);

    let figures = house.figures();
    let slow = figures.leaves[usize::from(LeaveReason::SlowConsumer.code())];
    let pool_after = figures.pool.in_use.bytes as u64;
    let expected = (honest as f64 * f64::from(BROADCAST.per_second) * crowd.seconds) as u64;
    let heard = crowd.broadcasts;
    Ok(vec![
        Line::exactly("left as slow consumers", slow, deaf * rounds),
        Line::exactly("saw their end", repelled, deaf * rounds),
        Line::new(
            "the longest that one was suffered",
            format!("{slowest_end:.1} s"),
            &format!("{:.1} s", in_time.as_secs_f64()),
            slowest_end > 0.0 && slowest_end <= in_time.as_secs_f64(),
        ),
        Line::within(
            "honest p99, as many who read beside them",
            Of::Echoes,
            &beside_readers,
            &beside_deaf,
            20,
        ),
        Line::beside("honest p99, nobody beside them", Of::Echoes, &alone, &beside_deaf),
        Line::beside("… when those beside them read", Of::Echoes, &alone, &beside_readers),
        Line::exactly("honest connections that failed", crowd.failed, 0),
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
