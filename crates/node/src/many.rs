//! Many calls. Requests from the facade and results for it are passed in batches, as JSON. The core's [`ManyDriver`] makes
//! the calls in a task of the runtime.

use std::cell::{OnceCell, RefCell};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;

use feishu_feed_card::binding;
use feishu_feed_card::binding::many::{
    ManyDriver, ManyItem, ManyOptions, READS_FOR, UnfinishedRequest, concurrency, summary,
};
use feishu_feed_card::{Client, Error, Progress, Request};
use napi::Env;
use napi::bindgen_prelude::Result;
use napi_derive::napi;
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

use crate::client;
use crate::data::{CallResult, ErrorData, Users};
use crate::environment::Queue;
use crate::events::CallContext;
use crate::options::{milliseconds, whole};
use crate::runtime::runtime;

/// The options of many calls.
#[napi(object, object_to_js = false)]
pub struct ManyArguments {
    pub concurrency: Option<f64>,
    pub total_timeout_ms: Option<f64>,
    /// Number of requests, if known.
    pub total: Option<u32>,
    /// The context of the calls, if there is a listener or a token provider.
    pub context: Option<i64>,
    /// Whether the context's listeners get the calls' events.
    pub wants_events: bool,
}

/// The state of many calls. The facade reads requests while there is room.
#[napi]
pub struct NativeMany {
    driver: ManyDriver,
    /// The future that makes the calls, until it is started.
    calls: RefCell<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    task: OnceCell<AbortHandle>,
    queue: Arc<Queue>,
    /// Maximum number of requests that the facade has read and that have no result yet.
    #[napi(readonly)]
    pub concurrency: u32,
    /// Maximum time for which the facade reads its source without a pause, so that it does not delay results or block the
    /// event loop.
    #[napi(readonly)]
    pub reads_for_ms: f64,
}

/// A request from the facade.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FedRequest {
    feed_card_id: String,
    user_ids: Vec<String>,
    time_sensitive: bool,
    user_id_type: Option<String>,
    timeout_ms: Option<f64>,
}

/// The message for `nextBatch` or `report`.
#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub(crate) enum ManyData {
    Batch {
        items: Vec<ItemData>,
        /// All requests have finished.
        is_last: bool,
        /// Absent if it has not changed.
        #[serde(skip_serializing_if = "Option::is_none")]
        progress: Option<ProgressData>,
        reads_no_more: bool,
        /// The error to throw after the last result.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Box<ErrorData>>,
    },
    Report {
        taken: usize,
        succeeded: usize,
        failed: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        not_read: Option<usize>,
        /// The counts in one line.
        summary: String,
        unread: Vec<ItemData>,
        unfinished: Vec<(usize, Users)>,
    },
}

/// A request's index, its result (empty for a request that was fed as `null`), and whether the report's failures include
/// it.
type ItemData = (usize, CallResult, bool);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProgressData {
    done: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
    failed: usize,
    waiting_for_quota: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_ms: Option<f64>,
}

#[napi]
impl NativeMany {
    /// Accepts the next requests: a JSON array, with `null` for each request that the facade rejected. Their indices count
    /// from 0.
    #[napi(catch_unwind)]
    pub fn feed(&self, requests: String) -> Result<()> {
        let requests: Vec<Option<FedRequest>> =
            serde_json::from_str(&requests).map_err(|error| napi::Error::from_reason(error.to_string()))?;
        for request in requests {
            self.driver
                .push(request.map_or(Err(None), |fed| fed.request().map_err(Some)));
        }
        Ok(())
    }

    /// Accepts a request that threw an exception while it was read, with the user ids that were read before.
    #[napi(catch_unwind)]
    pub fn feed_unreadable(&self, user_ids: Vec<String>) {
        self.driver.push_unreadable(user_ids);
    }

    /// Reports the end of the requests.
    #[napi(catch_unwind)]
    pub fn end(&self) {
        self.driver.end_input();
    }

    /// Requests the next results. The environment's `deliver` gets them, under this id.
    #[napi(catch_unwind)]
    pub fn next_batch(&self, env: &Env, id: i64) -> Result<()> {
        self.begin()?;
        let driver = self.driver.clone();
        self.queue.start_many(env, id, async move {
            let batch = driver.next_batch().await;
            if batch.is_end
                && let Some(panic) = driver.panic()
            {
                resume_unwind(Box::new(panic));
            }
            let error = if batch.is_end { driver.take_error() } else { None };
            ManyData::Batch {
                items: batch.items.into_iter().map(item).collect(),
                is_last: batch.is_end,
                progress: driver.new_progress().map(Into::into),
                reads_no_more: !driver.takes_more(),
                error: error.map(|error| Box::new((&error).into())),
            }
        })
    }

    /// Stops all calls. The environment's `deliver` gets the report, under this id.
    #[napi(catch_unwind)]
    pub fn report(&self, env: &Env, id: i64) -> Result<()> {
        self.driver.stop();
        self.begin()?;
        let driver = self.driver.clone();
        self.queue.start_many(env, id, async move {
            driver.ended().await;
            let report = driver.take_report();
            let users = |stopped: &UnfinishedRequest| (stopped.index, (&stopped.users).into());
            ManyData::Report {
                taken: report.taken,
                succeeded: report.succeeded,
                failed: report.failed,
                not_read: report.not_read,
                summary: summary(
                    report.taken,
                    report.succeeded,
                    report.failed,
                    report.unfinished.len(),
                    report.not_read,
                ),
                unread: report.unread.into_iter().map(item).collect(),
                unfinished: report.unfinished.iter().map(users).collect(),
            }
        })
    }
}

impl NativeMany {
    pub(crate) fn new(
        client: &Client,
        queue: Arc<Queue>,
        context: Option<CallContext>,
        arguments: &ManyArguments,
    ) -> std::result::Result<Self, Error> {
        let wanted = arguments.concurrency.map(|number| whole("concurrency", number));
        let total_timeout = arguments
            .total_timeout_ms
            .map(|ms| milliseconds("totalTimeoutMs", ms));
        let options = ManyOptions {
            concurrency: concurrency(wanted.transpose()?.map(|most| most as usize))?,
            total_timeout: total_timeout.transpose()?,
            total: arguments.total.map(|total| total as usize),
        };
        let (driver, task) = ManyDriver::new(client, options);
        Ok(Self {
            driver,
            calls: RefCell::new(Some(match context {
                Some(context) => Box::pin(context.around(task)),
                None => Box::pin(task),
            })),
            task: OnceCell::new(),
            queue,
            concurrency: u32::try_from(options.concurrency).unwrap_or(u32::MAX),
            reads_for_ms: READS_FOR.as_secs_f64() * 1000.0,
        })
    }

    fn begin(&self) -> Result<()> {
        let runtime = runtime()?;
        if let Some(calls) = self.calls.take() {
            self.task.get_or_init(|| runtime.spawn(calls).abort_handle());
        }
        Ok(())
    }
}

impl Drop for NativeMany {
    /// Runs when the facade's object is collected, or when its environment ends.
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl FedRequest {
    fn request(self) -> std::result::Result<Request, Error> {
        let Self {
            feed_card_id,
            user_ids,
            time_sensitive,
            user_id_type,
            timeout_ms,
        } = self;
        match client::kind(user_id_type).and_then(|kind| Ok((kind, client::timeout(timeout_ms)?))) {
            Err(error) => Err(binding::not_attempted(error, user_ids)),
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

fn item(item: ManyItem) -> ItemData {
    let result = match item.result {
        Ok(outcome) => CallResult::new(Ok(outcome), item.users),
        Err(Some(error)) => CallResult::new(Err(error), item.users),
        Err(None) => CallResult::default(),
    };
    (item.index, result, item.is_listed)
}
