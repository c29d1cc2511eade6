//! Many calls. Requests come in and results go back in batches, as JSON, which the runtime's thread reads and
//! writes.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use feishu_feed_card::binding::{self, PROGRESS_EVERY};
use feishu_feed_card::{Client, Error, Item, Many, Progress, Report, Request, Unfinished};
use futures_util::Stream;
use napi::Env;
use napi::bindgen_prelude::Result;
use napi_derive::napi;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use crate::client;
use crate::data::{CallResult, ErrorData, Users};
use crate::environment::Queue;
use crate::events::CallContext;
use crate::options::{milliseconds, whole};

/// How many results come back at once.
const MOST_AT_ONCE: usize = 64;

/// How often they do at most: a wake-up of the event loop costs as much as ten results.
const PAUSE: Duration = Duration::from_millis(2);

/// How many calls are made.
#[napi(object, object_to_js = false)]
pub struct ManyArguments {
    pub concurrency: Option<f64>,
    pub total_timeout_ms: Option<f64>,
    /// How many requests there will be, where that is known.
    pub total: Option<u32>,
    /// Somebody wants to know of progress also where nothing comes back for a while.
    pub tells_progress: bool,
    /// The context of the calls, if someone listens or provides tokens.
    pub context: Option<i64>,
    /// The context's listeners are told the calls' events.
    pub tells_events: bool,
}

/// A handle of the core's. The facade reads the requests, and never more than there is room for.
#[napi]
pub struct NativeMany {
    feed: RefCell<Option<mpsc::Sender<String>>>,
    running: Arc<ManyState>,
    queue: Arc<Queue>,
    /// Until the report: nothing happens any more then.
    context: RefCell<Option<CallContext>>,
    /// How many requests may be fed and not yet back.
    #[napi(readonly)]
    pub concurrency: u32,
}

struct ManyState {
    paced: tokio::sync::Mutex<Paced>,
    /// Closed where the core reads no more.
    feed: mpsc::WeakSender<String>,
    stop: Notify,
    refused: Refused,
    tells_progress: bool,
}

struct Paced {
    many: Many,
    /// When the last batch was.
    last: Option<Instant>,
    /// Results of the batch that is being gathered: a panic of the core's does not take them along.
    gathered: Vec<Item>,
}

/// What was wrong with requests that this side found no core's request in, by their index.
type Refused = Arc<Mutex<HashMap<usize, Error>>>;

/// A request as the facade writes it, `null` where it knows itself what is wrong.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fed {
    feed_card_id: String,
    user_ids: Vec<String>,
    time_sensitive: bool,
    user_id_type: Option<String>,
    timeout_ms: Option<f64>,
}

/// What the core reads from.
struct Requests {
    fed: mpsc::Receiver<String>,
    read: VecDeque<Option<Fed>>,
    index: usize,
    total: Option<usize>,
    refused: Refused,
}

/// What a handle was asked for.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum ManyData {
    Batch(Batch),
    Report(ReportData),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Batch {
    items: Vec<ItemData>,
    /// Every request has come back.
    is_last: bool,
    progress: ProgressData,
    reads_no_more: bool,
}

#[derive(Serialize)]
struct ItemData {
    index: usize,
    #[serde(flatten)]
    answer: CallResult,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProgressData {
    done: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
    failed: usize,
    waiting_for_quota: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_ms: Option<f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReportData {
    succeeded: usize,
    failed: usize,
    unread: Vec<ItemData>,
    unfinished: Vec<UnfinishedData>,
}

#[derive(Serialize)]
struct UnfinishedData {
    index: usize,
    users: Users,
}

/// The error of a request that was read as the total timeout passed, and that nobody took.
#[napi(catch_unwind)]
pub(crate) fn total_timeout_passed(user_ids: Vec<String>) -> ErrorData {
    (&binding::total_timeout_passed(user_ids)).into()
}

#[napi]
impl NativeMany {
    /// Takes the next requests, a JSON array.
    #[napi(catch_unwind)]
    pub fn feed(&self, requests: String) -> Result<()> {
        let sent = match &*self.feed.borrow() {
            Some(feed) => feed.try_send(requests),
            None => Ok(()),
        };
        match sent {
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(napi::Error::from_reason("fed beyond `concurrency`"))
            }
            // Closed where the total timeout has passed: nothing more is read.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// There are no more requests.
    #[napi(catch_unwind)]
    pub fn end(&self) {
        self.feed.take();
    }

    /// Wants the next results; they come to the environment's `deliver`, under this id.
    #[napi(catch_unwind)]
    pub fn ask(&self, env: &Env, id: i64) -> Result<()> {
        let running = self.running.clone();
        let asked = async move { running.next_batch().await };
        match &*self.context.borrow() {
            Some(context) => self.queue.start_many(env, id, context.around(asked)),
            None => self.queue.start_many(env, id, asked),
        }
    }

    /// Stops what is on its way and wants to know what became of everything, under this id.
    #[napi(catch_unwind)]
    pub fn report(&self, env: &Env, id: i64) -> Result<()> {
        self.running.stop.notify_one();
        let running = self.running.clone();
        let context = self.context.take();
        self.queue.start_many(env, id, async move {
            let report = running.report().await;
            drop(context);
            report
        })
    }
}

impl NativeMany {
    pub(crate) fn new(
        client: &Client,
        queue: Arc<Queue>,
        context: Option<CallContext>,
        arguments: ManyArguments,
    ) -> std::result::Result<Self, Error> {
        let ManyArguments {
            concurrency,
            total_timeout_ms,
            total,
            tells_progress,
            ..
        } = arguments;
        let concurrency = concurrency
            .map(|number| whole("concurrency", number))
            .transpose()?;
        let concurrency = binding::concurrency(concurrency.map(|most| most as usize))?;
        let (feed, from_facade) = mpsc::channel(concurrency);
        let refused = Refused::default();
        let source = Requests {
            fed: from_facade,
            read: VecDeque::new(),
            index: 0,
            total: total.map(|total| total as usize),
            refused: refused.clone(),
        };
        let mut many = client.set_time_sensitive_stream(source).concurrency(concurrency);
        if let Some(ms) = total_timeout_ms {
            many = many.total_timeout(milliseconds("totalTimeoutMs", ms)?);
        }
        Ok(Self {
            concurrency: u32::try_from(concurrency).unwrap_or(u32::MAX),
            running: Arc::new(ManyState {
                paced: tokio::sync::Mutex::new(Paced {
                    many,
                    last: None,
                    gathered: Vec::new(),
                }),
                feed: feed.downgrade(),
                stop: Notify::new(),
                refused,
                tells_progress,
            }),
            feed: RefCell::new(Some(feed)),
            queue,
            context: RefCell::new(context),
        })
    }
}

impl ManyState {
    async fn next_batch(&self) -> ManyData {
        let paced = &mut *self.paced.lock().await;
        let next = paced.next_batch(&self.stop);
        let items = if self.tells_progress {
            timeout(PROGRESS_EVERY, next).await.ok()
        } else {
            Some(next.await)
        };
        let is_last = items.as_ref().is_some_and(Vec::is_empty);
        let items = items.unwrap_or_default().into_iter();
        ManyData::Batch(Batch {
            items: items.map(|item| self.item(item)).collect(),
            is_last,
            progress: paced.many.progress().into(),
            reads_no_more: self.feed.upgrade().is_none_or(|feed| feed.is_closed()),
        })
    }

    async fn report(&self) -> ManyData {
        let paced = &mut *self.paced.lock().await;
        let Report {
            succeeded,
            failed,
            unread,
            unfinished,
            ..
        } = paced.many.report().await;
        let unread = std::mem::take(&mut paced.gathered).into_iter().chain(unread);
        ManyData::Report(ReportData {
            succeeded,
            failed,
            unread: unread.map(|item| self.item(item)).collect(),
            unfinished: unfinished.iter().map(Into::into).collect(),
        })
    }

    fn item(&self, item: Item) -> ItemData {
        let Item {
            index,
            request,
            result,
            ..
        } = item;
        let refused = self.refused().remove(&index);
        ItemData {
            index,
            answer: CallResult::new(refused.map_or(result, Err), request.user_ids.len()),
        }
    }

    fn refused(&self) -> MutexGuard<'_, HashMap<usize, Error>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Paced {
    /// What there is, and what more comes until the pause since the last batch is over. To give the core's
    /// `next_batch` up loses nothing: it takes results in its last step only.
    async fn next_batch(&mut self, stop: &Notify) -> Vec<Item> {
        let Self { many, last, gathered } = self;
        tokio::select! {
            biased;
            () = stop.notified() => return Vec::new(),
            items = many.next_batch(MOST_AT_ONCE) => gathered.extend(items),
        }
        let until = last.map(|last| last + PAUSE);
        while let Some(until) = until
            && (1..MOST_AT_ONCE).contains(&gathered.len())
        {
            let more = tokio::select! {
                biased;
                () = sleep_until(until) => break,
                more = many.next_batch(MOST_AT_ONCE - gathered.len()) => more,
            };
            if more.is_empty() {
                break;
            }
            gathered.extend(more);
        }
        *last = Some(Instant::now());
        std::mem::take(gathered)
    }
}

impl Requests {
    fn request(&mut self, fed: Option<Fed>) -> Request {
        let index = self.index;
        self.index += 1;
        let Some(fed) = fed else {
            return binding::unreadable_request();
        };
        fed.request().unwrap_or_else(|error| {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.insert(index, error);
            binding::unreadable_request()
        })
    }
}

impl Stream for Requests {
    type Item = Request;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Request>> {
        loop {
            if let Some(fed) = self.read.pop_front() {
                return Poll::Ready(Some(self.request(fed)));
            }
            match ready!(self.fed.poll_recv(context)) {
                // The facade's own, from values it has checked.
                Some(json) => self.read = serde_json::from_str(&json).unwrap_or_default(),
                None => return Poll::Ready(None),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.total.unwrap_or(0), self.total)
    }
}

impl Fed {
    fn request(self) -> std::result::Result<Request, Error> {
        let Self {
            feed_card_id,
            user_ids,
            time_sensitive,
            user_id_type,
            timeout_ms,
        } = self;
        match client::kind(user_id_type).and_then(|kind| Ok((kind, client::timeout(timeout_ms)?))) {
            Err(error) => Err(binding::refused(error, user_ids)),
            Ok((kind, timeout)) => {
                let mut request = Request::new(feed_card_id, user_ids, time_sensitive).user_id_type(kind);
                request.timeout = timeout;
                Ok(request)
            }
        }
    }
}

impl From<Progress> for ProgressData {
    fn from(progress: Progress) -> Self {
        Self {
            done: progress.done,
            total: progress.total,
            failed: progress.failed,
            waiting_for_quota: progress.waiting_for_quota,
            eta_ms: progress.eta.map(|eta| eta.as_secs_f64() * 1000.0),
        }
    }
}

impl From<&Unfinished> for UnfinishedData {
    fn from(unfinished: &Unfinished) -> Self {
        Self {
            index: unfinished.index,
            users: (&unfinished.users).into(),
        }
    }
}
