//! A network that goes away and comes back, and connections that go silent on the way.

use std::time::Duration;

use feishu_feed_card::{Client, ClientBuilder, Error, Outcome, RateLimit};
use feishu_feed_card_sandbox::{Fault, Sandbox};
use futures_util::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep, sleep_until};

use super::namespaces::{Network, PLATFORM};
use super::{CHAT, TempFile, USER, app, pin};

/// The kernel sends unacknowledged data again after 0.2, 0.6, 1.4, 3, 6.2 and 12.6 s, unless it gives up before.
const LAST_RETRANSMISSION: Duration = Duration::from_millis(13_200);

const PER_SECOND: usize = 10;

/// A sandbox in the platform's namespace.
fn sandbox(network: &Network) -> Sandbox {
    let sandbox = || Sandbox::builder().bind(PLATFORM).https(true).start().unwrap();
    network.platform.run(sandbox)
}

#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

fn client(
    sandbox: &Sandbox,
    protocol: Protocol,
    options: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Client {
    let builder = match protocol {
        Protocol::Http1 => app().base_url(sandbox.base_url()).allow_http(true),
        Protocol::Http2 => {
            let name = format!(
                "outage-{}.pem",
                sandbox.https_base_url().unwrap().rsplit_once(':').unwrap().1
            );
            let pem = TempFile::new(&name, sandbox.ca_pem().unwrap());
            // Read when the client is built.
            return options(app().base_url(sandbox.https_base_url().unwrap()).ca_certs(&pem.0))
                .build()
                .unwrap();
        }
    };
    options(builder).build().unwrap()
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
    let sandboxes: Vec<_> = (0..4).map(|_| sandbox(network)).collect();
    let [one, two, fast_one, fast_two] = &sandboxes[..] else {
        unreachable!()
    };
    let limit = |builder: ClientBuilder| builder.rate_limit(RateLimit::new(10, 1000));
    run_in_client(network, async {
        let orders = [
            client(one, Protocol::Http1, |builder| builder),
            client(two, Protocol::Http2, |builder| builder),
        ];
        let floods = [
            client(fast_one, Protocol::Http1, limit),
            client(fast_two, Protocol::Http2, limit),
        ];
        for client in &orders {
            assert!(client.set_time_sensitive(CHAT, [USER], false).await.unwrap().ok());
        }
        for (client, sandbox) in floods.iter().zip([fast_one, fast_two]) {
            keep_connections(client, sandbox, PER_SECOND).await;
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
    for (sandbox, protocol) in [(one, "HTTP/1.1"), (two, "HTTP/2")] {
        let states = states(sandbox);
        if states.last() != Some(&false) || !sandbox.pinned_users(CHAT).is_empty() {
            faults.push(format!("{protocol}: {states:?} arrived"));
        }
    }
    for (sandbox, protocol) in [(fast_one, "HTTP/1.1"), (fast_two, "HTTP/2")] {
        let most = most_in_a_second(sandbox);
        if most > PER_SECOND {
            faults.push(format!("{protocol}: {most} arrived in one second"));
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

/// The most calls that were received within any one second. A call that the client gave up, and the sandbox therefore
/// does not process, counts as well: another platform would process it.
fn most_in_a_second(sandbox: &Sandbox) -> usize {
    let records = sandbox.requests();
    let calls = records.iter().filter(|record| record.method == "PATCH");
    let times: Vec<_> = calls.map(|record| record.received).collect();
    let within = |from: &Duration| {
        let until = *from + Duration::from_secs(1);
        times.iter().filter(|&time| time >= from && *time < until).count()
    };
    times.iter().map(within).max().unwrap_or_default()
}

/// The states that were asked for, in the order of arrival.
fn states(sandbox: &Sandbox) -> Vec<bool> {
    let records = sandbox.requests();
    records
        .iter()
        .filter_map(|record| record.body["time_sensitive"].as_bool())
        .collect()
}

/// Makes this many calls at once.
async fn call_at_once(client: &Client, calls: usize) -> Result<Vec<Outcome>, Error> {
    try_join_all((0..calls).map(|_| pin(client))).await
}

/// Makes calls at once that take so long that each needs a connection of its own, on HTTP/1.1.
async fn keep_connections(client: &Client, sandbox: &Sandbox, connections: usize) {
    sandbox.fault(Fault {
        delay_after_ms: 300,
        times: connections as u64,
        ..Fault::on_call()
    });
    assert_eq!(
        call_at_once(client, connections).await.unwrap().len(),
        connections
    );
}

#[test]
fn connections_that_went_silent_are_left_within_a_calls_deadline() {
    const KEPT: usize = 20;
    let Some(network) = Network::new() else { return };
    let sandboxes: Vec<_> = (0..4).map(|_| sandbox(&network)).collect();
    let [one, two, many, all] = &sandboxes[..] else {
        unreachable!()
    };
    run_in_client(&network, async {
        let one = client(one, Protocol::Http1, |builder| builder);
        let two = client(two, Protocol::Http2, |builder| builder);
        let to_many = client(many, Protocol::Http1, |builder| builder);
        let to_all = client(all, Protocol::Http1, |builder| builder);
        for client in [&one, &two] {
            assert!(pin(client).await.unwrap().ok());
        }
        keep_connections(&to_many, many, KEPT).await;
        keep_connections(&to_all, all, KEPT).await;

        network.silence_connections();
        let began = Instant::now();
        let (one, two, one_of_many, all) =
            tokio::join!(pin(&one), pin(&two), pin(&to_many), call_at_once(&to_all, KEPT));
        let mut outcomes = vec![one.unwrap(), two.unwrap(), one_of_many.unwrap()];
        outcomes.extend(all.unwrap());
        for outcome in outcomes {
            assert_eq!(
                outcome.requests, 2,
                "one on the silent connection and one on a new one"
            );
        }
        let took = began.elapsed();
        assert!(
            took > Duration::from_secs(4) && took < Duration::from_secs(8),
            "{took:?}"
        );
    });
    for sandbox in [many, all] {
        let connections: std::collections::HashSet<_> = sandbox
            .requests()
            .iter()
            .map(|record| record.connection)
            .collect();
        assert!(connections.len() > KEPT, "{connections:?}");
    }
}
