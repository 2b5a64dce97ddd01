//! The gate's part in waiting: who takes a turn, who has his back, whose it is.
//!
//! ```text
//!            ┌─ told where he stands ─┐
//!   knock ─► here ──────── his turn ──┴──► Placed ─► Joined
//!            │  ▲                            │
//!      link  ▼  │ his ticket                 │ the link broke before he had joined
//!           absent ◄─────────────────────────┘
//!            └─ grace over ─► gone
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use madang_driver::{Driver, Incoming, Time};
use madang_wire::lan::RefusalReason;

use super::guests::{Guest, GuestId, Stage};
use super::limits::Pace;
use super::queue::{Presence, Queue, Turn, Waiter};
use super::table::Verdict;
use super::{Gate, TurnedAway};
use crate::error::ErrorKind;
use crate::figures::Count;
use crate::letters::{Adoption, Entry, Kept, News, Shown, TicketBytes, Word};
use crate::planted::{Planted, planted};
use crate::settings::ms;
use crate::shard::{Core, Timer};
use crate::timers::TimerKey;
use crate::{Peer, Settings};

/// Patience on the doorstep, where there is no waiting queue. The end of a connection that lies in our kernel is noticed
/// within a turn of its shard: a few milliseconds, many times that on a machine that is too busy.
const PATIENCE: Duration = Duration::from_millis(250);

/// How soon an overloaded server looks again whether it may let a waiter in.
const OVERLOADED_PAUSE: Duration = Duration::from_millis(50);

/// Waiters looked at in one round of news: as many small sends at once as a turn has completions.
const NEWS_AT_ONCE: usize = 256;

/// Who stands before the gate and wants a place.
pub(super) struct Knock {
    pub(super) guest: GuestId,
    /// His socket, with a framing that does not greet; else a shard has it, and his greeting was fine.
    pub(super) incoming: Option<Incoming>,
}

/// What the gate needs for a waiting queue besides the line itself.
pub(super) struct Waiting {
    pub(super) queue: Queue,
    /// Waiters are told where they stand. Else the line is the doorstep.
    is_open: bool,
    /// How fast waiters are let in.
    release: Option<Pace>,
    release_due: Time,
    release_timer: Option<TimerKey>,
    /// The next round of news, and behind whom it begins.
    news_timer: Option<TimerKey>,
    news_after: Option<Turn>,
    /// Waiters with a place who have not joined: if their link breaks now, they have their turns back.
    pub(super) placed: BTreeMap<GuestId, (Turn, [u8; 16])>,
    /// Waiters who came back with their tickets, until their shards have told content and them so.
    returning: BTreeMap<GuestId, Returning>,
}

/// What a turn is kept by when the link over which its waiter came back breaks before anybody heard of it: for content he
/// still waits, and his client has no other ticket than the one that it has just shown.
struct Returning {
    turn: Turn,
    secret: [u8; 16],
    peer: Peer,
}

impl Waiting {
    pub(super) fn new(settings: &Settings) -> Waiting {
        let is_open = settings.queue_max > 0;
        let rate = settings.queue_release_rate;
        Waiting {
            queue: Queue::new(if is_open { settings.queue_max } else { settings.slack() }),
            is_open,
            release: (rate > 0).then(|| Pace::new(rate, 1)),
            release_due: Time::ZERO,
            release_timer: None,
            news_timer: None,
            news_after: None,
            placed: BTreeMap::new(),
            returning: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.placed.is_empty() && self.returning.is_empty()
    }
}

impl Gate {
    /// Somebody wants a place: he gets it, or waits for one behind those who wait already, or hears that there is none.
    pub(super) fn knock(&mut self, knock: Knock, driver: &mut impl Driver, core: &mut Core) {
        if !self.waiting.queue.has_present() && self.places.take() {
            return self.enter(knock, core);
        }
        if self.waiting.queue.is_full() {
            return self.full(knock, core);
        }
        let priority = self.guests.get(knock.guest).map_or(0, |guest| guest.priority);
        let turn = self.waiting.queue.next_turn(priority);
        if self.waiting.is_open {
            let secret = self.draw_secret(driver, core);
            return self.queue_up(turn, knock, secret, true, core);
        }
        let timer = Some(core.timers.set(core.now + PATIENCE, Timer::Waiter(turn)));
        let Knock { guest, incoming } = knock;
        self.waiting.queue.insert(
            turn,
            Waiter { presence: Presence::Here { guest, incoming }, timer, secret: None, told: 0 },
        );
    }

    /// Takes somebody into the waiting queue at this turn, and tells his shard so.
    fn queue_up(
        &mut self,
        turn: Turn,
        knock: Knock,
        secret: Option<[u8; 16]>,
        entered: bool,
        core: &mut Core,
    ) {
        let Knock { guest, incoming } = knock;
        self.set_stage(guest, Stage::Queued);
        let presence = Presence::Here { guest, incoming: None };
        self.waiting.queue.insert(turn, Waiter { presence, timer: None, secret, told: 0 });
        let standing = self.waiting.queue.standing(turn);
        self.waiting.queue.get_mut(turn).expect("he was just put there").told = standing.position;
        let ticket = secret.map(|secret| TicketBytes::new(turn, secret));
        let news = Box::new(News { turn, standing, ticket, entered });
        if entered {
            core.counters.add(Count::QueueEntered, 1);
        }
        match incoming {
            Some(incoming) => self.give(guest, incoming, Entry::Queued(news), core),
            None => self.tell(guest, |guest| Word::Queued { guest, news }, core),
        }
        self.plan_news(core);
    }

    /// What a waiter must show to have his turn back; none where he could not show it.
    fn draw_secret(&self, driver: &mut impl Driver, core: &Core) -> Option<[u8; 16]> {
        (self.greets && core.fabric.settings.queue_grace_ms > 0).then(|| {
            let mut secret = [0; 16];
            driver.random(&mut secret);
            secret
        })
    }

    /// There is no place for him, and no room to wait for one.
    fn full(&mut self, knock: Knock, core: &mut Core) {
        match knock {
            Knock { guest, incoming: Some(incoming) } => {
                self.forget(guest);
                self.turn_away(TurnedAway::Full, incoming.peer(), core);
            }
            Knock { guest, incoming: None } => {
                core.error_of(ErrorKind::ServerFull, None, None);
                self.refuse(guest, RefusalReason::Full, core);
            }
        }
    }

    /// A place is taken for him.
    fn enter(&mut self, Knock { guest, incoming }: Knock, core: &mut Core) {
        self.set_stage(guest, Stage::Placed);
        match incoming {
            Some(incoming) => self.give(guest, incoming, Entry::Placed, core),
            None => self.tell(guest, |guest| Word::Place { guest, answer: Ok(()) }, core),
        }
    }

    /// Lets in whoever's turn it is, as long as places are free and the pace allows.
    pub(super) fn serve(&mut self, core: &mut Core) {
        while let Some(turn) = self.waiting.queue.first() {
            if !self.places.have_room() || self.waiting.is_open && !self.may_release(core) {
                return;
            }
            let waiter = self.waiting.queue.remove(turn).expect("it is his turn");
            if let Some(timer) = waiter.timer {
                core.timers.cancel(timer);
            }
            let Presence::Here { guest, incoming } = waiter.presence else { continue };
            if self.waiting.is_open {
                if !self.is_welcome_still(guest, core) {
                    self.refuse(guest, RefusalReason::NotAllowed, core);
                    continue;
                }
                self.released(core);
                if let Some(secret) = waiter.secret {
                    self.waiting.placed.insert(guest, (turn, secret));
                }
            }
            self.places.take();
            self.enter(Knock { guest, incoming }, core);
        }
    }

    /// Whether the pace of letting waiters in allows one now, and the server is not overloaded; else it is tried again when
    /// it may.
    fn may_release(&mut self, core: &mut Core) -> bool {
        let next = if core.fabric.overload() >= 2 {
            core.now + OVERLOADED_PAUSE
        } else {
            self.waiting.release.map_or(core.now, |pace| pace.next(self.waiting.release_due))
        };
        if next <= core.now {
            return true;
        }
        if self.waiting.release_timer.is_none() {
            self.waiting.release_timer = Some(core.timers.set(next, Timer::Release));
        }
        false
    }

    fn released(&mut self, core: &mut Core) {
        if let Some(pace) = self.waiting.release {
            pace.take(&mut self.waiting.release_due, core.now);
        }
        self.waiting.queue.admitted(core.now);
        core.counters.add(Count::QueueAdmitted, 1);
    }

    pub(super) fn release_again(&mut self, core: &mut Core) {
        self.waiting.release_timer = None;
        self.serve(core);
    }

    /// Whether the rules would still let him in: he may have waited for long.
    fn is_welcome_still(&mut self, guest: GuestId, core: &Core) -> bool {
        if let Some(table) = self.rules.fresh() {
            self.table = table;
        }
        let Some(guest) = self.guests.get(guest) else { return false };
        matches!(self.table.judge(guest.address, core.now), Verdict::Enter { .. })
    }

    /// A waiter's connection is gone. `keeps`: he may come back, and content has not heard that he is gone.
    pub(super) fn waiter_gone(&mut self, id: GuestId, guest: &Guest, keeps: Option<Kept>, core: &mut Core) {
        let returning = self.waiting.returning.remove(&id);
        if guest.stage == Stage::Replaced {
            return; // he came back over another link, and waits or is placed there
        }
        let secret = match (self.waiting.placed.remove(&id), self.waiting.queue.turn_of(id)) {
            (Some((_, secret)), _) => Some(secret),
            (None, Some(turn)) => {
                let waiter = self.waiting.queue.remove(turn).expect("it is his turn");
                if let Some(timer) = waiter.timer {
                    core.timers.cancel(timer);
                }
                waiter.secret
            }
            // He was sent away, and died before he heard of it.
            (None, None) => None,
        };
        let (kept, secret) = match (keeps, returning) {
            (Some(kept), _) => (kept, secret),
            (None, Some(Returning { turn, secret: older, peer })) => {
                (Kept { turn, peer: Box::new(peer) }, secret.map(|_| older))
            }
            (None, None) => return,
        };
        if secret.is_none() || !self.is_welcoming() || planted(Planted::QueuePlaceLost) {
            return wait_over(kept, core);
        }
        let counted_at = (!guest.exempt).then_some(guest.address);
        if let Some(address) = counted_at {
            self.limits.came(address, false);
        }
        let grace = core.now + ms(core.fabric.settings.queue_grace_ms);
        let timer = Some(core.timers.set(grace, Timer::Waiter(kept.turn)));
        let presence = Presence::Absent { peer: kept.peer, counted_at };
        self.waiting.queue.insert(kept.turn, Waiter { presence, timer, secret, told: 0 });
        self.plan_news(core);
    }

    /// A guest who has proven himself shows a ticket. True if it was good: he has his turn back.
    pub(super) fn returns(
        &mut self,
        guest: GuestId,
        Shown { ticket, peer }: Shown,
        driver: &mut impl Driver,
        core: &mut Core,
    ) -> bool {
        let turn = ticket.turn();
        let shown = self.waiting.queue.get_mut(turn).and_then(|waiter| waiter.secret);
        let Some(shown) = shown.filter(|secret| ticket.proves(*secret)) else { return false };
        let waiter = self.waiting.queue.remove(turn).expect("it was just seen");
        if let Some(timer) = waiter.timer {
            core.timers.cancel(timer);
        }
        self.waiting.returning.insert(guest, Returning { turn, secret: shown, peer });
        let secret =
            if planted(Planted::TicketTakenTwice) { Some(shown) } else { self.draw_secret(driver, core) };
        match waiter.presence {
            // His old connection looks alive still; whoever has the ticket is the same client.
            Presence::Here { guest: old, .. } => {
                self.set_stage(old, Stage::Replaced);
                self.tell(old, |guest| Word::Dismiss { guest }, core);
            }
            Presence::Absent { counted_at, .. } => self.uncount(counted_at),
        }
        core.counters.add(Count::QueueReturned, 1);
        self.queue_up(turn, Knock { guest, incoming: None }, secret, false, core);
        self.serve(core);
        true
    }

    /// Whether it is known in a moment only what becomes of the turn of this ticket, which is good until then: it has a place,
    /// or the ticket was shown already, and a shard has not told whether the link lived long enough for it.
    pub(super) fn is_unsettled(&self, ticket: &TicketBytes) -> bool {
        let placed = self.waiting.placed.values().copied();
        let returning = self.waiting.returning.values().map(|returning| (returning.turn, returning.secret));
        placed.chain(returning).any(|(turn, secret)| turn == ticket.turn() && ticket.proves(secret))
    }

    /// Content and its peer have heard that a guest is back in his turn.
    pub(super) fn return_heard(&mut self, guest: GuestId) {
        self.waiting.returning.remove(&guest);
    }

    fn uncount(&mut self, counted_at: Option<IpAddr>) {
        if let Some(address) = counted_at {
            self.limits.went(address, false);
        }
    }

    /// Patience on the doorstep, or the grace of somebody absent, is over.
    pub(super) fn waiter_overdue(&mut self, turn: Turn, core: &mut Core) {
        let Some(waiter) = self.waiting.queue.remove(turn) else { return };
        match waiter.presence {
            Presence::Here { guest, incoming } => self.full(Knock { guest, incoming }, core),
            Presence::Absent { peer, counted_at } => {
                self.uncount(counted_at);
                wait_over(Kept { turn, peer }, core);
            }
        }
    }

    /// Tells waiters where they stand, some of them at once.
    pub(super) fn spread_news(&mut self, core: &mut Core) {
        self.waiting.news_timer = None;
        let (news, last) = self.waiting.queue.news(self.waiting.news_after, NEWS_AT_ONCE);
        self.waiting.news_after = last;
        let mut by_shard: Vec<Vec<_>> = vec![Vec::new(); core.fabric.mailboxes.len()];
        for (guest, standing) in news {
            if let Some(Guest { shard, .. }) = self.guests.get(guest) {
                by_shard[*shard].push((guest, standing));
            }
        }
        for (shard, moved) in by_shard.into_iter().enumerate() {
            if !moved.is_empty() {
                core.tell(shard, Word::Moved(moved));
            }
        }
        self.plan_news(core);
    }

    fn plan_news(&mut self, core: &mut Core) {
        let len = self.waiting.queue.len();
        if self.waiting.news_timer.is_some() || len == 0 || !self.waiting.is_open {
            return;
        }
        // So often that a whole round takes the interval of the settings.
        let rounds = len.div_ceil(NEWS_AT_ONCE) as u32;
        let pause = (ms(core.fabric.settings.queue_update_ms) / rounds).max(ms(1));
        self.waiting.news_timer = Some(core.timers.set(core.now + pause, Timer::News));
    }

    /// The server stops: nobody waits any more.
    pub(super) fn end_waiting(&mut self, core: &mut Core) {
        for timer in [self.waiting.release_timer.take(), self.waiting.news_timer.take()].into_iter().flatten()
        {
            core.timers.cancel(timer);
        }
        while let Some(turn) = self.waiting.queue.any() {
            let waiter = self.waiting.queue.remove(turn).expect("it was just seen");
            if let Some(timer) = waiter.timer {
                core.timers.cancel(timer);
            }
            match waiter.presence {
                Presence::Here { guest, incoming: Some(incoming) } => {
                    self.forget(guest);
                    self.turn_away(TurnedAway::Closing, incoming.peer(), core);
                }
                Presence::Here { guest, incoming: None } => {
                    self.refuse(guest, RefusalReason::Draining, core);
                }
                Presence::Absent { peer, counted_at } => {
                    self.uncount(counted_at);
                    wait_over(Kept { turn, peer }, core);
                }
            }
        }
    }

    /// Hands a socket to the shard where it will stay.
    pub(super) fn give(&mut self, guest: GuestId, incoming: Incoming, entry: Entry, core: &mut Core) {
        let shard = self.least_loaded();
        self.load[shard] += 1;
        let exempt = self.guests.set_shard(guest, shard).exempt;
        core.tell(shard, Word::Adopt(Adoption { incoming, guest, entry, exempt }));
    }

    /// Tells a guest no. From now on he keeps nobody out: whoever stays on behind such a word would hold what he was refused.
    pub(super) fn refuse(&mut self, guest: GuestId, reason: RefusalReason, core: &mut Core) {
        self.set_stage(guest, Stage::Refused);
        self.tell(guest, |guest| Word::Place { guest, answer: Err(reason) }, core);
    }

    pub(super) fn tell(&self, guest: GuestId, word: impl FnOnce(GuestId) -> Word, core: &mut Core) {
        if let Some(Guest { shard, .. }) = self.guests.get(guest) {
            core.tell(*shard, word(guest));
        }
    }

    /// Everybody who waits, the absent among them.
    pub(crate) fn waiting(&self) -> usize {
        if self.waiting.is_open { self.waiting.queue.len() } else { 0 }
    }
}

/// Content hears of the end of a wait that no shard has anything of.
fn wait_over(kept: Kept, core: &mut Core) {
    core.words.push_back(Word::WaitOver(kept));
}
