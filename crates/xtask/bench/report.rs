//! What was found, as tables and bar charts.

use std::fmt::Write;
use std::path::Path;

use crate::Result;
use crate::figures::{Figures, shown};

/// One question: a table and a chart.
pub(crate) struct Question {
    /// The chart's file.
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
    /// The server's share of a processor meanwhile, in percent.
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

    /// Those that are ours, by their names.
    fn is_ours(name: &str) -> bool {
        ["feishu", "Client"].iter().any(|ours| name.contains(ours))
    }

    /// The one of ours in the same language that a row is compared with.
    fn ours(&self, name: &str) -> Option<&Figures> {
        let language = name.split([':', ' ']).next()?;
        let mut ours = self
            .rows
            .iter()
            .filter(|row| row.name.starts_with(language) && Self::is_ours(&row.name));
        let first = ours.next()?;
        // Where a language has two of ours, the coroutine's peers are compared with the coroutine.
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

    pub(crate) fn table(&self) -> String {
        let has_server = self.rows.iter().any(|row| row.server.is_some());
        let mut table = format!("| | {} | least to most | to ours |", self.unit);
        table += if has_server {
            " server's CPU, % |\n|---|--:|--:|--:|--:|\n"
        } else {
            "\n|---|--:|--:|--:|\n"
        };
        for row in &self.rows {
            let (Some(median), Some((least, most))) = (row.figures.median(), row.figures.range()) else {
                continue;
            };
            let to_ours = match self.ours(&row.name) {
                Some(ours) if !Self::is_ours(&row.name) => {
                    row.figures.to(ours).map(shown).unwrap_or_default()
                }
                _ => String::new(),
            };
            let bold = if Self::is_ours(&row.name) { "**" } else { "" };
            let _ = write!(
                table,
                "| {bold}{}{bold} | {} | {} to {} | {to_ours} |",
                row.name,
                shown(median),
                shown(least),
                shown(most)
            );
            if has_server {
                let server = row
                    .server
                    .as_ref()
                    .and_then(Figures::median)
                    .map(|share| format!("{share:.0}"));
                let _ = write!(table, " {} |", server.unwrap_or_default());
            }
            table.push('\n');
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
<text x="12" y="38" fill="#646a73">{}; {better} is better; the line goes from the least to the greatest</text>{bars}
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

/// A figure that was promised.
pub(crate) struct Bar {
    pub(crate) of: &'static str,
    pub(crate) what: String,
    pub(crate) most: bool,
    pub(crate) bound: f64,
    /// `None` where this run did not measure it.
    pub(crate) figure: Option<f64>,
}

impl Bar {
    pub(crate) fn is_met(&self) -> Option<bool> {
        self.figure.map(|figure| {
            if self.most {
                figure <= self.bound
            } else {
                figure >= self.bound
            }
        })
    }
}

pub(crate) fn table_of<'a>(bars: impl IntoIterator<Item = &'a Bar>) -> String {
    let mut table = String::from("| of | bar | bound | figure | met |\n|---|---|--:|--:|---|\n");
    for bar in bars {
        let figure = bar.figure.map_or_else(|| "not measured".to_owned(), shown);
        let met = match bar.is_met() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        let sense = if bar.most { "at most" } else { "at least" };
        let _ = writeln!(
            table,
            "| {} | {} | {sense} {} | {figure} | {met} |",
            bar.of,
            bar.what,
            shown(bar.bound)
        );
    }
    table
}

/// Writes the page and its charts.
pub(crate) fn write(folder: &Path, about: &str, bars: &[Bar], questions: &[Question]) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut page = format!("# Benchmarks\n\n{about}\n## The bars\n\n{}", table_of(bars));
    for question in questions {
        std::fs::write(folder.join(format!("{}.svg", question.slug)), question.chart())?;
        let _ = write!(
            page,
            "\n## {}\n\n![{}]({}.svg)\n\n{}",
            question.title,
            question.title,
            question.slug,
            question.table()
        );
    }
    std::fs::write(folder.join("README.md"), page)?;
    Ok(())
}

/// Writes the bars of one language into its own folder, beside the benchmark of many calls there.
pub(crate) fn write_bars(folder: &Path, language: &str, about: &str, bars: &[Bar], many: &str) -> Result<()> {
    let bars: Vec<_> = bars.iter().filter(|bar| bar.of == language).collect();
    let page = format!(
        "# {language}: what was promised and what was found\n\n\
         By `cargo xtask bench`, which also writes [everyone's figures](../../docs/benchmarks/README.md). A million \
         requests through one loop are measured by `{many}`.\n\n{about}\n{}",
        table_of(bars)
    );
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("README.md"), page)?;
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
    fn peers_are_compared_with_ours_of_their_kind() {
        let table = question().table();
        for line in [
            "| **Python: Client** | 2.00 | 1.00 to 3.00 |  |",
            // The median of 5, 7 and 4.
            "| Python: requests | 10.0 | 7.00 to 12.0 | 5.00 |",
            "| Python: aiohttp | 12.0 | 12.0 to 12.0 | 3.00 |",
            "| Node: fetch | 1.00 | 1.00 to 1.00 |  |",
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
    fn a_bar_is_met_or_not_or_unknown() {
        let bar = |most, figure| Bar {
            of: "5",
            what: "x".to_owned(),
            most,
            bound: 2.0,
            figure,
        };
        assert_eq!(bar(true, Some(2.0)).is_met(), Some(true));
        assert_eq!(bar(true, Some(2.1)).is_met(), Some(false));
        assert_eq!(bar(false, Some(1.9)).is_met(), Some(false));
        assert_eq!(bar(false, None).is_met(), None);
        let table = table_of(&[bar(false, None), bar(true, Some(3.0))]);
        assert!(table.contains("| at least 2.00 | not measured |  |"), "{table}");
        assert!(table.contains("| at most 2.00 | 3.00 | **no** |"), "{table}");
    }
}
