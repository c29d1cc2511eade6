//! The driver in Rust.

use std::io::{BufRead, Write, stdin, stdout};
use std::time::{Duration, Instant};

use feishu_feed_card::{Client, Error, Outcome, RateLimit, Request, UserIds};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::Result;
use crate::plan::{Call, Group, Many, Script};
use crate::verdict::{Answer, Answers, STOPPED};

pub(crate) fn run() -> Result<()> {
    let mut lines = stdin().lock().lines();
    let options: Value = serde_json::from_str(&lines.next().ok_or("no options")??)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (client, many_timeout) = client(&options)?;
    for line in lines {
        let script: Script = serde_json::from_str(&line?)?;
        let answers = runtime.block_on(play(&client, many_timeout, script))?;
        let mut out = stdout().lock();
        serde_json::to_writer(&mut out, &answers)?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}

fn client(options: &Value) -> Result<(Client, Duration)> {
    let text = |name: &str| options[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| options[name].as_u64().unwrap_or_default();
    let millis = |name: &str| Duration::from_millis(number(name));
    let client = Client::builder()
        .app(text("app_id"), text("app_secret"))
        .base_url(text("base_url"))
        .allow_http(options["allow_http"] == true)
        .rate_limit(RateLimit::new(
            number("per_second").try_into()?,
            number("per_minute").try_into()?,
        ))
        .late_arrival(millis("late_arrival_ms"))
        .timeout(millis("timeout_ms"))
        .max_users_per_request(number("max_users_per_request").try_into()?)
        .build()?;
    Ok((client, millis("many_timeout_ms")))
}

async fn play(client: &Client, many_timeout: Duration, script: Script) -> Result<Answers> {
    let mut lanes = JoinSet::new();
    for (lane, groups) in script.into_iter().enumerate() {
        let client = client.clone();
        lanes.spawn(async move {
            let mut answers = Vec::new();
            for group in groups {
                answers.push(match &group.many {
                    None => at_once(&client, group.calls).await,
                    Some(many) => through_many(&client, many_timeout, &group, many).await,
                });
            }
            (lane, answers)
        });
    }
    let mut answers = lanes.join_all().await;
    answers.sort_by_key(|(lane, _)| *lane);
    Ok(answers.into_iter().map(|(_, answers)| answers).collect())
}

async fn at_once(client: &Client, calls: Vec<Call>) -> Vec<Option<Answer>> {
    let mut made = Vec::new();
    for call in calls {
        let began = Instant::now();
        let pending = match call.chat {
            Some(chat) => client.set_time_sensitive(chat, call.users, call.state),
            None => client.set_bot_time_sensitive(call.users, call.state),
        };
        let pending = match call.timeout_ms {
            Some(timeout) => pending.timeout(Duration::from_millis(timeout)),
            None => pending,
        };
        // Calls take their place among those on their chat here, in this order.
        let pending = pending.into_future();
        made.push(tokio::spawn(async move {
            let mut answer = match call.cancel_ms {
                None => answer_of(pending.await),
                Some(cancel) => match tokio::time::timeout(Duration::from_millis(cancel), pending).await {
                    Ok(result) => answer_of(result),
                    Err(_) => Answer {
                        cancelled: true,
                        ..Answer::default()
                    },
                },
            };
            answer.took_ms = took(began);
            answer
        }));
    }
    let mut answers = Vec::new();
    for task in made {
        answers.push(Some(task.await.unwrap_or_else(|panic| Answer {
            foreign: Some(panic.to_string()),
            ..Answer::default()
        })));
    }
    answers
}

async fn through_many(client: &Client, timeout: Duration, group: &Group, many: &Many) -> Vec<Option<Answer>> {
    let began = Instant::now();
    let requests: Vec<_> = group
        .calls
        .iter()
        .map(|call| {
            let mut request = Request::new(
                call.chat.clone().unwrap_or_default(),
                call.users.clone(),
                call.state,
            );
            request.timeout = call.timeout_ms.map(Duration::from_millis);
            request
        })
        .collect();
    let mut answers = vec![None; group.calls.len()];
    let mut handle = client.set_time_sensitive_many(requests).total_timeout(timeout);
    let most = many.leave_after.unwrap_or(usize::MAX);
    let mut read = 0;
    while read < most
        // An error means that not all requests were read; the report lists them.
        && let Some(Ok(item)) = handle.next().await
    {
        read += 1;
        answers[item.index] = Some(answer_of(item.result));
    }
    let report = handle.report().await;
    for item in report.unread {
        answers[item.index] = Some(answer_of(item.result));
    }
    for left in report.unfinished {
        answers[left.index] = Some(answer_with(left.users, Some(STOPPED)));
    }
    for (answer, call) in answers.iter_mut().zip(&group.calls).skip(report.taken) {
        *answer = Some(untouched(call));
    }
    for answer in answers.iter_mut().flatten() {
        answer.took_ms = took(began);
    }
    answers
}

/// The result of a request that was not read: all its users are not attempted.
fn untouched(call: &Call) -> Answer {
    let mut users = call.users.clone();
    users.sort_unstable();
    users.dedup();
    Answer {
        not_attempted: users,
        kind: Some(STOPPED.to_owned()),
        ..Answer::default()
    }
}

fn answer_of(result: std::result::Result<Outcome, Error>) -> Answer {
    match result {
        Ok(outcome) => answer_with(outcome.users, None),
        Err(error) => answer_with(error.users().clone(), Some(error.kind().as_str())),
    }
}

fn answer_with(users: UserIds, kind: Option<&str>) -> Answer {
    Answer {
        reached: users.reached,
        failed: users.failed,
        unknown: users.unknown,
        not_attempted: users.not_attempted,
        kind: kind.map(str::to_owned),
        ..Answer::default()
    }
}

fn took(began: Instant) -> u64 {
    began.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
}
