//! The user-object style: each player has an object of content's own, called with `&mut self` and without a lock.
//! `cargo run --release --example user_object`
//!
//! Guess a number between 1 and 100: each message is a guess as text, framed as be32. Players have a minute, told by a
//! timer; a player may be reached by events from any thread, here by a console that reads lines and posts them to everybody.

use std::io::BufRead;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use madang::{Context, Event, ForeignFraming, ForeignServer, Leave, Lobby, Message, Peer, SessionId, User};

/// The lobby makes players; strangers who never join cost none.
#[derive(Default)]
struct Game {
    players: Arc<Mutex<Vec<SessionId>>>,
}

struct Player {
    session: SessionId,
    number: u32,
    guesses: u32,
    players: Arc<Mutex<Vec<SessionId>>>,
}

const TIME_IS_UP: u64 = 1;

impl Lobby for Game {
    type User = Player;

    fn enter(&self, session: SessionId, peer: &Peer) -> Option<Player> {
        if banned(peer.remote) {
            return None;
        }
        self.players.lock().expect("nothing panics under this lock").push(session);
        // The serial in the id differs for every session: good enough for a game of guessing.
        let number = (session.to_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as u32 % 100 + 1;
        Some(Player { session, number, guesses: 0, players: Arc::clone(&self.players) })
    }
}

fn banned(address: SocketAddr) -> bool {
    address.ip().is_multicast()
}

impl User for Player {
    fn on_join(&mut self, cx: &mut Context<'_>, _: &Peer) {
        self.tell(cx, "guess a number between 1 and 100; you have a minute");
        cx.timer(self.session, Duration::from_secs(60), TIME_IS_UP).ignore();
    }

    fn on_recv(&mut self, cx: &mut Context<'_>, message: Message<'_>) {
        self.guesses += 1;
        let text = String::from_utf8_lossy(message.bytes());
        match text.trim().parse::<u32>() {
            Err(_) => self.tell(cx, "that is no number"),
            Ok(guess) if guess < self.number => self.tell(cx, "more"),
            Ok(guess) if guess > self.number => self.tell(cx, "less"),
            Ok(_) => {
                let last = cx.packet(format!("right, after {} guesses", self.guesses).as_bytes());
                cx.send_and_disconnect(self.session, last, 0).ignore();
            }
        }
    }

    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) {
        if let Ok(text) = event.downcast::<String>() {
            self.tell(cx, &text);
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, key: u64) {
        if key == TIME_IS_UP {
            let last = cx.packet(format!("time is up; it was {}", self.number).as_bytes());
            cx.send_and_disconnect(self.session, last, 0).ignore();
        }
    }

    fn on_leave(&mut self, _: &mut Context<'_>, leave: &Leave) {
        self.players.lock().expect("nothing panics under this lock").retain(|other| *other != self.session);
        println!("{} played {:?}: {} guesses, {}", self.session, leave.duration, self.guesses, leave.reason);
    }
}

impl Player {
    fn tell(&self, cx: &mut Context<'_>, text: &str) {
        let packet = cx.packet(text.as_bytes());
        cx.send(self.session, packet).ignore();
    }
}

fn main() -> madang::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let game = Game::default();
    let players = Arc::clone(&game.players);
    let server = ForeignServer::bind(&address, ForeignFraming::be32()).workers(2).start_users(game)?;
    println!("listening on {}; what you type here goes to every player", server.local_addr());
    let remote = server.remote();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let everybody = players.lock().expect("nothing panics under this lock").clone();
            for player in everybody {
                remote.post(player, line.clone()).ignore();
            }
        }
    });
    server.run_until_signal();
    Ok(())
}
