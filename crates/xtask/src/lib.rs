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

/// The examples of the project's README, compiled. Each crate compiles those of its own README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
