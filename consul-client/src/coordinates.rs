//! Network coordinates: how far nodes are from each other, estimated from gossip.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Client, Query, Result, escape, request::Request, types::null_is_default};

/// See [`Client::coordinates`].
#[derive(Debug, Clone)]
pub struct Coordinates {
    client: Client,
}

impl Coordinates {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The servers of each data centre, as the WAN pool sees them.
    ///
    /// # Errors
    /// As any read.
    pub async fn datacenters(&self) -> Result<Vec<DatacenterCoordinates>> {
        Ok(self.client.read(Request::get("/v1/coordinate/datacenters")).await?.value)
    }

    /// The nodes of this data centre that have any; a new node has some after a while.
    pub fn nodes(&self) -> Query<NodeCoordinate> {
        Query::new(self.client.clone(), Ok(Request::get("/v1/coordinate/nodes")))
    }

    /// A node's, one for each network segment that it is in; empty while it has none.
    ///
    /// # Errors
    /// As any read.
    pub async fn node(&self, name: &str) -> Result<Vec<NodeCoordinate>> {
        let request = Request::get(format!("/v1/coordinate/node/{}", escape::path("node", name)?));
        match self.client.read(request).await {
            Ok(found) => Ok(found.value),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Writes a node's; for what has no agent of its own.
    ///
    /// # Errors
    /// As any write.
    pub async fn update(&self, coordinate: &NodeCoordinate) -> Result<()> {
        let request = Request::put("/v1/coordinate/update").repeatable().json(coordinate)?;
        self.client.call(&request).await.map(drop)
    }
}

/// The servers of a data centre.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct DatacenterCoordinates {
    /// The data centre.
    pub datacenter: String,
    /// Its servers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub coordinates: Vec<NodeCoordinate>,
}

/// A node's coordinate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct NodeCoordinate {
    /// The node.
    pub node: String,
    /// The network segment; empty for the usual one.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub segment: String,
    /// The coordinate.
    pub coord: Coordinate,
}

impl NodeCoordinate {
    /// A node's coordinate, to be written.
    pub fn new(node: impl Into<String>, coord: Coordinate) -> Self {
        Self { node: node.into(), segment: String::new(), coord }
    }
}

/// A point in Vivaldi's space, in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Coordinate {
    /// The Euclidean part.
    pub vec: Vec<f64>,
    /// How sure it is: 1.5 at the beginning, towards 0.
    pub error: f64,
    /// A correction from measured round trips.
    pub adjustment: f64,
    /// The way to the network.
    pub height: f64,
}

impl Coordinate {
    /// A point.
    pub fn new(vec: Vec<f64>, error: f64, adjustment: f64, height: f64) -> Self {
        Self { vec, error, adjustment, height }
    }

    /// The estimated round trip. `None` when the two are of different spaces, or one holds no number.
    ///
    /// As in Serf: the Euclidean distance and both heights, and both corrections unless the sum would turn negative (hashicorp/serf,
    /// `coordinate/coordinate.go`).
    pub fn distance(&self, other: &Self) -> Option<Duration> {
        if self.vec.len() != other.vec.len() {
            return None;
        }
        let squares: f64 = self.vec.iter().zip(&other.vec).map(|(a, b)| (a - b).powi(2)).sum();
        let raw = squares.sqrt() + self.height + other.height;
        let corrected = raw + self.adjustment + other.adjustment;
        Duration::try_from_secs_f64(if corrected > 0.0 { corrected } else { raw }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_distance_is_serfs() {
        let at =
            |x: f64, height: f64, adjustment: f64| Coordinate::new(vec![x, 0.0], 1.5, adjustment, height);
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(at(0.0, 0.0, 0.0).distance(&at(0.25, 0.0, 0.0)), ms(250));
        assert_eq!(at(0.0, 0.125, 0.0).distance(&at(0.25, 0.125, 0.0)), ms(500));
        assert_eq!(at(0.0, 0.0, 0.25).distance(&at(0.25, 0.0, 0.0)), ms(500));
        assert_eq!(at(0.0, 0.0, -1.0).distance(&at(0.25, 0.0, 0.0)), ms(250), "never negative");
        assert_eq!(at(0.0, 0.0, 0.0).distance(&Coordinate::new(vec![], 1.5, 0.0, 0.0)), None);
        assert_eq!(at(f64::NAN, 0.0, 0.0).distance(&at(0.0, 0.0, 0.0)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_the_same_both_ways(a in proptest::collection::vec(-1e3_f64..1e3, 8), b in proptest::collection::vec(-1e3_f64..1e3, 8)) {
            let (a, b) = (Coordinate::new(a, 1.0, 0.0, 0.1), Coordinate::new(b, 1.0, 0.0, 0.1));
            prop_assert_eq!(a.distance(&b), b.distance(&a));
        }
    }
}
