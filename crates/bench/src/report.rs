//! The figures as one table, and as bar charts on demand.

use std::fmt::Write;
use std::path::Path;

use crate::Result;
use crate::figures::{Figures, shown};

/// One measurement of several clients.
pub(crate) struct Question {
    /// The name in the code, and of the chart's file.
    pub(crate) slug: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) more_is_better: bool,
    pub(crate) rows: Vec<Row>,
}

#[derive(Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) figures: Figures,
    /// The server's use of a processor during the measurement, in percent.
    pub(crate) server: Option<Figures>,
}

impl Question {
    pub(crate) fn figures(&self, name: &str) -> Option<&Figures> {
        let row = self.rows.iter().find(|row| row.name == name)?;
        Some(&row.figures)
    }

    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        self.figures(name)?.median()
    }

    /// Whether a row is one of our clients.
    fn is_ours(name: &str) -> bool {
        ["feishu", "Client"].iter().any(|ours| name.contains(ours))
    }

    /// Figures of our client with which a row is compared: in the same language, async with async.
    fn ours(&self, name: &str) -> Option<&Figures> {
        let language = name.split([':', ' ']).next()?;
        let mut ours = self
            .rows
            .iter()
            .filter(|row| row.name.starts_with(language) && Self::is_ours(&row.name));
        let first = ours.next()?;
        let is_async = |name: &str| {
            ["Async", "async", "aiohttp"]
                .iter()
                .any(|word| name.contains(word))
        };
        let row = if is_async(name) {
            ours.next().unwrap_or(first)
        } else {
            first
        };
        Some(&row.figures)
    }

    /// The rows of the page's table. The first has the name of the measurement.
    fn table_rows(&self, targets: &[Target]) -> String {
        let mut table = String::new();
        let mut measurement = format!("{}, {}", self.title, self.unit);
        for row in &self.rows {
            let (Some(median), Some((least, most))) = (row.figures.median(), row.figures.range()) else {
                continue;
            };
            let spread = if row.figures.is_single() {
                String::new()
            } else {
                format!("{} to {}", shown(least), shown(most))
            };
            let to_ours = match self.ours(&row.name) {
                Some(ours) if !Self::is_ours(&row.name) => {
                    row.figures.to(ours).map(shown).unwrap_or_default()
                }
                _ => String::new(),
            };
            let server = row.server.as_ref().and_then(Figures::median);
            let server = server.map(|share| format!("{share:.0}")).unwrap_or_default();
            let targets: Vec<_> = targets
                .iter()
                .filter(|target| target.slug == self.slug && target.row == row.name)
                .map(Target::shown)
                .collect();
            let bold = if Self::is_ours(&row.name) { "**" } else { "" };
            let _ = writeln!(
                table,
                "| {measurement} | {bold}{}{bold} | {} | {spread} | {to_ours} | {server} | {} |",
                row.name,
                shown(median),
                targets.join("; ")
            );
            measurement.clear();
        }
        table
    }

    /// A horizontal bar for each row, and a line from the least to the greatest figure.
    pub(crate) fn chart(&self) -> String {
        const ROW: f64 = 26.0;
        const TOP: f64 = 46.0;
        const LEFT: f64 = 200.0;
        const BAR: f64 = 460.0;
        let rows: Vec<_> = self
            .rows
            .iter()
            .filter_map(|row| Some((&row.name, row.figures.median()?, row.figures.range()?)))
            .collect();
        let most = rows
            .iter()
            .map(|(_, _, (_, most))| *most)
            .fold(f64::MIN_POSITIVE, f64::max);
        let x = |figure: f64| LEFT + BAR * figure / most;
        let mut bars = String::new();
        let mut y = TOP;
        for (name, median, (least, greatest)) in &rows {
            let colour = if Self::is_ours(name) { "#3370ff" } else { "#8f959e" };
            let middle = y + ROW / 2.0;
            let _ = write!(
                bars,
                r##"
<text x="{name_x:.1}" y="{text_y:.1}" text-anchor="end">{}</text>
<rect x="{LEFT}" y="{bar_y:.1}" width="{width:.1}" height="16" fill="{colour}"/>
<line x1="{:.1}" x2="{:.1}" y1="{middle:.1}" y2="{middle:.1}" stroke="#1f2329"/>
<text x="{value_x:.1}" y="{text_y:.1}">{}</text>"##,
                escaped(name),
                x(*least),
                x(*greatest),
                shown(*median),
                name_x = LEFT - 8.0,
                text_y = middle + 4.5,
                bar_y = middle - 8.0,
                width = x(*median) - LEFT,
                value_x = x(*greatest) + 8.0,
            );
            y += ROW;
        }
        let better = if self.more_is_better { "longer" } else { "shorter" };
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" viewBox="0 0 760 {height}" font-family="sans-serif" font-size="13" fill="#1f2329">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="12" y="20" font-size="15" font-weight="bold">{}</text>
<text x="12" y="38" fill="#646a73">{}; {better} is better; the line shows the range</text>{bars}
</svg>
"##,
            escaped(self.title),
            escaped(self.unit),
            height = y + 12.0,
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A bound for a figure, shown in one row of a measurement.
pub(crate) struct Target {
    pub(crate) slug: &'static str,
    pub(crate) row: &'static str,
    /// How the figure depends on the row's figures. Empty for the row's median.
    pub(crate) what: &'static str,
    pub(crate) bound: Bound,
    /// `None` if this run did not measure it.
    pub(crate) figure: Option<f64>,
}

impl Target {
    pub(crate) fn is_met(&self) -> Option<bool> {
        self.figure.map(|figure| match self.bound {
            Bound::AtLeast(bound) => figure >= bound,
            Bound::AtMost(bound) => figure <= bound,
        })
    }

    fn shown(&self) -> String {
        let bound = match self.bound {
            Bound::AtLeast(bound) => format!("at least {}", shown(bound)),
            Bound::AtMost(bound) => format!("at most {}", shown(bound)),
        };
        let what = match (self.what, self.figure) {
            ("", _) => bound,
            (what, None) => format!("{what} {bound}"),
            (what, Some(figure)) => format!("{what} {bound}: {}", shown(figure)),
        };
        match self.is_met() {
            Some(true) => format!("{what}, met"),
            Some(false) => format!("{what}, **missed**"),
            None => format!("{what}, not measured"),
        }
    }
}

/// All figures, each row with its targets.
pub(crate) fn table(questions: &[Question], targets: &[Target]) -> String {
    let mut table = String::from(
        "| Measurement | Client | Median | Range | Ratio to ours | Server CPU, % | Target |\n\
         |---|---|--:|--:|--:|--:|---|\n",
    );
    for question in questions {
        table += &question.table_rows(targets);
    }
    table
}

/// The page's path in the clone.
pub(crate) const PAGE: &str = "docs/benchmarks/README.md";

/// Writes the page.
pub(crate) fn write(root: &Path, about: &str, table: &str) -> Result<()> {
    let page = format!(
        "# Benchmarks\n\n{about}\n\
         \"Ratio to ours\" is the client's figure divided by that of our client of the same kind. \
         `cargo benchmark --charts` draws the figures. Two measurements are separate: a million requests with one \
         bulk call (`python bench/many.py` in `python`, `node bench/many.mjs` in `node`), and the time to build a \
         program with the crate (`cargo benchmark --builds`).\n\n{table}"
    );
    let file = root.join(PAGE);
    Ok(std::fs::write(&file, page).map_err(|error| format!("{}: {error}", file.display()))?)
}

/// Draws a chart for each measurement with several rows.
pub(crate) fn write_charts(folder: &Path, questions: &[Question]) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for question in questions.iter().filter(|question| question.rows.len() > 1) {
        std::fs::write(folder.join(format!("{}.svg", question.slug)), question.chart())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        let row = |name: &str, figures: &[f64]| Row {
            name: name.to_owned(),
            figures: figures.iter().copied().collect(),
            server: None,
        };
        Question {
            slug: "x",
            title: "How <fast>",
            unit: "ms",
            more_is_better: false,
            rows: vec![
                row("Python: Client", &[2.0, 1.0, 3.0]),
                row("Python: requests", &[10.0, 7.0, 12.0]),
                row("Python: AsyncClient", &[4.0]),
                row("Python: aiohttp", &[12.0]),
                row("Node: fetch", &[1.0]),
                row("Node: nothing", &[]),
            ],
        }
    }

    #[test]
    fn clients_are_compared_with_ours_of_the_same_kind() {
        let target = |row, what, figure| Target {
            slug: "x",
            row,
            what,
            bound: Bound::AtMost(2.0),
            figure,
        };
        let table = table(
            &[question()],
            &[
                target("Python: Client", "", Some(2.0)),
                target("Python: requests", "ours / this", Some(2.1)),
            ],
        );
        for line in [
            "| How <fast>, ms | **Python: Client** | 2.00 | 1.00 to 3.00 |  |  | at most 2.00, met |",
            // The median of 5, 7 and 4.
            "|  | Python: requests | 10.0 | 7.00 to 12.0 | 5.00 |  | ours / this at most 2.00: 2.10, **missed** |",
            "|  | Python: aiohttp | 12.0 |  | 3.00 |  |  |",
            "|  | Node: fetch | 1.00 |  |  |  |  |",
        ] {
            assert!(table.contains(line), "{table}");
        }
        assert!(!table.contains("nothing"), "{table}");
    }

    #[test]
    fn a_chart_has_a_bar_for_each_row() {
        let chart = question().chart();
        assert_eq!(chart.matches("<rect x=").count(), 5);
        assert!(
            chart.contains("How &lt;fast&gt;") && chart.contains("shorter is better"),
            "{chart}"
        );
        // The greatest figure of all fills the width.
        assert!(chart.contains(r#"width="460.0""#), "{chart}");
    }

    #[test]
    fn a_target_is_met_or_missed_or_not_measured() {
        let target = |bound, figure| Target {
            slug: "x",
            row: "5",
            what: "",
            bound,
            figure,
        };
        let (most, least) = (Bound::AtMost(2.0), Bound::AtLeast(2.0));
        assert_eq!(target(most, Some(2.0)).is_met(), Some(true));
        assert_eq!(target(most, Some(2.1)).is_met(), Some(false));
        assert_eq!(target(least, Some(1.9)).is_met(), Some(false));
        assert_eq!(target(least, Some(2.0)).shown(), "at least 2.00, met");
        assert_eq!(target(least, None).is_met(), None);
        assert_eq!(target(least, None).shown(), "at least 2.00, not measured");
    }
}
