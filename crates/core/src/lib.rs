//! 即时提醒, the time-sensitive feed card of the Feishu/Lark Open Platform: pins a group chat to the top
//! of chosen people's message lists until it is unpinned.
//!
//! ```no_run
//! use feishu_feed_card::Client;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), feishu_feed_card::Error> {
//!     let client = Client::builder().app("cli_…", "the app's secret").build()?;
//!     let outcome = client.set_time_sensitive("oc_…", ["ou_…"], true).await?;
//!     println!("{} reached, {} not", outcome.users.reached.len(), outcome.users.failed.len());
//!     Ok(())
//! }
//! ```
//!
//! For an app of Lark, add `.base_url("https://open.larksuite.com")`. The examples need the crate `tokio` with its
//! features `macros` and `rt-multi-thread`. Without an account, try them against the crate `feishu-feed-card-sandbox`,
//! a stand-in for the platform.
//!
//! The client fetches and renews the app's token, stays within the platform's quota, retries what is safe to retry,
//! keeps opposite calls on one chat in order, and bounds every wait by a deadline. [`Error`] says what happened, where,
//! and what to do.

#![warn(clippy::missing_errors_doc, missing_debug_implementations)]

// The layers, from top to bottom. A layer uses only itself and those below it: see `tests/layers.rs`.
//
// The interface for callers and bindings.
#[doc(hidden)]
pub mod binding;
mod client;
mod many;
mod options;
// One call.
mod call;
// What a call waits for: its turn, a slot, the token, its deadline.
mod stations;
// The platform's protocol, and how requests reach the platform.
mod platform;
#[doc(hidden)]
pub mod transport;
// Types that all layers share.
mod data;

#[cfg(test)]
mod simulation;

pub use client::{CallFuture, Client, SetTimeSensitive};
pub use data::error::{
    BoxError, ConnectionReason, Error, ErrorKind, FieldViolation, PermissionViolation, Station,
};
pub use data::input::{Request, UserIdType};
pub use data::outcome::{FailedUserReason, Outcome, UserIds};
pub use many::{Item, Many, Progress, Report, Unfinished};
pub use options::ClientBuilder;
pub use stations::quota::{QuotaHandle, RateLimit};
pub use stations::token::{ProvidedToken, Providing, TokenProvider, TokenReason};

/// The examples of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Programs that must not compile.
#[cfg(doctest)]
#[doc = include_str!("../tests/mistakes.md")]
struct Mistakes;
