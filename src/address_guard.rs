//! Which addresses a URL written by a user may reach: public ones, and those that the operator's owner allowed.
//!
//! A Broadcast's author is not the owner of the cluster's network: without this check a channel could post to the cloud's
//! metadata service or to a neighbour's loopback port. Names are checked where they are resolved, so that the answer of
//! a name server cannot change between the check and the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A URL points to an address that users may not reach.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{host} is a loopback, link-local, private or reserved address: if users may reach it, the operator must be started with \
     --allow-address {suggestion}"
)]
pub struct AddressNotAllowed {
    host: String,
    suggestion: String,
}

/// The rule, shared by all gateways.
#[derive(Debug, Default)]
pub struct AddressPolicy {
    allowed: Vec<IpNet>,
}

impl AddressPolicy {
    /// Public addresses, and those in `allowed`.
    #[must_use]
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether users may reach this address.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = embedded(address);
        self.allowed.iter().any(|range| range.contains(&address)) || is_public(address)
    }

    /// Checks a URL whose host is an address. A name is checked when it is resolved.
    ///
    /// # Errors
    /// When users may not reach the address.
    pub fn check_url(&self, url: &Url) -> Result<(), AddressNotAllowed> {
        // The URL parser has already turned octal, hexadecimal and decimal forms into plain addresses.
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) if !self.allows(address) => Err(not_allowed(host, address)),
            _ => Ok(()),
        }
    }

    /// A resolver that leaves out addresses that users may not reach.
    #[must_use]
    pub fn resolver(self: &Arc<Self>) -> Arc<GuardedResolver> {
        self.resolver_over(SystemNames)
    }

    /// The same over another source of addresses.
    pub(crate) fn resolver_over(self: &Arc<Self>, names: impl Resolve + 'static) -> Arc<GuardedResolver> {
        Arc::new(GuardedResolver { policy: self.clone(), names: Box::new(names) })
    }
}

/// Resolves names, and leaves out addresses that users may not reach.
pub struct GuardedResolver {
    policy: Arc<AddressPolicy>,
    names: Box<dyn Resolve>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.policy.clone();
        let host = name.as_str().to_owned();
        let found = self.names.resolve(name);
        Box::pin(async move {
            let found: Vec<SocketAddr> = found.await?.collect();
            let first = found.first().copied();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|found| policy.allows(found.ip())).collect();
            match (allowed.is_empty(), first) {
                (true, Some(first)) => Err(not_allowed(&host, first.ip()).into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// The names that the system knows.
struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn not_allowed(host: &str, address: IpAddr) -> AddressNotAllowed {
    // Ranges are held against the address inside.
    AddressNotAllowed { host: host.to_owned(), suggestion: IpNet::from(embedded(address)).to_string() }
}

/// The IPv4 address inside an IPv6 one (mapped, compatible, NAT64, 6to4), or the address itself.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let segments = v6.segments();
    let tail = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => tail(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) != (0, 0) && (high, low) != (0, 1) => tail(high, low),
        _ => address,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// Where Azure's platform answers every virtual machine, also about its settings and secrets, though the address is a public one.
const AZURE_PLATFORM: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// Everything but the special-purpose blocks of RFC 6890 and its successors, and the address of one cloud's platform.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol = a == 192 && b == 0 && c == 0;
    let relay = a == 192 && b == 88 && c == 99;
    let benchmark = a == 198 && (18..20).contains(&b);
    !(a == 0
        || a >= 240
        || address == AZURE_PLATFORM
        || shared
        || protocol
        || relay
        || benchmark
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast())
}

/// Only global unicast, without documentation, discard and tunnel blocks.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let global = first & 0xe000 == 0x2000;
    let special = first == 0x2001 && (second < 0x0200 || second == 0x0db8);
    let documentation = first == 0x3fff && second < 0x1000;
    global && !special && !documentation
}

/// Answers of a name server, one after the other.
#[cfg(test)]
pub(crate) struct Answers(std::sync::Mutex<std::collections::VecDeque<Vec<SocketAddr>>>);

#[cfg(test)]
impl Answers {
    /// Each answer is some addresses.
    pub(crate) fn new(answers: &[&[&str]]) -> Self {
        let address = |text: &&str| SocketAddr::new(text.parse().expect("address"), 0);
        Self(std::sync::Mutex::new(
            answers.iter().map(|answer| answer.iter().map(address).collect()).collect(),
        ))
    }
}

#[cfg(test)]
impl Resolve for Answers {
    fn resolve(&self, _: Name) -> Resolving {
        let answer = self.0.lock().expect("should be whole").pop_front().expect("should have an answer left");
        Box::pin(async move { Ok(Box::new(answer.into_iter()) as Addrs) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_refused_and_public_ones_are_not() {
        let policy = AddressPolicy::default();
        let refused = [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "169.254.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "198.18.0.1",
            "198.19.255.255",
            "192.88.99.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "100::1",
            "3fff::1",
        ];
        for address in refused {
            assert!(!policy.allows(address.parse().expect("address")), "{address}");
        }
        let public = [
            "1.1.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "2606:4700::1111",
            "2a00::1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ];
        for address in public {
            assert!(policy.allows(address.parse().expect("address")), "{address}");
        }
    }

    #[test]
    fn an_allowed_range_opens_just_that_range() {
        let policy = AddressPolicy::new(vec!["127.0.0.0/8".parse().expect("range")]);
        assert!(policy.allows("127.0.0.1".parse().expect("address")));
        assert!(policy.allows("::ffff:127.0.0.1".parse().expect("address")));
        assert!(!policy.allows("10.0.0.1".parse().expect("address")));
    }

    #[test]
    fn disguised_hosts_are_seen_through() {
        let policy = AddressPolicy::default();
        for host in ["2130706433", "0x7f.1", "017700000001", "127.1", "[::1]", "[::ffff:7f00:1]"] {
            let url: Url = format!("http://{host}/x").parse().expect("url");
            let error = policy.check_url(&url).expect_err(host).to_string();
            assert!(error.contains("--allow-address"), "{error}");
            // What it says to do lets it through.
            let range = error.rsplit(' ').next().and_then(|range| range.parse().ok());
            let opened = AddressPolicy::new(vec![range.expect("a range at the end")]);
            assert_eq!(opened.check_url(&url).ok(), Some(()), "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_loopback_is_refused() {
        let resolver = Arc::new(AddressPolicy::default()).resolver();
        let found = resolver.resolve("localhost".parse().expect("name")).await;
        assert!(found.is_err_and(|error| error.to_string().contains("localhost")));
    }

    #[tokio::test]
    async fn each_answer_of_a_name_server_is_looked_at_and_each_address_in_it() {
        let answers = [&["1.1.1.1"][..], &["127.0.0.1"], &["10.0.0.1", "1.1.1.1", "::1"], &["::ffff:7f00:1"]];
        let resolver = Arc::new(AddressPolicy::default()).resolver_over(Answers::new(&answers));
        let mut found = Vec::new();
        for _ in answers {
            let answer = resolver.resolve("gateway.example".parse().expect("name")).await;
            found
                .push(answer.map(|found| found.map(|found| found.ip().to_string()).collect::<Vec<_>>()).ok());
        }
        let public = Some(vec!["1.1.1.1".to_owned()]);
        assert_eq!(found, [public.clone(), None, public, None]);
    }
}
