//! A range of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// A range of addresses that begin alike: `203.0.113.0/24`, `2001:db8::/32`, or a single address.
///
/// IPv4 addresses written as IPv6 (`::ffff:203.0.113.9`) are IPv4 here, and what lies behind the length is cut off:
/// `10.1.2.3/8` is `10.0.0.0/8`.
///
/// ```
/// let prefix: madang::Prefix = "203.0.113.77/24".parse()?;
/// assert!(prefix.contains("203.0.113.9".parse().unwrap()));
/// assert_eq!(prefix.to_string(), "203.0.113.0/24");
/// # Ok::<(), madang::RuleError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(IpNet);

impl Prefix {
    /// The addresses that share their first `len` bits with `address`; `None` for a length that the address does not have.
    pub fn new(address: IpAddr, len: u8) -> Option<Prefix> {
        let net = match address {
            // The first 96 bits say that it is IPv4.
            IpAddr::V6(v6) if len >= 96 => match v6.to_ipv4_mapped() {
                Some(v4) => IpNet::V4(Ipv4Net::new(v4, len.checked_sub(96)?).ok()?),
                None => IpNet::V6(Ipv6Net::new(v6, len).ok()?),
            },
            address => IpNet::new(address, len).ok()?,
        };
        Some(Prefix(net.trunc()))
    }

    /// The address that all its addresses begin like.
    pub fn address(self) -> IpAddr {
        self.0.addr()
    }

    /// How many bits its addresses share.
    pub fn bits(self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether it covers every address of its kind.
    pub fn is_everything(self) -> bool {
        self.bits() == 0
    }

    /// Whether an address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    pub(super) fn is_v4(self) -> bool {
        matches!(self.0, IpNet::V4(_))
    }

    /// Its first and last address as numbers.
    pub(super) fn bounds(self) -> (u128, u128) {
        (number(self.0.network()), number(self.0.broadcast()))
    }

    /// The prefix one bit shorter, and the other half of it.
    pub(super) fn parent(self) -> Option<(Prefix, Prefix)> {
        let parent = self.0.supernet()?;
        let mut halves = parent.subnets(self.bits()).ok()?;
        let other = halves.find(|half| *half != self.0)?;
        Some((Prefix(parent), Prefix(other)))
    }
}

/// An address as a number; IPv4 and IPv6 are told apart by whoever asks.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(Ipv4Addr::to_bits(v4)),
        IpAddr::V6(v6) => Ipv6Addr::to_bits(v6),
    }
}

/// A single address.
impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Prefix {
        Prefix(IpNet::from(address.to_canonical()))
    }
}

impl FromStr for Prefix {
    type Err = super::rules::RuleError;

    fn from_str(text: &str) -> Result<Prefix, Self::Err> {
        let parsed = match text.split_once('/') {
            None => text.parse::<IpAddr>().ok().map(Prefix::from),
            Some((address, len)) => match (address.parse(), len.parse()) {
                (Ok(address), Ok(len)) => Prefix::new(address, len),
                _ => None,
            },
        };
        parsed.ok_or_else(|| super::rules::RuleError::NoPrefix(text.to_owned()))
    }
}

impl TryFrom<String> for Prefix {
    type Error = super::rules::RuleError;

    fn try_from(text: String) -> Result<Prefix, Self::Error> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

/// As it is parsed; a single address without a length.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits() == self.0.max_prefix_len() {
            write!(f, "{}", self.address())
        } else {
            write!(f, "{}", self.0)
        }
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_as_people_write_them() {
        let check = |text: &str, expected: &str| {
            let prefix: Prefix = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(prefix.to_string(), expected);
            assert_eq!(expected.parse(), Ok(prefix), "what is shown can be read again");
        };
        check("203.0.113.9", "203.0.113.9");
        check("203.0.113.9/32", "203.0.113.9");
        check("203.0.113.9/24", "203.0.113.0/24");
        check("0.0.0.0/0", "0.0.0.0/0");
        check("2001:db8::1", "2001:db8::1");
        check("2001:db8:1:2:3::/48", "2001:db8:1::/48");
        check("::ffff:203.0.113.9", "203.0.113.9");
        check("::ffff:203.0.113.9/120", "203.0.113.0/24");
        check("::/0", "::/0");
        for wrong in
            ["", "203.0.113", "203.0.113.9/33", "2001:db8::/129", "203.0.113.9/-1", "host", "1.2.3.4/"]
        {
            assert!(wrong.parse::<Prefix>().is_err(), "`{wrong}` is no prefix");
        }
    }

    #[test]
    fn the_two_halves_of_a_prefix_know_each_other() {
        let half: Prefix = "203.0.113.128/25".parse().unwrap();
        let (parent, other) = half.parent().unwrap();
        assert_eq!(
            (parent.to_string().as_str(), other.to_string().as_str()),
            ("203.0.113.0/24", "203.0.113.0/25")
        );
        assert_eq!("::/0".parse::<Prefix>().unwrap().parent(), None);
    }
}
