//! What `cargo xtask` and the laboratory (`crates/bench`, `crates/matrix`, `crates/torture`) share: running other
//! programs, Python environments, npm, and building the packages.
//!
//! The crate has no dependencies, so that `cargo xtask` itself compiles in a second.

pub mod crates;
pub mod node;
pub mod package;
pub mod platforms;
pub mod python;
pub mod run;
mod standard_library;

/// The examples of the README, compiled. Not in the crate `feishu-feed-card`: its package holds the README elsewhere.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The examples in Rust of the guide. They run against the sandbox that `scripts/snippets.py` starts.
#[cfg(doctest)]
mod guide {
    macro_rules! pages {
        ($($name:ident $page:literal),* $(,)?) => {
            $(#[doc = include_str!(concat!("../../../docs/guide/", $page))] struct $name;)*
        };
    }
    pages! {
        GettingStarted "en/src/getting-started.md", GettingStartedZh "zh/src/getting-started.md",
        Options "en/src/options.md", OptionsZh "zh/src/options.md",
        Errors "en/src/errors.md", ErrorsZh "zh/src/errors.md",
        Quota "en/src/quota.md", QuotaZh "zh/src/quota.md",
        Reliability "en/src/reliability.md", ReliabilityZh "zh/src/reliability.md",
        Testing "en/src/testing.md", TestingZh "zh/src/testing.md",
    }
}
