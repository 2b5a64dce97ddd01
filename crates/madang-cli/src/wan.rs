//! WAN servers, as the commands start them: with the keys that the settings name, or one that is thrown away.

use anyhow::Context as _;
use madang::wire::wan::PublicKey;
use madang::{ServerBuilder, Settings, WanServer, keys};

/// A WAN server, and the public halves of its keys, which its clients must pin.
pub(crate) fn server(settings: Settings) -> anyhow::Result<(ServerBuilder, Vec<PublicKey>)> {
    let keys = match settings.key_files.is_empty() {
        true => keys::throwaway(),
        false => keys::read_all(&settings.key_files).context("`key_files`")?,
    };
    let public = keys.public().collect();
    Ok((WanServer::with(settings).keys(keys), public))
}
