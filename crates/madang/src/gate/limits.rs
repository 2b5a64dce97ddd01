//! How many connections, and how fast, from one address and from its neighbourhood.
//!
//! | | narrow | wide |
//! |---|---|---|
//! | IPv4 | one address | its /24 |
//! | IPv6 | its /64, which one customer has | its /48, which one site has |
//!
//! A limit is for those who stay. Beyond it there is a little room ([`slack`]) for those who are on their way out (sessions that
//! leave, and peers that were told no and have not hung up), and, where peers greet, for those who may prove to be back: a
//! client that comes again at once is here before its old session has left, and a waiter before it has shown its ticket.
//! Whether one is too many is looked at again when it has greeted.
//!
//! The wide limits are `prefix_wide_factor` times the narrow ones. What is here now is counted exactly, in a map that the
//! connections themselves bound. How fast it came is remembered in a table of fixed size, in which a flood from many
//! prefixes can only push out what is nearly forgotten.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use madang_driver::Time;

use super::prefix::number;
use super::turned_away::TurnedAway;
use crate::Settings;
use crate::planted::{Planted, planted};

/// Places of the table of rates, 16 bytes each. A prefix is worth remembering until its burst is whole again (two seconds
/// by the defaults), so at the default `accept_rate_max` of 4,000 a second, with two prefixes each, half of them are.
const RATE_PLACES: usize = 32_768;

/// Places that one prefix may have: two cache lines.
const WAYS: usize = 8;

/// The limits of a narrow prefix; 0 is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct PrefixLimits {
    connections: u32,
    embryos: u32,
    /// New connections a second, and at once.
    rate: u32,
    burst: u32,
    wide_factor: u32,
    spare_loopback: bool,
    /// Peers greet: there is a second look.
    greets: bool,
}

impl PrefixLimits {
    /// What the settings say; where they say nothing, a LAN has no such limits and other servers have.
    pub(super) fn new(settings: &Settings, is_lan: bool, greets: bool) -> PrefixLimits {
        let or = |limit: Option<u32>, others: u32| limit.unwrap_or(if is_lan { 0 } else { others });
        let rate = or(settings.prefix_rate_max, 50);
        PrefixLimits {
            connections: or(settings.prefix_connections_max, 256),
            embryos: or(settings.prefix_embryos_max, 64),
            rate,
            burst: settings.prefix_burst_max.unwrap_or(rate.saturating_mul(2)),
            wide_factor: settings.prefix_wide_factor,
            spare_loopback: settings.prefix_spares_loopback,
            greets,
        }
    }
}

pub(super) struct Limits {
    max: PrefixLimits,
    here: BTreeMap<Net, Here>,
    rates: Rates,
}

/// A narrow or wide prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Net {
    is_v4: bool,
    is_wide: bool,
    bits: u128,
}

/// Connections of one prefix that are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Here {
    all: u32,
    /// Those of them that have not proven who they are.
    embryos: u32,
    /// Those of them that are on their way out.
    leaving: u32,
}

impl Here {
    fn staying(self) -> u32 {
        self.all - self.leaving
    }
}

/// How many more than may stay may be here: one in eight, at least one.
fn slack(connections: u32) -> u32 {
    (connections / 8).max(1)
}

impl Net {
    pub(super) fn narrow(address: IpAddr) -> Net {
        Net::of(address, 0, 64)
    }

    pub(super) fn wide(address: IpAddr) -> Net {
        Net { is_wide: true, ..Net::of(address, 8, 80) }
    }

    fn of(address: IpAddr, v4_cut: u32, v6_cut: u32) -> Net {
        let address = address.to_canonical();
        let cut = if address.is_ipv4() { v4_cut } else { v6_cut };
        Net { is_v4: address.is_ipv4(), is_wide: false, bits: number(address) >> cut }
    }
}

impl Limits {
    /// `secret`: so that nobody can know which prefixes share a place.
    pub(super) fn new(max: PrefixLimits, secret: [u8; 16]) -> Limits {
        let rates = Rates::new(if max.rate > 0 { RATE_PLACES } else { 0 }, secret);
        Limits { max, here: BTreeMap::new(), rates }
    }

    /// Whether one more may come from this address, who takes what it has of its rate.
    pub(super) fn admit(&mut self, address: IpAddr, now: Time) -> Result<(), TurnedAway> {
        if self.spares(address) {
            return Ok(());
        }
        let PrefixLimits { connections, embryos, rate, burst, wide_factor, greets, .. } = self.max;
        for (here, factor) in self.around(address) {
            let most = connections.saturating_mul(factor);
            let is_full = here.all >= most.saturating_add(slack(most)) || !greets && here.staying() >= most;
            if connections > 0 && is_full {
                return Err(TurnedAway::PrefixConnections);
            }
            if embryos > 0 && here.embryos >= embryos.saturating_mul(factor) {
                return Err(TurnedAway::PrefixEmbryos);
            }
        }
        if rate > 0 {
            let narrow = Pace::new(rate, burst);
            let wide = Pace::new(rate.saturating_mul(wide_factor), burst.saturating_mul(wide_factor));
            // The narrow one first: what it holds back must cost the neighbours nothing.
            if !planted(Planted::PrefixRateOfNeighbours)
                && !self.rates.take(Net::narrow(address), narrow, now)
                || !self.rates.take(Net::wide(address), wide, now)
            {
                return Err(TurnedAway::PrefixRate);
            }
        }
        Ok(())
    }

    /// Whether more stay than may, somebody from this address among them. Those who have not proven themselves do not count:
    /// strangers who linger must not keep out who is back.
    pub(super) fn has_too_many(&self, address: IpAddr) -> bool {
        let connections = self.max.connections;
        let too_many =
            |(here, factor): (Here, u32)| here.staying() - here.embryos > connections.saturating_mul(factor);
        let counts = connections > 0 && !self.spares(address) && !planted(Planted::PrefixOneTooMany);
        counts && self.around(address).into_iter().any(too_many)
    }

    fn spares(&self, address: IpAddr) -> bool {
        self.max.spare_loopback && address.to_canonical().is_loopback()
    }

    /// Who is here from this address and from its neighbourhood, each with the factor of its limits.
    fn around(&self, address: IpAddr) -> [(Here, u32); 2] {
        let here = |net| self.here.get(&net).copied().unwrap_or_default();
        [(here(Net::narrow(address)), 1), (here(Net::wide(address)), self.max.wide_factor)]
    }

    /// Somebody is here.
    pub(super) fn came(&mut self, address: IpAddr, is_embryo: bool) {
        self.each(address, |here| {
            here.all += 1;
            here.embryos += u32::from(is_embryo);
        });
    }

    /// He has proven who he is.
    pub(super) fn proved(&mut self, address: IpAddr) {
        self.each(address, |here| here.embryos -= 1);
    }

    /// He is gone.
    pub(super) fn went(&mut self, address: IpAddr, is_embryo: bool) {
        self.each(address, |here| {
            here.all -= 1;
            here.embryos -= u32::from(is_embryo);
        });
    }

    /// He is on his way out.
    pub(super) fn leaves(&mut self, address: IpAddr) {
        self.each(address, |here| here.leaving += 1);
    }

    /// Who was on his way out is gone.
    pub(super) fn left(&mut self, address: IpAddr) {
        self.each(address, |here| {
            here.all -= 1;
            here.leaving -= 1;
        });
    }

    fn each(&mut self, address: IpAddr, change: impl Fn(&mut Here)) {
        if self.max.connections == 0 && self.max.embryos == 0 {
            return;
        }
        for net in [Net::narrow(address), Net::wide(address)] {
            let here = self.here.entry(net).or_default();
            change(here);
            if here.all == 0 {
                self.here.remove(&net);
            }
        }
    }

    /// Whether exactly these are counted: each with his address, whether he has not proven who he is, and whether he leaves.
    #[cfg(feature = "simulation")]
    pub(super) fn counts(&self, all: impl Iterator<Item = (IpAddr, bool, bool)>) -> Result<(), String> {
        let mut counted = Limits::new(PrefixLimits { rate: 0, ..self.max }, [0; 16]);
        for (address, is_embryo, leaves) in all {
            counted.came(address, is_embryo);
            if leaves {
                counted.leaves(address);
            }
        }
        if counted.here == self.here {
            return Ok(());
        }
        Err(format!("{:?} are counted by prefix, and {:?} are here", self.here, counted.here))
    }

    /// Whether nobody is counted.
    pub(super) fn is_empty(&self) -> bool {
        self.here.is_empty()
    }
}

/// So many a second, and so many at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    interval: Duration,
    /// How far ahead of its pace somebody may be.
    ahead: Duration,
}

impl Pace {
    pub(super) fn new(rate: u32, burst: u32) -> Pace {
        let interval = Duration::from_secs(1) / rate.max(1);
        Pace { interval, ahead: interval * (burst.max(1) - 1) }
    }

    /// Takes one: `due` is when it would have been its turn at an even pace, and grows with each. False when it is too far
    /// ahead.
    pub(super) fn take(self, due: &mut Time, now: Time) -> bool {
        let turn = (*due).max(now);
        if turn.since(now) > self.ahead {
            return false;
        }
        *due = turn + self.interval;
        true
    }

    /// The due time after one more that was taken past the pace.
    pub(super) fn past(self, due: Time) -> Time {
        due + self.interval
    }

    /// When one more may be taken.
    pub(super) fn next(self, due: Time) -> Time {
        Time::from_nanos(due.as_nanos().saturating_sub(self.ahead.as_nanos() as u64))
    }
}

/// The due times of prefixes by a keyed hash, in sets of a few places. A due time that has passed is as good as none.
struct Rates {
    secret: [u8; 16],
    places: Vec<(u64, Time)>,
}

impl Rates {
    fn new(places: usize, secret: [u8; 16]) -> Rates {
        Rates { secret, places: vec![(0, Time::ZERO); places] }
    }

    fn take(&mut self, net: Net, pace: Pace, now: Time) -> bool {
        let name = self.name(net);
        let sets = self.places.len() / WAYS;
        let set = (name as usize % sets) * WAYS;
        let places = &mut self.places[set..set + WAYS];
        let index = places.iter().position(|(other, _)| *other == name).unwrap_or_else(|| {
            // Whoever is nearest to being forgotten makes way.
            let oldest = (0..WAYS).min_by_key(|index| places[*index].1).expect("a set has places");
            places[oldest] = (name, Time::ZERO);
            oldest
        });
        pace.take(&mut places[index].1, now)
    }

    fn name(&self, net: Net) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.secret.hash(&mut hasher);
        net.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: PrefixLimits = PrefixLimits {
        connections: 4,
        embryos: 2,
        rate: 10,
        burst: 3,
        wide_factor: 2,
        spare_loopback: true,
        greets: false,
    };

    fn limits(max: PrefixLimits) -> Limits {
        Limits::new(max, [7; 16])
    }

    fn at(milliseconds: u64) -> Time {
        Time::from_nanos(milliseconds * 1_000_000)
    }

    #[test]
    fn b07_connections_of_an_address_and_of_its_neighbours_are_counted() {
        let mut limits = limits(PrefixLimits { rate: 0, ..MAX });
        let check = |limits: &mut Limits, address: &str, expected: Result<(), TurnedAway>| {
            let address: IpAddr = address.parse().unwrap();
            let answer = limits.admit(address, at(0));
            assert_eq!(answer, expected, "{address}");
            if answer.is_ok() {
                limits.came(address, false);
            }
        };
        for _ in 0..4 {
            check(&mut limits, "1.1.1.1", Ok(()));
            check(&mut limits, "1.1.1.2", Ok(()));
            check(&mut limits, "2001:db8:0:1::1", Ok(()));
        }
        let full = Err(TurnedAway::PrefixConnections);
        check(&mut limits, "1.1.1.1", full);
        check(&mut limits, "::ffff:1.1.1.1", full);
        check(&mut limits, "1.1.1.3", full);
        check(&mut limits, "1.1.2.1", Ok(()));
        check(&mut limits, "2001:db8:0:1::2", full);
        for other in 2..6 {
            check(&mut limits, &format!("2001:db8:0:{other}::1"), Ok(()));
        }
        check(&mut limits, "2001:db8:0:9::1", full);
        check(&mut limits, "2001:db8:1::1", Ok(()));
        limits.went("1.1.1.2".parse().unwrap(), false);
        check(&mut limits, "1.1.1.1", full);
        check(&mut limits, "1.1.1.3", Ok(()));
    }

    #[test]
    fn s12_who_leaves_makes_room_at_once_and_never_for_many() {
        for greets in [false, true] {
            let mut limits = limits(PrefixLimits { connections: 16, embryos: 0, rate: 0, greets, ..MAX });
            let address: IpAddr = "1.1.1.1".parse().unwrap();
            let come = |limits: &mut Limits| {
                let admitted = limits.admit(address, at(0)).is_ok();
                admitted.then(|| limits.came(address, false)).is_some()
            };
            assert!((0..16).all(|_| come(&mut limits)));
            assert!(!limits.has_too_many(address));
            // Whoever greets is let in to do so, a few at a time, and is one too many then.
            for _ in 0..2 {
                assert_eq!(come(&mut limits), greets);
            }
            assert_eq!((limits.has_too_many(address), come(&mut limits)), (greets, false));
            if greets {
                limits.went(address, false);
                limits.came(address, true);
                assert!(limits.has_too_many(address), "one of the two has greeted and stays");
                limits.went(address, true);
                limits.went(address, false);
                limits.came(address, true);
                assert!(!limits.has_too_many(address), "who has not greeted keeps nobody out");
                limits.went(address, true);
                limits.came(address, false);
                limits.came(address, false);
                limits.went(address, false);
                limits.went(address, false);
            }
            // Three leave: two more are here at once, and neither is too many; for the third there is no room yet.
            for _ in 0..3 {
                limits.leaves(address);
            }
            assert!(come(&mut limits) && come(&mut limits));
            assert_eq!((limits.has_too_many(address), come(&mut limits)), (false, false));
            // When they have left, one of the sixteen is still to come.
            for _ in 0..3 {
                limits.left(address);
            }
            assert!(come(&mut limits) && !limits.has_too_many(address));
            (0..16).for_each(|_| limits.went(address, false));
            assert!(limits.is_empty());
        }
    }

    #[test]
    fn b06_those_who_have_not_proven_themselves_are_counted_apart() {
        let mut limits = limits(PrefixLimits { rate: 0, ..MAX });
        let address: IpAddr = "1.1.1.1".parse().unwrap();
        for _ in 0..2 {
            limits.admit(address, at(0)).unwrap();
            limits.came(address, true);
        }
        assert_eq!(limits.admit(address, at(0)), Err(TurnedAway::PrefixEmbryos));
        limits.proved(address);
        assert_eq!(limits.admit(address, at(0)), Ok(()));
        limits.went(address, false);
        limits.went(address, true);
        assert!(limits.is_empty(), "I17: all counts come back to nothing");
    }

    #[test]
    fn b07_a_burst_passes_and_then_the_rate_holds() {
        let mut limits = limits(MAX);
        let address: IpAddr = "1.1.1.1".parse().unwrap();
        let passed = |limits: &mut Limits, from: u64, to: u64| {
            (from..to).filter(|millisecond| limits.admit(address, at(*millisecond)).is_ok()).count()
        };
        assert_eq!(passed(&mut limits, 1_000, 1_003), 3);
        assert_eq!(passed(&mut limits, 1_003, 2_003), 10, "ten a second from then on");
        assert_eq!(passed(&mut limits, 60_000, 60_050), 3, "after a pause the burst is whole again");
        let mut limits = self::limits(MAX);
        let neighbours = (0..40u8).filter(|last| limits.admit([1, 1, 1, *last].into(), at(5_000)).is_ok());
        assert_eq!(neighbours.count(), 6, "the neighbourhood has twice the burst");
    }

    #[test]
    fn loopback_is_spared_unless_a_setting_says_otherwise() {
        for (spare_loopback, expected) in [(true, 50), (false, 3)] {
            let mut limits = limits(PrefixLimits { spare_loopback, ..MAX });
            let passed = (0..50).filter(|_| limits.admit([127, 0, 0, 1].into(), at(9)).is_ok()).count();
            assert_eq!(passed, expected);
        }
    }

    #[test]
    fn b07_spraying_from_many_prefixes_neither_grows_the_table_nor_frees_a_flooder() {
        let mut limits = limits(PrefixLimits { connections: 0, embryos: 0, burst: 100, ..MAX });
        let places = limits.rates.places.len();
        let flooder: IpAddr = "9.9.9.9".parse().unwrap();
        let mut passed = 0;
        for step in 0..200_000u128 {
            // 4,000 a second, as fast as the gate accepts; one of twenty is the flooder.
            let now = Time::from_nanos(1_000_000_000 + step as u64 * 250_000);
            let spray = std::net::Ipv6Addr::from_bits((0x2001 << 112) | (step << 80));
            limits.admit(spray.into(), now).ok();
            if step % 20 == 0 {
                passed += usize::from(limits.admit(flooder, now).is_ok());
            }
        }
        assert_eq!(limits.rates.places.len(), places);
        let honest = 100 + 50 * 10;
        assert!((honest - 5..=honest + 5).contains(&passed), "{passed} of {honest} passed");
    }
}
