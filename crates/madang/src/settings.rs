//! Everything that can be set, with its default and why.

mod check;
mod secret;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use secret::Secret;

use crate::WhenSlow;
use crate::error::SettingError;

/// The settings of a server or client: built in code, or read from a TOML file with the same names.
///
/// ```
/// let settings = madang::Settings::from_toml("bind = '127.0.0.1:7777'\nworkers = 2\nheartbeat_ms = 500").unwrap();
/// assert_eq!(settings.workers, 2);
/// let wrong = madang::Settings::from_toml("worker = 2").unwrap_err();
/// assert!(wrong.to_string().contains("worker"), "{wrong}");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    // --- where and how many
    /// The address to listen on. A LAN server takes loopback and private addresses only, see `allow_public`.
    pub bind: SocketAddr,
    /// Shards: threads that each own their sessions (the school's *running* workers).
    pub workers: usize,
    /// Threads for work that waits (the school's *created* minus *running*).
    pub offload_threads: usize,
    /// Offloaded jobs that may wait for a thread.
    pub offload_jobs_max: usize,
    /// Sessions that may be joined at once.
    pub max_sessions: usize,
    /// Slots beyond `max_sessions` for sessions that are still going away, so that a client that reconnects at once gets
    /// in. Default: 5 % and 64.
    pub session_slack: Option<usize>,
    /// Peers that may be connected and not have greeted yet.
    pub embryos_max: usize,
    /// Processors to pin the shards to, in order; empty pins none.
    pub cores: Vec<usize>,
    /// The shards' share of the processors, as Unix has it: -20 (most) to 19 (least); 0 is the usual one. A negative value
    /// keeps the links between servers quick while players fill every core; it needs CAP_SYS_NICE on Linux, and without it
    /// a warning says so and the shards run as usual.
    pub nice: i32,

    // --- the driver
    /// Which system interface moves the bytes.
    pub driver: DriverChoice,
    /// What an idle shard does.
    pub wait: WaitStrategy,
    /// Receive buffers of each shard (of 64 KiB). 64 carry the bytes of thousands of connections: a buffer is lent for a
    /// turn only.
    pub recv_buffers: u16,
    /// io_uring: keep sockets in the rings' own tables, beyond the process's descriptor limit.
    pub own_file_table: bool,
    /// Windows: sends leave from the packets themselves, without a send buffer of the system's (the school's SO_SNDBUF of
    /// zero), as long as no more than so many bytes of each shard are locked in memory by it; past that a session gets a
    /// send buffer. 0, the default, is off: a send without a buffer ends only when the peer has acknowledged it, so a
    /// session sends once per round trip.
    pub unbuffered_sends_bytes_max: usize,
    /// Completions a turn, at most.
    pub turn_completions_max: usize,
    /// WAN servers: threads that work handshakes out beside the shards. They give way to the shards (a nice value 10 above
    /// theirs), so a storm of log-ins uses what is left of the processors. 0: each shard works its own out in its turns, and
    /// a message may have to wait for one.
    pub handshake_threads: usize,
    /// WAN servers: steps of log-ins taken in a turn, at most, and only in one that found nothing to do, as long as there are
    /// such. A handshake has two (none with `handshake_threads`), each as long as thirty messages; the log-in behind it is one
    /// more. Log-ins that come faster wait, messages do not.
    pub turn_handshakes_max: usize,
    /// The time that a turn's completions should take; the batch is made smaller when it takes longer.
    pub turn_us_max: u64,

    // --- sockets
    /// Send small segments at once. (The school's Nagle option, the other way round.)
    pub nodelay: bool,
    /// TCP keep-alive after so long without traffic; 0 leaves the system's default (off).
    pub keepalive_ms: u64,
    /// Give a peer up that acknowledges nothing for so long (Linux); 0 leaves the system's default (about 15 minutes).
    pub user_timeout_ms: u64,
    /// Kernel send buffer; 0 leaves the system's default.
    pub send_buffer_bytes: usize,
    /// Kernel receive buffer; 0 leaves the system's default.
    pub recv_buffer_bytes: usize,
    /// Congestion control by name, such as `reno` (Linux); empty leaves the system's default. On this engine's loopback
    /// benchmarks bbr costs 5–20 % more than reno.
    pub congestion: String,
    /// How many connections may wait to be accepted.
    pub backlog: u32,
    /// Windows: no other process can bind our port or take it over (SO_EXCLUSIVEADDRUSE). Elsewhere none can anyway.
    pub exclusive_address: bool,
    /// Close sessions with a reset: no TIME_WAIT, and whatever is unsent is lost.
    pub abortive_close: bool,

    // --- what a peer may send
    /// Messages a second from one session, the engine's own words included; 0: no limit. Who sends more is read no faster
    /// than that, and leaves if it goes on, see `recv_over_ms`. The limits bound the average: what is in one read is delivered.
    pub recv_messages_per_s: u64,
    /// Bytes a second from one session, framing included; 0: no limit. A frame counts as 64 bytes at least.
    pub recv_bytes_per_s: u64,
    /// Bytes a second of messages as content gets them; 0: no limit. For framings that unpack.
    pub recv_decoded_bytes_per_s: u64,
    /// So much of each of the rates may come at once: what piles up while a peer's network stands still.
    pub recv_burst_ms: u64,
    /// A session that sends too much for so long leaves, with [`TooFast`](crate::LeaveReason::TooFast).
    pub recv_over_ms: u64,

    // --- messages and queues
    /// The longest message, in and out.
    pub frame_limit_bytes: u32,
    /// Everything queued in a turn leaves as one send (0), or once per tick of so many milliseconds. A LAN never ticks.
    pub tick_ms: u64,
    /// A session with more than this queued for `queue_soft_ms` is a slow consumer.
    pub queue_soft_bytes: usize,
    /// See `queue_soft_bytes`.
    pub queue_soft_ms: u64,
    /// A session with more than this queued is a slow consumer at once.
    pub queue_hard_bytes: usize,
    /// As many messages queued make a slow consumer at once.
    pub queue_hard_messages: usize,
    /// What happens to a session above `queue_soft_bytes`, besides.
    pub queue_when_slow: WhenSlow,
    /// The packet pool's budget, in bytes of blocks. What does not fit is answered `PoolExhausted`. At least what each shard
    /// has at hand (0.7 MiB), and the longest message.
    pub pool_budget_bytes: usize,
    /// From so many bytes in packets on, the sessions that hold the most make way; 0: nine tenths of the budget.
    pub pool_short_bytes: usize,
    /// Requests of other threads that may wait for a shard.
    pub mailbox_messages_max: usize,
    /// Timers a session may have.
    pub session_timers_max: usize,

    // --- overload
    /// A shard that is so late takes no new peers in (level 1); 0: overload is not looked for. Late is how long an event may
    /// have had to wait: see `overload` in the figures.
    pub overload_lag_ms: u64,
    /// So late, and none of them joins (level 2): a greeting is refused as busy.
    pub overload_heavy_ms: u64,
    /// That late for so long, and the sessions that read the least are cut, one every 100 ms (level 3); 0: never.
    pub overload_cut_after_ms: u64,
    /// What the process may hold (Linux, resident); from nine tenths on it is overloaded, level 3. 0: not looked at. Somewhat
    /// below a container's limit.
    pub memory_budget_bytes: usize,
    /// A turn, or a sleep that overran, of so long is told as [`Stalled`](crate::ErrorKind::Stalled); 0: never.
    pub slow_turn_ms: u64,

    // --- time
    /// A greeting, or a handshake and the log-in behind it, must be complete so long after the accept.
    pub greeting_timeout_ms: u64,
    /// LAN and WAN: a side that has sent nothing for so long pings.
    pub heartbeat_ms: u64,
    /// LAN and WAN: a peer that is silent for so long is dead.
    pub dead_after_ms: u64,
    /// Foreign framings: a peer that is silent for so long is dead; 0 never.
    pub idle_timeout_ms: u64,
    /// A frame must be complete so long after its first byte.
    pub partial_timeout_ms: u64,
    /// A session is gone so long after its leave began, whatever the peer does.
    pub leave_timeout_ms: u64,
    /// Bytes read and thrown away after our own end of a session was sent; past them it is reset, which may destroy the
    /// tail of what it was sent. More than the kernel's receive window (6 MiB on Linux), which may be full when we begin.
    pub drain_bytes_max: usize,
    /// `stop` gives up on sessions that did not leave after so long.
    pub stop_timeout_ms: u64,
    /// Links: the first pause before connecting again; it doubles, with jitter, up to `reconnect_max_ms`, and begins anew
    /// after a session that has lived for so long.
    pub reconnect_min_ms: u64,
    /// See `reconnect_min_ms`.
    pub reconnect_max_ms: u64,
    /// Links: a connect must succeed in this time.
    pub connect_timeout_ms: u64,

    // --- who we are (LAN; of a WAN the versions)
    /// What this node does, like `chat`.
    pub service: String,
    /// Which one it is, like `chat-3`; unique in the cluster. Empty: no node, incarnations are not compared.
    pub node: String,
    /// Which life of the node this is; 0 takes the wall clock's milliseconds at start.
    pub incarnation: u64,
    /// The application's own version.
    pub app_version: u32,
    /// Older peers are refused.
    pub app_version_min: u32,
    /// Of the interface files; peers with another hash are refused. 0: not compared.
    pub schema_hash: u64,
    /// The secret that all nodes of a cluster share, at least 32 bytes: with it, and only then, LAN links are sealed, and
    /// whoever does not know it is refused. 32 random bytes in hexadecimal digits are right; a password is not. (Needs
    /// the crate's feature `wan`.)
    pub secret: Secret,

    // --- keys (WAN)
    /// WAN servers: the files of the keys that are live, one to four, made by `madang keygen`. Clients may pin any of
    /// them: so a new one can spread before the old one goes.
    pub key_files: Vec<PathBuf>,
    /// WAN clients: the public keys of the server, in hexadecimal digits; tried in turn while it does not answer.
    pub server_keys: Vec<String>,
    /// WAN: the ciphers that a server admits, and the first of them is what a client takes.
    pub suites: Vec<CipherSuite>,

    // --- who may come (LAN)
    /// Let a LAN server bind and accept public addresses. Its framing is not protected: know what you do.
    pub allow_public: bool,
    /// Peers beyond loopback and private addresses that a LAN server takes.
    pub allowed_peers: Vec<IpAddr>,

    // --- who may come, and how many of them
    /// A file of IP rules that a server reads when it first starts, see [`Rules`](crate::Rules); empty: none.
    pub rules_file: String,
    /// IP rules at most. When they are so many, adjacent ones become one and the shortest blocks make way.
    pub rules_max: usize,
    /// Connections at once from one IPv4 address or one IPv6 /64; 0: any number. Default: any number on a LAN, else 256:
    /// a large PC bang has some hundred seats behind one address. Whoever serves phones behind a carrier's address
    /// translation needs more. One in eight more may be here for a moment: sessions that leave, peers that may prove to be back,
    /// and peers that were refused and have not hung up (for `greeting_timeout_ms` at most).
    pub prefix_connections_max: Option<u32>,
    /// Of those, peers that have not proven who they are. Default: any number on a LAN, else 64.
    pub prefix_embryos_max: Option<u32>,
    /// New connections a second from there; 0: as fast as they come. Default: any rate on a LAN, else 50, so that two
    /// hundred seats that start at once after a patch are in within three seconds.
    pub prefix_rate_max: Option<u32>,
    /// New connections that may come from there at once. Default: what comes in two seconds.
    pub prefix_burst_max: Option<u32>,
    /// The same limits, so many times as large, hold for the neighbourhood: the IPv4 /24 or the IPv6 /48.
    pub prefix_wide_factor: u32,
    /// Whether loopback is spared by these limits: a gateway on the same machine brings everybody from one address.
    pub prefix_spares_loopback: bool,
    /// Connections accepted a second, whoever they are; 0: as fast as they come. Past it they wait in the backlog. Default:
    /// any rate on a LAN, else 4,000: a crowd that comes back after a failure is in within seconds, and accepting takes a
    /// core's time by a fifth at most.
    pub accept_rate_max: Option<u32>,

    // --- the waiting queue
    /// Peers that may wait for a place when all are taken, told where they stand, beyond `max_sessions`. 0: no queue; who
    /// finds no place within a moment is turned away.
    pub queue_max: usize,
    /// Waiters let in a second at most; 0: as fast as places come free.
    pub queue_release_rate: u32,
    /// How often a waiter hears that he has moved up, at most.
    pub queue_update_ms: u64,
    /// A waiter whose connection broke keeps his turn for so long, and has it back with the ticket that his client was
    /// given; 0: he loses it at once. For framings whose clients the engine itself tells that they wait; others have no way
    /// to carry the ticket.
    pub queue_grace_ms: u64,
}

/// Which system interface moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DriverChoice {
    /// The best one here: on Linux io_uring where it is permitted, else readiness, and one line in the log says so; on
    /// Windows completion ports.
    #[default]
    Auto,
    /// io_uring (Linux), or an error.
    Uring,
    /// epoll or kqueue (Linux, macOS, BSD), or an error.
    Readiness,
    /// I/O completion ports (Windows), or an error.
    Iocp,
}

/// What a shard does while nothing is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Sleeps in the kernel.
    #[default]
    Block,
    /// Asks again and again: burns its core, saves the 10 µs and more of a wake.
    Spin,
}

/// A cipher of encrypted sessions, together with X25519 and SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CipherSuite {
    /// AES-256-GCM: the quickest where the processor has AES instructions, as all current PCs, consoles and phones do.
    #[default]
    AesGcm,
    /// ChaCha20-Poly1305, for the rest.
    #[serde(rename = "chacha-poly")]
    ChaChaPoly,
}

#[cfg(feature = "wan")]
impl CipherSuite {
    pub(crate) fn wire(self) -> madang_wire::wan::Suite {
        match self {
            CipherSuite::AesGcm => madang_wire::wan::Suite::AesGcm,
            CipherSuite::ChaChaPoly => madang_wire::wan::Suite::ChaChaPoly,
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            workers: 1,
            offload_threads: 2,
            offload_jobs_max: 1_024,
            max_sessions: 4_096,
            session_slack: None,
            embryos_max: 1_024,
            cores: Vec::new(),
            nice: 0,
            driver: DriverChoice::Auto,
            wait: WaitStrategy::Block,
            recv_buffers: 64,
            own_file_table: false,
            unbuffered_sends_bytes_max: 0,
            turn_completions_max: 256,
            handshake_threads: 0,
            turn_handshakes_max: 1,
            turn_us_max: 500,
            nodelay: true,
            keepalive_ms: 0,
            user_timeout_ms: 0,
            send_buffer_bytes: 0,
            recv_buffer_bytes: 0,
            congestion: String::new(),
            backlog: 4_096,
            exclusive_address: true,
            abortive_close: false,
            recv_messages_per_s: 0,
            recv_bytes_per_s: 0,
            recv_decoded_bytes_per_s: 0,
            recv_burst_ms: 4_000,
            recv_over_ms: 10_000,
            frame_limit_bytes: 1 << 20,
            tick_ms: 0,
            queue_soft_bytes: 16 << 20,
            queue_soft_ms: 30_000,
            queue_hard_bytes: 64 << 20,
            queue_hard_messages: 1 << 20,
            queue_when_slow: WhenSlow::Kick,
            pool_budget_bytes: 1 << 30,
            pool_short_bytes: 0,
            overload_lag_ms: 0,
            overload_heavy_ms: 200,
            overload_cut_after_ms: 0,
            memory_budget_bytes: 0,
            slow_turn_ms: 1_000,
            mailbox_messages_max: 16_384,
            session_timers_max: 64,
            greeting_timeout_ms: 3_000,
            heartbeat_ms: 1_000,
            dead_after_ms: 5_000,
            idle_timeout_ms: 60_000,
            partial_timeout_ms: 10_000,
            leave_timeout_ms: 1_000,
            drain_bytes_max: 16 << 20,
            stop_timeout_ms: 10_000,
            reconnect_min_ms: 100,
            reconnect_max_ms: 5_000,
            connect_timeout_ms: 5_000,
            service: String::new(),
            node: String::new(),
            incarnation: 0,
            app_version: 0,
            app_version_min: 0,
            schema_hash: 0,
            secret: Secret::default(),
            key_files: Vec::new(),
            server_keys: Vec::new(),
            suites: vec![CipherSuite::AesGcm, CipherSuite::ChaChaPoly],
            allow_public: false,
            allowed_peers: Vec::new(),
            rules_file: String::new(),
            rules_max: 8_192,
            prefix_connections_max: None,
            prefix_embryos_max: None,
            prefix_rate_max: None,
            prefix_burst_max: None,
            prefix_wide_factor: 4,
            prefix_spares_loopback: true,
            accept_rate_max: None,
            queue_max: 0,
            queue_release_rate: 0,
            queue_update_ms: 2_000,
            queue_grace_ms: 15_000,
        }
    }
}

impl Settings {
    /// The defaults for players, encrypted or under a foreign framing: tighter queues, because there are many and any may be slow, and
    /// limits on what each may send: several times what a busy game client does (60 messages of 200 bytes a second).
    pub fn for_players() -> Settings {
        Settings {
            queue_soft_bytes: 256 << 10,
            queue_soft_ms: 5_000,
            queue_hard_bytes: 1 << 20,
            queue_hard_messages: 1_024,
            frame_limit_bytes: 16 << 10,
            heartbeat_ms: 10_000,
            dead_after_ms: 30_000,
            overload_lag_ms: 50,
            overload_cut_after_ms: 5_000,
            recv_messages_per_s: 300,
            recv_bytes_per_s: 128 << 10,
            recv_decoded_bytes_per_s: 512 << 10,
            ..Settings::default()
        }
    }

    /// Reads settings from TOML text; what is not there keeps its default.
    ///
    /// # Errors
    /// An unknown key, or a value of the wrong type, by key and line. Values are checked at start.
    pub fn from_toml(text: &str) -> Result<Settings, SettingError> {
        Settings::default().overlay(text)
    }

    /// These settings with those of a TOML text laid over them.
    ///
    /// # Errors
    /// As [`from_toml`](Settings::from_toml).
    pub fn overlay(&self, text: &str) -> Result<Settings, SettingError> {
        let unreadable = |error: &dyn std::fmt::Display| SettingError::new("(file)", error.to_string());
        let over: toml::Table = text.parse().map_err(|error: toml::de::Error| unreadable(&error))?;
        let mut table = toml::Table::try_from(self).map_err(|error| unreadable(&error))?;
        for (key, value) in over {
            let mut one = table.clone();
            one.insert(key.clone(), value.clone());
            // One key at a time, so that the error can name it.
            Settings::deserialize(toml::Value::Table(one))
                .map_err(|error| SettingError::new(&key, error.message()))?;
            table.insert(key, value);
        }
        Settings::deserialize(toml::Value::Table(table))
            .map_err(|error| SettingError::new("(file)", error.message()))
    }

    /// Reads settings from a TOML file.
    ///
    /// # Errors
    /// The file cannot be read, or as [`from_toml`](Settings::from_toml).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Settings, SettingError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| {
            SettingError::new("(file)", format!("cannot read {}: {error}", path.display()))
        })?;
        Settings::from_toml(&text)
    }

    pub(crate) fn slack(&self) -> usize {
        self.session_slack.unwrap_or(self.max_sessions / 20 + 64)
    }

    pub(crate) fn accept_rate(&self, is_lan: bool) -> u32 {
        self.accept_rate_max.unwrap_or(if is_lan { 0 } else { 4_000 })
    }

    /// Connections that a shard's driver must have room for.
    pub(crate) fn connections_max(&self) -> usize {
        self.slots_per_shard() + self.embryos_max + crate::gate::EVICTED_MAX + self.queue_max
    }

    /// Slots of each shard: any shard may have to hold all sessions.
    pub(crate) fn slots_per_shard(&self) -> usize {
        self.max_sessions + self.slack()
    }
}

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
