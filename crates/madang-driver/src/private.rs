//! What secret keys need of the machine where no driver is at hand: entropy, and files that nobody else can read.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Random bytes of the machine's, for a key that is made before there is a driver. Everything else takes its chance from
/// [`Driver::random`](crate::Driver::random), or simulated worlds would not replay.
///
/// # Panics
/// When the system has no entropy to give: keys made of anything else would be worse than none.
pub fn entropy() -> [u8; 32] {
    let mut bytes = [0; 32];
    crate::host::random(&mut bytes);
    bytes
}

/// Creates a file for a secret, which must not be there yet. On Unix only its owner may read it from its first moment on
/// (mode 0600); elsewhere it has the rights of its folder.
///
/// # Errors
/// As [`OpenOptions::open`]: the file is there already, the folder is not, …
pub fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Whether nobody but the owner may read or change an open file. Where files have no such rights the answer is yes.
///
/// # Errors
/// The system does not tell.
pub fn is_private(file: &File) -> io::Result<bool> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions());
        Ok(mode & 0o077 == 0)
    }
    #[cfg(not(unix))]
    file.metadata().map(|_| true)
}
