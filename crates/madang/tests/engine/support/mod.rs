//! What the tests share: servers on a driver, peers by hand, content that records.

mod raw;
mod record;
#[cfg(feature = "wan")]
mod relay;
#[cfg(feature = "wan")]
mod wan;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use madang::{DriverChoice, ForeignFraming, ForeignServer, LanServer, Server, ServerBuilder, Stopped};

pub(crate) use raw::{Ended, Hello, Raw, be32_frame, kind, lan_frame};
pub(crate) use record::{Recorder, Seen, Watch, echo};
#[cfg(feature = "wan")]
pub(crate) use relay::Relay;
#[cfg(feature = "wan")]
pub(crate) use wan::{Sealed, frame, log_in, log_in_with, preamble, wan, wan_with};

/// How long anything may take that must happen: far longer than it takes, because the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs each named check as a test of its own on each driver.
macro_rules! each_driver {
    ($($check:ident),* $(,)?) => {
        #[cfg(windows)]
        mod iocp {
            $(#[test] fn $check() { super::$check(madang::DriverChoice::Iocp) })*
        }
        #[cfg(unix)]
        mod readiness {
            $(#[test] fn $check() { super::$check(madang::DriverChoice::Readiness) })*
        }
        #[cfg(target_os = "linux")]
        mod uring {
            $(#[test] fn $check() { if $crate::support::has_uring() { super::$check(madang::DriverChoice::Uring) } })*
        }
    };
}

/// Whether this machine lets us use io_uring; says so in one line if not.
#[cfg(target_os = "linux")]
pub(crate) fn has_uring() -> bool {
    static REFUSED: OnceLock<Option<madang::StartError>> = OnceLock::new();
    let refused = REFUSED.get_or_init(|| {
        let probe = LanServer::bind("127.0.0.1:0").set(|settings| settings.driver = DriverChoice::Uring);
        probe.start(Recorder::silent()).err()
    });
    if let Some(error) = refused {
        println!("skipped: {error}");
    }
    refused.is_none()
}

/// Both ends of a crowd are in this process, and a fresh machine starts programs with 1,024 descriptors. Asked for anew where
/// it is needed, since the limit is the process's. The system may have set a limit that is too low: then the test says so.
pub(crate) fn room_for_descriptors(count: u64) {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current.is_some_and(|current| current < count) {
            let raised =
                Rlimit { current: maximum.map_or(Some(count), |most| Some(most.min(count))), maximum };
            setrlimit(Resource::Nofile, raised).expect("up to its maximum anybody may raise it");
        }
    }
    #[cfg(not(unix))]
    let _ = count;
}

/// Whether a reset is heard as one at the other end. Wine (8.0) shuts a socket down in both directions before it closes it,
/// whatever its linger option says: a FIN goes out, and the reset behind it comes too late to be heard for certain.
pub(crate) fn tells_resets() -> bool {
    // A program that Windows itself does not have.
    !std::path::Path::new(r"C:\windows\system32\wineboot.exe").exists()
}

/// A server of be32 peers: joined without a greeting.
pub(crate) fn be32(driver: DriverChoice) -> ServerBuilder {
    foreign(driver, ForeignFraming::be32())
}

/// A server of any foreign framing. Its peers may send as much as they like, for most tests are faster than any player,
/// and it may be as late as the machine makes it.
pub(crate) fn foreign(driver: DriverChoice, framing: ForeignFraming) -> ServerBuilder {
    ForeignServer::bind("127.0.0.1:0", framing).set(|settings| {
        settings.driver = driver;
        settings.recv_messages_per_s = 0;
        settings.recv_bytes_per_s = 0;
        settings.recv_decoded_bytes_per_s = 0;
        settings.overload_lag_ms = 0;
    })
}

/// A LAN server.
pub(crate) fn lan(driver: DriverChoice) -> ServerBuilder {
    LanServer::bind("127.0.0.1:0").node("test", "test-1", 1).set(|settings| settings.driver = driver)
}

/// Waits for something that no event announces.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Stops a server, and checks that nothing stayed behind and that every join got its leave.
#[track_caller]
pub(crate) fn finish(server: Server, watch: &Watch) -> Stopped {
    let remote = server.remote();
    let stopped = server.stop().expect("no callback stops it");
    assert!(stopped.report().is_clean(), "{:?}", stopped.report());
    watch.check_ledger();
    let figures = remote.figures();
    assert_eq!(figures.joins, figures.left(), "each join has its leave: {figures:?}");
    assert_eq!(
        figures.accepted,
        figures.refused + figures.failed + figures.joins,
        "each peer has its end: {figures:?}"
    );
    stopped
}

/// Bytes that tell their place: a lost, doubled or altered one shows.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Panics with these words are part of a test: they are not printed.
pub(crate) const ON_PURPOSE: &str = "on purpose";

/// Keeps panics that are part of a test out of the output.
pub(crate) fn hush_panics_on_purpose() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let words = info.payload();
            let literal = words.downcast_ref::<&str>().copied();
            if literal.or_else(|| words.downcast_ref().map(String::as_str)) != Some(ON_PURPOSE) {
                usual(info);
            }
        }));
    });
}
