//! The commands against each other, as a user runs them: `serve` with the dummies in every mode, with each driver and
//! framing, and what `load` and `demo` make of servers that are right and of one that is not.
#![cfg(unix)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::{madang, output, text};

/// The command ends with this code and says all of this.
#[track_caller]
fn check(arguments: &[&str], code: i32, parts: &[&str]) {
    let output = output(arguments);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("our own child, still running");
}

/// `madang serve` on a free port of loopback.
struct Serving {
    child: Child,
    address: String,
    /// What clients of a WAN server pin.
    key: String,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Serving {
    /// `None` where this system does not permit the driver.
    fn start(arguments: &[&str]) -> Option<Self> {
        let mut command = madang(&["serve", "--bind", "127.0.0.1:0", "--seconds", "120"]);
        let mut child =
            command.args(arguments).stderr(Stdio::null()).spawn().expect("the binary that was just built");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line that says where it listens");
        if line.is_empty() {
            let status = child.wait().expect("our own child");
            assert_eq!(status.code(), Some(2), "a server that cannot start says so");
            eprintln!("skipped: {arguments:?} cannot be served here");
            return None;
        }
        let address = line.split(' ').nth(3).expect("serving FRAMING on ADDRESS with …").to_owned();
        let mut key = String::new();
        if arguments.contains(&"--wan") {
            stdout.read_line(&mut key).expect("a line with the key");
            key = key.trim().strip_prefix("clients pin ").expect("clients pin KEY").to_owned();
        }
        Some(Self { child, address, key, stdout })
    }

    /// Asks it to stop: it must have nothing left over.
    fn stop(self) {
        self.signal();
        self.stops();
    }

    fn signal(&self) {
        signal(&self.child, rustix::process::Signal::TERM);
    }

    /// Asks it to stop, and hears that it will.
    fn announces(&mut self, words: &str) {
        self.signal();
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line that says how long there is left");
        assert_eq!(line.trim(), words);
    }

    /// It comes to its end, with nothing left over.
    #[track_caller]
    fn stops(mut self) {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).expect("its report");
        let status = self.child.wait().expect("our own child");
        assert_eq!(status.code(), Some(0), "{text}");
        assert!(text.contains("all back, nothing leaked"), "{text}");
    }
}

impl Serving {
    /// How a client is told to speak what the server does.
    fn speaking<'a>(&'a self, framing: &'a str) -> [&'a str; 2] {
        if framing == "wan" { ["--wan", &self.key] } else { ["--framing", framing] }
    }
}

/// How a server is told to speak it.
fn serving(framing: &str) -> Vec<&str> {
    if framing == "wan" { vec!["--wan"] } else { vec!["--framing", framing] }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// The dummies find nothing wrong in any mode, and the server's books balance.
#[track_caller]
fn check_echoes(driver: &str, framing: &str) {
    let options = ["--driver", driver, "--workers", "2", "--set", "greeting_timeout_ms=500"];
    let Some(server) = Serving::start(&[&options[..], &serving(framing)].concat()) else { return };
    let dummy = ["dummy", "--addr", &server.address, "--clients", "8", "--seconds", "1"];
    let dummy = [&dummy[..], &server.speaking(framing)].concat();
    let lines =
        ["steady ", "over-send ", "churn ", "random-disconnect ", "reset ", "never-read ", "garbage "];
    check(&[&dummy[..], &["--depth", "4"]].concat(), 0, &lines);
    server.stop();
}

#[test]
fn readiness_lan_nothing_is_lost_in_any_mode() {
    check_echoes("readiness", "lan");
}

#[test]
fn readiness_be32_nothing_is_lost_in_any_mode() {
    check_echoes("readiness", "be32");
}

#[test]
fn readiness_classic_nothing_is_lost_in_any_mode() {
    check_echoes("readiness", "classic");
}

#[test]
fn readiness_wan_nothing_is_lost_in_any_mode() {
    check_echoes("readiness", "wan");
}

#[test]
fn uring_wan_nothing_is_lost_in_any_mode() {
    check_echoes("uring", "wan");
}

#[test]
fn uring_lan_nothing_is_lost_in_any_mode() {
    check_echoes("uring", "lan");
}

#[test]
fn uring_be32_nothing_is_lost_in_any_mode() {
    check_echoes("uring", "be32");
}

#[test]
fn uring_classic_nothing_is_lost_in_any_mode() {
    check_echoes("uring", "classic");
}

/// The load client gets every echo, in the closed loop and paced, and its figures are those of the run.
#[track_caller]
fn check_load(driver: &str, framing: &str) {
    let serve = [&["--driver", driver][..], &serving(framing)].concat();
    let Some(server) = Serving::start(&serve) else { return };
    for (drive, size) in [(["--depth", "8"], "300"), (["--rate", "2000"], "8"), (["--depth", "2"], "40000")] {
        let fixed = ["load", "--addr", &server.address, "--driver", driver, "--json"];
        let fixed = [&fixed[..], &server.speaking(framing)].concat();
        let crowd = ["--connections", "60", "--threads", "2", "--seconds", "1", "--warm-up-seconds", "0"];
        let output = output(&[&fixed[..], &crowd, &drive, &["--size", size]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
        let run = &report["runs"][0];
        assert_eq!((&run["connections"], &run["failed"]), (&60.into(), &0.into()), "{report}");
        assert!(run["latency"]["p50_us"].as_f64() > Some(0.0), "{report}");
        // How many they are in a second depends on the machine; but a pace is never overdone.
        let (sent, received) =
            (run["sent"].as_u64().expect("a count"), run["received"].as_u64().expect("a count"));
        assert!(sent > 0 && received > 0, "{report}");
        assert!(drive[0] != "--rate" || sent <= 2_001, "{report}");
        let seals = |of: &str| run["seals"][of].as_u64();
        assert!(framing == "wan" || run["seals"].is_null(), "{report}");
        assert!(framing != "wan" || seals("messages_in") >= Some(received), "{report}");
        assert!(
            framing != "wan" || drive[1] != "8" || seals("records_out") < seals("messages_out"),
            "what a connection says at once is sealed once: {report}"
        );
    }
    server.stop();
}

#[test]
fn load_on_readiness_gets_every_echo() {
    check_load("readiness", "lan");
    check_load("readiness", "classic");
    check_load("readiness", "wan");
}

#[test]
fn load_on_uring_gets_every_echo() {
    check_load("uring", "be32");
    check_load("uring", "lan");
    check_load("uring", "wan");
}

/// Visitors come when they are told to and no longer, and the run ends when it is told to.
#[test]
fn load_follows_words() {
    let Some(server) = Serving::start(&["--driver", "readiness", "--wan"]) else { return };
    let crowd =
        ["load", "--addr", &server.address, "--driver", "readiness", "--connections", "5", "--rate", "100"];
    let run = ["--words", "--live", "--json", "--seconds", "600", "--warm-up-seconds", "0", "--storm", "100"];
    let guided = [&crowd[..], &run, &["--prepared", "10"], &server.speaking("wan")].concat();
    let mut child = madang(&guided).stdin(Stdio::piped()).spawn().expect("the binary that was just built");
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut came = |word: &str, enough: fn(u64) -> bool| {
        writeln!(stdin, "{word}").expect("it listens");
        // Of the log-ins of each tenth of a second.
        let mut sum = 0;
        for _ in 0..100 {
            let line = lines.next().expect("it goes on").expect("text");
            let value: serde_json::Value = serde_json::from_str(&line).expect("an object a line");
            let Some(log_ins) = value["live"]["log_ins"].as_array() else { return (sum, value) };
            sum += log_ins.iter().filter_map(|seen| seen[1].as_u64()).sum::<u64>();
            if enough(sum) {
                return (sum, value);
            }
        }
        panic!("{word}: {sum} in ten seconds");
    };
    came("come", |sum| sum >= 20);
    let (_, report) = came("end", |_| false);
    let visitors = &report["report"]["runs"][0]["visitors"][0];
    let count = visitors["came"].as_u64().expect("a count");
    assert!(count >= 20, "{report}");
    assert!(child.wait().expect("our own child").success());
    server.stop();
}

/// Visitors beside the crowd: strangers and garbage are ended without a byte, log-ins are welcome, and each comes at its
/// pace.
#[track_caller]
fn check_visitors(driver: &str, framing: &str) {
    let serve = ["--driver", driver, "--set", "greeting_timeout_ms=1000"];
    let Some(server) = Serving::start(&[&serve[..], &serving(framing)].concat()) else { return };
    let crowd =
        ["load", "--addr", &server.address, "--driver", driver, "--connections", "10", "--rate", "200"];
    let visitors = ["--strangers", "50", "--dribble", "--garbage", "100", "--storm", "50", "--spread", "20"];
    let run = ["--json", "--seconds", "2", "--warm-up-seconds", "0"];
    let output = output(&[&crowd[..], &visitors, &run, &server.speaking(framing)].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    let came = report["runs"][0]["visitors"].as_array().expect("a list");
    let sorts: Vec<_> = came.iter().map(|came| came["sort"].as_str().expect("a name")).collect();
    assert_eq!(sorts, ["strangers", "garbage", "log-ins"], "{report}");
    for (came, (least, most)) in came.iter().zip([(60, 300), (100, 201), (50, 101)]) {
        let count = came["came"].as_u64().expect("a count");
        assert!((least..=most).contains(&count), "{came}");
        assert_eq!((&came["ended"], &came["missed"]), (&count.into(), &0.into()), "{came}");
    }
    assert_eq!(came[0]["here_most"], 50, "{report}");
    // Suffered until the deadline, and not much longer.
    let p50_ms = came[0]["took"]["p50_us"].as_f64().expect("a time") / 1e3;
    assert!((990.0..3_000.0).contains(&p50_ms), "{report}");
    server.stop();
}

#[test]
fn visitors_are_ended_as_they_must() {
    check_visitors("readiness", "wan");
    check_visitors("readiness", "lan");
    check_visitors("uring", "wan");
}

/// A key that is made is the one that is served and pinned, and no other server passes for it.
#[test]
fn f09_clients_find_the_server_whose_key_they_pin_and_no_other() {
    let file = std::env::temp_dir().join(format!("madang-key-{}", std::process::id()));
    let file = file.to_str().expect("a plain name");
    let made = output(&["keygen", file]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made));
    let key = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    check(&["keygen", "--public", file], 0, &[&key]);
    check(&["keygen", file], 2, &[file, "exists"]);

    let server =
        Serving::start(&["--wan", "--key", file, "--driver", "readiness"]).expect("it is always there");
    assert_eq!(server.key, key);
    let churn = ["dummy", "--addr", &server.address, "--clients", "2", "--seconds", "1", "--mode", "churn"];
    check(&[&churn[..], &["--wan", &key]].concat(), 0, &["churn ", " ok "]);
    check(&[&churn[..], &["--wan", &key, "--suite", "chachapoly"]].concat(), 0, &["churn ", " ok "]);
    let other = key.replace(|digit: char| digit == key.as_bytes()[0] as char, "5").replace('0', "1");
    assert_ne!(other, key);
    check(&[&churn[..], &["--wan", &other]].concat(), 1, &["refused"]);
    server.stop();

    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o640)).expect("our own file");
    check(&["serve", "--wan", "--key", file, "--seconds", "1"], 2, &["key_files", file, "chmod 600"]);
    std::fs::remove_file(file).expect("it was made above");
}

/// Messages to everybody arrive at their pace and are no echoes.
#[test]
fn messages_to_everybody_come_beside_the_echoes() {
    let serve = ["--wan", "--driver", "readiness", "--broadcast", "50", "--broadcast-size", "1200"];
    let server = Serving::start(&serve).expect("it is always there");
    let run = ["--connections", "10", "--rate", "100", "--seconds", "2", "--warm-up-seconds", "0", "--json"];
    let load = output(&[&["load", "--addr", &server.address, "--wan", &server.key][..], &run].concat());
    assert_eq!(load.status.code(), Some(0), "{}", text(&load));
    let report: serde_json::Value = serde_json::from_slice(&load.stdout).expect("one JSON value");
    let broadcasts = report["runs"][0]["broadcasts"].as_u64().expect("a count");
    assert!((500..=1_010).contains(&broadcasts), "{report}");
    let dummy =
        ["dummy", "--addr", &server.address, "--wan", &server.key, "--clients", "4", "--seconds", "1"];
    check(&[&dummy[..], &["--mode", "steady", "--broadcasts"]].concat(), 0, &["messages to everybody"]);
    server.stop();
}

/// Players of a WAN server who stay until they are told to leave.
struct Players {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Players {
    /// So many of them, all in.
    fn join(server: &Serving, count: u64) -> Self {
        let crowd = count.to_string();
        let load = ["load", "--addr", &server.address, "--wan", &server.key, "--connections", &crowd];
        let run =
            ["--rate", "100", "--seconds", "600", "--warm-up-seconds", "0", "--words", "--live", "--json"];
        let mut load = madang(&[&load[..], &run].concat());
        let mut child = load.stdin(Stdio::piped()).spawn().expect("the binary that was just built");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        while json(lines.next())["live"]["connections"] != count {}
        Self { child, lines }
    }

    /// Tells them to leave; how it was.
    fn leave(mut self) -> serde_json::Value {
        writeln!(self.child.stdin.take().expect("it is piped"), "end").expect("it listens");
        let report = self.lines.map(|line| json(Some(line))).find(|line| line["live"].is_null());
        assert!(self.child.wait().expect("our own child").success(), "{report:?}");
        report.expect("a report behind the live lines")["report"]["runs"][0].take()
    }
}

fn json(line: Option<std::io::Result<String>>) -> serde_json::Value {
    serde_json::from_str(&line.expect("it goes on").expect("text")).expect("an object a line")
}

/// Players are served on after an announcement, newcomers are not let in, and when the last has left there is no more to
/// wait for.
#[test]
fn o2_serve_announces_its_stop_and_players_finish_first() {
    let serve = ["--wan", "--driver", "readiness", "--broadcast", "20", "--drain-seconds", "600"];
    let mut server = Serving::start(&serve).expect("it is always there");
    let players = Players::join(&server, 10);
    server.announces("stopping in 600 s, or when all have left");
    let newcomer = ["dummy", "--addr", &server.address, "--wan", &server.key, "--clients", "1"];
    check(&[&newcomer[..], &["--mode", "steady"]].concat(), 1, &["Draining"]);
    let run = players.leave();
    assert_eq!((&run["connections"], &run["failed"]), (&10.into(), &0.into()), "{run}");
    let begun = Instant::now();
    server.stops();
    assert!(begun.elapsed() < Duration::from_secs(60), "it waited for nobody");
}

/// Who stays is served until the time is over, or until the operator does not want to wait any longer.
#[test]
fn o2_serve_stops_when_its_time_is_over_or_it_is_asked_again() {
    for (seconds, asked_again) in [("2", false), ("600", true)] {
        let serve = ["--wan", "--driver", "readiness", "--drain-seconds", seconds];
        let mut server = Serving::start(&serve).expect("it is always there");
        let mut players = Players::join(&server, 5);
        let begun = Instant::now();
        server.announces(&format!("stopping in {seconds} s, or when all have left"));
        if asked_again {
            server.signal();
        }
        let least = if asked_again { 0 } else { 2_000 };
        server.stops();
        let took = begun.elapsed();
        assert!((least..60_000).contains(&took.as_millis()), "{seconds} s: {took:?}");
        // The players hear of it, and that is the end of their run.
        assert_eq!(players.child.wait().expect("our own child").code(), Some(1));
    }
}

/// Makes another answer of the echo frame; `false` ends the connection instead.
type Lie = fn(&mut Vec<u8>) -> bool;

/// A be32 server that answers the `flawed_from`-th message and all that follow by something that is not their echo.
fn liar(flawed_from: u64, lie: Lie) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
    let address = listener.local_addr().expect("a bound listener");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("an accepted stream");
            std::thread::spawn(move || {
                for number in 1.. {
                    let mut frame = vec![0; 4 + 32];
                    if stream.read_exact(&mut frame).is_err() || (number >= flawed_from && !lie(&mut frame)) {
                        break;
                    }
                    if stream.write_all(&frame).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn load_notices_what_is_lost_doubled_altered_cut_or_ended() {
    let wrong = "4 × an echo was lost, doubled, out of order or altered";
    let table: [(Lie, &str); 5] = [
        (
            |frame| {
                frame.clear();
                true
            },
            "4 × echoes did not come in time",
        ),
        (
            |frame| {
                frame.extend(frame.clone());
                true
            },
            wrong,
        ),
        (
            |frame| {
                frame[20] ^= 1;
                true
            },
            wrong,
        ),
        (
            |frame| {
                frame[..4].fill(0);
                true
            },
            "4 × no frame came: frame without a payload",
        ),
        (|_| false, "4 × "),
    ];
    for (lie, reason) in table {
        let address = liar(5, lie).to_string();
        let crowd =
            ["--connections", "4", "--seconds", "1", "--patience-seconds", "0", "--warm-up-seconds", "0"];
        check(&[&["load", "--framing", "be32", "--addr", &address][..], &crowd].concat(), 1, &[reason]);
    }
}

#[test]
fn load_without_a_server_ends_and_says_why() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let gone = gone.expect("a free port on loopback").to_string();
    check(
        &["load", "--addr", &gone, "--connections", "5"],
        1,
        &["5 × could not connect: connection refused"],
    );
}

#[test]
fn load_refuses_options_that_cannot_work() {
    let table: [(&[&str], &str); 4] = [
        (&["--framing", "classic", "--size", "70000"], "--size: this framing carries 1 to 65535 bytes"),
        (&["--connections", "2", "--threads", "3"], "--threads: more threads than connections"),
        (&["--sources", "::1"], "--sources: ::1 is not of the server's family"),
        (&["--driver", "rio"], "possible values: auto, uring, readiness"),
    ];
    for (options, part) in table {
        check(&[&["load"], options].concat(), 2, &[part]);
    }
}

/// A dead server is noticed long before the run's time is over, and the run ends then.
#[test]
fn load_ends_when_its_server_does() {
    let Some(server) = Serving::start(&["--framing", "be32"]) else { return };
    let arguments =
        ["load", "--addr", &server.address, "--framing", "be32", "--connections", "10", "--seconds", "60"];
    let load = madang(&arguments).spawn().expect("the binary that was just built");
    std::thread::sleep(Duration::from_millis(1_500));
    server.stop();
    let begun = Instant::now();
    let output = load.wait_with_output().expect("our own child");
    assert!(begun.elapsed() < Duration::from_secs(20), "it went on for {:?}", begun.elapsed());
    let text = text(&output);
    assert!(output.status.code() == Some(1) && text.contains("10 × "), "{text}");
}

/// Ctrl-C ends a run that was to last a minute, in good order: with its report, and no fault in it.
#[test]
fn load_and_dummy_end_early_when_they_are_asked_to() {
    let Some(server) = Serving::start(&["--driver", "readiness"]) else { return };
    for (command, part) in [("load", "msg/s"), ("dummy", "steady ")] {
        let mut arguments = vec![command, "--addr", &server.address, "--seconds", "60"];
        if command == "dummy" {
            arguments.extend(["--clients", "5"]);
        }
        let child = madang(&arguments).spawn().expect("the binary that was just built");
        std::thread::sleep(Duration::from_millis(1_500));
        signal(&child, rustix::process::Signal::INT);
        let begun = Instant::now();
        let output = child.wait_with_output().expect("our own child");
        assert!(begun.elapsed() < Duration::from_secs(20), "{command} went on for {:?}", begun.elapsed());
        let text = text(&output);
        assert!(output.status.code() == Some(0) && text.contains(part), "{command}: {text}");
    }
    server.stop();
}

#[test]
fn serve_says_what_is_wrong_and_does_not_start() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
    let taken = taken.local_addr().expect("a bound listener").to_string();
    let config = std::env::temp_dir().join(format!("madang-serve-{}.toml", std::process::id()));
    std::fs::write(&config, "workers = 1\nmax_sesions = 5\n").expect("a file in the temporary folder");
    let file = config.to_str().expect("a plain name");
    let table: [(&[&str], &[&str]); 9] = [
        (&["--config", file], &["madang-serve-", "`max_sesions`", "unknown field"]),
        (&["--config", "no-such-file.toml"], &["cannot read no-such-file.toml"]),
        (&["--bind", &taken], &["cannot listen on", &taken, "address in use", "choose another port"]),
        (&["--bind", "0.0.0.0:0"], &["`bind`", "LAN server", "allow_public"]),
        (&["--bind", "[::]:0"], &["`bind`", "LAN server", "allow_public"]),
        (&["--bind", "127.0.0.1:0", "--set", "worker=2"], &["`worker`", "unknown field"]),
        (&["--bind", "127.0.0.1:0", "--set", "workers=0"], &["`workers`", "at least 1"]),
        (&["--bind", "127.0.0.1:0", "--set", "workers"], &["write key=value"]),
        (&["--bind", "127.0.0.1:0", "--set", "driver=rio"], &["`driver`", "unknown variant"]),
    ];
    for (options, parts) in table {
        check(&[&["serve", "--seconds", "1"], options].concat(), 2, parts);
    }
    std::fs::remove_file(&config).expect("it was written above");
}

#[test]
fn serve_takes_its_settings_from_a_file_and_options_win() {
    let config = std::env::temp_dir().join(format!("madang-served-{}.toml", std::process::id()));
    std::fs::write(&config, "bind = '127.0.0.1:1'\ndriver = 'readiness'\nmax_sessions = 1\n")
        .expect("a file");
    let file = config.to_str().expect("a plain name");
    let server = Serving::start(&["--config", file, "--framing", "be32"]).expect("readiness is always there");
    std::fs::remove_file(&config).expect("it was written above");
    // The place is taken: a second one is closed without a word.
    let mut first = TcpStream::connect(&server.address).expect("a place");
    first.write_all(b"\0\0\0\x02hi").expect("room for six bytes");
    let mut echo = [0; 6];
    first.read_exact(&mut echo).expect("an echo");
    assert_eq!(&echo, b"\0\0\0\x02hi");
    let mut second = TcpStream::connect(&server.address).expect("the backlog takes it");
    assert!(matches!(second.read(&mut echo), Ok(0) | Err(_)), "a second session where one is the most");
    server.stop();
}

#[test]
fn demo_is_green_and_ends_by_itself() {
    for more in [&[][..], &["--driver", "readiness"], &["--wan"]] {
        let parts = ["players ", "flat out ", "trouble ", "echoes verified", "nothing leaked", "all right"];
        check(
            &[&["demo", "--connections", "50", "--dummies", "4", "--seconds", "1"], more].concat(),
            0,
            &parts,
        );
    }
}
