//! What `edge` says of its server: small crowds, so that every line of a scenario but its times holds on a busy machine.
#![cfg(unix)]

mod support;

use support::{output, text};

/// Everything of a scenario holds but what a busy machine decides: how its times compare, which one round does not resolve,
/// and whether the clients are done with one stranger before the next is due. Without pins, where those who do wrong are as
/// any process: beside other tests those who run only on an idle processor would not run.
#[track_caller]
fn check_edge(scenario: &str, lines: &[&str]) {
    let output =
        output(&["edge", scenario, "--percent", "2", "--seconds", "2", "--rounds", "1", "--pin", "false"]);
    let text = text(&output);
    let verdicts =
        |verdict: &'static str| text.lines().filter(move |line| line.trim_start().starts_with(verdict));
    assert!(verdicts("FAIL").all(|line| line.contains("no room at the client")), "{text}");
    assert!(verdicts("????").all(|line| line.contains("p99")), "{text}");
    let code = match (verdicts("FAIL").count(), verdicts("????").count()) {
        (0, 0) => 0,
        (0, _) => 3,
        _ => 1,
    };
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in lines {
        assert!(text.lines().any(|line| line.trim_start().starts_with(part)), "no {part:?} in:\n{text}");
    }
}

#[test]
fn b08_edge_strangers_are_gone_by_the_deadline() {
    let lines = ["ok    strangers that ended as they must", "ok    the longest that one was suffered"];
    check_edge("slow-loris", &lines);
}

#[test]
fn f12_edge_garbage_is_not_answered() {
    check_edge("garbage", &["ok    garbage that ended as they must", "ok    after the stop"]);
}

#[test]
fn edge_a_storm_of_log_ins_is_let_in() {
    check_edge("storm", &["ok    log-ins that ended as they must", "ok    honest connections that failed"]);
}

#[test]
fn b01_edge_who_never_reads_leaves_as_a_slow_consumer() {
    let lines = ["ok    left as slow consumers", "ok    bytes in packets when all are gone"];
    check_edge("never-readers", &lines);
}

#[test]
fn edge_all_get_in_in_order_and_keep_their_turn() {
    let lines =
        ["ok    clients that got in", "ok    lost their link for two seconds", "ok    places out of order"];
    check_edge("queue", &lines);
}

#[test]
fn edge_a_crowd_that_cannot_go_on_is_quoted() {
    // More log-ins in all than the load client begins handshakes for.
    let output = output(&["edge", "garbage", "--seconds", "60", "--rounds", "99", "--pin", "false"]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it cannot have played");
    assert!(complaint.contains("a crowd ended before it should"), "{complaint}");
    assert!(complaint.contains("'--prepared <COUNT>'"), "what the crowd complained about: {complaint}");
}
