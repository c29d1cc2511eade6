//! Many calls: a bounded number of requests is in progress at a time, and results come in the order they finish.

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::{FutureExt, StreamExt};
use tokio::select;
use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Sleep, sleep, sleep_until};
use tracing::instrument::WithSubscriber;

use crate::client::Client;
use crate::data::error::{Error, ErrorKind, Station};
use crate::data::input::{Request, without_repeats};
use crate::data::origin::inherited;
use crate::data::outcome::{Outcome, UserIds};
use crate::data::text::text;
use crate::stations::closing::{InProgress, client_closed};
use crate::stations::deadline::{BatchLimit, TimeLimit, after};
use crate::stations::quota::{Lane, LaneHandle};

/// Default number of requests in progress. The platform takes 50 calls a second, so 100 use the whole quota at a
/// latency of up to 2 s.
pub(crate) const CONCURRENCY: usize = 100;

/// Upper limit of `concurrency`: ten minutes of the platform's quota. It exists because an endless iterator must not
/// fill the memory.
const MAX_CONCURRENT: usize = 10_000;

/// Interval of progress reports while no result arrives.
pub(crate) const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// The result of one request of many. See [`Client::set_time_sensitive_many`] for an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Item<T = ()> {
    /// Position of the request in the input, from 0.
    pub index: usize,
    /// The request's tag.
    pub tag: T,
    /// The request, without its tag.
    pub request: Arc<Request>,
    /// The result of the call.
    pub result: Result<Outcome, Error>,
}

/// Progress of many calls.
///
/// ```
/// use feishu_feed_card::{Client, Error, Request};
///
/// async fn pin_all(client: &Client, requests: Vec<Request>) -> Result<(), Error> {
///     let mut many = client.set_time_sensitive_many(requests).on_progress(|progress| {
///         eprintln!("{} of {:?}, {:?} to go", progress.done, progress.total, progress.eta);
///     });
///     while let Some(item) = many.next().await {
///         println!("{} is done", item?.index);
///     }
///     assert_eq!(Some(many.progress().done), many.progress().total);
///     Ok(())
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     use feishu_feed_card_sandbox::{Sandbox, World};
/// #     let sandbox = Sandbox::builder().start()?;
/// #     let client = Client::builder().app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
/// #     let request = || Request::new(World::EXAMPLE_CHAT, [World::EXAMPLE_USER], true);
/// #     pin_all(&client, vec![request(), request(), request()]).await?;
/// #     Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Requests with a result, including failed ones.
    pub done: usize,
    /// All requests, if the input knows its length.
    pub total: Option<usize>,
    /// Requests with an error, or with users that were not reached.
    pub failed: usize,
    /// Requests that are waiting for a slot of the quota.
    pub waiting_for_quota: usize,
    /// Least time that the quota allows for the remaining requests, if the total is known.
    pub eta: Option<Duration>,
}

/// Final state of many calls, including those that were stopped. `taken` is the sum of `succeeded`, `failed` and the
/// number of `unfinished`. Its [`Display`](fmt::Display) is a summary in one line.
///
/// ```
/// use feishu_feed_card::{Client, Report, Request};
///
/// async fn pin_the_first(client: &Client, requests: Vec<Request>) -> Report {
///     let mut many = client.set_time_sensitive_many(requests).concurrency(1);
///     many.next().await;
///     let report = many.report().await;
///     println!("{report}");
///     for left in &report.unfinished {
///         println!("{}: {:?} were not attempted", left.index, left.users.not_attempted);
///     }
///     report
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     use feishu_feed_card_sandbox::{Sandbox, World};
/// #     let sandbox = Sandbox::builder().start()?;
/// #     let client = Client::builder().app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
/// #     let request = || Request::new(World::EXAMPLE_CHAT, [World::EXAMPLE_USER], true);
/// #     let report = pin_the_first(&client, vec![request(), request(), request()]).await;
/// #     assert_eq!(report.to_string(), "1 taken: 1 succeeded, 0 failed, 0 unfinished; 2 not read");
/// #     Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report<T = ()> {
    /// Requests read from the input.
    pub taken: usize,
    /// Requests with every user reached.
    pub succeeded: usize,
    /// Requests with an error, or with users that were not reached.
    pub failed: usize,
    /// Requests that were not read from the input: 0 if all were read, `None` if the number is unknown.
    pub not_read: Option<usize>,
    /// Items with an error, or with users that were not reached, sorted by index. Includes those in `unread`. Holds at
    /// most the first 10,000 that finished, because an endless input must not fill the memory; `failed` counts all.
    pub failures: Vec<Item<T>>,
    /// Results that [`Many::next`] did not return, sorted by index. `succeeded` and `failed` include them.
    pub unread: Vec<Item<T>>,
    /// Requests that were read, and stopped before they finished, sorted by index.
    pub unfinished: Vec<Unfinished<T>>,
}

impl<T> Default for Report<T> {
    fn default() -> Self {
        Self {
            taken: 0,
            succeeded: 0,
            failed: 0,
            not_read: None,
            failures: Vec::new(),
            unread: Vec::new(),
            unfinished: Vec::new(),
        }
    }
}

impl<T> fmt::Display for Report<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unfinished = self.unfinished.len();
        f.write_str(&summary(
            self.taken,
            self.succeeded,
            self.failed,
            unfinished,
            self.not_read,
        ))
    }
}

/// Formats the counts of a report in one line.
pub fn summary(
    taken: usize,
    succeeded: usize,
    failed: usize,
    unfinished: usize,
    not_read: Option<usize>,
) -> String {
    let [taken, succeeded, failed, unfinished] = [taken, succeeded, failed, unfinished].map(grouped);
    let not_read = not_read.map_or_else(|| "an unknown number".to_owned(), grouped);
    format!(
        "{taken} taken: {succeeded} succeeded, {failed} failed, {unfinished} unfinished; {not_read} not read"
    )
}

/// Formats a number with commas between thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The error at the end of a loop that stopped reading because of `total_timeout`. `None` if all requests were read.
pub(crate) fn not_all_read(taken: usize, not_read: Option<usize>) -> Option<Error> {
    let message = match not_read {
        Some(0) => return None,
        Some(not_read) => text!(
            "the {total_timeout} leaves no time for more: {} of {} requests {} not read",
            grouped(not_read),
            grouped(taken.saturating_add(not_read)),
            if not_read == 1 { "was" } else { "were" },
        ),
        None => text!(
            "the {total_timeout} leaves no time for more requests; the number of unread requests is unknown"
        )
        .into(),
    };
    let hint = text!(
        "Use a longer {total_timeout}, or call again with the requests from index {} on",
        taken
    );
    Some(Error::new(ErrorKind::DeadlineExceeded, message).with_hint(hint))
}

/// A request that was stopped before it finished. See [`Report`] for an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unfinished<T = ()> {
    /// Position of the request in the input, from 0.
    pub index: usize,
    /// The request's tag.
    pub tag: T,
    /// The request, without its tag.
    pub request: Arc<Request>,
    /// What is known about its users.
    pub users: UserIds,
}

/// A request read from the input.
pub(crate) struct NextRequest<T> {
    /// Position in the input.
    pub(crate) index: usize,
    pub(crate) request: Request<T>,
    /// Set if a binding handed the request over before it is read here. The request counts as a call in progress from
    /// then on.
    pub(crate) in_progress: Option<InProgress>,
}

type RequestStream<T> = Pin<Box<dyn Stream<Item = NextRequest<T>> + Send>>;
type OnProgress = Box<dyn FnMut(Progress) + Send>;
/// Kept in [`Many`] and not in the future of [`Many::next`], so that it keeps running when that future is dropped.
type Timer = Pin<Box<Sleep>>;

/// A request in progress.
struct Open<T> {
    index: usize,
    tag: T,
    request: Arc<Request>,
}

/// Many calls: a [`Stream`] of [`Item`]s, exactly one per request, in the order they finish. Created by
/// [`Client::set_time_sensitive_many`].
///
/// If [`total_timeout`](Self::total_timeout) passes, or the client is closed, before all requests were read, an error
/// follows the last item.
///
/// A request is read when fewer than [`concurrency`](Self::concurrency) requests are in progress. Its timeout starts
/// with its first slot of the quota. Waits for further slots, which retries and the parts of a split call need, do not
/// count.
///
/// Dropping this stops all calls. [`report`](Self::report) stops them too, and returns the state of every request.
#[must_use = "nothing is sent until this is polled"]
pub struct Many<T = ()> {
    client: Client,
    /// `None` once no more requests are read.
    source: Option<RequestStream<T>>,
    concurrency: usize,
    total_timeout: Option<Duration>,
    /// Timer of `total_timeout`, from the first poll.
    end: Option<Timer>,
    stop: watch::Sender<bool>,
    on_progress: Option<OnProgress>,
    /// When to report progress next if no result arrives before.
    progress_due: Option<Timer>,
    running: JoinSet<Result<Outcome, Error>>,
    /// The requests in progress by task. Tags stay out of the tasks, which may run on other threads.
    open: HashMap<task::Id, Open<T>>,
    /// The last request read, if it failed the checks and no task was needed.
    rejected: Option<Item<T>>,
    total: Option<usize>,
    report: Report<T>,
    /// How many more failures the report may list.
    failures_left: usize,
    /// The error to return after the last item, because not all requests were read.
    cut_short: Option<Error>,
}

/// Most failures that a report lists.
pub(crate) const MAX_FAILURES: usize = 10_000;

impl Client {
    /// Makes many calls, as fast as the quota allows.
    ///
    /// ```
    /// use feishu_feed_card::{Client, Error, Request};
    ///
    /// struct Incident {
    ///     number: u32,
    ///     chat: String,
    ///     on_call: Vec<String>,
    /// }
    ///
    /// async fn pin_all(client: &Client, incidents: Vec<Incident>) -> Result<(), Error> {
    ///     let requests = incidents.into_iter().map(|incident| {
    ///         Request::new(incident.chat, incident.on_call, true).tag(incident.number)
    ///     });
    ///     let mut many = client.set_time_sensitive_many(requests);
    ///     while let Some(item) = many.next().await {
    ///         let item = item?;
    ///         match item.result {
    ///             Ok(outcome) => println!("{}: {} reached", item.tag, outcome.users.reached.len()),
    ///             Err(error) => eprintln!("{}: {error}", item.tag),
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// #     use feishu_feed_card_sandbox::{Sandbox, World};
    /// #     let sandbox = Sandbox::builder().start()?;
    /// #     let client = Client::builder().app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
    /// #     let (chat, on_call) = (World::EXAMPLE_CHAT.to_owned(), vec![World::EXAMPLE_USER.to_owned()]);
    /// #     pin_all(&client, vec![Incident { number: 7, chat, on_call }]).await?;
    /// #     assert_eq!(sandbox.pinned(World::EXAMPLE_USER), [World::EXAMPLE_CHAT]);
    /// #     Ok(())
    /// # }
    /// ```
    pub fn set_time_sensitive_many<I, T>(&self, requests: I) -> Many<T>
    where
        I: IntoIterator<Item = Request<T>>,
        I::IntoIter: Send + 'static,
        T: Clone + Send + 'static,
    {
        self.set_time_sensitive_stream(futures_util::stream::iter(requests))
    }

    /// Like [`set_time_sensitive_many`](Self::set_time_sensitive_many), for requests that arrive over time.
    ///
    /// ```
    /// use feishu_feed_card::{Client, Item, Request};
    /// use futures_util::Stream;
    ///
    /// async fn pin_as_they_come(client: &Client, requests: impl Stream<Item = Request> + Send + 'static) -> Vec<Item> {
    ///     let (items, report) = client.set_time_sensitive_stream(requests).collect().await;
    ///     println!("{report}");
    ///     items
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// #     use feishu_feed_card_sandbox::{Sandbox, World};
    /// #     let sandbox = Sandbox::builder().start()?;
    /// #     let client = Client::builder().app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
    /// #     let request = Request::new(World::EXAMPLE_CHAT, [World::EXAMPLE_USER], true);
    /// #     let items = pin_as_they_come(&client, futures_util::stream::iter([request])).await;
    /// #     assert!(items[0].result.is_ok());
    /// #     Ok(())
    /// # }
    /// ```
    pub fn set_time_sensitive_stream<T>(
        &self,
        requests: impl Stream<Item = Request<T>> + Send + 'static,
    ) -> Many<T>
    where
        T: Clone + Send + 'static,
    {
        let total = match requests.size_hint() {
            (least, Some(most)) if least == most => Some(least),
            _ => None,
        };
        let requests = requests.enumerate().map(|(index, request)| NextRequest {
            index,
            request,
            in_progress: None,
        });
        Many::new(self, requests, total)
    }
}

impl<T: Clone> Many<T> {
    pub(crate) fn new(
        client: &Client,
        requests: impl Stream<Item = NextRequest<T>> + Send + 'static,
        total: Option<usize>,
    ) -> Self {
        Self {
            client: client.clone(),
            source: Some(Box::pin(requests)),
            concurrency: CONCURRENCY,
            total_timeout: None,
            end: None,
            stop: watch::Sender::new(false),
            on_progress: None,
            progress_due: None,
            running: JoinSet::new(),
            open: HashMap::new(),
            rejected: None,
            total,
            report: Report::default(),
            failures_left: MAX_FAILURES,
            cut_short: None,
        }
    }

    /// Keeps no failures for the report.
    pub(crate) fn without_failures(mut self) -> Self {
        self.failures_left = 0;
        self
    }

    /// Number of requests in progress at a time, including those that wait for the quota. Default: 100; 1 to
    /// 10,000, other values are clamped.
    pub fn concurrency(mut self, most: usize) -> Self {
        self.concurrency = concurrency(most);
        self
    }

    /// Time limit for all requests, from the first poll. Default: none. Requests without a slot or an answer by then
    /// fail. Reading stops as soon as no further request can get a slot in time, and an error of kind
    /// [`DeadlineExceeded`](ErrorKind::DeadlineExceeded) follows the last item.
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.total_timeout = Some(timeout);
        self
    }

    /// Sets a callback that runs after each result, and every two seconds while none arrives, in the task that
    /// awaits the results.
    pub fn on_progress(mut self, callback: impl FnMut(Progress) + Send + 'static) -> Self {
        self.on_progress = Some(Box::new(callback));
        self
    }

    /// Returns the next item, or `None` after the last one. Cancel safe: dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// The `total_timeout` passed, or the client was closed, before all requests were read. The error comes once, after
    /// the last item; that of the `total_timeout` says how many were not read. The error of a single request is in its
    /// item.
    ///
    /// # Panics
    ///
    /// If a call panicked, which is a bug of this crate, or if the input or the callback for progress panics.
    pub async fn next(&mut self) -> Option<Result<Item<T>, Error>> {
        if let (None, Some(timeout)) = (&self.end, self.total_timeout) {
            self.end = Some(Box::pin(sleep_until(after(timeout))));
        }
        loop {
            if let Some(item) = self.rejected.take() {
                return Some(Ok(self.hand_out(item)));
            }
            if self.source.is_none() && self.running.is_empty() {
                return self.cut_short.take().map(Err);
            }
            let reads = self.source.is_some() && self.running.len() < self.concurrency;
            select! {
                biased;
                () = elapsed(&mut self.end), if self.source.is_some() => self.stop_reading_for_total_timeout(),
                request = next_request(&mut self.source), if reads => {
                    if let Some(next) = request {
                        self.start(next);
                    } else {
                        self.source = None;
                        self.report.not_read = Some(0);
                    }
                }
                Some(ended) = self.running.join_next_with_id() => match self.item_of(ended) {
                    Some(Ok(item)) => return Some(Ok(self.hand_out(item))),
                    Some(Err(error)) => if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    },
                    None => {}
                },
                // The input has no request ready, and the closed client would refuse later ones.
                () = self.client.core.closing.closed(), if reads => self.stop_reading_after_close(),
                () = progress_due(&mut self.progress_due), if self.on_progress.is_some() => {
                    self.report_progress();
                }
            }
        }
    }

    /// Returns at least one item, and up to `most` if more are ready. Empty after the last one. An error, as of
    /// [`next`](Self::next), is the last element.
    pub async fn next_batch(&mut self, most: usize) -> Vec<Result<Item<T>, Error>> {
        let mut batch = Vec::from_iter(self.next().await);
        while batch.len() < most
            && let Some(Some(item)) = self.next().now_or_never()
        {
            batch.push(item);
        }
        batch
    }

    /// Returns all items by index, and the report. If `total_timeout` passed or the client was closed before all
    /// requests were read, this returns no error, because the items would be lost. Check the report's `not_read`.
    ///
    /// ```
    /// use feishu_feed_card::{Client, Request};
    ///
    /// async fn pin_all(client: &Client, requests: Vec<Request>) {
    ///     let (items, report) = client.set_time_sensitive_many(requests).collect().await;
    ///     println!("{} items; {report}", items.len());
    ///     for item in report.failures {
    ///         eprintln!("{}: {:?}", item.request.feed_card_id, item.result);
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// #     use feishu_feed_card_sandbox::{Sandbox, World};
    /// #     let sandbox = Sandbox::builder().start()?;
    /// #     let client = Client::builder().app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
    /// #     let request = |user| Request::new(World::EXAMPLE_CHAT, [user], true);
    /// #     pin_all(&client, vec![request(World::EXAMPLE_USER), request("nobody")]).await;
    /// #     Ok(())
    /// # }
    /// ```
    pub async fn collect(mut self) -> (Vec<Item<T>>, Report<T>) {
        let mut items = Vec::new();
        while let Some(item) = self.next().await {
            items.extend(item);
        }
        items.sort_by_key(|item| item.index);
        (items, self.report().await)
    }

    /// Returns the current progress.
    pub fn progress(&self) -> Progress {
        self.progress_of(self.total)
    }

    /// Progress if the input has this many requests.
    pub(crate) fn progress_of(&self, total: Option<usize>) -> Progress {
        let done = self.report.succeeded + self.report.failed;
        let lane = self.client.core.lane(Lane::Chat);
        let waiting_for_quota = lane.as_ref().map_or(0, LaneHandle::waiting);
        let sent = self.running.len().saturating_sub(waiting_for_quota);
        let eta = total.map(|total| {
            let unsent = total.saturating_sub(done + sent);
            match (&lane, unsent.checked_sub(1)) {
                (Some(lane), Some(before_the_last)) => lane.estimate(before_the_last),
                _ => Duration::ZERO,
            }
        });
        Progress {
            done,
            total,
            failed: self.report.failed,
            waiting_for_quota,
            eta,
        }
    }

    /// Stops all calls and returns the final state of every request. After this, [`next`](Self::next) returns
    /// `None`.
    pub async fn report(&mut self) -> Report<T> {
        self.stop_reading();
        self.cut_short = None;
        if let Some(item) = self.rejected.take() {
            self.leave_unread(item);
        }
        // These calls finished before the stop, so it is not the cause of their results.
        while let Some(ended) = self.running.try_join_next_with_id() {
            if let Some(Ok(item)) = self.item_of(ended) {
                self.leave_unread(item);
            }
        }
        self.stop.send_replace(true);
        while let Some(ended) = self.running.join_next_with_id().await {
            let Some(Ok(item)) = self.item_of(ended) else {
                continue;
            };
            match item.result {
                Err(error) if may_come_from_stop(&error) => self.report.unfinished.push(Unfinished {
                    index: item.index,
                    tag: item.tag,
                    request: item.request,
                    users: error.users().clone(),
                }),
                _ => self.leave_unread(item),
            }
        }
        self.report.failures.sort_by_key(|item| item.index);
        self.report.unread.sort_by_key(|item| item.index);
        self.report.unfinished.sort_by_key(|unfinished| unfinished.index);
        self.report.clone()
    }

    /// Returns the result of a task. If the task panicked, or its runtime was shut down, it is unknown whether the
    /// request was sent.
    fn item_of(
        &mut self,
        ended: Result<(task::Id, Result<Outcome, Error>), JoinError>,
    ) -> Option<Result<Item<T>, JoinError>> {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Open { index, tag, request } = self.open.remove(&id)?;
        Some(match ended {
            Ok((_, result)) => Ok(Item {
                index,
                tag,
                request,
                result,
            }),
            Err(error) => {
                let users = UserIds {
                    unknown: without_repeats(request.user_ids.clone()),
                    ..UserIds::default()
                };
                self.report.unfinished.push(Unfinished {
                    index,
                    tag,
                    request,
                    users,
                });
                Err(error)
            }
        })
    }

    /// Stops reading. Returns whether requests may be left unread.
    fn stop_reading(&mut self) -> bool {
        let Some(source) = self.source.take() else {
            return false;
        };
        let (least, most) = source.size_hint();
        self.report.not_read = (most == Some(least)).then_some(least);
        self.report.not_read != Some(0)
    }

    fn stop_reading_for_total_timeout(&mut self) {
        self.check_for_end();
        if self.stop_reading() {
            self.cut_short = not_all_read(self.report.taken, self.report.not_read);
        }
    }

    /// Reads the input once more, because an input of unknown length shows its end only that way. A request read here
    /// is too late and fails.
    fn check_for_end(&mut self) {
        let Some(source) = &mut self.source else {
            return;
        };
        let (least, most) = source.size_hint();
        if most == Some(least) {
            return;
        }
        match source.next().now_or_never() {
            Some(Some(NextRequest { index, request, .. })) => {
                self.report.taken += 1;
                let (request, tag) = request.split(());
                let users = UserIds::not_attempted(without_repeats(request.user_ids.clone()));
                self.rejected = Some(Item {
                    index,
                    tag,
                    request: Arc::new(request),
                    result: Err(total_timeout_passed().with_users(users)),
                });
            }
            Some(None) => {
                self.source = None;
                self.report.not_read = Some(0);
            }
            None => {}
        }
    }

    fn stop_reading_after_close(&mut self) {
        if self.stop_reading() {
            self.cut_short = Some(client_closed());
        }
    }

    fn leave_unread(&mut self, item: Item<T>) {
        self.count(&item);
        self.report.unread.push(item);
    }

    fn hand_out(&mut self, item: Item<T>) -> Item<T> {
        self.count(&item);
        // Later requests would fail as well, and an endless input would never end.
        if item.result.as_ref().is_err_and(comes_from_close) {
            self.stop_reading_after_close();
        } else if item.result.as_ref().is_err_and(has_no_slot) && self.has_no_slot_before_the_end() {
            self.stop_reading_for_total_timeout();
        }
        self.report_progress();
        item
    }

    fn count(&mut self, item: &Item<T>) {
        if item.result.as_ref().is_ok_and(Outcome::ok) {
            self.report.succeeded += 1;
            return;
        }
        self.report.failed += 1;
        if self.failures_left > 0 {
            self.failures_left -= 1;
            self.report.failures.push(item.clone());
        }
    }

    fn report_progress(&mut self) {
        self.progress_due = None;
        let progress = self.progress();
        if let Some(callback) = &mut self.on_progress {
            callback(progress);
        }
    }

    /// Whether a further request would get no slot before `total_timeout`. A request that failed because it got no slot
    /// does not prove that, because a split call needs several slots.
    fn has_no_slot_before_the_end(&self) -> bool {
        let (Some(end), Some(lane)) = (&self.end, self.client.core.lane(Lane::Chat)) else {
            return false;
        };
        after(lane.estimate(lane.waiting())) >= end.deadline()
    }

    fn start(&mut self, next: NextRequest<T>) {
        let NextRequest {
            index,
            request,
            in_progress,
        } = next;
        self.report.taken += 1;
        let core = self.client.core.clone();
        let timeout = request.timeout.unwrap_or(core.limits.timeout);
        let (request, tag) = request.split(());
        let request = Arc::new(request);
        let batch = Box::new(BatchLimit {
            deadline: self.end.as_ref().map(|end| end.deadline()),
            stop: self.stop.subscribe(),
        });
        let limit = TimeLimit::OfMany { timeout, batch };
        match self.client.begin((*request).clone().into(), limit, in_progress) {
            Err(error) => {
                self.rejected = Some(Item {
                    index,
                    tag,
                    request,
                    result: Err(error),
                });
            }
            Ok(queued) => {
                let running = core.run_within(queued.span(), queued);
                let task = self.running.spawn(inherited(running).with_current_subscriber());
                self.open.insert(task.id(), Open { index, tag, request });
            }
        }
    }
}

async fn next_request<T>(source: &mut Option<RequestStream<T>>) -> Option<NextRequest<T>> {
    source.as_mut()?.next().await
}

async fn elapsed(timer: &mut Option<Timer>) {
    match timer {
        Some(timer) => timer.await,
        None => pending().await,
    }
}

async fn progress_due(timer: &mut Option<Timer>) {
    timer.get_or_insert_with(|| Box::pin(sleep(PROGRESS_EVERY))).await;
}

/// Error of a request that was read after `total_timeout` had passed.
pub(crate) fn total_timeout_passed() -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        text!("the {total_timeout} passed before the request was started"),
    )
    .with_station(Station::Quota)
    .with_hint(text!("Use a longer {total_timeout}, or retry this request"))
}

/// Clamps a number of requests in progress to what is supported.
pub(crate) fn concurrency(most: usize) -> usize {
    most.clamp(1, MAX_CONCURRENT)
}

/// Whether the stop may be the cause of an error. A stopped call fails as if its deadline had passed.
fn may_come_from_stop(error: &Error) -> bool {
    error.kind() == ErrorKind::DeadlineExceeded || has_no_slot(error) || comes_from_close(error)
}

fn comes_from_close(error: &Error) -> bool {
    error.kind() == ErrorKind::ClientClosed
}

/// Whether a call failed because it could not get a slot, or slots for all its parts, before `total_timeout`.
fn has_no_slot(error: &Error) -> bool {
    error.kind() == ErrorKind::RateLimited && error.station() == Some(Station::Quota)
}

/// No field is structurally pinned.
impl<T> Unpin for Many<T> {}

impl<T: Clone> Stream for Many<T> {
    type Item = Result<Item<T>, Error>;

    /// Polls a new future of [`Many::next`] each time. That future has no state: requests, results and timers are in
    /// `self`, and wake the task even after the future is dropped.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        pin!(self.get_mut().next()).poll(context)
    }
}

impl<T: Clone> fmt::Debug for Many<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Many")
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}
