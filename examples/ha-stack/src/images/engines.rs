//! Puts the images on every engine, over each engine's own API.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use swarm_client::bollard;
use swarm_client::bollard::query_parameters::{BuildImageOptionsBuilder, ListContainersOptionsBuilder};

use super::Build;
use crate::progress::{Progress, Step};
use crate::settings::shown;

/// Builds each image on each engine that has it not, all engines at once.
///
/// # Errors
/// When an engine can't be reached or refuses a build; it is named.
pub async fn load(builds: &[Build], engines: &BTreeMap<String, String>, progress: &Progress) -> Result<()> {
    let names = engines.keys().cloned().collect::<Vec<_>>().join(", ");
    let all = engines.len() * builds.len();
    let step = progress.counted(format!("{} images on {names}", builds.len()), all as u64);
    let loads = engines.iter().map(|(name, url)| {
        let step = &step;
        async move {
            let built = load_one(url, builds, step).await;
            built.with_context(|| format!("the images can't be put on the engine {name} at {}", shown(url)))
        }
    });
    let built: usize = try_join_all(loads).await?.into_iter().sum();
    step.done(format!("{built} built, {} were there", all - built));
    Ok(())
}

/// Returns how many images were built.
async fn load_one(url: &str, builds: &[Build], step: &Step) -> Result<usize> {
    let engine = swarm_client::Client::builder().endpoint(url).tls_from_env().connect().await?.bollard()?;
    let mut built = 0;
    for Build { reference, context } in builds {
        if engine.inspect_image(reference).await.is_err() {
            build(&engine, reference, context.clone())
                .await
                .with_context(|| format!("{reference} can't be built"))?;
            built += 1;
        }
        step.one_more();
    }
    Ok(built)
}

/// How many containers of these services an engine still has, running or not; none where the engine does not answer.
pub async fn containers_of(url: &str, services: &[String]) -> usize {
    let listed = async {
        let client = swarm_client::Client::builder()
            .endpoint(url)
            .tls_from_env()
            .connect_timeout(SILENT)
            .connect()
            .await?;
        let labels = services.iter().map(|id| format!("{SERVICE_LABEL}={id}"));
        let mut count = 0;
        for label in labels {
            // Several labels in one filter would all have to match.
            let filters = HashMap::from([("label".to_owned(), vec![label])]);
            let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
            count += client.bollard()?.list_containers(Some(options)).await?.len();
        }
        anyhow::Ok(count)
    };
    // A host without power runs nothing.
    listed.await.unwrap_or(0)
}

async fn build(engine: &bollard::Docker, reference: &str, context: bytes::Bytes) -> Result<()> {
    let options = BuildImageOptionsBuilder::new().t(reference).rm(true).forcerm(true).build();
    let mut progress = engine.build_image(options, None, Some(bollard::body_full(context)));
    while let Some(said) = progress.next().await {
        if let Some(message) = said?.error_detail.and_then(|detail| detail.message) {
            bail!("{message}");
        }
    }
    // The stream ends in the same way when a build is cut off: the image itself is the proof.
    engine.inspect_image(reference).await.context("the build ended without an image")?;
    Ok(())
}

const SERVICE_LABEL: &str = "com.docker.swarm.service.id";
const SILENT: Duration = Duration::from_secs(1);
