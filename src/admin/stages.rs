//! Member `stages` of `/stats`: where the time of writes goes.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::engine::Stages;

/// Every stage under its name. With `histograms` all recorded values, too: they only grow, so that a client can
/// subtract what it read before from what it reads now.
pub(super) fn stages(stages: &Stages, histograms: bool) -> Value {
    let figures = stages.snapshot().into_iter().map(|(name, spans)| (name, stage(&spans, histograms)));
    Value::Object(figures.collect())
}

fn stage(spans: &Histogram<u64>, histograms: bool) -> Value {
    let micros = |nanos: u64| nanos as f64 / 1e3;
    let quantile = |quantile| micros(spans.value_at_quantile(quantile));
    let mut figures = Map::new();
    figures.insert("count".to_owned(), json!(spans.len()));
    figures.insert("meanUs".to_owned(), json!(spans.mean() / 1e3));
    for (name, at) in [("p50Us", 0.5), ("p90Us", 0.9), ("p99Us", 0.99), ("p999Us", 0.999)] {
        figures.insert(name.to_owned(), json!(quantile(at)));
    }
    figures.insert("maxUs".to_owned(), json!(micros(spans.max())));
    if histograms {
        let recorded = spans.iter_recorded();
        let counts = recorded.map(|value| json!([value.value_iterated_to(), value.count_at_value()]));
        figures.insert("counts".to_owned(), counts.collect());
    }
    Value::Object(figures)
}
