//! The public edge: servers for players and their clients, over encrypted sessions.

mod log_in;

pub mod keys;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use madang_wire::wan::{HandshakeHash, PublicKey, ServerKeys};

pub use self::log_in::{Credentials, LogIn, Verdict};
use crate::error::SettingError;
use crate::framing::Protocol;
use crate::{ClientBuilder, Link, ServerBuilder, Settings};

/// A server for players: encrypted sessions over the open internet.
///
/// Its clients know its public key and talk to nobody else; what travels cannot be read, changed, replayed, reordered or
/// cut off unnoticed. Who a player is, is told by a token that [`ServerBuilder::log_in`] checks.
///
/// ```
/// # struct Game; impl madang::Handler for Game {}
/// use madang::{LogIn, Verdict, Account, WanServer, keys, wire::lan::RefusalReason};
///
/// let server = WanServer::bind("127.0.0.1:0")
///     .keys(keys::throwaway()) // a real one: settings `key_files`, made by `madang keygen`
///     .log_in(|log_in: &LogIn<'_>| match log_in.token {
///         b"let me in" => Verdict::Admit(Account::new(7)),
///         _ => Verdict::Refuse(RefusalReason::LogIn.into()),
///     })
///     .start(Game)?;
/// # server.stop().unwrap();
/// # Ok::<(), madang::StartError>(())
/// ```
#[derive(Debug)]
pub enum WanServer {}

impl WanServer {
    /// Begins a server on an address such as `0.0.0.0:7777`, with [`Settings::for_players`].
    pub fn bind(address: &str) -> ServerBuilder {
        WanServer::with(Settings::for_players()).bind_to(address)
    }

    /// Begins a server with settings from elsewhere.
    pub fn with(settings: Settings) -> ServerBuilder {
        ServerBuilder::new(settings, Protocol::Wan(Wan::default()))
    }
}

/// The client side of encrypted sessions: any number of links, to one server or several with the same key.
#[derive(Debug)]
pub enum WanClient {}

impl WanClient {
    /// Begins a client that trusts the server with this public key and no other; see [`ClientBuilder::pin`] for more than
    /// one. Its settings are those [for players](Settings::for_players), without limits on what the server sends.
    pub fn pinning(server: PublicKey, app_version: u32) -> ClientBuilder {
        // What a server sends is what we asked for: there is no limit on it.
        let settings = Settings {
            app_version,
            recv_messages_per_s: 0,
            recv_bytes_per_s: 0,
            recv_decoded_bytes_per_s: 0,
            ..Settings::for_players()
        };
        WanClient::with(settings).pin(server)
    }

    /// Begins a client with settings from elsewhere; its keys stand in [`Settings::server_keys`], or are
    /// [pinned](ClientBuilder::pin).
    pub fn with(settings: Settings) -> ClientBuilder {
        ClientBuilder::new(settings, Protocol::Wan(Wan::default()))
    }
}

impl ServerBuilder {
    /// WAN: the keys that the server answers under, up to four, instead of [`Settings::key_files`].
    pub fn keys(self, keys: ServerKeys) -> ServerBuilder {
        self.wan("keys", |wan| wan.keys = Some(Arc::new(keys)))
    }

    /// WAN: who may log in. Called on the shard for each client that proved nothing yet but that it knows our public key:
    /// it must not wait. Without a check everybody is let in, without an account.
    ///
    /// A panic in it refuses the client ([`Busy`](madang_wire::lan::RefusalReason::Busy)).
    pub fn log_in(self, check: impl Fn(&LogIn<'_>) -> Verdict + Send + Sync + 'static) -> ServerBuilder {
        self.wan("log_in", |wan| wan.check = Check::Here(Arc::new(check)))
    }

    /// WAN: as [`log_in`](ServerBuilder::log_in), but on an offload thread, where it may wait: for a database, say, that
    /// is the thread's own state (see [`offload_state`](ServerBuilder::offload_state); without one, `()`). No shard waits
    /// for it, and clients do no longer than `greeting_timeout_ms`. When the jobs' queue is full, the client is refused
    /// ([`Busy`](madang_wire::lan::RefusalReason::Busy)).
    ///
    /// # Panics
    /// On the offload thread, when its state is no `S`; the client is then refused as with any panic.
    pub fn log_in_offloaded<S: Any>(
        self,
        check: impl Fn(&mut S, &LogIn<'_>) -> Verdict + Send + Sync + 'static,
    ) -> ServerBuilder {
        let check = move |state: &mut dyn Any, log_in: &LogIn<'_>| {
            check(
                state.downcast_mut().expect("the offload state has the type that the check asks for"),
                log_in,
            )
        };
        self.wan("log_in", |wan| wan.check = Check::Offloaded(Arc::new(check)))
    }

    fn wan(mut self, key: &str, change: impl FnOnce(&mut Wan)) -> ServerBuilder {
        match &mut self.protocol {
            Protocol::Wan(wan) => change(wan),
            _ => self.problem = Some(SettingError::new(key, "only a WAN server has that")),
        }
        self
    }
}

impl ClientBuilder {
    /// WAN: trusts the server with this public key, too. While a link does not come up they are tried in turn: so a client
    /// knows the key that a server has and the one that it will have.
    pub fn pin(self, server: PublicKey) -> ClientBuilder {
        self.wan("pin", |wan| wan.pins.push(server))
    }

    /// WAN: the log-in token of all links, without a proof. Whoever sees the token can use it.
    pub fn token(self, token: &[u8]) -> ClientBuilder {
        let credentials = Credentials::token(token);
        self.log_in(move |_, _| credentials.clone())
    }

    /// WAN: what each link logs in with. Called on its shard when the server was found to be the right one, with the hash of
    /// this very handshake for [`Credentials::prove`]: it must not wait.
    pub fn log_in(
        self,
        credentials: impl Fn(Link, &HandshakeHash) -> Credentials + Send + Sync + 'static,
    ) -> ClientBuilder {
        self.wan("log_in", |wan| wan.credentials = Some(Arc::new(credentials)))
    }

    fn wan(mut self, key: &str, change: impl FnOnce(&mut Wan)) -> ClientBuilder {
        match &mut self.protocol {
            Protocol::Wan(wan) => change(wan),
            _ => self.problem = Some(SettingError::new(key, "only a WAN client has that")),
        }
        self
    }
}

/// What the WAN protocol needs beyond the settings: the one half of it on servers, the other on clients.
#[derive(Clone, Default)]
pub(crate) struct Wan {
    /// A server's; there once it is assembled.
    pub(crate) keys: Option<Arc<ServerKeys>>,
    pub(crate) check: Check,
    /// The keys that a client trusts; at least one once it is assembled.
    pub(crate) pins: Vec<PublicKey>,
    pub(crate) credentials: Option<MakeCredentials>,
}

pub(crate) type MakeCredentials = Arc<dyn Fn(Link, &HandshakeHash) -> Credentials + Send + Sync>;

/// How log-ins are checked.
#[derive(Clone, Default)]
pub(crate) enum Check {
    /// Everybody may come in.
    #[default]
    Nothing,
    /// On the shard.
    Here(CheckHere),
    /// On an offload thread, with its state.
    Offloaded(CheckOffloaded),
}

pub(crate) type CheckHere = Arc<dyn Fn(&LogIn<'_>) -> Verdict + Send + Sync>;
pub(crate) type CheckOffloaded = Arc<dyn Fn(&mut dyn Any, &LogIn<'_>) -> Verdict + Send + Sync>;

impl Wan {
    /// With the keys that the settings name, where the builder was given none.
    pub(crate) fn assemble(&self, settings: &Settings, is_server: bool) -> Result<Wan, SettingError> {
        let mut wan = self.clone();
        if is_server && wan.keys.is_none() {
            let keys = keys::read_all(&settings.key_files)
                .map_err(|error| SettingError::new("key_files", error.to_string()))?;
            wan.keys = Some(Arc::new(keys));
        }
        if !is_server && wan.pins.is_empty() {
            for key in &settings.server_keys {
                let pin = key.parse().map_err(|_| {
                    let problem = format!(
                        "`{key}` is no public key: 64 hexadecimal digits, as `madang keygen` prints them"
                    );
                    SettingError::new("server_keys", problem)
                })?;
                wan.pins.push(pin);
            }
            if wan.pins.is_empty() {
                let problem = "a WAN client needs its server's public key: it talks to nobody else";
                return Err(SettingError::new("server_keys", problem));
            }
        }
        Ok(wan)
    }
}

impl fmt::Debug for Wan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wan").field("pins", &self.pins).finish_non_exhaustive()
    }
}
