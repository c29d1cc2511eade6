//! The client, and its two calls: for a group chat and for the bot's own chat.

use std::fmt;
use std::future::{Future, IntoFuture, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::call::{Core, QueuedCall};
use crate::data::error::Error;
use crate::data::input::{
    Arguments, Call, Target, UserIdType, check_filled, check_user_ids, without_repeats,
};
use crate::data::outcome::{Outcome, UserIds};
use crate::data::text::text;
use crate::options::ClientBuilder;
use crate::stations::closing::{InProgress, client_closed};
use crate::stations::deadline::{TimeLimit, after};
use crate::stations::quota::QuotaHandle;
use crate::stations::token::fetch::Identity;

/// Pins group chats to the top of people's message lists, and unpins them again.
///
/// Cloning is cheap, and clones share the token, the connections and the quota. Calls need a tokio runtime with its
/// time and IO drivers. Connections and token fetches run on the runtime of the call that started them. Several
/// runtimes can share a client: each has its own connections, and a call never waits for a token fetch of another
/// runtime.
///
/// ```no_run
/// use feishu_feed_card::{Client, Error, Outcome};
///
/// async fn pin(client: &Client, chat: &str, users: &[&str]) -> Result<Outcome, Error> {
///     client.set_time_sensitive(chat, users, true).await
/// }
///
/// #[tokio::main]
/// async fn main() -> Result<(), Error> {
///     let client = Client::builder().app("cli_…", "the app's secret").build()?;
///     pin(&client, "oc_…", &["ou_…"]).await?.into_result().map(drop)
/// }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
}

impl Client {
    pub(crate) fn new(core: Core) -> Self {
        Self { core: Arc::new(core) }
    }

    /// Returns a builder with the default options.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Creates a client for the app in the environment variables `FEISHU_APP_ID` and `FEISHU_APP_SECRET`.
    /// `FEISHU_BASE_URL` sets the base URL: `https://open.larksuite.com` for Lark; default: `https://open.feishu.cn`.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `FEISHU_APP_ID` or `FEISHU_APP_SECRET` is not set, or a
    /// value is invalid.
    pub fn from_env() -> Result<Self, Error> {
        Self::builder().from_env().build()
    }

    /// Pins (`true`) or unpins (`false`) a group chat at the top of these users' message lists.
    ///
    /// The bot must be in the chat. Users who are not in the chat are listed in [`Outcome::failed_user_reasons`].
    /// Repeated ids are sent once. More users than [`max_users_per_request`](ClientBuilder::max_users_per_request) are
    /// split into several requests. The call sets a state, so repeating it does no harm. Dropping the future stops the
    /// call.
    ///
    /// # Errors
    ///
    /// The future returns an [`Error`] of any [`ErrorKind`](crate::ErrorKind) except
    /// [`PartialFailure`](crate::ErrorKind::PartialFailure). The error accounts for every user.
    ///
    /// # Panics
    ///
    /// The future panics if it is polled outside of a tokio runtime, or in one without its time and IO drivers.
    pub fn set_time_sensitive(
        &self,
        feed_card_id: impl Into<String>,
        user_ids: impl IntoIterator<Item = impl AsRef<str>>,
        time_sensitive: bool,
    ) -> SetTimeSensitive {
        let user_ids = user_ids.into_iter().map(|id| id.as_ref().to_owned()).collect();
        self.call(
            Target::Chat(String::into(feed_card_id.into())),
            user_ids,
            time_sensitive,
        )
    }

    /// Pins or unpins the bot's own chat at the top of these users' message lists.
    ///
    /// # Errors
    ///
    /// As [`set_time_sensitive`](Self::set_time_sensitive).
    ///
    /// # Panics
    ///
    /// As [`set_time_sensitive`](Self::set_time_sensitive).
    pub fn set_bot_time_sensitive(
        &self,
        user_ids: impl IntoIterator<Item = impl AsRef<str>>,
        time_sensitive: bool,
    ) -> SetTimeSensitive {
        let user_ids = user_ids.into_iter().map(|id| id.as_ref().to_owned()).collect();
        self.call(Target::Bot, user_ids, time_sensitive)
    }

    pub(crate) fn call(
        &self,
        target: Target,
        user_ids: Vec<String>,
        time_sensitive: bool,
    ) -> SetTimeSensitive {
        SetTimeSensitive {
            client: self.clone(),
            arguments: Arguments {
                target,
                user_ids,
                time_sensitive,
                user_id_type: UserIdType::default(),
                timeout: None,
            },
        }
    }

    /// Sets the ticket of a store app, which the platform pushes to the app's event endpoint.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the ticket is empty or the client is not for a store app.
    /// [`ClientClosed`](crate::ErrorKind::ClientClosed) if the client is closed.
    pub fn set_app_ticket(&self, app_ticket: impl Into<String>) -> Result<(), Error> {
        if self.core.closing.is_closed() {
            return Err(client_closed());
        }
        let app_ticket = app_ticket.into();
        let Identity::Store(app) = &self.core.tokens.source().identity else {
            return Err(Error::invalid_input(
                text!("{app_ticket}"),
                "passed to a client that is not for a store app",
                text!("a client with a {tenant_key}"),
            ));
        };
        check_filled(text!("{app_ticket}"), Some(&app_ticket))?;
        app.ticket.send_replace(Some(app_ticket.into()));
        self.core.tokens.forget_refusal();
        Ok(())
    }

    /// Returns the client's quota, to [share](ClientBuilder::quota) it with another client of the same app. `None` if
    /// pacing is off.
    pub fn quota(&self) -> Option<QuotaHandle> {
        self.core.quota.clone()
    }

    /// Closes the client and its clones, and waits for the calls in progress. Calls end by their deadlines, but those
    /// of a [`Many`](crate::Many) may wait longer, for the quota. [`close_within`](Self::close_within) limits the wait.
    ///
    /// The client is closed when this method returns, even if the future is never polled. New calls fail with
    /// [`ClientClosed`](crate::ErrorKind::ClientClosed), and a [`Many`](crate::Many) stops reading requests. If its
    /// input has a request ready, that one is still read, and fails with the same error.
    ///
    /// The future waits for every call in progress, including a [`CallFuture`] that nobody polls. Idle connections are
    /// closed when the last clone is dropped. Closing a closed client waits again.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use feishu_feed_card::Client;
    ///
    /// async fn shut_down(client: Client) {
    ///     client.close_within(Duration::from_secs(5)).await;
    ///     let error = client.set_bot_time_sensitive(["ou_1"], true).await.unwrap_err();
    ///     println!("{}: {:?} were not attempted", error.kind(), error.users().not_attempted);
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// #     let sandbox = feishu_feed_card_sandbox::Sandbox::builder().start()?;
    /// #     let client = Client::builder().app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
    /// #     shut_down(client).await;
    /// #     Ok(())
    /// # }
    /// ```
    pub fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        self.core.closing.close(None)
    }

    /// Like [`close`](Self::close), but stops the calls that are still in progress after `timeout`. They fail with
    /// [`ClientClosed`](crate::ErrorKind::ClientClosed), and the error accounts for every user: a user whose request
    /// was sent and not answered is [`unknown`](crate::UserIds::unknown). The timeout starts when this method is
    /// called; zero stops the calls at once. The future stops calls only while it is polled, and ends at most one
    /// second after the timeout.
    pub fn close_within(&self, timeout: Duration) -> impl Future<Output = ()> + Send + use<> {
        self.core.closing.close(Some(timeout))
    }

    /// Checks a call and takes its place in the order of calls on its chat. Fails if the client is closed, unless the
    /// call already counts as `in_progress`.
    pub(crate) fn begin(
        &self,
        arguments: Arguments,
        limit: TimeLimit,
        in_progress: Option<InProgress>,
    ) -> Result<QueuedCall, Error> {
        let Some(in_progress) = in_progress.or_else(|| self.core.closing.enter()) else {
            let user_ids = without_repeats(arguments.user_ids);
            return Err(client_closed().with_users(UserIds::not_attempted(user_ids)));
        };
        let call = self.check(arguments)?;
        Ok(self.core.queue(call, limit, in_progress))
    }

    /// Checks the arguments, before anything is sent.
    fn check(&self, arguments: Arguments) -> Result<Call, Error> {
        let Arguments {
            target,
            user_ids,
            time_sensitive,
            user_id_type,
            timeout,
        } = arguments;
        let is_store_app = matches!(self.core.tokens.source().identity, Identity::Store(_));
        let checked = if timeout == Some(Duration::ZERO) {
            Err(Error::invalid_input(
                text!("{timeout}"),
                "0",
                "a positive duration",
            ))
        } else {
            target
                .check()
                .and_then(|()| check_user_ids(&user_ids, user_id_type, is_store_app))
        };
        let user_ids = without_repeats(user_ids);
        match checked {
            Ok(()) => Ok(Call {
                target,
                user_ids,
                time_sensitive,
                user_id_type,
            }),
            Err(error) => Err(error.with_users(UserIds::not_attempted(user_ids))),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.core.base_url.as_str())
            .field("tokens", self.core.tokens.source())
            .finish_non_exhaustive()
    }
}

/// A call that has not been made yet. Set its options, then await it.
///
/// Functions that take a future, such as [`tokio::spawn`] and `join_all` of the crate `futures-util`, need
/// [`into_future`](IntoFuture::into_future), which makes the call. The call's timeout and its place in the order of
/// calls on its chat count from there, not from the first poll.
///
/// ```
/// use std::future::IntoFuture;
///
/// use feishu_feed_card::{Client, Error, Outcome};
/// use futures_util::future::join_all;
///
/// async fn pin_in_background(client: &Client, chat: &str, users: &[&str]) -> Result<Outcome, Error> {
///     let task = tokio::spawn(client.set_time_sensitive(chat, users, true).into_future());
///     println!("pinning {chat}");
///     task.await.expect("the call does not panic")
/// }
///
/// async fn pin_all(client: &Client, chats: &[&str], users: &[&str]) -> Vec<Result<Outcome, Error>> {
///     let calls = chats.iter().map(|chat| client.set_time_sensitive(*chat, users, true).into_future());
///     join_all(calls).await
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     use feishu_feed_card_sandbox::{Sandbox, World};
/// #     let sandbox = Sandbox::builder().start()?;
/// #     let client = Client::builder().app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
/// #     assert!(pin_in_background(&client, World::EXAMPLE_CHAT, &[World::EXAMPLE_USER]).await?.ok());
/// #     assert_eq!(pin_all(&client, &[World::EXAMPLE_CHAT, "oc_2"], &[World::EXAMPLE_USER]).await.len(), 2);
/// #     Ok(())
/// # }
/// ```
///
/// For many chats, [`set_time_sensitive_many`](Client::set_time_sensitive_many) limits how many calls run at a time.
#[must_use = "nothing is sent until this is awaited"]
#[derive(Clone, Debug)]
pub struct SetTimeSensitive {
    client: Client,
    arguments: Arguments,
}

impl SetTimeSensitive {
    /// Sets the kind of the user ids. Default: `open_id`.
    pub fn user_id_type(mut self, user_id_type: UserIdType) -> Self {
        self.arguments.user_id_type = user_id_type;
        self
    }

    /// Sets the timeout of this call, including all retries and waits. Default: the client's timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.arguments.timeout = Some(timeout);
        self
    }

    fn begin(self) -> Result<(Client, QueuedCall), Error> {
        let Self { client, arguments } = self;
        let deadline = after(arguments.timeout.unwrap_or(client.core.limits.timeout));
        let queued = client.begin(arguments, TimeLimit::At(deadline), None)?;
        Ok((client, queued))
    }
}

impl IntoFuture for SetTimeSensitive {
    type Output = Result<Outcome, Error>;
    type IntoFuture = CallFuture;

    /// Makes the call: its timeout and its place in the order of calls count from here. Poll the future or drop it,
    /// because opposite calls on the same chat wait for it.
    fn into_future(self) -> Self::IntoFuture {
        CallFuture(match self.begin() {
            Ok((client, queued)) => Box::pin(client.core.run(queued)),
            Err(error) => Box::pin(ready(Err(error))),
        })
    }
}

/// A call in progress. Created by [`SetTimeSensitive::into_future`](IntoFuture::into_future).
///
/// Dropping it stops the call. It is `Send` and `Unpin`, and its type has a name, so that a struct can hold it:
///
/// ```
/// use std::future::IntoFuture;
///
/// use feishu_feed_card::{CallFuture, Client};
/// use futures_util::stream::{FuturesUnordered, StreamExt};
///
/// struct Pins {
///     calls: FuturesUnordered<CallFuture>,
/// }
///
/// impl Pins {
///     fn pin(&self, client: &Client, chat: &str, users: &[&str]) {
///         self.calls.push(client.set_time_sensitive(chat, users, true).into_future());
///     }
///
///     async fn finish(mut self) {
///         while let Some(result) = self.calls.next().await {
///             println!("{result:?}");
///         }
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     use feishu_feed_card_sandbox::{Sandbox, World};
/// #     let sandbox = Sandbox::builder().start()?;
/// #     let client = Client::builder().app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
/// #     let pins = Pins { calls: FuturesUnordered::new() };
/// #     pins.pin(&client, World::EXAMPLE_CHAT, &[World::EXAMPLE_USER]);
/// #     pins.finish().await;
/// #     assert_eq!(sandbox.pinned(World::EXAMPLE_USER), [World::EXAMPLE_CHAT]);
/// #     Ok(())
/// # }
/// ```
#[must_use = "the call makes no progress until this is polled"]
pub struct CallFuture(Pin<Box<dyn Future<Output = Result<Outcome, Error>> + Send>>);

impl Future for CallFuture {
    type Output = Result<Outcome, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for CallFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}
