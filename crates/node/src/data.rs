//! Plain data for the TypeScript facade.

use std::error::Error as _;

use feishu_feed_card::binding::{self, Spelled};
use feishu_feed_card::{
    ConnectionReason, Error, FailedUserReason, FieldViolation, Outcome, PermissionViolation, Station, UserIds,
};
use napi_derive::napi;
use serde::Serialize;

use crate::names::in_javascript;
use crate::provider::ProviderFailed;

/// The call's user ids. Each is in exactly one list.
#[napi(object, object_from_js = false)]
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Users {
    #[napi(ts_type = "readonly string[]")]
    pub reached: Vec<String>,
    /// Refused by the platform, individually or with the whole request.
    #[napi(ts_type = "readonly string[]")]
    pub failed: Vec<String>,
    /// Sent, but not answered; or the platform reported failures without naming the users.
    #[napi(ts_type = "readonly string[]")]
    pub unknown: Vec<String>,
    /// Never sent.
    #[napi(ts_type = "readonly string[]")]
    pub not_attempted: Vec<String>,
}

/// A user that was not reached. `errorCode` can be 0.
#[napi(object, object_from_js = false, js_name = "FailedUserReason")]
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reason {
    pub error_code: i64,
    /// Such as `The user is not in the chat`.
    pub error_message: String,
    /// Needs the field permission of the id's type: `contact:user.employee_id:readonly` for `user_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// A missing permission, as reported by the platform.
#[napi(object, object_from_js = false, js_name = "PermissionViolation")]
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingPermission {
    #[napi(js_name = "type")]
    #[serde(rename = "type")]
    pub kind: String,
    /// The scope, such as `im:datasync.feed_card.time_sensitive:write`.
    pub subject: String,
}

/// A field that the platform refused.
#[napi(object, object_from_js = false, js_name = "FieldViolation")]
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedField {
    pub field: String,
    /// As text.
    pub value: String,
    pub description: String,
}

/// The outcome of a call.
#[napi(object, object_from_js = false)]
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OutcomeData {
    pub ok: bool,
    pub failed_user_reasons: Vec<Reason>,
    pub log_ids: Vec<String>,
    pub requests: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<i64>,
    pub users: Users,
    /// The error for `throwIfFailed`. Absent if all users were reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<ErrorData>,
}

/// An error.
#[napi(object, object_from_js = false)]
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorData {
    pub kind: &'static str,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_id: Option<String>,
    pub retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<f64>,
    pub attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub station: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    pub permission_violations: Vec<MissingPermission>,
    pub field_violations: Vec<RefusedField>,
    pub users: Users,
    /// Messages of the causes, outermost first.
    pub causes: Vec<String>,
    /// The id of the failed call of a token provider, if this was the cause. The facade keeps the provider's exception.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_call: Option<i64>,
}

/// The result of a call.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallResult {
    /// Set with `log_ids`, in place of `outcome`, if all users were reached and no id was repeated. The facade then uses
    /// its own list of the ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<i64>,
    /// With an `error`, the outcome of the successful requests of a split call.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Box<OutcomeData>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Box<ErrorData>>,
}

impl CallResult {
    /// `users` is the number of the call's user ids, including repeated ones.
    pub(crate) fn new(result: Result<Outcome, Error>, users: usize) -> Self {
        match result {
            Ok(outcome) if outcome.ok() && outcome.users.reached.len() == users => Self {
                requests: Some(outcome.requests),
                log_ids: Some(outcome.log_ids),
                call: outcome.call.and_then(call_number),
                ..Self::default()
            },
            Ok(outcome) => Self {
                outcome: Some(Box::new(outcome.into())),
                ..Self::default()
            },
            Err(error) => Self {
                outcome: error.outcome().map(|outcome| Box::new(outcome.clone().into())),
                error: Some(Box::new((&error).into())),
                ..Self::default()
            },
        }
    }
}

impl From<&UserIds> for Users {
    fn from(ids: &UserIds) -> Self {
        Self {
            reached: ids.reached.clone(),
            failed: ids.failed.clone(),
            unknown: ids.unknown.clone(),
            not_attempted: ids.not_attempted.clone(),
        }
    }
}

impl From<&FailedUserReason> for Reason {
    fn from(reason: &FailedUserReason) -> Self {
        Self {
            error_code: reason.error_code,
            error_message: reason.error_message.clone(),
            user_id: reason.user_id.clone(),
        }
    }
}

impl From<&PermissionViolation> for MissingPermission {
    fn from(violation: &PermissionViolation) -> Self {
        Self {
            kind: violation.kind.clone(),
            subject: violation.subject.clone(),
        }
    }
}

impl From<&FieldViolation> for RefusedField {
    fn from(violation: &FieldViolation) -> Self {
        Self {
            field: violation.field.clone(),
            value: violation.value.clone(),
            description: violation.description.clone(),
        }
    }
}

impl From<Outcome> for OutcomeData {
    fn from(outcome: Outcome) -> Self {
        let mut data = Self {
            ok: outcome.ok(),
            failed_user_reasons: outcome.failed_user_reasons.iter().map(Into::into).collect(),
            log_ids: outcome.log_ids.clone(),
            requests: outcome.requests,
            call: outcome.call.and_then(call_number),
            users: (&outcome.users).into(),
            failure: None,
        };
        data.failure = outcome.into_result().err().map(|error| (&error).into());
        data
    }
}

impl From<&Error> for ErrorData {
    fn from(error: &Error) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let Spelled { printed, field, hint } = binding::spelled(error, in_javascript);
        Self {
            kind: error.kind().as_str(),
            message: printed,
            field,
            platform_code: error.platform_code(),
            msg: owned(error.msg()),
            http_status: error.http_status().map(u32::from),
            log_id: owned(error.log_id()),
            retryable: error.retryable(),
            retry_after_ms: error.retry_after().map(|wait| wait.as_secs_f64() * 1000.0),
            attempts: error.attempts(),
            call: error.call().and_then(call_number),
            station: error.station().map(Station::as_str),
            reason: error.reason().map(ConnectionReason::as_str),
            hint,
            permission_violations: error.permission_violations().iter().map(Into::into).collect(),
            field_violations: error.field_violations().iter().map(Into::into).collect(),
            users: error.users().into(),
            causes: causes(error),
            provider_call: chain(error)
                .find_map(|cause| Some(cause.downcast_ref::<ProviderFailed>()?.provider_call)),
        }
    }
}

/// Converts a call's number. JavaScript's numbers are exact up to 2^53.
fn call_number(call: u64) -> Option<i64> {
    i64::try_from(call).ok()
}

fn chain(error: &Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// Returns the messages of the causes. Leaves out a wrapper with the same message as the error in it.
fn causes(error: &Error) -> Vec<String> {
    let mut causes: Vec<String> = chain(error).map(ToString::to_string).collect();
    causes.dedup();
    causes
}
