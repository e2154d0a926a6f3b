//! Reverse proxies whose word about their clients' addresses counts.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The address of a proxy, or a network of proxies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustedProxy(IpNet);

/// A text that is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as 127.0.0.1, or a network such as 10.0.0.0/8, found {0:?}")]
pub struct TrustedProxyError(String);

impl TrustedProxy {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for TrustedProxy {
    type Err = TrustedProxyError;

    fn from_str(text: &str) -> Result<Self, TrustedProxyError> {
        let one = || text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
        let network: Option<IpNet> = text.parse().or_else(|_| one()).ok();
        // Who trusts everyone believes what a client writes. IPv4 is compared as IPv4.
        let sound = |net: &IpNet| net.prefix_len() > 0 && net.addr().to_canonical() == net.addr();
        network.filter(sound).map(Self).ok_or_else(|| TrustedProxyError(text.to_owned()))
    }
}

impl TryFrom<String> for TrustedProxy {
    type Error = TrustedProxyError;

    fn try_from(text: String) -> Result<Self, TrustedProxyError> {
        text.parse()
    }
}

impl From<TrustedProxy> for String {
    fn from(proxy: TrustedProxy) -> Self {
        proxy.to_string()
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        let proxy = |text: &str| text.parse::<TrustedProxy>().unwrap();
        let contains = |of: &str, address: &str| proxy(of).contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.9.8.7") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("::1", "::1") && contains("fd00::/8", "fd00::7"));
        assert!(contains("127.0.0.1", "::ffff:127.0.0.1"), "as a socket for both has it");
        assert!(contains("::ffff:127.0.0.1", "127.0.0.1"));
        assert_eq!(proxy("192.0.2.1").to_string().parse::<TrustedProxy>(), Ok(proxy("192.0.2.1")));
        for text in [
            "",
            "proxy.example",
            "10.0.0.0/33",
            "10.0.0.1:80",
            "*",
            "10.0.0.*",
            "0.0.0.0/0",
            "::/0",
            "::ffff:10.0.0.0/104",
        ] {
            assert_eq!(text.parse::<TrustedProxy>(), Err(TrustedProxyError(text.into())));
        }
    }
}
