//! The example of three processes, run as such: log-in passes a key to chat, a second log-in replaces the first, figures
//! reach the monitor, and when chat is killed each lost admission is reported and the links come back.
#![cfg(unix)] // it ends processes as people do, by signals
#![expect(clippy::disallowed_methods, reason = "a test from outside has a clock of its own")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

/// Builds the example beside this test (which is done already where all tests are run), and says where it is.
fn build_example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).expect("a test lies in target/<profile>/deps");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", "madang", "--example", "three_processes", "--target-dir"]);
    build.arg(profile.parent().expect("a profile lies in the target folder"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "the example builds");
    profile.join("examples").join("three_processes")
}

/// One process, ended with the test.
struct Role {
    name: &'static str,
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Role {
    fn start(example: &Path, name: &'static str, arguments: &[&str]) -> Role {
        let mut child =
            Command::new(example).arg(name).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Role { name, child, lines, heard: Vec::new() }
    }

    /// Waits for a line that holds all of `words`; those before it are not looked at again.
    #[track_caller]
    fn says(&mut self, words: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{} does not say {words:?}; it said {:#?}", self.name, self.heard);
            };
            self.heard.push(line.clone());
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    fn ends_clean(mut self) {
        self.signal(Signal::TERM);
        self.says(&["stopped, clean: true"]);
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A player: be32 by hand.
struct Player(TcpStream);

impl Player {
    #[track_caller]
    fn connect(address: &str) -> Player {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Player(stream)
    }

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

    fn is_cut(&mut self) -> bool {
        self.0
            .read(&mut [0])
            .map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |read| read == 0)
    }

    /// Logs in; answers the key and where to use it.
    #[track_caller]
    fn log_in(login: &str, name: &str) -> (String, String) {
        let mut player = Player::connect(login);
        player.say(&format!("LOGIN {name}"));
        let answer = player.hear();
        let words: Vec<&str> = answer.split(' ').collect();
        let ["KEY", key, chat] = *words.as_slice() else { panic!("{answer}") };
        (key.to_owned(), chat.to_owned())
    }

    #[track_caller]
    fn enter(chat: &str, key: &str, name: &str) -> Player {
        let mut player = Player::connect(chat);
        player.say(&format!("ENTER {key}"));
        assert_eq!(player.hear(), format!("WELCOME {name}"));
        player
    }
}

/// An address that is free now: chat must come back to the same one.
fn vacant() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The address in a line such as `listening on 127.0.0.1:7777 for players`.
fn address_in(line: &str) -> String {
    line.split(' ').find(|word| word.contains(':')).expect("an address").to_owned()
}

#[test]
fn login_chat_and_monitor_survive_a_kill_of_chat() {
    let example = build_example();
    let mut monitor = Role::start(&example, "monitor", &["127.0.0.1:0"]);
    let monitor_address = address_in(&monitor.says(&["listening on"]));
    let (chat_lan, chat_players) = (vacant(), vacant());
    let chat_arguments = [&*chat_lan, &*chat_players, &*monitor_address];

    // Log-in starts before chat: the link comes up when chat does.
    let mut login =
        Role::start(&example, "login", &["127.0.0.1:0", &chat_lan, &chat_players, &monitor_address]);
    let login_address = address_in(&login.says(&["listening on"]));
    let mut early = Player::connect(&login_address);
    early.say("LOGIN early");
    assert_eq!(early.hear(), "LATER");
    login.says(&["lost", "early", "down"]);
    let mut chat = Role::start(&example, "chat", &chat_arguments);
    chat.says(&["listening on"]);
    login.says(&["the link to chat is up"]);

    // A key from log-in opens chat, once.
    let (key, address) = Player::log_in(&login_address, "bob");
    assert_eq!(address, chat_players);
    let mut bob = Player::enter(&address, &key, "bob");
    let mut thief = Player::connect(&address);
    thief.say(&format!("ENTER {key}"));
    assert_eq!(thief.hear(), "NO");
    bob.say("hello");
    assert_eq!(bob.hear(), "bob: hello");

    // Who logs in again replaces himself.
    let (key, _) = Player::log_in(&login_address, "bob");
    let mut again = Player::enter(&address, &key, "bob");
    assert!(bob.is_cut());
    chat.says(&["bob left", "code 1"]);
    let (key, _) = Player::log_in(&login_address, "ann");
    let mut ann = Player::enter(&address, &key, "ann");
    ann.say("is that you?");
    for player in [&mut ann, &mut again] {
        assert_eq!(player.hear(), "ann: is that you?");
    }

    // The monitor hears of all that from both.
    monitor.says(&["chat-1: 2 sessions"]);
    monitor.says(&["login-1:", "messages in"]);

    // Chat freezes with admissions on their way, and is killed: each is reported, once, and its player is told.
    chat.signal(Signal::STOP);
    let names = ["cid", "dan", "eve"];
    let mut waiting: Vec<Player> = names
        .iter()
        .map(|name| {
            let mut player = Player::connect(&login_address);
            player.say(&format!("LOGIN {name}"));
            player
        })
        .collect();
    // They have reached log-in when its figures say so: four before them, and these.
    monitor.says(&["login-1:", "7 messages in"]);
    chat.signal(Signal::KILL);
    login.says(&["the link to chat broke"]);
    let reports: Vec<String> = names.iter().map(|_| login.says(&["lost", "before the answer"])).collect();
    for (name, player) in names.iter().zip(&mut waiting) {
        assert_eq!(reports.iter().filter(|line| line.contains(name)).count(), 1, "{reports:?}");
        assert_eq!(player.hear(), "LATER");
    }
    monitor.says(&["chat-1 is gone"]);
    assert!(ann.is_cut() && again.is_cut());
    login.says(&["the link to chat is down"]);
    let mut late = Player::connect(&login_address);
    late.say("LOGIN fay");
    assert_eq!(late.hear(), "LATER");
    login.says(&["lost", "fay", "down"]);

    // It comes back, and so do the links.
    drop(chat);
    let mut chat = Role::start(&example, "chat", &chat_arguments);
    chat.says(&["listening on"]);
    login.says(&["the link to chat is up"]);
    monitor.says(&["chat-1 is up"]);
    let (key, _) = Player::log_in(&login_address, "cid");
    let mut cid = Player::enter(&chat_players, &key, "cid");
    cid.say("back again");
    assert_eq!(cid.hear(), "cid: back again");
    monitor.says(&["chat-1: 1 sessions"]);

    let lost = login.heard.iter().filter(|line| line.starts_with("lost")).count();
    assert_eq!(lost, 5, "each lost admission is reported once: {:#?}", login.heard);
    login.ends_clean();
    chat.ends_clean();
    monitor.ends_clean();
}
