//! The part of ktrix-metrics(7) that lists the metrics, in mdoc(7).

use std::fmt::Write as _;

use crate::metrics::label::{Label, Rows, Set};
use crate::metrics::table::{Kind, Metric, Unit};

/// An item for each metric.
pub fn items() -> String {
    let mut out = String::new();
    for metric in Metric::ALL {
        let row = metric.row();
        let kind = match row.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let unit = match row.unit {
            Unit::None => "",
            Unit::Bytes => ", bytes",
            Unit::Seconds | Unit::Micros => ", seconds",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, ".It Ic {}\n{kind}{unit}.", row.name);
        // A sentence in a line, as mdoc(7) wants it; a line must not begin with a dot or a quote.
        let _ = writeln!(out, "{}", row.help);
        row.labels.iter().for_each(|label| write_label(&mut out, label));
    }
    out
}

fn write_label(out: &mut String, label: &Label) {
    let noun = if label.names.len() == 1 { "Label" } else { "Labels" };
    let names = label.names.join("\nand\n.Cm ");
    let values = match label.set {
        Set::Words(words) => words.join(", "),
        Set::Rows(Rows::Sites) => {
            "the first host of a site; default is the upstream of requests without a site, and none \
             are requests without a route"
                .to_owned()
        }
        Set::Rows(Rows::Upstreams) => "the name of an upstream".to_owned(),
        Set::Rows(Rows::Servers) => "an upstream, and the address of one of its servers".to_owned(),
        Set::Named(what) => what.to_owned(),
    };
    let _ = writeln!(out, "{noun}\n.Cm {names} :\n{values}.");
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANUAL: &str = include_str!("../../man/ktrix-metrics.7");

    /// The list of the manual is between two comments. `KTRIX_WRITE_MANUAL=1` writes it.
    #[test]
    fn the_manual_lists_every_metric() {
        let (begin, end) = (".\\\" The table of metrics.\n", ".\\\" The end of the table.\n");
        let (before, rest) = MANUAL.split_once(begin).unwrap();
        let (list, after) = rest.split_once(end).unwrap();
        if std::env::var_os("KTRIX_WRITE_MANUAL").is_some() {
            let text = format!("{before}{begin}{}{end}{after}", items());
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/man/ktrix-metrics.7"), text)
                .unwrap();
        } else {
            let hint = "KTRIX_WRITE_MANUAL=1 cargo test --lib metrics::manual writes it";
            assert!(list == items(), "man/ktrix-metrics.7 differs from the table ({hint})");
        }
    }
}
