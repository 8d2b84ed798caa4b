//! Keys of values, and how a value is read and written.

use super::outcome::SessionError;
use crate::{op::Change, record::Value};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, marker::PhantomData};

/// The key of a value whose type is written down once.
///
/// ```
/// # use session_store::{Session, SessionError, TypedKey};
/// const CART: TypedKey<Vec<u32>> = TypedKey::new("cart");
///
/// async fn add_to_cart(session: &Session, article: u32) -> Result<usize, SessionError> {
///     session.update(|values| {
///         let mut cart = values.get(CART)?.unwrap_or_default(); // a Vec<u32>
///         cart.push(article);
///         values.set(CART, &cart)?;
///         Ok(cart.len())
///     }).await
/// }
/// ```
pub struct TypedKey<T> {
    name: &'static str,
    holds: PhantomData<fn() -> T>,
}

/// What names a value of type `T`: a [`TypedKey`], or a text, which takes every type.
pub trait Key<T: ?Sized>: AsRef<str> {}

impl<T> TypedKey<T> {
    /// A key by its name in the store.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, holds: PhantomData }
    }

    /// Its name in the store.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> Key<T> for TypedKey<T> {}
impl<T: ?Sized> Key<T> for &str {}
impl<T: ?Sized> Key<T> for &String {}

impl<T> AsRef<str> for TypedKey<T> {
    fn as_ref(&self) -> &str {
        self.name
    }
}

impl<T> Clone for TypedKey<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for TypedKey<T> {}

impl<T> fmt::Debug for TypedKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedKey").field(&self.name).finish()
    }
}

/// A stored value, seen through a change that is not committed yet.
pub(super) fn read<T: DeserializeOwned>(
    key: &str,
    stored: Option<&Value>,
    change: Option<&Change>,
) -> Result<Option<T>, SessionError> {
    let not_counter = || SessionError::NotCounter { key: key.into() };
    let value = match change {
        None => stored,
        Some(Change::Set(value)) => Some(value),
        Some(Change::Remove) => None,
        Some(Change::Add(number)) => {
            let before = stored.map_or(Some(0), Value::number).ok_or_else(not_counter)?;
            Some(&Value::Counter(before.saturating_add(*number)))
        }
        Some(Change::Mismatch) => return Err(not_counter()),
    };
    let read = match value {
        None => return Ok(None),
        Some(Value::Bytes(bytes)) => serde_json::from_slice(bytes),
        Some(Value::Counter(number)) => serde_json::from_value((*number).into()),
    };
    read.map(Some)
        .map_err(|_| SessionError::Value { key: key.into(), reason: "is not of the type that is asked for" })
}

pub(super) fn write<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Change, SessionError> {
    let bytes = serde_json::to_vec(value)
        .map_err(|_| SessionError::Value { key: key.into(), reason: "cannot be written as JSON" })?;
    Ok(Change::Set(Value::Bytes(bytes.into())))
}
