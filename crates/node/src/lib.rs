//! The native half of the npm package `feishu-feed-card`: takes plain data from the TypeScript facade in
//! `node/src`, hands plain data back. What is called with wrong data answers with an [`data::ErrorData`];
//! a JavaScript exception out of here is a bug of this package.

#![allow(
    clippy::needless_pass_by_value,
    clippy::trivially_copy_pass_by_ref,
    reason = "how arguments cross the border is for napi's macros to say"
)]
#![cfg_attr(
    test,
    allow(dead_code, reason = "napi registers what it exports only outside of tests")
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
