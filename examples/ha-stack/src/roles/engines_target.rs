//! The scaler's target on plain engines: the replicas in a service's record in Consul, written together with the writer's term.

use async_trait::async_trait;
use autoscaler::Decision;
use autoscaler::controller::{ScaleError, ScaleTarget, TargetStatus, Term, Written, now};

use super::fence::{self, Found, Refusal};
use super::leader::Leading;
use crate::platform::engines::record::{Records, ServiceRecord};

/// The replicas of one service.
pub struct EnginesTarget {
    consul: consul_client::Client,
    records: Records,
    service: String,
    leading: Leading,
}

impl EnginesTarget {
    /// The replicas of this service, written while this one leads.
    pub fn new(consul: consul_client::Client, service: &str, leading: Leading) -> Self {
        Self { records: Records::new(consul.clone()), consul, service: service.to_owned(), leading }
    }

    async fn record(&self, tried: &str) -> Result<(ServiceRecord, u64), ScaleError> {
        match self.records.read(&self.service).await {
            Ok((Some(record), index)) => Ok((record, index)),
            Ok((None, _)) => Err(ScaleError::NotFound { service: self.service.clone() }),
            Err(error) => Err(self.unavailable(tried, error)),
        }
    }

    fn unavailable(&self, tried: &str, error: anyhow::Error) -> ScaleError {
        ScaleError::unavailable(&self.service, tried, error.into_boxed_dyn_error())
    }
}

#[async_trait]
impl ScaleTarget for EnginesTarget {
    async fn read(&self) -> Result<TargetStatus, ScaleError> {
        let (record, _) = self.record("reading").await?;
        let passing = self.consul.health().service(&self.service).passing().list().await;
        let passing = passing.map_err(|e| self.unavailable("counting its replicas", e.into()))?.value;
        Ok(TargetStatus {
            wanted: record.replicas,
            ready: u32::try_from(passing.len()).unwrap_or(u32::MAX),
            hold: record.hold_until.map(fence::hold_until),
            last_term: record.term.map(Term),
            ..TargetStatus::default()
        })
    }

    async fn write(&self, replicas: u32, by: Term, because: &Decision) -> Result<Written, ScaleError> {
        let tried = format!("scaling to {replicas}");
        let (mut record, index) = self.record(&tried).await?;
        let refused = |refusal: Refusal| refusal.scale_error(&self.service, replicas, by);
        found(&record).allows(by, because.current, now()).map_err(refused)?;
        (record.replicas, record.term) = (replicas, Some(by.0));
        match self.records.write_as(&self.leading, &self.service, &record, index).await {
            Ok(true) => Ok(Written::default()),
            Ok(false) => Err(ScaleError::Conflict {
                service: self.service.clone(),
                why: "its record has been written meanwhile".into(),
            }),
            Err(error) => Err(self.unavailable(&tried, error)),
        }
    }
}

fn found(record: &ServiceRecord) -> Found {
    Found {
        term: record.term.map(Term),
        hold: record.hold_until.map(fence::hold_until),
        counted: None,
        updating: false,
        replicas: Some(record.replicas.into()),
    }
}
