//! Free ports for a peer's first start: outside the kernel's ephemeral range, so that no outgoing connection takes them later.

use std::net::{IpAddr, TcpListener};

/// Lowest port that is handed out.
const LOWEST: u16 = 10_240;
/// First ephemeral port when the kernel does not tell.
const EPHEMERAL_DEFAULT: u16 = 32_768;
/// Ports that are tried.
const TRIES: u32 = 200;

/// There was none among many tries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no free port was found on {listen} between {LOWEST} and {highest}; set the ports in config.toml")]
pub struct NoFreePort {
    /// Where one was wanted.
    pub listen: IpAddr,
    /// Highest that was tried.
    pub highest: u16,
}

fn ephemeral_start() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(EPHEMERAL_DEFAULT)
}

/// A port on `listen` that nobody has now and that is not in `taken`.
///
/// # Errors
/// [`NoFreePort`] when many tries found none.
pub fn free_port(listen: IpAddr, taken: &[u16]) -> Result<u16, NoFreePort> {
    let highest = ephemeral_start().saturating_sub(1).max(LOWEST + 1);
    let mut random = [0u8; 2];
    for _ in 0..TRIES {
        if getrandom::fill(&mut random).is_err() {
            break;
        }
        let port = LOWEST + u16::from_be_bytes(random) % (highest - LOWEST);
        if !taken.contains(&port) && TcpListener::bind((listen, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(NoFreePort { listen, highest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_below_the_ephemeral_range() {
        let listen = "127.0.0.1".parse().unwrap();
        let port = free_port(listen, &[]).unwrap();
        assert!(port >= LOWEST && port < ephemeral_start().max(LOWEST + 2));
        assert!(TcpListener::bind((listen, port)).is_ok());
    }
}
