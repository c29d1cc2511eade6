//! A network that goes away and comes back, and connections that go silent on the way.

use std::time::Duration;

use feishu_feed_card::{Client, ClientBuilder, ConnectionReason, Error, Outcome, RateLimit, Station};
use futures_util::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep, sleep_until};

use super::namespaces::{Network, PLATFORM};
use super::servers::{Act, Platform};
use super::{CHAT, TempFile, USER, app, pin};

/// The kernel sends unacknowledged data again after 0.2, 0.6, 1.4, 3, 6.2 and 12.6 s, unless it gives up before.
const LAST_RETRANSMISSION: Duration = Duration::from_millis(13_200);

const PER_SECOND: usize = 10;

/// A client of a platform that speaks HTTP/1.1 or HTTP/2.
fn client(platform: &Platform, options: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
    let builder = options(app().base_url(&platform.base_url));
    let Some(pem) = &platform.pem else {
        return builder.allow_http(true).build().unwrap();
    };
    let file = format!("outage-{}.pem", platform.base_url.replace(['/', ':'], "-"));
    let pem = TempFile::new(&file, pem);
    builder.ca_certs(&pem.0).build().unwrap()
}

fn run_in_client(network: &Network, work: impl Future<Output = ()> + Send) {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(work);
    };
    network.client.run(run);
}

#[test]
fn what_was_given_up_in_an_outage_never_arrives_late() {
    // During the second, the pin is given up and the unpin waits; the third outlasts the unpin's first connection.
    let seconds = [3, 7, 12];
    let networks: Option<Vec<_>> = seconds.iter().map(|_| Network::new()).collect();
    let Some(networks) = networks else { return };
    std::thread::scope(|scope| {
        for (network, seconds) in networks.iter().zip(seconds) {
            scope.spawn(move || outage_of(network, Duration::from_secs(seconds)));
        }
    });
}

fn outage_of(network: &Network, outage: Duration) {
    let platforms = || {
        let http2 = || Platform::http2(PLATFORM, |_| Act::Answer);
        [
            Platform::http1(PLATFORM),
            http2(),
            Platform::http1(PLATFORM),
            http2(),
        ]
    };
    let [one, two, fast_one, fast_two] = &network.platform.run(platforms);
    let limit = |builder: ClientBuilder| builder.rate_limit(RateLimit::new(10, 1000));
    run_in_client(network, async {
        let orders = [one, two].map(|platform| client(platform, |builder| builder));
        let floods = [fast_one, fast_two].map(|platform| client(platform, limit));
        for client in &orders {
            assert!(client.set_time_sensitive(CHAT, [USER], false).await.unwrap().ok());
        }
        for client in &floods {
            call_at_once(client, PER_SECOND).await.unwrap();
        }
        sleep(Duration::from_millis(1_100)).await;
        network.forward(false);
        let down = Instant::now();
        let end = down + LAST_RETRANSMISSION;
        tokio::join!(
            async {
                sleep_until(down + outage).await;
                network.forward(true);
            },
            join_all(orders.iter().map(pin_and_unpin)),
            join_all(floods.iter().map(|client| call_until(client, end))),
            sleep_until(end),
        );
    });
    let mut faults = Vec::new();
    for platform in [one, two] {
        let states = platform.states();
        if states.last() != Some(&false) {
            faults.push(format!("{}: {states:?} arrived", platform.base_url));
        }
    }
    for platform in [fast_one, fast_two] {
        let most = most_in_a_second(&platform.times());
        if most > PER_SECOND {
            faults.push(format!("{}: {most} arrived in one second", platform.base_url));
        }
    }
    assert!(faults.is_empty(), "after an outage of {outage:?}: {faults:?}");
}

async fn pin_and_unpin(client: &Client) {
    let pin = client.set_time_sensitive(CHAT, [USER], true);
    let given_up = pin.timeout(Duration::from_secs(1)).await;
    assert!(given_up.is_err());
    assert!(client.set_time_sensitive(CHAT, [USER], false).await.unwrap().ok());
}

/// As many calls as the limit permits, of which the first are given up after a second.
async fn call_until(client: &Client, end: Instant) {
    let calls = (0..PER_SECOND).map(|_| async {
        let first = client.set_time_sensitive(CHAT, [USER], true);
        assert!(first.timeout(Duration::from_secs(1)).await.is_err());
        while Instant::now() < end {
            assert!(pin(client).await.unwrap().ok());
        }
    });
    join_all(calls).await;
}

fn most_in_a_second(times: &[std::time::Instant]) -> usize {
    let within = |from: &std::time::Instant| {
        let until = *from + Duration::from_secs(1);
        times.iter().filter(|&time| time >= from && *time < until).count()
    };
    times.iter().map(within).max().unwrap_or_default()
}

/// Makes this many calls at once.
async fn call_at_once(client: &Client, calls: usize) -> Result<Vec<Outcome>, Error> {
    try_join_all((0..calls).map(|_| pin(client))).await
}

#[test]
fn connections_that_went_silent_are_left_within_a_calls_deadline() {
    const KEPT: usize = 20;
    let Some(network) = Network::new() else { return };
    let platforms = || {
        let http1 = || Platform::http1(PLATFORM);
        let http2 = || Platform::http2(PLATFORM, |_| Act::Answer);
        let retrying = [http1(), http1(), http1(), http2()];
        (retrying, [http1(), http2()])
    };
    let (retrying, failing) = &network.platform.run(platforms);
    run_in_client(&network, async {
        let failing = failing
            .each_ref()
            .map(|platform| client(platform, |builder| builder.max_retries(0)));
        let clients = retrying
            .each_ref()
            .map(|platform| client(platform, |builder| builder));
        let [one, many, all, two] = &clients;
        for (client, connections) in [(one, 1), (many, KEPT), (all, KEPT), (two, 1)] {
            call_at_once(client, connections).await.unwrap();
        }
        let kept = retrying.each_ref().map(Platform::connections);
        assert_eq!(kept, [1, KEPT, KEPT, 1]);
        for client in &failing {
            assert!(pin(client).await.unwrap().ok());
        }

        network.silence_connections();
        let began = Instant::now();
        let at_once = [(one, 1), (many, 1), (all, KEPT), (two, 1)];
        let calls = at_once.map(|(client, calls)| call_at_once(client, calls));
        let (outcomes, failed) = tokio::join!(try_join_all(calls), join_all(failing.iter().map(pin)));
        for outcome in outcomes.unwrap().into_iter().flatten() {
            assert_eq!(
                outcome.requests, 2,
                "one on the silent connection and one on a new one"
            );
        }
        let took = began.elapsed();
        assert!(
            took > Duration::from_millis(2500) && took < Duration::from_secs(8),
            "{took:?}"
        );
        for result in failed {
            let error = result.unwrap_err();
            assert_eq!(error.reason(), Some(ConnectionReason::Timeout), "{error}");
            assert_eq!(error.station(), Some(Station::Answer), "{error}");
            assert_eq!(error.users().unknown, [USER]);
            assert!(error.to_string().contains("(10.9.2.2:"), "{error}");
        }
    });
}
