//! What the local stack stands on.

use std::time::Duration;

use super::{Running, StackSpec};
use crate::platform::Backend;
use crate::platform::sessions::seen;

/// The session store and the scaler of a running stack.
pub(super) async fn of(running: &Running, spec: &StackSpec) -> Vec<Backend> {
    vec![sessions(running).await, scaler(running, spec).await]
}

async fn sessions(running: &Running) -> Backend {
    let name = "sessions".to_owned();
    let asked = seen(&running.sessions, "SQLite, shared by the replicas");
    match tokio::time::timeout(DEADLINE, asked).await {
        Ok(Ok(detail)) => Backend { name, ok: true, detail },
        Ok(Err(error)) => Backend { name, ok: false, detail: error.to_string() },
        Err(_) => {
            Backend { name, ok: false, detail: format!("SQLite did not answer in {} s", DEADLINE.as_secs()) }
        }
    }
}

async fn scaler(running: &Running, spec: &StackSpec) -> Backend {
    // The controller is the second task; it ends only when it is told to.
    let ok = running.tasks.lock().await.iter().all(|task| !task.is_finished());
    let detail = if ok {
        format!("{} to {} replicas, {} in flight each", spec.min, spec.max, spec.target_in_flight)
    } else {
        "a part of the stack in this process has ended".into()
    };
    Backend { name: "scaler".into(), ok, detail }
}

const DEADLINE: Duration = Duration::from_secs(1);
