//! Doing what a plan says.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::info;

use super::gather::Present;
use super::normal::merged;
use super::plan::{Action, ObjectKind, Plan, Step};
use crate::client::Client;
use crate::error::{Error, ModifyError, Result};
use crate::hold;
use crate::model::{ConfigSpec, SecretSpec, ServiceSpec};
use crate::outcome::{Diagnosis, Outcome};

impl Plan {
    /// Creates and updates, in order: networks, secrets, configs, new services, which are all created and then waited for, and at
    /// last changed services by name, each waited for before the next. Nothing is removed: see [`prune`](Self::prune). Repeating
    /// it goes on where it stopped.
    ///
    /// `deadline` is for each service.
    ///
    /// # Errors
    /// [`Error::Step`] if a service does not come up: those before it stand, those to be changed after it are as they were;
    /// [`Error::is_held`] if a drain or rebalance moves a service's tasks.
    pub async fn apply(&self, client: &Client, deadline: Duration) -> Result<()> {
        self.apply_telling(client, deadline, |_| {}).await
    }

    /// As [`apply`](Self::apply), and tells how it goes on: for progress that a person watches.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn apply_telling(
        &self,
        client: &Client,
        deadline: Duration,
        mut tell: impl FnMut(Applied<'_>),
    ) -> Result<()> {
        let todo = |kind: ObjectKind| {
            let steps = self.steps().iter().filter(move |step| step.kind == kind);
            steps.filter(|step| matches!(step.action, Action::Create | Action::Update(_)))
        };
        for step in todo(ObjectKind::Network) {
            if let Some(spec) = self.wanted.networks.get(&step.name) {
                there(client.networks().create(spec).await)?;
                tell(Applied::Done(step));
            }
        }
        for step in todo(ObjectKind::Secret) {
            if let Some(content) = self.wanted.secrets.get(&step.name) {
                let mut spec = SecretSpec::new(&step.name, &content.bytes);
                spec.labels.clone_from(&content.labels);
                there(client.secrets().create(&spec).await)?;
                tell(Applied::Done(step));
            }
        }
        for step in todo(ObjectKind::Config) {
            if let Some(content) = self.wanted.configs.get(&step.name) {
                let mut spec = ConfigSpec::new(&step.name, &content.bytes);
                spec.labels.clone_from(&content.labels);
                there(client.configs().create(&spec).await)?;
                tell(Applied::Done(step));
            }
        }
        if todo(ObjectKind::Service).next().is_none() {
            return Ok(());
        }
        // The ids of what was created just now.
        let present = Present::read(client, &self.wanted.stack).await?;
        let (new, changed): (Vec<&Step>, Vec<&Step>) =
            todo(ObjectKind::Service).partition(|step| step.action == Action::Create);
        for step in &new {
            self.write(client, &step.name, &present).await?;
            tell(Applied::Written(step));
        }
        for step in new {
            self.rolled_out(client, step, deadline, &mut tell).await?;
        }
        for step in changed {
            self.write(client, &step.name, &present).await?;
            tell(Applied::Written(step));
            self.rolled_out(client, step, deadline, &mut tell).await?;
        }
        Ok(())
    }

    /// Removes what belongs to the stack and is not wanted: services, then, when their tasks are gone, secrets, configs and networks.
    /// A network that is removed while tasks stop leaks addresses of the swarm (moby#37338), hence the wait.
    ///
    /// # Errors
    /// [`Error::Deadline`] if tasks do not stop in time; [`Error::is_in_use`] if something outside of the stack still uses an
    /// object.
    pub async fn prune(&self, client: &Client, deadline: Duration) -> Result<()> {
        let start = Instant::now();
        let left = || deadline.saturating_sub(start.elapsed());
        let todo = |kind: ObjectKind| {
            self.steps().iter().filter(move |step| step.kind == kind && step.action == Action::Remove)
        };
        let mut removed = Vec::new();
        for step in todo(ObjectKind::Service) {
            match client.services().get_opt(&step.name).await? {
                Some(service) => {
                    gone(client.services().remove(service.id.as_str()).await)?;
                    removed.push(service.id);
                }
                None => continue,
            }
        }
        while !removed.is_empty() {
            let tasks = client.tasks().list().await?;
            let running = tasks.iter().filter(|task| {
                removed.contains(&task.service_id)
                    && task.status.state.rank().is_some_and(|rank| rank < ENDED)
            });
            let running = running.count();
            if running == 0 {
                break;
            }
            if left().is_zero() {
                let what = format!("prune stack {:?}", self.wanted.stack);
                let last = format!("{running} tasks of removed services still run");
                return Err(Error::Deadline { what, after: deadline, last });
            }
            sleep(POLL_EVERY).await;
        }
        for step in todo(ObjectKind::Secret) {
            gone(client.secrets().remove(&step.name).await)?;
        }
        for step in todo(ObjectKind::Config) {
            gone(client.configs().remove(&step.name).await)?;
        }
        for step in todo(ObjectKind::Network) {
            // The managers free it a moment after its last task.
            loop {
                match client.networks().remove(&step.name).await {
                    Err(error) if error.is_in_use() && !left().is_zero() => sleep(POLL_EVERY).await,
                    result => break gone(result)?,
                }
            }
        }
        Ok(())
    }

    async fn rolled_out(
        &self,
        client: &Client,
        step: &Step,
        deadline: Duration,
        tell: &mut impl FnMut(Applied<'_>),
    ) -> Result<()> {
        let rollout = client.services().rollout(&step.name);
        let outcome = rollout.wait_telling(deadline, |lacks| tell(Applied::Waiting(step, lacks))).await?;
        if !outcome.is_success() {
            let what = format!("apply stack {:?}: service {:?}", self.wanted.stack, step.name);
            return Err(Error::Step { what, outcome: Box::new(outcome) });
        }
        info!(service = step.name, %outcome, "applied");
        tell(Applied::RolledOut(step, &outcome));
        Ok(())
    }

    async fn write(&self, client: &Client, name: &str, present: &Present) -> Result<()> {
        let Some(spec) = self.wanted.services.get(name) else { return Ok(()) };
        let spec = &self.with_ids(spec, present)?;
        let services = client.services();
        if services.get_opt(&spec.name).await?.is_none() {
            return services.create(spec).await.map(|_| ());
        }
        let now = hold::now();
        let writing = services.try_modify(&spec.name, |service, next| match service.hold(now) {
            Some(held) => Err(held.error(service.name())),
            None => {
                *next = merged(spec, next, &self.keep_labels);
                Ok(())
            }
        });
        match writing.await {
            Ok(_) => Ok(()),
            Err(ModifyError::Refused(error) | ModifyError::Swarm(error)) => Err(error),
        }
    }

    fn with_ids(&self, spec: &ServiceSpec, present: &Present) -> Result<ServiceSpec> {
        let missing = |kind, name: &str| Error::NotFound { kind, name: name.to_owned() };
        let mut spec = spec.clone();
        for attachment in &mut spec.task_template.networks {
            if let Some(network) = present.all_networks.get(&attachment.target) {
                attachment.target = network.id.to_string();
            }
        }
        if let Some(container) = spec.task_template.container_spec.as_mut() {
            for secret in &mut container.secrets {
                let id =
                    present.all_secrets.get(&secret.name).ok_or_else(|| missing("secret", &secret.name))?;
                secret.id = id.as_str().into();
            }
            for config in &mut container.configs {
                let id =
                    present.all_configs.get(&config.name).ok_or_else(|| missing("config", &config.name))?;
                config.id = id.as_str().into();
            }
        }
        Ok(spec)
    }
}

/// What has come of a step of a plan.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Applied<'a> {
    /// A network, secret or config is there.
    Done(&'a Step),
    /// A service is created or updated; its tasks start.
    Written(&'a Step),
    /// A service's tasks start, and this is what is missing still; told whenever it has changed.
    Waiting(&'a Step, &'a Diagnosis),
    /// A service's tasks run.
    RolledOut(&'a Step, &'a Outcome),
}

/// What somebody else made meanwhile is there too.
fn there<T>(result: Result<T>) -> Result<()> {
    match result {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

fn gone(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    }
}

/// The place of the first state after `running` among the states.
const ENDED: u8 = 10;
const POLL_EVERY: Duration = Duration::from_millis(250);
