//! The examples of the project's README, compiled. Each crate compiles those of its own README.

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
