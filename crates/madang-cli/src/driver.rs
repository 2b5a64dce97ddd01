//! Which system interface moves the bytes, as an option of every command that runs some.

use clap::ValueEnum;
use madang::DriverChoice;
use madang_driver::DriverKind;

/// A driver by its name in settings files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Driver {
    /// io_uring where it is permitted, else readiness
    Auto,
    /// io_uring (Linux), or an error
    Uring,
    /// epoll or kqueue
    Readiness,
}

impl Driver {
    /// For the engine's settings.
    pub(crate) fn choice(self) -> DriverChoice {
        match self {
            Self::Auto => DriverChoice::Auto,
            Self::Uring => DriverChoice::Uring,
            Self::Readiness => DriverChoice::Readiness,
        }
    }

    /// The driver itself, if this system permits it; in words why not.
    pub(crate) fn kind(self) -> Result<DriverKind, String> {
        let usable = |kind: DriverKind| {
            kind.probe()
                .map(|()| kind)
                .map_err(|reason| format!("the {kind} driver cannot be used here: {reason}"))
        };
        match self {
            Self::Auto => usable(DriverKind::Uring).or_else(|_| usable(DriverKind::Readiness)),
            Self::Uring => usable(DriverKind::Uring),
            Self::Readiness => usable(DriverKind::Readiness),
        }
    }
}
