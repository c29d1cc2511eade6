//! The token endpoints.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::answer::{Refusal, json};
use super::{AppKind, AppState, Endpoint, Model, Switches, opaque};

/// One valid token.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) app_id: String,
    /// Counted from 1 in the order of issue.
    pub(super) number: u64,
    expires: Duration,
}

/// All tokens of one kind.
#[derive(Debug)]
pub(super) struct Tokens {
    prefix: &'static str,
    issued: u64,
    valid: HashMap<String, Token>,
    /// The newest token of each app, which may be returned again.
    newest: HashMap<String, String>,
}

impl Tokens {
    pub(super) fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            issued: 0,
            valid: HashMap::new(),
            newest: HashMap::new(),
        }
    }

    pub(super) fn find(&self, text: &str, now: Duration) -> Option<&Token> {
        self.valid.get(text).filter(|token| token.expires > now)
    }

    pub(super) fn revoke(&mut self) {
        self.valid.clear();
        self.newest.clear();
    }

    /// Returns a token and the seconds until it expires: the newest token if it is valid for `token_reuse_s` or more,
    /// else a new one. The old token stays valid (docs/platform.md#token-life).
    fn get_or_issue(&mut self, app_id: &str, now: Duration, switches: &Switches, seed: u64) -> (String, u64) {
        if let Some(text) = self.newest.get(app_id)
            && let Some(token) = self.find(text, now)
            && let left = token.expires.saturating_sub(now)
            && left >= Duration::from_secs(switches.token_reuse_s)
        {
            return (text.clone(), left.as_secs());
        }
        self.valid.retain(|_, token| token.expires > now);
        self.issued += 1;
        let text = format!("{}{}", self.prefix, opaque(&(seed, self.prefix, self.issued)));
        let token = Token {
            app_id: app_id.to_owned(),
            number: self.issued,
            expires: now.saturating_add(Duration::from_secs(switches.token_life_s)),
        };
        self.valid.insert(text.clone(), token);
        self.newest.insert(app_id.to_owned(), text.clone());
        (text, switches.token_life_s)
    }
}

#[derive(Default, Serialize)]
struct TokenBody {
    code: i64,
    msg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_access_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_access_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire: Option<u64>,
}

impl Model {
    /// Answers a request to one of the four token endpoints.
    pub(super) fn token_call(
        &mut self,
        endpoint: &Endpoint,
        body: &[u8],
        now: Duration,
        log_id: &str,
    ) -> Result<Response<Bytes>, Refusal> {
        let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::new(10003))?;
        let field = |name: &str| match body.get(name).and_then(Value::as_str) {
            None | Some("") => Err(Refusal::new(10003)),
            Some(value) => Ok(value),
        };
        let mut response = TokenBody {
            msg: "ok",
            ..TokenBody::default()
        };
        let seed = self.seed;
        if *endpoint == Endpoint::StoreTenantToken {
            let (app_token, tenant_key) = (field("app_access_token")?, field("tenant_key")?);
            let token = self
                .app_tokens
                .find(app_token, now)
                .ok_or_else(|| Refusal::new(10005))?;
            if self
                .apps
                .get(&token.app_id)
                .is_none_or(|state| state.app.tenant_key != tenant_key)
            {
                return Err(Refusal::new(10013));
            }
            let (token, expire) = self
                .tenant_tokens
                .get_or_issue(&token.app_id, now, &self.switches, seed);
            response.tenant_access_token = Some(token);
            response.expire = Some(expire);
        } else {
            let (app_id, app_secret) = (field("app_id")?, field("app_secret")?);
            let state = self.apps.get_mut(app_id).ok_or_else(|| Refusal::new(10014))?;
            if state.app.app_secret != app_secret {
                return Err(Refusal::new(self.switches.wrong_secret_code));
            }
            match endpoint {
                Endpoint::TenantToken if state.app.kind == AppKind::Store => return Err(Refusal::new(10016)),
                Endpoint::TenantToken => {
                    let (token, expire) = self.tenant_tokens.get_or_issue(app_id, now, &self.switches, seed);
                    response.tenant_access_token = Some(token);
                    response.expire = Some(expire);
                }
                Endpoint::AppToken => {
                    if state.ticket != field("app_ticket")? {
                        return Err(Refusal::new(10012));
                    }
                    let (token, expire) = self.app_tokens.get_or_issue(app_id, now, &self.switches, seed);
                    response.app_access_token = Some(token);
                    response.expire = Some(expire);
                }
                _ => state.rotate_ticket(seed),
            }
        }
        Ok(json(StatusCode::OK, &response, log_id))
    }
}

impl AppState {
    pub(super) fn rotate_ticket(&mut self, seed: u64) {
        self.ticket_count += 1;
        self.ticket = format!("g-{}", opaque(&(seed, &self.app.app_id, self.ticket_count)));
    }
}
