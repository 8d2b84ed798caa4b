//! Addresses for servers that a test starts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// An address of loopback that nobody used a moment ago. Its port is below those that the kernel gives to connections, and
/// none comes twice: a server that finds its port taken meanwhile ends, and what waits for it waits in vain.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut candidates = (0..PORTS).map(|_| {
        let number = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT + u16::try_from(number % PORTS).unwrap()))
    });
    candidates.find(|address| TcpListener::bind(address).is_ok()).unwrap()
}

const FIRST_PORT: u16 = 15_000;
const PORTS: u32 = 15_000;
