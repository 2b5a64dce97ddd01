//! The exit code and the report of `madang dummy`, against a be32 echo server of a few lines: a script that trusts
//! them must be able to.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};

/// Echoes until the test ends; each `lose_each`-th message of a connection is swallowed.
fn echo_server(lose_each: u64) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
    let address = listener.local_addr().expect("a bound listener");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("an accepted stream");
            std::thread::spawn(move || {
                let _ended = echo(stream, lose_each);
            });
        }
    });
    address
}

fn echo(mut stream: TcpStream, lose_each: u64) -> io::Result<()> {
    for number in 1.. {
        let mut header = [0; 4];
        stream.read_exact(&mut header)?;
        let len = u32::from_be_bytes(header);
        if len == 0 || len > 1_048_576 {
            return Ok(());
        }
        let mut payload = vec![0; len as usize];
        stream.read_exact(&mut payload)?;
        if payload[0] == b'D' {
            return Ok(());
        }
        if number % lose_each != 0 {
            stream.write_all(&[&header[..], &payload].concat())?;
        }
        if payload[0] == b'F' {
            stream.shutdown(Shutdown::Write)?;
            return io::copy(&mut stream, &mut io::sink()).map(drop);
        }
    }
    Ok(())
}

fn dummy(address: SocketAddr, options: &[&str]) -> Output {
    let address = address.to_string();
    let fixed =
        ["dummy", "--addr", &address, "--framing", "be32", "--clients", "8", "--seconds", "1", "--seed", "7"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_madang"));
    command.args(fixed).args(options).output().expect("the binary that was just built")
}

/// The dummy ends with this code and its output has these parts.
#[track_caller]
fn check(address: SocketAddr, options: &[&str], code: i32, parts: &[&str]) {
    let output = dummy(address, options);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn zero_when_every_echo_is_right() {
    let lines = ["steady ", "over-send ", "churn ", "random-disconnect ", "reset ", "garbage "];
    check(echo_server(u64::MAX), &["--burst", "100"], 0, &lines);
}

#[test]
fn one_when_a_message_is_lost_and_the_seed_is_printed() {
    let options = ["--mode", "steady", "--depth", "4", "--patience-seconds", "1"];
    check(echo_server(100), &options, 1, &["FAILED", "seed 7", "sequence 99 never came back"]);
}

#[test]
fn one_when_nobody_listens() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    check(gone.expect("a free port on loopback"), &["--mode", "churn"], 1, &["refused: client", "connect: "]);
}

#[test]
fn two_when_the_options_are_wrong() {
    let nowhere = (Ipv4Addr::LOCALHOST, 9).into();
    check(nowhere, &["--size", "10"], 2, &["at least 24 bytes"]);
    check(nowhere, &["--size", "20000000"], 2, &["at most 16777215 bytes"]);
    check(nowhere, &["--mode", "dance"], 2, &["possible values"]);
}

#[test]
fn json_has_an_object_for_each_mode() {
    let output = dummy(echo_server(u64::MAX), &["--mode", "steady", "--report", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    let steady = &report[0];
    assert_eq!(
        (&steady["mode"], &steady["seed"], &steady["connections"]),
        (&"steady".into(), &7.into(), &8.into())
    );
    assert!(steady["sent"].as_u64() > Some(0) && steady["sent"] == steady["verified"], "{report}");
}
