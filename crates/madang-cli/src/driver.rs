//! Which system interface moves the bytes, as an option of every command that runs some.

use clap::ValueEnum;
use madang::DriverChoice;
use madang_driver::DriverKind;

/// A driver by its name in settings files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Driver {
    /// The best that this system permits: io_uring, else readiness; on Windows iocp
    Auto,
    /// io_uring (Linux), or an error
    Uring,
    /// epoll or kqueue
    Readiness,
    /// I/O completion ports (Windows)
    Iocp,
}

impl Driver {
    /// For the engine's settings.
    pub(crate) fn choice(self) -> DriverChoice {
        match self {
            Self::Auto => DriverChoice::Auto,
            Self::Uring => DriverChoice::Uring,
            Self::Readiness => DriverChoice::Readiness,
            Self::Iocp => DriverChoice::Iocp,
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
            Self::Auto => {
                let tried = DriverKind::IN_ORDER.iter().map(|kind| usable(*kind));
                tried.reduce(|best, next| best.or(next)).expect("every system has a driver")
            }
            Self::Uring => usable(DriverKind::Uring),
            Self::Readiness => usable(DriverKind::Readiness),
            Self::Iocp => usable(DriverKind::Iocp),
        }
    }
}
