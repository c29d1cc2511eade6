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

/// A call allocates some seventy times, on one thread for another to free, and a read buffer of hyper's that is too
/// large for the part of glibc's allocator that needs no lock. Of this module only: Node keeps its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod client;
mod data;
mod environment;
mod events;
mod many;
mod options;
mod provider;
mod runtime;
mod sandbox;
