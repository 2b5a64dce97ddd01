//! A secret that settings hold and nobody reads by accident.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::SettingError;

/// A secret of the settings. Prints as `***`; with the feature `wan` it is wiped when dropped.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Whether none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(feature = "wan")]
    pub(super) fn check(&self) -> Result<(), SettingError> {
        self.link_secret().map(drop)
    }

    #[cfg(not(feature = "wan"))]
    pub(super) fn check(&self) -> Result<(), SettingError> {
        if self.is_empty() {
            return Ok(());
        }
        let problem = "this program was built without the feature `wan`, which seals links; build with it, or leave it out";
        Err(SettingError::new("secret", problem))
    }

    /// What sealed links are made with; `None` for plain ones.
    #[cfg(feature = "wan")]
    pub(crate) fn link_secret(&self) -> Result<Option<madang_wire::wan::LinkSecret>, SettingError> {
        if self.is_empty() {
            return Ok(None);
        }
        madang_wire::wan::LinkSecret::derive(&self.0)
            .map(Some)
            .map_err(|error| SettingError::new("secret", error.to_string()))
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Secret {
        Secret(secret.to_owned())
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Secret {
        Secret(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "(none)" } else { "***" })
    }
}

#[cfg(feature = "wan")]
impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}
