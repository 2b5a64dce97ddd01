//! The poll of a driver that has what it tells in queues of its own: readiness, whose edges set flags, and completion
//! ports, whose packets do.
//!
//! ```text
//!   poll ──► tell what is due ──► enough? ──► done
//!               ▲                   │ no
//!               └── look: edges, ◄──┘ sleeping as the wait says
//!                   packets
//! ```

mod bell;
mod memory;
mod stall;
mod table;

use std::time::Duration;

pub(crate) use bell::{Bell, Signal};
pub(crate) use memory::Memory;
pub(crate) use stall::Stall;
pub(crate) use table::{Place, Table};

use crate::{Completion, Time, Wait, host};

/// While gathering for a tick, how long the sockets are left alone at most: twenty looks in a 20 ms tick.
const NAP: Duration = Duration::from_millis(1);

/// What [`poll`] asks of such a driver.
pub(crate) trait Turns {
    type Signal: Signal;

    /// Tries and tells what is due, every due place once, at most until `out` has `limit` entries.
    fn tell(&mut self, out: &mut Vec<Completion>, limit: usize);

    fn is_anything_due(&self) -> bool;

    /// Whether nothing more can be received until the next poll.
    fn is_memory_used_up(&self) -> bool;

    /// Asks the system what happened, sleeping up to `span` (`None`: until something does).
    fn look(&mut self, span: Option<Duration>);

    /// When something that is put off is to be tried again.
    fn retry_at(&self) -> Option<Time>;

    fn bell(&self) -> &Bell<Self::Signal>;
}

/// Tells at most `max` completions, sleeping as `wait` says.
pub(crate) fn poll(turns: &mut impl Turns, out: &mut Vec<Completion>, max: usize, wait: Wait) {
    let start = out.len();
    let limit = start + max;
    let enough = start + (wait.at_least as usize).clamp(1, max.max(1)).min(max);
    let mut go_on = true;
    loop {
        turns.tell(out, limit);
        if out.len() >= enough || turns.is_memory_used_up() || !go_on {
            return;
        }
        go_on = rest(turns, wait, out.len() > start);
    }
}

/// Nothing more can be told for now: sleeps as `wait` says and looks. Answers whether the poll may go on after the next
/// telling; not when its time has come or somebody rang. `gathering`: something is told already, but fewer than wanted.
fn rest(turns: &mut impl Turns, wait: Wait, gathering: bool) -> bool {
    let left = wait.until.map(|until| until - host::now());
    if left == Some(Duration::ZERO) {
        turns.look(left);
        return false;
    }
    if turns.is_anything_due() {
        turns.look(Some(Duration::ZERO));
        return true;
    }
    if gathering {
        // Without a deadline the hint could hold back for ever what is there.
        let Some(left) = left else { return false };
        let rung = turns.bell().nap(left.min(NAP));
        turns.look(Some(Duration::ZERO));
        return !rung;
    }
    let until_retry = turns.retry_at().map(|retry_at| retry_at - host::now());
    let span = [left, until_retry].into_iter().flatten().min();
    let may_sleep = turns.bell().lie_down();
    turns.look(if may_sleep { span } else { Some(Duration::ZERO) });
    !turns.bell().get_up()
}
