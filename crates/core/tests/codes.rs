//! The client handles each code of the platform as `docs/platform.md` says.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test helpers outside of test functions"
)]

use feishu_feed_card::{Client, Error, ErrorKind, Outcome};
use feishu_feed_card_sandbox::{Fault, On, Sandbox, World};
use tokio::task::JoinSet;

const PAGE: &str = include_str!("../../../docs/platform.md");

/// A code in one of the two tables of the page.
#[derive(Clone, Copy, Debug)]
struct Code {
    on: On,
    number: i64,
    /// The text in the column `meaning`.
    meaning: &'static str,
    /// The text in the column `retry`.
    retry: &'static str,
}

/// All codes of the page. Of a range of codes, its first and its last one.
fn documented_codes() -> Vec<Code> {
    let (before, codes) = PAGE.split_once("### Codes").unwrap();
    let (_, token_errors) = before.split_once("id=\"token-errors\"").unwrap();
    [(On::Token, token_errors), (On::Call, codes)]
        .into_iter()
        .flat_map(|(on, text)| text.lines().flat_map(move |row| codes_in(on, row)))
        .collect()
}

fn codes_in(on: On, row: &'static str) -> Vec<Code> {
    let cells: Vec<_> = row.split('|').map(str::trim).collect();
    let [_, listed, .., meaning, retry, _] = cells[..] else {
        return Vec::new();
    };
    let listed = listed.rsplit("</a>").next().unwrap_or_default();
    let numbers = listed.split([',', ' ']).filter_map(|text| text.parse().ok());
    numbers
        .map(|number| Code {
            on,
            number,
            meaning,
            retry,
        })
        .collect()
}

impl Code {
    fn takes_new_token(self) -> bool {
        self.retry.starts_with("[with another token]")
    }

    fn is_retried(self) -> bool {
        self.takes_new_token() || self.retry.ends_with("with backoff")
    }

    /// The kind of error that follows from the page, if one does. The cases in tests/cases have the other kinds.
    fn kind(self) -> Option<ErrorKind> {
        if self.takes_new_token() {
            Some(ErrorKind::Authentication)
        } else if self.meaning.to_ascii_lowercase().contains("frequency limit") {
            Some(ErrorKind::RateLimited)
        } else if self.meaning.starts_with("Internal error") {
            Some(ErrorKind::Server)
        } else {
            None
        }
    }
}

/// Makes a call in which the first `times` requests get this code, or all requests with 0.
async fn call_with(code: Code, times: u64, max_retries: u32) -> (Sandbox, Result<Outcome, Error>) {
    let sandbox = Sandbox::builder()
        .fault(Fault {
            on: code.on,
            code: Some(code.number),
            times,
            revoke_tokens: code.takes_new_token(),
            ..Fault::default()
        })
        .start()
        .unwrap();
    let client = Client::builder()
        .app(World::EXAMPLE_APP_ID, World::EXAMPLE_APP_SECRET)
        .base_url(sandbox.base_url())
        .max_retries(max_retries)
        .build()
        .unwrap();
    let call = client.set_time_sensitive(World::EXAMPLE_CHAT, [World::EXAMPLE_USER], true);
    let result = call.await;
    (sandbox, result)
}

async fn assert_handled_as_documented(code: Code) {
    let is_retried = code.is_retried();
    assert!(is_retried || code.retry == "no", "unknown rule: {code:?}");
    let (sandbox, result) = call_with(code, u64::from(is_retried), 3).await;
    if is_retried {
        assert!(result.is_ok_and(|outcome| outcome.ok()), "{code:?}");
        let is_second_fetch = code.takes_new_token() || code.on == On::Token;
        assert_eq!(
            sandbox.token_fetches(),
            1 + u64::from(is_second_fetch),
            "{code:?}"
        );
        let requests = sandbox.requests();
        let refused = requests.iter().filter(|request| request.fault).count();
        assert_eq!(refused, 1, "{code:?}");
    } else {
        let error = result.unwrap_err();
        assert_eq!(
            (error.platform_code(), error.attempts(), error.retryable()),
            (Some(code.number), 1, false),
            "{code:?}: {error}"
        );
        assert!(error.hint().is_some(), "{code:?}: {error}");
    }
    if let Some(kind) = code.kind() {
        let (_, result) = call_with(code, 0, 0).await;
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.platform_code()),
            (kind, Some(code.number)),
            "{code:?}: {error}"
        );
    }
}

#[tokio::test]
async fn every_code_is_handled_as_documented() {
    let codes = documented_codes();
    assert!(codes.len() > 45, "{codes:?}");
    let mut running = JoinSet::new();
    for code in codes {
        if code.retry == "after a resend" {
            // Only for store apps: see tests/cases/store_app.json.
            assert_eq!(code.number, 10012);
        } else {
            running.spawn(assert_handled_as_documented(code));
        }
    }
    running.join_all().await;
}
