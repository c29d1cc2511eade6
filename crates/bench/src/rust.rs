//! The clients in Rust: the core, and a usual loop with `reqwest`. As limits, the minimum with `reqwest` and with
//! `hyper`. All of them use a runtime of one thread, because the server has the other processor.

use std::io::{BufRead, Write, stdin, stdout};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use feishu_feed_card::{Client, RateLimit, Request};
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::task::LocalSet;

use crate::Result;

const USER: &str = "ou_bench";

// The requests of the limits, made once.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const TOKEN: HeaderValue = HeaderValue::from_static("Bearer t-benchmarks00000000000000000000000000000");
const BODY: &[u8] = br#"{"time_sensitive":true,"user_ids":["ou_bench"]}"#;

/// `bench call CALLER BASE_URL`: for each line of input, `IN_FLIGHT SECONDS TAG`, makes calls and prints their number
/// and time.
pub(crate) fn call(caller: &str, base_url: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let caller = Rc::new(Caller::new(caller, base_url)?);
    for line in stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let [in_flight, seconds, tag] = words[..] else {
            return Err(format!("{line}: not understood").into());
        };
        let seconds = Duration::from_secs_f64(seconds.parse()?);
        let began = Instant::now();
        let work = run(&caller, in_flight, began + seconds, tag);
        let calls = LocalSet::new().block_on(&runtime, work)?;
        writeln!(stdout(), "{calls} {}", began.elapsed().as_secs_f64())?;
        stdout().flush()?;
    }
    Ok(())
}

async fn run(caller: &Rc<Caller>, in_flight: &str, end: Instant, tag: &str) -> Result<u64> {
    if in_flight == "many" {
        return caller.many(end, tag).await;
    }
    let mut tasks = Vec::new();
    for task in 0..in_flight.parse()? {
        let (caller, tag) = (Rc::clone(caller), format!("oc_{tag}_{task}"));
        tasks.push(tokio::task::spawn_local(async move {
            let mut calls = 0;
            while Instant::now() < end {
                caller.call(format!("{tag}_{calls}")).await?;
                calls += 1;
            }
            Result::Ok(calls)
        }));
    }
    let mut calls = 0;
    for task in tasks {
        calls += task.await??;
    }
    Ok(calls)
}

#[allow(clippy::large_enum_variant, reason = "there is one")]
enum Caller {
    Core(Client),
    Reqwest(reqwest::Client, String),
    BareReqwest(reqwest::Client, Url),
    Hyper(legacy::Client<HttpConnector, Full<Bytes>>, String),
}

impl Caller {
    fn new(name: &str, base_url: &str) -> Result<Self> {
        Ok(match name {
            "core" => Self::Core(
                Client::builder()
                    .app("cli_bench", "benchmarks0000000000000000000000")
                    .base_url(base_url)
                    .rate_limit(RateLimit::new(1_000_000, 60_000_000))
                    .build()?,
            ),
            "reqwest" => Self::Reqwest(reqwest_client().build()?, base_url.to_owned()),
            "bare-reqwest" => {
                let client = reqwest_client()
                    .redirect(reqwest::redirect::Policy::none())
                    .retry(reqwest::retry::never())
                    .referer(false)
                    .build()?;
                Self::BareReqwest(client, Url::parse(&url(base_url, "oc_0"))?)
            }
            "hyper" => {
                let mut connector = HttpConnector::new();
                connector.set_nodelay(true);
                let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
                Self::Hyper(client, base_url.to_owned())
            }
            _ => return Err(format!("{name}: no caller").into()),
        })
    }

    async fn call(&self, chat: String) -> Result<()> {
        match self {
            Self::Core(client) => {
                let outcome = client.set_time_sensitive(chat, [USER], true).await?;
                check(outcome.ok())
            }
            Self::Reqwest(client, base_url) => {
                let answer: Value = client
                    .patch(url(base_url, &chat))
                    .bearer_auth("t-benchmarks00000000000000000000000000000")
                    .json(&json!({"time_sensitive": true, "user_ids": [USER]}))
                    .send()
                    .await?
                    .json()
                    .await?;
                check(answer["code"] == 0)
            }
            Self::BareReqwest(client, url) => {
                let mut url = url.clone();
                url.path_segments_mut().map_err(|()| "no path")?.pop().push(&chat);
                let mut request = reqwest::Request::new(http::Method::PATCH, url);
                request.headers_mut().insert(CONTENT_TYPE, JSON);
                request.headers_mut().insert(AUTHORIZATION, TOKEN);
                *request.body_mut() = Some(Bytes::from_static(BODY).into());
                let answer = client.execute(request).await?.bytes().await?;
                check(answer.starts_with(br#"{"code":0"#))
            }
            Self::Hyper(client, base_url) => {
                let request = http::Request::patch(url(base_url, &chat))
                    .header(CONTENT_TYPE, JSON)
                    .header(AUTHORIZATION, TOKEN)
                    .body(Full::new(Bytes::from_static(BODY)))?;
                let answer = client.request(request).await?.into_body().collect().await?;
                check(answer.to_bytes().starts_with(br#"{"code":0"#))
            }
        }
    }

    async fn many(&self, end: Instant, tag: &str) -> Result<u64> {
        let Self::Core(client) = self else {
            return Err("only the core makes many calls".into());
        };
        let tag = tag.to_owned();
        let requests = (0_u64..)
            .map(move |number| Request::new(format!("oc_{tag}_{number}"), [USER], true))
            .take_while(move |_| Instant::now() < end);
        let mut many = client.set_time_sensitive_many(requests);
        let mut calls = 0;
        while let Some(item) = many.next().await.transpose()? {
            check(item.result?.ok())?;
            calls += 1;
        }
        Ok(calls)
    }
}

fn reqwest_client() -> reqwest::ClientBuilder {
    // With the features of the core: `reqwest` needs a TLS provider also for http.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().tcp_nodelay(true)
}

fn url(base_url: &str, chat: &str) -> String {
    format!("{base_url}/open-apis/im/v2/feed_cards/{chat}?user_id_type=open_id")
}

fn check(ok: bool) -> Result<()> {
    if ok { Ok(()) } else { Err("not a success".into()) }
}
