//! Citations: code, tests and documents may only cite documents of this repository, so that a reader finds them.
//!
//! A citation is `docs/<file>.md#<anchor>`. Documents also link to each other, and to their own anchors.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use tools::run::{Run, output};

/// Exempt, because its tests contain dead citations.
const THIS: &str = "crates/xtask/src/citations.rs";

/// Returns an error that lists the dead citations, and those of documents outside the repository.
pub(crate) fn check(run: &Run) -> Result<(), String> {
    let mut list = run.command("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = output(list).ok_or("git cannot list the files of this clone")?;
    let files: BTreeMap<&str, String> = list
        .split('\0')
        .filter(|file| !file.is_empty() && *file != THIS)
        // A file that is not text has no citations; one that is deleted is still listed.
        .filter_map(|file| Some((file, fs::read_to_string(run.root.join(file)).ok()?)))
        .collect();
    let wrong = wrong(&files);
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("citations\n  {}", wrong.join("\n  ")))
}

fn wrong(files: &BTreeMap<&str, String>) -> Vec<String> {
    let documents: HashMap<&str, HashSet<String>> = files
        .iter()
        .filter(|(file, _)| is_markdown(file))
        .map(|(file, text)| (*file, anchors(text)))
        .collect();
    let mut wrong = Vec::new();
    for (file, text) in files {
        for (number, line) in text.lines().enumerate() {
            let mut report = |what: &str| wrong.push(format!("{file}:{}: {what}", number + 1));
            for (document, anchor) in citations(file, line) {
                match documents.get(document.as_str()) {
                    None => report(&format!("there is no {document}")),
                    Some(anchors) if !anchors.contains(anchor) => {
                        report(&format!("{document} has no anchor {anchor}"));
                    }
                    Some(_) => {}
                }
            }
            for word in ["FACTS", "DESIGN"] {
                if has_word(line, word) {
                    report(&format!(
                        "{word} is not in the repository: cite an anchor in docs"
                    ));
                }
            }
            if has_bare_issue(line) {
                report("cite an anchor in docs, or a public issue as owner/repository#number");
            }
        }
    }
    wrong
}

/// Returns the documents and anchors that a line of a file cites.
fn citations<'a>(file: &str, line: &'a str) -> Vec<(String, &'a str)> {
    let is_document = file.starts_with("docs/") && is_markdown(file);
    let mut found = Vec::new();
    for (hash, _) in line.match_indices('#') {
        let (before, after) = (&line[..hash], &line[hash + 1..]);
        let anchor = &after[..after.find(|letter| !is_of_anchor(letter)).unwrap_or(after.len())];
        let path = &before[before.trim_end_matches(is_of_path).len()..];
        if anchor.is_empty() {
            continue;
        }
        if is_document && path.is_empty() && before.ends_with("](") {
            found.push((file.to_owned(), anchor));
        } else if is_markdown(path) && !path.starts_with('/') {
            let from_root = path.trim_start_matches("../").trim_start_matches("./");
            if from_root.starts_with("docs/") {
                found.push((from_root.to_owned(), anchor));
            } else if is_document {
                found.push((beside(file, path), anchor));
            }
        }
    }
    found
}

fn is_markdown(file: &str) -> bool {
    Path::new(file)
        .extension()
        .is_some_and(|extension| extension == "md")
}

/// Resolves a relative link in a file to a path from the root.
fn beside(file: &str, link: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Returns the anchors of a Markdown document: those that GitHub makes from headings, and `<a id="…">`.
fn anchors(markdown: &str) -> HashSet<String> {
    let mut anchors = HashSet::new();
    let mut times: HashMap<String, u32> = HashMap::new();
    let mut is_code = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        for (start, id) in line.match_indices("<a id=\"") {
            let name = &line[start + id.len()..];
            anchors.extend(name.split('"').next().map(str::to_owned));
        }
        let heading = line.trim_start_matches('#');
        if heading.len() < line.len() && heading.starts_with(' ') {
            let anchor = anchor_of(heading);
            let before = times.entry(anchor.clone()).or_default();
            anchors.insert(match *before {
                0 => anchor,
                before => format!("{anchor}-{before}"),
            });
            *before += 1;
        }
    }
    anchors
}

/// Returns GitHub's anchor for a heading: lower case, hyphens for spaces, no punctuation, no targets of links.
fn anchor_of(heading: &str) -> String {
    let mut text = String::new();
    let mut rest = heading.trim();
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    text.to_lowercase()
        .chars()
        .filter(|letter| is_of_anchor(*letter) || *letter == ' ')
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

fn is_of_path(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '.' | '/' | '_' | '-')
}

fn is_of_anchor(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '-' | '_')
}

/// Whether a line contains a whole word. A part of a longer name does not count.
fn has_word(line: &str, word: &str) -> bool {
    let is_of_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(start, _)| {
        !line[..start].ends_with(is_of_name) && !line[start + word.len()..].starts_with(is_of_name)
    })
}

/// Whether a line cites an issue without its repository.
fn has_bare_issue(line: &str) -> bool {
    let line = line.to_lowercase();
    ["issue #", "issues #"].iter().any(|issue| {
        line.match_indices(issue)
            .any(|(start, _)| line[start + issue.len()..].starts_with(|letter: char| letter.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_in(files: &[(&'static str, &str)]) -> Vec<String> {
        wrong(
            &files
                .iter()
                .map(|(file, text)| (*file, (*text).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn anchors_are_those_of_github() {
        let markdown = "\
# What is known: 50 calls/s
<a id=\"limits\"></a>**Limits.** <a id=\"scope\"></a>
## The `tenant_access_token`
### Errors, and [hints](other.md#there)
### 错误处理
## Twice
## Twice
#no-heading
```sh
# not-a-heading
```
";
        let mut found: Vec<String> = anchors(markdown).into_iter().collect();
        found.sort();
        let expected = [
            "errors-and-hints",
            "limits",
            "scope",
            "the-tenant_access_token",
            "twice",
            "twice-1",
            "what-is-known-50-callss",
            "错误处理",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_dead_citation_is_found_in_any_file() {
        let wrong = wrong_in(&[
            ("docs/platform.md", "## Hosts\n"),
            (
                "a.rs",
                "/// The host (docs/platform.md#hosts).\n/// Ids: docs/platform.md#ids.\n",
            ),
            ("b.json", r#"{"source": "docs/platfrom.md#hosts"}"#),
            ("crates/c/README.md", "[hosts](../../docs/platform.md#host)"),
        ]);
        let expected = [
            "a.rs:2: docs/platform.md has no anchor ids",
            "b.json:1: there is no docs/platfrom.md",
            "crates/c/README.md:1: docs/platform.md has no anchor host",
        ];
        assert_eq!(wrong, expected);
    }

    #[test]
    fn links_between_documents_are_citations() {
        let wrong = wrong_in(&[
            ("README.md", "# Options\n"),
            (
                "docs/a.md",
                "# A\n[1](#a) [2](b.md#b) [3](#c) [4](b.md#c) [5](../README.md#options)\n",
            ),
            ("docs/b.md", "# B\n"),
            (
                "docs/guide/c.md",
                "[1](../a.md#a) [2](./d.md#d) [3](https://example.com/x.md#y)\n",
            ),
        ]);
        let expected = [
            "docs/a.md:2: docs/a.md has no anchor c",
            "docs/a.md:2: docs/b.md has no anchor c",
            "docs/guide/c.md:1: there is no docs/guide/d.md",
        ];
        assert_eq!(wrong, expected);
    }

    #[test]
    fn documents_outside_the_repository_are_found() {
        let found = [
            "(FACTS: hosts)",
            "as DESIGN says",
            "Issue #3: tokens",
            "see issues #3 and #4",
        ];
        for text in found {
            assert_eq!(wrong_in(&[("a.py", text)]).len(), 1, "{text}");
        }
        let fine = [
            "for name in _FACTS",
            "MOST_DESIGNS",
            "an issue: tokio-rs/tokio#4522",
            "issue #n",
            "a colour: #646a73",
        ];
        for text in fine {
            assert_eq!(wrong_in(&[("a.py", text)]), [""; 0], "{text}");
        }
    }
}
