//! Signals from any Prometheus endpoint: one instant query each.
//!
//! An empty answer is no data, never a zero; a query that gives several series is refused rather than added up, for only
//! its author knows whether their sum means anything.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use autoscaler::Reading;
use autoscaler::controller::SignalSource;
use serde::Deserialize;

/// A signal and the query that gives it: `cpu_cores=sum(rate(...))`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The signal's name in the policy.
    pub signal: String,
    /// The query, in PromQL.
    pub promql: String,
}

impl FromStr for Query {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (signal, promql) = text.split_once('=').context("it must be NAME=QUERY")?;
        let named = !signal.is_empty() && signal.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        ensure!(named, "the name {signal:?} must be letters, digits and underscores");
        ensure!(!promql.trim().is_empty(), "the query of {signal} is empty");
        Ok(Self { signal: signal.to_owned(), promql: promql.trim().to_owned() })
    }
}

/// Queries against one endpoint.
pub struct Prometheus {
    /// Its base, such as `http://127.0.0.1:9090`.
    pub base: reqwest::Url,
    /// With a deadline below that of the controller's calls.
    pub http: reqwest::Client,
    /// The signals.
    pub queries: Vec<Query>,
}

impl Prometheus {
    async fn ask(&self, query: &Query) -> Result<Reading> {
        let mut answer = self.http.get(request(&self.base, query)?).send().await?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            ensure!(bytes.len() + chunk.len() <= MAX_ANSWER, "the answer has more than {MAX_ANSWER} bytes");
            bytes.extend_from_slice(&chunk);
        }
        decode(&bytes)
            .with_context(|| format!("the answer ({status}) to the query of {} is of no use", query.signal))
    }
}

#[async_trait]
impl SignalSource for Prometheus {
    async fn read(&self, _service: &str) -> Vec<(String, Reading)> {
        let asked = self.queries.iter().map(|query| async move {
            let reading = self.ask(query).await;
            let reading = reading.unwrap_or_else(|error| Reading::error(format!("prometheus: {error:#}")));
            (query.signal.clone(), reading)
        });
        futures_util::future::join_all(asked).await
    }
}

/// Several sources as one.
pub struct Together(pub Vec<Box<dyn SignalSource>>);

#[async_trait]
impl SignalSource for Together {
    async fn read(&self, service: &str) -> Vec<(String, Reading)> {
        let read = self.0.iter().map(|source| source.read(service));
        futures_util::future::join_all(read).await.into_iter().flatten().collect()
    }
}

fn request(base: &reqwest::Url, query: &Query) -> Result<reqwest::Url> {
    let mut url = base.clone();
    let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.query_pairs_mut().append_pair("query", &query.promql);
    Ok(url)
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Series>),
    Scalar(Sample),
    Matrix(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Series {
    value: Sample,
}

/// Seconds since 1970, and the number as text.
#[derive(Deserialize)]
struct Sample(f64, String);

fn decode(bytes: &[u8]) -> Result<Reading> {
    let answer: Answer = serde_json::from_slice(bytes).context("it is no answer of Prometheus")?;
    ensure!(answer.status == "success", "it says {}", answer.error.unwrap_or(answer.status));
    match answer.data {
        Some(Data::Scalar(sample)) => sample.reading(),
        Some(Data::Vector(series)) => match series.as_slice() {
            [] => Ok(Reading::NoData),
            [one] => one.value.reading(),
            several => bail!("it has {} series; make it one, with sum() for instance", several.len()),
        },
        Some(Data::Matrix(_) | Data::String(_)) => {
            bail!("it is no single number: query an instant, not a range")
        }
        None => bail!("it has no data"),
    }
}

impl Sample {
    fn reading(&self) -> Result<Reading> {
        let at = Duration::try_from_secs_f64(self.0).context("its time is none")?;
        let value: f64 = self.1.parse().with_context(|| format!("{:?} is no number", self.1))?;
        Ok(Reading::value(value, at))
    }
}

/// One number needs a fraction of it.
const MAX_ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn says(text: &str) -> String {
        format!("{:#}", decode(text.as_bytes()).unwrap_err())
    }

    #[test]
    fn one_series_is_a_number_and_none_is_no_data() {
        let at = Duration::from_millis(1_700_000_000_500);
        let one = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1700000000.5,"2.5"]}]}}"#;
        assert_eq!(decode(one.as_bytes()).unwrap(), Reading::value(2.5, at));
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1700000000.5,"3"]}}"#;
        assert_eq!(decode(scalar.as_bytes()).unwrap(), Reading::value(3.0, at));
        let none = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        assert_eq!(decode(none.as_bytes()).unwrap(), Reading::NoData);
        let nan = one.replace("2.5", "NaN");
        assert!(matches!(decode(nan.as_bytes()).unwrap(), Reading::Value { value, .. } if value.is_nan()));
    }

    #[test]
    fn whatever_else_is_refused_with_a_reason() {
        let two = r#"{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"2"]},{"value":[1,"2"]}]}}"#;
        assert_eq!(says(two), "it has 2 series; make it one, with sum() for instance");
        assert_eq!(
            says(r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#),
            "it says parse error"
        );
        assert!(says("<html>").starts_with("it is no answer of Prometheus"));
        let range = r#"{"status":"success","data":{"resultType":"matrix","result":[{"values":[[1,"2"]]}]}}"#;
        assert!(says(range).contains("query an instant"));
        let odd = r#"{"status":"success","data":{"resultType":"scalar","result":[-1,"3"]}}"#;
        assert!(says(odd).starts_with("its time is none"));
    }

    #[test]
    fn a_query_is_asked_as_it_stands() {
        let query: Query = "cpu=sum(rate(a{b=\"c d\"}[1m]))".parse().unwrap();
        let base = "http://127.0.0.1:9090/prom/".parse().unwrap();
        let url = request(&base, &query).unwrap();
        assert_eq!(url.path(), "/prom/api/v1/query");
        let sent: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        assert_eq!(sent, [("query".to_owned(), "sum(rate(a{b=\"c d\"}[1m]))".to_owned())]);
        assert!(
            "cpu".parse::<Query>().is_err()
                && "a b=1".parse::<Query>().is_err()
                && "a=".parse::<Query>().is_err()
        );
    }
}
