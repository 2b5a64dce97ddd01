//! Rules that are looked at from time to time, and in a world at rest.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Ledger, Stage};

impl Ledger {
    /// Rules that are looked at when the world pauses: what was decided has happened in time.
    pub(in crate::simulation) fn look(&mut self, slack: Duration) {
        let now = self.now;
        let overdue = self.alive.iter().find(|id| {
            let tale = &self.sessions[id];
            let patience = self.houses[tale.house].leave_timeout + slack;
            tale.cut_at.is_some_and(|at| now.since(at) > patience)
        });
        if let Some(id) = overdue.copied() {
            self.fail("S8", format!("{id} was disconnected and has not left"));
        }
    }

    /// Rules of a world that is at rest: nothing that was accepted is still on its way.
    ///
    /// When the server is full, whoever connects without being let in comes and goes, and its client's half of it too.
    pub(in crate::simulation) fn look_at_rest(&self, is_full: bool) -> Result<(), String> {
        for id in &self.alive {
            let tale = &self.sessions[id];
            if is_full && !self.houses[tale.house].is_server {
                continue;
            }
            if tale.stage != Stage::Joined {
                return Err(format!("{id} is still {:?}", tale.stage));
            }
            if tale.cut_at.is_some() {
                return Err(format!("{id} is still leaving"));
            }
            let is_late = |owed: &VecDeque<u32>| owed.front().is_some_and(|number| *number < self.healed_at);
            if let Some((stream, owed)) = tale.owed.iter().find(|(_, owed)| is_late(owed)) {
                return Err(format!("message {} of stream {stream} never reaches {id}'s peer", owed[0]));
            }
            if let Some((_, events)) = tale.events.iter().find(|(_, events)| !events.is_empty()) {
                return Err(format!("event {} never reaches {id}", events[0]));
            }
            if tale.holds > 0 {
                return Err(format!("{id} is still held by a job"));
            }
            if let Some((key, at)) =
                tale.timers.iter().find(|(_, at)| **at + Duration::from_secs(2) < self.now)
            {
                return Err(format!("{id}: timer {key}, due at {at:?}, never fires"));
            }
            if !tale.has_answer {
                return Err(format!("{id} has exchanged no marker"));
            }
        }
        Ok(())
    }

    /// The newest life of a node is the only one: an older one's session is not here any more.
    pub(in crate::simulation) fn look_at_nodes(&self) -> Result<(), String> {
        for id in &self.alive {
            let tale = &self.sessions[id];
            if !self.houses[tale.house].is_server {
                continue;
            }
            if let Some((name, incarnation)) = &tale.node {
                let newest = self.newest[name];
                if newest > *incarnation {
                    return Err(format!(
                        "{id} is life {incarnation} of node {name}, though life {newest} has joined"
                    ));
                }
            }
        }
        Ok(())
    }
}
