//! What is measured: the scenarios, and how often.

use serde::{Deserialize, Serialize};

use super::contender::Contender::{
    self, Floor, FloorAgain, MadangReadiness, MadangTick, MadangUring, MadangWan, TokioCodec, TokioTuned,
};

/// How much to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// A few points, a few rounds: does everything run, and roughly how fast? About two minutes.
    Quick,
    /// The points with a limit, 80 rounds each: an answer that holds. About an hour, in pieces if wanted.
    Gate,
    /// The whole matrix, with 80 rounds where there is a limit. Several hours.
    Full,
}

/// Rounds that a judged ratio pools.
pub const GATE_ROUNDS: usize = 80;

/// One row of the matrix.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What is done to the servers.
    pub load: Load,
    /// Who takes part, in the order of the first round.
    pub contenders: Vec<Contender>,
    /// Rounds to pool.
    pub rounds: usize,
}

/// What is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Load {
    /// Closed loop.
    Echo {
        /// Open connections.
        connections: usize,
        /// Payload bytes.
        size: usize,
        /// Messages outstanding on each.
        depth: u32,
    },
    /// A fixed rate over all connections.
    Paced {
        /// Open connections.
        connections: usize,
        /// Payload bytes.
        size: usize,
        /// Messages a second.
        per_second: u32,
    },
    /// One trigger, everyone receives.
    Broadcast {
        /// Receivers.
        connections: usize,
        /// Payload bytes.
        size: usize,
        /// Messages to each receiver and turn.
        per_turn: u32,
    },
    /// Closed loop, encrypted sessions beside plain ones.
    WanEcho {
        /// Open connections.
        connections: usize,
        /// Payload bytes.
        size: usize,
        /// Messages outstanding on each.
        depth: u32,
    },
    /// One trigger, everyone receives: encrypted sessions beside plain ones.
    WanBroadcast {
        /// Receivers.
        connections: usize,
        /// Payload bytes.
        size: usize,
        /// Messages to each receiver and turn.
        per_turn: u32,
    },
    /// Connect, one echo, reset.
    Accept {
        /// At a time.
        connections: usize,
        /// Payload bytes.
        size: usize,
    },
    /// Resident memory of sessions that do nothing.
    Idle {
        /// How many.
        connections: usize,
    },
}

impl Load {
    /// Its name on the command line, in records and in `limits.toml`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Echo { connections, size, depth } => format!("echo-{connections}x{size}-d{depth}"),
            Self::Paced { connections, size, per_second } => {
                format!("paced-{connections}x{size}-{per_second}")
            }
            Self::Broadcast { connections, size, per_turn } => {
                format!("broadcast-{connections}x{size}-m{per_turn}")
            }
            Self::WanEcho { connections, size, depth } => format!("wan-echo-{connections}x{size}-d{depth}"),
            Self::WanBroadcast { connections, size, per_turn } => {
                format!("wan-broadcast-{connections}x{size}-m{per_turn}")
            }
            Self::Accept { size, .. } => format!("accept-{size}"),
            Self::Idle { connections } => format!("idle-{connections}"),
        }
    }

    /// The mode in which a server meets it.
    #[must_use]
    pub fn mode(self) -> &'static str {
        match self {
            Self::Echo { .. } | Self::WanEcho { .. } | Self::Paced { .. } | Self::Idle { .. } => "echo",
            Self::Broadcast { .. } | Self::WanBroadcast { .. } => "broadcast",
            Self::Accept { .. } => "accept",
        }
    }

    /// What `loadgen` is told.
    #[must_use]
    pub fn arguments(self) -> Vec<String> {
        let (command, connections, size, more) = match self {
            Self::Echo { connections, size, depth } | Self::WanEcho { connections, size, depth } => {
                ("echo", connections, size, Some(("--depth", depth)))
            }
            Self::Paced { connections, size, per_second } => {
                ("paced", connections, size, Some(("--per-second", per_second)))
            }
            Self::Broadcast { connections, size, per_turn }
            | Self::WanBroadcast { connections, size, per_turn } => {
                ("broadcast", connections, size, Some(("--per-turn", per_turn)))
            }
            Self::Accept { connections, size } => ("churn", connections, size, None),
            Self::Idle { connections } => ("echo", connections - 1, 200, None),
        };
        let mut arguments = vec![command.to_owned()];
        arguments.extend(["--connections".to_owned(), connections.to_string()]);
        arguments.extend(["--size".to_owned(), size.to_string()]);
        arguments.extend(more.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_string()]));
        if let Self::WanEcho { .. } | Self::WanBroadcast { .. } = self {
            // Who decrypts must have the bytes, so the other client takes them too: a client that frees them sooner, and on
            // another path, changes what the server pays.
            arguments.push("--copy".to_owned());
        }
        arguments
    }
}

/// The scenarios of a profile.
#[must_use]
pub fn scenarios(profile: Profile) -> Vec<Scenario> {
    match profile {
        Profile::Quick => {
            let loads =
                [echo(50, 32, 1), echo(1000, 32, 1), echo(1000, 32, 16), BROADCAST_ONE, ACCEPT, PACED];
            loads.map(|load| scenario(load, 6)).to_vec()
        }
        Profile::Gate => {
            gated().into_iter().map(|load| scenario(load, GATE_ROUNDS)).chain([idle()]).collect()
        }
        Profile::Full => {
            let mut all: Vec<Load> = gated();
            for connections in [50, 1000, 10_000] {
                for size in [32, 256, 4096] {
                    all.extend([1, 16].map(|depth| echo(connections, size, depth)));
                }
            }
            let mut seen = Vec::new();
            all.retain(|load| {
                !seen.contains(load) && {
                    seen.push(*load);
                    true
                }
            });
            let rounds = |load: &Load| if gated().contains(load) { GATE_ROUNDS } else { 10 };
            all.into_iter().map(|load| scenario(load, rounds(&load))).chain([idle()]).collect()
        }
    }
}

const BROADCAST_ONE: Load = Load::Broadcast { connections: 1000, size: 200, per_turn: 1 };
const BROADCAST_EIGHT: Load = Load::Broadcast { connections: 1000, size: 200, per_turn: 8 };
/// 64 at a time keep the server busy; the connections never wait in its accept queue for long.
const ACCEPT: Load = Load::Accept { connections: 64, size: 32 };
const PACED: Load = Load::Paced { connections: 1000, size: 32, per_second: 100_000 };

/// What encryption costs, with one message under each seal and with sixteen.
const WAN_ECHO_ONE: Load = Load::WanEcho { connections: 1000, size: 256, depth: 1 };
const WAN_ECHO_SIXTEEN: Load = Load::WanEcho { connections: 1000, size: 256, depth: 16 };
/// Plain sessions share one chunk of a broadcast; each encrypted one needs its own.
const WAN_BROADCAST: Load = Load::WanBroadcast { connections: 5000, size: 1200, per_turn: 1 };

/// The loads that `limits.toml` has ratios for.
fn gated() -> Vec<Load> {
    vec![
        echo(1000, 32, 1),
        echo(1000, 256, 1),
        echo(1000, 4096, 1),
        echo(1000, 32, 16),
        echo(1000, 256, 16),
        BROADCAST_ONE,
        BROADCAST_EIGHT,
        ACCEPT,
        PACED,
        WAN_ECHO_ONE,
        WAN_ECHO_SIXTEEN,
        WAN_BROADCAST,
    ]
}

fn echo(connections: usize, size: usize, depth: u32) -> Load {
    Load::Echo { connections, size, depth }
}

fn idle() -> Scenario {
    scenario(Load::Idle { connections: 10_000 }, 3)
}

fn scenario(load: Load, rounds: usize) -> Scenario {
    let contenders = match load {
        // The point where everyone meets also shows what two equal servers differ by.
        Load::Echo { connections: 1000, size: 32, depth: 1 } => {
            vec![Floor, TokioCodec, TokioTuned, MadangUring, MadangReadiness, FloorAgain]
        }
        Load::Echo { .. } | Load::Accept { .. } => {
            vec![Floor, TokioCodec, TokioTuned, MadangUring, MadangReadiness]
        }
        Load::Idle { .. } => vec![Floor, TokioCodec, TokioTuned, MadangUring, MadangReadiness, MadangWan],
        Load::WanEcho { .. } | Load::WanBroadcast { .. } => vec![MadangUring, MadangWan],
        Load::Broadcast { .. } => vec![Floor, MadangUring, MadangReadiness],
        Load::Paced { .. } => vec![MadangUring, MadangTick, Floor],
    };
    Scenario { load, contenders, rounds }
}
