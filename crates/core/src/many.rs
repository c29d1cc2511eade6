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
use crate::data::outcome::{Outcome, UserIds};
use crate::stations::closing::InProgress;
use crate::stations::deadline::{BatchLimit, TimeLimit, after};
use crate::stations::quota::{Lane, LaneHandle};

/// Default number of requests in progress. The platform takes 50 calls a second, so this many keep it busy at
/// up to 2 s of latency, with room for those that wait before a retry.
pub(crate) const CONCURRENCY: usize = 100;

/// Ten minutes of the platform's quota. Bounded, because an endless iterator must not fill the memory.
const MOST_CONCURRENT: usize = 10_000;

/// Interval of progress reports while no result arrives. Longer than the quota's pauses within a minute.
pub(crate) const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// The result of one request of many. See [`Client::set_time_sensitive_many`] for an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Item {
    /// Position of the request in the input, from 0.
    pub index: usize,
    /// The request, unchanged.
    pub request: Arc<Request>,
    /// The result of the call.
    pub result: Result<Outcome, Error>,
}

/// Progress of many calls.
///
/// ```
/// # use feishu_feed_card_sandbox::{Sandbox, World};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let sandbox = Sandbox::builder().world(World::example()).start()?;
/// # let client = feishu_feed_card::Client::builder()
/// #     .app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
/// # use feishu_feed_card::Request;
/// # let request = || Request::new("oc_679eaeb583654bff73fefcc6e6371370", ["ou_9d2beb613c85a2412862a49a924558c5"], true);
/// # let requests = [request(), request(), request()];
/// let mut many = client.set_time_sensitive_many(requests).on_progress(|progress| {
///     eprintln!("{} of {:?}, {:?} to go", progress.done, progress.total, progress.eta);
/// });
/// while many.next().await.is_some() {}
/// assert_eq!(many.progress().done, 3);
/// # Ok(()) }
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

/// Final state of many calls, including those stopped early: `taken` is the sum of `succeeded`, `failed` and
/// the number of `unfinished`.
///
/// ```
/// # use feishu_feed_card_sandbox::{Sandbox, World};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let sandbox = Sandbox::builder().world(World::example()).start()?;
/// # let client = feishu_feed_card::Client::builder()
/// #     .app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
/// # use feishu_feed_card::Request;
/// # let request = || Request::new("oc_679eaeb583654bff73fefcc6e6371370", ["ou_9d2beb613c85a2412862a49a924558c5"], true);
/// # let requests = [request(), request(), request()];
/// let mut many = client.set_time_sensitive_many(requests).concurrency(1);
/// let first = many.next().await;
/// let report = many.report().await;
/// assert_eq!((report.taken, report.succeeded), (1, 1));
/// for left in &report.unfinished {
///     println!("{}: {:?} were not attempted", left.index, left.users.not_attempted);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Requests read from the input. Later ones were not read.
    pub taken: usize,
    /// Requests with every user reached.
    pub succeeded: usize,
    /// Requests with an error, or with users that were not reached.
    pub failed: usize,
    /// Results that were never returned by [`Many::next`]. `succeeded` and `failed` include them.
    pub unread: Vec<Item>,
    /// Requests that were read, and stopped before they finished.
    pub unfinished: Vec<Unfinished>,
}

/// A request that was stopped before it finished. See [`Report`] for an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unfinished {
    /// Position of the request in the input, from 0.
    pub index: usize,
    /// The request, unchanged.
    pub request: Arc<Request>,
    /// What is known about its users.
    pub users: UserIds,
}

/// A request read from the input.
pub(crate) struct NextRequest {
    /// Position in the input.
    pub(crate) index: usize,
    pub(crate) request: Request,
    /// Present if the request was handed over before it is read here: it counts as a call in progress from then on.
    pub(crate) in_progress: Option<InProgress>,
}

type RequestStream = Pin<Box<dyn Stream<Item = NextRequest> + Send>>;
type OnProgress = Box<dyn FnMut(Progress) + Send>;
/// Kept in [`Many`] and not in the future of [`Many::next`], so that it goes on when that future is dropped.
type Timer = Pin<Box<Sleep>>;

/// Many calls: a [`Stream`] of [`Item`]s, exactly one per request, in the order they finish. Created by
/// [`Client::set_time_sensitive_many`].
///
/// A request is read when fewer than [`concurrency`](Self::concurrency) requests are in progress. Its timeout
/// starts with its first slot of the quota and excludes the waits for further slots, for retries and for the
/// parts of a split call. Dropping this stops all calls. [`report`](Self::report) stops them too, and returns
/// what was left undone.
#[must_use = "nothing is sent until this is polled"]
pub struct Many {
    client: Client,
    /// `None` when no more requests are to be read.
    source: Option<RequestStream>,
    concurrency: usize,
    total_timeout: Option<Duration>,
    /// Runs from the first poll, if there is a `total_timeout`.
    end: Option<Timer>,
    stop: watch::Sender<bool>,
    on_progress: Option<OnProgress>,
    /// When to report progress next if no result arrives before.
    progress_due: Option<Timer>,
    running: JoinSet<Item>,
    /// The requests in progress by task: a task that panics returns nothing.
    requests: HashMap<task::Id, (usize, Arc<Request>)>,
    /// The last request read, if it failed the checks and no task was needed.
    rejected: Option<Item>,
    total: Option<usize>,
    report: Report,
}

impl Client {
    /// Makes many calls, as fast as the quota allows.
    ///
    /// ```
    /// # use feishu_feed_card_sandbox::{Sandbox, World};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let sandbox = Sandbox::builder().world(World::example()).start()?;
    /// # let base_url = sandbox.base_url();
    /// # let chats = ["oc_679eaeb583654bff73fefcc6e6371370"];
    /// # let on_call = ["ou_9d2beb613c85a2412862a49a924558c5"];
    /// use feishu_feed_card::{Client, Request};
    ///
    /// let client = Client::builder().app("cli_example", "example-secret").base_url(base_url).build()?;
    /// let requests = chats.into_iter().map(move |chat| Request::new(chat, on_call, true));
    /// let mut many = client.set_time_sensitive_many(requests);
    /// while let Some(item) = many.next().await {
    ///     match item.result {
    ///         Ok(outcome) => println!("{}: {} reached", item.index, outcome.users.reached.len()),
    ///         Err(error) => eprintln!("{}: {error}", item.index),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn set_time_sensitive_many<I>(&self, requests: I) -> Many
    where
        I: IntoIterator<Item = Request>,
        I::IntoIter: Send + 'static,
    {
        self.set_time_sensitive_stream(futures_util::stream::iter(requests))
    }

    /// Like [`set_time_sensitive_many`](Self::set_time_sensitive_many), for requests that arrive over time.
    ///
    /// ```
    /// # use feishu_feed_card_sandbox::{Sandbox, World};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let sandbox = Sandbox::builder().world(World::example()).start()?;
    /// # let client = feishu_feed_card::Client::builder()
    /// #     .app("cli_example", "example-secret").base_url(sandbox.base_url()).build()?;
    /// use feishu_feed_card::Request;
    /// use futures_util::StreamExt;
    ///
    /// let users = ["ou_9d2beb613c85a2412862a49a924558c5"];
    /// let incidents = futures_util::stream::iter(["oc_679eaeb583654bff73fefcc6e6371370"]);
    /// let requests = incidents.map(move |chat| Request::new(chat, users, true));
    /// let items: Vec<_> = client.set_time_sensitive_stream(requests).collect().await;
    /// assert!(items[0].result.is_ok());
    /// # Ok(()) }
    /// ```
    pub fn set_time_sensitive_stream(&self, requests: impl Stream<Item = Request> + Send + 'static) -> Many {
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

impl Many {
    pub(crate) fn new(
        client: &Client,
        requests: impl Stream<Item = NextRequest> + Send + 'static,
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
            requests: HashMap::new(),
            rejected: None,
            total,
            report: Report::default(),
        }
    }

    /// Number of requests in progress at a time, including those that wait for the quota. Default: 100; 1 to
    /// 10,000, other values are clamped.
    pub fn concurrency(mut self, most: usize) -> Self {
        self.concurrency = concurrency(most);
        self
    }

    /// Time limit for all requests, from the first poll. Default: none. Requests without a slot or an answer by
    /// then fail with an error. As soon as no further request can have a slot in time, no more are read.
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

    /// Returns the next result, or `None` after the last one. Cancel safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Item> {
        if let (None, Some(timeout)) = (&self.end, self.total_timeout) {
            self.end = Some(Box::pin(sleep_until(after(timeout))));
        }
        loop {
            if let Some(item) = self.rejected.take() {
                return Some(self.hand_out(item));
            }
            if self.source.is_none() && self.running.is_empty() {
                return None;
            }
            let reads = self.source.is_some() && self.running.len() < self.concurrency;
            select! {
                biased;
                () = elapsed(&mut self.end), if self.source.is_some() => self.source = None,
                request = next_request(&mut self.source), if reads => match request {
                    Some(next) => self.start(next),
                    None => self.source = None,
                },
                Some(ended) = self.running.join_next_with_id() => match self.item_of(ended) {
                    Ok(item) => return Some(self.hand_out(item)),
                    Err(error) => if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    },
                },
                // The input has nothing ready, and its later requests would be refused.
                () = self.client.core.closing.closed(), if reads => self.source = None,
                () = progress_due(&mut self.progress_due), if self.on_progress.is_some() => {
                    self.report_progress();
                }
            }
        }
    }

    /// Returns at least one result, and up to `most` if more are ready. Empty after the last one.
    pub async fn next_batch(&mut self, most: usize) -> Vec<Item> {
        let mut batch = Vec::from_iter(self.next().await);
        while batch.len() < most
            && let Some(Some(item)) = self.next().now_or_never()
        {
            batch.push(item);
        }
        batch
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
    pub async fn report(&mut self) -> Report {
        self.source = None;
        if let Some(item) = self.rejected.take() {
            self.leave_unread(item);
        }
        // Before the stop: these finished without it, whatever their results are.
        while let Some(ended) = self.running.try_join_next_with_id() {
            if let Ok(item) = self.item_of(ended) {
                self.leave_unread(item);
            }
        }
        self.stop.send_replace(true);
        while let Some(ended) = self.running.join_next_with_id().await {
            let Ok(item) = self.item_of(ended) else {
                continue;
            };
            match item.result {
                Err(error) if is_by_the_stop(&error) => self.report.unfinished.push(Unfinished {
                    index: item.index,
                    request: item.request,
                    users: error.users().clone(),
                }),
                _ => self.leave_unread(item),
            }
        }
        self.report.unread.sort_by_key(|item| item.index);
        self.report.unfinished.sort_by_key(|unfinished| unfinished.index);
        self.report.clone()
    }

    /// Returns the result of a task. If the task panicked, or its runtime was shut down, nobody knows how far
    /// the request came.
    fn item_of(&mut self, ended: Result<(task::Id, Item), JoinError>) -> Result<Item, JoinError> {
        match ended {
            Ok((id, item)) => {
                self.requests.remove(&id);
                Ok(item)
            }
            Err(error) => {
                if let Some((index, request)) = self.requests.remove(&error.id()) {
                    let users = UserIds {
                        unknown: without_repeats(request.user_ids.clone()),
                        ..UserIds::default()
                    };
                    self.report.unfinished.push(Unfinished {
                        index,
                        request,
                        users,
                    });
                }
                Err(error)
            }
        }
    }

    fn leave_unread(&mut self, item: Item) {
        self.count(&item.result);
        self.report.unread.push(item);
    }

    fn hand_out(&mut self, item: Item) -> Item {
        self.count(&item.result);
        // An endless source would be read only to fail.
        let would_fail = item.result.as_ref().is_err_and(|error| {
            is_by_the_close(error) || has_no_slot(error) && self.has_no_slot_before_the_end()
        });
        if would_fail {
            self.source = None;
        }
        self.report_progress();
        item
    }

    fn count(&mut self, result: &Result<Outcome, Error>) {
        if result.as_ref().is_ok_and(Outcome::ok) {
            self.report.succeeded += 1;
        } else {
            self.report.failed += 1;
        }
    }

    fn report_progress(&mut self) {
        self.progress_due = None;
        let progress = self.progress();
        if let Some(callback) = &mut self.on_progress {
            callback(progress);
        }
    }

    /// Whether a further request would have no slot before `total_timeout`. Not known from one that had none: a
    /// split call needs several.
    fn has_no_slot_before_the_end(&self) -> bool {
        let (Some(end), Some(lane)) = (&self.end, self.client.core.lane(Lane::Chat)) else {
            return false;
        };
        after(lane.estimate(lane.waiting())) >= end.deadline()
    }

    fn start(&mut self, next: NextRequest) {
        let NextRequest {
            index,
            request,
            in_progress,
        } = next;
        self.report.taken += 1;
        let core = self.client.core.clone();
        let timeout = request.timeout.unwrap_or(core.limits.timeout);
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
                    request,
                    result: Err(error),
                });
            }
            Ok(queued) => {
                let running = core.run_within(queued.span(), queued).map({
                    let request = request.clone();
                    move |result| Item {
                        index,
                        request,
                        result,
                    }
                });
                let task = self.running.spawn(running.with_current_subscriber());
                self.requests.insert(task.id(), (index, request));
            }
        }
    }
}

async fn next_request(source: &mut Option<RequestStream>) -> Option<NextRequest> {
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

/// Clamps a number of requests in progress to what is supported.
pub(crate) fn concurrency(most: usize) -> usize {
    most.clamp(1, MOST_CONCURRENT)
}

/// Whether a call may have failed because of the stop: it then fails as if its deadline had passed, or with the close of
/// the client.
fn is_by_the_stop(error: &Error) -> bool {
    error.kind() == ErrorKind::DeadlineExceeded || has_no_slot(error) || is_by_the_close(error)
}

fn is_by_the_close(error: &Error) -> bool {
    error.kind() == ErrorKind::ClientClosed
}

/// Whether a call failed because it could not have a slot, or slots for all its parts, before `total_timeout`.
fn has_no_slot(error: &Error) -> bool {
    error.kind() == ErrorKind::RateLimited && error.station() == Some(Station::Quota)
}

impl Stream for Many {
    type Item = Item;

    /// Polls a new future of [`Many::next`] each time. It keeps nothing of its own: requests, results and timers
    /// are in `self`, and wake the task after the future is dropped.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        pin!(self.get_mut().next()).poll(context)
    }
}

impl fmt::Debug for Many {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Many")
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}
