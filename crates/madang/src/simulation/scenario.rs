//! What a seed draws: the settings, the weather, the crowd and its temper. Most seeds leave most things out: what is always
//! there hides what only shows without it.

use std::net::IpAddr;
use std::time::Duration;

use madang_driver::DriverSettings;
use madang_driver::sim::{FaultKind, Faults, Random};

use super::codec::Tongue;
use super::content::Temper;
use super::peers::KNOCK_AGAIN;
use crate::{Secret, Settings, WhenSlow};

#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) tongue: Tongue,
    pub(super) settings: Settings,
    pub(super) user_style: bool,
    /// Shards and links of an engine's client, if there is one.
    pub(super) client: Option<(usize, usize)>,
    pub(super) faults: Faults,
    /// Nothing at all goes wrong in this run but what its people do.
    pub(super) faultless: bool,
    /// Nothing in this run kills a connection but its two ends.
    pub(super) harmless: bool,
    /// Somebody in between touches what travels.
    pub(super) tampered: bool,
    pub(super) temper: Temper,
    pub(super) driver: DriverSettings,
    pub(super) seats: u32,
    pub(super) lives: u32,
    pub(super) rudeness: u32,
    pub(super) pace: Duration,
    pub(super) threads: u16,
    /// Per million steps: somebody stops the server and starts it again.
    pub(super) restarts: u32,
    /// Per million steps: a house stands still for a while, as a process does that is suspended.
    pub(super) stalls: u32,
    pub(super) steps: u32,
    pub(super) descriptors_max: usize,
    /// Whom the limits of a prefix are not for.
    pub(super) exempt: Option<IpAddr>,
}

impl Scenario {
    pub(super) fn draw(seed: u64) -> Scenario {
        let mut random = Random::new(seed ^ 0x7363_656e_6172_696f);
        let dice = &mut random;
        let tongue = *pick(dice, &[Tongue::Lan, Tongue::Lan, Tongue::Be32, Tongue::Classic]);
        let tongue = encrypted(seed).unwrap_or(tongue);
        let harmless = dice.coin();
        let weather = dice.below(8);
        let mut faults = match weather {
            0 => Faults::none(),
            1 => Faults::calm(),
            _ => Faults::swarm(seed),
        };
        if harmless {
            faults = faults.harmless();
        } else {
            faults = with_a_rare_one(faults, seed);
        }
        let tampered = tongue.is_sealed() && !harmless && dice.coin();
        if tampered {
            for kind in [FaultKind::BitFlipped, FaultKind::SegmentReplayed, FaultKind::CutOff] {
                faults = faults.with(kind, *pick(dice, &[0, 500, 5_000]));
            }
        }
        faults.cut_sizes = vec![2, 3, 4, 5, 6, 8, 14, 40];
        let seats = *pick(dice, &[1, 2, 4, 8, 16, 64]);
        let mut settings = draw_settings(dice, tongue);
        // A handshake takes some ticks of either side.
        settings.greeting_timeout_ms = settings.greeting_timeout_ms.max(20 * settings.tick_ms);
        settings.connect_timeout_ms = settings.connect_timeout_ms.max(20 * settings.tick_ms);
        // Apart, so that seeds keep what else they draw.
        let gate = &mut Random::new(seed ^ 0x6761_7465);
        draw_gate(gate, &mut settings);
        let exempt = draw_prefix_limits(&mut Random::new(seed ^ 0x7072_6566_6978), &mut settings);
        if settings.accept_rate_max == Some(100) {
            // A burst of callers, a long pause, and one of them finds room to greet: such a door lets in no more than leave.
            settings.embryos_max = settings.embryos_max.max(seats as usize / 4);
        }
        let shakes = &mut Random::new(seed ^ 0x7368_616b_6573);
        settings.handshake_threads = usize::from(shakes.below(3) == 0);
        settings.turn_handshakes_max = *pick(shakes, &[1, 1, 2, 16]);
        if settings.tick_ms > 0 {
            // As with the receive buffers below.
            faults = faults.with(FaultKind::TinyWindow, 0);
        }
        let descriptors_max = match dice.below(8) {
            0 => dice.between(4, 40) as usize,
            _ => usize::MAX,
        };
        Scenario {
            tongue,
            user_style: dice.below(3) == 0,
            client: (dice.below(2) == 0).then(|| (dice.between(1, 2) as usize, dice.between(1, 4) as usize)),
            faults,
            faultless: harmless && weather == 0,
            harmless,
            tampered,
            temper: Temper {
                prefer: *pick(gate, &[0, 0, 300_000]),
                shut_out: *pick(gate, &[0, 20_000, 100_000]),
                ..draw_temper(dice, &settings)
            },
            driver: DriverSettings {
                connections_max: settings.connections_max(),
                submissions_max: *pick(dice, &[1, 2, 8, 64, 4_096]),
                recv_buffers: settings.recv_buffers,
                // One of 64 bytes, looked at once a tick, takes minutes for a message: nothing to learn from it.
                recv_buffer_bytes: *pick(
                    dice,
                    if settings.tick_ms > 0 { &[1_024, 8_192] } else { &[64, 256, 1_024, 8_192] },
                ),
                pause_bytes_max: *pick(dice, &[1, 64, 4_096]),
                ..DriverSettings::default()
            },
            seats,
            lives: dice.between(1, 12) as u32,
            rudeness: *pick(dice, &[0, 100_000, 300_000, 800_000]),
            pace: Duration::from_micros(*pick(dice, &[50, 500, 5_000, 30_000])),
            threads: dice.below(3) as u16,
            restarts: *pick(dice, &[0, 0, 1_500, 4_000]),
            steps: dice.between(500, 8_000) as u32,
            // Where nothing else goes wrong, what a stall does is seen best.
            stalls: match Random::new(seed ^ 0x0073_7461_6c6c).below(8) {
                _ if harmless && weather == 0 => 3_000,
                0 => 1_000,
                _ => 0,
            },
            settings,
            descriptors_max,
            exempt,
        }
    }
}

/// A third of the seeds are encrypted, one way or the other.
#[cfg(feature = "wan")]
fn encrypted(seed: u64) -> Option<Tongue> {
    match Random::new(seed ^ 0x7365_616c_6564).below(6) {
        0 => Some(Tongue::Wan),
        1 => Some(Tongue::Sealed),
        _ => None,
    }
}

#[cfg(not(feature = "wan"))]
fn encrypted(_: u64) -> Option<Tongue> {
    None
}

/// Of sealed links.
fn secret(tongue: Tongue) -> Secret {
    match tongue {
        #[cfg(feature = "wan")]
        Tongue::Sealed => super::cloak::LINK_SECRET.into(),
        _ => Secret::default(),
    }
}

/// Faults that few runs offer an opportunity for are frequent in some.
fn with_a_rare_one(faults: Faults, seed: u64) -> Faults {
    let rare = [
        (FaultKind::AcceptedDataThenReset, 400_000),
        (FaultKind::LinkVanished, 4_000),
        (FaultKind::LateAccept, 500_000),
        (FaultKind::AbortTellsPieces, 300_000),
    ];
    let draw = Random::new(seed ^ 0x7261_7265).index(4 * rare.len());
    rare.get(draw).map_or(faults.clone(), |(kind, rate)| faults.clone().with(*kind, *rate))
}

fn draw_settings(dice: &mut Random, tongue: Tongue) -> Settings {
    let is_lan = tongue.is_lan();
    let frame_limit_bytes = match tongue.inside() {
        Tongue::Lan => *pick(dice, &[64, 200, 1_000, 20_000, 300_000]),
        _ => *pick(dice, &[64, 200, 1_000, 20_000, 65_000]),
    };
    let overload_lag_ms = *pick(dice, &[0, 0, 1, 15]);
    let recv_burst_ms = *pick(dice, &[200, 2_000]);
    let queue_hard_bytes = (frame_limit_bytes as usize).max(*pick(dice, &[200, 2_000, 50_000, 1 << 20]));
    let heartbeat_ms = *pick(dice, &[50, 200, 500]);
    let reconnect_min_ms = *pick(dice, &[1, 20, 100]);
    Settings {
        bind: ([127, 0, 0, 1], 7_000).into(),
        workers: dice.between(1, 4) as usize,
        offload_jobs_max: *pick(dice, &[1, 3, 64]),
        max_sessions: *pick(dice, &[1, 2, 6, 20, 64]),
        session_slack: *pick(dice, &[None, Some(0), Some(1), Some(4)]),
        embryos_max: *pick(dice, &[1, 3, 64]),
        recv_buffers: *pick(dice, &[1, 2, 4, 16]),
        turn_completions_max: *pick(dice, &[1, 2, 3, 8, 32, 256]),
        backlog: *pick(dice, &[1, 4, 64]),
        abortive_close: dice.below(10) == 0,
        recv_messages_per_s: *pick(dice, if is_lan { &[0, 0, 150, 1_000] } else { &[0, 0, 40, 200] }),
        recv_bytes_per_s: *pick(
            dice,
            &[0, 0, 0, u64::from(frame_limit_bytes).max(20_000) * 2_000 / recv_burst_ms],
        ),
        recv_burst_ms,
        recv_over_ms: *pick(dice, &[1, 200, 2_000]),
        frame_limit_bytes,
        tick_ms: if is_lan { 0 } else { *pick(dice, &[0, 0, 0, 5, 40]) },
        queue_soft_bytes: queue_hard_bytes / *pick(dice, &[1, 2, 8]),
        queue_soft_ms: *pick(dice, &[20, 300, 3_000]),
        queue_hard_bytes,
        queue_hard_messages: *pick(dice, &[2, 16, 1_024]),
        queue_when_slow: *pick(dice, &[WhenSlow::Kick, WhenSlow::DropMarked, WhenSlow::Throttle]),
        pool_budget_bytes: *pick(dice, &[1 << 20, 1 << 22, 1 << 28, 1 << 28]),
        overload_lag_ms,
        overload_heavy_ms: overload_lag_ms * 4,
        overload_cut_after_ms: *pick(dice, &[0, 100]),
        pool_short_bytes: *pick(dice, &[0, 0, 0, 0, 10_000, 100_000]),
        mailbox_messages_max: *pick(dice, &[1, 2, 8, 256]),
        session_timers_max: *pick(dice, &[1, 2, 64]),
        greeting_timeout_ms: *pick(dice, &[50, 400, 1_500]),
        heartbeat_ms,
        dead_after_ms: heartbeat_ms * *pick(dice, &[3, 6]),
        idle_timeout_ms: *pick(dice, &[500, 2_000]),
        partial_timeout_ms: *pick(dice, &[100, 1_000, 3_000]),
        leave_timeout_ms: *pick(dice, &[30, 200, 1_000]),
        drain_bytes_max: *pick(dice, &[100, 4_000, 64 << 10]),
        stop_timeout_ms: 20_000,
        reconnect_min_ms,
        reconnect_max_ms: reconnect_min_ms * *pick(dice, &[1, 5]),
        connect_timeout_ms: *pick(dice, &[100, 1_000]),
        service: "simulated".into(),
        node: String::new(),
        incarnation: 1,
        app_version: 7,
        secret: secret(tongue),
        ..Settings::default()
    }
}

/// The waiting queue, and limits that are counted and seldom reached: whoever they turn away is owed no service.
fn draw_gate(dice: &mut Random, settings: &mut Settings) {
    settings.queue_max = *pick(dice, &[0, 0, 2, 10, 100]);
    settings.queue_release_rate = *pick(dice, &[0, 0, 20, 300]);
    settings.queue_update_ms = *pick(dice, &[5, 50]);
    settings.queue_grace_ms = *pick(dice, &[0, 100, 1_000, 1_000]);
    settings.prefix_spares_loopback = dice.coin();
    settings.prefix_connections_max = *pick(dice, &[None, Some(1_000)]);
    settings.prefix_embryos_max = *pick(dice, &[None, Some(1_000)]);
    settings.prefix_rate_max = *pick(dice, &[None, Some(2_000)]);
    settings.accept_rate_max = *pick(dice, &[None, None, Some(100), Some(1_000)]);
}

/// A quarter of the seeds meet the limits of a prefix; in half of those somebody is exempt. All who call are neighbours, on five
/// addresses, the first of which is that of the engine's client.
fn draw_prefix_limits(dice: &mut Random, settings: &mut Settings) -> Option<IpAddr> {
    if dice.below(4) > 0 {
        return None;
    }
    settings.prefix_spares_loopback = false;
    settings.prefix_connections_max = Some(*pick(dice, &[0, 1, 2, 5, 16]));
    settings.prefix_embryos_max = Some(*pick(dice, &[0, 0, 1, 3]));
    settings.prefix_rate_max = Some(*pick(dice, &[0, 0, 50, 300]));
    settings.prefix_burst_max = *pick(dice, &[None, Some(1), Some(10)]);
    settings.prefix_wide_factor = *pick(dice, &[1, 2, 4]);
    // As the other callers do, links of the engine's client that are one too many come to knock seldom. Where nobody greets
    // they take themselves for joined each time, and begin with the shortest pause again.
    settings.reconnect_min_ms = settings.reconnect_min_ms.max(100);
    settings.reconnect_max_ms = settings.reconnect_max_ms.max(KNOCK_AGAIN.as_millis() as u64);
    let address = [127, 0, 0, 1 + dice.below(5) as u8];
    dice.coin().then(|| address.into())
}

fn draw_temper(dice: &mut Random, settings: &Settings) -> Temper {
    let mut rate = |most: u32| if dice.below(3) == 0 { 0 } else { most >> dice.below(5) };
    Temper {
        deeds_max: u64::from(1 + rate(3)),
        refuse: rate(200_000),
        prefer: 0,
        shut_out: 0,
        decline: rate(150_000),
        panic: rate(30_000),
        block: rate(20_000),
        disconnect: rate(60_000),
        last_word: rate(80_000),
        offload: rate(400_000),
        broadcast: rate(200_000),
        group: rate(300_000),
        post: rate(300_000),
        latest: rate(400_000),
        timer: rate(150_000),
        stale: rate(200_000),
        too_long: rate(30_000),
        len_max: settings.frame_limit_bytes as usize,
        span_max: Duration::from_micros(u64::from(rate(400_000)).max(100)),
    }
}

fn pick<'a, T>(dice: &mut Random, choices: &'a [T]) -> &'a T {
    &choices[dice.index(choices.len())]
}
