//! An encrypted echo, both sides in one process: `cargo run --release --features wan --example wan_echo`.
//!
//! The server makes itself a key that is gone with it; a real one has key files (`madang keygen`), and its clients are built
//! with the public half.

use madang::{
    Account, Context, Handler, LogIn, Message, Peer, Refusal, SessionId, Verdict, WanClient, WanServer, keys,
    wire::lan::RefusalReason,
};

struct Echo;

impl Handler for Echo {
    fn on_join(&self, _: &mut Context<'_>, session: SessionId, peer: &Peer) {
        println!("player {:?} joined as {session}", peer.account.as_ref().map(|account| account.id));
    }

    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        let reply = cx.packet(message.bytes());
        cx.send(session, reply).ignore();
    }
}

/// Says hello, and gives the echo to `main`.
struct Player(std::sync::mpsc::Sender<Vec<u8>>);

impl Handler for Player {
    fn on_join(&self, cx: &mut Context<'_>, session: SessionId, _: &Peer) {
        let hello = cx.packet("안녕, 마당!".as_bytes());
        cx.send(session, hello).ignore();
    }

    fn on_recv(&self, _: &mut Context<'_>, _: SessionId, message: Message<'_>) {
        let _ = self.0.send(message.bytes().to_vec());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keys = keys::throwaway();
    let public = keys.public().next().expect("there is a key");
    let check = |log_in: &LogIn<'_>| match log_in.token {
        b"the token of player 7" => Verdict::Admit(Account::new(7)),
        _ => Verdict::Refuse(Refusal::new(RefusalReason::LogIn, "not known here")),
    };
    let server = WanServer::bind("127.0.0.1:0").keys(keys).log_in(check).start(Echo)?;
    println!("listening on {}, clients pin {public}", server.local_addr());

    let (tell, echo) = std::sync::mpsc::channel();
    let client = WanClient::pinning(public, 1).token(b"the token of player 7");
    let client = client.link(&server.local_addr().to_string()).start(Player(tell))?;
    println!("echoed: {}", String::from_utf8(echo.recv()?)?);
    client.drain().map_err(|(_, error)| error)?;
    server.drain().map_err(|(_, error)| error)?;
    Ok(())
}
