//! The tokio peers: what a user would have written instead of a game-server engine.
//!
//! Both run one current-thread runtime, which is tokio's fastest set-up on one CPU, and one task a connection.

use std::io;
use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::{sockets, wire};

/// Serves until the process is killed, one `connection` task for each accepted socket. `listening` is called with the
/// address once connections can be made.
///
/// # Errors
/// The port is taken.
pub fn serve<F>(
    address: SocketAddr,
    connection: impl Fn(TcpStream) -> F,
    listening: impl FnOnce(SocketAddr),
) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = sockets::listen(address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener.into())?;
        listening(listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(connection(stream));
        }
    })
}

/// As users write it: the ready-made codec, one `send` per message, which is one write per message.
///
/// # Errors
/// The peer broke the connection or the framing.
pub async fn codec(stream: TcpStream) -> io::Result<()> {
    let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
    while let Some(message) = framed.next().await {
        framed.send(message?.freeze()).await?;
    }
    Ok(())
}

/// As someone who measured writes it: the whole frames of a read go back in one write.
///
/// # Errors
/// The peer broke the connection.
pub async fn tuned(mut stream: TcpStream) -> io::Result<()> {
    /// Sixteen messages of 256 B and a bit; a longer frame makes the buffer grow.
    const BUFFER_BYTES: usize = 8 * 1024;

    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize(2 * filled, 0);
        }
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Ok(()),
            read => filled += read,
        }
        let whole = wire::whole_frames_bytes(&buffer[..filled]);
        if whole > 0 {
            stream.write_all(&buffer[..whole]).await?;
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
    }
}
