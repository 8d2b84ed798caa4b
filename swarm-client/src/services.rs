//! The services of the swarm.

use std::convert::Infallible;

use futures_util::future::try_join;
use serde::Deserialize;

use crate::client::Client;
use crate::error::{Error, ModifyError, Result};
use crate::hold;
use crate::model::{Service, ServiceId, ServiceSpec, Task};
use crate::modify::{self, How, Modified};
use crate::reach::{self, TaskEndpoint};
use crate::request::Request;
use crate::rollout::Rollout;

/// The services of the swarm. A `name` is an exact name or a full id, never a part of one.
#[derive(Debug, Clone)]
pub struct Services {
    pub(crate) client: Client,
}

impl Services {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a service. Wait for its tasks with [`rollout`](Self::rollout).
    ///
    /// # Errors
    /// [`Error::is_already_exists`] if the name is taken.
    pub async fn create(&self, spec: &ServiceSpec) -> Result<ServiceId> {
        self.created(Self::create_request(spec)?).await
    }

    pub(crate) async fn created(&self, request: Request) -> Result<ServiceId> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(rename = "ID")]
            id: ServiceId,
        }
        Ok(self.client.call::<Created>(request).await?.id)
    }

    /// Reads a service.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if it does not exist; see [`get_opt`](Self::get_opt) for when that is no error.
    pub async fn get(&self, name: impl AsRef<str>) -> Result<Service> {
        modify::get(&self.client, name.as_ref()).await
    }

    /// Reads a service, or `None` if it does not exist.
    ///
    /// # Errors
    /// If it cannot be told whether it exists.
    pub async fn get_opt(&self, name: impl AsRef<str>) -> Result<Option<Service>> {
        modify::get_opt(&self.client, name.as_ref()).await
    }

    /// All services, with counts of their tasks.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn list(&self) -> Result<Vec<Service>> {
        self.client.call(Request::get("list services", &["services"]).query("status", "true")).await
    }

    /// The services with this label: `"key"` for any value of it, `"key=value"` for this one.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn list_labelled(&self, label: impl AsRef<str>) -> Result<Vec<Service>> {
        let label = label.as_ref();
        let request =
            Request::get("list services", &["services"]).query("status", "true").filters(&[("label", label)]);
        let mut services: Vec<Service> = self.client.call(request).await?;
        services.retain(|service| match label.split_once('=') {
            Some((key, value)) => service.label(key) == Some(value),
            None => service.label(label).is_some(),
        });
        Ok(services)
    }

    /// Changes a service's spec. The closure runs on a fresh read, again after each conflict with another writer; a closure
    /// that changes nothing writes nothing. Each update, even of a label, makes Swarm forget the spec before the last one and
    /// how the last rollout ended.
    ///
    /// # Errors
    /// [`Error::is_not_found`]; [`Error::is_conflict`] when others kept writing until the retries were spent;
    /// [`Error::is_outcome_unknown`] when the write was sent and no answer came.
    pub async fn modify(
        &self,
        name: impl AsRef<str>,
        mut change: impl FnMut(&mut ServiceSpec),
    ) -> Result<Modified<ServiceSpec>> {
        let result =
            modify::modify(&self.client, name.as_ref(), How::repeatable(false), |_: &Service, spec| {
                change(spec);
                Ok::<(), Infallible>(())
            });
        modify::never_refused(result.await)
    }

    /// Like [`modify`](Self::modify), but the closure sees the whole service as it was read and may refuse. What it accepts
    /// is written only if nobody wrote since that read, so a check in it holds for the write: a leader's term kept in a label
    /// can be compared here. Who writes replicas asks [`Service::hold`](crate::Service::hold) too.
    ///
    /// ```no_run
    /// # async fn run(swarm: swarm_client::Client, term: u64, now: std::time::Duration) -> Result<(), Box<dyn std::error::Error>> {
    /// swarm
    ///     .services()
    ///     .try_modify("web", |service, spec| {
    ///         let held = service.label("term").and_then(|text| text.parse().ok()).unwrap_or(0);
    ///         if held > term {
    ///             return Err(format!("term {held} has begun, and mine is {term}"));
    ///         }
    ///         if let Some(hold) = service.hold(now) {
    ///             return Err(format!("{} counts the tasks", hold.by));
    ///         }
    ///         spec.labels.insert("term".into(), term.to_string());
    ///         if spec.set_replicas(4) { Ok(()) } else { Err("not replicated".into()) }
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The closure's refusal, or as for [`modify`](Self::modify).
    pub async fn try_modify<E>(
        &self,
        name: impl AsRef<str>,
        change: impl FnMut(&Service, &mut ServiceSpec) -> Result<(), E>,
    ) -> Result<Modified<ServiceSpec>, ModifyError<E>> {
        modify::modify(&self.client, name.as_ref(), How::repeatable(false), change).await
    }

    /// Sets a service's replicas and nothing else (but see [`rollback`](Self::rollback) for what it may write down).
    ///
    /// # Errors
    /// [`Error::is_held`] while a drain or rebalance counts the replicas; [`Error::Invalid`] unless the service is replicated; else as for [`modify`](Self::modify).
    pub async fn scale(&self, name: impl AsRef<str>, replicas: u64) -> Result<Modified<ServiceSpec>> {
        let name = name.as_ref();
        let how = How::repeatable(true);
        let result = modify::modify(&self.client, name, how, |service: &Service, spec: &mut ServiceSpec| {
            if let Some(hold) = service.hold(hold::now()) {
                return Err(hold.error(name));
            }
            if spec.set_replicas(replicas) {
                Ok(())
            } else {
                Err(Error::Invalid {
                    what: format!("scale service {name:?} to {replicas}"),
                    problem:
                        "it is not replicated, so it has no number of replicas; change its placement instead"
                            .to_owned(),
                })
            }
        });
        result.await.map_err(|error| match error {
            ModifyError::Refused(error) | ModifyError::Swarm(error) => error,
        })
    }

    /// Removes a service. Its tasks stop within their grace period after this returns.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if it does not exist.
    pub async fn remove(&self, name: impl AsRef<str>) -> Result<()> {
        let name = name.as_ref();
        // By id: the engine would take a part of another service's id for a name that is gone.
        let service = self.get(name).await?;
        self.client
            .call_unit(Request::delete(
                format!("remove service {name:?}"),
                &["services", service.id.as_str()],
            ))
            .await
    }

    /// A service's tasks, those of the past that the swarm still remembers included.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if the service does not exist.
    pub async fn tasks(&self, name: impl AsRef<str>) -> Result<Vec<Task>> {
        let service = self.get(name).await?;
        self.client.tasks().of_service(&service.id, false).await
    }

    /// Where a service's tasks can be reached now: each TCP port published in host mode, by each task that runs, is meant to,
    /// and is on a node that is not down. Sorted by slot. Empty if there is none.
    ///
    /// A node that died counts until the managers give it up, after three heartbeat periods. Nodes whose address the managers
    /// do not know are left out.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if the service does not exist.
    pub async fn endpoints(&self, name: impl AsRef<str>) -> Result<Vec<TaskEndpoint>> {
        let (tasks, nodes) = try_join(self.tasks(name), self.client.nodes().list()).await?;
        Ok(reach::endpoints(&tasks, &nodes))
    }

    /// The rollout of a service's present spec, to be waited for: after a create, an update or a scale.
    pub fn rollout(&self, name: impl AsRef<str>) -> Rollout {
        Rollout::new(self.client.clone(), name.as_ref().to_owned())
    }
}
