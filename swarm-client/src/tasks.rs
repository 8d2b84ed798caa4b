//! The tasks of the swarm.

use crate::client::Client;
use crate::error::{Error, Result};
use crate::model::{NodeId, ServiceId, Task, task_read};
use crate::request::{Request, without_values};

/// The tasks of the swarm, those of the past that it still remembers included.
#[derive(Debug, Clone)]
pub struct Tasks {
    client: Client,
}

impl Tasks {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// All tasks.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn list(&self) -> Result<Vec<Task>> {
        self.read(Request::get("list tasks", &["tasks"])).await
    }

    /// The tasks of the service with this exact name or full id.
    ///
    /// # Errors
    /// [`Error::is_not_found`](crate::Error::is_not_found) if the service does not exist.
    pub async fn list_for_service(&self, name: impl AsRef<str>) -> Result<Vec<Task>> {
        self.client.services().tasks(name).await
    }

    /// The tasks that were given to the node with this id.
    ///
    /// # Errors
    /// [`Error::is_not_found`](crate::Error::is_not_found) if the node does not exist.
    pub async fn list_for_node(&self, id: &NodeId) -> Result<Vec<Task>> {
        let request = Request::get(format!("list the tasks of node {id}"), &["tasks"])
            .filters(&[("node", id.as_str())]);
        let mut tasks = self.read(request).await?;
        tasks.retain(|task| task.node_id.as_ref() == Some(id));
        Ok(tasks)
    }

    async fn read(&self, request: Request) -> Result<Vec<Task>> {
        let what = request.what.clone();
        let (bytes, endpoint) = self.client.call_bytes(request).await?;
        task_read::tasks(&bytes).map_err(|error| Error::Decode {
            what,
            endpoint,
            problem: without_values(&error.to_string()),
        })
    }

    /// A service's tasks; those of its present spec only if `up_to_date`. That filter is not in the engine's description, but
    /// its own command line relies on it, and nothing in a task tells which spec it was made from.
    pub(crate) async fn of_service(&self, id: &ServiceId, up_to_date: bool) -> Result<Vec<Task>> {
        let mut filters = vec![("service", id.as_str())];
        if up_to_date {
            filters.push(("_up-to-date", "true"));
        }
        let request = Request::get(format!("list the tasks of service {id}"), &["tasks"]).filters(&filters);
        let mut tasks = self.read(request).await?;
        tasks.retain(|task| task.service_id == *id);
        Ok(tasks)
    }
}
