//! A tokio peer; see `madang_bench::tokio_server::tuned`.

use std::net::SocketAddr;

use clap::Parser;
use madang_bench::{host, tokio_server};

#[derive(Parser)]
#[command(about = "An echo server on tokio (tuned)")]
struct Args {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Serves echo and accept; there is no broadcast here.
    #[arg(long, default_value = "echo", value_parser = ["echo", "accept"])]
    mode: String,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    host::settle(args.cpu)?;
    tokio_server::serve(args.listen, tokio_server::tuned, host::announce)?;
    Ok(())
}
