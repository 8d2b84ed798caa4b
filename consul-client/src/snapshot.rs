//! The whole state of the cluster as a stream of bytes, out and in.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use http_body_util::{BodyExt, StreamBody};

use crate::{
    Client, Meta, Result,
    dial::{Body, Source},
    request::Request,
};

/// See [`Client::snapshot`].
#[derive(Debug, Clone)]
pub struct Snapshots {
    client: Client,
}

impl Snapshots {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The state of the cluster, as a gzipped archive with checksums inside. It is not held in memory; take it as it comes.
    ///
    /// ```no_run
    /// # async fn run(consul: consul_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::io::Write as _;
    /// let mut backup = std::fs::File::create("consul.snap")?;
    /// let mut snapshot = consul.snapshot().save().await?;
    /// while let Some(chunk) = snapshot.next().await {
    ///     backup.write_all(&chunk?)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As any read until it begins; after that the stream says when the connection breaks, and an archive that ends with an error is
    /// not one.
    pub async fn save(&self) -> Result<SnapshotStream> {
        let (meta, chunks) = self.client.chunks(Request::get("/v1/snapshot"), HEAD_LIMIT).await?;
        Ok(SnapshotStream { meta, chunks: Box::pin(chunks) })
    }

    /// Replaces the state of the cluster with an archive from [`save`](Self::save). Indexes go back, so fences do too: stop what relies
    /// on them.
    ///
    /// # Errors
    /// As any write; [`Error::Ambiguous`](crate::Error::Ambiguous) when `archive` ends with an error or the answer is lost. Sent
    /// once. A broken archive is refused by its checksums.
    pub async fn restore<S, E>(&self, archive: S) -> Result<()>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Sync + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        use futures_util::StreamExt as _;
        let frames =
            archive.map(|chunk| chunk.map(http_body::Frame::data).map_err(|error| Source(error.into())));
        let body = Body::Stream(BodyExt::boxed(StreamBody::new(frames)));
        let request = Request::put("/v1/snapshot");
        self.client.stream(request, body, RESTORE_LIMIT).await.map(drop)
    }
}

/// The bytes of an archive, as they come.
#[must_use = "nothing is read until it is polled"]
pub struct SnapshotStream {
    meta: Meta,
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
}

impl SnapshotStream {
    /// The state that it is of.
    pub fn meta(&self) -> Meta {
        self.meta
    }

    /// The next piece; `None` when the archive is complete.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        std::future::poll_fn(|context| self.chunks.as_mut().poll_next(context)).await
    }
}

impl Stream for SnapshotStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.as_mut().poll_next(context)
    }
}

impl fmt::Debug for SnapshotStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotStream").field("meta", &self.meta).finish_non_exhaustive()
    }
}

/// The leader writes the archive before it sends the first byte.
const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// The archive has to get there, and every server has to load it.
const RESTORE_LIMIT: Duration = Duration::from_secs(600);
