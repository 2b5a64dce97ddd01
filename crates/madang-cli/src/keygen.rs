//! `madang keygen`: a key for a WAN server, in a file that its owner alone may read.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use madang::keys;

/// Prints the public half, which clients pin; the secret half stays in the file.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The file to write; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write nothing: print the public half of the key that is in the file
    #[arg(long)]
    public: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let file = &options.file;
    let key = if options.public {
        keys::read(file)?
    } else {
        // Asked again when the file is made, so that nobody can put one there in between.
        if file.exists() {
            bail!(
                "{} exists, and the clients of a key that is overwritten find their server no more; name a new file",
                file.display()
            );
        }
        let key = keys::generate();
        keys::write(file, &key)?;
        eprintln!(
            "{} holds the secret half: for the server alone. Clients pin the public half:",
            file.display()
        );
        key
    };
    println!("{}", key.public());
    Ok(ExitCode::SUCCESS)
}
