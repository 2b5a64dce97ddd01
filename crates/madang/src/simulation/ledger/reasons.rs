//! Why a session may have left: each reason needs something that happened.

use madang_wire::FrameError;

use super::Ledger;
use crate::{LeaveReason, SessionId};

impl Ledger {
    /// Whether a reason can have come about.
    pub(super) fn is_plausible(&self, id: SessionId, reason: LeaveReason) -> Result<(), String> {
        use LeaveReason::*;
        let tale = &self.sessions[&id];
        let house = &self.houses[tale.house];
        let peer = if house.is_server { self.peers.get(&tale.remote) } else { None };
        let ok = |holds: bool, why: &str| if holds { Ok(()) } else { Err(why.to_owned()) };
        match reason {
            PeerClosed if self.sealed => Err("an end without a goodbye was cut off".to_owned()),
            Truncated if !self.sealed => Err("nothing is sealed in this run".to_owned()),
            Truncated if self.tampered => Ok(()),
            PeerClosed | PeerReset | Truncated => ok(
                !self.harmless || peer.is_none_or(|peer| peer.leaves || peer.is_hostile),
                "its peer stayed",
            ),
            PeerGoodbye(_) => ok(peer.is_none_or(|peer| peer.says_goodbye), "its peer said no goodbye"),
            // Of a record that was touched the length stands in the clear.
            Malformed(FrameError::TooShort { .. } | FrameError::TooLong { .. }) if self.tampered => Ok(()),
            Malformed(_) => ok(peer.is_some_and(|peer| peer.is_hostile), "its peer sent nothing but frames"),
            Tampered => ok(
                self.sealed && (self.tampered || peer.is_some_and(|peer| peer.is_hostile)),
                "nobody touched what its peer sent",
            ),
            HandlerPanic => ok(tale.panicked || tale.job_panics, "nothing of it panicked"),
            Disconnected(code) => ok(tale.codes.contains(&code), "nobody disconnected it with that code"),
            Declined | Refused(_) => Err("it had joined".to_owned()),
            Stopping => ok(house.stops, "its house does not stop"),
            Superseded => {
                let newest = |(name, incarnation): &(String, u64)| {
                    self.greeted.get(name).is_some_and(|newest| newest > incarnation)
                };
                ok(tale.node.as_ref().is_some_and(newest), "no later life of its node came")
            }
            PoolExhausted => ok(!house.pool_is_ample, "the pool has room"),
            Unreachable | System => ok(!self.harmless, "no fault of this run breaks a connection"),
            SystemExhausted => Err("the shortage passes (K13)".to_owned()),
            TooFast => ok(house.limits_input, "nothing limits what it sends"),
            Evicted => ok(house.pool_may_be_short, "the pool has room"),
            Overload => ok(house.may_be_overloaded, "overload is not looked for"),
            Idle => {
                // What broke a silence in the last moment may be on its way still.
                let is_silent = peer.zip(house.silence_max).is_none_or(|(peer, most)| {
                    self.now.since(peer.alive_at) >= most / 2 || peer.silent_for >= most / 2
                });
                ok(is_silent, "its peer spoke a moment ago (P07)")
            }
            SlowConsumer | Dribble => Ok(()),
        }
    }
}
