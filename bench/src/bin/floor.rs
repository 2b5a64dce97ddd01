//! The floor server; see `madang_bench::floor`.

use std::net::SocketAddr;

use clap::Parser;
use madang_bench::floor::{self, Mode};
use madang_bench::host;

#[derive(Parser)]
#[command(about = "The barest io_uring server, as a floor for the others")]
struct Args {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    #[arg(long, value_enum, default_value = "echo")]
    mode: Mode,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    host::settle(args.cpu)?;
    floor::serve(args.mode, args.listen, host::announce)?;
    Ok(())
}
