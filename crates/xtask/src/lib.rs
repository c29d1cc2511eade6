//! The examples of the project's README, compiled. Each crate compiles those of its own README.

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The examples in Rust of the guide. They run against the sandbox that `docs/guide/scripts/snippets.py` starts.
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
