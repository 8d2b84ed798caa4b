//! A minimal pingora proxy: `pingora-peer LISTEN BACKEND...`, round robin, one thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

struct Turns {
    backends: Arc<Vec<SocketAddr>>,
    next: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for Turns {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.backends.len();
        Ok(Box::new(HttpPeer::new(self.backends[turn], false, String::new())))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().expect("where to listen?");
    let backends: Vec<SocketAddr> = arguments.map(|addr| addr.parse().expect("an address")).collect();
    let conf = ServerConf { threads: 1, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let turns = Turns { backends: Arc::new(backends), next: AtomicUsize::new(0) };
    let mut service = http_proxy_service(&server.configuration, turns);
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever();
}
