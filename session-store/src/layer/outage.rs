//! What a request gets while the store is away.

/// What a request gets whose session cannot be read now, for a failure that may pass. Whatever this says, nothing is written after a failed read,
/// and the browser keeps its cookie: who was logged in is so again when the store is back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outage {
    /// 503 with `Retry-After`: nobody sees a page as somebody else than they are.
    #[default]
    FailClosed,
    /// The handler reads no values and no user, and can ask [`is_available`](super::Session::is_available) to say so on its page. A request
    /// that changes the session, logs in or logs out gets 503 all the same. For pages that are worth something to anybody.
    Anonymous,
}
