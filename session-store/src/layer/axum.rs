//! [`Session`] as an axum extractor, and [`SessionError`] as a response, so that a handler is `async fn(Session) -> Result<_, SessionError>`.

use super::{Session, SessionError};
use axum_core::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = NoSessionLayer;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get::<Self>().cloned().ok_or(NoSessionLayer)
    }
}

/// The handler asks for a [`Session`], but its route is not inside a [`SessionLayer`](super::SessionLayer): a mistake of the program, 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the handler takes a session, but no session layer is around its route; add .layer(SessionLayer::new(store)) after it"
)]
pub struct NoSessionLayer;

impl IntoResponse for NoSessionLayer {
    fn into_response(self) -> Response {
        tracing::error!(error = %self, "session not usable");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

impl IntoResponse for SessionError {
    /// Without a body. A failure of the store is answered by the layer, whatever stands here.
    fn into_response(self) -> Response {
        tracing::debug!(error = %self, "request failed");
        let status = match self {
            Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Gone(_) => StatusCode::UNAUTHORIZED,
            Self::Value { .. } | Self::NotCounter { .. } | Self::NoFreeId => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        status.into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, SessionLayer};
    use std::sync::Arc;

    #[tokio::test]
    async fn a_session_is_extracted_where_the_layer_is() {
        let mut parts = http::Request::new(()).into_parts().0;
        let missing = Session::from_request_parts(&mut parts, &()).await.unwrap_err();
        assert!(missing.to_string().contains("SessionLayer"), "{missing}");
        assert_eq!(missing.into_response().status(), StatusCode::INTERNAL_SERVER_ERROR);
        let layer = SessionLayer::new(Arc::new(MemoryStore::new()));
        parts.extensions.insert(Session::new(layer, None));
        let session = Session::from_request_parts(&mut parts, &()).await.unwrap();
        assert_eq!(session.principal().await.unwrap(), None);
        assert_eq!(SessionError::Conflict.into_response().status(), StatusCode::CONFLICT);
    }
}
