//! Calls of the two interfaces: permissions, frequency limits, and the results for the users.

#![allow(
    clippy::option_option,
    reason = "a success may have a field that is absent or null"
)]

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::{FieldViolation, Refusal, json};
use super::{
    AppKind, AppState, CALL_SCOPE, Endpoint, Interface, Model, OVER_LIMIT, SuccessShape, Switches,
    USER_ID_SCOPE, UnknownIds,
};

const NOT_IN_CHAT: &str = "The user is not in the chat";

/// The documented limit of `user_ids` in a call for the bot's own chat (docs/platform.md#bot-call).
const BOT_MAX_USERS: usize = 50;

#[derive(Clone, Copy, PartialEq)]
enum IdType {
    Open,
    Union,
    User,
}

#[derive(Deserialize)]
struct Body {
    time_sensitive: bool,
    user_ids: Vec<String>,
}

#[derive(Serialize)]
struct Success<'a> {
    code: i64,
    msg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Option<Data<'a>>>,
}

#[derive(Serialize)]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_user_reasons: Option<Option<&'a [Failed<'a>]>>,
}

#[derive(Serialize)]
struct Failed<'a> {
    error_code: i64,
    error_message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
}

impl Model {
    /// Answers a call of either interface, or a request with an unknown path. Sets `token` to the number of the
    /// tenant token that it carried.
    pub(super) fn call(
        &mut self,
        endpoint: &Endpoint,
        request: &Request<Bytes>,
        now: Duration,
        log_id: &str,
        token: &mut Option<u64>,
    ) -> Result<Response<Bytes>, Refusal> {
        let Some(interface) = endpoint.interface() else {
            return Err(Refusal::new(99_991_201));
        };
        let app_id = {
            let bearer = bearer(request.headers())?;
            let found = self.tenant_tokens.find(bearer, now);
            let found = found.ok_or_else(|| match bearer {
                user if user.starts_with("u-") => Refusal::new(99_991_668),
                _ => Refusal::new(99_991_663).status(self.switches.token_error_status),
            })?;
            *token = Some(found.number);
            found.app_id.as_str()
        };
        let app = self
            .apps
            .get_mut(app_id)
            .ok_or_else(|| Refusal::new(99_991_662))?;
        app.admit(interface, now, &self.switches)?;

        let id_type = id_type(request.uri().query());
        let body = read_body(request);
        // The gateway lists all invalid fields in one response.
        let (id_type, body) = match (id_type, body) {
            (Ok(id_type), Ok(body)) => (id_type, body),
            (id_type, body) => {
                let fields = id_type.err().into_iter().chain(body.err().unwrap_or_default());
                return Err(Refusal::fields(fields.collect()));
            }
        };
        if app.app.kind == AppKind::Store && id_type == IdType::User {
            return Err(Refusal::new(99_991_672).scopes([USER_ID_SCOPE]));
        }
        let max_users = match interface {
            Interface::Group => self.switches.group_max_users,
            Interface::Bot => Some(BOT_MAX_USERS),
        };
        check_length(body.user_ids.len(), max_users, self.switches.list_length_code)?;
        if !app.app.bot_enabled {
            return Err(Refusal::new(230_006));
        }

        let known: &HashMap<String, usize> = match id_type {
            IdType::Open => &self.by_open_id,
            IdType::Union => &self.by_union_id,
            IdType::User => &self.by_user_id,
        };
        let (members, pinned) = match endpoint {
            Endpoint::Group(id) => {
                let unknown = || Refusal::new(self.switches.unknown_chat_code);
                let chat = self.chats.get_mut(id).ok_or_else(unknown)?;
                if chat.dissolved {
                    return Err(Refusal::new(self.switches.dissolved_chat_code));
                }
                if !chat.bot_in_chat {
                    return Err(Refusal::new(self.switches.bot_not_in_chat_code));
                }
                (Some(&chat.members), &mut chat.pinned)
            }
            // A bot has a chat with every known user.
            _ => (None, &mut app.pinned),
        };
        reject_unknown(&body.user_ids, known, id_type, self.switches.unknown_ids)?;

        let named = app.app.user_id_permission
            || (id_type != IdType::User && !self.switches.field_permission_for_every_id_type);
        let mut failed = Vec::new();
        for id in &body.user_ids {
            match known.get(id) {
                Some(user) if members.is_none_or(|members| members.contains(user)) => {
                    if body.time_sensitive {
                        pinned.insert(*user);
                    } else {
                        pinned.remove(user);
                    }
                }
                _ => failed.push(Failed {
                    error_code: 0,
                    error_message: NOT_IN_CHAT,
                    user_id: named.then_some(id),
                }),
            }
        }
        let success = Success {
            code: 0,
            msg: &self.switches.success_msg,
            data: data(&failed, self.switches.success_shape),
        };
        Ok(json(StatusCode::OK, &success, log_id))
    }
}

impl AppState {
    /// The gateway's checks of the app. The frequency limit comes first: every request with a token of the app counts,
    /// even if it is invalid.
    fn admit(&mut self, interface: Interface, now: Duration, switches: &Switches) -> Result<(), Refusal> {
        let windows = match interface {
            Interface::Group => &mut self.group_windows,
            Interface::Bot => &mut self.bot_windows,
        };
        windows
            .admit(
                now,
                switches.per_second,
                switches.per_minute,
                switches.refused_fill_windows,
            )
            .map_err(|full| {
                Refusal::new(OVER_LIMIT)
                    .status(switches.rate_limit_status)
                    .pause(full.limit, full.reset_s)
            })?;
        let app = &self.app;
        if !app.enabled {
            return Err(Refusal::new(99_991_662));
        }
        if !app.installed {
            return Err(Refusal::new(99_991_673));
        }
        if !app.ip_allowed {
            return Err(Refusal::new(99_991_401).detail("[127.0.0.1]"));
        }
        if app.monthly_quota.is_some_and(|quota| self.calls >= quota) {
            return Err(Refusal::new(99_991_403));
        }
        self.calls += 1;
        if !app.scopes.iter().any(|scope| scope == CALL_SCOPE) {
            return Err(Refusal::new(99_991_672)
                .detail(format_args!("[{CALL_SCOPE}]"))
                .scopes([CALL_SCOPE]));
        }
        Ok(())
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    match value.and_then(|value| value.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(token.trim())
        }
        _ => Err(Refusal::new(99_991_661)),
    }
}

/// The `user_id_type` of the query. Default: `open_id` (docs/platform.md#user-id-type).
fn id_type(query: Option<&str>) -> Result<IdType, FieldViolation> {
    let mut pairs = query
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='));
    let Some((_, value)) = pairs.find(|(name, _)| *name == "user_id_type") else {
        return Ok(IdType::Open);
    };
    match percent_decode_str(value).decode_utf8_lossy().as_ref() {
        "open_id" => Ok(IdType::Open),
        "union_id" => Ok(IdType::Union),
        "user_id" => Ok(IdType::User),
        other => Err(violation(
            "user_id_type",
            other,
            "is optional, options are: [open_id,union_id,user_id]",
        )),
    }
}

fn read_body(request: &Request<Bytes>) -> Result<Body, Vec<FieldViolation>> {
    let content_type = request
        .headers()
        .get(CONTENT_TYPE)
        .map(|value| value.to_str().unwrap_or_default());
    let media_type = content_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let value = content_type.unwrap_or_default();
        return Err(vec![violation("Content-Type", value, "must be application/json")]);
    }
    serde_json::from_slice(request.body()).map_err(|_| invalid_fields(request.body()))
}

/// Lists all invalid fields of a body that could not be read.
fn invalid_fields(body: &[u8]) -> Vec<FieldViolation> {
    let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
        return vec![violation(
            "body",
            &String::from_utf8_lossy(body),
            "is not a JSON object",
        )];
    };
    let mut violations = Vec::new();
    match body.get("time_sensitive") {
        None => violations.push(violation("time_sensitive", "", "time_sensitive is required")),
        Some(Value::Bool(_)) => {}
        Some(other) => violations.push(violation(
            "time_sensitive",
            &other.to_string(),
            "must be a boolean",
        )),
    }
    match body.get("user_ids") {
        None => violations.push(violation("user_ids", "", "user_ids is required")),
        Some(Value::Array(ids)) => {
            let invalid = ids.iter().enumerate().filter(|(_, id)| !id.is_string());
            violations.extend(
                invalid
                    .map(|(n, id)| violation(&format!("user_ids.{n}"), &id.to_string(), "must be a string")),
            );
        }
        Some(other) => violations.push(violation(
            "user_ids",
            &other.to_string(),
            "must be an array of strings",
        )),
    }
    if violations.is_empty() {
        violations.push(violation("body", "", "a field occurs twice"));
    }
    violations
}

fn check_length(length: usize, max: Option<usize>, code: i64) -> Result<(), Refusal> {
    let description = match max {
        Some(max) if length > max => format!("the max len is {max}"),
        _ if length == 0 => "the min len is 1".to_owned(),
        _ => return Ok(()),
    };
    Err(if code == 99_992_402 {
        Refusal::fields(vec![violation(
            "user_ids",
            &format!("len {length}"),
            &description,
        )])
    } else {
        Refusal::new(code).detail(format_args!("ext=user_ids: {description}"))
    })
}

fn reject_unknown(
    ids: &[String],
    known: &HashMap<String, usize>,
    id_type: IdType,
    unknown_ids: UnknownIds,
) -> Result<(), Refusal> {
    let code = match (unknown_ids, id_type) {
        (UnknownIds::Listed, _) => return Ok(()),
        (UnknownIds::Invalid, _) => 99_992_351,
        (UnknownIds::CrossApp, IdType::Open) => 99_992_361,
        (UnknownIds::CrossApp, IdType::Union) => 99_992_363,
        (UnknownIds::CrossApp, IdType::User) => 99_992_364,
    };
    let unknown: Vec<_> = ids
        .iter()
        .filter(|id| !known.contains_key(*id))
        .map(AsRef::<str>::as_ref)
        .collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(Refusal::new(code).detail(format_args!("[{}]", unknown.join(", "))))
    }
}

#[allow(
    clippy::option_option,
    reason = "a success may have a field that is absent or null"
)]
fn data<'a>(failed: &'a [Failed<'a>], shape: SuccessShape) -> Option<Option<Data<'a>>> {
    let list = |failed_user_reasons| Some(Some(Data { failed_user_reasons }));
    if !failed.is_empty() {
        return list(Some(Some(failed)));
    }
    match shape {
        SuccessShape::EmptyList => list(Some(Some(failed))),
        SuccessShape::NullList => list(Some(None)),
        SuccessShape::EmptyData => list(None),
        SuccessShape::NullData => Some(None),
        SuccessShape::NoData => None,
    }
}

fn violation(field: &str, value: &str, description: &str) -> FieldViolation {
    FieldViolation {
        field: field.to_owned(),
        value: value.chars().take(200).collect(),
        description: description.to_owned(),
    }
}
