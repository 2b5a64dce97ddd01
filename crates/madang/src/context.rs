//! What a callback may do.

use std::any::Any;
use std::time::Duration;

use madang_packet::{Packet, PacketMut};

use crate::fabric::refuse;
use crate::figures::Count;
use crate::groups::GroupId;
use crate::letters::Word;
use crate::offload::{Finished, Job, Then};
use crate::shard::{Core, Found, Timer};
use crate::{Answer, Event, Figures, LeaveReason, Remote, SessionId, User};

/// The engine, as seen from inside a callback.
///
/// Everything here only queues: no callback is ever called from inside another, and bytes leave at the end of the turn, or
/// of the tick. Sessions of other shards are reached through their mailboxes by the same calls.
pub struct Context<'a> {
    core: &'a mut Core,
}

impl<'a> Context<'a> {
    pub(crate) fn new(core: &'a mut Core) -> Context<'a> {
        Context { core }
    }

    /// A packet with `bytes` in it, to write more into and to send. When the pool's budget is used up the packet takes no
    /// writes, and its send answers [`Answer::PoolExhausted`].
    #[inline]
    pub fn packet(&self, bytes: &[u8]) -> PacketMut {
        let fabric = &self.core.fabric;
        let limit = fabric.settings.frame_limit_bytes as usize;
        let Ok(mut packet) = self.core.magazine.packet_within(bytes.len(), limit) else {
            return fabric.depot.exhausted();
        };
        packet.bytes(bytes);
        packet
    }

    /// Queues a message for a session.
    #[inline]
    pub fn send(&mut self, session: SessionId, packet: impl Into<Packet>) -> Answer {
        self.send_when(session, packet.into(), false)
    }

    /// As [`send`](Context::send), and does not wait for the tick.
    pub fn send_now(&mut self, session: SessionId, packet: impl Into<Packet>) -> Answer {
        self.send_when(session, packet.into(), true)
    }

    #[inline]
    fn send_when(&mut self, session: SessionId, packet: Packet, urgent: bool) -> Answer {
        match self.core.find(session) {
            Found::Here(local) if self.core.throttles(local) => Answer::Throttled,
            Found::Here(local) => self.core.queue(local, packet, urgent),
            Found::Elsewhere => self.core.fabric.send(session, packet, urgent),
            Found::Gone => self.core.gone(),
        }
    }

    /// Queues a droppable message of which only the latest matters, such as a position: if one with this key still waits
    /// for the session, this one takes its place in the queue (and is answered [`Answer::Replaced`]). Order is kept among
    /// all others. See [`WhenSlow::DropMarked`](crate::WhenSlow::DropMarked) for what happens when the session is slow.
    pub fn send_latest(&mut self, session: SessionId, key: u32, packet: impl Into<Packet>) -> Answer {
        match self.core.find(session) {
            Found::Here(local) => self.core.queue_latest(local, packet.into(), key),
            Found::Elsewhere => self.core.fabric.send_latest(session, packet.into(), key),
            Found::Gone => self.core.gone(),
        }
    }

    /// One packet to many sessions: the payload is neither serialized nor copied again. Those that are gone are passed over;
    /// one that is full follows the policy for slow consumers. The answer is about the packet and the other shards'
    /// mailboxes.
    pub fn send_many(&mut self, sessions: &[SessionId], packet: &Packet) -> Answer {
        self.broadcast_many(sessions, packet, None)
    }

    /// As [`send_many`](Context::send_many), droppable, with a key: see [`send_latest`](Context::send_latest).
    pub fn send_many_latest(&mut self, sessions: &[SessionId], key: u32, packet: &Packet) -> Answer {
        self.broadcast_many(sessions, packet, Some(key))
    }

    fn broadcast_many(&mut self, sessions: &[SessionId], packet: &Packet, key: Option<u32>) -> Answer {
        if let Some(answer) = refuse(packet) {
            return answer;
        }
        let mut elsewhere = false;
        let mut shares = packet.clone().shares(sessions.len());
        for session in sessions {
            match self.core.find(*session) {
                Found::Here(local) => {
                    let share = shares.next().expect("there is a share for each session named");
                    self.core.queue_share(local, share, key);
                }
                Found::Elsewhere => elsewhere = true,
                Found::Gone => {}
            }
        }
        drop(shares);
        if elsewhere {
            self.core.fabric.send_many(sessions, packet, key, Some(self.core.shard))
        } else {
            Answer::Queued
        }
    }

    /// One packet to every joined session of this server or client.
    pub fn send_all(&mut self, packet: &Packet) -> Answer {
        self.broadcast_all(packet, None)
    }

    /// As [`send_all`](Context::send_all), droppable, with a key: see [`send_latest`](Context::send_latest).
    pub fn send_all_latest(&mut self, key: u32, packet: &Packet) -> Answer {
        self.broadcast_all(packet, Some(key))
    }

    fn broadcast_all(&mut self, packet: &Packet, key: Option<u32>) -> Answer {
        if let Some(answer) = refuse(packet) {
            return answer;
        }
        self.core.queue_all(packet, key);
        self.core.fabric.send_all(packet, key, Some(self.core.shard))
    }

    /// One packet to every member of a group.
    pub fn send_group(&mut self, group: GroupId, packet: &Packet) -> Answer {
        self.broadcast_group(group, packet, None)
    }

    /// As [`send_group`](Context::send_group), droppable, with a key: see [`send_latest`](Context::send_latest).
    pub fn send_group_latest(&mut self, group: GroupId, key: u32, packet: &Packet) -> Answer {
        self.broadcast_group(group, packet, Some(key))
    }

    fn broadcast_group(&mut self, group: GroupId, packet: &Packet, key: Option<u32>) -> Answer {
        if let Some(answer) = refuse(packet) {
            return answer;
        }
        self.core.queue_group(group, packet, key);
        self.core.fabric.send_group(group, packet, key, Some(self.core.shard))
    }

    /// Puts a session into a group; it leaves by itself when the session leaves. Idempotent.
    pub fn join_group(&mut self, session: SessionId, group: GroupId) -> Answer {
        match self.core.find(session) {
            Found::Here(local) => self.core.join_group(local, group),
            Found::Elsewhere => self.core.fabric.group(session, group, true),
            Found::Gone => self.core.gone(),
        }
    }

    /// Takes a session out of a group. Idempotent.
    pub fn leave_group(&mut self, session: SessionId, group: GroupId) -> Answer {
        match self.core.find(session) {
            Found::Here(local) => self.core.leave_group(local, group),
            Found::Elsewhere => self.core.fabric.group(session, group, false),
            Found::Gone => self.core.gone(),
        }
    }

    /// Ends a session: what is queued is dropped, the connection is reset (an encrypted peer that reads hears the code before,
    /// as `PeerGoodbye`). `on_leave` comes after this callback, with
    /// [`LeaveReason::Disconnected`] and this code. No further message of a session of this shard is delivered. False when
    /// it is gone already.
    pub fn disconnect(&mut self, session: SessionId, code: u32) -> bool {
        let reason = LeaveReason::Disconnected(code);
        match self.core.find(session) {
            Found::Here(local) => self.core.decide(local, reason, false),
            Found::Elsewhere => self.core.fabric.disconnect(session, reason),
            Found::Gone => false,
        }
    }

    /// Sends a last message behind all that is queued, and leaves in good order; see
    /// [`Remote::send_and_disconnect`].
    pub fn send_and_disconnect(
        &mut self,
        session: SessionId,
        packet: impl Into<Packet>,
        code: u32,
    ) -> Answer {
        let packet = packet.into();
        match self.core.find(session) {
            Found::Here(local) => self.core.queue_last(local, packet, LeaveReason::Disconnected(code)),
            Found::Elsewhere => self.core.fabric.send_and_disconnect(session, packet, code),
            Found::Gone => self.core.gone(),
        }
    }

    /// Has `event` delivered to a session's `on_event`, never after its leave.
    pub fn post<T: Send + 'static>(&mut self, session: SessionId, event: T) -> Answer {
        // Through the mailbox also on the own shard: a callback is never called from inside another.
        self.core.fabric.post(session, Event::new(event))
    }

    /// Has `on_timer` called for a session of this shard with `key`, so long from now (late by up to a turn, never early).
    /// A timer with the same key is replaced. A session that left gets none.
    ///
    /// Answers `Gone` for sessions of other shards (post an event there), `Full` past `session_timers_max`.
    pub fn timer(&mut self, session: SessionId, after: Duration, key: u64) -> Answer {
        let at = self.core.now + after;
        let most = self.core.fabric.settings.session_timers_max;
        let Found::Here(local) = self.core.find(session) else { return self.core.gone() };
        let details = self.core.sessions.details(local).expect("a session has details");
        let old = details
            .timers
            .iter()
            .position(|(other, _)| *other == key)
            .map(|at| details.timers.swap_remove(at));
        if details.timers.len() >= most {
            return Answer::Full;
        }
        if let Some((_, timer)) = old {
            self.core.timers.cancel(timer);
        }
        let timer = self.core.timers.set(at, Timer::Content { local, id: session, key });
        details.timers.push((key, timer));
        Answer::Queued
    }

    /// Calls a timer off. Whether it was still to come.
    pub fn cancel_timer(&mut self, session: SessionId, key: u64) -> bool {
        let Found::Here(local) = self.core.find(session) else { return false };
        let details = self.core.sessions.details(local).expect("a session has details");
        let Some(at) = details.timers.iter().position(|(other, _)| *other == key) else { return false };
        let (_, timer) = details.timers.swap_remove(at);
        self.core.timers.cancel(timer)
    }

    /// Runs `job` on an offload thread and then `then` here, with its result. Until `then` returned, the session's later
    /// messages wait (and TCP holds the peer back); its leave does not wait: then the result is dropped and counted.
    ///
    /// `Full` when `offload_jobs_max` jobs wait already: nothing runs. `Gone` for sessions of other shards.
    pub fn offload<T, J, F>(&mut self, session: SessionId, job: J, then: F) -> Answer
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
        F: FnOnce(&mut Context<'_>, SessionId, T) + Send + 'static,
    {
        self.offload_job(session, true, move |_| job(), ignoring_user(then))
    }

    /// As [`offload`](Context::offload), but later messages do not wait.
    pub fn offload_unordered<T, J, F>(&mut self, session: SessionId, job: J, then: F) -> Answer
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
        F: FnOnce(&mut Context<'_>, SessionId, T) + Send + 'static,
    {
        self.offload_job(session, false, move |_| job(), ignoring_user(then))
    }

    /// As [`offload`](Context::offload), with the thread's own state (a database connection) that the factory given at
    /// start made: see [`ServerBuilder::offload_state`](crate::ServerBuilder::offload_state).
    ///
    /// # Panics
    /// On the offload thread, when its state is no `S`; the session then leaves as with any panic of a job.
    pub fn offload_with<S, T, J, F>(&mut self, session: SessionId, job: J, then: F) -> Answer
    where
        S: 'static,
        T: Send + 'static,
        J: FnOnce(&mut S) -> T + Send + 'static,
        F: FnOnce(&mut Context<'_>, SessionId, T) + Send + 'static,
    {
        let job = |state: &mut dyn Any| {
            job(state.downcast_mut().expect("the offload state has the type that the job asks for"))
        };
        self.offload_job(session, true, job, ignoring_user(then))
    }

    /// As [`offload`](Context::offload), in the user-object style: `then` gets the session's own object.
    ///
    /// # Panics
    /// In `then`'s place, when the session's object is no `U`; the session then leaves as with any panic of a callback.
    pub fn offload_user<U, T, J, F>(&mut self, session: SessionId, job: J, then: F) -> Answer
    where
        U: User,
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
        F: FnOnce(&mut U, &mut Context<'_>, T) + Send + 'static,
    {
        let then = |cx: &mut Context<'_>, _, user: Option<&mut dyn Any>, result| {
            let user = user
                .and_then(|user| user.downcast_mut())
                .expect("the session's user object has the type asked for");
            then(user, cx, result);
        };
        self.offload_job(session, true, move |_| job(), then)
    }

    fn offload_job<T, F>(
        &mut self,
        session: SessionId,
        holds: bool,
        job: impl FnOnce(&mut dyn Any) -> T + Send + 'static,
        then: F,
    ) -> Answer
    where
        T: Send + 'static,
        F: FnOnce(&mut Context<'_>, SessionId, Option<&mut dyn Any>, T) + Send + 'static,
    {
        let Found::Here(local) = self.core.find(session) else { return self.core.gone() };
        let run = move |state: &mut dyn Any| -> Then {
            let result = job(state);
            Box::new(move |cx, session, user| then(cx, session, user, result))
        };
        let answer = move |outcome| Word::Finished(Finished { session, holds, outcome });
        if self.core.fabric.jobs.submit(Job::new(self.core.shard, run, answer)).is_err() {
            self.core.counters.add(Count::Full, 1);
            return Answer::Full;
        }
        if holds {
            self.core.hold(local);
        }
        Answer::Queued
    }

    /// Time since some start of the engine's clock: for measuring, the same on all shards of a process. Moves once a turn.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.core.now.as_nanos())
    }

    /// Whether a session may be sent to right now.
    pub fn is_live(&self, session: SessionId) -> bool {
        self.core.fabric.directory.is_live(session)
    }

    /// The number of the shard that this callback runs on.
    pub fn shard(&self) -> usize {
        self.core.shard
    }

    /// The same engine for other threads.
    pub fn remote(&self) -> Remote {
        Remote { fabric: std::sync::Arc::clone(&self.core.fabric) }
    }

    /// A snapshot of the figures.
    pub fn figures(&self) -> Figures {
        self.core.fabric.figures()
    }
}

/// What most want: the result and the session, wherever the session's state is.
fn ignoring_user<T>(
    then: impl FnOnce(&mut Context<'_>, SessionId, T),
) -> impl FnOnce(&mut Context<'_>, SessionId, Option<&mut dyn Any>, T) {
    |cx, session, _, result| then(cx, session, result)
}
