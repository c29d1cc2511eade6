//! Many calls for a binding. The binding hands requests over as it reads them, and takes results in batches.
//!
//! A binding reads its language's iterator in small steps on a thread of that language. Meanwhile the calls run in a
//! task of the runtime. Switching to the other thread costs as much as handling ten results, so the task collects
//! results for a short time before it announces them.

use std::any::Any;
use std::collections::VecDeque;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::FutureExt;
use tokio::select;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::data::error::{Error, ErrorKind};
use crate::data::input::{Request, without_repeats};
use crate::data::outcome::{Outcome, UserIds};
use crate::data::text::text;
use crate::many::{self, MAX_FAILURES, Many, NextRequest, PROGRESS_EVERY, Progress};
use crate::stations::closing::{Closing, InProgress, client_closed};

pub use crate::many::summary;

/// How long a binding reads its iterator without a break. A slow iterator must delay neither results nor an event loop.
pub const READS_FOR: Duration = Duration::from_millis(5);

/// Most results in a batch.
const BATCH: usize = 64;

/// How long a result waits for others, if others are in progress.
const LINGER: Duration = Duration::from_millis(2);

/// Effective concurrency: the default for `None`, an error for 0, otherwise clamped.
pub fn concurrency(wanted: Option<usize>) -> Result<usize, Error> {
    match wanted {
        Some(0) => Err(Error::invalid_input(text!("{concurrency}"), "0", "at least 1")),
        Some(most) => Ok(many::concurrency(most)),
        None => Ok(many::CONCURRENCY),
    }
}

/// Options of many calls.
#[derive(Clone, Copy, Debug)]
pub struct ManyOptions {
    /// As [`concurrency`] returns it. Also bounds how far the binding reads ahead.
    pub concurrency: usize,
    /// Time limit for all requests, from the first poll of the task.
    pub total_timeout: Option<Duration>,
    /// All requests, if the input knows its length.
    pub total: Option<usize>,
}

/// The binding's handle of many calls. Every request that was handed over ends up in exactly one place: in a batch, in
/// the report's `unread`, or in its `unfinished`.
#[derive(Clone, Debug)]
pub struct ManyDriver(Arc<Shared>);

/// The result of one request.
#[derive(Debug)]
pub struct ManyItem {
    /// As [`ManyDriver::push`] returned it.
    pub index: usize,
    /// User ids of the request, including repeated ones.
    pub users: usize,
    /// `Err(None)` for a request that the binding rejected with an error of its language.
    pub result: Result<Outcome, Option<Error>>,
    /// Whether the report's failures are to include this item.
    pub is_listed: bool,
}

/// Results that are handed out together.
#[derive(Debug)]
pub struct Batch {
    /// Empty if there is only progress to report, and at the end.
    pub items: Vec<ManyItem>,
    /// Whether all results were handed out, and no more follow.
    pub is_end: bool,
}

/// Final state of all requests.
#[derive(Debug, Default)]
pub struct ManyReport {
    /// Requests handed over: the sum of `succeeded`, `failed` and the number of `unfinished`.
    pub taken: usize,
    /// Requests with every user reached.
    pub succeeded: usize,
    /// Requests with an error, or with users that were not reached.
    pub failed: usize,
    /// Requests that were not handed over: 0 if the input ended, `None` if the number is unknown.
    pub not_read: Option<usize>,
    /// Results that were in no batch, sorted by index. `succeeded` and `failed` include them.
    pub unread: Vec<ManyItem>,
    /// Requests that were stopped before they finished, sorted by index.
    pub unfinished: Vec<UnfinishedRequest>,
}

/// A request that was stopped before it finished.
#[derive(Debug)]
pub struct UnfinishedRequest {
    /// As [`ManyDriver::push`] returned it.
    pub index: usize,
    /// What is known about its users.
    pub users: UserIds,
}

#[derive(Debug)]
struct Shared {
    options: ManyOptions,
    closing: Closing,
    state: Mutex<State>,
    /// Notified when a batch is ready, and at the end.
    ready: Notify,
    stop: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// `None` after the last request.
    queue: Option<mpsc::UnboundedSender<HandedOver>>,
    /// Requests handed over.
    taken: usize,
    /// Requests handed over whose results were not handed out.
    open: usize,
    /// Requests that the core did not take from the queue.
    untaken: Vec<(usize, Request)>,
    items: VecDeque<ManyItem>,
    /// Items with `is_listed`.
    listed: usize,
    is_ready: bool,
    /// Requests that failed before [`Many`] read them.
    failed_here: usize,
    unfinished: Vec<UnfinishedRequest>,
    /// Progress of [`Many`].
    progress: Option<Progress>,
    /// The last progress that the binding took.
    seen: Option<Progress>,
    is_stopped: bool,
    /// Whether the input ended by itself.
    is_all_read: bool,
    end: Option<End>,
}

/// A request that was handed over, with its index. `InProgress` is `None` if the client was already closed.
type HandedOver = (usize, Request, Option<InProgress>);

#[derive(Debug)]
struct End {
    succeeded: usize,
    failed: usize,
    panic: Option<String>,
    /// Why reading was cut short, until [`ManyDriver::take_error`] has returned it.
    cut_short: Option<ErrorKind>,
}

impl ManyDriver {
    /// Returns the handle, and the task that makes the calls, for the runtime. Nothing is sent until the task is
    /// polled. Dropping the task stops all calls.
    pub fn new(client: &Client, options: ManyOptions) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let driver = Self(Arc::new(Shared {
            options,
            closing: client.core.closing.clone(),
            state: Mutex::new(State {
                queue: Some(sender),
                ..State::default()
            }),
            ready: Notify::new(),
            stop: Notify::new(),
        }));
        let queue = Queue {
            receiver,
            shared: driver.0.clone(),
        };
        let mut many = Many::new(client, queue, options.total)
            .concurrency(options.concurrency)
            .without_failures();
        if let Some(total_timeout) = options.total_timeout {
            many = many.total_timeout(total_timeout);
        }
        let end = EndOfTask(driver.0.clone());
        (driver, run(many, end))
    }

    /// Hands over the next request, or the error of an element that is not a request (`None` if the binding keeps the
    /// error). Returns the request's index. Never waits and never refuses a request: the binding checks
    /// [`has_room`](Self::has_room) before it reads another one.
    pub fn push(&self, request: Result<Request, Option<Error>>) -> usize {
        let mut state = self.0.state();
        let index = state.take();
        match request {
            Ok(request) => {
                let handed = (index, request, self.0.closing.enter());
                let sent = match &state.queue {
                    Some(queue) => queue.send(handed).map_err(|refused| refused.0),
                    None => Err(handed),
                };
                if let Err((index, request, _)) = sent {
                    state.untaken.push((index, request));
                    state.settle_untaken(&self.0.closing);
                }
            }
            Err(error) => {
                let users = error
                    .as_ref()
                    .map_or(0, |error| error.users().not_attempted.len());
                state.fail(index, users, error);
            }
        }
        let is_ready = state.is_ready;
        drop(state);
        if is_ready {
            self.0.ready.notify_waiters();
        }
        index
    }

    /// Hands over the user ids of a request that could not be read completely. The report lists the request as
    /// unfinished. Returns its index.
    pub fn push_unreadable(&self, user_ids: Vec<String>) -> usize {
        let mut state = self.0.state();
        let index = state.take();
        state.unfinished.push(UnfinishedRequest {
            index,
            users: UserIds::not_attempted(without_repeats(user_ids)),
        });
        index
    }

    /// Whether to read another request: fewer than `concurrency` results are still to be handed out, and the core takes
    /// more requests.
    pub fn has_room(&self) -> bool {
        let state = self.0.state();
        self.0.takes_more(&state) && state.open < self.0.options.concurrency
    }

    /// Whether the core takes more requests. It does not after `total_timeout`, a stop, or the client's close.
    pub fn takes_more(&self) -> bool {
        self.0.takes_more(&self.0.state())
    }

    /// Ends the input. Requests that were handed over go on.
    pub fn end_input(&self) {
        let mut state = self.0.state();
        state.queue = None;
        state.is_all_read = true;
    }

    /// Stops all calls. Results that are ready are still handed out before the end.
    pub fn stop(&self) {
        let mut state = self.0.state();
        state.queue = None;
        state.is_stopped = true;
        drop(state);
        self.0.stop.notify_one();
    }

    /// Whether there is a batch, progress to report, or the end.
    pub fn is_ready(&self) -> bool {
        self.0.state().is_ready
    }

    /// Waits until [`is_ready`](Self::is_ready). Cancel safe.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.clone().wait_until(|state| state.is_ready)
    }

    /// Whether all calls have ended.
    pub fn is_ended(&self) -> bool {
        self.0.state().end.is_some()
    }

    /// Waits until [`is_ended`](Self::is_ended). Cancel safe.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.clone().wait_until(|state| state.end.is_some())
    }

    /// Takes the results that are ready.
    pub fn take_batch(&self) -> Batch {
        let mut state = self.0.state();
        let count = state.items.len().min(BATCH);
        let items: Vec<_> = state.items.drain(..count).collect();
        state.open -= items.len();
        state.is_ready = !state.items.is_empty() || state.end.is_some();
        Batch {
            is_end: items.is_empty() && state.end.is_some(),
            items,
        }
    }

    /// Waits for results, for progress, or for the end.
    pub async fn next_batch(&self) -> Batch {
        self.ready().await;
        self.take_batch()
    }

    /// Takes the error to raise after the last result: `total_timeout` passed, or the client was closed, before all
    /// requests were read.
    pub fn take_error(&self) -> Option<Error> {
        let mut state = self.0.state();
        let reason = state.end.as_mut()?.cut_short.take()?;
        if state.is_stopped {
            return None;
        }
        let not_read = state.not_read(self.0.options.total);
        if reason == ErrorKind::ClientClosed {
            return (not_read != Some(0)).then(client_closed);
        }
        many::not_all_read(state.taken, not_read)
    }

    /// Returns the current progress.
    pub fn progress(&self) -> Progress {
        self.0.state().progress(self.0.options.total)
    }

    /// Returns the current progress if it has changed since the last time.
    pub fn new_progress(&self) -> Option<Progress> {
        let mut state = self.0.state();
        let progress = Some(state.progress(self.0.options.total));
        if state.seen == progress {
            return None;
        }
        state.seen = progress;
        progress
    }

    /// The message of the panic that ended the calls. The binding raises it as a bug, after the results.
    pub fn panic(&self) -> Option<String> {
        self.0.state().end.as_ref()?.panic.clone()
    }

    /// Takes the final state of all requests, after [`ended`](Self::ended).
    pub fn take_report(&self) -> ManyReport {
        let mut state = self.0.state();
        let mut unread = Vec::from(mem::take(&mut state.items));
        unread.sort_by_key(|item| item.index);
        let mut unfinished = mem::take(&mut state.unfinished);
        unfinished.sort_by_key(|request| request.index);
        let (succeeded, failed) = state
            .end
            .as_ref()
            .map_or((0, 0), |end| (end.succeeded, end.failed));
        ManyReport {
            taken: state.taken,
            succeeded,
            failed: failed + state.failed_here,
            not_read: state.not_read(self.0.options.total),
            unread,
            unfinished,
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn takes_more(&self, state: &State) -> bool {
        let takes_more = state.queue.as_ref().is_some_and(|queue| !queue.is_closed());
        takes_more && !self.closing.is_closed()
    }

    async fn wait_until(self: Arc<Self>, condition: fn(&State) -> bool) {
        loop {
            let mut notified = std::pin::pin!(self.ready.notified());
            notified.as_mut().enable();
            if condition(&self.state()) {
                return;
            }
            notified.await;
        }
    }

    fn announce(&self) {
        self.state().is_ready = true;
        self.ready.notify_waiters();
    }

    /// Collects results until there are no more, or a stop. Returns why reading was cut short, if it was.
    async fn collect(&self, many: &mut Many) -> Option<ErrorKind> {
        // A quarter of the requests: the others keep the connections busy while these are handed out.
        let enough = (self.options.concurrency / 4).clamp(1, BATCH);
        let mut announce_at = None;
        let mut cut_short = None;
        loop {
            let wake_up = announce_at.unwrap_or_else(|| Instant::now() + PROGRESS_EVERY);
            select! {
                biased;
                () = self.stop.notified() => return cut_short,
                items = many.next_batch(BATCH) => {
                    if items.is_empty() {
                        return cut_short;
                    }
                    let mut state = self.state();
                    // Only the kind is kept, because `Many` reads from a queue of unknown length. `take_error` counts
                    // the unread requests.
                    let error = items.last().and_then(|last| last.as_ref().err());
                    cut_short = cut_short.or(error.map(Error::kind));
                    state.add_items(items.into_iter().flatten());
                    state.update_progress(many, self.options.total);
                    let waiting = state.items.len();
                    let is_enough = waiting >= enough || waiting == state.open;
                    drop(state);
                    if is_enough {
                        announce_at = None;
                        self.announce();
                    } else {
                        announce_at.get_or_insert_with(|| Instant::now() + LINGER);
                    }
                }
                () = sleep_until(wake_up) => {
                    announce_at = None;
                    self.state().update_progress(many, self.options.total);
                    self.announce();
                }
            }
        }
    }

    fn end(&self, change: impl FnOnce(&mut State) -> End) {
        let mut state = self.state();
        if state.end.is_none() {
            let end = change(&mut state);
            // After a panic the remaining requests are reported as unfinished, not as timed out.
            state.is_stopped |= end.panic.is_some();
            state.end = Some(end);
            state.settle_untaken(&self.closing);
            state.is_ready = true;
        }
        drop(state);
        self.ready.notify_waiters();
    }
}

impl State {
    /// Counts a request, and returns its index.
    fn take(&mut self) -> usize {
        let index = self.taken;
        self.taken += 1;
        self.open += 1;
        index
    }

    fn not_read(&self, total: Option<usize>) -> Option<usize> {
        if self.is_all_read {
            return Some(0);
        }
        total.map(|total| total.saturating_sub(self.taken))
    }

    fn add_items(&mut self, items: impl IntoIterator<Item = many::Item>) {
        for item in items {
            self.add_item(item.index, item.request.user_ids.len(), item.result.map_err(Some));
        }
    }

    fn fail(&mut self, index: usize, users: usize, error: Option<Error>) {
        self.failed_here += 1;
        self.add_item(index, users, Err(error));
        self.is_ready = true;
    }

    fn add_item(&mut self, index: usize, users: usize, result: Result<Outcome, Option<Error>>) {
        let is_failure = !result.as_ref().is_ok_and(Outcome::ok);
        let is_listed = is_failure && self.listed < MAX_FAILURES;
        self.listed += usize::from(is_listed);
        self.items.push_back(ManyItem {
            index,
            users,
            result,
            is_listed,
        });
    }

    /// After the end, settles the requests that the core did not take. Each is unfinished if the calls were stopped.
    /// Otherwise it failed, because `total_timeout` passed before it began, or because the client was closed.
    fn settle_untaken(&mut self, closing: &Closing) {
        if self.end.is_none() {
            return;
        }
        for (index, request) in mem::take(&mut self.untaken) {
            let given = request.user_ids.len();
            let users = UserIds::not_attempted(without_repeats(request.user_ids));
            if self.is_stopped {
                self.unfinished.push(UnfinishedRequest { index, users });
            } else {
                let error = if closing.is_closed() {
                    client_closed()
                } else {
                    many::total_timeout_passed()
                };
                self.fail(index, given, Some(error.with_users(users)));
            }
        }
    }

    fn update_progress(&mut self, many: &Many, total: Option<usize>) {
        let total = total.map(|total| total.saturating_sub(self.failed_here));
        self.progress = Some(many.progress_of(total));
    }

    fn progress(&self, total: Option<usize>) -> Progress {
        let many = self.progress.unwrap_or(Progress {
            done: 0,
            total: None,
            failed: 0,
            waiting_for_quota: 0,
            eta: None,
        });
        Progress {
            done: many.done + self.failed_here,
            total,
            failed: many.failed + self.failed_here,
            ..many
        }
    }
}

async fn run(mut many: Many, end: EndOfTask) {
    let shared = &end.0;
    let collected = AssertUnwindSafe(shared.collect(&mut many)).catch_unwind().await;
    let report = many.report().await;
    shared.end(|state| {
        state.add_items(report.unread);
        state.update_progress(&many, shared.options.total);
        let unfinished = report.unfinished.into_iter().map(|unfinished| UnfinishedRequest {
            index: unfinished.index,
            users: unfinished.users,
        });
        state.unfinished.extend(unfinished);
        End {
            succeeded: report.succeeded,
            failed: report.failed,
            cut_short: *collected.as_ref().unwrap_or(&None),
            panic: collected.err().map(|panic| message(&*panic)),
        }
    });
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("panicked").to_owned()
}

/// Ends the waits when the task is dropped before its end.
#[derive(Debug)]
struct EndOfTask(Arc<Shared>);

impl Drop for EndOfTask {
    fn drop(&mut self) {
        self.0.end(|_| End {
            succeeded: 0,
            failed: 0,
            panic: Some("the task of many calls was dropped".to_owned()),
            cut_short: None,
        });
    }
}

/// The input of [`Many`]: the requests that the binding handed over.
struct Queue {
    receiver: mpsc::UnboundedReceiver<HandedOver>,
    shared: Arc<Shared>,
}

impl Stream for Queue {
    type Item = NextRequest<()>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let handed = self.receiver.poll_recv(context);
        handed.map(|handed| {
            handed.map(|(index, request, in_progress)| NextRequest {
                index,
                request,
                in_progress,
            })
        })
    }
}

impl Drop for Queue {
    /// [`Many`] drops its input to stop reading.
    fn drop(&mut self) {
        let mut state = self.shared.state();
        // Under the lock, so that requests handed over later come after those in the queue.
        self.receiver.close();
        while let Ok((index, request, _)) = self.receiver.try_recv() {
            state.untaken.push((index, request));
        }
        state.settle_untaken(&self.shared.closing);
    }
}
