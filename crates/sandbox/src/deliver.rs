//! Delivers a request to the platform and its answer to the client, with the faults of the script.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use serde_json::Value;
use tokio::time::sleep;

use crate::fault::{Fault, Reset};
use crate::model::{Answer, Endpoint, OVER_LIMIT, Refusal, raw};
use crate::record::Entry;
use crate::stage::{Stage, State};

const HTML: &str =
    "<html><head><title>Error</title></head><body><h1>A page from a proxy.</h1></body></html>\n";

/// What the client receives for a request.
#[derive(Debug)]
#[non_exhaustive]
pub enum Delivery {
    /// A complete response.
    Answer(Response<Bytes>),
    /// A response whose connection closes before the end of the body.
    Truncated {
        /// The complete response, whose length is in its `Content-Length` header.
        response: Response<Bytes>,
        /// The number of bytes of the body that are sent.
        sent_bytes: usize,
    },
    /// No response: the connection is reset.
    Reset,
}

/// Marks a response, in its extensions, that is sent without a `Content-Length`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoContentLength;

impl Stage {
    /// Delivers one request to the platform and waits for the response.
    ///
    /// Dropping the future closes the client's connection. A request that has not reached the platform by then
    /// never reaches it, unless the fault script says otherwise ([`Fault::detached`], [`Fault::late_ms`]).
    pub async fn deliver(&self, request: Request<Bytes>) -> Delivery {
        self.deliver_on(0, request).await
    }

    pub(crate) async fn deliver_on(&self, connection: u64, request: Request<Bytes>) -> Delivery {
        let (pending, step) = {
            let state = &mut *self.lock();
            let now = state.now();
            let endpoint = state.model.endpoint(&request);
            let keep = state.model.switches().keep_requests;
            let entry = state.journal.receive(connection, &request, &endpoint, now, keep);
            let pending = PendingRequest {
                entry,
                endpoint,
                request,
            };
            match state.script.next(&pending.endpoint) {
                None => return Delivery::Answer(pending.arrive(state)),
                Some(step) => {
                    state.journal.fault(entry);
                    (pending, step)
                }
            }
        };
        if step.detached {
            let stage = self.clone();
            let pending = tokio::spawn(async move { pending.perform(&stage, step).await });
            pending.await.unwrap_or(Delivery::Reset)
        } else {
            pending.perform(self, step).await
        }
    }
}

/// A recorded request that has not reached the platform yet.
#[derive(Debug)]
struct PendingRequest {
    entry: Entry,
    endpoint: Endpoint,
    request: Request<Bytes>,
}

impl PendingRequest {
    /// Delivers the request to the platform.
    fn arrive(&self, state: &mut State) -> Response<Bytes> {
        let now = state.now();
        let keep = state.model.switches().keep_arrivals;
        state.journal.arrive(self.entry, &self.endpoint, now, keep);
        let Answer {
            response,
            code,
            token,
        } = state.model.answer(&self.endpoint, &self.request, now);
        state
            .journal
            .answer(self.entry, response.status(), Some(code), token);
        if code == OVER_LIMIT {
            state.journal.refuse_over_limit();
        }
        response
    }

    async fn perform(self, stage: &Stage, step: Fault) -> Delivery {
        if step.refuse {
            return Delivery::Reset;
        }
        let before = Duration::from_millis(step.delay_before_ms);
        if let Some(late_ms) = step.late_ms {
            let response = step.has_response().then(|| {
                let mut response = self.scripted(&mut stage.lock(), &step, None);
                alter(&mut response, &step);
                response
            });
            let recorded = response
                .as_ref()
                .map(|response| (response.status(), code_of(response)));
            let (stage, late) = (stage.clone(), Duration::from_millis(late_ms));
            tokio::spawn(async move {
                sleep(before + late).await;
                let locked = &mut *stage.lock();
                if step.revoke_tokens {
                    locked.model.revoke_tokens();
                }
                self.arrive(locked);
                match recorded {
                    Some((status, code)) => locked.journal.answer(self.entry, status, code, None),
                    None => locked.journal.unanswered(self.entry),
                }
            });
            sleep(before).await;
            return response.map_or(Delivery::Reset, Delivery::Answer);
        }
        pause(before).await;
        if step.reset == Some(Reset::Before) {
            return Delivery::Reset;
        }
        let mut response = {
            let locked = &mut *stage.lock();
            if step.revoke_tokens {
                locked.model.revoke_tokens();
            }
            if step.has_response() {
                let platform = step.after.then(|| self.arrive(locked));
                self.scripted(locked, &step, platform)
            } else {
                self.arrive(locked)
            }
        };
        pause(Duration::from_millis(step.delay_after_ms)).await;
        if step.reset == Some(Reset::After) {
            stage.lock().journal.unanswered(self.entry);
            return Delivery::Reset;
        }
        alter(&mut response, &step);
        stage
            .lock()
            .journal
            .answer(self.entry, response.status(), code_of(&response), None);
        match step.truncate {
            Some(sent_bytes) if sent_bytes < response.body().len() => {
                Delivery::Truncated { response, sent_bytes }
            }
            _ => Delivery::Answer(response),
        }
    }

    /// The response given by the fault script. `platform` is the platform's response, if it got the request.
    fn scripted(
        &self,
        state: &mut State,
        step: &Fault,
        platform: Option<Response<Bytes>>,
    ) -> Response<Bytes> {
        let log_id = state.model.next_log_id();
        let mut response = if let Some(code) = step.code {
            let mut refusal = Refusal::new(code);
            if let Some(msg) = &step.msg {
                refusal.msg.clone_from(msg);
            }
            if self.endpoint.is_token() {
                refusal.into_token_answer(&log_id)
            } else {
                refusal.into_gateway_answer(&log_id)
            }
        } else if step.html {
            let mut page = raw(StatusCode::OK, Bytes::from_static(HTML.as_bytes()), &log_id);
            page.headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            page
        } else {
            platform.unwrap_or_else(|| raw(StatusCode::OK, Bytes::new(), &log_id))
        };
        if let Some(body) = &step.body {
            *response.body_mut() = Bytes::from(body.clone());
        }
        if let Some(status) = step.status {
            *response.status_mut() = status;
        }
        response
    }
}

fn code_of(response: &Response<Bytes>) -> Option<i64> {
    let body: Value = serde_json::from_slice(response.body()).ok()?;
    body.get("code")?.as_i64()
}

/// Sleeps for `time`. Does not yield if it is zero.
async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// Applies the changes of the fault script to a response.
fn alter(response: &mut Response<Bytes>, step: &Fault) {
    for (name, value) in &step.headers {
        response.headers_mut().insert(name, value.clone());
    }
    if let Ok(Value::Object(mut body)) = serde_json::from_slice(response.body()) {
        match &step.expire {
            Some(Value::Null) => {
                body.remove("expire");
            }
            Some(expire) => {
                body.entry("expire").and_modify(|old| old.clone_from(expire));
            }
            None => {}
        }
        if let Some(bytes) = step.big_body {
            body.insert("padding".to_owned(), Value::String(String::new()));
            let missing = bytes.saturating_sub(Value::Object(body.clone()).to_string().len());
            body.insert("padding".to_owned(), Value::String("x".repeat(missing)));
        }
        if step.expire.is_some() || step.big_body.is_some() {
            *response.body_mut() = Value::Object(body).to_string().into();
        }
    }
    if step.no_content_length {
        response.extensions_mut().insert(NoContentLength);
    }
}
