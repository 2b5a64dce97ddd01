//! Groups: sets of sessions that a broadcast reaches with one call.

use std::collections::BTreeMap;

/// The name of a group, chosen by content: a room number, a guild, a map. A group exists while it has members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u64);

/// One shard's members of every group. A broadcast is one entry in each shard's mailbox, and each shard walks its own
/// members; joining and leaving cost one push or one swap.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    members: BTreeMap<GroupId, Vec<u32>>,
}

/// What a session remembers of its membership: the group, and its place among the members.
pub(crate) type Membership = (GroupId, u32);

impl Groups {
    /// Adds the session in slot `local`; it must not be in the group.
    pub(crate) fn join(&mut self, group: GroupId, local: u32) -> Membership {
        let members = self.members.entry(group).or_default();
        members.push(local);
        (group, members.len() as u32 - 1)
    }

    /// Takes a member out. Answers who moved into its place, if anybody: that session's membership is to be corrected.
    pub(crate) fn leave(&mut self, (group, place): Membership) -> Option<u32> {
        let members = self.members.get_mut(&group).expect("a membership names a group that has members");
        members.swap_remove(place as usize);
        let moved = members.get(place as usize).copied();
        if members.is_empty() {
            self.members.remove(&group);
        }
        moved
    }

    /// Lends the members out for a walk that may need the rest of the shard; nobody joins or leaves meanwhile.
    pub(crate) fn take(&mut self, group: GroupId) -> Vec<u32> {
        self.members.get_mut(&group).map_or_else(Vec::new, std::mem::take)
    }

    /// Ends the walk.
    pub(crate) fn put_back(&mut self, group: GroupId, members: Vec<u32>) {
        if let Some(place) = self.members.get_mut(&group) {
            *place = members;
        }
    }

    #[cfg(feature = "simulation")]
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }
}
