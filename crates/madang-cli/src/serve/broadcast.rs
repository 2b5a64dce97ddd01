//! Messages to everybody, at an even pace: what a game world says to its players whether they read it or not.

use std::time::{Duration, Instant};

use madang::{Answer, Remote};

use super::echo::BROADCAST;
use super::end::End;

/// How often, and how long each message is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broadcast {
    pub(crate) per_second: u32,
    pub(crate) bytes: usize,
}

impl Broadcast {
    /// Sends until the end. A message that finds no room is told, and the next one is due all the same.
    pub(crate) fn run(self, remote: &Remote, end: End<'_>) {
        let pause = Duration::from_secs(1) / self.per_second;
        let mut due = Instant::now();
        while !end.comes_before(due) {
            due += pause;
            match self.send(remote) {
                Answer::Queued | Answer::Gone => {}
                refused => tracing::warn!(?refused, "a message to everybody did not find room everywhere"),
            }
        }
    }

    pub(crate) fn send(self, remote: &Remote) -> Answer {
        remote.send_all(&remote.packet(&vec![BROADCAST; self.bytes]).freeze())
    }
}
