//! What the gate's own work for a stranger costs, beyond the kernel's accept and close: at most a microsecond.
//!
//! `cargo bench -p madang --features simulation --bench gate`

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use madang::simulation::Doorway;
use madang::{Admission, Handler, Peer, Prefix, Settings};

struct Open;
impl Handler for Open {}

struct Shut;
impl Handler for Shut {
    fn on_connection_request(&self, _: &Peer) -> Admission {
        Admission::Refuse
    }
}

/// Strangers from everywhere, no two alike.
struct Everywhere(u64);

impl Everywhere {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 16
    }

    fn v4(&mut self) -> SocketAddr {
        (Ipv4Addr::from_bits(self.number() as u32 | 1 << 31), 5_000).into()
    }

    fn v6(&mut self) -> SocketAddr {
        let bits = 0x2001 << 112 | u128::from(self.number()) << 64 | u128::from(self.number());
        (Ipv6Addr::from_bits(bits), 5_000).into()
    }
}

/// A gate with as many rules as its table takes, none of which covers a class E address.
fn doorway(handler: impl Handler) -> Doorway {
    let doorway = Doorway::new(Settings::for_players(), handler);
    let mut rules = madang::RuleSet::default();
    let mut from = Everywhere(7);
    while rules.rule.len() < 8_000 {
        let address = Ipv4Addr::from_bits(from.number() as u32 & !(1 << 31));
        let prefix = Prefix::new(address.into(), 16 + (rules.rule.len() % 17) as u8).expect("16 to 32 bits");
        rules.rule.push(madang::RuleLine { prefix, kind: madang::RuleKind::Ban, ends: None });
    }
    doorway.rules().set(&rules).expect("there is room");
    doorway
}

fn strangers(c: &mut Criterion) {
    let mut group = c.benchmark_group("gate");
    // 4,000 a second, as fast as it accepts.
    let step = Duration::from_micros(250);

    let mut open = doorway(Open);
    let banned: SocketAddr = "99.1.2.3:5000".parse().expect("an address");
    open.rules().ban(banned.ip()).expect("there is room");
    group.bench_function("a banned one is turned away", |b| {
        b.iter(|| {
            open.pass(step);
            assert!(!open.admits(black_box(banned)));
        });
    });
    let flooder: SocketAddr = "240.1.2.3:5000".parse().expect("an address");
    group.bench_function("one of a flood from one address", |b| {
        b.iter(|| {
            open.pass(Duration::from_micros(10));
            black_box(open.admits(black_box(flooder)))
        });
    });
    let mut from = Everywhere(11);
    group.bench_function("one from anywhere, v4, enters", |b| {
        b.iter(|| {
            open.pass(step);
            assert!(open.admits(black_box(from.v4())));
        });
    });
    group.bench_function("one from anywhere, v6, enters", |b| {
        b.iter(|| {
            open.pass(step);
            assert!(open.admits(black_box(from.v6())));
        });
    });
    let mut shut = doorway(Shut);
    group.bench_function("one from anywhere is refused by content", |b| {
        b.iter(|| {
            shut.pass(step);
            assert!(!shut.admits(black_box(from.v4())));
        });
    });
    // Not the gate's work: that of whoever changes a rule.
    let mut add = false;
    group.bench_function("a ban is set or taken back among 8,000 rules", |b| {
        b.iter(|| {
            add = !add;
            if add {
                shut.rules().ban(flooder.ip()).expect("there is room");
            } else {
                assert!(shut.rules().pardon(flooder.ip()));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, strangers);
criterion_main!(benches);
