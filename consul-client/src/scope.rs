//! What holds for every call of a handle: data centre, namespace, token, freshness.

use std::fmt;

use http::HeaderValue;

use crate::{Consistency, request::Request};

/// See [`Client::with_datacenter`](crate::Client::with_datacenter) and its neighbours.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) datacenter: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) partition: Option<String>,
    pub(crate) consistency: Option<Consistency>,
    /// Marked sensitive.
    pub(crate) token: Option<HeaderValue>,
}

impl Scope {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The request as it is sent under this scope. What the request says itself wins.
    pub(crate) fn apply(&self, mut request: Request) -> Request {
        for (name, value) in
            [("dc", &self.datacenter), ("ns", &self.namespace), ("partition", &self.partition)]
        {
            if let Some(value) = value
                && !request.has_param(name)
            {
                request = request.param(name, value);
            }
        }
        if !request.is_write() {
            request.consistency = request.consistency.or(self.consistency);
        }
        request.token = request.token.or_else(|| self.token.clone());
        request
    }
}

/// Without the token.
impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("datacenter", &self.datacenter)
            .field("namespace", &self.namespace)
            .field("partition", &self.partition)
            .field("consistency", &self.consistency)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_own_word_wins_and_writes_have_no_freshness() {
        let scope = Scope {
            datacenter: Some("dc 2".into()),
            consistency: Some(Consistency::Stale),
            token: Some(HeaderValue::from_static("hunter2")),
            ..Scope::default()
        };
        assert_eq!(scope.apply(Request::get("/v1/x")).target(), "/v1/x?dc=dc%202&stale");
        let own = Request::get("/v1/x").param("dc", "a").consistency(Consistency::Consistent);
        assert_eq!(scope.apply(own).target(), "/v1/x?dc=a&consistent");
        assert_eq!(scope.apply(Request::put("/v1/x")).target(), "/v1/x?dc=dc%202");
        assert!(!format!("{scope:?}").contains("hunter2"));
        assert!(Scope::default().is_empty() && !scope.is_empty());
    }
}
