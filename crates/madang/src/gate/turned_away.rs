//! Why a peer was not let in.

/// Why a peer was turned away at the door, before anything was set up for it. Each is counted
/// ([`Figures::turned_away`](crate::Figures::turned_away)); the causes are on the operator's side, the peer is told nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TurnedAway {
    /// A LAN server's peer that is neither loopback nor private nor listed.
    Outsider,
    /// A ban covers its address.
    Banned,
    /// A block covers its address, and has not ended.
    Blocked,
    /// Only listed addresses may enter, and this is none.
    NotListed,
    /// As many connections as `prefix_connections_max` allows come from its address or neighbourhood.
    PrefixConnections,
    /// As many peers that have proven nothing as `prefix_embryos_max` allows come from there.
    PrefixEmbryos,
    /// More came from there in a short time than `prefix_rate_max` allows.
    PrefixRate,
    /// Content refused it in `on_connection_request`.
    Content,
    /// No place was free: `max_sessions`, or `embryos_max` for peers that have not greeted.
    Full,
    /// The server is stopping.
    Closing,
    /// The server is overloaded: see `overload_lag_ms`.
    Overloaded,
}

impl TurnedAway {
    /// How many causes there are, for tables of counters.
    pub const COUNT: usize = 11;

    /// A number for each: an index below [`COUNT`](TurnedAway::COUNT). The numbers never change their meaning.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The label of the cause with this [`code`](TurnedAway::code), for metrics and logs.
    pub fn label_of(code: u8) -> &'static str {
        const LABELS: [&str; TurnedAway::COUNT] = [
            "outsider",
            "banned",
            "blocked",
            "not_listed",
            "prefix_connections",
            "prefix_embryos",
            "prefix_rate",
            "content",
            "full",
            "closing",
            "overloaded",
        ];
        LABELS.get(usize::from(code)).copied().unwrap_or("unknown")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cause_has_the_last_code() {
        assert_eq!(usize::from(TurnedAway::Overloaded.code()) + 1, TurnedAway::COUNT);
        assert_eq!(TurnedAway::label_of(TurnedAway::Overloaded.code()), "overloaded");
        assert_eq!(TurnedAway::label_of(200), "unknown");
    }
}
