//! Helpers for tests over sockets: an HTTP client with a token, and calls.
#![allow(dead_code, reason = "each test file uses some of the helpers")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test helpers outside of test functions"
)]

use std::time::Duration;

use feishu_feed_card_sandbox::{Sandbox, World};
use serde_json::{Value, json};

pub(crate) const CHAT: &str = World::EXAMPLE_CHAT;
pub(crate) const USER: &str = World::EXAMPLE_USER;
pub(crate) const OUTSIDER: &str = World::EXAMPLE_OUTSIDER;

/// An HTTP client with a token of the example app.
pub(crate) struct App {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
    pub(crate) token: String,
}

/// A response with its whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: reqwest::Version,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn code(&self) -> i64 {
        self.json()["code"].as_i64().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

pub(crate) fn http() -> reqwest::Client {
    http_with(|builder| builder)
}

pub(crate) fn http_with(
    configure: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> reqwest::Client {
    // Fails for the second test of a process, because the provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10));
    configure(builder.retry(reqwest::retry::never())).build().unwrap()
}

pub(crate) async fn read(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    Ok(Answer {
        status: response.status().as_u16(),
        version: response.version(),
        headers: response.headers().clone(),
        text: response.text().await?,
    })
}

impl App {
    pub(crate) async fn new(sandbox: &Sandbox) -> Self {
        Self::with_http(http(), sandbox.base_url()).await
    }

    pub(crate) async fn with_http(http: reqwest::Client, base: String) -> Self {
        let token = String::new();
        let mut app = Self { http, base, token };
        let answer = app.fetch_token().await.unwrap().json();
        answer["tenant_access_token"]
            .as_str()
            .unwrap()
            .clone_into(&mut app.token);
        app
    }

    pub(crate) async fn fetch_token(&self) -> reqwest::Result<Answer> {
        let body = json!({"app_id": World::EXAMPLE_APP_ID, "app_secret": World::EXAMPLE_APP_SECRET});
        self.post("tenant_access_token/internal", &body).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> reqwest::Result<Answer> {
        read(
            self.http
                .post(format!("{}/open-apis/auth/v3/{path}", self.base))
                .json(body),
        )
        .await
    }

    pub(crate) fn request(&self, card: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/open-apis/im/v2/feed_cards/{card}", self.base);
        self.http.patch(url).bearer_auth(&self.token)
    }

    pub(crate) async fn call(&self, card: &str, body: &Value) -> reqwest::Result<Answer> {
        read(self.request(card).json(body)).await
    }

    /// Pins the example chat for its member, or unpins it.
    pub(crate) async fn pin(&self, time_sensitive: bool) -> reqwest::Result<Answer> {
        self.call(
            CHAT,
            &json!({"time_sensitive": time_sensitive, "user_ids": [USER]}),
        )
        .await
    }
}
