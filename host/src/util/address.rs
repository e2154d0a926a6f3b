//! Which addresses a name may stand for that somebody else has chosen.

use std::net::IpAddr;

/// The address that is meant: an IPv4 one may come as IPv6, mapped (RFC 4291) or through a NAT64
/// (RFC 6052).
fn meant(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => match six.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                std::net::Ipv4Addr::new(a, b, c, d).into()
            }
            _ => six.into(),
        },
        four => four,
    }
}

/// Whether an address is one of a host: not link-local, where clouds keep their secrets, and not of
/// no one host.
pub(crate) fn is_ordinary(address: IpAddr) -> bool {
    match meant(address) {
        IpAddr::V4(address) => {
            !(address.is_unspecified()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_broadcast())
        }
        IpAddr::V6(address) => {
            !(address.is_unspecified() || address.is_unicast_link_local() || address.is_multicast())
        }
    }
}

/// Whether an address is this machine's, or of a network that others do not reach: RFC 1918 (10/8,
/// 172.16/12, 192.168/16), RFC 6598 (100.64/10, behind a provider), RFC 4193 (fc00::/7), and "this
/// network", 0/8, which Linux takes for this machine.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match meant(address) {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_loopback()
                || address.is_private()
                || first == 0
                || (first == 100 && (64..128).contains(&second))
        }
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_stand_for_places_where_no_host_is() {
        for address in ["169.254.169.254", "0.0.0.0", "255.255.255.255", "224.0.0.1", "fe80::1"] {
            assert!(!is_ordinary(address.parse().unwrap()), "{address}");
        }
        assert!(!is_ordinary("::ffff:169.254.169.254".parse().unwrap()));
        assert!(!is_ordinary("64:ff9b::a9fe:a9fe".parse().unwrap()));
        for address in ["127.0.0.1", "10.0.0.1", "192.0.2.1", "fd00::1", "2001:db8::1"] {
            assert!(is_ordinary(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn private_addresses_are_those_that_others_do_not_reach() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "64:ff9b::a00:1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "0.1.2.3",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_private(address.parse().unwrap()), "{address}");
        }
        for address in ["8.8.8.8", "172.32.0.1", "100.63.0.1", "100.128.0.1", "2001:4860::8888"] {
            assert!(!is_private(address.parse().unwrap()), "{address}");
        }
    }
}
