//! The limits of a prefix, counted apart from the gate. All who call are neighbours: there is one wide prefix.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use madang_driver::Time;

use super::Ledger;
use crate::gate::Counted;
use crate::{Settings, TurnedAway};

/// An address, or the neighbourhood of all.
type Net = Option<IpAddr>;

/// What may come from a prefix; 0 is any number.
pub(in crate::simulation) struct Prefixes {
    connections: u32,
    embryos: u32,
    rate: u32,
    burst: u32,
    wide_factor: u32,
    /// Who is not limited.
    exempt: Option<IpAddr>,
    /// How far ahead of its rate somebody was when the last one passed.
    ahead: BTreeMap<Net, (Duration, Time)>,
}

impl Prefixes {
    /// None where all are spared, as all are from loopback.
    pub(in crate::simulation) fn new(
        settings: &Settings,
        is_lan: bool,
        exempt: Option<IpAddr>,
    ) -> Option<Prefixes> {
        let or = |limit: Option<u32>, others| limit.unwrap_or(if is_lan { 0 } else { others });
        let rate = or(settings.prefix_rate_max, 50);
        (!settings.prefix_spares_loopback).then(|| Prefixes {
            connections: or(settings.prefix_connections_max, 256),
            embryos: or(settings.prefix_embryos_max, 64),
            rate,
            burst: settings.prefix_burst_max.unwrap_or(rate * 2),
            wide_factor: settings.prefix_wide_factor,
            exempt,
            ahead: BTreeMap::new(),
        })
    }

    fn limits(&self, address: IpAddr) -> bool {
        self.exempt != Some(address)
    }

    /// How many may stay where this address is, narrow and wide, and how many of `here` there are.
    fn around(&self, address: IpAddr, here: &[IpAddr]) -> [(Net, usize, usize); 2] {
        let neighbours = here.iter().filter(|other| self.limits(**other)).count();
        let same = here.iter().filter(|other| **other == address).count();
        let most = self.connections as usize;
        [(Some(address), most, same), (None, most * self.wide_factor as usize, neighbours)]
    }

    /// Somebody passed the gate's limits. Answers what was broken by it.
    fn passes(&mut self, address: IpAddr, now: Time) -> Option<String> {
        if self.rate == 0 || !self.limits(address) {
            return None;
        }
        for (net, factor) in [(Some(address), 1), (None, self.wide_factor)] {
            let interval = Duration::from_secs(1) / (self.rate * factor);
            let (before, at) = self.ahead.get(&net).copied().unwrap_or((Duration::ZERO, now));
            let ahead = before.saturating_sub(now.since(at)) + interval;
            self.ahead.insert(net, (ahead, now));
            if ahead > interval * (self.burst * factor) {
                return Some(format!("more come from {} than its rate allows", name(net)));
            }
        }
        None
    }
}

impl Ledger {
    /// A gate begins, which remembers no rates.
    pub(super) fn forget_rates(&mut self) {
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.ahead.clear();
        }
    }

    /// Somebody passed the limits of his prefix.
    pub(super) fn passes_limits(&mut self, address: IpAddr) {
        let now = self.now;
        if let Some(what) = self.prefixes.as_mut().and_then(|prefixes| prefixes.passes(address, now)) {
            self.fail("O3", what);
        }
    }

    /// The server turned somebody away for his prefix. Without an address: who has greeted and is one too many.
    pub(in crate::simulation) fn turned_away(&mut self, cause: TurnedAway, peer: Option<SocketAddr>) {
        let Some(deed) = (match cause {
            TurnedAway::PrefixConnections if peer.is_none() => Some("one too many refused"),
            TurnedAway::PrefixConnections => Some("prefix at its limit"),
            TurnedAway::PrefixEmbryos => Some("prefix at its limit of strangers"),
            TurnedAway::PrefixRate => Some("prefix at its rate"),
            _ => None,
        }) else {
            return;
        };
        self.did(deed);
        let has_cause = self.prefixes.as_ref().is_some_and(|prefixes| {
            let limit = match cause {
                TurnedAway::PrefixConnections => prefixes.connections,
                TurnedAway::PrefixEmbryos => prefixes.embryos,
                _ => prefixes.rate,
            };
            limit > 0 && peer.is_none_or(|peer| prefixes.limits(peer.ip()))
        });
        if !has_cause {
            self.fail("O3", format!("{peer:?} is turned away for {cause:?}, and nothing limits it"));
        }
    }

    /// The server's sessions: of a prefix never more stay than may, nor are more here than that and one in eight.
    pub(in crate::simulation) fn look_at_prefixes(&mut self, sessions: &[Counted]) {
        let Some(prefixes) = self.prefixes.as_ref().filter(|prefixes| prefixes.connections > 0) else {
            return;
        };
        let here: Vec<IpAddr> = sessions.iter().filter_map(|session| session.at).collect();
        let staying = sessions.iter().filter(|session| !session.leaves);
        let stay: Vec<IpAddr> = staying.filter_map(|session| session.at).collect();
        let broken = here.iter().find_map(|address| {
            let [all, staying] = [&here, &stay].map(|list| prefixes.around(*address, list));
            let too_many = all.into_iter().zip(staying).find(|((_, most, all), (_, _, staying))| {
                *staying > *most || *all > *most + (*most / 8).max(1)
            });
            too_many.map(|((net, most, all), (_, _, staying))| {
                format!("{staying} of {} stay and {all} are here, where {most} may stay", name(net))
            })
        });
        if let Some(what) = broken {
            self.fail("O3", what);
        }
    }

    /// Whether the prefix of this address has all the sessions that it may.
    pub(in crate::simulation) fn has_all_it_may(&self, address: IpAddr) -> bool {
        let Some(prefixes) = self.prefixes.as_ref().filter(|prefixes| prefixes.connections > 0) else {
            return false;
        };
        let of_server = self.alive.iter().map(|id| &self.sessions[id]);
        let here: Vec<IpAddr> =
            of_server.filter(|tale| self.houses[tale.house].is_server).map(|tale| tale.remote.ip()).collect();
        prefixes.limits(address)
            && prefixes.around(address, &here).into_iter().any(|(_, most, here)| here >= most)
    }
}

fn name(net: Net) -> String {
    net.map_or("the neighbourhood".to_owned(), |address| address.to_string())
}
