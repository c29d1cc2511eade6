//! What the project's commands share (`crates/xtask`, `crates/bench`, `crates/matrix`, `crates/torture`): running other
//! programs, Python environments, npm, and building packages for each platform.
//!
//! The crate has no dependencies, so that `cargo xtask` itself compiles in a second.

pub mod artifacts;
pub mod cpython;
pub mod crates;
pub mod debian;
pub mod emulated;
pub mod node;
pub mod package;
pub mod platforms;
pub mod python;
pub mod run;
mod standard_library;
