//! What one does to a service besides creating and scaling it: its image, its past, its logs, its addresses.

use futures_util::future::{try_join, try_join3};

use crate::error::{Error, ModifyError, Result};
use crate::images::PinnedImage;
use crate::logs::{self, LogOptions, Logs};
use crate::model::{NetworkId, Service, ServiceId, ServiceSpec};
use crate::modify::{self, How, Modified};
use crate::placement_guard;
use crate::reach_network::{
    IngressEndpoint, TaskAddress, VirtualAddress, ingress_endpoints, task_addresses, virtual_addresses,
};
use crate::registry::RegistryAuth;
use crate::request::Request;
use crate::rollback::{self, RollbackSource};
use crate::services::Services;

/// What a rollback keeps as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RollbackOptions {
    /// Labels of the service that are no part of what is rolled out, such as a leader's term. Those of this crate are kept
    /// anyway.
    pub keep_labels: Vec<String>,
}

impl RollbackOptions {
    /// Keeps this label of the service as it is now.
    #[must_use]
    pub fn keep_label(mut self, key: impl Into<String>) -> Self {
        self.keep_labels.push(key.into());
        self
    }
}

/// What a rollback wrote.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RolledBack {
    /// The spec as it stands now. Wait for it with [`Services::rollout`].
    pub spec: ServiceSpec,
    /// Where it was found.
    pub source: RollbackSource,
}

impl Services {
    /// Creates a service whose image is pulled with these credentials. Swarm keeps them and hands them to the nodes.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub async fn create_with_auth(&self, spec: &ServiceSpec, auth: &RegistryAuth) -> Result<ServiceId> {
        let request = Self::create_request(spec)?.header(RegistryAuth::HEADER, auth.header());
        self.created(request).await
    }

    /// Sets a service's image, and rolls it out. The name is taken as it is: see [`set_pinned_image`](Self::set_pinned_image).
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub async fn set_image(&self, name: impl AsRef<str>, image: &str) -> Result<Modified<ServiceSpec>> {
        self.change(name.as_ref(), How::repeatable(true), |spec| {
            spec.task_template.container_spec.get_or_insert_default().image = image.to_owned();
        })
        .await
    }

    /// Sets a service's image to what [`Client::pin_image`](crate::Client::pin_image) found, so that all nodes run the same
    /// build; with the credentials for pulling it, if it takes any.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub async fn set_pinned_image(
        &self,
        name: impl AsRef<str>,
        image: &PinnedImage,
        auth: Option<&RegistryAuth>,
    ) -> Result<Modified<ServiceSpec>> {
        let mut how = How::repeatable(true);
        if let Some(auth) = auth {
            how = how.header(RegistryAuth::HEADER, auth.header());
        }
        self.change(name.as_ref(), how, |spec| image.apply(spec)).await
    }

    /// Replaces all tasks although nothing changed, by the rules of the service's update block.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub async fn force_update(&self, name: impl AsRef<str>) -> Result<Modified<ServiceSpec>> {
        self.change(name.as_ref(), How::repeatable(false), |spec| {
            let count = spec.task_template.force_update.unwrap_or(0);
            spec.task_template.force_update = Some(count.wrapping_add(1));
        })
        .await
    }

    /// Goes back to the last spec that was rolled out and differs from the present one in more than replicas, labels and the
    /// count of forced updates. The present replicas stay. Twice is there and back again.
    ///
    /// Swarm remembers one spec and forgets it with each write, a mere scale too. So a change through this client that is no
    /// rollout keeps what it makes Swarm forget in the label [`ROLLBACK_LABEL`](crate::ROLLBACK_LABEL), the only thing that it
    /// writes unasked. If another client wrote meanwhile, what tasks of the past ran is gone back to.
    ///
    /// It is an update like any other, by the rules of the update block: it ends in
    /// [`Outcome::Converged`](crate::Outcome::Converged), and may itself be rolled back.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if the service does not exist or nothing is known to go back to; else as for
    /// [`modify`](Self::modify).
    pub async fn rollback(&self, name: impl AsRef<str>, options: &RollbackOptions) -> Result<RolledBack> {
        let name = name.as_ref();
        let tasks = self.tasks(name).await?;
        let mut source = RollbackSource::PreviousSpec;
        let how = How::repeatable(false);
        let result = modify::modify(&self.client, name, how, |service: &Service, spec: &mut ServiceSpec| {
            let (target, found) = rollback::target(service, &tasks)
                .ok_or_else(|| Error::NotFound { kind: "earlier spec of service", name: name.to_owned() })?;
            source = found;
            *spec = rollback::restore(spec, target, &options.keep_labels);
            Ok::<(), Error>(())
        });
        let done = result.await.map_err(|error| match error {
            ModifyError::Refused(error) | ModifyError::Swarm(error) => error,
        })?;
        Ok(RolledBack { spec: done.spec, source })
    }

    /// The logs of a service's tasks, line by line. The stream ends at their end, unless they are followed, and with the first
    /// error.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if the service does not exist; if its log driver cannot be read.
    pub async fn logs(&self, name: impl AsRef<str>, options: &LogOptions) -> Result<Logs> {
        let service = self.get(name).await?;
        logs::open(&self.client, &service, options).await
    }

    /// The tasks' own addresses on their overlay networks, for what is attached to the same network: of each task that runs, is
    /// meant to, and is on a node that is not down. `network` is a name or id; without one, each but the routing mesh's.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if the service does not exist.
    pub async fn task_addresses(
        &self,
        name: impl AsRef<str>,
        network: Option<&str>,
    ) -> Result<Vec<TaskAddress>> {
        let (tasks, nodes) = try_join(self.tasks(name), self.client.nodes().list()).await?;
        Ok(task_addresses(&tasks, &nodes, network))
    }

    /// The service's virtual addresses, one for each overlay network; none with `dnsrr`. Mind that a virtual address goes on
    /// sending to a task that is being stopped.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if the service does not exist.
    pub async fn virtual_addresses(&self, name: impl AsRef<str>) -> Result<Vec<VirtualAddress>> {
        let (service, networks) = try_join(self.get(name), self.client.networks().list()).await?;
        let ingress: Vec<NetworkId> = networks.into_iter().filter(|n| n.ingress).map(|n| n.id).collect();
        Ok(virtual_addresses(&service, &ingress))
    }

    /// Where the routing mesh listens for the service: each published port on each ready node, if any task of the service lives.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if the service does not exist.
    pub async fn ingress_endpoints(&self, name: impl AsRef<str>) -> Result<Vec<IngressEndpoint>> {
        let name = name.as_ref();
        let (service, tasks, nodes) =
            try_join3(self.get(name), self.tasks(name), self.client.nodes().list()).await?;
        let down = |task: &crate::Task| {
            nodes.iter().any(|node| Some(&node.id) == task.node_id.as_ref() && node.is_down())
        };
        let alive = tasks.iter().any(|task| task.is_running() && !down(task));
        Ok(if alive { ingress_endpoints(&service, &nodes) } else { Vec::new() })
    }

    async fn change(
        &self,
        name: &str,
        how: How,
        mut change: impl FnMut(&mut ServiceSpec),
    ) -> Result<Modified<ServiceSpec>> {
        let result = modify::modify(&self.client, name, how, |_: &Service, spec| {
            change(spec);
            Ok::<(), std::convert::Infallible>(())
        });
        modify::never_refused(result.await)
    }

    pub(crate) fn create_request(spec: &ServiceSpec) -> Result<Request> {
        let mut spec = spec.clone();
        placement_guard::fill(&mut spec);
        Request::post(format!("create service {:?}", spec.name), &["services", "create"]).json(&spec)
    }
}
