//! How other threads reach a shard.
//!
//! ```text
//!   any thread ── push ──► messages (bounded, answers Full) ──┐
//!              ── push ──► control  (never full) ─────────────┴─► the shard, once a turn, control first
//!              ── wake, if and only if it sleeps
//! ```
//!
//! The control lane needs no bound of its own: each entry is owed to something that is bounded already (one disconnect a
//! session, a handful of words a connection between a shard and the gate, one result a job of the bounded job queue).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_queue::{ArrayQueue, SegQueue};
use crossbeam_utils::CachePadded;
use madang_driver::Waker;

use crate::planted::{Planted, planted};

/// One shard's letter box.
pub(crate) struct Mailbox<M, C> {
    messages: ArrayQueue<M>,
    control: SegQueue<C>,
    sleeping: CachePadded<AtomicBool>,
    waker: OnceLock<Waker>,
}

impl<M, C> Mailbox<M, C> {
    pub(crate) fn new(messages_max: usize) -> Mailbox<M, C> {
        Mailbox {
            messages: ArrayQueue::new(messages_max),
            control: SegQueue::new(),
            sleeping: CachePadded::new(AtomicBool::new(false)),
            waker: OnceLock::new(),
        }
    }

    /// Says how to end the shard's sleep; before this nobody is woken, and the shard's first turn looks by itself.
    pub(crate) fn set_waker(&self, waker: Waker) {
        // A second waker would mean a second shard on this mailbox; the first stays.
        let _ = self.waker.set(waker);
    }

    /// Leaves a message; gives it back when the lane is full.
    pub(crate) fn push(&self, message: M) -> Result<(), M> {
        self.messages.push(message)?;
        self.wake();
        Ok(())
    }

    /// Leaves a control word.
    pub(crate) fn control(&self, word: C) {
        self.control.push(word);
        self.wake();
    }

    /// Ends the shard's sleep, once per sleep: only the flip of the flag fires the waker.
    fn wake(&self) {
        // Partner: the fence in `fall_asleep`. Either we see `sleeping`, or the shard sees what we pushed.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            if let Some(waker) = self.waker.get() {
                waker.wake();
            }
        }
    }

    /// The shard announces that it is about to sleep. False if something arrived: look first.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.sleeping.store(true, Ordering::Relaxed);
        // Partner: the fence in `wake`.
        fence(Ordering::SeqCst);
        if self.is_empty() || planted(Planted::WakeWithoutSecondLook) {
            return true;
        }
        self.sleeping.store(false, Ordering::Relaxed);
        false
    }

    /// The shard is awake: nobody needs to wake it.
    pub(crate) fn wake_up(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Whether the shard sleeps and nobody has woken it.
    #[cfg(feature = "simulation")]
    pub(crate) fn is_asleep(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.messages.is_empty()
    }

    pub(crate) fn pop(&self) -> Option<M> {
        // An empty lane is the rule, and to look at it is cheaper than to try: no fence. What comes later is seen before the
        // shard sleeps.
        if self.messages.is_empty() { None } else { self.messages.pop() }
    }

    pub(crate) fn pop_control(&self) -> Option<C> {
        if self.control.is_empty() { None } else { self.control.pop() }
    }

    #[cfg(feature = "simulation")]
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }
}
