//! Everybody whom the gate let through its door and who has not joined.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use madang_driver::Time;

use super::limits::Net;

/// How long a stranger may stay before he makes way for another: the first bytes of an honest one take one round trip, a
/// third of a second around the world, and the time of a busy machine.
const STAY: Duration = Duration::from_millis(500);

/// Names a guest from the accept until he has joined or is gone; never used twice.
pub(crate) type GuestId = u64;

#[derive(Debug, Clone, Copy)]
pub(super) struct Guest {
    /// Valid once he was given to one.
    pub(super) shard: usize,
    pub(super) address: IpAddr,
    pub(super) since: Time,
    pub(super) exempt: bool,
    /// Who has more of it waits ahead.
    pub(super) priority: u8,
    pub(super) stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// He has not proven who he is.
    Unproven,
    /// He was told to make way, and is on his way out.
    Evicted,
    /// He came back over another connection, and this one is on its way out.
    Replaced,
    /// He was told no, and is to hang up.
    Refused,
    /// He wants a place, and waits for one on the doorstep if he must.
    Waits,
    /// He waits in the waiting queue, which has room of its own.
    Queued,
    /// A place is taken for him.
    Placed,
}

impl Stage {
    /// Whether he makes way for strangers: he has nothing to lose here.
    fn makes_way(self) -> bool {
        matches!(self, Stage::Unproven | Stage::Refused)
    }

    /// Whether he is on his way out.
    pub(super) fn is_leaving(self) -> bool {
        matches!(self, Stage::Evicted | Stage::Replaced | Stage::Refused)
    }
}

#[derive(Debug, Default)]
pub(super) struct Guests {
    guests: BTreeMap<GuestId, Guest>,
    last: GuestId,
    /// Those who were told to go at once.
    evicted: usize,
    queued: usize,
    crowds: Crowds,
}

impl Guests {
    pub(super) fn add(&mut self, guest: Guest) -> GuestId {
        self.last += 1;
        if guest.stage.makes_way() && !guest.exempt {
            self.crowds.add(Net::wide(guest.address), self.last);
        }
        self.guests.insert(self.last, guest);
        self.last
    }

    #[cfg(feature = "simulation")]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Guest> {
        self.guests.values()
    }

    pub(super) fn get(&self, id: GuestId) -> Option<&Guest> {
        self.guests.get(&id)
    }

    /// Moves a guest on to a later stage. Answers what he was before.
    pub(super) fn set_stage(&mut self, id: GuestId, stage: Stage) -> Guest {
        let guest = self.guests.get_mut(&id).expect("a guest has a name until he is gone");
        if guest.stage.makes_way() != stage.makes_way() && !guest.exempt {
            let net = Net::wide(guest.address);
            if stage.makes_way() { self.crowds.add(net, id) } else { self.crowds.remove(net, id) }
        }
        count(&mut self.evicted, &mut self.queued, guest.stage, |count| *count -= 1);
        count(&mut self.evicted, &mut self.queued, stage, |count| *count += 1);
        std::mem::replace(guest, Guest { stage, ..*guest })
    }

    /// What he has proven may have him wait ahead of others.
    pub(super) fn raise(&mut self, id: GuestId, priority: u8) {
        if let Some(guest) = self.guests.get_mut(&id) {
            guest.priority = guest.priority.max(priority);
        }
    }

    pub(super) fn set_shard(&mut self, id: GuestId, shard: usize) -> &Guest {
        let guest = self.guests.get_mut(&id).expect("a guest has a name until he is gone");
        guest.shard = shard;
        guest
    }

    /// He has joined, or is gone.
    pub(super) fn remove(&mut self, id: GuestId) -> Option<Guest> {
        let guest = self.guests.remove(&id)?;
        if guest.stage.makes_way() && !guest.exempt {
            self.crowds.remove(Net::wide(guest.address), id);
        }
        count(&mut self.evicted, &mut self.queued, guest.stage, |count| *count -= 1);
        Some(guest)
    }

    /// Those that take the room of strangers: neither queued nor told to go at once.
    pub(super) fn staying(&self) -> usize {
        self.guests.len() - self.evicted - self.queued
    }

    pub(super) fn evicted(&self) -> usize {
        self.evicted
    }

    pub(super) fn is_empty(&self) -> bool {
        self.guests.is_empty()
    }

    /// Who makes way when there is no room for another stranger: of the neighbourhood that most strangers come from, the
    /// one who has been here longest and has proven nothing, or was refused and stays on. Nobody, while that one has just
    /// come, unless his neighbourhood is a crowd of more than `crowd`: if everybody made way at once, a flood would leave
    /// nobody the time to greet.
    pub(super) fn least_welcome(&self, now: Time, crowd: u32) -> Option<GuestId> {
        let (size, oldest) = self.crowds.oldest_of_largest()?;
        let since = self.guests.get(&oldest)?.since;
        (size > crowd || now.since(since) >= STAY).then_some(oldest)
    }
}

/// Strangers by the neighbourhood that they come from. Among neighbourhoods of one size the one with the oldest stranger is
/// the largest, so that in a flood from everywhere the oldest of all makes way.
#[derive(Debug, Default)]
struct Crowds {
    sizes: BTreeMap<Net, u32>,
    members: BTreeSet<(Net, GuestId)>,
    /// By size and oldest member.
    ranking: BTreeSet<(u32, Reverse<GuestId>, Net)>,
}

impl Crowds {
    fn add(&mut self, net: Net, id: GuestId) {
        self.change(net, |members, size| {
            members.insert((net, id));
            *size += 1;
        });
    }

    fn remove(&mut self, net: Net, id: GuestId) {
        self.change(net, |members, size| {
            members.remove(&(net, id));
            *size -= 1;
        });
    }

    fn change(&mut self, net: Net, change: impl FnOnce(&mut BTreeSet<(Net, GuestId)>, &mut u32)) {
        let size = self.sizes.entry(net).or_default();
        if let Some(oldest) = oldest(&self.members, net) {
            self.ranking.remove(&(*size, Reverse(oldest), net));
        }
        change(&mut self.members, size);
        match oldest(&self.members, net) {
            Some(oldest) => {
                self.ranking.insert((*size, Reverse(oldest), net));
            }
            None => {
                self.sizes.remove(&net);
            }
        }
    }

    fn oldest_of_largest(&self) -> Option<(u32, GuestId)> {
        self.ranking.last().map(|(size, Reverse(oldest), _)| (*size, *oldest))
    }
}

fn count(evicted: &mut usize, queued: &mut usize, stage: Stage, change: impl Fn(&mut usize)) {
    match stage {
        Stage::Evicted | Stage::Replaced => change(evicted),
        Stage::Queued => change(queued),
        Stage::Unproven | Stage::Refused | Stage::Waits | Stage::Placed => {}
    }
}

fn oldest(members: &BTreeSet<(Net, GuestId)>, net: Net) -> Option<GuestId> {
    members.range((net, 0)..).next().filter(|(other, _)| *other == net).map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger(address: [u8; 4], milliseconds: u64) -> Guest {
        let since = Time::from_nanos(milliseconds * 1_000_000);
        Guest { shard: 0, address: address.into(), since, exempt: false, priority: 0, stage: Stage::Unproven }
    }

    #[test]
    fn b08_the_oldest_of_the_busiest_neighbourhood_makes_way() {
        let mut guests = Guests::default();
        let honest = guests.add(stranger([9, 0, 0, 1], 0));
        let flood: Vec<GuestId> = (1..=3).map(|last| guests.add(stranger([1, 1, 1, last], 0))).collect();
        let exempt: Vec<GuestId> =
            (0..9).map(|_| guests.add(Guest { exempt: true, ..stranger([2, 2, 2, 2], 0) })).collect();
        let later = Time::from_nanos(10_000_000_000);
        assert_eq!(guests.least_welcome(later, 100), Some(flood[0]));
        guests.set_stage(flood[0], Stage::Evicted);
        assert_eq!((guests.least_welcome(later, 100), guests.staying()), (Some(flood[1]), 12));
        guests.set_stage(flood[1], Stage::Waits);
        // He was told no, and hangs about.
        guests.set_stage(flood[1], Stage::Refused);
        assert_eq!((guests.least_welcome(later, 100), guests.staying()), (Some(flood[1]), 12));
        guests.set_stage(flood[1], Stage::Evicted);
        // One each: the oldest of all.
        assert_eq!(guests.least_welcome(later, 100), Some(honest));
        guests.remove(honest);
        assert_eq!(guests.least_welcome(later, 100), Some(flood[2]));
        guests.remove(flood[2]);
        assert_eq!(guests.least_welcome(later, 100), None, "neither the exempt nor those who wait or go");
        for id in exempt.into_iter().chain([flood[0], flood[1]]) {
            guests.remove(id);
        }
        assert!(guests.is_empty() && guests.evicted() == 0);
        assert!(guests.crowds.sizes.is_empty() && guests.crowds.ranking.is_empty());
    }

    #[test]
    fn b08_who_has_just_come_stays_unless_he_is_one_of_a_crowd() {
        let mut guests = Guests::default();
        let first = guests.add(stranger([1, 1, 1, 1], 1_000));
        guests.add(stranger([1, 1, 1, 2], 1_000));
        let at = |milliseconds: u64| Time::from_nanos(milliseconds * 1_000_000);
        assert_eq!(guests.least_welcome(at(1_499), 2), None);
        assert_eq!(guests.least_welcome(at(1_500), 2), Some(first));
        assert_eq!(guests.least_welcome(at(1_000), 1), Some(first));
    }
}
