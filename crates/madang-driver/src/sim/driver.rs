//! The simulated driver: the contract's face over a shard of the world.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::World;
use super::machine::Machine;
use super::shard::{Alarm, Shard};
use crate::{
    AttachError, Completion, Conn, ConnectError, ConnectOptions, Driver, DriverFigures, Full, Incoming,
    Leaked, ListenError, ListenOptions, Listener, Outgoing, Time, Wait, Waker,
};

/// One shard's driver in a simulated [`World`]. It never blocks: `poll` gives what is due, and the world learns how long
/// the shard means to sleep, so that whoever drives the simulation can let the clock jump there.
///
/// # Panics
/// Every verb panics when its user breaks the contract; the message names the rule.
pub struct SimDriver {
    world: World,
    number: usize,
    now: Time,
    alarm: Arc<Alarm>,
}

impl SimDriver {
    pub(super) fn new(world: World, number: usize, alarm: Arc<Alarm>) -> SimDriver {
        SimDriver { now: world.now(), world, number, alarm }
    }

    /// Its number in the world, by which [`World::runnable`] names it: drivers are numbered as they are made, from zero.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The world it is part of.
    pub fn world(&self) -> &World {
        &self.world
    }

    fn with<R>(&self, act: impl FnOnce(&mut Shard, &mut Machine) -> R) -> R {
        self.world.with(|machine, shards| {
            machine.close_dropped();
            let shard = shards[self.number]
                .as_mut()
                .expect("the driver contract was broken: a driver is used after shutdown");
            act(shard, machine)
        })
    }

    fn end(&mut self, by_reset: bool) {
        self.world.with(|machine, shards| {
            if let Some(mut shard) = shards[self.number].take() {
                shard.close_all(machine, by_reset);
            }
            machine.close_dropped();
        });
    }
}

impl Driver for SimDriver {
    fn now(&self) -> Time {
        self.now
    }

    fn precise_now(&self) -> Time {
        self.now
    }

    fn wall(&self) -> Duration {
        self.with(|_, machine| machine.wall())
    }

    fn random(&mut self, bytes: &mut [u8]) {
        self.with(|shard, _| shard.random(bytes));
    }

    fn waker(&self) -> Waker {
        Waker::new(self.alarm.clone())
    }

    fn listen(&mut self, options: &ListenOptions) -> Result<(Listener, SocketAddr), ListenError> {
        self.with(|shard, machine| shard.listen(machine, options))
    }

    fn accept_pause(&mut self, listener: Listener) {
        self.with(|shard, _| shard.accept_pause(listener));
    }

    fn accept_resume(&mut self, listener: Listener) {
        self.with(|shard, machine| shard.accept_resume(machine, listener));
    }

    fn unlisten(&mut self, listener: Listener) {
        self.with(|shard, machine| shard.unlisten(machine, listener));
    }

    fn attach(&mut self, incoming: Incoming) -> Result<Conn, AttachError> {
        self.with(|shard, machine| shard.attach(machine, incoming))
    }

    fn connect(&mut self, options: &ConnectOptions) -> Result<Conn, ConnectError> {
        self.with(|shard, machine| shard.connect(machine, options))
    }

    fn recv_start(&mut self, conn: Conn) -> Result<(), Full> {
        self.with(|shard, machine| shard.recv_start(machine, conn))
    }

    fn recv_pause(&mut self, conn: Conn) {
        self.with(|shard, machine| shard.recv_pause(machine, conn));
    }

    fn recv_resume(&mut self, conn: Conn) {
        self.with(|shard, machine| shard.recv_resume(machine, conn));
    }

    fn send(&mut self, conn: Conn, outgoing: Outgoing) -> Result<(), Outgoing> {
        self.with(|shard, machine| shard.send(machine, conn, outgoing))
    }

    fn half_close(&mut self, conn: Conn) {
        self.with(|shard, machine| shard.half_close(machine, conn));
    }

    fn abort(&mut self, conn: Conn) {
        self.with(|shard, machine| shard.abort(machine, conn));
    }

    fn retire(&mut self, conn: Conn) {
        self.with(|shard, machine| shard.retire(machine, conn));
    }

    fn poll(&mut self, out: &mut Vec<Completion>, max: usize, wait: Wait) {
        self.now = self.with(|shard, machine| {
            shard.poll(machine, out, max, wait);
            machine.now()
        });
    }

    fn figures(&self) -> DriverFigures {
        self.world
            .with(|_, shards| shards[self.number].as_ref().map_or_else(Default::default, Shard::figures))
    }

    fn shutdown(&mut self, _patience: Duration) -> Leaked {
        self.end(true);
        Leaked::default()
    }
}

impl Drop for SimDriver {
    /// Without a shutdown before it: the end of a process that was killed. The system closes its sockets.
    fn drop(&mut self) {
        self.end(false);
    }
}

impl fmt::Debug for SimDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDriver({})", self.number)
    }
}
