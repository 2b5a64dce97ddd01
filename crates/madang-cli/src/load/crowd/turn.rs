//! One pass of a thread's loop: wait, what happened, what is wanted.

use madang_driver::{Completion, Conn, Driver, Outgoing, RecvEnd, Time, Wait};

use super::{BATCH, Crowd};
use crate::load::failure::Failure;
use crate::load::link::{Ops, Stage};

impl<D: Driver> Crowd<'_, D> {
    /// One pass: what happened, then what is wanted.
    pub(super) fn turn(&mut self, until: Time) {
        let wait = if self.marked.is_empty() { Wait::until(until) } else { Wait::NO };
        let mut completions = std::mem::take(&mut self.completions);
        self.driver.poll(&mut completions, BATCH, wait);
        self.now = self.driver.now();
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
        if self.speaking {
            self.take_due();
        }
        let mut marked = std::mem::take(&mut self.marked);
        for at in marked.drain(..) {
            self.links[at].marked = false;
            self.attend(at);
        }
        // Those that found the driver full are marked again; else the list keeps its room.
        if self.marked.is_empty() {
            self.marked = marked;
        }
        self.teller.tell(self.now, self.ready, self.outcome.failed);
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Connected { conn, result } => {
                let Some(at) = self.link_of(conn) else { return };
                self.links[at].ops.connect = false;
                match result {
                    Err(error) if self.links[at].stage == Stage::Connecting => {
                        self.fail(at, Failure::Connect(error))
                    }
                    Ok(_) if self.links[at].stage == Stage::Connecting => self.connected(at),
                    _ => {}
                }
                self.mark(at);
            }
            Completion::Data { conn, mut bytes, more } => {
                let Some(at) = self.link_of(conn) else { return };
                self.links[at].ops.recv = more;
                self.heard_bytes(at, &mut bytes);
                if !more {
                    self.mark(at);
                }
            }
            Completion::RecvEnded { conn, end } => {
                let Some(at) = self.link_of(conn) else { return };
                self.links[at].ops.recv = false;
                self.links[at].ops.ended = end != RecvEnd::NoBuffers;
                if self.links[at].stage != Stage::Aborted {
                    match (end, self.links[at].stage) {
                        (RecvEnd::NoBuffers, _) | (RecvEnd::Eof, Stage::Leaving { .. }) => {}
                        (RecvEnd::Eof, _) => self.fail(at, Failure::Ended),
                        (RecvEnd::Error(error), _) => self.fail(at, Failure::Broken(error)),
                    }
                }
                self.mark(at);
            }
            Completion::Sent { conn, outgoing, result } => {
                let Some(at) = self.link_of(conn) else { return };
                self.links[at].ops.send = false;
                match result {
                    Ok(_) if !outgoing.is_empty() => self.links[at].unsent = Some(outgoing),
                    // What came before it broke tells more: the receive says how it ended.
                    Ok(_) | Err(_) => self.keep(outgoing),
                }
                let link = &self.links[at];
                if link.unsent.is_some() || link.has_something_to_say() || !link.is_ready() {
                    self.mark(at);
                }
            }
            // Nothing listens here.
            Completion::Accepted { .. }
            | Completion::AcceptStalled { .. }
            | Completion::Unlistened { .. } => {}
        }
    }

    fn connected(&mut self, at: usize) {
        self.links[at].stage = Stage::Greeting;
        if !self.links[at].has_something_to_say() {
            self.admitted(at);
        }
    }

    fn admitted(&mut self, at: usize) {
        if self.links[at].stage == Stage::Greeting {
            self.links[at].stage = Stage::Ready;
            self.coming -= 1;
            self.ready += 1;
        }
    }

    fn heard_bytes(&mut self, at: usize, bytes: &mut [u8]) {
        let link = &mut self.links[at];
        if matches!(link.stage, Stage::Aborted | Stage::Leaving { .. }) {
            return;
        }
        let mut heard = std::mem::take(&mut self.heard);
        let result = link.hear(bytes, &self.messages, &mut heard);
        let now = self.clock();
        self.outcome.broadcasts(std::mem::take(&mut heard.broadcasts), now);
        for due in heard.echoes.drain(..) {
            self.outcome.echo(due, now);
            self.teller.took(due, now);
            if self.speaking && self.pace.is_none() {
                self.links[at].due(now);
            }
        }
        if std::mem::take(&mut heard.welcome) {
            self.admitted(at);
        }
        self.heard = heard;
        if let Err(failure) = result {
            self.fail(at, failure);
        }
        if self.links[at].has_something_to_say() {
            self.mark(at);
        }
    }

    /// Gives a link what it wants of the driver, as far as the driver has room.
    fn attend(&mut self, at: usize) {
        let link = &mut self.links[at];
        let Ops { recv, send, ended, .. } = link.ops;
        match link.stage {
            Stage::Connecting | Stage::Gone => return,
            Stage::Aborted => {}
            _ if !recv && !ended => match self.driver.recv_start(link.conn) {
                Ok(()) => link.ops.recv = true,
                Err(_full) => return self.mark(at),
            },
            _ => {}
        }
        if !send && link.stage != Stage::Aborted {
            if let Some(outgoing) = link.unsent.take().or_else(|| self.pack(at)) {
                return self.send(at, outgoing);
            }
        }
        let link = &mut self.links[at];
        if let (false, Stage::Leaving { half_closed: false }) = (send, link.stage) {
            self.driver.half_close(link.conn);
            link.stage = Stage::Leaving { half_closed: true };
        }
        let is_over = match link.stage {
            Stage::Aborted => true,
            Stage::Leaving { .. } => ended,
            _ => false,
        };
        if is_over && link.ops.none() {
            self.retire(at);
        }
    }

    /// What a link has to say, as one send.
    fn pack(&mut self, at: usize) -> Option<Outgoing> {
        if !self.links[at].has_something_to_say() {
            return None;
        }
        self.scratch.clear();
        let said = self.links[at].say(&self.messages, &mut self.scratch);
        self.outcome.said(self.clock(), said);
        let mut packet = self.magazine.packet(self.scratch.len()).expect("a pool without a budget");
        packet.extend_from_slice(&self.scratch);
        let mut outgoing = self.spare.pop().unwrap_or_default();
        outgoing.push(packet.freeze());
        Some(outgoing)
    }

    fn send(&mut self, at: usize, outgoing: Outgoing) {
        let link = &mut self.links[at];
        match self.driver.send(link.conn, outgoing) {
            Ok(()) => link.ops.send = true,
            Err(outgoing) => {
                link.unsent = Some(outgoing);
                self.mark(at);
            }
        }
    }

    fn keep(&mut self, mut outgoing: Outgoing) {
        outgoing.clear();
        if self.spare.len() < BATCH {
            self.spare.push(outgoing);
        }
    }

    pub(super) fn mark(&mut self, at: usize) {
        if !std::mem::replace(&mut self.links[at].marked, true) {
            self.marked.push(at);
        }
    }

    /// A connection failed: it is counted once, by its first reason, and ended.
    pub(super) fn fail(&mut self, at: usize, failure: Failure) {
        if matches!(self.links[at].stage, Stage::Aborted | Stage::Gone) {
            return;
        }
        self.count(failure);
        let now = self.clock();
        for due in self.links[at].give_up() {
            self.outcome.lost(due, now);
        }
        self.abort(at);
    }

    pub(super) fn count(&mut self, failure: Failure) {
        *self.failures.entry(failure.to_string()).or_default() += 1;
        self.outcome.failed += 1;
    }

    pub(super) fn abort(&mut self, at: usize) {
        match self.links[at].stage {
            Stage::Connecting | Stage::Greeting => self.coming -= 1,
            Stage::Ready => self.ready -= 1,
            Stage::Leaving { .. } => {}
            Stage::Aborted | Stage::Gone => return,
        }
        self.links[at].stage = Stage::Aborted;
        self.links[at].unsent = None;
        if !self.links[at].ops.none() {
            self.driver.abort(self.links[at].conn);
        }
        self.mark(at);
    }

    fn retire(&mut self, at: usize) {
        self.driver.retire(self.links[at].conn);
        self.links[at].stage = Stage::Gone;
    }

    fn link_of(&self, conn: Conn) -> Option<usize> {
        let at = *self.places.get(conn.index())?;
        self.links.get(at).filter(|link| link.conn == conn).map(|_| at)
    }
}
