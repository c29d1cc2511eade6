//! The record of the requests that the sandbox received.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::model::{Endpoint, Interface};

/// The headers that are recorded. `Authorization` is not one of them, because it contains the token.
const RECORDED_HEADERS: [HeaderName; 4] = [ACCEPT, CONTENT_TYPE, HOST, USER_AGENT];

/// Fields of a token request that are masked in the record, because someone may try the sandbox with a real app.
const SECRET_FIELDS: [&str; 3] = ["app_access_token", "app_secret", "app_ticket"];

/// A request that the sandbox received.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RecordedRequest {
    /// The number of the request, counted from 1.
    pub number: u64,
    /// The number of its connection, counted from 1; 0 without a socket.
    pub connection: u64,
    /// When the sandbox received it, since the sandbox's start.
    #[serde(rename = "received_ms", serialize_with = "milliseconds")]
    pub received: Duration,
    /// When it reached the platform, since the sandbox's start. `None` if it has not reached the platform.
    #[serde(rename = "arrived_ms", serialize_with = "maybe_milliseconds")]
    pub arrived: Option<Duration>,
    /// The method, for example `PATCH`.
    pub method: String,
    /// The path as it was sent, percent-encoded.
    pub path: String,
    /// The query string, without the `?`.
    pub query: Option<String>,
    /// Some of the headers (`accept`, `content-type`, `host`, `user-agent`), with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The scheme of the `Authorization` header, for example `Bearer`, without the token.
    pub authorization: Option<String>,
    /// The number of the valid tenant token that it carried. Tokens are counted from 1 in the order in which they were
    /// issued.
    pub token: Option<u64>,
    /// The body: JSON with the secrets of a token request masked, or a string if it is not JSON.
    pub body: Value,
    /// The HTTP status of the response, even if the client had closed its connection. `None` before the response, or if
    /// the connection was reset instead.
    pub status: Option<u16>,
    /// The `code` in the body of the response.
    pub code: Option<i64>,
    /// Whether the request took a step of the fault script.
    pub fault: bool,
}

/// A stored request. It copies all parts, because a slice would keep the server's whole read buffer of 8 KiB alive.
#[derive(Debug)]
struct StoredRequest {
    connection: u64,
    received: Duration,
    arrived: Option<Duration>,
    method: Method,
    path: Box<str>,
    query: Option<Box<str>>,
    headers: [Option<Box<str>>; 4],
    authorization: Option<Box<str>>,
    token: Option<u64>,
    body: Box<[u8]>,
    status: Option<StatusCode>,
    code: Option<i64>,
    fault: bool,
}

/// The newest requests and arrival times, and counters.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    requests: VecDeque<StoredRequest>,
    /// The number of requests that were removed, because there were too many or by `clear`.
    removed: u64,
    /// The number of requests up to the last `clear`.
    cleared: u64,
    group_arrivals: VecDeque<Duration>,
    bot_arrivals: VecDeque<Duration>,
    token_fetches: u64,
    /// The number of calls that exceeded a frequency limit of the platform.
    over_limit: u64,
}

/// A request's place in the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry(u64);

impl Journal {
    pub(crate) fn receive(
        &mut self,
        connection: u64,
        request: &Request<Bytes>,
        endpoint: &Endpoint,
        now: Duration,
        keep: usize,
    ) -> Entry {
        self.token_fetches += u64::from(endpoint.is_tenant_token());
        let entry = Entry(self.removed + self.requests.len() as u64);
        self.requests.push_back(StoredRequest {
            connection,
            received: now,
            arrived: None,
            method: request.method().clone(),
            path: request.uri().path().into(),
            query: request.uri().query().map(Into::into),
            headers: RECORDED_HEADERS.map(|name| request.headers().get(name).map(|value| text(value).into())),
            authorization: request
                .headers()
                .get(AUTHORIZATION)
                .map(|value| text(value).split(' ').next().unwrap_or_default().into()),
            token: None,
            body: request.body().as_ref().into(),
            status: None,
            code: None,
            fault: false,
        });
        while self.requests.len() > keep {
            self.requests.pop_front();
            self.removed += 1;
        }
        entry
    }

    pub(crate) fn arrive(&mut self, entry: Entry, endpoint: &Endpoint, now: Duration, keep: usize) {
        if let Some(stored) = self.find(entry) {
            stored.arrived = Some(now);
        }
        if let Some(interface) = endpoint.interface() {
            let arrivals = self.arrivals_mut(interface);
            arrivals.push_back(now);
            while arrivals.len() > keep {
                arrivals.pop_front();
            }
        }
    }

    pub(crate) fn fault(&mut self, entry: Entry) {
        if let Some(stored) = self.find(entry) {
            stored.fault = true;
        }
    }

    pub(crate) fn answer(&mut self, entry: Entry, status: StatusCode, code: Option<i64>, token: Option<u64>) {
        if let Some(stored) = self.find(entry) {
            stored.status = Some(status);
            stored.code = code;
            stored.token = stored.token.or(token);
        }
    }

    /// Records that the platform's answer did not reach the client.
    pub(crate) fn unanswered(&mut self, entry: Entry) {
        if let Some(stored) = self.find(entry) {
            (stored.status, stored.code) = (None, None);
        }
    }

    fn find(&mut self, entry: Entry) -> Option<&mut StoredRequest> {
        let index = usize::try_from(entry.0.checked_sub(self.removed)?).ok()?;
        self.requests.get_mut(index)
    }

    fn arrivals_mut(&mut self, interface: Interface) -> &mut VecDeque<Duration> {
        match interface {
            Interface::Group => &mut self.group_arrivals,
            Interface::Bot => &mut self.bot_arrivals,
        }
    }

    /// The number of requests since the start or the last [`clear`](Journal::clear).
    pub(crate) fn request_count(&self) -> u64 {
        self.removed + self.requests.len() as u64 - self.cleared
    }

    pub(crate) fn refuse_over_limit(&mut self) {
        self.over_limit += 1;
    }

    pub(crate) fn over_limit(&self) -> u64 {
        self.over_limit
    }

    pub(crate) fn token_fetches(&self) -> u64 {
        self.token_fetches
    }

    pub(crate) fn requests(&self) -> Vec<RecordedRequest> {
        let numbers = self.removed - self.cleared + 1..;
        numbers
            .zip(&self.requests)
            .map(|(number, stored)| stored.record(number))
            .collect()
    }

    /// The most arrivals in any window. Arrivals at `t` and `t + window` are not in the same window.
    pub(crate) fn max_in_window(&mut self, interface: Interface, window: Duration) -> usize {
        let arrivals = self.arrivals_mut(interface).make_contiguous();
        let mut first = 0;
        let mut most = 0;
        for (last, &at) in arrivals.iter().enumerate() {
            while first <= last && at.saturating_sub(arrivals[first]) >= window {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }

    /// Deletes all requests, including those in progress, and all arrivals, and sets the counters to 0.
    pub(crate) fn clear(&mut self) {
        self.removed += self.requests.len() as u64;
        self.cleared = self.removed;
        self.requests.clear();
        self.group_arrivals.clear();
        self.bot_arrivals.clear();
        self.token_fetches = 0;
        self.over_limit = 0;
    }
}

impl StoredRequest {
    fn record(&self, number: u64) -> RecordedRequest {
        let headers = RECORDED_HEADERS.iter().zip(&self.headers);
        RecordedRequest {
            number,
            connection: self.connection,
            received: self.received,
            arrived: self.arrived,
            method: self.method.to_string(),
            path: self.path.to_string(),
            query: self.query.as_deref().map(ToOwned::to_owned),
            headers: headers
                .filter_map(|(name, value)| Some((name.to_string(), value.as_deref()?.to_owned())))
                .collect(),
            authorization: self.authorization.as_deref().map(ToOwned::to_owned),
            token: self.token,
            body: self.readable_body(),
            status: self.status.map(|status| status.as_u16()),
            code: self.code,
            fault: self.fault,
        }
    }

    fn readable_body(&self) -> Value {
        let Ok(mut body) = serde_json::from_slice(&self.body) else {
            return Value::String(String::from_utf8_lossy(&self.body).into_owned());
        };
        if let Value::Object(fields) = &mut body {
            for secret in SECRET_FIELDS {
                if let Some(value) = fields.get_mut(secret) {
                    *value = Value::String("***".to_owned());
                }
            }
        }
        body
    }
}

fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

pub(crate) fn in_milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(in_milliseconds(*duration))
}

#[allow(clippy::ref_option, reason = "serde requires this signature")]
fn maybe_milliseconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(in_milliseconds).serialize(serializer)
}
