//! A server's keys, and the files that they live in.
//!
//! ```no_run
//! use madang::keys;
//!
//! let key = keys::generate();
//! keys::write("server.key", &key)?; // what `madang keygen` does
//! println!("clients pin {}", key.public());
//! let keys = keys::read_all(["server.key", "server-next.key"])?;
//! # Ok::<(), keys::KeyFileError>(())
//! ```

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

pub use madang_wire::wan::{KeyId, PublicKey, SecretKey, ServerKeys, ServerKeysError};
use zeroize::Zeroizing;

/// A key file is three short lines; a larger file is something else.
const FILE_BYTES_MAX: u64 = 4 << 10;

/// What stands before the digits of the secret half.
const SECRET: &str = "secret ";

/// A new key, made of the machine's entropy.
pub fn generate() -> SecretKey {
    SecretKey::from_bytes(&mut madang_driver::entropy())
}

/// A new key that is never written down, for tests and demos: clients of a later start must be told another one.
pub fn throwaway() -> ServerKeys {
    ServerKeys::new([generate()]).expect("one key is a set of keys")
}

/// Writes a key to a new file that its owner alone may read. An existing file is never overwritten.
///
/// # Errors
/// [`KeyFileError::System`] with what the system said.
pub fn write(path: impl AsRef<Path>, key: &SecretKey) -> Result<(), KeyFileError> {
    let path = path.as_ref();
    let mut text = Zeroizing::new(String::with_capacity(512));
    *text += "# The key of a Madang server: whoever has it can be the server. Its public half, which clients pin:\n";
    let _ = writeln!(text, "# public {}", key.public());
    *text += SECRET;
    for byte in key.expose() {
        let _ = write!(text, "{byte:02x}");
    }
    *text += "\n";
    let mut file = madang_driver::create_private(path).map_err(|error| KeyFileError::system(path, &error))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| KeyFileError::system(path, &error))
}

/// Reads the key of one file.
///
/// # Errors
/// The file cannot be read, others may read it, or it holds no key. No error shows what is in the file.
pub fn read(path: impl AsRef<Path>) -> Result<SecretKey, KeyFileError> {
    let path = path.as_ref();
    let system = |error| KeyFileError::system(path, &error);
    let not_a_key = |problem| KeyFileError::NotAKey { path: path.to_owned(), problem };
    let file = std::fs::File::open(path).map_err(system)?;
    if !file.metadata().map_err(system)?.is_file() {
        return Err(not_a_key("it is no plain file"));
    }
    if !madang_driver::is_private(&file).map_err(system)? {
        return Err(KeyFileError::Exposed { path: path.to_owned() });
    }
    // Room for all of it from the start, so that no copy of the secret stays behind in memory that was too small.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 2));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(system)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(not_a_key("it is too long for one"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| not_a_key("it is no text"))?;
    let mut secrets = text.lines().filter_map(|line| line.trim().strip_prefix(SECRET));
    let secret = secrets.next().ok_or_else(|| not_a_key("no line of it begins with `secret`"))?;
    if secrets.next().is_some() {
        return Err(not_a_key("it holds more than one: a file for each key"));
    }
    SecretKey::from_hex(secret.trim()).ok_or_else(|| not_a_key("the secret is not 64 hexadecimal digits"))
}

/// Reads the keys that are to be live, up to four, each from its file.
///
/// # Errors
/// As [`read`]; no file at all, too many, or two with the same key.
pub fn read_all(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<ServerKeys, KeyFileError> {
    let keys = paths.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(ServerKeys::new(keys)?)
}

/// Why there are no keys. Nothing in it shows a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The system says no.
    #[error("key file {}: {reason}", path.display())]
    System {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Others than its owner may read or change the file.
    #[error("key file {0}: others can read it, so it may be known already; make a new key, or chmod 600 {0}", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
    },
    /// What is in the file is no key.
    #[error("key file {}: {problem}; `madang keygen` makes one", path.display())]
    NotAKey {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// The keys cannot be live together.
    #[error("{0}; `madang keygen` makes one, and the setting `key_files` names it")]
    Keys(#[from] ServerKeysError),
}

impl KeyFileError {
    fn system(path: &Path, error: &std::io::Error) -> KeyFileError {
        KeyFileError::System { path: path.to_owned(), reason: error.to_string() }
    }
}
