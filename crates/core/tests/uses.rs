//! Typical uses, which must compile without a warning. They are not run. `mistakes.md` has uses that must not compile.

#![allow(dead_code, reason = "they are compiled only")]

use std::collections::{BTreeSet, HashSet};
use std::error::Error as StdError;
use std::future::IntoFuture;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use feishu_feed_card::{
    BoxError, CallFuture, Client, ClientBuilder, ConnectionReason, Error, ErrorKind, Item, Many, Outcome,
    Progress, ProvidedToken, Providing, QuotaHandle, RateLimit, Report, Request, Station, TokenProvider,
    TokenReason, UserIdType, UserIds,
};
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, future};

fn every_option(quota: Option<QuotaHandle>) -> Result<Client, Error> {
    let mut builder: ClientBuilder = Client::builder()
        .app("cli_1", String::from("secret"))
        .base_url("https://open.larksuite.com")
        .allow_http(false)
        .no_proxy()
        .ca_certs(Path::new("ca.pem"))
        .user_agent("my-bot/1.0")
        .timeout(Duration::from_secs(10))
        .connect_timeout(Duration::from_secs(1))
        .attempt_timeout(Duration::from_secs(3))
        .max_retries(0)
        .late_arrival(Duration::ZERO)
        .max_users_per_request(20);
    if let Some(quota) = quota {
        builder = builder.quota(quota);
    }
    builder.build()
}

fn clients() -> Result<(), Error> {
    let of_environment = Client::from_env()?;
    let _clone = of_environment.clone();
    Client::builder().from_env().rate_limit(None).build()?;
    Client::builder()
        .app("cli_1", "secret")
        .rate_limit(RateLimit::new(20, 400))
        .build()?;
    let store = Client::builder()
        .app("cli_1", "secret")
        .tenant_key("tenant")
        .app_ticket("ticket");
    store.build()?.set_app_ticket("the next ticket")?;
    Client::builder()
        .tenant_access_token("t-1")
        .proxy("socks5h://127.0.0.1:1080")
        .build()
        .map(drop)
}

async fn pins(client: &Client, users: &[&str]) -> Result<Outcome, Error> {
    client
        .set_time_sensitive("oc_1", ["ou_1"], true)
        .await?
        .into_result()
        .map(drop)?;
    client
        .set_time_sensitive(String::from("oc_1"), users, true)
        .await?
        .into_result()
        .map(drop)?;
    client
        .set_time_sensitive("oc_1", vec![String::from("ou_1")], true)
        .await?
        .into_result()
        .map(drop)?;
    client
        .set_time_sensitive("oc_1", HashSet::from(["ou_1"]), true)
        .await?
        .into_result()
        .map(drop)?;
    client
        .set_time_sensitive("oc_1", users.iter().take(5), true)
        .await?
        .into_result()
        .map(drop)?;
    client
        .set_bot_time_sensitive(BTreeSet::from(["ou_1"]), false)
        .await?
        .into_result()
        .map(drop)?;
    let call = client.set_time_sensitive("oc_1", ["on_1"], true);
    let call = call
        .user_id_type(UserIdType::UnionId)
        .timeout(Duration::from_secs(5));
    let outcome = call.await?;
    let UserIds {
        reached,
        failed,
        unknown,
        not_attempted,
        ..
    } = &outcome.users;
    println!(
        "{reached:?} {failed:?} {unknown:?} {not_attempted:?} {:?}",
        outcome.log_id()
    );
    outcome.into_result()
}

struct Pending {
    chat: String,
    call: CallFuture,
}

async fn futures(client: &Client, chats: &[&str]) -> Result<(), BoxError> {
    let one = tokio::spawn(client.set_time_sensitive("oc_1", ["ou_1"], true).into_future());
    one.await??.into_result().map(drop)?;
    let all = chats
        .iter()
        .map(|chat| client.set_time_sensitive(*chat, ["ou_1"], true).into_future());
    let results: Vec<Result<Outcome, Error>> = future::join_all(all).await;
    println!("{}", results.len());
    let mut unordered: FuturesUnordered<CallFuture> = FuturesUnordered::new();
    unordered.push(client.set_bot_time_sensitive(["ou_1"], true).into_future());
    while let Some(result) = unordered.next().await {
        println!("{}", result?.ok());
    }
    let pending = Pending {
        chat: "oc_1".to_owned(),
        call: client.set_time_sensitive("oc_1", ["ou_1"], true).into_future(),
    };
    tokio::time::timeout(Duration::from_secs(1), pending.call)
        .await??
        .into_result()
        .map(drop)?;
    println!("{}", pending.chat);
    Ok(())
}

struct Vault;

impl TokenProvider for Vault {
    fn tenant_access_token(&self, reason: TokenReason<'_>) -> Providing {
        if reason.refused_token().is_some() {
            println!("the platform refused the last token");
        }
        Box::pin(async { Ok(ProvidedToken::new("t-1").expires_in(Duration::from_secs(60))) })
    }
}

fn providers() -> Result<(), Error> {
    Client::builder().token_provider(Vault).build()?;
    let shared: Arc<dyn TokenProvider> = Arc::new(Vault);
    Client::builder().token_provider(shared).build()?;
    let closure = || async { Ok(ProvidedToken::new("t-1")) };
    Client::builder().token_provider(closure).build().map(drop)
}

async fn many(client: &Client, chats: Vec<String>) -> Result<Report, Error> {
    let requests = chats.into_iter().map(|chat| Request::new(chat, ["ou_1"], true));
    let mut many: Many = client
        .set_time_sensitive_many(requests)
        .concurrency(10)
        .total_timeout(Duration::from_secs(60))
        .on_progress(|progress: Progress| println!("{} {:?}", progress.done, progress.eta));
    while let Some(item) = many.next().await {
        let Item {
            index,
            request,
            result,
            ..
        } = item?;
        match result {
            Ok(outcome) if outcome.ok() => println!("{index}"),
            Ok(outcome) => println!("{}: {:?}", request.feed_card_id, outcome.users.failed),
            Err(error) => println!("{}: {error}", request.feed_card_id),
        }
    }
    Ok(many.report().await)
}

fn errors(error: &Error) -> Option<Duration> {
    let reason: Option<ConnectionReason> = error.reason();
    let station: Option<Station> = error.station();
    println!(
        "{reason:?} {station:?} {:?} {:?}",
        error.platform_code(),
        error.log_id()
    );
    let source: Option<&(dyn StdError + 'static)> = error.source();
    println!("{source:?} {:?}", error.outcome().map(Outcome::ok));
    match error.kind() {
        ErrorKind::RateLimited => error.retry_after(),
        kind if kind.retryable() => Some(Duration::from_secs(1)),
        _ => None,
    }
}

fn boxed() -> Result<UserIdType, Box<dyn StdError + Send + Sync>> {
    Ok("open_id".parse::<UserIdType>()?)
}
