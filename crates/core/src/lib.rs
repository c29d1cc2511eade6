//! 即时提醒, the time-sensitive feed card of the Feishu/Lark Open Platform: pins a group chat to the top
//! of chosen people's message lists until it is unpinned.
//!
//! ```
//! # use feishu_feed_card_sandbox::{Sandbox, World};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sandbox = Sandbox::builder().world(World::example()).start()?;
//! # let base_url = sandbox.base_url();
//! # let chat = "oc_679eaeb583654bff73fefcc6e6371370";
//! # let on_call = ["ou_9d2beb613c85a2412862a49a924558c5"];
//! use feishu_feed_card::Client;
//!
//! let client = Client::builder().app("cli_example", "example-secret").base_url(base_url).build()?;
//! let outcome = client.set_time_sensitive(chat, on_call, true).await?;
//! println!("{} reached, {} not", outcome.users.reached.len(), outcome.users.failed.len());
//! # assert!(outcome.ok());
//! # Ok(()) }
//! ```
//!
//! The client fetches and renews the app's token, stays within the platform's quota, replays what is
//! safe to replay, keeps opposite calls on one chat in order, and bounds every wait by a deadline.
//! [`Error`] says what happened, where, and what to do.

// The layers, each of which uses only those below it; `tests/layers.rs` holds them to that.
//
// What a caller holds.
#[doc(hidden)]
pub mod binding;
mod client;
mod many;
mod options;
// One call.
mod call;
// What it waits for.
mod stations;
// What the platform says, and how it is reached.
mod platform;
#[doc(hidden)]
pub mod transport;
// What all of them speak of.
mod data;

#[cfg(test)]
mod simulation;

pub use client::{Client, SetTimeSensitive};
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
#[doc = include_str!("../../../README.md")]
struct Readme;
