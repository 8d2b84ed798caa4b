//! How a trace goes on across this process: which header carries it is the business of who exports the spans.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use tracing::Span;

/// Ties the spans of a gateway to the traces of those before and behind it (W3C Trace Context, B3 and the like).
///
/// Both are called for every request and must not wait. A span that nobody records is a disabled one.
pub trait TraceContext: Send + Sync {
    /// Makes what a trusted peer's headers say the parent of `span`, the request's. Not called for others: whoever can choose
    /// a trace could write into anybody's.
    fn extract(&self, span: &Span, headers: &HeaderMap);

    /// Writes `span`, an attempt's, into the headers that its endpoint gets, over what a client sent by the same names.
    fn inject(&self, span: &Span, headers: &mut HeaderMap);
}

/// A [`TraceContext`] of [`Config::trace`](super::Config::trace).
#[derive(Clone)]
pub struct Trace(pub(super) Arc<dyn TraceContext>);

impl Trace {
    /// Of whatever ties traces together.
    pub fn new(context: impl TraceContext + 'static) -> Self {
        Self(Arc::new(context))
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

impl PartialEq for Trace {
    /// The same one, not one that does the same.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
