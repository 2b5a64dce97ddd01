//! The gate alone, for measuring what its own work for a stranger costs.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use madang_driver::sim::{Faults, SimDriver, World};

use super::jobs::SimJobs;
use crate::engine::{Plan, driver_settings, no_state, open_gate};
use crate::gate::{Gate, RuleBook};
use crate::id::SerialSource;
use crate::shard::Core;
use crate::user::Content;
use crate::{ForeignFraming, Handler, Rules, Settings};

/// A gate with its rules and limits and without sockets: strangers are addresses.
pub struct Doorway {
    gate: Gate,
    core: Core,
    content: Content,
    rules: Rules,
    local: SocketAddr,
    /// The gate's listener is its.
    _driver: SimDriver,
}

impl Doorway {
    /// A gate of a server of a foreign framing with these settings.
    ///
    /// # Panics
    /// On settings that are wrong.
    pub fn new(settings: Settings, handler: impl Handler) -> Doorway {
        let world = World::new(1, Faults::none());
        let content = Content::Handler(Arc::new(handler));
        let plan = Plan {
            rules: Arc::new(RuleBook::new(world.clock(), settings.rules_max)),
            protocol: ForeignFraming::be32().0,
            content: content.clone(),
            make_state: no_state(),
            is_server: true,
            settings,
        };
        let fabric =
            plan.assemble(Arc::new(SimJobs::new(1)), None, SerialSource::Process).expect("right settings");
        let mut driver = world.driver(driver_settings(&plan.settings));
        let (gate, local) = open_gate(&mut driver, &fabric).expect("the world has room for a listener");
        let rules = Rules { book: Arc::clone(&fabric.rules) };
        let magazine = Rc::new(fabric.depot.magazine());
        let core = Core::new(0, world.now(), fabric, magazine);
        Doorway { gate, core, content, rules, local, _driver: driver }
    }

    /// The gate's rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Lets time pass.
    pub fn pass(&mut self, span: Duration) {
        self.core.now = self.core.now + span;
    }

    /// A stranger is at the door: whether he may come in. He does not: nothing is counted as here.
    pub fn admits(&mut self, stranger: SocketAddr) -> bool {
        self.gate.looks_at(stranger, self.local, &mut self.core, &self.content).is_some()
    }
}

impl fmt::Debug for Doorway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Doorway")
    }
}
