//! The two text formats that Prometheus understands: its own, version 0.0.4, and OpenMetrics 1.0, which knows units.

use std::fmt::Write as _;

/// Which format a reader asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// The one that an `Accept` header wants.
    pub fn accepted(header: &str) -> Self {
        if header.contains("application/openmetrics-text") { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// As HTTP names it.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family of samples is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
    Histogram,
    Summary,
}

/// Labels: name and value.
pub type Labels<'a> = [(&'a str, &'a str)];

/// A figure: a whole number or a fraction.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    Whole(i128),
    Fraction(f64),
}

macro_rules! whole {
    ($($of:ty),*) => {$(
        impl From<$of> for Value {
            fn from(n: $of) -> Self {
                Value::Whole(n as i128)
            }
        }
    )*};
}

whole!(u8, i32, u32, i64, u64, usize);

impl From<f64> for Value {
    fn from(n: f64) -> Self {
        Value::Fraction(n)
    }
}

/// A page under way. A family's samples must follow it at once.
#[derive(Debug)]
pub struct Exposition {
    text: String,
    format: Format,
}

impl Exposition {
    pub fn new(format: Format) -> Self {
        Exposition { text: String::with_capacity(32 * 1024), format }
    }

    /// The page's end.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    /// Begins a family.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let (name, kind) = self.shown(name, kind);
        let (name, kind) = (name.to_owned(), kind);
        // Writing to a string doesn't fail.
        let _ = writeln!(self.text, "# HELP {name} {help}");
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
        let units = ["seconds", "bytes", "ratio", "celsius"];
        let unit =
            units.iter().find(|unit| name.strip_suffix(**unit).is_some_and(|rest| rest.ends_with('_')));
        if let Some(unit) = unit.filter(|_| self.format == Format::OpenMetrics) {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
    }

    /// OpenMetrics names a counter's family without `_total`, and has no counters without it.
    fn shown<'a>(&self, name: &'a str, kind: Kind) -> (&'a str, &'static str) {
        match (kind, self.format) {
            (Kind::Gauge, _) => (name, "gauge"),
            (Kind::Histogram, _) => (name, "histogram"),
            (Kind::Summary, _) => (name, "summary"),
            (Kind::Counter, Format::Prometheus) => (name, "counter"),
            (Kind::Counter, Format::OpenMetrics) => match name.strip_suffix("_total") {
                Some(family) => (family, "counter"),
                None => (name, "unknown"),
            },
        }
    }

    /// A sample of the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &Labels, value: impl Into<Value>) {
        self.text.push_str(name);
        if !labels.is_empty() {
            self.text.push('{');
            for (at, (label, value)) in labels.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                let _ = write!(self.text, "{comma}{label}=\"");
                push_escaped(&mut self.text, value);
                self.text.push('"');
            }
            self.text.push('}');
        }
        self.text.push(' ');
        match value.into() {
            Value::Whole(n) => {
                let _ = write!(self.text, "{n}");
            }
            Value::Fraction(n) => push_fraction(&mut self.text, n),
        }
        self.text.push('\n');
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Into<Value>) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A bound of a histogram as the format writes it.
    pub fn bound(&self, limit: u64) -> String {
        match self.format {
            Format::Prometheus => limit.to_string(),
            Format::OpenMetrics => format!("{limit}.0"),
        }
    }
}

fn push_escaped(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

fn push_fraction(text: &mut String, n: f64) {
    if n.is_nan() {
        text.push_str("NaN");
    } else if n.is_infinite() {
        text.push_str(if n > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        let _ = write!(text, "{n}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(format: Format) -> String {
        let mut page = Exposition::new(format);
        page.single("a_bytes_total", Kind::Counter, "Bytes.", 3u64);
        page.single("b", Kind::Counter, "No total.", 0.5);
        page.family("c", Kind::Gauge, "Labels.");
        page.sample("c", &[("x", "a\"b\\\n"), ("y", "")], f64::NAN);
        page.finish()
    }

    #[test]
    fn both_formats() {
        let labelled = "# HELP c Labels.\n# TYPE c gauge\nc{x=\"a\\\"b\\\\\\n\",y=\"\"} NaN\n";
        assert_eq!(
            page(Format::Prometheus),
            format!(
                "# HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\na_bytes_total 3\n\
                 # HELP b No total.\n# TYPE b counter\nb 0.5\n{labelled}"
            )
        );
        assert_eq!(
            page(Format::OpenMetrics),
            format!(
                "# HELP a_bytes Bytes.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total 3\n\
                 # HELP b No total.\n# TYPE b unknown\nb 0.5\n{labelled}# EOF\n"
            )
        );
    }

    #[test]
    fn whoever_names_it_gets_openmetrics() {
        assert_eq!(Format::accepted(""), Format::Prometheus);
        assert_eq!(Format::accepted("text/plain;version=0.0.4, */*;q=0.1"), Format::Prometheus);
        let wish = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2";
        assert_eq!(Format::accepted(wish), Format::OpenMetrics);
    }
}
