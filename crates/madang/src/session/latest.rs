//! Which queued messages a newer one of the same key replaces.

use std::collections::VecDeque;

use super::Queues;

/// A session's droppable messages that wait: key and place in the queue, oldest first. They leave the queue in this order.
///
/// A list and no tree: a look through a hundred keys is a tenth of a microsecond, and few sessions have more.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    marks: VecDeque<(u32, u32)>,
}

impl Latest {
    /// Keys that wait for one session, at most: the look through them stays short. Past it the oldest is dropped.
    pub(crate) const KEYS_MAX: usize = 4_096;

    pub(crate) const fn new() -> Latest {
        Latest { marks: VecDeque::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.marks.len() >= Latest::KEYS_MAX
    }

    /// The node where a message of this key waits.
    pub(crate) fn node_of(&self, key: u32) -> Option<u32> {
        self.marks.iter().find(|(other, _)| *other == key).map(|(_, node)| *node)
    }

    /// The node of the oldest one.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.marks.front().map(|(_, node)| *node)
    }

    /// A message of this key was queued last.
    pub(crate) fn queued(&mut self, key: u32, node: u32) {
        self.marks.push_back((key, node));
    }

    /// The oldest one left the queue.
    pub(crate) fn left(&mut self) {
        self.marks.pop_front();
    }

    /// Messages were taken off the queue, and nothing was queued since.
    pub(crate) fn forget_sent(&mut self, queues: &Queues) {
        while self.oldest().is_some_and(|node| queues.len_of(node).is_none()) {
            self.left();
        }
    }

    /// All left.
    pub(crate) fn clear(&mut self) {
        self.marks.clear();
    }
}
