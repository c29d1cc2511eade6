//! What every layer speaks of: errors, outcomes, checked input, text that comes from outside, and what a task was
//! started for.

pub(crate) mod error;
pub(crate) mod input;
pub(crate) mod origin;
pub(crate) mod outcome;
pub(crate) mod outside;
pub(crate) mod secret;
pub(crate) mod text;
