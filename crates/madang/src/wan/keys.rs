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

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of this test's own, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("madang-keys-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            let mut file = madang_driver::create_private(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const DIGITS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn a_key_comes_back_from_its_file_which_is_never_overwritten() {
        let folder = Folder::new("back");
        let (path, key) = (folder.0.join("server.key"), generate());
        write(&path, &key).unwrap();
        assert_eq!(read(&path).unwrap().expose(), key.expose());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("# public {}", key.public())), "the public half stands in it, too");
        assert!(matches!(write(&path, &generate()), Err(KeyFileError::System { .. })));
        assert_eq!(read(&path).unwrap().public(), key.public());
        assert_eq!(key.public().to_string().parse(), Ok(key.public()));
        assert_eq!(format!("{key:?}"), "***");
    }

    #[test]
    fn f15_a_file_that_is_no_key_is_refused_and_its_content_never_shown() {
        let folder = Folder::new("wrong");
        let check = |name: &str, text: &str, words: &str| {
            let error = read(folder.file(name, text)).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(name), "{error}");
            assert!(!error.contains("0001") && !error.contains("hunter2"), "{error}");
        };
        check("empty", "", "no line of it begins");
        check("another", "hunter2\n", "no line of it begins");
        check("short", &format!("secret {}\n", &DIGITS[..62]), "64 hexadecimal digits");
        check("long", &format!("secret {DIGITS}00\n"), "64 hexadecimal digits");
        check("odd", &format!("secret {}x\n", &DIGITS[..63]), "64 hexadecimal digits");
        check("two", &format!("secret {DIGITS}\nsecret {DIGITS}\n"), "a file for each key");
        check("huge", &"# 0001\n".repeat(1_000), "too long");
        let missing = read(folder.0.join("missing")).unwrap_err();
        assert!(matches!(&missing, KeyFileError::System { .. }), "{missing}");
        // Some systems open no folder as a file, and say so.
        let no_file = read(&folder.0).unwrap_err();
        assert!(matches!(no_file, KeyFileError::NotAKey { .. } | KeyFileError::System { .. }), "{no_file}");
        assert!(read(folder.file("right", &format!("\n# mine\n  secret {DIGITS}  \n"))).is_ok());
    }

    #[test]
    fn f15_a_file_that_others_can_read_is_refused() {
        let folder = Folder::new("exposed");
        let path = folder.0.join("server.key");
        // Made as any program would, with whatever rights the system gives.
        std::fs::write(&path, format!("secret {DIGITS}\n")).unwrap();
        let exposed = !madang_driver::is_private(&std::fs::File::open(&path).unwrap()).unwrap();
        match read(&path) {
            Err(error @ KeyFileError::Exposed { .. }) if exposed => {
                assert!(error.to_string().contains("chmod 600"), "{error}");
            }
            Ok(_) if !exposed => {}
            other => panic!("exposed: {exposed}, {other:?}"),
        }
    }

    #[test]
    fn up_to_four_keys_are_live_and_none_twice() {
        let folder = Folder::new("many");
        let paths: Vec<_> = (0..5).map(|number| folder.0.join(number.to_string())).collect();
        paths.iter().for_each(|path| write(path, &generate()).unwrap());
        assert_eq!(read_all(&paths[..4]).unwrap().public().count(), 4);
        for (paths, error) in [(&paths[..], ServerKeysError::TooMany), (&paths[..0], ServerKeysError::None)] {
            assert_eq!(read_all(paths).map(drop), Err(KeyFileError::Keys(error)));
        }
        let twice = read_all([&paths[0], &paths[0]]).map(drop);
        assert!(matches!(twice, Err(KeyFileError::Keys(ServerKeysError::SameId { .. }))), "{twice:?}");
    }
}
