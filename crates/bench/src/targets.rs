//! The targets, and the figures that show whether they are met.

use crate::report::Bound::{AtLeast, AtMost};
use crate::report::{Question, Target};

const RUST: &str = "Rust: feishu-feed-card";
const PYTHON: &str = "Python: feishu_feed_card";
const CLIENT: &str = "Python: Client";
const ASYNC_CLIENT: &str = "Python: AsyncClient";
const NODE: &str = "Node: feishu-feed-card";
const REQWEST: &str = "Rust: reqwest";
const HTTP_CLIENT: &str = "Python: http.client";
const REQUESTS: &str = "Python: requests";
const AIOHTTP: &str = "Python: aiohttp";
const UNDICI: &str = "Node: undici";

pub(crate) fn all(questions: &[Question]) -> Vec<Target> {
    let of = |slug: &str, name: &str| {
        let question = questions.iter().find(|question| question.slug == slug)?;
        question.median(name)
    };
    let ratio = |slug: &str, ours: &str, theirs: &str| {
        let question = questions.iter().find(|question| question.slug == slug)?;
        question.figures(ours)?.to(question.figures(theirs)?)
    };
    // Clients in different languages do not take turns within a repetition: only their medians can be compared.
    let to_core = |ours: &str| Some(of("calls-50", ours)? / of("calls-50", RUST)?);
    let one_thread = of("latency-1", CLIENT).map(|latency| 1e6 / latency);

    let itself = |slug, row, bound| Target {
        slug,
        row,
        what: "",
        bound,
        figure: of(slug, row),
    };
    let to_this = |slug, ours, row, bound| Target {
        slug,
        row,
        what: "ours / this",
        bound,
        figure: ratio(slug, ours, row),
    };
    let to_the_core = |row, bound| Target {
        slug: "calls-50",
        row,
        what: "ours / core",
        bound,
        figure: to_core(row),
    };
    vec![
        to_this("calls-50", RUST, REQWEST, AtLeast(0.95)),
        to_this("cpu-50", RUST, REQWEST, AtMost(1.1)),
        to_this("latency-1", RUST, REQWEST, AtMost(1.0)),
        to_this("cpu-1", RUST, REQWEST, AtMost(1.0)),
        itself("own-time", RUST, AtMost(2.0)),
        itself("client", RUST, AtMost(1.0)),
        itself("crates", RUST, AtMost(110.0)),
        itself("library", PYTHON, AtMost(4.5)),
        itself("library", NODE, AtMost(4.5)),
        to_this("import", PYTHON, HTTP_CLIENT, AtMost(0.25)),
        itself("modules", PYTHON, AtMost(8.0)),
        to_this("memory-import", PYTHON, HTTP_CLIENT, AtMost(1.0)),
        to_this("memory", PYTHON, HTTP_CLIENT, AtMost(1.0)),
        to_this("start-http", PYTHON, "Python alone", AtMost(1.5)),
        to_this("start-https", PYTHON, REQUESTS, AtMost(0.4)),
        to_this("cpu-50", ASYNC_CLIENT, AIOHTTP, AtMost(0.35)),
        to_this("calls-50", ASYNC_CLIENT, AIOHTTP, AtLeast(3.0)),
        to_this("latency-1", ASYNC_CLIENT, AIOHTTP, AtMost(1.0)),
        to_this("latency-1", CLIENT, REQUESTS, AtMost(0.5)),
        to_this("cpu-1", CLIENT, REQUESTS, AtMost(0.5)),
        to_this("latency-1", CLIENT, HTTP_CLIENT, AtMost(1.0)),
        to_this("cpu-1", CLIENT, HTTP_CLIENT, AtMost(1.0)),
        Target {
            slug: "calls-8",
            row: CLIENT,
            what: "ours / one thread",
            bound: AtLeast(1.0),
            figure: of("calls-8", CLIENT)
                .zip(one_thread)
                .map(|(eight, one)| eight / one),
        },
        to_the_core(ASYNC_CLIENT, AtLeast(0.6)),
        itself("package", PYTHON, AtMost(3.0)),
        itself("packages", PYTHON, AtMost(1.0)),
        itself("import", NODE, AtMost(10.0)),
        Target {
            slug: "memory",
            row: "Node alone",
            what: "ours - this",
            bound: AtMost(8.0),
            figure: of("memory", NODE)
                .zip(of("memory", "Node alone"))
                .map(|(ours, bare)| ours - bare),
        },
        to_this("cpu-50", NODE, UNDICI, AtMost(0.9)),
        to_this("calls-50", NODE, UNDICI, AtLeast(1.25)),
        to_this("latency-1", NODE, UNDICI, AtMost(1.0)),
        to_the_core(NODE, AtLeast(0.6)),
        itself("package", NODE, AtMost(3.0)),
        itself("packages", NODE, AtMost(2.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Row;

    #[test]
    fn a_target_compares_ours_with_the_client_of_its_row() {
        let row = |name: &str, figures: &[f64]| Row {
            name: name.to_owned(),
            figures: figures.iter().copied().collect(),
            server: None,
        };
        let question = |slug, rows| Question {
            slug,
            title: "",
            unit: "",
            more_is_better: false,
            rows,
        };
        let questions = [
            question(
                "calls-50",
                vec![
                    row(RUST, &[40.0, 50.0]),
                    row(REQWEST, &[50.0, 50.0]),
                    row(NODE, &[9.0]),
                ],
            ),
            question("memory", vec![row(NODE, &[45.0]), row("Node alone", &[40.0])]),
            question("latency-1", vec![row(CLIENT, &[100.0])]),
            question("calls-8", vec![row(CLIENT, &[25_000.0])]),
        ];
        let figure = |slug: &str, row: &str| {
            let targets = all(&questions);
            let target = targets
                .iter()
                .find(|target| target.slug == slug && target.row == row)
                .unwrap();
            target.figure
        };
        assert_eq!(figure("calls-50", REQWEST), Some(0.9));
        assert_eq!(figure("calls-50", NODE), Some(0.2));
        assert_eq!(figure("memory", "Node alone"), Some(5.0));
        assert_eq!(figure("calls-8", CLIENT), Some(2.5));
        assert_eq!(figure("import", NODE), None);
    }
}
