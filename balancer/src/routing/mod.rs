//! Which service a request is for: rules on host and path, and the labels that they are read from.
//!
//! Pure: a [`Table`] is built from rules and asked for a host and a path. The labels are our own, `balancer.*`, and the
//! common subset of Traefik's, so that a stack file that has those works as it is:
//!
//! ```
//! use balancer::routing::{Table, labels};
//!
//! let labels = [
//!     ("traefik.http.routers.shop.rule", "Host(`shop.example`) && PathPrefix(`/api`)"),
//!     ("traefik.http.services.shop.loadbalancer.server.port", "8080"),
//! ];
//! let found = labels::read("shop", labels)?;
//! assert_eq!(found[0].port, Some(8080));
//!
//! let table: Table<&str> = found.iter().map(|route| (route.rule.clone(), route.priority, "shop")).collect();
//! assert_eq!(table.find("shop.example", "/api/items"), Some(&"shop"));
//! assert_eq!(table.find("shop.example", "/"), None);
//! # Ok::<(), labels::LabelError>(())
//! ```

pub mod labels;
mod rule;
mod table;

pub use rule::{Rule, RuleError};
pub use table::Table;
