//! Requirements of the Rust API guidelines for public types, and checks of the examples in the documentation.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests, outside of any test function"
)]

use std::error::Error as StdError;
use std::fmt::Debug;
use std::fs;
use std::path::Path;

use feishu_feed_card::{
    BoxError, CallFuture, Client, ClientBuilder, ConnectionReason, Error, ErrorKind, FailedUserReason,
    FieldViolation, Item, Many, Outcome, PermissionViolation, Progress, ProvidedToken, QuotaHandle,
    RateLimit, Report, Request, SetTimeSensitive, Station, Unfinished, UserIdType, UserIds,
};
use feishu_feed_card_sandbox as sandbox;

/// C-SEND-SYNC and C-DEBUG. This does not compile if a type lacks one of the traits.
#[test]
fn public_types_go_to_other_threads_and_can_be_debugged() {
    fn shared<T: Send + Sync + Debug + 'static>() {}
    fn moved<T: Send + Unpin + Debug + 'static>() {}

    shared::<Client>();
    shared::<ClientBuilder>();
    shared::<ConnectionReason>();
    shared::<Error>();
    shared::<ErrorKind>();
    shared::<FailedUserReason>();
    shared::<FieldViolation>();
    shared::<Item>();
    shared::<Outcome>();
    shared::<PermissionViolation>();
    shared::<Progress>();
    shared::<ProvidedToken>();
    shared::<QuotaHandle>();
    shared::<RateLimit>();
    shared::<Report>();
    shared::<Request>();
    shared::<SetTimeSensitive>();
    shared::<Station>();
    shared::<Unfinished>();
    shared::<UserIdType>();
    shared::<UserIds>();
    shared::<sandbox::Control>();
    shared::<sandbox::ControlError>();
    shared::<sandbox::Delivery>();
    shared::<sandbox::Fault>();
    shared::<sandbox::Model>();
    shared::<sandbox::RecordedRequest>();
    shared::<sandbox::Sandbox>();
    shared::<sandbox::SandboxBuilder>();
    shared::<sandbox::Stage>();
    shared::<sandbox::World>();
    // Futures and streams, which one task polls.
    moved::<CallFuture>();
    moved::<Many>();
}

/// C-GOOD-ERR: the printed chain of sources has each text once.
#[tokio::test]
async fn no_error_repeats_its_source() {
    #[derive(Debug)]
    struct Outer(std::io::Error);

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the vault is sealed")
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    let client = Client::builder()
        .token_provider(|| async {
            Err(BoxError::from(Outer(std::io::Error::other(
                "no key for the vault",
            ))))
        })
        .build()
        .unwrap();
    let of_provider = client
        .set_time_sensitive("oc_1", ["ou_1"], true)
        .await
        .unwrap_err();
    let of_file = Client::builder()
        .tenant_access_token("t-1")
        .ca_certs("/there/is/no/such.pem")
        .build()
        .unwrap_err();

    let of_provider = texts(&of_provider);
    assert_eq!(of_provider.len(), 3, "{of_provider:?}");
    assert!(
        of_provider[0].starts_with("the token provider failed (station token)"),
        "{of_provider:?}"
    );
    assert_eq!(of_provider[1..], ["the vault is sealed", "no key for the vault"]);
    assert_eq!(texts(&of_file).len(), 2);
}

/// The messages of a chain of errors. Fails if one of them contains another.
fn texts(error: &Error) -> Vec<String> {
    let mut texts = Vec::new();
    let mut next: Option<&dyn StdError> = Some(error);
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    for (index, text) in texts.iter().enumerate() {
        for (other, longer) in texts.iter().enumerate() {
            assert!(index == other || !longer.contains(text), "twice: {texts:?}");
        }
    }
    texts
}

/// Readers paste the visible part of an example. It must be a list of items, which compile anywhere. Hidden lines only
/// run them.
#[test]
fn examples_compile_as_they_are_read() {
    let mut checked = 0;
    for root in ["src", "../sandbox/src"] {
        for (file, source) in sources(Path::new(root)) {
            for example in examples(&source) {
                checked += 1;
                let is_hidden = |line: &str| line == "#" || line.starts_with("# ");
                let seen: Vec<&str> = example
                    .iter()
                    .copied()
                    .take_while(|line| !is_hidden(line))
                    .collect();
                let hidden = &example[seen.len()..];
                assert!(
                    hidden.iter().all(|line| is_hidden(line)),
                    "{file}: something is hidden in the middle of an example:\n{}",
                    example.join("\n")
                );
                if let Some(first) = hidden.first() {
                    assert!(
                        ["# #[tokio::main", "# fn main"]
                            .iter()
                            .any(|main| first.starts_with(main)),
                        "{file}: {first}"
                    );
                }
                for line in seen {
                    assert!(
                        is_of_an_item(line),
                        "{file}: not an item, so that it does not compile where it is pasted: {line}"
                    );
                }
            }
        }
    }
    assert!(checked > 20, "only {checked} examples were found");
}

/// Whether a line begins or ends an item, or is inside of one.
fn is_of_an_item(line: &str) -> bool {
    const BEGINS: [&str; 12] = [
        " ",
        "}",
        ") -> ",
        "//",
        "#[",
        "async fn ",
        "enum ",
        "fn ",
        "impl ",
        "pub ",
        "struct ",
        "use ",
    ];
    line.is_empty() || BEGINS.iter().any(|begin| line.starts_with(begin))
}

fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// The Rust examples in a file's documentation. Those that must not compile are left out.
fn examples(source: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    let mut open: Option<(bool, Vec<&str>)> = None;
    for line in source.lines() {
        let line = line.trim_start();
        let Some(line) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            continue;
        };
        let line = line.strip_prefix(' ').unwrap_or(line);
        match (line.strip_prefix("```"), open.take()) {
            (Some(kind), None) => open = Some((matches!(kind, "" | "no_run"), Vec::new())),
            (Some(_), Some((true, example))) => found.push(example),
            (Some(_), Some((false, _))) | (None, None) => {}
            (None, Some((is_rust, mut example))) => {
                example.push(line);
                open = Some((is_rust, example));
            }
        }
    }
    found
}

/// Otherwise a program could fail to compile for another reason than its mistake.
#[test]
fn mistakes_differ_in_one_line_from_what_compiles() {
    let text = include_str!("mistakes.md");
    let programs: Vec<(&str, Vec<&str>)> = text
        .split("```rust,")
        .skip(1)
        .map(|rest| {
            let (kind, rest) = rest.split_once('\n').unwrap();
            let (program, _) = rest.split_once("```").unwrap();
            (kind, program.lines().collect())
        })
        .collect();
    assert!(programs.len() > 20, "only {} programs were found", programs.len());
    for pair in programs.chunks(2) {
        let [(right_kind, right), (wrong_kind, wrong)] = pair else {
            panic!("a program without its counterpart: {pair:?}");
        };
        assert!(
            *right_kind == "no_run" && wrong_kind.starts_with("compile_fail"),
            "{right_kind}, {wrong_kind}"
        );
        let differing = right.iter().zip(wrong).filter(|(one, other)| one != other);
        assert_eq!(
            (differing.count(), right.len()),
            (1, wrong.len()),
            "{right:?} {wrong:?}"
        );
    }
}

/// Users of the platform's own SDKs look for the option that selects Lark.
#[test]
fn lark_is_named_wherever_the_base_url_is_explained() {
    for (file, explained) in [
        ("src/lib.rs", "For an app of Lark"),
        ("src/client.rs", "`FEISHU_BASE_URL`"),
        ("src/options.rs", "Sets the URL of the platform"),
        ("README.md", "| `base_url` |"),
        ("../../README.md", "FEISHU_BASE_URL"),
        ("../../README.zh-CN.md", "https://open.larksuite.com"),
        ("../../python/README.md", "| `base_url` |"),
        ("../../node/README.md", "| `baseUrl` |"),
        ("../../docs/guide/en/src/options.md", "| `base_url` |"),
        ("../../docs/guide/zh/src/options.md", "| `base_url` |"),
        ("../../python/src/feishu_feed_card/_client.py", "base_url: The "),
        ("../../node/src/client.ts", "baseUrl?: string"),
    ] {
        let text = fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let place = lines.iter().position(|line| line.contains(explained));
        let place = place.unwrap_or_else(|| panic!("{file} does not explain base_url"));
        let around = lines[place.saturating_sub(1)..(place + 3).min(lines.len())].join("\n");
        assert!(
            around.contains("https://open.larksuite.com"),
            "{file} explains base_url without Lark's: {around}"
        );
    }
}

/// The text of a page of the guide, in each language.
fn guide(page: &str) -> [String; 2] {
    ["en", "zh"]
        .map(|language| fs::read_to_string(format!("../../docs/guide/{language}/src/{page}")).unwrap())
}

#[test]
fn the_guide_explains_every_kind_of_error_reason_and_station() {
    let pages = guide("errors.md");
    for kind in ErrorKind::ALL {
        assert!(
            pages[0].contains(&format!("`{kind}`, in Rust `{kind:?}`")),
            "{kind}"
        );
        assert!(
            pages[1].contains(&format!("`{kind}`，Rust 里是 `{kind:?}`")),
            "{kind}"
        );
    }
    let source = fs::read_to_string("src/data/error.rs").unwrap();
    let mut found = 0;
    for name in ["ConnectionReason", "Station"] {
        let (_, names) = source.split_once(&format!("impl {name} {{")).unwrap();
        let (names, _) = names.split_once("\n    }\n").unwrap();
        for text in names
            .split('"')
            .skip(1)
            .step_by(2)
            .filter(|text| !text.is_empty())
        {
            found += 1;
            let row = format!("| `{text}` | ");
            assert!(pages.iter().all(|page| page.contains(&row)), "{name}: {text}");
        }
    }
    assert!(found >= 17, "only {found} names were found");
}

#[test]
fn the_guide_explains_every_option() {
    let pages = guide("options.md");
    let source = fs::read_to_string("src/options.rs").unwrap();
    let (_, builder) = source.split_once("impl ClientBuilder {").unwrap();
    let (builder, _) = builder.split_once("pub fn build(").unwrap();
    let mut found = 0;
    for method in builder
        .split("\n\n")
        .filter(|method| !method.contains("#[doc(hidden)]"))
    {
        let Some((_, method)) = method.split_once("pub fn ") else {
            continue;
        };
        let name = method.split('(').next().unwrap();
        found += 1;
        let is_explained = [
            format!("`{name}`"),
            format!("`.{name}("),
            format!("`Client.{name}("),
        ];
        let explains = |page: &String| is_explained.iter().any(|text| page.contains(text));
        assert!(pages.iter().all(explains), "{name}");
    }
    assert!(found > 20, "only {found} options were found");
}
