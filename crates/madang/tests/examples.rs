//! The small examples, run as a newcomer would: the chat with its rooms and the guessing game, each a process of its own.
#![cfg(unix)] // it ends processes as people do, by signals

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A running example, ended with the test.
struct Example {
    child: Child,
    /// Kept: an example that prints to nobody would panic.
    _out: BufReader<ChildStdout>,
    address: String,
}

impl Example {
    /// Builds the example beside this test (which is done already where all tests are run), and starts it.
    fn start(name: &str) -> Example {
        let test = std::env::current_exe().unwrap();
        let profile: PathBuf =
            test.ancestors().nth(2).expect("a test lies in target/<profile>/deps").to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "madang", "--example", name, "--target-dir"]);
        build.arg(profile.parent().expect("a profile lies in the target folder"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the example builds");
        let mut child = Command::new(profile.join("examples").join(name))
            .arg("127.0.0.1:0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let words = line.strip_prefix("listening on ").expect("it says where").trim();
        let address = words.split(';').next().expect("a first part").to_owned();
        Example { child, _out: out, address }
    }

    fn client(&self) -> Client {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client(stream)
    }

    fn ends(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client(TcpStream);

impl Client {
    #[track_caller]
    fn say(&mut self, text: &str) {
        self.0.write_all(&[&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()).unwrap();
    }

    #[track_caller]
    fn hear(&mut self) -> String {
        let mut len = [0; 4];
        self.0.read_exact(&mut len).unwrap();
        let mut text = vec![0; u32::from_be_bytes(len) as usize];
        self.0.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Waits for a line with this end. Others may come before: who enters a room may still hear of who entered just before.
    #[track_caller]
    fn hears(&mut self, end: &str) {
        while !self.hear().ends_with(end) {}
    }
}

#[test]
fn chat_keeps_its_rooms_apart() {
    let chat = Example::start("chat");
    let mut ann = chat.client();
    ann.hears("entered hall");
    let mut bob = chat.client();
    bob.hears("entered hall");
    ann.hears("entered hall");
    ann.say("good morning");
    ann.hears(": good morning");
    bob.hears(": good morning");
    bob.say("/join kitchen");
    ann.hears("went to kitchen");
    bob.hears("entered kitchen");
    ann.say("anybody?");
    ann.hears(": anybody?");
    bob.say("/who");
    bob.hears("1 here");
    bob.say("/quit");
    bob.hears("goodbye");
    assert_eq!(bob.0.read(&mut [0]).unwrap(), 0);
    chat.ends();
}

#[test]
fn a_number_can_be_guessed_in_seven() {
    let mut game = Example::start("user_object");
    let mut player = game.client();
    player.hears("you have a minute");
    player.say("seven");
    player.hears("that is no number");
    let (mut least, mut most) = (1, 100);
    let right = (0..7).find_map(|_| {
        let guess = (least + most) / 2;
        player.say(&guess.to_string());
        match player.hear().as_str() {
            "more" => least = guess + 1,
            "less" => most = guess - 1,
            right => return Some(right.to_owned()),
        }
        None
    });
    assert!(right.is_some_and(|right| right.starts_with("right, after")));
    // The console reaches every player.
    let mut other = game.client();
    other.hears("you have a minute");
    game.child.stdin.as_mut().unwrap().write_all(b"the yard closes soon\n").unwrap();
    other.hears("the yard closes soon");
    game.ends();
}
