//! Many calls as one line: requests are read as there is room for them, and come back as they finish.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Sleep, sleep, sleep_until};
use tracing::instrument::WithSubscriber;

use crate::client::Client;
use crate::deadline::{BatchLimit, TimeLimit, after};
use crate::error::{Error, ErrorKind, Station};
use crate::input::{Request, without_repeats};
use crate::outcome::{Outcome, UserIds};
use crate::quota::{Lane, LaneHandle};

/// The platform takes 50 calls a second, so this many under way keep it busy at up to 2 s of latency,
/// and leave room for those that wait before a replay.
pub(crate) const CONCURRENCY: usize = 100;

/// Ten minutes' worth of the platform's quota; an endless iterator must not fill the memory.
const MOST_CONCURRENT: usize = 10_000;

/// How often progress is told where a result is awaited and none comes: the quota's pauses within a minute are
/// shorter.
pub(crate) const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// One request of many, and what it came back with; see [`Client::set_time_sensitive_many`] for an
/// example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Item {
    /// The request's place in what was handed in, from 0.
    pub index: usize,
    /// The request as it was handed in.
    pub request: Arc<Request>,
    /// What it came back with.
    pub result: Result<Outcome, Error>,
}

/// How far many calls have come.
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
    /// Requests that have come back, those that failed included.
    pub done: usize,
    /// All requests, where what was handed in tells its length.
    pub total: Option<usize>,
    /// Requests that came back with an error, or with users not reached.
    pub failed: usize,
    /// Requests that wait for a slot of the quota now.
    pub waiting_for_quota: usize,
    /// The least time that the quota allows for what is left, where the total is known.
    pub eta: Option<Duration>,
}

/// What became of many calls, also of those stopped early: `taken` is the sum of `succeeded`, `failed` and
/// the unfinished.
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
    /// Requests read from what was handed in. Those after them were not touched.
    pub taken: usize,
    /// Requests that came back with every user reached.
    pub succeeded: usize,
    /// Requests that came back with an error, or with users not reached.
    pub failed: usize,
    /// Results that were there, and are counted above, but had not been handed out.
    pub unread: Vec<Item>,
    /// Requests that were read and stopped on their way.
    pub unfinished: Vec<Unfinished>,
}

/// A request that was stopped on its way; see [`Report`] for an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unfinished {
    /// The request's place in what was handed in, from 0.
    pub index: usize,
    /// The request as it was handed in.
    pub request: Arc<Request>,
    /// What became of its users.
    pub users: UserIds,
}

type Ended = Result<(task::Id, Result<Outcome, Error>), JoinError>;
type Source = Pin<Box<dyn Stream<Item = Request> + Send>>;
type OnProgress = Box<dyn FnMut(Progress) + Send>;

/// Many calls: a [`Stream`] of [`Item`]s, exactly one for each request, in the order they finish.
/// Made by [`Client::set_time_sensitive_many`].
///
/// A request is read when there is room for it, never far ahead. Its own deadline starts with its first slot
/// of the quota, and waiting for further ones, of replays and of a split call, does not count. Dropping this
/// stops everything; [`report`](Self::report) also tells what was left undone.
#[must_use = "nothing is sent until this is polled"]
pub struct Many {
    client: Client,
    source: Option<Source>,
    concurrency: usize,
    total_timeout: Option<Duration>,
    end: Option<Pin<Box<Sleep>>>,
    stop: watch::Sender<bool>,
    on_progress: Option<OnProgress>,
    /// When progress is told next, where no result comes before.
    tell_at: Option<Pin<Box<Sleep>>>,
    running: JoinSet<Result<Outcome, Error>>,
    /// The requests that run, by the task that does.
    requests: HashMap<task::Id, (usize, Arc<Request>)>,
    /// A result that needed no sending: the request did not pass the checks.
    at_once: Option<Item>,
    total: Option<usize>,
    report: Report,
}

impl Client {
    /// Makes many calls within the quota, as fast as it allows.
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

    /// Like [`set_time_sensitive_many`](Self::set_time_sensitive_many), for requests that come in over
    /// time.
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
        Many {
            client: self.clone(),
            source: Some(Box::pin(requests)),
            concurrency: CONCURRENCY,
            total_timeout: None,
            end: None,
            stop: watch::Sender::new(false),
            on_progress: None,
            tell_at: None,
            running: JoinSet::new(),
            requests: HashMap::new(),
            at_once: None,
            total,
            report: Report::default(),
        }
    }
}

impl Many {
    /// How many requests may be on their way, or wait for the quota, at a time; 100 unless said, and
    /// from 1 to 10,000.
    pub fn concurrency(mut self, most: usize) -> Self {
        self.concurrency = concurrency(most);
        self
    }

    /// How long all of it may take, from the first poll on; without bound unless said. Requests that were
    /// read and have no slot or no answer by then come back with an error; as soon as none can have a slot in
    /// time, no more are read.
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.total_timeout = Some(timeout);
        self
    }

    /// Called after each result, and every two seconds while one is awaited and none comes, by the task that
    /// awaits it.
    pub fn on_progress(mut self, callback: impl FnMut(Progress) + Send + 'static) -> Self {
        self.on_progress = Some(Box::new(callback));
        self
    }

    /// The next result; `None` when every request has come back.
    pub async fn next(&mut self) -> Option<Item> {
        std::future::poll_fn(|context| self.poll_item(context)).await
    }

    /// At least one result, and as many more as are there already, up to `most`; empty when every
    /// request has come back.
    pub async fn next_batch(&mut self, most: usize) -> Vec<Item> {
        let mut batch: Vec<Item> = self.next().await.into_iter().collect();
        std::future::poll_fn(|context| {
            while batch.len() < most
                && let Poll::Ready(Some(item)) = self.poll_item(context)
            {
                batch.push(item);
            }
            Poll::Ready(())
        })
        .await;
        batch
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        let done = self.report.succeeded + self.report.failed;
        let lane = self.client.core.lane(Lane::Chat);
        let waiting_for_quota = lane.as_ref().map_or(0, LaneHandle::waiting);
        let sent = self.running.len().saturating_sub(waiting_for_quota);
        let eta = self.total.map(|total| {
            let unsent = total.saturating_sub(done + sent);
            match &lane {
                Some(lane) if unsent > 0 => lane.estimate(unsent - 1),
                _ => Duration::ZERO,
            }
        });
        Progress {
            done,
            total: self.total,
            failed: self.report.failed,
            waiting_for_quota,
            eta,
        }
    }

    /// Tells what became of every request. Stops what is still on its way: after this,
    /// [`next`](Self::next) gives nothing more.
    pub async fn report(&mut self) -> Report {
        self.source = None;
        if let Some(item) = self.at_once.take() {
            self.leave_unread(item);
        }
        // What has ended by now has ended of its own.
        while let Some(ended) = self.running.try_join_next_with_id() {
            if let Ok(item) = self.item_of(ended) {
                self.leave_unread(item);
            }
        }
        self.stop.send_replace(true);
        while let Some(ended) = self.running.join_next_with_id().await {
            match self.item_of(ended) {
                Ok(Item {
                    index,
                    request,
                    result: Err(error),
                }) if is_by_the_stop(&error) => {
                    let users = error.users().clone();
                    self.report.unfinished.push(Unfinished {
                        index,
                        request,
                        users,
                    });
                }
                Ok(item) => self.leave_unread(item),
                Err(_) => {}
            }
        }
        self.report.unread.sort_by_key(|item| item.index);
        self.report.unfinished.sort_by_key(|unfinished| unfinished.index);
        self.report.clone()
    }

    /// What a task ended with. Where it panicked, nobody knows how far it came.
    fn item_of(&mut self, ended: Ended) -> Result<Item, Option<JoinError>> {
        match ended {
            Ok((id, result)) => {
                let (index, request) = self.requests.remove(&id).ok_or(None)?;
                Ok(Item {
                    index,
                    request,
                    result,
                })
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
                Err(Some(error))
            }
        }
    }

    fn leave_unread(&mut self, item: Item) {
        self.count(&item.result);
        self.report.unread.push(item);
    }

    fn count(&mut self, result: &Result<Outcome, Error>) {
        if result.as_ref().is_ok_and(Outcome::ok) {
            self.report.succeeded += 1;
        } else {
            self.report.failed += 1;
        }
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let Poll::Ready(item) = self.poll_ended(context) else {
            self.tell_now_and_then(context);
            return Poll::Pending;
        };
        let Some(item) = item else {
            return Poll::Ready(None);
        };
        self.count(&item.result);
        if item.result.as_ref().is_err_and(has_no_slot) && self.has_no_slot_before_the_end() {
            // Nor would those after it: without end they would be read only to fail.
            self.source = None;
        }
        self.tell_progress();
        Poll::Ready(Some(item))
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        self.stop_reading_in_time(context);
        self.start_what_fits(context);
        loop {
            if let Some(item) = self.at_once.take() {
                return Poll::Ready(Some(item));
            }
            match ready!(self.running.poll_join_next_with_id(context)) {
                Some(ended) => match self.item_of(ended) {
                    Ok(item) => return Poll::Ready(Some(item)),
                    Err(Some(error)) => {
                        if let Ok(panic) = error.try_into_panic() {
                            std::panic::resume_unwind(panic);
                        }
                    }
                    Err(None) => {}
                },
                None if self.source.is_none() => return Poll::Ready(None),
                None => return Poll::Pending,
            }
        }
    }

    fn tell_progress(&mut self) {
        self.tell_at = None;
        if self.on_progress.is_some() {
            let progress = self.progress();
            if let Some(callback) = &mut self.on_progress {
                callback(progress);
            }
        }
    }

    fn tell_now_and_then(&mut self, context: &mut Context<'_>) {
        while self.on_progress.is_some() {
            let tell_at = self
                .tell_at
                .get_or_insert_with(|| Box::pin(sleep(PROGRESS_EVERY)));
            if tell_at.as_mut().poll(context).is_pending() {
                return;
            }
            self.tell_progress();
        }
    }

    /// A split call may be too long for what is left where others are not.
    fn has_no_slot_before_the_end(&self) -> bool {
        let (Some(end), Some(lane)) = (&self.end, self.client.core.lane(Lane::Chat)) else {
            return false;
        };
        after(lane.estimate(lane.waiting())) >= end.deadline()
    }

    fn stop_reading_in_time(&mut self, context: &mut Context<'_>) {
        let Some(timeout) = self.total_timeout else {
            return;
        };
        let end = self
            .end
            .get_or_insert_with(|| Box::pin(sleep_until(after(timeout))));
        if self.source.is_some() && end.as_mut().poll(context).is_ready() {
            self.source = None;
        }
    }

    fn start_what_fits(&mut self, context: &mut Context<'_>) {
        while self.at_once.is_none()
            && self.running.len() < self.concurrency
            && let Some(source) = &mut self.source
        {
            match source.as_mut().poll_next(context) {
                Poll::Ready(Some(request)) => self.start(request),
                Poll::Ready(None) => self.source = None,
                Poll::Pending => break,
            }
        }
    }

    fn start(&mut self, request: Request) {
        let index = self.report.taken;
        self.report.taken += 1;
        let core = self.client.core.clone();
        let timeout = request.timeout.unwrap_or(core.limits.timeout);
        let request = Arc::new(request);
        match self.client.check((*request).clone(), false) {
            Err(error) => {
                self.at_once = Some(Item {
                    index,
                    request,
                    result: Err(error),
                });
            }
            Ok(call) => {
                let batch = Box::new(BatchLimit {
                    deadline: self.end.as_ref().map(|end| end.deadline()),
                    stop: self.stop.subscribe(),
                });
                let begun = core.begin(call, TimeLimit::OfMany { timeout, batch });
                let task = self.running.spawn(core.run(begun).with_current_subscriber());
                self.requests.insert(task.id(), (index, request));
            }
        }
    }
}

/// What of it is taken.
pub(crate) fn concurrency(most: usize) -> usize {
    most.clamp(1, MOST_CONCURRENT)
}

/// A call that was stopped ends as one whose deadline has passed.
fn is_by_the_stop(error: &Error) -> bool {
    error.kind() == ErrorKind::DeadlineExceeded || has_no_slot(error)
}

/// Before the `total_timeout`, for itself or for all of its parts.
fn has_no_slot(error: &Error) -> bool {
    error.kind() == ErrorKind::RateLimited && error.station() == Some(Station::Quota)
}

impl Stream for Many {
    type Item = Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        self.get_mut().poll_item(context)
    }
}

impl fmt::Debug for Many {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Many")
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}
