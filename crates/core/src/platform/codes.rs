//! The platform's codes: the kind of error, whether to retry, and the hint for each one. No other module knows
//! them (docs/platform.md#codes).

use crate::data::error::ErrorKind;
use crate::data::text::{Template, text};

/// Whether and how to retry after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryRule {
    /// Do not retry: the same request would fail the same way.
    No,
    /// Retry with a different token.
    NewToken,
    /// Retry after a wait, a limited number of times.
    Backoff,
    /// Retry at once: the server has proved that it did not process the request.
    Resend,
    /// Like `Backoff`, and all calls of the client wait: the frequency limit is per app.
    Pause,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) kind: ErrorKind,
    pub(crate) retry: RetryRule,
    pub(crate) hint: Template,
}

/// Invalid or expired app ticket. The platform pushes a new one on request.
pub(crate) const APP_TICKET_INVALID: i64 = 10012;

/// The monthly quota is exhausted: every call of the tenant fails.
pub(crate) const QUOTA_USED_UP: i64 = 99_991_403;

/// Whether this may be a `code` of the platform, which has none below 0 and none from 1 to 999. Gateways write their
/// HTTP status there (docs/platform.md#code-range).
pub(crate) const fn is_platform_code(code: i64) -> bool {
    code == 0 || code >= 1000
}

fn row(kind: ErrorKind, retry: RetryRule, hint: Template) -> Code {
    Code { kind, retry, hint }
}

const CHECK_APP: Template = text!(
    "Check {app_id} and {app_secret}, and that {base_url} is right for the app: https://open.larksuite.com for Lark"
);
const CHECK_APP_SETUP: Template = text!(
    "Check in the developer console whether the app is a self-built or a store app: it is not set up for this kind of token"
);
const NEW_TOKEN_REFUSED: Template = text!(
    "Check that the app is enabled and that {base_url} is right for it: the platform refused a new token as well"
);
const WRONG_KIND_OF_TOKEN: Template =
    text!("Use a tenant_access_token: this call does not accept a user's or an app's token");
const MISSING_SCOPE: Template = text!(
    "Give the app the scope im:datasync.feed_card.time_sensitive:write in the developer console, and publish a version"
);
const ADD_BOT: Template = text!("Add the bot to the group, then call again");
const CHAT_GONE: Template =
    text!("Check {feed_card_id}: the chat is unknown or dissolved, or the app's bot is turned off");
const BUSY: Template = text!("Call again later: the platform is busy");
const SLOW_DOWN: Template = text!(
    "Call again later; if several clients or processes use the app, share one {quota} or divide the {rate_limit} among them"
);
const ID_HINT: Template =
    text!("Check that the user ids match {user_id_type} and belong to this app and tenant");

/// Returns the table's row for a code, or `None` if the code is not documented. An undocumented code is a rejection, or
/// a failure of the server if the status is 5xx.
pub(crate) fn lookup(code: i64) -> Option<Code> {
    use ErrorKind::{Authentication, PermissionDenied, QuotaExhausted, RateLimited, Rejected, Server};
    Some(match code {
        10003 | 10014 | 10015 => row(Authentication, RetryRule::No, CHECK_APP),
        10005 | 10013 | 10016 | 20002 | 99_991_543 => row(Authentication, RetryRule::No, CHECK_APP_SETUP),
        APP_TICKET_INVALID => row(
            Authentication,
            RetryRule::No,
            text!(
                "Pass the {app_ticket} that your event endpoint receives to {set_app_ticket}; the client has requested a new one"
            ),
        ),
        99_991_661 => row(
            Authentication,
            RetryRule::No,
            text!("Check whether a proxy removes the Authorization header: the platform received no token"),
        ),
        99_991_663..=99_991_665 | 99_991_671 => row(Authentication, RetryRule::NewToken, NEW_TOKEN_REFUSED),
        99_991_668..=99_991_670 | 99_991_677 => row(Authentication, RetryRule::No, WRONG_KIND_OF_TOKEN),
        99_991_672 | 99_991_676 | 99_991_679 => row(PermissionDenied, RetryRule::No, MISSING_SCOPE),
        99_991_401 => row(
            PermissionDenied,
            RetryRule::No,
            text!("Add this machine's public IP address to the app's allow list in the developer console"),
        ),
        99_991_662 | 99_991_673 => row(
            PermissionDenied,
            RetryRule::No,
            text!(
                "Ask the tenant's administrator to enable the app: it is disabled or not installed in this tenant"
            ),
        ),
        230_002 | 230_027 => row(PermissionDenied, RetryRule::No, ADD_BOT),
        230_006 => row(
            PermissionDenied,
            RetryRule::No,
            text!("Turn on the app's bot in the developer console, and publish a version"),
        ),
        99_991_400 => row(RateLimited, RetryRule::Pause, SLOW_DOWN),
        230_020 | 11232 | 11233 | 232_019 | 1_000_004 | 1_000_005 => {
            row(RateLimited, RetryRule::Backoff, SLOW_DOWN)
        }
        QUOTA_USED_UP => row(
            QuotaExhausted,
            RetryRule::No,
            text!(
                "Ask the tenant's administrator to raise the monthly API quota, or wait for the next month"
            ),
        ),
        2200 | 1500 | 5000 | 10500 => row(Server, RetryRule::Backoff, BUSY),
        99_991_201 => row(
            Rejected,
            RetryRule::No,
            text!("Check {base_url}: the path does not exist on this host"),
        ),
        99_992_402 => row(
            Rejected,
            RetryRule::No,
            text!("Correct the fields listed in {field_violations}"),
        ),
        99_992_351..=99_992_381 => row(Rejected, RetryRule::No, ID_HINT),
        230_001 => row(
            Rejected,
            RetryRule::No,
            text!("Correct the parameter that the platform's msg names after `ext=`"),
        ),
        232_006 | 232_009 | 232_011 | 232_034 => row(Rejected, RetryRule::No, CHAT_GONE),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_codes_are_retried_with_a_new_token() {
        let renewing: Vec<i64> = (99_991_000..99_993_000)
            .filter(|code| lookup(*code).is_some_and(|row| row.retry == RetryRule::NewToken))
            .collect();
        assert_eq!(renewing, [99_991_663, 99_991_664, 99_991_665, 99_991_671]);
    }

    #[test]
    fn unknown_codes_are_not_in_the_table() {
        for code in [
            0,
            -1,
            1,
            99_991_402,
            99_991_666,
            99_992_350,
            99_992_382,
            230_028,
            i64::MAX,
        ] {
            assert!(lookup(code).is_none(), "code {code}");
        }
    }
}
