//! Plays a case: starts the sandbox, makes the client, runs the steps, checks what the sandbox received.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use feishu_feed_card::{
    Client, ConnectionReason, Error, FailedUserReason, Item, Outcome, ProvidedToken, Providing, RateLimit,
    Report, Request, SetTimeSensitive, Station, TokenProvider, TokenReason, Unfinished, UserIdType, UserIds,
    binding,
};
use feishu_feed_card_sandbox::{Sandbox, World};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::case::{
    Call, CallStep, Case, ClientOptions, Expected, GroupArgs, ManyStep, Proxy, Seen, Step, WorldParts,
};
use crate::compare::differences;

pub(crate) async fn play(case: Case) -> Result<(), String> {
    let app_id = case.client.app_id.clone().unwrap_or_default();
    let sandbox = Sandbox::builder()
        .world(world(case.world))
        .https(case.https)
        .start()
        .map_err(|error| format!("  no sandbox: {error}"))?;
    let certificate = sandbox.ca_pem().map(CertificateFile::new);
    sandbox.faults(case.faults);

    let refused = RefusedTokens::default();
    let client = client(case.client, &sandbox, certificate.as_ref(), &refused);
    let client = match (client, &case.steps[..]) {
        (client, [Step::NewClient(expected)]) => {
            let failure = client.map(|_| Value::Null);
            return judge("making the client", failure, expected);
        }
        (Ok(client), _) => client,
        (Err(error), _) => return Err(format!("  no client: {error}")),
    };
    for (index, step) in case.steps.iter().enumerate() {
        let place = format!("step {index}");
        match step {
            Step::Call(step) => make(&client, &place, step).await?,
            Step::Together(steps) => {
                let calls = steps.iter().map(|step| make(&client, &place, step));
                for verdict in join_all(calls).await {
                    verdict?;
                }
            }
            Step::Many(step) => make_many(&client, &place, step).await?,
            Step::Control(control) => {
                let done = sandbox.control(control.clone());
                done.map_err(|error| format!("  {place}: {error}"))?;
            }
            Step::NewClient(_) => return Err(format!("  {place}: new_client must be the only step")),
        }
    }
    check_seen(&sandbox, &app_id, &refused, &case.seen)
}

fn world(parts: WorldParts) -> World {
    let example = World::example();
    World {
        apps: parts.apps.unwrap_or(example.apps),
        users: parts.users.unwrap_or(example.users),
        chats: parts.chats.unwrap_or(example.chats),
        switches: parts.switches,
        seed: parts.seed,
    }
}

/// A file with the sandbox's certificate, removed on drop.
struct CertificateFile(PathBuf);

impl CertificateFile {
    fn new(pem: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("feishu-feed-card-{}-{number}.pem", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, pem).unwrap();
        Self(path)
    }
}

impl Drop for CertificateFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The refused token in each call of the token provider.
type RefusedTokens = Arc<Mutex<Vec<Option<String>>>>;

/// Returns its tokens in turn, then always the last one.
struct Provider {
    tokens: Vec<String>,
    refused: RefusedTokens,
}

impl TokenProvider for Provider {
    fn tenant_access_token(&self, reason: TokenReason<'_>) -> Providing {
        let mut refused = self.refused.lock().unwrap();
        let token = self
            .tokens
            .get(refused.len())
            .or(self.tokens.last())
            .unwrap()
            .clone();
        refused.push(reason.refused_token().map(str::to_owned));
        Box::pin(async move { Ok(ProvidedToken::new(token)) })
    }
}

fn client(
    options: ClientOptions,
    sandbox: &Sandbox,
    certificate: Option<&CertificateFile>,
    refused: &RefusedTokens,
) -> Result<Client, Error> {
    let sandbox_url = sandbox.https_base_url().unwrap_or_else(|| sandbox.base_url());
    let base_url = match options.base_url {
        Some(given) => given.replace("{base_url}", &sandbox_url),
        None => sandbox_url,
    };
    let ca_certs = options
        .ca_certs
        .unwrap_or_else(|| certificate.map(|file| file.0.clone()));

    let mut builder = Client::builder().base_url(base_url);
    macro_rules! set {
        ($($option:ident: $value:expr;)+) => { $(if let Some(value) = $value { builder = builder.$option(value); })+ };
    }
    let seconds = |field, value: Option<f64>| value.map(|value| binding::seconds(field, value)).transpose();
    set! {
        app_id: options.app_id;
        app_secret: options.app_secret;
        tenant_access_token: options.tenant_access_token;
        token_provider: options.token_provider.map(|tokens| Provider { tokens, refused: refused.clone() });
        tenant_key: options.tenant_key;
        app_ticket: options.app_ticket;
        allow_http: options.allow_http;
        ca_certs: ca_certs;
        user_agent: options.user_agent;
        timeout: seconds("timeout", options.timeout)?;
        connect_timeout: seconds("connect_timeout", options.connect_timeout)?;
        attempt_timeout: seconds("attempt_timeout", options.attempt_timeout)?;
        late_arrival: seconds("late_arrival", options.late_arrival)?;
        max_retries: options.max_retries;
        rate_limit: options.rate_limit.map(|(second, minute)| RateLimit::new(second, minute));
        max_users_per_request: options.max_users_per_request;
    }
    match options.proxy {
        Some(Proxy::Url(url)) => builder.proxy(url),
        Some(Proxy::Off) => builder.no_proxy(),
        None => builder,
    }
    .build()
}

async fn make(client: &Client, place: &str, step: &CallStep) -> Result<(), String> {
    let came = match &step.call {
        Call::Group(args) => {
            let call = client.set_time_sensitive(&args.feed_card_id, &args.user_ids, args.time_sensitive);
            set(call, args.user_id_type.as_deref(), args.timeout).await
        }
        Call::Bot(args) => {
            let call = client.set_bot_time_sensitive(&args.user_ids, args.time_sensitive);
            set(call, args.user_id_type.as_deref(), args.timeout).await
        }
        Call::AppTicket(args) => client.set_app_ticket(&args.app_ticket).map(|()| Value::Null),
        Call::Close(args) => close(client, args.timeout).await.map(|()| Value::Null),
    };
    judge(place, came, &step.expected)
}

async fn close(client: &Client, timeout: Option<f64>) -> Result<(), Error> {
    match timeout {
        None => client.close().await,
        Some(timeout) => {
            let timeout = binding::seconds_or_zero("timeout", timeout)?;
            client.close_within(timeout).await;
        }
    }
    Ok(())
}

/// The items that came, in the order of their indices, and the report.
async fn make_many(client: &Client, place: &str, step: &ManyStep) -> Result<(), String> {
    let requests = step
        .requests
        .iter()
        .map(|many| Ok(request(&many.args)?.tag(many.tag.clone())));
    let requests = requests.collect::<Result<Vec<_>, Error>>();
    let requests = requests.map_err(|error| format!("  {place}: {error}"))?;
    let mut many = client.set_time_sensitive_many(requests);
    if let Some(concurrency) = step.concurrency {
        many = many.concurrency(concurrency);
    }
    if let Some(timeout) = step.total_timeout {
        many = many.total_timeout(Duration::from_secs_f64(timeout));
    }
    let (items, end, report) = if step.collect {
        let (items, report) = many.collect().await;
        (items, Ok(Value::Null), report)
    } else {
        let (mut items, mut end) = (Vec::new(), Ok(Value::Null));
        while items.len() < step.take.unwrap_or(usize::MAX) {
            match many.next().await {
                Some(Ok(item)) => items.push(item),
                Some(Err(error)) => end = Err(error),
                None => break,
            }
        }
        items.sort_by_key(|item| item.index);
        (items, end, many.report().await)
    };
    let came: Vec<usize> = items.iter().map(|item| item.index).collect();
    let expected: Vec<usize> = step.items.iter().map(|item| item.index).collect();
    if came != expected {
        return Err(format!(
            "  {place}: expected the items {expected:?}, {came:?} came"
        ));
    }
    for (item, end) in items.into_iter().zip(&step.items) {
        let place = format!("{place}, item {}", item.index);
        if let Some(tag) = &end.tag {
            verdict(&place, &differences(tag, &item.tag), &item.tag.to_string())?;
        }
        judge(
            &place,
            item.result.map(|outcome| in_json(&outcome)),
            &end.expected,
        )?;
    }
    let expected = step
        .raises
        .as_ref()
        .map_or(&Expected::Returns(Value::Null), |end| &end.0);
    judge(&format!("{place}, end"), end, expected)?;
    if let Some(expected) = &step.report {
        let report = report_in_json(&report);
        verdict(
            &format!("{place}, report"),
            &differences(expected, &report),
            &report.to_string(),
        )?;
    }
    Ok(())
}

fn request(args: &GroupArgs) -> Result<Request, Error> {
    let mut request = Request::new(&args.feed_card_id, &args.user_ids, args.time_sensitive);
    if let Some(user_id_type) = &args.user_id_type {
        request = request.user_id_type(user_id_type.parse()?);
    }
    if let Some(timeout) = args.timeout {
        request = request.timeout(binding::seconds("timeout", timeout)?);
    }
    Ok(request)
}

fn report_in_json(report: &Report<Value>) -> Value {
    let unfinished = |left: &Unfinished<Value>| json!({"index": left.index, "tag": left.tag, "users": users_in_json(&left.users)});
    let failure = |item: &Item<Value>| json!({"index": item.index, "tag": item.tag});
    json!({
        "text": report.to_string(),
        "not_read": report.not_read,
        "failures": report.failures.iter().map(failure).collect::<Vec<_>>(),
        "taken": report.taken,
        "succeeded": report.succeeded,
        "failed": report.failed,
        "unread": report.unread.iter().map(|item| item.index).collect::<Vec<_>>(),
        "unfinished": report.unfinished.iter().map(unfinished).collect::<Vec<_>>(),
    })
}

async fn set(
    mut call: SetTimeSensitive,
    user_id_type: Option<&str>,
    timeout: Option<f64>,
) -> Result<Value, Error> {
    if let Some(user_id_type) = user_id_type {
        call = call.user_id_type(user_id_type.parse::<UserIdType>()?);
    }
    if let Some(timeout) = timeout {
        call = call.timeout(binding::seconds("timeout", timeout)?);
    }
    call.await.map(|outcome| in_json(&outcome))
}

fn judge(place: &str, came: Result<Value, Error>, expected: &Expected) -> Result<(), String> {
    let (wrong, came) = match (expected, came) {
        (Expected::Returns(expected), Ok(came)) => (differences(expected, &came), came.to_string()),
        (Expected::Raises(expected), Err(error)) => (wrong_with(&error, expected), error.to_string()),
        (Expected::Returns(expected), Err(error)) => (
            vec![format!("expected it to return {expected}")],
            format!("{} {error}", error.kind()),
        ),
        (Expected::Raises(expected), Ok(came)) => {
            (vec![format!("expected it to raise {expected}")], came.to_string())
        }
    };
    verdict(place, &wrong, &came)
}

fn verdict(place: &str, wrong: &[String], came: &str) -> Result<(), String> {
    if wrong.is_empty() {
        return Ok(());
    }
    let mut report = String::new();
    for line in wrong {
        let _ = writeln!(report, "  {place}: {line}");
    }
    let _ = write!(report, "  {place}: all that came: {came}");
    Err(report)
}

/// The error with its causes, as a Rust program prints it. Errors of the bindings have the causes in their own text.
fn with_causes(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |printed, cause| format!("{printed}: {cause}"))
}

fn wrong_with(error: &Error, expected: &Value) -> Vec<String> {
    let mut expected = expected.clone();
    let mut wrong = Vec::new();
    for (key, text) in [
        ("message_contains", with_causes(error)),
        ("hint_contains", error.hint().unwrap_or_default().to_owned()),
    ] {
        let wanted = expected.as_object_mut().and_then(|fields| fields.remove(key));
        for part in wanted.iter().flat_map(|parts| parts.as_array().unwrap()) {
            if !text.contains(part.as_str().unwrap()) {
                wrong.push(format!(".{key}: expected {part} in {text:?}"));
            }
        }
    }
    wrong.extend(differences(&expected, &error_in_json(error)));
    wrong
}

fn check_seen(sandbox: &Sandbox, app_id: &str, refused: &RefusedTokens, seen: &Seen) -> Result<(), String> {
    let records = json!(sandbox.requests());
    let is_call = |record: &&Value| record["method"] == "PATCH";
    let calls: Vec<&Value> = records.as_array().into_iter().flatten().filter(is_call).collect();
    let mut wrong = Vec::new();
    let mut compare = |what: &str, expected: &Value, came: &Value| {
        let lines = differences(expected, came);
        wrong.extend(lines.into_iter().map(|line| format!("{what}{line}")));
    };
    if let Some(requests) = &seen.requests {
        compare("requests", requests, &json!(calls));
    }
    if let Some(count) = &seen.calls {
        compare("calls", count, &json!(calls.len()));
    }
    if let Some(count) = &seen.token_fetches {
        compare("token_fetches", count, &json!(sandbox.token_fetches()));
    }
    if let Some(tokens) = &seen.refused_tokens {
        compare("refused_tokens", tokens, &json!(*refused.lock().unwrap()));
    }
    for (open_id, chats) in seen.pinned.iter().flatten() {
        compare(
            &format!("pinned.{open_id}"),
            chats,
            &json!(sandbox.pinned(open_id)),
        );
    }
    if let Some(users) = &seen.bot_pinned {
        compare("bot_pinned", users, &json!(sandbox.bot_pinned_users(app_id)));
    }
    verdict("seen", &wrong, &records.to_string())
}

fn in_json(outcome: &Outcome) -> Value {
    let reason = |reason: &FailedUserReason| {
        json!({
            "error_code": reason.error_code,
            "error_message": reason.error_message,
            "user_id": reason.user_id,
        })
    };
    json!({
        "ok": outcome.ok(),
        "failed_user_reasons": outcome.failed_user_reasons.iter().map(reason).collect::<Vec<_>>(),
        "log_id": outcome.log_id(),
        "log_ids": outcome.log_ids,
        "requests": outcome.requests,
        "users": users_in_json(&outcome.users),
    })
}

fn users_in_json(users: &UserIds) -> Value {
    json!({
        "reached": users.reached,
        "failed": users.failed,
        "unknown": users.unknown,
        "not_attempted": users.not_attempted,
    })
}

fn error_in_json(error: &Error) -> Value {
    let fields = error.field_violations().iter().map(
        |violation| json!({"field": violation.field, "value": violation.value, "description": violation.description}),
    );
    let permissions = error
        .permission_violations()
        .iter()
        .map(|violation| json!({"type": violation.kind, "subject": violation.subject}));
    json!({
        "kind": error.kind().as_str(),
        "platform_code": error.platform_code(),
        "http_status": error.http_status(),
        "retryable": error.retryable(),
        "attempts": error.attempts(),
        "station": error.station().map(Station::as_str),
        "reason": error.reason().map(ConnectionReason::as_str),
        "field": error.field(),
        "log_id": error.log_id(),
        "users": users_in_json(error.users()),
        "retry_after": error.retry_after().map(|wait| wait.as_secs_f64()),
        "field_violations": fields.collect::<Vec<_>>(),
        "permission_violations": permissions.collect::<Vec<_>>(),
    })
}
