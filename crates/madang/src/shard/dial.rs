//! Keeping a shard's links: dialling, and dialling again.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use madang_driver::{ConnectError, ConnectOptions, Driver};

use super::{Shard, Timer};
use crate::SessionId;
use crate::error::{ErrorKind, LinkDown};
use crate::letters::Route;
use crate::links::{Link, LinkSpec};
use crate::settings::ms;
use crate::timers::TimerKey;
use crate::user::stranger;

impl<D: Driver> Shard<D> {
    pub(super) fn link_add(&mut self, spec: LinkSpec) {
        let link = spec.link;
        self.links.add(spec);
        self.link_dial(link);
    }

    /// Lets go of a link; its session, if there is one, is content's to disconnect, and is not replaced.
    pub(super) fn link_drop(&mut self, link: u32) {
        let Some(state) = self.links.get(link) else { return };
        state.dropped = true;
        let (redial, session) =
            (state.redial.take(), SessionId::from_u64(state.spec.cell.load(Ordering::Acquire)));
        if let Some(redial) = redial {
            self.core.timers.cancel(redial);
        }
        if let Some(local) =
            session.and_then(|id| self.core.fabric.directory.layout().locate(id)).map(|(_, local)| local)
        {
            self.core.decide(local, crate::LeaveReason::Disconnected(0), true);
        }
        self.embryos_of_link_stop(link);
    }

    pub(super) fn links_stop(&mut self) {
        self.links.stopped = true;
        let timers: Vec<TimerKey> = self.links.iter_mut().filter_map(|state| state.redial.take()).collect();
        for timer in timers {
            self.core.timers.cancel(timer);
        }
    }

    /// Tries to connect.
    pub(super) fn link_dial(&mut self, link: u32) {
        if self.links.stopped {
            return;
        }
        let Some(state) = self.links.get(link).filter(|state| !state.dropped) else { return };
        state.redial = None;
        let Route { remote, local } = state.spec.route.clone();
        let socket = crate::engine::socket_options(&self.core.fabric.settings);
        match self.driver.connect(&ConnectOptions { remote, local, socket }) {
            Ok(conn) => {
                let unknown =
                    SocketAddr::new(if remote.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, 0);
                self.embryo_of_link(conn, stranger(remote, local.unwrap_or(unknown)), link);
            }
            Err(ConnectError::Full) => self.link_down(link),
            Err(ConnectError::Failed(_)) => {
                self.links.note(link, LinkDown::Local);
                self.link_down(link);
            }
        }
    }

    /// A try failed or a session of the link ended: tell once, and try again later.
    pub(super) fn link_down(&mut self, link: u32) {
        let settings = &self.core.fabric.settings;
        let (least, most) = (ms(settings.reconnect_min_ms), ms(settings.reconnect_max_ms));
        let mut dice = [0; 8];
        self.driver.random(&mut dice);
        let stopped = self.links.stopped;
        let Some(state) = self.links.get(link) else { return };
        state.spec.cell.store(0, Ordering::Release);
        if stopped || state.dropped {
            return;
        }
        let pause = state.next_pause(self.core.now, least, most);
        let jittered = least.max(pause.mul_f64(u64::from_le_bytes(dice) as f64 / u64::MAX as f64));
        state.redial = Some(self.core.timers.set(self.core.now + jittered, Timer::Reconnect { link }));
        let remote = state.spec.route.remote;
        if let Some(reason) = state.down.take().filter(|_| !state.told) {
            state.told = true;
            self.core.error_of(ErrorKind::LinkDown { link: Link(link), remote, reason }, None, Some(remote));
        }
    }
}
