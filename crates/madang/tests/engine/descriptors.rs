//! What a server does when the system runs out of descriptors. Windows has no limit that a test could set.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use madang::{DriverChoice, ErrorKind};

use crate::support::{Raw, Recorder, be32, finish};

each_driver! {
    k15_at_the_descriptor_limit_accepting_pauses_and_recovers,
}

/// Set in the process that has few descriptors.
const CHILD: &str = "MADANG_TEST_DESCRIPTORS";

fn k15_at_the_descriptor_limit_accepting_pauses_and_recovers(driver: DriverChoice) {
    if std::env::var_os(CHILD).is_some() {
        return serve_with_few_descriptors(driver);
    }
    // The server runs in a process of its own, this very test once more; the peers are here.
    let name = match driver {
        DriverChoice::Uring => {
            "descriptors::uring::k15_at_the_descriptor_limit_accepting_pauses_and_recovers"
        }
        _ => "descriptors::readiness::k15_at_the_descriptor_limit_accepting_pauses_and_recovers",
    };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines
        .find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()))
        .expect("the child listens");
    let address = line.trim().parse().unwrap();

    // More peers than descriptors: all are connected by the kernel, those in excess wait in the backlog.
    let mut peers: Vec<Raw> = (0..70).map(|_| Raw::connect(address)).collect();
    lines.find(|line| line.contains("accepting pauses")).expect("the server says that it pauses");
    let mut last = peers.pop().unwrap();
    last.be32(b"is anybody there?");
    last.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(last.stream.peek(&mut [0]).is_err(), "it is not accepted yet");
    last.stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    peers[0].be32(b"served");
    assert_eq!(peers[0].be32_next(), b"served", "those that are in are served");
    // Half of them go: there is room for those that wait, without anybody asking.
    peers.drain(..40);
    assert_eq!(last.be32_next(), b"is anybody there?");
    child.stdin.take().unwrap().write_all(b"end\n").unwrap();
    let rest: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success(), "{rest:#?}");
}

fn serve_with_few_descriptors(driver: DriverChoice) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // Before the start: an accept on io_uring goes by the limit of the moment when it was submitted.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(50), maximum }).unwrap();
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).start(recorder).unwrap();
    println!("listening on {}", server.local_addr());
    let begun = Instant::now();
    let error = watch.error("accepting pauses", |kind| matches!(kind, ErrorKind::AcceptStalled(_)));
    println!("{}", error.kind);
    let turns = server.figures().turns;
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    let spun = server.figures().turns - turns;
    let most = 1_000 + begun.elapsed().as_millis() as u64;
    assert!(spun < most, "{spun} turns: waiting for descriptors is no busy loop");
    finish(server, &watch);
}
