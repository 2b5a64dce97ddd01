//! Those who came while every place was taken, in the order in which they are let in.
//!
//! Without a waiting queue (`queue_max` = 0) this is the doorstep: a client that closes and comes back at once is here before
//! its old session's end was noticed, because the new connection and the old one's end arrive in any order, often on
//! different shards. So whoever finds no place waits for a moment, too short to be told of, and as many as the slack, since
//! more sessions than that cannot be on their way out. With a waiting queue nobody is turned away at once anyway, so one
//! line does both: the same people in the same order, who are told where they stand and stay.
//!
//! A waiter whose connection broke is *absent*: he keeps his turn for a while, and is passed over until he is back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use madang_driver::{Incoming, Time};

use super::guests::GuestId;
use crate::timers::TimerKey;
use crate::{Peer, Standing};

/// A waiter's place in the line: the higher priority first, then who came first. It is his for as long as he waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub(crate) priority: Reverse<u8>,
    pub(crate) number: u64,
}

pub(super) struct Waiter {
    pub(super) presence: Presence,
    /// Ends his patience on the doorstep, or his grace while he is absent.
    pub(super) timer: Option<TimerKey>,
    /// What he must show to have his turn back; none where he could not show it.
    pub(super) secret: Option<[u8; 16]>,
    /// The position that he was last told.
    pub(super) told: u32,
}

pub(super) enum Presence {
    Here {
        guest: GuestId,
        /// His socket, where no shard has it yet.
        incoming: Option<Incoming>,
    },
    Absent {
        peer: Box<Peer>,
        /// The address whose prefix he is counted in.
        counted_at: Option<IpAddr>,
    },
}

pub(super) struct Queue {
    max: usize,
    line: BTreeMap<Turn, Waiter>,
    /// Those who are here.
    present: BTreeSet<Turn>,
    by_guest: BTreeMap<GuestId, Turn>,
    /// How many wait, by priority.
    sizes: BTreeMap<Reverse<u8>, usize>,
    last: u64,
    /// When somebody was last let in, and how long it takes from one to the next.
    admitted: Option<Time>,
    interval: Option<Duration>,
}

impl Queue {
    pub(super) fn new(max: usize) -> Queue {
        Queue {
            max,
            line: BTreeMap::new(),
            present: BTreeSet::new(),
            by_guest: BTreeMap::new(),
            sizes: BTreeMap::new(),
            last: 0,
            admitted: None,
            interval: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.line.len() >= self.max
    }

    /// Whether somebody is here who could take a place.
    pub(super) fn has_present(&self) -> bool {
        !self.present.is_empty()
    }

    /// The turn of whoever comes now.
    pub(super) fn next_turn(&mut self, priority: u8) -> Turn {
        self.last += 1;
        Turn { priority: Reverse(priority), number: self.last }
    }

    /// Takes somebody in at his turn.
    pub(super) fn insert(&mut self, turn: Turn, waiter: Waiter) {
        if let Presence::Here { guest, .. } = waiter.presence {
            self.present.insert(turn);
            self.by_guest.insert(guest, turn);
        }
        *self.sizes.entry(turn.priority).or_default() += 1;
        let before = self.line.insert(turn, waiter);
        debug_assert!(before.is_none(), "a turn is one waiter's");
    }

    /// Lets somebody go, for good or to be changed.
    pub(super) fn remove(&mut self, turn: Turn) -> Option<Waiter> {
        let waiter = self.line.remove(&turn)?;
        if let Presence::Here { guest, .. } = waiter.presence {
            self.present.remove(&turn);
            self.by_guest.remove(&guest);
        }
        let size = self.sizes.get_mut(&turn.priority).expect("he was counted");
        *size -= 1;
        if *size == 0 {
            self.sizes.remove(&turn.priority);
        }
        if self.line.is_empty() {
            // A pause without anybody waiting says nothing about how long it takes.
            self.admitted = None;
        }
        Some(waiter)
    }

    #[cfg(feature = "simulation")]
    pub(super) fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.line.values()
    }

    pub(super) fn turn_of(&self, guest: GuestId) -> Option<Turn> {
        self.by_guest.get(&guest).copied()
    }

    pub(super) fn get_mut(&mut self, turn: Turn) -> Option<&mut Waiter> {
        self.line.get_mut(&turn)
    }

    /// Whose turn it is, of those who are here.
    pub(super) fn first(&self) -> Option<Turn> {
        self.present.first().copied()
    }

    /// Anybody: for emptying the line.
    pub(super) fn any(&self) -> Option<Turn> {
        self.line.first_key_value().map(|(turn, _)| *turn)
    }

    /// Somebody was let in.
    pub(super) fn admitted(&mut self, now: Time) {
        if let Some(last) = self.admitted.replace(now) {
            let step = now.since(last);
            self.interval = Some(self.interval.map_or(step, |usual| (usual * 7 + step) / 8));
        }
    }

    /// Where somebody stands. Those behind him are counted, so it is cheap for whoever has just come.
    pub(super) fn standing(&self, turn: Turn) -> Standing {
        let ahead: usize = self.sizes.range(..=turn.priority).map(|(_, size)| *size).sum();
        let last = Turn { number: u64::MAX, ..turn };
        let behind = self.line.range(turn..=last).count() - 1;
        self.standing_at(ahead - behind)
    }

    fn standing_at(&self, position: usize) -> Standing {
        let position = position as u32;
        let estimate = self.interval.map(|interval| interval.saturating_mul(position));
        Standing { position, length: self.line.len() as u32, estimate }
    }

    /// Those who stand elsewhere than they were told, of the next `most` waiters behind `after`; and the last one looked at,
    /// unless that was the last of all.
    pub(super) fn news(
        &mut self,
        after: Option<Turn>,
        most: usize,
    ) -> (Vec<(GuestId, Standing)>, Option<Turn>) {
        let skipped = after.map_or(0, |after| self.line.range(..=after).count());
        let lowest = Turn { priority: Reverse(u8::MAX), number: 0 };
        let behind = self.line.range(after.unwrap_or(lowest)..).map(|(turn, _)| *turn);
        let turns: Vec<Turn> = behind.filter(|turn| Some(*turn) != after).take(most).collect();
        let mut news = Vec::new();
        for (index, turn) in turns.iter().enumerate() {
            let standing = self.standing_at(skipped + index + 1);
            let waiter = self.line.get_mut(turn).expect("it was just seen");
            if let (Presence::Here { guest, .. }, true) = (&waiter.presence, waiter.told != standing.position)
            {
                waiter.told = standing.position;
                news.push((*guest, standing));
            }
        }
        let last = turns.last().copied().filter(|_| skipped + turns.len() < self.line.len());
        (news, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(guest: GuestId) -> Waiter {
        Waiter { presence: Presence::Here { guest, incoming: None }, timer: None, secret: None, told: 0 }
    }

    fn absent() -> Waiter {
        let peer = crate::user::stranger(([1, 1, 1, 1], 1).into(), ([2, 2, 2, 2], 2).into());
        Waiter { presence: Presence::Absent { peer: Box::new(peer), counted_at: None }, ..here(0) }
    }

    /// A queue of these priorities, guests named by their place in the list.
    fn queue(priorities: &[u8]) -> (Queue, Vec<Turn>) {
        let mut queue = Queue::new(100);
        let turns: Vec<Turn> = priorities.iter().map(|priority| queue.next_turn(*priority)).collect();
        for (guest, turn) in turns.iter().enumerate() {
            queue.insert(*turn, here(guest as GuestId));
        }
        (queue, turns)
    }

    #[test]
    fn o4_they_stand_by_priority_and_then_by_who_came_first() {
        let (mut queue, turns) = queue(&[0, 5, 0, 9, 5]);
        let positions: Vec<u32> = turns.iter().map(|turn| queue.standing(*turn).position).collect();
        assert_eq!(positions, [4, 2, 5, 1, 3]);
        let mut order = Vec::new();
        while let Some(turn) = queue.first() {
            order.push(turns.iter().position(|other| *other == turn).unwrap());
            queue.remove(turn);
        }
        assert_eq!(order, [3, 1, 4, 0, 2]);
        assert!(queue.is_empty() && queue.sizes.is_empty() && queue.by_guest.is_empty());
    }

    #[test]
    fn who_is_absent_is_passed_over_and_keeps_his_turn() {
        let (mut queue, turns) = queue(&[0, 0, 0]);
        queue.remove(turns[0]);
        queue.insert(turns[0], absent());
        assert_eq!(queue.first(), Some(turns[1]));
        assert_eq!(queue.standing(turns[1]).position, 2, "he still stands ahead");
        queue.remove(turns[0]);
        queue.insert(turns[0], here(77));
        assert_eq!((queue.first(), queue.turn_of(77)), (Some(turns[0]), Some(turns[0])));
    }

    #[test]
    fn news_reach_everybody_once_in_small_portions() {
        let (mut queue, turns) = queue(&[0; 10]);
        queue.remove(turns[4]);
        queue.insert(turns[4], absent());
        let round = |queue: &mut Queue| {
            let (mut after, mut told) = (None, Vec::new());
            loop {
                let (news, last) = queue.news(after, 3);
                told.extend(news.iter().map(|(guest, standing)| (*guest, standing.position)));
                after = last;
                if after.is_none() {
                    return told;
                }
            }
        };
        let all: Vec<(u64, u32)> =
            (0..10).filter(|guest| *guest != 4).map(|guest| (guest, guest as u32 + 1)).collect();
        assert_eq!(round(&mut queue), all);
        assert_eq!(round(&mut queue), [], "nobody has moved");
        queue.remove(turns[6]);
        assert_eq!(round(&mut queue), [(7, 7), (8, 8), (9, 9)]);
    }

    #[test]
    fn the_estimate_follows_the_admissions() {
        let (mut queue, turns) = queue(&[0, 0, 0, 0]);
        assert_eq!(queue.standing(turns[3]).estimate, None);
        for second in 1..=3 {
            queue.admitted(Time::from_nanos(second * 2_000_000_000));
        }
        assert_eq!(queue.standing(turns[3]).estimate, Some(Duration::from_secs(8)));
    }
}
