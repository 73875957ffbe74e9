//! Ports and addresses as people write them: numbers, or the names that
//! `/etc/services` and `/etc/hosts` give.

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};

/// The port of service `name` for `protocol` in the text of `/etc/services`
/// (`services(5)`: name, port/protocol, aliases, comment).
fn service(services: &str, name: &str, protocol: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or("");
        let mut words = line.split_whitespace();
        let (first, target) = (words.next()?, words.next()?);
        let (port, proto) = target.split_once('/')?;
        let named = first == name || words.any(|alias| alias == name);
        (named && proto == protocol).then(|| port.parse().ok())?
    })
}

/// A port by number or service name, for `protocol` (`tcp` or `udp`).
fn port(text: &str, protocol: &str) -> Result<u16, String> {
    match text.parse::<u32>() {
        Ok(n @ 1..=65535) => return Ok(n as u16),
        Ok(n) => return Err(format!("{n} is no port; ports are 1 to 65535")),
        Err(_) => {}
    }
    let services = fs::read_to_string("/etc/services").map_err(|e| {
        format!("\"{text}\" needs /etc/services to be looked up ({e}); give a number, or install the package netbase")
    })?;
    service(&services, text, protocol).ok_or_else(|| {
        format!(
            "\"{text}\" is neither a port (1 to 65535) nor a {protocol} service in /etc/services"
        )
    })
}

/// A TCP port, by number or name.
pub fn tcp_port(text: &str) -> Result<u16, String> {
    port(text, "tcp")
}

/// A UDP port, by number or name.
pub fn udp_port(text: &str) -> Result<u16, String> {
    port(text, "udp")
}

/// `HOST:PORT`, the host an address or a name, the port a number or a service
/// of `protocol`; IPv6 addresses in brackets.
pub fn socket_address(text: &str, protocol: &str) -> Result<SocketAddr, String> {
    let (host, service) = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty() && (host.starts_with('[') == host.ends_with(']')))
        .ok_or_else(|| {
            format!("\"{text}\" is not ADDR:PORT, such as 10.0.0.1:7 or [fd00::1]:http")
        })?;
    let port = port(service, protocol)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut found =
        (host, port).to_socket_addrs().map_err(|e| format!("cannot find \"{host}\": {e}"))?;
    found.next().ok_or_else(|| format!("\"{host}\" has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &str = "# comment\n\necho\t\t7/tcp\necho\t\t7/udp\nhttp\t\t80/tcp\t\twww\t# WorldWideWeb\ndomain 53/udp\nbroken\nodd x/tcp\n";

    #[test]
    fn services_by_name_alias_and_protocol() {
        assert_eq!(service(SERVICES, "echo", "tcp"), Some(7));
        assert_eq!(service(SERVICES, "www", "tcp"), Some(80));
        assert_eq!(service(SERVICES, "domain", "udp"), Some(53));
        assert_eq!(service(SERVICES, "domain", "tcp"), None);
        assert_eq!(service(SERVICES, "WorldWideWeb", "tcp"), None, "comments are no aliases");
        assert_eq!(service(SERVICES, "odd", "tcp"), None);
        assert_eq!(service(SERVICES, "broken", "tcp"), None);
    }

    #[test]
    fn ports_by_number() {
        assert_eq!(tcp_port("7"), Ok(7));
        assert_eq!(udp_port("65535"), Ok(65535));
        assert!(tcp_port("0").unwrap_err().contains("1 to 65535"));
        assert!(tcp_port("65536").unwrap_err().contains("1 to 65535"));
        assert!(tcp_port("no-such-service").is_err());
    }

    #[test]
    fn addresses_of_both_versions() {
        assert_eq!(socket_address("10.0.0.1:7", "tcp"), Ok("10.0.0.1:7".parse().unwrap()));
        assert_eq!(socket_address("[fd00::1]:80", "tcp"), Ok("[fd00::1]:80".parse().unwrap()));
        assert!(socket_address("10.0.0.1", "tcp").unwrap_err().contains("ADDR:PORT"));
        assert!(socket_address(":7", "tcp").is_err());
        assert!(socket_address("[::1:7", "tcp").is_err());
    }
}
