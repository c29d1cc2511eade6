//! Types that all layers share: errors, outcomes, checked input, secrets, texts, and the origins of tasks.

pub(crate) mod error;
pub(crate) mod input;
pub(crate) mod origin;
pub(crate) mod outcome;
pub(crate) mod outside;
pub(crate) mod secret;
pub(crate) mod text;
