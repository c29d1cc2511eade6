//! The native module of the npm package `feishu-feed-card`. It exchanges plain data with the TypeScript facade in
//! `node/src`. Functions return an [`data::ErrorData`] for invalid data. A JavaScript exception from this module is a bug
//! of this package.

#![allow(
    clippy::needless_pass_by_value,
    clippy::trivially_copy_pass_by_ref,
    reason = "napi's macros decide how arguments are passed"
)]
#![cfg_attr(
    test,
    allow(dead_code, reason = "napi registers exports only outside of tests")
)]

mod client;
mod data;
mod environment;
mod events;
mod many;
mod names;
mod options;
mod provider;
mod runtime;
mod sandbox;
