//! Error responses: the form of the gateway, and the simpler one of the token endpoints.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

/// The code of a call that exceeds the frequency limit.
pub(crate) const OVER_LIMIT: i64 = 99_991_400;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const LOG_ID: HeaderName = HeaderName::from_static("x-tt-logid");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LIMIT: HeaderName = HeaderName::from_static("x-ogw-ratelimit-limit");
const RESET: HeaderName = HeaderName::from_static("x-ogw-ratelimit-reset");

/// A response, with the values that the record needs.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Bytes>,
    pub(crate) code: i64,
    /// The number of the tenant token that the request carried, counted from 1 in the order of issue.
    pub(crate) token: Option<u64>,
}

/// An invalid field of a request.
#[derive(Debug, Serialize)]
pub(crate) struct FieldViolation {
    pub(crate) field: String,
    pub(crate) value: String,
    pub(crate) description: String,
}

#[derive(Debug, Serialize)]
struct PermissionViolation {
    r#type: &'static str,
    subject: String,
}

#[derive(Debug, Serialize)]
struct Help {
    url: String,
    description: &'static str,
}

/// The reason for an error response.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    pub(crate) status: StatusCode,
    pub(crate) msg: String,
    fields: Vec<FieldViolation>,
    scopes: Vec<String>,
    /// The limit that was reached, and the seconds until the next call is accepted.
    pause: Option<(u32, u64)>,
}

impl Refusal {
    pub(crate) fn new(code: i64) -> Self {
        Self {
            code,
            status: usual_status(code),
            msg: usual_msg(code).to_owned(),
            fields: Vec::new(),
            scopes: Vec::new(),
            pause: None,
        }
    }

    pub(super) fn status(mut self, status: u16) -> Self {
        if let Ok(status) = StatusCode::from_u16(status) {
            self.status = status;
        }
        self
    }

    /// Appends details to `msg`.
    pub(super) fn detail(mut self, detail: impl std::fmt::Display) -> Self {
        use std::fmt::Write as _;
        let _ = write!(self.msg, " {detail}");
        self
    }

    pub(super) fn fields(fields: Vec<FieldViolation>) -> Self {
        Self {
            fields,
            ..Self::new(99_992_402)
        }
    }

    pub(super) fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    pub(super) fn pause(mut self, limit: u32, reset_s: u64) -> Self {
        self.pause = Some((limit, reset_s));
        self
    }

    /// Returns a response in the gateway's form (docs/platform.md#error-body).
    pub(crate) fn into_gateway_answer(self, log_id: &str) -> Response<Bytes> {
        let helps: Vec<_> = self
            .scopes
            .first()
            .map(|scope| Help {
                url: format!("https://open.feishu.cn/app?scope={scope}"),
                description: "Add the scope in the developer console",
            })
            .into_iter()
            .collect();
        let permission_violations: Vec<_> = self
            .scopes
            .into_iter()
            .map(|subject| PermissionViolation {
                r#type: "action_scope_required",
                subject,
            })
            .collect();
        let body = ErrorBody {
            code: self.code,
            msg: &self.msg,
            error: Some(Detail {
                message: &self.msg,
                log_id,
                troubleshooter: format!("https://open.feishu.cn/search?log_id={log_id}&code={}", self.code),
                permission_violations,
                field_violations: self.fields,
                helps,
            }),
        };
        let mut response = json(self.status, &body, log_id);
        if let Some((limit, reset_s)) = self.pause {
            response.headers_mut().insert(LIMIT, limit.into());
            response.headers_mut().insert(RESET, reset_s.into());
        }
        response
    }

    /// Returns a response in the form of the token endpoints, with HTTP 200 (docs/platform.md#token-errors).
    pub(crate) fn into_token_answer(self, log_id: &str) -> Response<Bytes> {
        let body = ErrorBody {
            code: self.code,
            msg: &self.msg,
            error: None,
        };
        json(StatusCode::OK, &body, log_id)
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: i64,
    msg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Detail<'a>>,
}

#[derive(Serialize)]
struct Detail<'a> {
    message: &'a str,
    log_id: &'a str,
    troubleshooter: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    permission_violations: Vec<PermissionViolation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    field_violations: Vec<FieldViolation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    helps: Vec<Help>,
}

pub(crate) fn json(status: StatusCode, body: &impl Serialize, log_id: &str) -> Response<Bytes> {
    // Cannot fail: all bodies consist of strings and numbers.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = raw(status, body.into(), log_id);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A response with the log id in both headers that the platform uses.
pub(crate) fn raw(status: StatusCode, body: Bytes, log_id: &str) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Ok(id) = HeaderValue::from_str(log_id) {
        response.headers_mut().insert(LOG_ID, id.clone());
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn usual_status(code: i64) -> StatusCode {
    match code {
        99_991_201 => StatusCode::NOT_FOUND,
        99_991_400 | 99_991_403 => StatusCode::TOO_MANY_REQUESTS,
        1500 | 2200 | 5000 | 10500 => StatusCode::INTERNAL_SERVER_ERROR,
        0 => StatusCode::OK,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// The usual `msg` of a code. Clients must not depend on its words (docs/platform.md#msg-is-prose).
fn usual_msg(code: i64) -> &'static str {
    match code {
        0 => "success",
        1500 | 2200 | 5000 | 10500 => "internal error",
        10003 => "invalid param",
        10005 => "app access token invalid",
        10012 => "app ticket invalid",
        10013 => "tenant access denied",
        10014 => "app secret invalid",
        10015 => "wrong app secret",
        10016 => "app type not allowed",
        230_001 => "param is invalid",
        230_002 | 230_027 => "no permission, bot not in the chat",
        230_006 => "bot ability is not activated",
        232_006 => "chat id is invalid",
        232_009 => "chat is dissolved",
        232_011 => "operator is not in the chat",
        232_034 => "app is unavailable in the tenant",
        230_020 | 11232 | 11233 | 232_019 | 1_000_004 | 1_000_005 | 99_991_400 => {
            "request trigger frequency limit"
        }
        99_991_201 => "path not found",
        99_991_401 => "ip not allowed",
        99_991_403 => "monthly api call quota used up",
        99_991_661 => "missing access token",
        99_991_662 => "app is disabled",
        99_991_663 => "invalid tenant access token",
        99_991_664 => "invalid app access token",
        99_991_668 => "user access token not supported",
        99_991_671 => "invalid access token format",
        99_991_672 => "access denied, the app lacks a scope",
        99_991_673 => "app is not installed",
        99_991_676 | 99_991_679 => "token has no permission",
        99_992_351 => "id not exist, Invalid ids:",
        99_992_361 => "open_id cross app, Invalid ids:",
        99_992_363 => "union_id cross app, Invalid ids:",
        99_992_364 => "user_id cross tenant, Invalid ids:",
        99_992_402 => "field validation failed",
        _ => "failed",
    }
}
