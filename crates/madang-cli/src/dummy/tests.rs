//! The dummy against a double: a right server passes each mode, each flaw is found by the mode that must find it.

use std::time::Duration;

use super::double::{Double, Flaw, public_key};
use super::framing::Framing;
use super::message::Sizes;
use super::mode::Mode;
use super::tally::{Summary, Tally};
use super::wan::{Pinned, Suite};
use super::{Settings, play};
use crate::signals::Signals;

const FRAMINGS: [Framing; 4] = [Framing::Lan, Framing::Be32, Framing::Classic, Framing::Wan];

fn run(framing: Framing, mode: Mode, flaw: Flaw) -> Summary {
    let double = Double::start(framing, flaw);
    play(mode, &settings(framing, flaw, &double)).expect("threads start")
}

fn settings(framing: Framing, flaw: Flaw, double: &Double) -> Settings {
    Settings {
        address: double.address,
        clients: 4,
        lasts: Duration::from_millis(400),
        framing,
        wan: (framing == Framing::Wan).then(|| Pinned {
            server: public_key(),
            suite: Suite::Aesgcm,
            token: b"let me in".to_vec(),
        }),
        sizes: Sizes { min: 24, max: 300 },
        broadcasts: false,
        depth: 4,
        rate: 0,
        burst: 256,
        seed: 1,
        // A right server must pass on a busy machine; with a flaw most of the time is spent waiting in vain.
        patience: Duration::from_millis(if flaw == Flaw::None { 20_000 } else { 800 }),
        signals: Signals::default(),
    }
}

/// No failure, and the mode did its work.
#[track_caller]
fn check_clean(mode: Mode, worked: impl Fn(&Summary) -> bool) {
    for framing in FRAMINGS {
        let summary = run(framing, mode, Flaw::None);
        assert!(summary.tally.is_clean() && worked(&summary), "{summary}");
    }
}

/// The flaw is found, and called by this name.
#[track_caller]
fn check_found(mode: Mode, flaw: Flaw, kind: &str) {
    check_found_in(&FRAMINGS, mode, flaw, kind);
}

#[track_caller]
fn check_found_in(framings: &[Framing], mode: Mode, flaw: Flaw, kind: &str) {
    for &framing in framings {
        let summary = run(framing, mode, flaw);
        assert!(summary.tally.failed.contains_key(kind), "{flaw:?} with {framing:?} is no {kind}: {summary}");
    }
}

#[test]
fn a_right_server_passes_steady() {
    check_clean(Mode::Steady, |s| {
        s.tally.verified == s.tally.sent && s.tally.sent > 100 && s.tally.closed == 4
    });
}

#[test]
fn a_right_server_passes_over_send() {
    check_clean(Mode::OverSend, |s| s.tally.verified == s.tally.sent && s.tally.sent >= 4 * 256);
}

/// The burst is more than both kernels hold, and the double does not read while it cannot write.
#[test]
fn over_send_makes_room_for_a_server_that_stops_reading() {
    let double = Double::start(Framing::Be32, Flaw::None);
    let sizes = Sizes { min: 8_000, max: 8_000 };
    let settings =
        Settings { clients: 1, burst: 3_000, sizes, ..settings(Framing::Be32, Flaw::None, &double) };
    let summary = play(Mode::OverSend, &settings).expect("a thread starts");
    assert!(summary.tally.is_clean() && summary.tally.verified >= 3_000, "{summary}");
}

#[test]
fn a_right_server_passes_churn() {
    check_clean(Mode::Churn, |s| s.tally.verified == s.tally.sent && s.tally.connections > 20);
}

#[test]
fn a_right_server_passes_random_disconnect() {
    check_clean(Mode::RandomDisconnect, |s| {
        s.tally.waived > 0 && s.tally.closed > 0 && s.tally.connections > 20
    });
}

#[test]
fn a_right_server_passes_reset() {
    check_clean(Mode::Reset, |s| s.tally.waived > 0 && s.tally.verified > 0 && s.tally.connections > 20);
}

#[test]
fn a_right_server_passes_garbage() {
    check_clean(Mode::Garbage, |s| s.tally.repelled >= 8 && s.tally.verified > 100);
}

/// Two clients, one of whom never reads, and time enough for the double to lose its patience.
fn never_read_settings(framing: Framing, double: &Double, patience: Duration) -> Settings {
    let (lasts, sizes) = (Duration::from_secs(4), Sizes { min: 4_000, max: 4_000 });
    Settings { clients: 2, lasts, sizes, patience, ..settings(framing, Flaw::None, double) }
}

/// Side by side, because most of the time is spent waiting. A check that panics ends the test.
fn in_each_framing(check: impl Fn(Framing) + Sync) {
    std::thread::scope(|scope| {
        for framing in FRAMINGS {
            let check = &check;
            scope.spawn(move || check(framing));
        }
    });
}

#[test]
fn a_right_server_passes_never_read() {
    in_each_framing(|framing| {
        let double = Double::start(framing, Flaw::None);
        let settings = never_read_settings(framing, &double, Duration::from_secs(20));
        let summary = play(Mode::NeverRead, &settings).expect("threads start");
        let Tally { repelled, verified, .. } = summary.tally;
        assert!(summary.tally.is_clean() && repelled > 0 && verified > 100, "{framing:?}: {summary}");
    });
}

/// Who never reads is suffered, and that is found.
#[test]
fn a_server_that_suffers_who_never_reads_is_found() {
    in_each_framing(|framing| {
        let double = Double::start(framing, Flaw::SufferAll);
        let settings = never_read_settings(framing, &double, Duration::from_millis(500));
        let summary = play(Mode::NeverRead, &settings).expect("threads start");
        assert!(summary.tally.failed.contains_key("not-cut-off"), "{framing:?}: {summary}");
    });
}

#[test]
fn a_lost_echo_is_found() {
    // One outstanding echo that never comes is silence; among several the gap shows itself.
    check_found(Mode::Steady, Flaw::Lose, "lost");
    check_found(Mode::OverSend, Flaw::Lose, "lost");
}

#[test]
fn a_doubled_echo_is_found() {
    check_found(Mode::Steady, Flaw::Double, "doubled");
}

#[test]
fn a_reordered_echo_is_found() {
    check_found(Mode::Steady, Flaw::Swap, "reordered");
}

#[test]
fn an_altered_echo_is_found() {
    check_found(Mode::Steady, Flaw::FlipBit, "altered");
    check_found(Mode::Reset, Flaw::FlipBit, "altered");
    check_found(Mode::RandomDisconnect, Flaw::FlipBit, "altered");
    check_found(Mode::Steady, Flaw::Shorten, "altered");
}

#[test]
fn an_echo_of_another_session_is_found() {
    check_found(Mode::Steady, Flaw::CrossTalk, "foreign");
}

#[test]
fn a_server_that_hangs_is_reported_and_does_not_hang_the_dummy() {
    check_found(Mode::Churn, Flaw::Hang, "silent");
}

#[test]
fn an_end_that_nobody_asked_for_is_found() {
    check_found(Mode::Steady, Flaw::CloseEarly, "lost");
    check_found(Mode::Steady, Flaw::CutFrame, "cut");
}

#[test]
fn a_disconnect_that_does_not_happen_is_found() {
    check_found(Mode::RandomDisconnect, Flaw::IgnoreDisconnect, "silent");
    check_found(Mode::RandomDisconnect, Flaw::EchoDisconnect, "after-end");
}

#[test]
fn a_farewell_that_does_not_arrive_is_found() {
    check_found(Mode::RandomDisconnect, Flaw::ForgetFarewell, "lost");
}

#[test]
fn garbage_that_is_kept_or_answered_is_found() {
    check_found(Mode::Garbage, Flaw::KeepGarbage, "not-repelled");
    check_found(Mode::Garbage, Flaw::AnswerStranger, "answered");
}

#[test]
fn a_client_that_is_not_let_in_is_found() {
    // A connection that is closed before any byte is refused where there is a greeting, and lost echoes elsewhere.
    for (framing, kind) in FRAMINGS.into_iter().zip(["refused", "lost", "lost", "refused"]) {
        let summary = run(framing, Mode::Churn, Flaw::Refuse);
        assert!(summary.tally.failed.contains_key(kind), "{framing:?}: {summary}");
    }
}

/// A WAN client that was cut off must be able to tell it from an end.
#[test]
fn f06_an_end_without_a_goodbye_is_found() {
    check_found_in(&[Framing::Wan], Mode::RandomDisconnect, Flaw::ForgetGoodbye, "cut");
}

#[test]
fn a_right_server_passes_queue() {
    let double = Double::start(Framing::Wan, Flaw::None);
    let settings = Settings { lasts: Duration::from_secs(20), ..settings(Framing::Wan, Flaw::None, &double) };
    let summary = play(Mode::Queue, &settings).expect("threads start");
    let Tally { waited, came_back, verified, .. } = summary.tally;
    assert!(summary.tally.is_clean() && (waited, came_back) == (4, 1) && verified >= 4, "{summary}");
}

#[test]
fn a_turn_that_is_lost_in_the_queue_is_found() {
    check_found_in(&[Framing::Wan], Mode::Churn, Flaw::PositionRises, "refused");
    let double = Double::start(Framing::Wan, Flaw::LoseTurn);
    let settings = Settings { lasts: Duration::from_secs(20), ..settings(Framing::Wan, Flaw::None, &double) };
    let summary = play(Mode::Queue, &settings).expect("threads start");
    assert_eq!(summary.tally.failed.get("refused"), Some(&1), "{summary}");
}

#[test]
fn a_message_of_a_record_that_does_not_open_is_found() {
    check_found_in(&[Framing::Wan], Mode::Garbage, Flaw::TakeGarbage, "answered");
}

/// Whoever answers with another key than the one that is pinned is no server of ours.
#[test]
fn f09_a_server_that_does_not_have_the_key_is_found() {
    let double = Double::start(Framing::Wan, Flaw::None);
    let mut settings = settings(Framing::Wan, Flaw::None, &double);
    settings.wan.iter_mut().for_each(|pinned| pinned.server.0[5] ^= 1);
    let summary = play(Mode::Churn, &settings).expect("threads start");
    assert!(summary.tally.failed.contains_key("refused") && summary.tally.sent == 0, "{summary}");
}

#[test]
fn both_suites_are_spoken() {
    let double = Double::start(Framing::Wan, Flaw::None);
    let mut settings = settings(Framing::Wan, Flaw::None, &double);
    settings.wan.iter_mut().for_each(|pinned| pinned.suite = Suite::Chachapoly);
    for mode in [Mode::Steady, Mode::Garbage] {
        let summary = play(mode, &settings).expect("threads start");
        assert!(summary.tally.is_clean() && summary.tally.verified > 100, "{summary}");
    }
}
