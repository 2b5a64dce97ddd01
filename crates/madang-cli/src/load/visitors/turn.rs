//! One pass of the visitors' loop.

use madang_driver::{Completion, Conn, ConnectError, Driver, Outgoing, RecvEnd, Time, Wait};

use super::group::Group;
use super::visitor::{Stage, Visitor};
use super::{BATCH, Sort, Visitors, entropy};
use crate::load::failure::Failure;
use crate::load::stream::{Speech, Stream};

/// Bytes of a preamble that its sender has not the key for: right up to the tag, so that the server has to look.
const PREAMBLE_HEAD: [u8; 6] = *b"MDWN\x5e\0";
const PREAMBLE: usize = 94;

/// One who dribbles says less than any greeting has.
const DRIBBLED: usize = 40;

impl<D: Driver> Visitors<'_, D> {
    /// One more visitor, unless there is no room for it here.
    pub(super) fn connect(&mut self, sort: Sort, due_ns: u64) {
        let number = self.came;
        self.came += 1;
        let conn = match self.driver.connect(&self.plan.route(number)) {
            Ok(conn) => conn,
            Err(ConnectError::Full) => return self.groups[sort as usize].missed(),
            Err(ConnectError::Failed(error)) => {
                return self.groups[sort as usize].fail(Failure::Connect(error).to_string());
            }
        };
        let visitor = match sort {
            Sort::Stranger if self.plan.visits.dribble && number % 2 == 0 => {
                let mut greeting = self.client(number).1;
                greeting.truncate(DRIBBLED);
                Visitor::new(conn, sort, due_ns, Vec::new(), None).dribbling(greeting)
            }
            Sort::Stranger => Visitor::new(conn, sort, due_ns, Vec::new(), None),
            Sort::Garbage => Visitor::new(conn, sort, due_ns, self.garbage(number), None),
            Sort::LogIn => {
                let (stream, greeting) = self.client(number);
                Visitor::new(conn, sort, due_ns, greeting, Some(stream))
            }
        };
        self.driver.submit();
        self.groups[sort as usize].enter();
        self.visitors[conn.index()] = Some(visitor);
    }

    /// A client, and what it says first.
    fn client(&mut self, number: usize) -> (Stream, Vec<u8>) {
        let (plan, driver) = (self.plan, &mut self.driver);
        match (&plan.speech, self.prepared.pop()) {
            (Speech::Wan(pinned), Some(prepared)) => Stream::wan(pinned, prepared, plan.size),
            (speech, _) => speech.begin(plan.size, number as u64, || entropy(driver)),
        }
    }

    fn garbage(&mut self, number: usize) -> Vec<u8> {
        let mut bytes = vec![0; PREAMBLE];
        self.driver.random(&mut bytes);
        // No first byte of any protocol here.
        bytes[0] |= 0x80;
        match (number % 3, &self.plan.speech) {
            (0, _) => return b"GET / HTTP/1.1\r\nHost: game\r\n\r\n".to_vec(),
            (1, Speech::Wan(pinned)) => {
                bytes[..PREAMBLE_HEAD.len()].copy_from_slice(&PREAMBLE_HEAD);
                bytes[PREAMBLE_HEAD.len()..][..4].copy_from_slice(&pinned.server.id().bytes());
            }
            _ => {}
        }
        bytes
    }

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
        for at in std::mem::take(&mut self.marked) {
            self.attend(at);
            self.driver.submit();
        }
        let (here, failed) = (self.here(), self.groups.iter().map(Group::failed).sum());
        self.teller.tell(self.now, here, failed);
    }

    fn complete(&mut self, completion: Completion) {
        let now = self.clock();
        match completion {
            Completion::Connected { conn, result } => {
                let Some((at, visitor)) = self.visitor(conn) else { return };
                visitor.ops.connect = false;
                match result {
                    Err(error) => self.fail(at, Failure::Connect(error)),
                    Ok(_) if visitor.stage == Stage::Connecting => {
                        visitor.stage = Stage::Here;
                        // A log-in counts from when it was due; a stranger is suffered from now on.
                        if visitor.sort != Sort::LogIn {
                            visitor.since_ns = now;
                        }
                    }
                    Ok(_) => {}
                }
                self.marked.push(at);
            }
            Completion::Data { conn, mut bytes, more } => {
                let Some((at, visitor)) = self.visitor(conn) else { return };
                visitor.ops.recv = more;
                if visitor.stage == Stage::Here {
                    match visitor.hear(&mut bytes) {
                        Ok(false) => {}
                        Ok(true) => self.welcome(at),
                        Err(failure) => self.fail(at, failure),
                    }
                }
                self.marked.push(at);
            }
            Completion::RecvEnded { conn, end } => {
                let Some((at, visitor)) = self.visitor(conn) else { return };
                visitor.ops.recv = false;
                visitor.ops.ended = end != RecvEnd::NoBuffers;
                match (end, visitor.stage, visitor.sort) {
                    (RecvEnd::NoBuffers, ..) => {}
                    (_, Stage::Here, Sort::LogIn) => self.fail(at, Failure::Ended),
                    (_, Stage::Here, sort) => {
                        let since = visitor.since_ns;
                        self.groups[sort as usize].took(since, now);
                        self.end(at, None);
                    }
                    (_, Stage::Leaving { .. }, _) => self.end(at, None),
                    _ => {}
                }
                self.marked.push(at);
            }
            Completion::Sent { conn, outgoing, result } => {
                let Some((at, visitor)) = self.visitor(conn) else { return };
                visitor.ops.send = false;
                if result.is_ok() && !outgoing.is_empty() {
                    visitor.unsent = Some(outgoing);
                }
                self.marked.push(at);
            }
            // Nothing listens here.
            Completion::Accepted { .. }
            | Completion::AcceptStalled { .. }
            | Completion::Unlistened { .. } => {}
        }
    }

    /// A log-in that came to its end: it leaves in good order.
    fn welcome(&mut self, at: usize) {
        let (now, goodbye) = (self.clock(), self.plan.speech.goodbye());
        let Some(visitor) = &mut self.visitors[at] else { return };
        visitor.stage = Stage::Leaving { half_closed: false };
        let mut goodbye = goodbye;
        visitor.stream.iter_mut().for_each(|stream| stream.pack(&mut goodbye));
        visitor.say.append(&mut goodbye);
        self.groups[visitor.sort as usize].took(visitor.since_ns, now);
        self.teller.took(visitor.since_ns, now);
    }

    /// Gives a visitor what it wants of the driver, as far as the driver has room.
    fn attend(&mut self, at: usize) {
        let Some(visitor) = &mut self.visitors[at] else { return };
        if visitor.stage == Stage::Gone {
            if visitor.ops.none() {
                self.driver.retire(visitor.conn);
                self.visitors[at] = None;
            }
            return;
        }
        if visitor.stage == Stage::Connecting {
            return;
        }
        if !visitor.ops.recv && !visitor.ops.ended {
            match self.driver.recv_start(visitor.conn) {
                Ok(()) => visitor.ops.recv = true,
                Err(_full) => self.marked.push(at),
            }
        }
        if !visitor.ops.send && (visitor.unsent.is_some() || !visitor.say.is_empty()) {
            let outgoing = visitor.unsent.take().unwrap_or_else(|| {
                let mut packet = self.magazine.packet(visitor.say.len()).expect("a pool without a budget");
                packet.extend_from_slice(&visitor.say);
                visitor.say.clear();
                let mut outgoing = Outgoing::default();
                outgoing.push(packet.freeze());
                outgoing
            });
            match self.driver.send(visitor.conn, outgoing) {
                Ok(()) => visitor.ops.send = true,
                Err(outgoing) => {
                    visitor.unsent = Some(outgoing);
                    return self.marked.push(at);
                }
            }
        }
        if let (false, Stage::Leaving { half_closed: false }) = (visitor.ops.send, visitor.stage) {
            self.driver.half_close(visitor.conn);
            visitor.stage = Stage::Leaving { half_closed: true };
        }
    }

    fn fail(&mut self, at: usize, failure: Failure) {
        self.end(at, Some(&failure.to_string()));
    }

    /// Counts a visitor once, by how it ended, and lets its connection go.
    pub(super) fn end(&mut self, at: usize, failure: Option<&str>) {
        let Some(visitor) = &mut self.visitors[at] else { return };
        if visitor.stage == Stage::Gone {
            return;
        }
        let group = &mut self.groups[visitor.sort as usize];
        group.leave();
        match failure {
            None => group.ended(),
            Some(why) => group.fail(why.to_owned()),
        }
        visitor.stage = Stage::Gone;
        visitor.unsent = None;
        if !visitor.ops.none() {
            self.driver.abort(visitor.conn);
        }
        self.marked.push(at);
    }

    fn visitor(&mut self, conn: Conn) -> Option<(usize, &mut Visitor)> {
        let at = conn.index();
        let visitor = self.visitors.get_mut(at)?.as_mut().filter(|visitor| visitor.conn == conn)?;
        Some((at, visitor))
    }
}
