//! The outcome of a call, with the result for each user.

use std::collections::HashSet;

use crate::data::error::{Error, ErrorKind};

/// The user ids of a call, by result. Every id is in exactly one of the lists, in the order given.
///
/// ```
/// use feishu_feed_card::{Client, Error};
///
/// async fn pin(client: &Client, chat: &str, users: &[&str]) -> Result<Vec<String>, Error> {
///     let outcome = client.set_time_sensitive(chat, users, true).await?;
///     for user in &outcome.users.failed {
///         eprintln!("{user} does not see {chat} on top");
///     }
///     Ok(outcome.users.reached)
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     use feishu_feed_card_sandbox::{Sandbox, World};
/// #     let sandbox = Sandbox::builder().start()?;
/// #     let client = Client::builder().app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
/// #     let users = [World::EXAMPLE_USER, World::EXAMPLE_OUTSIDER];
/// #     assert_eq!(pin(&client, World::EXAMPLE_CHAT, &users).await?, [World::EXAMPLE_USER]);
/// #     Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserIds {
    /// The platform took the new state for these users.
    pub reached: Vec<String>,
    /// The platform refused the new state, for these users alone or for the whole request.
    pub failed: Vec<String>,
    /// Sent, but the result is unknown: no answer came, or the platform reported failures without naming the users.
    pub unknown: Vec<String>,
    /// Never sent.
    pub not_attempted: Vec<String>,
}

impl UserIds {
    pub(crate) fn not_attempted(user_ids: Vec<String>) -> Self {
        Self {
            not_attempted: user_ids,
            ..Self::default()
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.reached.extend(other.reached);
        self.failed.extend(other.failed);
        self.unknown.extend(other.unknown);
        self.not_attempted.extend(other.not_attempted);
    }
}

/// One user that the platform did not reach (`data.failed_user_reasons[]`). Every listed user has failed, even with an
/// `error_code` of 0, as in the platform's own example.
///
/// ```
/// use feishu_feed_card::Outcome;
///
/// fn complaints(outcome: &Outcome) -> Vec<String> {
///     let reasons = outcome.failed_user_reasons.iter();
///     reasons
///         .map(|reason| format!("{}: {}", reason.user_id.as_deref().unwrap_or("someone"), reason.error_message))
///         .collect()
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     use feishu_feed_card_sandbox::{Sandbox, World};
/// #     let sandbox = Sandbox::builder().start()?;
/// #     let client = feishu_feed_card::Client::builder().app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
/// #     let users = [World::EXAMPLE_USER, World::EXAMPLE_OUTSIDER];
/// #     let outcome = client.set_time_sensitive(World::EXAMPLE_CHAT, users, true).await?;
/// #     let complaint = format!("{}: The user is not in the chat", World::EXAMPLE_OUTSIDER);
/// #     assert_eq!(complaints(&outcome), [complaint]);
/// #     Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedUserReason {
    /// The platform's code for this user.
    pub error_code: i64,
    /// The reason in the platform's words, such as `The user is not in the chat`.
    pub error_message: String,
    /// The user's id. `None` if the app lacks the field permission for this kind of id
    /// (`contact:user.employee_id:readonly` for `user_id`).
    pub user_id: Option<String>,
}

/// The outcome of a call that the platform accepted. Single users may still have failed: see [`ok`](Self::ok) and
/// [`into_result`](Self::into_result).
///
/// ```
/// use feishu_feed_card::{Client, Error, Outcome};
///
/// async fn pin_for_all(client: &Client, chat: &str, users: &[&str]) -> Result<Outcome, Error> {
///     client.set_time_sensitive(chat, users, true).await?.into_result()
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     use feishu_feed_card_sandbox::{Sandbox, World};
/// #     let sandbox = Sandbox::builder().start()?;
/// #     let client = Client::builder().app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
/// #     let users = [World::EXAMPLE_USER, World::EXAMPLE_OUTSIDER];
/// #     let error = pin_for_all(&client, World::EXAMPLE_CHAT, &users).await.unwrap_err();
/// #     assert_eq!(error.kind(), feishu_feed_card::ErrorKind::PartialFailure);
/// #     assert_eq!(error.users().reached, [World::EXAMPLE_USER]);
/// #     Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "single users may have failed: check `ok()` or call `into_result()`"]
pub struct Outcome {
    /// The users that were not reached, in the platform's words. Empty if all were reached.
    pub failed_user_reasons: Vec<FailedUserReason>,
    /// The platform's log ids, one for each answered request, in the order of the user ids.
    pub log_ids: Vec<String>,
    /// The number of HTTP requests that were sent for this call, including retries.
    pub requests: u32,
    /// The user ids of the call, by result.
    pub users: UserIds,
    /// Number of the call, unique in this process: the `call` of its spans and events.
    pub call: Option<u64>,
}

impl Outcome {
    /// Whether every user was reached.
    pub fn ok(&self) -> bool {
        self.failed_user_reasons.is_empty()
    }

    /// The first request's log id. The platform's support asks for it.
    pub fn log_id(&self) -> Option<&str> {
        self.log_ids.first().map(String::as_str)
    }

    /// Returns an error that carries this outcome if some users were not reached.
    ///
    /// # Errors
    ///
    /// [`PartialFailure`](ErrorKind::PartialFailure) if not [`ok`](Self::ok).
    pub fn into_result(self) -> Result<Self, Error> {
        if self.ok() {
            return Ok(self);
        }
        let total = self.users.reached.len() + self.users.failed.len() + self.users.unknown.len();
        let count = self.failed_user_reasons.len();
        let first = &self.failed_user_reasons[0];
        let who = first
            .user_id
            .as_deref()
            .map(|id| format!("{id}: "))
            .unwrap_or_default();
        let more = if count > 1 {
            format!(", and {} more", count - 1)
        } else {
            String::new()
        };
        let why = &first.error_message;
        let mut error = Error::new(
            ErrorKind::PartialFailure,
            format!("{count} of {total} users were not reached ({who}{why}{more})"),
        )
        .with_log_id(self.log_id().map(str::to_owned))
        .with_attempts(self.requests)
        .with_users(self.users.clone());
        if let Some(call) = self.call {
            error.set_call(call);
        }
        Err(error.with_outcome(self))
    }

    /// Sorts the user ids of one answered request by its list of failures. If an entry of the list names no user of the
    /// request, the users without an entry are unknown, not reached.
    pub(crate) fn of_answer(
        user_ids: Vec<String>,
        failed_user_reasons: Vec<FailedUserReason>,
        log_id: Option<String>,
        requests: u32,
    ) -> Self {
        let users = if failed_user_reasons.is_empty() {
            UserIds {
                reached: user_ids,
                ..UserIds::default()
            }
        } else {
            sort_users(user_ids, &failed_user_reasons)
        };
        Self {
            failed_user_reasons,
            log_ids: log_id.into_iter().collect(),
            requests,
            users,
            call: None,
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.failed_user_reasons.extend(other.failed_user_reasons);
        self.log_ids.extend(other.log_ids);
        self.requests += other.requests;
        self.users.append(other.users);
    }
}

fn sort_users(user_ids: Vec<String>, reasons: &[FailedUserReason]) -> UserIds {
    let named: HashSet<&str> = reasons
        .iter()
        .filter_map(|reason| reason.user_id.as_deref())
        .collect();
    let (mut failed, rest): (Vec<_>, Vec<_>) =
        user_ids.into_iter().partition(|id| named.contains(id.as_str()));
    // Entries that name no user of the request: they have no user id, or another kind of id.
    let unnamed =
        reasons.iter().filter(|reason| reason.user_id.is_none()).count() + named.len() - failed.len();
    let mut users = UserIds::default();
    if unnamed == 0 {
        users.reached = rest;
    } else if unnamed >= rest.len() {
        // At least as many failures as remaining users: all of them failed, even if no entry names them.
        failed.extend(rest);
    } else {
        users.unknown = rest;
    }
    users.failed = failed;
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(users: [&str; 3], named: &[Option<&str>]) -> UserIds {
        let reasons: Vec<_> = named
            .iter()
            .map(|id| FailedUserReason {
                user_id: id.map(str::to_owned),
                ..FailedUserReason::default()
            })
            .collect();
        sort_users(users.map(str::to_owned).to_vec(), &reasons)
    }

    #[test]
    fn users_are_sorted_by_the_list_of_failures() {
        let abc = ["a", "b", "c"];
        let users = sorted(abc, &[Some("b")]);
        assert_eq!(
            (users.reached, users.failed),
            (vec!["a".to_owned(), "c".to_owned()], vec!["b".to_owned()])
        );
        let users = sorted(abc, &[Some("b"), None]);
        assert_eq!(
            (users.failed, users.unknown),
            (vec!["b".to_owned()], vec!["a".to_owned(), "c".to_owned()])
        );
        // The id of another user, or of the same user under another kind of id.
        assert_eq!(sorted(abc, &[Some("x")]).unknown, abc);
        assert_eq!(sorted(abc, &[None, None, None]).failed, abc);
        assert_eq!(sorted(abc, &[Some("b"), None, None]).failed.len(), 3);
        let users = sorted(abc, &[Some("a"), Some("a"), None]);
        assert_eq!((users.failed, users.unknown.len()), (vec!["a".to_owned()], 2));
    }
}
