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
mod fair;
mod memory;
mod stall;
mod table;

use std::time::Duration;

pub(crate) use bell::{Bell, Signal};
pub(crate) use fair::Fair;
pub(crate) use memory::Memory;
pub(crate) use stall::Stall;
pub(crate) use table::{Place, Table};

use crate::{Completion, Time, Wait, host};

/// While gathering for a tick, how long the sockets are left alone at most: twenty looks in a 20 ms tick.
const NAP: Duration = Duration::from_millis(1);

/// What [`poll`] asks of such a driver. Its *doors* are where peers come in: listeners.
pub(crate) trait Turns {
    type Signal: Signal;

    fn fair(&mut self) -> &mut Fair;

    fn memory(&mut self) -> &mut Memory;

    /// Accepts and tells, at most until `out` has `limit` entries.
    fn tell_doors(&mut self, out: &mut Vec<Completion>, limit: usize);

    fn are_doors_due(&self) -> bool;

    /// Connections that have something to try or to tell.
    fn connections_due(&self) -> usize;

    /// Tries and tells what is due of the next one, at most until `out` has `limit` entries. Answers whether a read was cut by
    /// its room.
    fn tell_connection(&mut self, out: &mut Vec<Completion>, limit: usize) -> bool;

    /// Asks the system what happened, sleeping up to `span` (`None`: until something does).
    fn look(&mut self, span: Option<Duration>);

    /// When something that is put off is to be tried again.
    fn retry_at(&self) -> Option<Time>;

    fn bell(&self) -> &Bell<Self::Signal>;
}

/// Tells at most `max` completions, sleeping as `wait` says. What was lent before is given back.
pub(crate) fn poll(turns: &mut impl Turns, out: &mut Vec<Completion>, max: usize, wait: Wait) {
    let start = out.len();
    let limit = start + max;
    let enough = start + (wait.at_least as usize).clamp(1, max.max(1)).min(max);
    turns.memory().rewind();
    if turns.fair().owes_a_look() {
        look(turns, Some(Duration::ZERO));
    }
    let mut go_on = true;
    loop {
        tell(turns, out, limit);
        if out.len() >= enough || turns.memory().is_used_up() || !go_on {
            return;
        }
        go_on = rest(turns, wait, out.len() > start);
    }
}

/// Tries and tells what is due, every due place once, at most until `out` has `limit` entries.
fn tell(turns: &mut impl Turns, out: &mut Vec<Completion>, limit: usize) {
    let told_before = out.len();
    let doors_first = turns.fair().doors_go_first();
    if doors_first {
        turns.tell_doors(out, limit);
    }
    for _ in 0..turns.connections_due() {
        if out.len() == limit || turns.memory().is_used_up() {
            break;
        }
        let was_cut = turns.tell_connection(out, limit);
        turns.fair().told_connection(was_cut);
    }
    if !doors_first {
        turns.tell_doors(out, limit);
    }
    turns.fair().told(out.len() - told_before);
}

fn look(turns: &mut impl Turns, span: Option<Duration>) {
    turns.fair().looked();
    turns.look(span);
}

/// Nothing more can be told for now: sleeps as `wait` says and looks. Answers whether the poll may go on after the next
/// telling; not when its time has come or somebody rang. `gathering`: something is told already, but fewer than wanted.
fn rest(turns: &mut impl Turns, wait: Wait, gathering: bool) -> bool {
    let left = wait.until.map(|until| until - host::now());
    if left == Some(Duration::ZERO) {
        look(turns, left);
        return false;
    }
    if turns.connections_due() > 0 || turns.are_doors_due() {
        look(turns, Some(Duration::ZERO));
        return true;
    }
    if gathering {
        // Without a deadline the hint could hold back for ever what is there.
        let Some(left) = left else { return false };
        let rung = turns.bell().nap(left.min(NAP));
        look(turns, Some(Duration::ZERO));
        return !rung;
    }
    let until_retry = turns.retry_at().map(|retry_at| retry_at - host::now());
    let span = [left, until_retry].into_iter().flatten().min();
    let may_sleep = turns.bell().lie_down();
    look(turns, if may_sleep { span } else { Some(Duration::ZERO) });
    !turns.bell().get_up()
}
