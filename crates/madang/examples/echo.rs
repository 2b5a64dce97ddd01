//! An echo server: `cargo run --release --example echo`. It speaks be32, a 4-byte big-endian length and the payload:
//! `printf '\0\0\0\5hello' | nc -q1 127.0.0.1 7777`

use madang::{Context, ForeignFraming, ForeignServer, Handler, Message, SessionId};

struct Echo;

impl Handler for Echo {
    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        let reply = cx.packet(message.bytes());
        cx.send(session, reply).ignore();
    }
}

fn main() -> madang::Result<()> {
    let server = ForeignServer::bind("127.0.0.1:7777", ForeignFraming::be32()).workers(2).start(Echo)?;
    println!("listening on {} with {}", server.local_addr(), server.driver());
    let report = server.run_until_signal();
    println!("{report:?}");
    Ok(())
}
