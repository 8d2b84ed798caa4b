//! Prometheus' text format, version 0.0.4. Pure.

use std::fmt::Write as _;

/// A page of metrics under construction. Each family is begun once; its samples follow at once.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    family: String,
}

/// What kind of figure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until its owner starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Page {
    /// Begins a family: its name, its kind, and what it says, in one line.
    #[must_use]
    pub fn family(mut self, name: &str, kind: Kind, help: &str) -> Self {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        // Writing to a string can't fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self.family = name.to_owned();
        self
    }

    /// A sample of the family that was begun last.
    #[must_use]
    pub fn sample(mut self, labels: &[(&str, &str)], value: f64) -> Self {
        self.text.push_str(&self.family);
        for (at, (name, value)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.text, "{name}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = if value.is_nan() {
            writeln!(self.text, " NaN")
        } else if value.is_infinite() {
            writeln!(self.text, " {}Inf", if value > 0.0 { '+' } else { '-' })
        } else {
            writeln!(self.text, " {value}")
        };
        self
    }

    /// A sample where the value is known; none otherwise, for zero would be a lie.
    #[must_use]
    pub fn known(self, labels: &[(&str, &str)], value: Option<f64>) -> Self {
        match value {
            Some(value) => self.sample(labels, value),
            None => self,
        }
    }

    /// Several samples of the family that was begun last.
    #[must_use]
    pub fn samples<T>(self, items: impl IntoIterator<Item = T>, add: impl Fn(Self, T) -> Self) -> Self {
        items.into_iter().fold(self, add)
    }

    /// The page.
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_prometheus_own() {
        let page = Page::default()
            .family("ha_x_total", Kind::Counter, "what it\nsays")
            .sample(&[], 3.0)
            .sample(&[("host", "a\"b\\c\nd"), ("code", "5xx")], 0.25)
            .family("ha_y_seconds", Kind::Gauge, "y")
            .known(&[], None)
            .known(&[("q", "1")], Some(f64::INFINITY))
            .sample(&[], f64::NAN);
        assert_eq!(
            page.finish(),
            "# HELP ha_x_total what it\\nsays\n# TYPE ha_x_total counter\nha_x_total 3\n\
             ha_x_total{host=\"a\\\"b\\\\c\\nd\",code=\"5xx\"} 0.25\n\
             # HELP ha_y_seconds y\n# TYPE ha_y_seconds gauge\nha_y_seconds{q=\"1\"} +Inf\nha_y_seconds NaN\n"
        );
    }
}
