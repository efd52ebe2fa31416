//! What receipts cost the API server, by its own metrics.

use super::common::stage::Stage;

/// Counters at one moment, or between two.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Writes of pages by anybody.
    pub page_writes: f64,
    /// Journals that were stored.
    pub journals: f64,
    /// Bytes of pages in requests and to watches.
    pub bytes: f64,
}

impl Traffic {
    /// All since the start.
    pub async fn now(stage: &Stage) -> Self {
        let request = http::Request::get("/metrics").body(Vec::new()).expect("should be a request");
        let text = stage.client.request_text(request).await.expect("should have metrics");
        let sum_of = |resource: &str, name: &str, labels: &[&str]| -> f64 {
            let resource = format!("resource=\"{resource}\"");
            let is_wanted = |line: &&str| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
                    && line.contains(&resource)
                    && labels.iter().all(|label| line.contains(label))
            };
            text.lines()
                .filter(is_wanted)
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        let sum = |name: &str, labels: &[&str]| sum_of("broadcastbatches", name, labels);
        Self {
            journals: sum_of("broadcastjournals", "apiserver_request_total", &["verb=\"POST\""]),
            page_writes: sum("apiserver_request_total", &["verb=\"PUT\"", "subresource=\"status\""]),
            bytes: sum("apiserver_request_body_size_bytes_sum", &[])
                + sum("apiserver_watch_events_sizes_sum", &[]),
        }
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            page_writes: self.page_writes - before.page_writes,
            journals: self.journals - before.journals,
            bytes: self.bytes - before.bytes,
        }
    }
}
