//! What comes to a peer: taken out of its records and frames, and judged.

use std::time::Duration;

#[cfg(feature = "wan")]
use super::Pending;
use super::manners::Reads;
use super::{Expects, Line, Table};
#[cfg(feature = "wan")]
use crate::simulation::codec::Tongue;
use crate::simulation::codec::{
    self, DRAINING, GOODBYE, GREETING, MESSAGE, PING, PONG, QUEUE, REFUSAL, TICKET, WELCOME,
};
use crate::simulation::ledger::Ledger;

impl Line {
    pub(super) fn read(&mut self, table: &mut Table, ledger: &mut Ledger, calm: bool) {
        let reads = match self.manners.reads {
            Reads::All => true,
            Reads::Seldom => calm || table.dice.below(8) == 0,
            Reads::Never => calm,
        };
        if !reads || self.is_over {
            return;
        }
        let mut room = [0; 4096];
        loop {
            let count = self.peer.read(&mut room);
            if count == 0 {
                break;
            }
            self.incoming.extend_from_slice(&room[..count]);
        }
        #[cfg(feature = "wan")]
        if self.cloak.is_some() {
            self.uncover(table, ledger);
        }
        loop {
            #[cfg(feature = "wan")]
            let stream = if self.cloak.is_some() { &mut self.plain } else { &mut self.incoming };
            #[cfg(not(feature = "wan"))]
            let stream = &mut self.incoming;
            match codec::take_frame(table.tongue, stream) {
                Ok(Some(frame)) => self.judge(ledger, frame.kind, &frame.payload),
                Ok(None) => break,
                Err(what) => {
                    stream.clear();
                    ledger.fail("I4", format!("peer {} gets {what}", self.key));
                    break;
                }
            }
        }
    }

    /// Takes what came out of its records. At the end of the handshake the log-in, or the greeting, goes first.
    #[cfg(feature = "wan")]
    fn uncover(&mut self, table: &mut Table, ledger: &mut Ledger) {
        let Some(cloak) = &mut self.cloak else { return };
        match cloak.uncover(&mut self.incoming, &mut self.plain) {
            Ok(uncovered) => {
                let Some((ephemeral, proof)) = uncovered.worn else { return };
                ledger.ephemeral(ephemeral);
                self.choose_ticket(table, ledger);
                let frame = if table.tongue == Tongue::Wan {
                    let stolen = table.loot.filter(|_| self.manners.is_thief);
                    table.loot = Some(proof);
                    if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
                        tale.is_thief = stolen.is_some();
                    }
                    if stolen.is_some() {
                        ledger.did("log-in with a stolen proof");
                    }
                    let ticket = self.shows.as_deref().unwrap_or_default();
                    let cloak = self.cloak.as_ref().expect("it is worn");
                    cloak.log_in(&stolen.unwrap_or(proof), ticket)
                } else {
                    self.introduce(ledger)
                };
                self.pending.push_front(Pending { frame, is_message: false });
            }
            Err(_) if ledger.tampered => {
                // Whoever sees that hangs up, and comes again.
                if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
                    tale.leaves = true;
                }
                self.is_over = true;
                self.peer.reset();
            }
            Err(what) => ledger.fail("I15", format!("peer {} gets {what}", self.key)),
        }
    }

    /// Whether a frame may come now, and what it says.
    fn judge(&mut self, ledger: &mut Ledger, kind: u8, payload: &[u8]) {
        let address = self.peer.local();
        ledger.note(|| format!("peer {} gets a frame of kind {kind}, {} bytes", self.key, payload.len()));
        let next = match (self.expects, kind) {
            (Expects::Greeting, GREETING) if payload.starts_with(b"MDNG") => Expects::Welcome,
            (Expects::Greeting | Expects::Welcome, REFUSAL) => {
                ledger.peer_refused(address, payload);
                self.refused = true;
                Expects::Nothing
            }
            (Expects::Welcome, TICKET) => {
                let ticket = payload.get(7..).unwrap_or_default().to_vec();
                ledger.peer_gets_ticket(address, &ticket);
                let older = self.tickets.good.replace(ticket);
                self.tickets.spent = older.or(self.tickets.spent.take());
                Expects::Welcome
            }
            (Expects::Welcome, PING) => {
                if !self.manners.is_mute || ledger.calm {
                    self.put(&codec::lan_frame(PONG, payload), false);
                }
                Expects::Welcome
            }
            (Expects::Welcome, WELCOME) => {
                let spent = self.tickets.good.take();
                self.tickets.spent = spent.or(self.tickets.spent.take());
                let id = payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                ledger.peer_welcomed(address, id);
                Expects::Traffic
            }
            (Expects::Traffic, MESSAGE) => {
                ledger.peer_receives(address, payload);
                Expects::Traffic
            }
            (Expects::Traffic, PING) => {
                if !self.manners.is_mute || ledger.calm {
                    self.put(&codec::lan_frame(PONG, payload), false);
                }
                Expects::Traffic
            }
            (Expects::Traffic, PONG) => Expects::Traffic,
            (Expects::Welcome, QUEUE) => Expects::Welcome,
            // Ours says it behind the welcome, and on a WAN alone; and it keeps no session's place.
            (Expects::Traffic, DRAINING) if self.hears_draining => {
                let left = payload.first_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes));
                ledger.hears_draining(&address, Duration::from_millis(left.into()));
                Expects::Traffic
            }
            (Expects::Traffic | Expects::Welcome, GOODBYE) => Expects::Nothing,
            (expects, kind) => {
                ledger.fail(
                    "S5",
                    format!("peer {} gets a frame of kind {kind} where it expects {expects:?}", self.key),
                );
                expects
            }
        };
        self.expects = next;
    }

    /// Whether a stream in records that ends here was cut off: who is joined hears a goodbye first, unless it ended first.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cloaked()
            && self.expects == Expects::Traffic
            && !self.fins
            && !self.is_over
            && !self.said_goodbye
    }
}
