//! Listening and connecting: who is reachable where.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::faults::FaultKind;
use super::machine::{Due, Machine, Notice};
use super::stream::{Owner, StreamId};
use super::trace::Event;
use crate::{ListenError, ListenOptions, NetError, SocketOptions};

/// How often a knock on a full backlog is repeated, a second apart, before the system gives up.
const KNOCKS_MAX: u8 = 4;

/// A listening socket.
pub(super) struct Port {
    pub(super) address: SocketAddr,
    pub(super) owner: PortOwner,
    /// Connections that wait to be accepted, oldest first.
    pub(super) backlog: VecDeque<StreamId>,
    backlog_max: usize,
    options: SocketOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortOwner {
    Shard { shard: usize, listener: u32 },
    Peer,
}

impl Machine {
    pub(super) fn listen(
        &mut self,
        options: &ListenOptions,
        owner: PortOwner,
    ) -> Result<(u32, SocketAddr), ListenError> {
        let failed = |error| ListenError { address: options.address, error };
        let mut address = options.address;
        if !is_of_this_machine(address.ip()) {
            return Err(failed(NetError::AddrNotAvailable));
        }
        if owner != PortOwner::Peer && self.descriptors >= self.descriptors_max {
            return Err(failed(NetError::TooManyFiles));
        }
        if address.port() == 0 {
            address = self.free_port(address.ip());
        } else if self.ports.values().any(|port| clash(port.address, address)) {
            return Err(failed(NetError::AddrInUse));
        }
        self.port_serial += 1;
        let port = Port {
            address,
            owner,
            backlog: VecDeque::new(),
            backlog_max: options.backlog.max(1) as usize,
            options: options.socket.clone(),
        };
        self.ports.insert(self.port_serial, port);
        self.descriptors += usize::from(owner != PortOwner::Peer);
        Ok((self.port_serial, address))
    }

    /// Closes a listening socket; answers the connections that waited.
    pub(super) fn unlisten(&mut self, port: u32) -> VecDeque<StreamId> {
        let Some(port) = self.ports.remove(&port) else { return VecDeque::new() };
        self.descriptors -= usize::from(port.owner != PortOwner::Peer);
        port.backlog
    }

    /// Starts to connect from `local` (port 0: any; `None`: the address by which the peer is reached).
    pub(super) fn connect(
        &mut self,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        owner: Owner,
        options: &SocketOptions,
    ) -> Result<StreamId, NetError> {
        let local = local.unwrap_or_else(|| SocketAddr::new(route_to(remote.ip()), 0));
        if !is_of_this_machine(local.ip()) {
            return Err(NetError::AddrNotAvailable);
        }
        if owner != Owner::Peer && self.descriptors >= self.descriptors_max {
            return Err(NetError::TooManyFiles);
        }
        let local = if local.port() == 0 { self.free_port(local.ip()) } else { local };
        let from = self.open(local, remote, owner, options);
        self.stream_mut(from).expect("it was just opened").is_connecting = true;
        let latency = self.dice.latency();
        self.after(latency, Due::Knock { from, to: remote, tries: 1 });
        Ok(from)
    }

    pub(super) fn knock_arrives(&mut self, from: StreamId, to: SocketAddr, tries: u8) {
        let Some(caller) = self.stream(from) else { return };
        let (local, scripted) = (caller.local, caller.owner == Owner::Peer);
        let latency = self.dice.latency();
        // Only the drivers' connects draw these: a scripted peer wants to be in control of its own.
        if !scripted && self.dice.fires(FaultKind::ConnectRefused) {
            return self.after(latency, Due::Answer { to: from, error: Some(NetError::Refused) });
        }
        if !scripted && self.dice.fires(FaultKind::ConnectTimedOut) {
            let span = self.dice.span(Duration::from_secs(120));
            return self.after(span, Due::Answer { to: from, error: Some(NetError::TimedOut) });
        }
        let Some((id, port)) = self.ports.iter_mut().find(|(_, port)| serves(port.address, to)) else {
            return self.after(latency, Due::Answer { to: from, error: Some(NetError::Refused) });
        };
        if port.backlog.len() >= port.backlog_max {
            return if tries < KNOCKS_MAX {
                self.after(Duration::from_secs(1), Due::Knock { from, to, tries: tries + 1 })
            } else {
                self.after(latency, Due::Answer { to: from, error: Some(NetError::TimedOut) })
            };
        }
        let (id, options, owner) = (*id, port.options.clone(), port.owner);
        let accepted = self.open(to, local, Owner::Backlog, &options);
        self.link(from, accepted);
        self.ports.get_mut(&id).expect("it was just found").backlog.push_back(accepted);
        self.after(latency, Due::Answer { to: from, error: None });
        self.note(Event::Connect, u64::from(local.port()), u64::from(to.port()));
        if let PortOwner::Shard { shard, listener } = owner {
            self.owe(shard, Notice::Listener(listener));
        }
    }

    pub(super) fn answer_arrives(&mut self, to: StreamId, error: Option<NetError>) {
        let Some(caller) = self.stream_mut(to) else { return };
        caller.is_connecting = false;
        caller.error = caller.error.or(error);
        self.notify(to);
    }

    /// The next ephemeral port that nobody uses at this address.
    fn free_port(&mut self, ip: IpAddr) -> SocketAddr {
        loop {
            let address = SocketAddr::new(ip, self.ephemeral_next);
            self.ephemeral_next = self.ephemeral_next.checked_add(1).unwrap_or(32_768);
            let is_used = self.ports.values().any(|port| clash(port.address, address));
            if !is_used {
                return address;
            }
        }
    }
}

/// The simulated machine has the whole of 127/8 and 10/8, and the IPv6 loopback.
fn is_of_this_machine(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_unspecified() || matches!(ip.octets()[0], 127 | 10),
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_loopback(),
    }
}

/// The address from which `remote` is reached.
fn route_to(remote: IpAddr) -> IpAddr {
    match remote {
        IpAddr::V4(ip) if ip.octets()[0] == 10 => IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    }
}

fn clash(one: SocketAddr, another: SocketAddr) -> bool {
    one.port() == another.port() && (serves(one, another) || serves(another, one))
}

/// Whether who listens there is reached at `asked`. An IPv6 wildcard serves IPv4 too, as the real drivers set it.
fn serves(listening: SocketAddr, asked: SocketAddr) -> bool {
    let is_reached = match listening.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() => true,
        ip if ip.is_unspecified() => asked.is_ipv4(),
        ip => ip == asked.ip(),
    };
    listening.port() == asked.port() && is_reached
}
