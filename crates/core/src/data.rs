//! What every layer speaks of: errors, outcomes, checked input, and text that comes from outside.

pub(crate) mod error;
pub(crate) mod input;
pub(crate) mod origin;
pub(crate) mod outcome;
pub(crate) mod outside;
pub(crate) mod secret;
pub(crate) mod text;
