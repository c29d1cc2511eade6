//! Searches errors of every kind, outcomes, `Debug` output and log records for secrets.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use feishu_feed_card_sandbox::{Fault, Stage, Switches, World};
use http::{Response, StatusCode};
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span;

use super::{USER, round_trip, stage};
use crate::transport::{Answering, Outgoing, Sent, Transport, TransportError};
use crate::{Client, Error, ErrorKind, ProvidedToken};

const CHAT: &str = World::EXAMPLE_CHAT;
const SECRET: &str = r#"S3CRET-of/the\app"0123456789abcdef"#;
const TOKEN: &str = "t-T0KEN-of-the-tenant-0123456789";
const TICKET: &str = "T1CKET-of-the-store-0123456789";
const APP_TOKEN: &str = "a-APPT0KEN-0123456789";
/// Credentials in the `Proxy-Authorization` header, which a proxy may quote in its error page.
const PROXY: &str = "cHJveHk6UFIwWFktcGFzc3dvcmQ=";

/// A subscriber that collects all spans and events as text, with their fields.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<String>>);

impl Visit for Collector {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0.lock().unwrap(), "{field}={value:?} ");
    }
}

impl tracing::Subscriber for Collector {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let _ = write!(self.0.lock().unwrap(), "[{}] ", span.metadata().name());
        span.record(&mut self.clone());
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// A server that issues tokens, and repeats everything it has received in its responses to calls. With status 555 it
/// also does so at the token endpoints.
struct Echo {
    status: u16,
    body: fn(&str) -> String,
    header: bool,
    received: Mutex<String>,
}

impl Transport for Echo {
    fn send(&self, request: Outgoing, sent: Sent) -> Answering<'_> {
        assert!(sent.raise());
        let path = request.url.path().to_owned();
        let authorization = request.authorization.as_ref();
        let sent_header = authorization.map_or("", |value| value.to_str().unwrap_or(""));
        let mut received = self.received.lock().unwrap();
        let _ = write!(
            received,
            "{sent_header} {} ",
            String::from_utf8_lossy(&request.body)
        );
        let all = format!("Basic {PROXY} {received}");
        Box::pin(async move {
            let token = match path.as_str() {
                path if path.ends_with("app_access_token") => {
                    Some(json!({"code": 0, "app_access_token": APP_TOKEN, "expire": 7200}))
                }
                path if path.contains("/auth/") => {
                    Some(json!({"code": 0, "tenant_access_token": TOKEN, "expire": 7200}))
                }
                _ => None,
            };
            if let Some(token) = token.filter(|_| self.status != 555) {
                return Ok(Response::new(token.to_string().into()));
            }
            let mut response = Response::new(Bytes::from((self.body)(&all)));
            *response.status_mut() = StatusCode::from_u16(self.status).unwrap();
            if self.header {
                let value: String = all.chars().filter(|letter| !letter.is_control()).collect();
                response
                    .headers_mut()
                    .insert("x-tt-logid", value.parse().unwrap());
            }
            Ok(response)
        })
    }
}

type Server = Box<dyn Fn() -> Arc<dyn Transport>>;

/// Token endpoints. One of them sends an unexpected response that contains a new token.
struct Leak {
    /// The end of that endpoint's path.
    path_end: &'static str,
    status: u16,
    body: fn() -> String,
}

impl Transport for Leak {
    fn send(&self, request: Outgoing, sent: Sent) -> Answering<'_> {
        assert!(sent.raise());
        let response = if request.url.path().ends_with(self.path_end) {
            let mut response = Response::new((self.body)().into());
            *response.status_mut() = StatusCode::from_u16(self.status).unwrap();
            response
        } else {
            let app_token = json!({"code": 0, "app_access_token": APP_TOKEN, "expire": 7200});
            Response::new(app_token.to_string().into())
        };
        Box::pin(async move { Ok(response) })
    }
}

const LEAKING_BODIES: [fn() -> String; 9] = [
    || format!("<html>{TOKEN}</html>"),
    || json!({"tenant_access_token": TOKEN, "app_access_token": TOKEN}).to_string(),
    || format!(r#"{{"code":0,"tenant_access_token":"{TOKEN}","app_access_token":"{TOKEN}""#),
    || json!({"code": "0", "tenant_access_token": TOKEN}).to_string(),
    || json!({"code": TOKEN}).to_string(),
    || json!({"code": 0, "tenant_access_token": [TOKEN], "app_access_token": [TOKEN]}).to_string(),
    || json!({"code": 10014, "msg": format!("it was {TOKEN}")}).to_string(),
    || {
        let violation = json!({"field": TOKEN, "value": [TOKEN], "description": TOKEN});
        json!({"code": 400, "msg": TOKEN, "error": {"field_violations": [violation]}}).to_string()
    },
    || {
        json!({"code": 500, "msg": "It is all of it", "data": {"token": "all of it"}, "log_id": TOKEN, "x": {"app_token": TOKEN}}).to_string()
    },
];

#[tokio::test(start_paused = true)]
async fn no_error_about_a_token_endpoint_shows_a_token_in_its_response() {
    for (path_end, is_store_app) in [
        ("/tenant_access_token/internal", false),
        ("/app_access_token", true),
        ("/tenant_access_token", true),
    ] {
        for body in LEAKING_BODIES {
            for status in [200, 201, 302, 400, 403, 429, 500, 502] {
                let builder = Client::builder()
                    .transport(Arc::new(Leak {
                        path_end,
                        status,
                        body,
                    }))
                    .max_retries(0);
                let builder = if is_store_app {
                    builder
                        .app("cli_store", SECRET)
                        .tenant_key("tenant")
                        .app_ticket(TICKET)
                } else {
                    builder.app("cli_example", SECRET)
                };
                let client = builder.build().unwrap();
                let call = client.set_time_sensitive(CHAT, [USER], true);
                let error = call.await.unwrap_err();
                assert_eq!(error.http_status(), Some(status), "{error}");
                let shown = shown(&error);
                assert_clean("an error", &shown);
                assert!(!shown.contains("all of it"), "{shown}");
            }
        }
    }
}

struct Broken(fn(String) -> TransportError);

impl Transport for Broken {
    fn send(&self, request: Outgoing, _: Sent) -> Answering<'_> {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        Box::pin(async move { Err(self.0(body)) })
    }
}

fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?} {:?}", error.users());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let _ = write!(text, " {cause} {cause:?}");
        source = cause.source();
    }
    for violation in error.permission_violations() {
        let _ = write!(text, " {violation:?}");
    }
    for violation in error.field_violations() {
        let _ = write!(text, " {violation:?}");
    }
    text
}

/// A client for each source of tokens, each with its own server.
fn clients(server: &Server) -> Vec<Client> {
    let builder = || {
        Client::builder()
            .transport(server())
            .max_retries(1)
            .timeout(Duration::from_secs(5))
    };
    let builders = [
        builder().app("cli_example", SECRET),
        builder()
            .app("cli_store", SECRET)
            .tenant_key("tenant")
            .app_ticket(TICKET),
        builder().tenant_access_token(TOKEN),
        builder().token_provider(|| async { Ok(ProvidedToken::new(TOKEN)) }),
    ];
    for builder in &builders {
        assert_clean("a builder", &format!("{builder:?} {builder:#?}"));
    }
    builders
        .into_iter()
        .map(|builder| builder.build().unwrap())
        .collect()
}

fn assert_clean(what: &str, text: &str) {
    for secret in [SECRET, TOKEN, TICKET, APP_TOKEN, PROXY] {
        // Search for parts without special characters, because escapes may change those.
        for part in secret.split(['/', '\\', '"']).filter(|part| part.len() > 8) {
            let part = &part[2..part.len() - 2];
            assert!(!text.contains(part), "{what} shows {part}: {text}");
        }
    }
}

const BODIES: [fn(&str) -> String; 10] = [
    |all| {
        json!({"code": 0, "data": {"failed_user_reasons": [{"error_code": 1, "error_message": all, "user_id": all}]}}).to_string()
    },
    |all| format!("<html>{all}</html>"),
    |all| format!("{}<html>{all}</html>", "x".repeat(150)),
    |all| json!({"code": 230_001, "msg": all}).to_string(),
    |all| json!({"code": 99_991_663, "msg": all}).to_string(),
    |all| json!({"code": 99_991_400, "msg": all, "log_id": all}).to_string(),
    |all| {
        json!({"code": 99_991_672, "msg": all, "error": {"permission_violations": [{"type": all, "subject": all}]}}).to_string()
    },
    |all| {
        json!({"code": 99_992_402, "msg": all, "error": {"log_id": all, "field_violations": [{"field": all, "value": all, "description": all}]}}).to_string()
    },
    |all| json!({"code": 2200, "msg": all}).to_string(),
    |all| json!({"code": 99_991_403, "msg": all}).to_string(),
];

const BREAKS: [fn(String) -> TransportError; 3] = [
    |_| TransportError::Connect("refused".into()),
    |_| TransportError::Broken("reset".into()),
    |_| TransportError::TooLarge(StatusCode::OK),
];

#[test]
fn no_error_and_no_log_line_shows_a_secret() {
    let log = Collector::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let mut kinds = Vec::new();
    // With a single subscriber, tracing caches whether a callsite is enabled from the first thread that reaches it,
    // which may be another test's thread, without a subscriber. A second subscriber prevents that.
    let _second = tracing::Dispatch::new(Collector::default());
    tracing::subscriber::with_default(log.clone(), || {
        runtime.block_on(async {
            let mut servers: Vec<Server> = Vec::new();
            for body in BODIES {
                for status in [200, 400, 429, 502, 555] {
                    for header in [false, true] {
                        servers.push(Box::new(move || {
                            Arc::new(Echo {
                                status,
                                body,
                                header,
                                received: Mutex::default(),
                            })
                        }));
                    }
                }
            }
            for broken in BREAKS {
                servers.push(Box::new(move || Arc::new(Broken(broken))));
            }
            for server in &servers {
                for client in clients(server) {
                    assert_clean(
                        "a client",
                        &format!("{client:?} {client:#?} {:?}", client.quota()),
                    );
                    let call = client.set_time_sensitive(CHAT, [USER], true);
                    assert_clean("a call", &format!("{call:?}"));
                    match call.await {
                        Ok(outcome) => assert_clean("an outcome", &format!("{outcome:?}")),
                        Err(error) => {
                            kinds.push(error.kind());
                            assert_clean("an error", &shown(&error));
                        }
                    }
                    client.close_within(Duration::ZERO).await;
                    let error = client.set_time_sensitive(CHAT, [USER], true).await.unwrap_err();
                    kinds.push(error.kind());
                    assert_clean("an error", &shown(&error));
                }
            }
            for error in other_errors(&stage(0, Switches::default())).await {
                kinds.push(error.kind());
                assert_clean("an error", &shown(&error));
            }
        });
    });
    let log = log.0.lock().unwrap();
    assert!(
        ["retrying", "token_fetch", "users=1", "the token was refused"]
            .iter()
            .all(|part| log.contains(part)),
        "{log}"
    );
    assert!(!log.contains(USER), "user ids are counted, not listed");
    assert_clean("the log", &log);
    for &kind in ErrorKind::ALL {
        assert!(kinds.contains(&kind), "no {kind} was made");
    }
}

#[test]
fn the_debug_output_of_a_provided_token_shows_its_life_only() {
    let shown = format!(
        "{:?}",
        ProvidedToken::new(TOKEN).expires_in(Duration::from_secs(3600))
    );
    assert!(shown.contains("3600s"), "{shown}");
    assert_clean("a provided token", &shown);
}

#[test]
fn the_debug_output_of_a_client_shows_its_base_url_and_source_of_tokens() {
    let server: Server = Box::new(|| Arc::new(Broken(BREAKS[0])));
    let shown: Vec<String> = clients(&server)
        .iter()
        .map(|client| format!("{client:?}"))
        .collect();
    for (shown, kind) in shown.iter().zip(["SelfBuilt", "Store", "Given", "Provider"]) {
        assert!(
            shown.contains(kind) && shown.contains("https://open.feishu.cn"),
            "{shown}"
        );
    }
}

/// Errors that need no response, and one of an outcome with failed users.
async fn other_errors(stage: &Stage) -> Vec<Error> {
    let transport = super::OnStage::new(stage, round_trip(Duration::from_secs(60)));
    let slow = Client::builder()
        .app("cli_example", SECRET)
        .transport(transport)
        .build()
        .unwrap();
    let quick = super::client(stage, round_trip(Duration::ZERO)).build().unwrap();
    stage.fault(Fault::on_call());
    let outcome = quick
        .set_time_sensitive(CHAT, [World::EXAMPLE_OUTSIDER], true)
        .await
        .unwrap();
    vec![
        Client::builder().app(SECRET, "").build().unwrap_err(),
        Client::builder()
            .app("cli_example", SECRET)
            .tenant_access_token(TOKEN)
            .build()
            .unwrap_err(),
        Client::builder()
            .tenant_access_token(format!("{TOKEN}\n"))
            .build()
            .unwrap_err(),
        Client::builder()
            .app("cli_example", SECRET)
            .proxy(format!("{SECRET}://{TOKEN}"))
            .build()
            .unwrap_err(),
        Client::builder()
            .app("cli_example", SECRET)
            .base_url(format!("https://me:{SECRET}@example.invalid"))
            .build()
            .unwrap_err(),
        Client::builder()
            .app("cli_example", SECRET)
            .base_url(format!("https://example.invalid?key={SECRET}"))
            .build()
            .unwrap_err(),
        slow.set_app_ticket(TICKET).unwrap_err(),
        slow.set_time_sensitive(CHAT, [USER], true).await.unwrap_err(),
        outcome.into_result().unwrap_err(),
    ]
}
