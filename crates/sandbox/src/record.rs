//! What the sandbox remembers of the requests it got.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::model::{Endpoint, Interface};

/// The headers worth remembering. A token is not among them.
const HEADERS: [HeaderName; 4] = [ACCEPT, CONTENT_TYPE, HOST, USER_AGENT];

/// The fields of a token request that the record does not repeat: somebody's real app may be tried here.
const SECRETS: [&str; 3] = ["app_access_token", "app_secret", "app_ticket"];

/// One request as the sandbox saw it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RecordedRequest {
    /// Counted from 1.
    pub number: u64,
    /// Which connection it came on, counted from 1; 0 without a socket.
    pub connection: u64,
    /// When it came, since the sandbox's start.
    #[serde(rename = "received_ms", serialize_with = "milliseconds")]
    pub received: Duration,
    /// When it reached the platform; `None` if it did not, or has not yet.
    #[serde(rename = "arrived_ms", serialize_with = "maybe_milliseconds")]
    pub arrived: Option<Duration>,
    /// `PATCH`, …
    pub method: String,
    /// As it was sent, still percent-encoded.
    pub path: String,
    /// What followed the `?`.
    pub query: Option<String>,
    /// A few of the headers, in lower case.
    pub headers: BTreeMap<String, String>,
    /// How it identified itself: the scheme alone, `Bearer`.
    pub authorization: Option<String>,
    /// Which tenant token it carried, counted from 1 in the order they were made; `None` if there was none or
    /// it was not valid (any more).
    pub token: Option<u64>,
    /// The body, as a string if it is not JSON; the secrets in a token request are blacked out.
    pub body: Value,
    /// The answer's HTTP status, also when nobody was there any more to get it; `None` while there is none,
    /// or if the connection was reset instead.
    pub status: Option<u16>,
    /// The answer's `code`, where it has one.
    pub code: Option<i64>,
    /// Whether a step of the fault script was taken.
    pub fault: bool,
}

/// Copies: a slice of a request keeps the 8 KiB alive that the server read it into.
#[derive(Debug)]
struct Raw {
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

/// The newest requests and arrival times, and some counts.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    requests: VecDeque<Raw>,
    /// How many requests came before those kept.
    before: u64,
    cleared: u64,
    group_arrivals: VecDeque<Duration>,
    bot_arrivals: VecDeque<Duration>,
    token_fetches: u64,
    /// Calls that the platform itself refused for their frequency.
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
        self.token_fetches += u64::from(endpoint.gives_tenant_token());
        let entry = Entry(self.before + self.requests.len() as u64);
        self.requests.push_back(Raw {
            connection,
            received: now,
            arrived: None,
            method: request.method().clone(),
            path: request.uri().path().into(),
            query: request.uri().query().map(Into::into),
            headers: HEADERS.map(|name| request.headers().get(name).map(|value| text(value).into())),
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
            self.before += 1;
        }
        entry
    }

    pub(crate) fn arrive(&mut self, entry: Entry, endpoint: &Endpoint, now: Duration, keep: usize) {
        if let Some(raw) = self.find(entry) {
            raw.arrived = Some(now);
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
        if let Some(raw) = self.find(entry) {
            raw.fault = true;
        }
    }

    pub(crate) fn answer(&mut self, entry: Entry, status: StatusCode, code: Option<i64>, token: Option<u64>) {
        if let Some(raw) = self.find(entry) {
            raw.status = Some(status);
            raw.code = code;
            raw.token = raw.token.or(token);
        }
    }

    /// The platform's answer did not get back to the client.
    pub(crate) fn unanswered(&mut self, entry: Entry) {
        if let Some(raw) = self.find(entry) {
            (raw.status, raw.code) = (None, None);
        }
    }

    fn find(&mut self, entry: Entry) -> Option<&mut Raw> {
        let index = usize::try_from(entry.0.checked_sub(self.before)?).ok()?;
        self.requests.get_mut(index)
    }

    fn arrivals_mut(&mut self, interface: Interface) -> &mut VecDeque<Duration> {
        match interface {
            Interface::Group => &mut self.group_arrivals,
            Interface::Bot => &mut self.bot_arrivals,
        }
    }

    /// Since the start or the last [`clear`](Journal::clear).
    pub(crate) fn request_count(&self) -> u64 {
        self.before + self.requests.len() as u64 - self.cleared
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
        let numbers = self.before - self.cleared + 1..;
        numbers
            .zip(&self.requests)
            .map(|(number, raw)| raw.record(number))
            .collect()
    }

    /// Arrivals at `t` and `t + window` are not in one window of that length.
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

    /// Forgets the requests, not the platform's state; an entry still open is forgotten too.
    pub(crate) fn clear(&mut self) {
        self.before += self.requests.len() as u64;
        self.cleared = self.before;
        self.requests.clear();
        self.group_arrivals.clear();
        self.bot_arrivals.clear();
        self.token_fetches = 0;
        self.over_limit = 0;
    }
}

impl Raw {
    fn record(&self, number: u64) -> RecordedRequest {
        let headers = HEADERS.iter().zip(&self.headers);
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
            for secret in SECRETS {
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

#[allow(clippy::ref_option, reason = "serde gives it so")]
fn maybe_milliseconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(in_milliseconds).serialize(serializer)
}
