//! The metrics as Prometheus reads them: the text format, version 0.0.4.

use std::fmt::Write as _;

use crate::metrics::label::{OTHER, Rows, Set};
use crate::metrics::scale::Scale;
use crate::metrics::table::{Kind, Metric, Row, Source, Unit};

/// The media type of the text.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All values at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// The cells of all pages, added up.
    pub cells: Vec<u64>,
    /// The names of rows: for each kind the numbers in use. The names of a server are joined by a tab.
    pub rows: [Vec<(usize, String)>; 3],
    /// The values of metrics that have no cells.
    pub readings: Vec<Reading>,
}

/// A value of a metric that has no cells.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The metric.
    pub metric: Metric,
    /// A value for each name of its labels.
    pub labels: Vec<String>,
    /// The value.
    pub value: f64,
}

impl Values {
    /// The text of all metrics.
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(64 << 10);
        for metric in Metric::ALL {
            self.write(&mut out, *metric);
        }
        out
    }

    /// The value of a counter or gauge with cells, of all labels together; of a histogram, how many
    /// values it has.
    pub fn sum(&self, metric: Metric) -> u64 {
        let row = metric.row();
        if let Source::CountOf(histogram) = row.source {
            return self.sum(histogram);
        }
        let cells = self.cells.get(metric.first()..metric.first() + row.n_cells());
        let series = cells.unwrap_or_default().chunks_exact(row.width());
        series.map(|series| counted(series).iter().sum::<u64>()).sum()
    }

    /// As [`Self::sum`], for one value of the first label.
    pub fn sum_of(&self, metric: Metric, label: usize) -> u64 {
        let row = match metric.row().source {
            Source::CountOf(histogram) => return self.sum_of(histogram, label),
            _ => metric.row(),
        };
        let width = row.n_cells() / row.labels.first().map_or(1, |it| it.set.size());
        let first = metric.first() + label * width;
        let series = self.cells.get(first..first + width).unwrap_or_default();
        series.chunks_exact(row.width()).map(|series| counted(series).iter().sum::<u64>()).sum()
    }

    /// As [`Self::sum`] of a counter, for one value of the second label.
    pub fn sum_of_second(&self, metric: Metric, label: usize) -> u64 {
        let row = metric.row();
        let cells = self.cells.get(metric.first()..metric.first() + row.n_cells());
        let size = row.labels.get(1).map_or(1, |it| it.set.size());
        cells.unwrap_or_default().iter().skip(label).step_by(size).sum()
    }

    /// The sum of the values of a histogram, for one value of its label.
    pub fn total_of(&self, metric: Metric, label: usize) -> u64 {
        self.cells.get(metric.at(label).0).copied().unwrap_or_default()
    }

    /// The buckets of a histogram, for one value of its label.
    pub fn buckets(&self, metric: Metric, label: usize) -> &[u64] {
        let first = metric.at(label).0;
        counted(self.cells.get(first..first + metric.row().width()).unwrap_or_default())
    }

    fn write(&self, out: &mut String, metric: Metric) {
        let row = metric.row();
        let kind = match row.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {kind}", row.name, row.help, row.name);
        match row.source {
            Source::Read => {
                for reading in self.readings.iter().filter(|it| it.metric == metric) {
                    let names = row.labels.iter().flat_map(|label| label.names);
                    let labels: Vec<_> =
                        names.zip(&reading.labels).map(|(name, it)| (*name, it.as_str())).collect();
                    sample(out, (row.name, ""), &labels, &format!("{}", reading.value));
                }
            }
            Source::Cells => self.write_cells(out, row, (metric, row)),
            Source::CountOf(histogram) => self.write_cells(out, row, (histogram, histogram.row())),
        }
    }

    /// Writes a metric with the cells of `of`.
    fn write_cells(&self, out: &mut String, row: &Row, (metric, of): (Metric, &Row)) {
        let mut all = vec![(Vec::new(), 0)];
        for label in row.labels {
            let values = self.values_of(&label.set);
            let with = |(labels, place): &(Vec<(&'static str, String)>, usize)| {
                let place = place * label.set.size();
                let each = values.iter().map(|(n, value)| {
                    let named = label.names.iter().zip(value.split('\t'));
                    let more = named.map(|(name, value)| (*name, value.to_owned()));
                    (labels.iter().cloned().chain(more).collect(), place + n)
                });
                each.collect::<Vec<_>>()
            };
            all = all.iter().flat_map(with).collect();
        }
        for (labels, place) in all {
            let at = metric.first() + place * of.width();
            let Some(cells) = self.cells.get(at..at + of.width()) else { continue };
            let labels: Vec<_> = labels.iter().map(|(name, it)| (*name, it.as_str())).collect();
            match (row.kind, cells) {
                (Kind::Histogram(scale), [sum, buckets @ ..]) => {
                    histogram(out, row, scale, &labels, *sum, buckets);
                }
                (_, _) => {
                    let value: u64 = counted(cells).iter().sum();
                    sample(out, (row.name, ""), &labels, &value.to_string());
                }
            }
        }
    }

    /// The values of a label with cells: the place of each, and its words, joined by tabs.
    fn values_of(&self, set: &Set) -> Vec<(usize, String)> {
        match set {
            Set::Words(words) => words.iter().map(|it| (*it).to_owned()).enumerate().collect(),
            Set::Rows(rows) => {
                let other = match rows {
                    Rows::Servers => format!("{OTHER}\t{OTHER}"),
                    Rows::Sites | Rows::Upstreams => OTHER.to_owned(),
                };
                let named = self.rows[*rows as usize].iter().cloned();
                std::iter::once((0, other)).chain(named).collect()
            }
            Set::Named(_) => Vec::new(),
        }
    }
}

/// The cells of one combination of labels that count: without the sum of a histogram.
fn counted(cells: &[u64]) -> &[u64] {
    match cells {
        [_, buckets @ ..] if !buckets.is_empty() => buckets,
        one => one,
    }
}

fn histogram(
    out: &mut String,
    row: &Row,
    scale: Scale,
    labels: &[(&str, &str)],
    sum: u64,
    buckets: &[u64],
) {
    let mut n = 0;
    let bounds = scale.bounds().iter().map(|bound| shown(row.unit, *bound));
    for (bound, bucket) in bounds.chain(["+Inf".to_owned()]).zip(buckets) {
        n += bucket;
        let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
        sample(out, (row.name, "_bucket"), &labels, &n.to_string());
    }
    sample(out, (row.name, "_sum"), labels, &shown(row.unit, sum));
    sample(out, (row.name, "_count"), labels, &n.to_string());
}

/// A value in the unit of readers.
fn shown(unit: Unit, value: u64) -> String {
    match unit {
        Unit::Micros => format!("{}", value as f64 / 1e6),
        _ => value.to_string(),
    }
}

fn sample(out: &mut String, (name, suffix): (&str, &str), labels: &[(&str, &str)], value: &str) {
    out.push_str(name);
    out.push_str(suffix);
    for (n, (name, value)) in labels.iter().enumerate() {
        out.push(if n == 0 { '{' } else { ',' });
        out.push_str(name);
        out.push_str("=\"");
        for char in value.chars() {
            match char {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                char => out.push(char),
            }
        }
        out.push('"');
    }
    if !labels.is_empty() {
        out.push('}');
    }
    out.push(' ');
    out.push_str(value);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::label;
    use crate::metrics::table::N_CELLS;

    fn values() -> Values {
        Values { cells: vec![0; N_CELLS], ..Values::default() }
    }

    #[test]
    fn a_histogram_counts_each_value_in_all_larger_buckets() {
        let mut values = values();
        let first = Metric::RequestDuration.at(1).0;
        (values.cells[first], values.cells[first + 1], values.cells[first + 3]) = (900, 2, 1);
        let text = values.text();
        for line in [
            "# TYPE ktrix_request_duration_seconds histogram",
            "ktrix_request_duration_seconds_bucket{verdict=\"hit\",le=\"0.0001\"} 2",
            "ktrix_request_duration_seconds_bucket{verdict=\"hit\",le=\"0.0002\"} 2",
            "ktrix_request_duration_seconds_bucket{verdict=\"hit\",le=\"0.0005\"} 3",
            "ktrix_request_duration_seconds_bucket{verdict=\"hit\",le=\"+Inf\"} 3",
            "ktrix_request_duration_seconds_sum{verdict=\"hit\"} 0.0009",
            "ktrix_request_duration_seconds_count{verdict=\"hit\"} 3",
            "ktrix_requests_total{verdict=\"hit\"} 3",
            "ktrix_requests_total{verdict=\"miss\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}");
        }
        assert_eq!((values.sum(Metric::Requests), values.sum_of(Metric::Requests, 1)), (3, 3));
        assert_eq!(values.total_of(Metric::RequestDuration, 1), 900);
        assert_eq!(values.buckets(Metric::RequestDuration, 1)[2], 1);
    }

    #[test]
    fn rows_have_their_names_and_all_others_share_one() {
        let mut values = values();
        values.rows[Rows::Sites as usize] = vec![(3, "a\"\\\nb".to_owned())];
        values.rows[Rows::Servers as usize] = vec![(2, "app\tunix:/s".to_owned())];
        values.cells[Metric::SiteRequests.at_both(3, label::status(404)).0] = 7;
        values.cells[Metric::SiteRequests.at_both(0, label::status(200)).0] = 8;
        values.cells[Metric::ServerAnswers.at(2).0] = 9;
        let text = values.text();
        for line in [
            "ktrix_site_requests_total{site=\"a\\\"\\\\\\nb\",status=\"4xx\"} 7",
            "ktrix_site_requests_total{site=\"other\",status=\"2xx\"} 8",
            "ktrix_server_answers_total{upstream=\"app\",server=\"unix:/s\"} 9",
            "ktrix_server_answers_total{upstream=\"other\",server=\"other\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}");
        }
        assert_eq!(values.sum_of(Metric::SiteRequests, 3), 7);
        assert_eq!(values.sum(Metric::SiteRequests), 15);
    }

    #[test]
    fn a_reading_has_its_labels() {
        let mut values = values();
        let labels = ["app", "a:1", "up"].map(str::to_owned).to_vec();
        values.readings.push(Reading { metric: Metric::ServerState, labels, value: 1.0 });
        let line = "ktrix_server_state{upstream=\"app\",server=\"a:1\",state=\"up\"} 1\n";
        assert!(values.text().contains(line));
    }
}
