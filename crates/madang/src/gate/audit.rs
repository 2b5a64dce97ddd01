//! Looking into the gate from the simulation: its counts, against what is there.

use std::net::IpAddr;

use super::Gate;
use super::guests::Stage;
use super::queue::Presence;

/// A session as the gate counts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    /// The address whose prefix it is counted in; none of one that is exempt.
    pub(crate) at: Option<IpAddr>,
    /// Its leave has begun.
    pub(crate) leaves: bool,
}

impl Gate {
    /// Whether its counts are what its guests, the absent waiters and the `sessions` of all shards come to. They are while no
    /// letter is under way.
    pub(crate) fn audit(&self, sessions: &[Counted]) -> Result<(), String> {
        let leaving = sessions.iter().filter(|session| session.leaves).count();
        let placed = self.guests.iter().filter(|guest| guest.stage == Stage::Placed).count();
        let taken = sessions.len() - leaving + placed;
        if (self.places.taken, self.places.leaving) != (taken, leaving) {
            return Err(format!(
                "{} places are taken and {} are left behind, for {taken} and {leaving}",
                self.places.taken, self.places.leaving
            ));
        }
        let limited = self.guests.iter().filter(|guest| !guest.exempt);
        let guests =
            limited.map(|guest| (guest.address, guest.stage == Stage::Unproven, guest.stage.is_leaving()));
        let absent = self.waiting.queue.waiters().filter_map(|waiter| match waiter.presence {
            Presence::Absent { counted_at, .. } => counted_at.map(|at| (at, false, false)),
            Presence::Here { .. } => None,
        });
        let sessions = sessions.iter().filter_map(|session| Some((session.at?, false, session.leaves)));
        self.limits.counts(guests.chain(absent).chain(sessions))
    }
}
