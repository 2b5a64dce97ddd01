//! Reading the mailbox.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use madang_driver::Driver;

use super::callbacks::Call;
use super::core::{Found, after};
use super::{Shard, Stopping};
use crate::error::ErrorKind;
use crate::figures::Count;
use crate::letters::{Letter, Report, Word};
use crate::offload::Finished;
use crate::{Answer, LeaveReason};

/// Letters read in one turn: the rest waits, so that a flood from other threads cannot keep completions waiting.
const LETTERS_A_TURN: usize = 4_096;

/// Words that a shard keeps room for: four for each completion of a turn. When all sessions leave at once it is one each.
const WORDS_KEPT: usize = 1_024;

impl<D: Driver> Shard<D> {
    /// Control words first, all of them; then letters, up to a bound.
    pub(super) fn read_mail(&mut self) {
        for adoption in std::mem::take(&mut self.unattached) {
            self.adopt(adoption);
            self.settle();
        }
        while let Some(word) = self.next_word() {
            self.obey(word);
            self.settle();
        }
        shrink_behind_a_burst(&mut self.core.words);
        self.read_letters(LETTERS_A_TURN);
        let fabric = &self.core.fabric;
        let refused = fabric.figures[self.core.shard].remote_full.load(Ordering::Relaxed);
        if refused != self.refused_letters {
            self.refused_letters = refused;
            self.core.error_of(ErrorKind::MailboxFull, None, None);
        }
    }

    /// What others told this shard comes before what it told itself.
    fn next_word(&mut self) -> Option<Word> {
        self.mailbox().pop_control().or_else(|| self.core.words.pop_front())
    }

    fn read_letters(&mut self, most: usize) {
        for _ in 0..most {
            let Some(letter) = self.mailbox().pop() else { break };
            self.open(letter);
            self.settle();
        }
    }

    fn obey(&mut self, word: Word) {
        match word {
            Word::Disconnect { id, reason } => {
                if let Some(local) = self.owner_of_session(id) {
                    self.core.decide_marked(local, reason);
                    self.advance_leave(local);
                }
            }
            Word::Adopt(adoption) => self.adopt(adoption),
            Word::Place { guest, answer } => self.placed(guest, answer),
            Word::Evict { guest } => self.evict(guest),
            Word::Queued { guest, news } => self.queued(guest, *news),
            Word::Moved(moved) => self.moved(&moved),
            Word::Dismiss { guest } => self.dismiss(guest),
            Word::WaitOver(kept) => self.wait_over(kept),
            Word::Finished(finished) => self.job_finished(finished),
            #[cfg(feature = "wan")]
            Word::LogIn { embryo, verdict } => self.log_in_checked(embryo, verdict),
            #[cfg(feature = "wan")]
            Word::Shaken { embryo, shaken } => self.shaken_elsewhere(embryo, shaken),
            Word::Connect(spec) => self.link_add(spec),
            Word::DropLink { link } => self.link_drop(link),
            Word::PoolShort => self.relieve_pool(),
            Word::GiveBack => {
                self.core.magazine.trim();
            }
            Word::Report(report) => self.reported(report),
            Word::Announce { left } => self.announce(left),
            Word::Stop { graceful } => {
                if graceful {
                    // Words overtake letters; what was asked for before the drain is a part of it.
                    self.read_letters(self.core.fabric.settings.mailbox_messages_max);
                }
                self.begin_stop(graceful);
            }
        }
    }

    fn open(&mut self, letter: Letter) {
        match letter {
            Letter::Send { id, packet, urgent } => {
                if let Some(local) = self.addressee(id) {
                    self.core.queue(local, packet, urgent).ignore();
                }
            }
            Letter::SendLatest { id, packet, key } => {
                if let Some(local) = self.addressee(id) {
                    self.core.queue_latest(local, packet, key).ignore();
                }
            }
            Letter::SendMany { ids, packet, key } => {
                let mut shares = packet.shares(ids.len());
                for id in ids.iter() {
                    let share = shares.next().expect("there is a share for each session named");
                    if let Found::Here(local) = self.core.find(*id) {
                        self.core.queue_share(local, share, key);
                    }
                }
            }
            Letter::SendAll { packet, key } => self.core.queue_all(&packet, key),
            Letter::SendGroup { group, packet, key } => self.core.queue_group(group, &packet, key),
            Letter::SendAndDisconnect { id, packet, code } => {
                if let Some(local) = self.addressee(id) {
                    let reason = LeaveReason::Disconnected(code);
                    if self.core.queue_last(local, packet, reason) == Answer::TooLong {
                        // The word cannot be said; that it was to be the last one holds.
                        self.core.decide(local, reason, true);
                    }
                }
            }
            Letter::Post { id, event } => {
                if let Found::Here(local) = self.core.find(id) {
                    self.call(local, id, Call::Event(event));
                } else {
                    self.core.gone().ignore();
                }
            }
            Letter::JoinGroup { id, group } => {
                if let Some(local) = self.addressee(id) {
                    self.core.join_group(local, group).ignore();
                }
            }
            Letter::LeaveGroup { id, group } => {
                if let Some(local) = self.addressee(id) {
                    self.core.leave_group(local, group).ignore();
                }
            }
        }
    }

    /// The session that a letter is for, if it is still there.
    fn addressee(&mut self, id: crate::SessionId) -> Option<u32> {
        match self.core.find(id) {
            Found::Here(local) => Some(local),
            _ => {
                self.core.gone().ignore();
                None
            }
        }
    }

    fn job_finished(&mut self, finished: Finished) {
        let Finished { session: id, holds, outcome } = finished;
        let Some(local) = self.owner_of_session(id).filter(|local| self.core.takes(*local, id)) else {
            self.core.counters.add(Count::JobsLate, 1);
            return;
        };
        match outcome {
            Ok(then) => self.call(local, id, Call::Then(then)),
            Err(panic) => {
                self.core.error(ErrorKind::JobPanic(panic), Some(local));
                self.core.decide(local, LeaveReason::HandlerPanic, false);
            }
        }
        if holds {
            self.release_hold(local, id);
        }
    }

    /// The gate's part of the post.
    fn reported(&mut self, report: Report) {
        if let Some(gate) = &mut self.gate {
            gate.reported(report, &mut self.driver, &mut self.core);
        }
    }

    /// Closes the door, then ends everybody.
    fn begin_stop(&mut self, graceful: bool) {
        let deadline = after(self.core.now, self.core.fabric.settings.stop_timeout_ms);
        let first = self.stopping.is_none();
        let stopping = self.stopping.get_or_insert(Stopping { deadline });
        stopping.deadline = stopping.deadline.min(deadline);
        if first {
            if let Some(gate) = &mut self.gate {
                gate.close(&mut self.driver, &mut self.core);
            }
            self.links_stop();
            self.forget_pool();
            self.forget_overload();
            self.embryos_stop();
        }
        if self.gate.is_some() {
            for mailbox in &self.core.fabric.mailboxes[1..] {
                mailbox.control(Word::Stop { graceful });
            }
        }
        for local in 0..self.core.sessions.end() {
            self.core.decide(local, LeaveReason::Stopping, graceful);
        }
    }
}

/// A queue that was read to its end keeps what most turns need.
fn shrink_behind_a_burst<T>(read: &mut VecDeque<T>) {
    if read.capacity() > WORDS_KEPT {
        read.shrink_to(WORDS_KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_burst_of_words_took_is_given_back_and_what_a_turn_needs_is_kept() {
        let capacity_behind = |words: usize| {
            let mut queue: VecDeque<usize> = (0..words).collect();
            queue.clear();
            let taken = queue.capacity();
            shrink_behind_a_burst(&mut queue);
            (taken, queue.capacity())
        };
        let (taken, kept) = capacity_behind(100);
        assert_eq!(taken, kept, "no allocation on the usual way");
        let (taken, kept) = capacity_behind(20_000);
        assert!(taken >= 20_000 && kept <= 2 * WORDS_KEPT, "{taken}, {kept}");
    }
}
