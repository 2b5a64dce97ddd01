//! A server of 100 places and 1,000 clients: they wait, hear that they move up, and get in in the order in which they came,
//! those too who lost their link for two seconds.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::line::Line;
use super::stage::Stage;

const PLACES: u64 = 100;
const CLIENTS: u64 = 1_000;

/// Every tenth of those who are far enough back loses its link; at least so many of a thousand must have.
const CAME_BACK_LEAST: u64 = 20;

/// Clients read their welcome on threads of their own, and who came in together goes together: a whole house is let in at
/// once, and who of it counts himself first is up to the system. It is never fewer than the threads of a busy machine need.
const OUT_OF_ORDER_LEAST: u64 = 30;

/// What the dummies say of it.
#[derive(Debug, Default, Deserialize)]
struct Verdict {
    connections: u64,
    waited: u64,
    came_back: u64,
    out_of_order_most: u64,
    failed: BTreeMap<String, u64>,
}

pub(super) fn play(stage: &Stage<'_>) -> anyhow::Result<Vec<Line>> {
    let (places, clients) = (stage.scaled(PLACES), stage.scaled(CLIENTS));
    let house = stage.open(|settings| {
        settings.max_sessions = places as usize;
        settings.queue_max = clients as usize;
        settings.queue_update_ms = 250;
        settings.queue_grace_ms = 10_000;
    })?;
    // Each plays for a second, all of them in so many turns; and they come one after the other.
    let seconds = clients / places + 60;
    let mut verdict = Verdict::default();
    stage.lines(stage.dummies(&house, "queue", clients, seconds)?, |line| verdict = line)?;
    let Verdict { connections, waited, came_back, out_of_order_most, failed } = verdict;
    let failed: Vec<_> = failed.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let back_least = stage.scaled(CAME_BACK_LEAST);
    let out_of_order = places.max(OUT_OF_ORDER_LEAST);
    let wait_least = clients.saturating_sub(places + clients / 10);
    let lines = vec![
        Line::exactly("clients that got in", connections, clients),
        Line::new("those who waited", waited, &format!("at least {wait_least}"), waited >= wait_least),
        Line::new(
            "turns lost, and positions that rose",
            format!("{} {}", failed.len(), failed.join(", ")),
            "0",
            failed.is_empty(),
        ),
        Line::new(
            "lost their link for two seconds and had their turn back",
            came_back,
            &format!("at least {back_least}"),
            came_back >= back_least,
        ),
        Line::new(
            "places out of order",
            format!("{out_of_order_most} at the most"),
            &format!("{out_of_order} at the most: a house that goes and comes at once"),
            out_of_order_most <= out_of_order,
        ),
        house.close()?,
    ];
    Ok(lines)
}
