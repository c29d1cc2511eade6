//! The time of a call in our own code, without `reqwest`: everything from the arguments to the `Outcome`, with pacing
//! and the token, runs on a transport that responds at once. Nothing waits, so a regression is visible without noise.
//!
//! It is not in the package of the core, whose tests need tokio's `test-util`: with that feature, each reading of the
//! clock takes a lock.
//!
//! ```text
//! cargo bench -p feishu-feed-card-bench --bench alone               (criterion, compared with the last run)
//! cargo bench -p feishu-feed-card-bench --bench alone -- --brief    (medians, for the targets)
//! ```

use std::error::Error;
use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use feishu_feed_card::transport::{Answering, Outgoing, Sent, Transport, TransportError};
use feishu_feed_card::{Client, RateLimit};
use http::{HeaderValue, Response};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const CHAT: &str = "oc_679eaeb583654bff73fefcc6e6371370";
const USER: &str = "ou_9d2beb613c85a2412862a49a924558c5";
/// A token of the usual length, because each answer is searched for it.
const SECRET: &str = "alone000000000000000000000000000";
/// Batches are short, so that prepared responses stay in the processor's cache, as a received one does. On a busy
/// machine, some of them are not interrupted.
const CALLS: u32 = 100;
const BATCHES: usize = 2000;
const CLIENTS: usize = 51;

fn main() -> Result<()> {
    if std::env::args().any(|argument| argument == "--brief") {
        brief()
    } else {
        compare();
        Ok(())
    }
}

/// With criterion, compared with the last run.
fn compare() {
    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("a call, without the network", |bencher| {
        bencher.iter_custom(
            |calls| match u32::try_from(calls).map_err(Into::into).and_then(batch) {
                Ok(took) => took,
                Err(error) => {
                    eprintln!("{error}");
                    std::process::exit(1)
                }
            },
        );
    });
    criterion.bench_function("making a client", |bencher| {
        bencher.iter(|| Client::builder().app("cli_example", SECRET).build());
    });
    criterion.final_summary();
}

/// Medians, as `name=figure`.
fn brief() -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..BATCHES {
        times.push(batch(CALLS)?.as_secs_f64() * 1e6 / f64::from(CALLS));
    }
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let began = Instant::now();
        black_box(Client::builder().app("cli_example", SECRET).build()?);
        clients.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let (time, client) = (median(&mut times), median(&mut clients));
    println!("own_us={time:.3} client_ms={client:.3}");
    Ok(())
}

/// The same number of calls is made before, so that the quota's windows have their usual size.
fn batch(calls: u32) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let transport = Arc::new(AtOnce::new(calls.saturating_mul(2).saturating_add(1)));
    let client = Client::builder()
        .app("cli_example", SECRET)
        .rate_limit(RateLimit::new(1_000_000, 60_000_000))
        .transport(transport.clone())
        .build()?;
    runtime.block_on(async {
        make_calls(&client, calls).await?;
        let began = Instant::now();
        make_calls(&client, calls).await?;
        let took = began.elapsed();
        let other = AtOnce::new(calls);
        let began = Instant::now();
        for _ in 0..calls {
            drop(black_box(other.take()));
        }
        // The time to free responses is not counted, because hyper makes and frees them.
        Ok(took.saturating_sub(began.elapsed()))
    })
}

async fn make_calls(client: &Client, calls: u32) -> Result<()> {
    for _ in 0..calls {
        let outcome = client.set_time_sensitive(CHAT, [USER], true).await?;
        if !black_box(outcome).ok() {
            return Err("not reached".into());
        }
    }
    Ok(())
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Returns prepared responses at once: hyper allocates the headers of real ones.
struct AtOnce(Mutex<Vec<Response<Bytes>>>);

impl AtOnce {
    fn new(answers: u32) -> Self {
        const SUCCESS: &[u8] = br#"{"code":0,"msg":"success","data":{"failed_user_reasons":[]}}"#;
        let answers = (0..answers).map(|_| answer(Bytes::from_static(SUCCESS)));
        Self(Mutex::new(answers.collect()))
    }

    fn take(&self) -> Option<Response<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

fn answer(body: Bytes) -> Response<Bytes> {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(
        "content-type",
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    headers.insert(
        "x-tt-logid",
        HeaderValue::from_static("20261123120000B9A5C2A1F1E0D3C4B5A6"),
    );
    answer
}

impl Transport for AtOnce {
    fn send(&self, request: Outgoing, sent: Sent) -> Answering<'_> {
        Box::pin(async move {
            const TOKEN: &[u8] = br#"{"code":0,"msg":"ok","tenant_access_token":"t-alone00000000000000000000000000000000000","expire":7200}"#;
            if !sent.raise() {
                return Err(TransportError::Broken("given up".into()));
            }
            if request.url.path().contains("/auth/") {
                return Ok(answer(Bytes::from_static(TOKEN)));
            }
            self.take()
                .ok_or_else(|| TransportError::Broken("no answer is left".into()))
        })
    }
}
