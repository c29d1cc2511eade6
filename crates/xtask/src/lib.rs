//! The examples of the README, compiled. They are not tested in the crate `feishu-feed-card`, whose package holds the
//! README elsewhere.

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
