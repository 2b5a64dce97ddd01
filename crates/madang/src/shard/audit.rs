//! Looking into a shard from the simulation: the invariants of its inner state, and what must be nothing at its end.

use madang_driver::Driver;

use super::Shard;
use crate::gate::{Counted, Gate};
use crate::session::{Gait, Life};

impl<D: Driver> Shard<D> {
    /// Checks what must hold between any two steps of a shard's turn; the rule that is broken, and where.
    pub(crate) fn audit(&self, inbox_max: usize) -> Result<(), (&'static str, String)> {
        let core = &self.core;
        let fail = |rule, what: String| Err((rule, what));
        if !(core.decided.is_empty() && core.to_hold.is_empty() && core.errors.is_empty()) {
            return fail("settled", "something that was decided was not done".to_owned());
        }
        let settings = &core.fabric.settings;
        let mut in_flight =
            self.embryos.in_flight() + usize::from(self.gate.as_ref().is_some_and(|gate| !gate.is_closed()));
        let mut queued = 0;
        for local in 0..core.sessions.end() {
            let Some(session) = core.sessions.get(local) else { continue };
            let id = session.id;
            in_flight += usize::from(session.receiving) + usize::from(session.sending);
            let starves = self.starved.iter().any(|(conn, _)| *conn == session.conn);
            let reads = session.receiving || starves || session.eof;
            match session.life {
                Life::Joining => return fail("I5", format!("{id} is still joining after the turn")),
                Life::Leaving(Gait::Decided { .. }) => {
                    return fail("settled", format!("{id}'s leave did not begin"));
                }
                Life::Joined if !reads && session.holds == 0 => {
                    return fail("I10", format!("{id} neither receives nor waits for a buffer"));
                }
                Life::Leaving(Gait::Draining) if !reads => {
                    return fail("I10", format!("{id} drains, but reads nothing"));
                }
                _ => {}
            }
            if !session.outbox.is_empty() && !session.sending && !session.dirty {
                return fail("I11", format!("{id} has messages queued, and nothing will send them"));
            }
            if session.dirty && !core.dirty.contains(&local) {
                return fail("I11", format!("{id} is marked for the flush and not listed"));
            }
            if session.outbox.bytes() > settings.queue_hard_bytes + (4 << 10) + Self::PONG_QUEUE_MAX * 12 {
                return fail("I8", format!("{id} has {} bytes queued", session.outbox.bytes()));
            }
            if session.inbox.as_ref().is_some_and(|inbox| inbox.len() > inbox_max) {
                return fail(
                    "I8",
                    format!(
                        "{id} keeps {} bytes of input",
                        session.inbox.as_ref().map_or(0, |inbox| inbox.len())
                    ),
                );
            }
            if core.queues.messages(&session.outbox) > settings.queue_hard_messages {
                return fail("I8", format!("{id} has more messages queued than it may"));
            }
            queued += session.outbox.bytes();
            let throttle = core.sessions.peek(local).and_then(|details| details.flood?.timer);
            if throttle.is_some_and(|timer| !session.is_leaving() && !core.timers.is_set(timer)) {
                return fail("I10", format!("{id} was held for sending too much, and nothing will lift it"));
            }
            let live = core.fabric.directory.is_live(id);
            if session.is_leaving() && live {
                return fail("I12", format!("{id} leaves, but its name is still good"));
            }
        }
        if queued != core.queues.bytes() {
            return fail("I8", format!("{queued} bytes are queued, and {} are counted", core.queues.bytes()));
        }
        if let Some(what) = self.embryos.broken(core.now, inbox_max) {
            return fail("I13", what);
        }
        in_flight -= self.unsent.len();
        let told = self.driver.figures().in_flight;
        if in_flight != told {
            return fail(
                "I6",
                format!("the shard counts {in_flight} operations in flight, the driver {told}"),
            );
        }
        let mailbox = &core.fabric.mailboxes[core.shard];
        if mailbox.is_asleep() && !mailbox.is_empty() {
            return fail(
                "I10",
                format!("letters wait for shard {}, which sleeps and was not woken", core.shard),
            );
        }
        Ok(())
    }

    /// Its sessions, as the gate counts them.
    pub(crate) fn counted(&self) -> impl Iterator<Item = Counted> {
        let sessions = &self.core.sessions;
        (0..sessions.end()).filter_map(|local| {
            let (session, details) = (sessions.get(local)?, sessions.peek(local)?);
            Some(Counted { at: details.counted_at(), leaves: session.is_leaving() })
        })
    }

    /// Whether no letter is on its way to it.
    pub(crate) fn has_read_all(&self) -> bool {
        self.core.words.is_empty() && self.core.fabric.mailboxes[self.core.shard].is_empty()
    }

    /// The gate, where it stands.
    pub(crate) fn gate(&self) -> Option<&Gate> {
        self.gate.as_ref()
    }

    /// What is not back to nothing although the shard has ended in good order.
    pub(crate) fn left_over(&self) -> Vec<String> {
        let core = &self.core;
        let gate_balanced = self.gate.as_ref().is_none_or(Gate::is_balanced);
        let counts = [
            ("sessions", core.sessions.live()),
            ("embryos", self.embryos.len()),
            ("timers", core.timers.len()),
            ("groups", core.groups.len()),
            ("queued bytes", core.queues.bytes()),
            ("unsent sends", self.unsent.len()),
            ("places of the gate", usize::from(!gate_balanced)),
            ("letters", core.fabric.mailboxes[core.shard].len()),
            ("words", core.words.len()),
        ];
        counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}")).collect()
    }

    /// Whether nothing is under way: no leave, no embryo, no queue.
    pub(crate) fn is_quiet(&self) -> bool {
        let core = &self.core;
        let leaving = (0..core.sessions.end())
            .any(|local| core.sessions.get(local).is_some_and(|session| session.is_leaving()));
        !leaving
            && self.embryos.is_empty()
            && core.queues.bytes() == 0
            && self.unsent.is_empty()
            && core.pressure.is_off()
            && core.lag.is_calm()
            && core.fabric.mailboxes[core.shard].is_empty()
            && core.words.is_empty()
    }
}

/// What a shard looks like inside, for the end of a failed run's trace.
impl<D: Driver> std::fmt::Debug for Shard<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let core = &self.core;
        write!(f, "at {:?}: ", core.now)?;
        for session in (0..core.sessions.end()).filter_map(|local| core.sessions.get(local)) {
            write!(
                f,
                "[{} {:?} {:?} receiving {} sending {} paused {} eof {} holds {} dirty {} queued {} inbox {:?}] ",
                session.id,
                session.conn,
                session.life,
                session.receiving,
                session.sending,
                session.paused,
                session.eof,
                session.holds,
                session.dirty,
                session.outbox.len(),
                session.inbox.as_ref().map(|inbox| inbox.len()),
            )?;
        }
        write!(
            f,
            "{} embryos, {} letters, starved {:?} until {:?}, unsent {} until {:?}, next timer {:?}, driver {:?}",
            self.embryos.len(),
            core.fabric.mailboxes[core.shard].len(),
            self.starved,
            self.starved_until,
            self.unsent.len(),
            self.unsent_until,
            core.timers.next(),
            self.driver.figures(),
        )
    }
}
