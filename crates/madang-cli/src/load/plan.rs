//! What a load run is to do, checked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use madang_driver::{ConnectOptions, DriverKind, SocketOptions};

use super::report::Drive;
use super::stream::Speech;
use super::visitors::Visits;

/// Everything that the threads of a run need to know; shared by all of them.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) targets: Vec<SocketAddr>,
    /// Our own addresses; none lets the system choose. One address has about 28,000 ports towards each target.
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) speech: Speech,
    pub(crate) driver: DriverKind,
    /// Sockets live in the rings' own tables instead of the process's.
    pub(crate) own_file_table: bool,
    /// Payload bytes of each message.
    pub(crate) size: usize,
    pub(crate) drive: Drive,
    pub(crate) visits: Visits,
    /// The processor of all our threads.
    pub(crate) core: Option<usize>,
    /// Their share of it, as Unix has it.
    pub(crate) nice: i32,
    /// They run only when nobody else wants it.
    pub(crate) idle: bool,
    /// Traffic that is not measured yet.
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// How long all connections together may take to be admitted.
    pub(crate) ramp: Duration,
    /// How long echoes may be late at the end.
    pub(crate) patience: Duration,
}

impl Plan {
    /// Where connection `number` goes, and from which address: targets first, so that each source meets each target.
    pub(crate) fn route(&self, number: usize) -> ConnectOptions {
        let (target, round) = (number % self.targets.len(), number / self.targets.len());
        let source = self.sources.get(round.checked_rem(self.sources.len()).unwrap_or(0));
        ConnectOptions {
            remote: self.targets[target],
            local: source.map(|source| SocketAddr::new(*source, 0)),
            socket: SocketOptions { nodelay: Some(true), ..SocketOptions::default() },
        }
    }

    /// Keeps the current thread where the plan wants all of them, with the share that it wants.
    pub(crate) fn pin(&self) -> anyhow::Result<()> {
        if let Some(core) = self.core {
            madang_driver::pin_thread(core).with_context(|| format!("--core {core}"))?;
        }
        if self.idle {
            madang_driver::idle_thread().context("--idle")?;
        } else if self.nice != 0 {
            let nice = self.nice;
            madang_driver::prioritize_thread(nice).with_context(|| format!("--nice {nice}"))?;
        }
        Ok(())
    }

    /// The numbers of the connections that belong to a thread.
    pub(crate) fn share(&self, thread: usize) -> std::ops::Range<usize> {
        let at = |thread: usize| self.connections * thread / self.threads;
        at(thread)..at(thread + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Framing;

    fn plan(connections: usize, threads: usize) -> Plan {
        let address = |host: u8, port| SocketAddr::from(([127, 0, 0, host], port));
        Plan {
            targets: vec![address(1, 1), address(1, 2)],
            sources: vec![address(2, 0).ip(), address(3, 0).ip()],
            connections,
            threads,
            speech: Speech::Plain(Framing::Be32),
            driver: DriverKind::Readiness,
            own_file_table: false,
            size: 32,
            drive: Drive::Closed { depth: 1 },
            visits: Visits::default(),
            core: None,
            nice: 0,
            idle: false,
            warm_up: Duration::ZERO,
            measured: Duration::ZERO,
            ramp: Duration::ZERO,
            patience: Duration::ZERO,
        }
    }

    #[test]
    fn every_source_meets_every_target() {
        let routes: Vec<_> = (0..5).map(|number| plan(5, 1).route(number)).collect();
        let seen: Vec<_> = routes
            .iter()
            .map(|route| (route.local.map(|local| local.to_string()), route.remote.port()))
            .collect();
        let from = |host: u8, port| (Some(format!("127.0.0.{host}:0")), port);
        assert_eq!(seen, [from(2, 1), from(2, 2), from(3, 1), from(3, 2), from(2, 1)]);
        assert_eq!(Plan { sources: vec![], ..plan(1, 1) }.route(3).local, None);
    }

    #[test]
    fn threads_share_all_connections() {
        for (connections, threads) in [(10, 3), (3, 3), (1, 1), (65_000, 7)] {
            let plan = plan(connections, threads);
            let shares: Vec<_> = (0..threads).map(|thread| plan.share(thread)).collect();
            assert_eq!((shares[0].start, shares[threads - 1].end), (0, connections));
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(shares.iter().all(|share| !share.is_empty()));
        }
    }
}
