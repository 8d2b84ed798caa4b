//! The load: tasks that each handle one request after another.

use anyhow::Result;
use std::{
    future::Future,
    time::{Duration, Instant},
};

pub const TASKS: usize = 64;
pub const SESSIONS: usize = 3200;

/// One way to handle a request.
pub trait Peer: Clone + Send + 'static {
    /// Handles one request of a session, whose number is below [`SESSIONS`].
    fn request(&self, session: usize) -> impl Future<Output = Result<()>> + Send;
}

/// Requests per second.
pub async fn rate(peer: &impl Peer, time: Duration) -> Result<f64> {
    let start = Instant::now();
    let tasks = (0..TASKS).map(|_| {
        let peer = peer.clone();
        tokio::spawn(async move {
            let mut done = 0_u64;
            while start.elapsed() < time {
                peer.request(rand::random_range(0..SESSIONS)).await?;
                done += 1;
            }
            anyhow::Ok(done)
        })
    });
    let mut done = 0;
    for task in tasks.collect::<Vec<_>>() {
        done += task.await??;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

/// What a session holds besides its counter, so that it has about 256 bytes.
pub const PAD: [u8; 160] = [b'x'; 160];
