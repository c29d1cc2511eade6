//! Tests that run the whole core against the sandbox's model of the platform, without sockets and on tokio's
//! paused clock. Minutes of the platform's time pass in milliseconds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use feishu_feed_card_sandbox::{Chat, Delivery, Stage, Switches, User, World};
use http::{Request as HttpRequest, header};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::transport::{Answering, JSON, MAX_RESPONSE_BYTES, Outgoing, Sent, Transport, TransportError};
use crate::{Client, ClientBuilder, Error};

mod closing;
mod faults;
mod many;
mod many_driver;
mod order;
mod quota;
mod secrets;
mod spans;
mod store_app;
mod token;
mod token_time;

/// The network conditions for one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trip {
    /// Time from the client to the platform.
    pub(crate) there: Duration,
    /// Time from the platform to the client.
    pub(crate) back: Duration,
    /// Whether the connection breaks before the response reaches the client.
    pub(crate) breaks: bool,
    /// Time to the request's arrival, counted from the moment at which the client closes the connection. Used
    /// only if the request has not arrived by then.
    pub(crate) late: Duration,
}

type Trips = Box<dyn FnMut(&HttpRequest<Bytes>) -> Trip + Send>;

/// A transport that delivers requests to the sandbox's model. A request that was sent still arrives after its
/// connection is closed, as on a real network, where data may wait in the queue of a proxy.
pub(crate) struct OnStage {
    stage: Stage,
    trips: Mutex<Trips>,
}

impl OnStage {
    pub(crate) fn new(
        stage: &Stage,
        trips: impl FnMut(&HttpRequest<Bytes>) -> Trip + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            stage: stage.clone(),
            trips: Mutex::new(Box::new(trips)),
        })
    }
}

impl Transport for OnStage {
    fn send(&self, request: Outgoing, sent: Sent) -> Answering<'_> {
        let request = on_the_wire(request);
        let trip = (self.trips.lock().unwrap_or_else(PoisonError::into_inner))(&request);
        let stage = self.stage.clone();
        Box::pin(async move {
            assert!(sent.raise());
            let (connection, mut closed) = oneshot::channel::<()>();
            let (sender, receiver) = oneshot::channel();
            tokio::spawn(async move {
                tokio::select! {
                    () = sleep(trip.there) => {}
                    _ = &mut closed => sleep(trip.late).await,
                }
                let delivery = stage.deliver(request).await;
                sleep(trip.back).await;
                let _ = sender.send(delivery);
            });
            let delivery = receiver.await;
            drop(connection);
            match delivery {
                Ok(Delivery::Answer(response)) if response.body().len() > MAX_RESPONSE_BYTES => {
                    Err(TransportError::TooLarge(response.status()))
                }
                Ok(Delivery::Answer(response)) if !trip.breaks => Ok(response),
                _ => Err(TransportError::Broken("the connection was reset".into())),
            }
        })
    }
}

fn on_the_wire(request: Outgoing) -> HttpRequest<Bytes> {
    let mut on_the_wire = HttpRequest::new(request.body);
    *on_the_wire.method_mut() = request.method;
    *on_the_wire.uri_mut() = request.url.as_str().parse().unwrap();
    let headers = on_the_wire.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.extend(request.authorization.map(|value| (header::AUTHORIZATION, value)));
    on_the_wire
}

/// Network conditions with this round trip time, half of it in each direction.
pub(crate) fn round_trip(time: Duration) -> impl FnMut(&HttpRequest<Bytes>) -> Trip + Send {
    move |_| Trip {
        there: time / 2,
        back: time / 2,
        ..Trip::default()
    }
}

pub(crate) const USER: &str = World::EXAMPLE_USER;

/// A stage with `chats` additional chats (`oc_0`, `oc_1`, …), each with the example user as a member.
pub(crate) fn stage(chats: usize, switches: Switches) -> Stage {
    let mut world = World::example();
    world.switches = switches;
    world
        .chats
        .extend((0..chats).map(|chat| Chat::new(format!("oc_{chat}"), [USER])));
    Stage::new(world)
}

/// Adds the chat `oc_full` with this number of new users, and returns their ids.
pub(crate) fn fill_chat(stage: &Stage, users: usize) -> Vec<String> {
    let users: Vec<String> = (0..users).map(|user| format!("ou_{user}")).collect();
    for user in &users {
        stage.put_user(User::new(user.clone()));
    }
    stage.put_chat(Chat::new("oc_full", users.clone()));
    users
}

/// The round trip time of tests that measure waits for a token.
pub(crate) const RTT: Duration = Duration::from_millis(40);

/// Pins the example chat for the example user. Returns an error also if the user was not reached.
pub(crate) async fn pin(client: &Client) -> Result<(), Error> {
    client
        .set_time_sensitive(World::EXAMPLE_CHAT, [USER], true)
        .await?
        .into_result()
        .map(drop)
}

/// A builder for a client of the example app on the stage.
pub(crate) fn client(
    stage: &Stage,
    trips: impl FnMut(&HttpRequest<Bytes>) -> Trip + Send + 'static,
) -> ClientBuilder {
    Client::builder()
        .app("cli_example", "example-secret")
        .transport(OnStage::new(stage, trips))
}

pub(crate) fn random(seed: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed)
}

/// A random duration below `most`.
pub(crate) fn up_to(random: &mut fastrand::Rng, most: Duration) -> Duration {
    most.mul_f64(random.f64())
}

/// Fetches a token of the example app from the stage directly, not through a client.
pub(crate) async fn token_of(stage: &Stage) -> String {
    let request = HttpRequest::post("/open-apis/auth/v3/tenant_access_token/internal")
        .body(r#"{"app_id":"cli_example","app_secret":"example-secret"}"#.into())
        .unwrap();
    let Delivery::Answer(answer) = stage.deliver(request).await else {
        panic!("no answer")
    };
    let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    body["tenant_access_token"].as_str().unwrap().to_owned()
}

/// A client with a fixed `tenant_access_token`.
pub(crate) fn client_with_token(stage: &Stage, token: &str) -> Client {
    let transport = OnStage::new(stage, round_trip(RTT));
    Client::builder()
        .tenant_access_token(token)
        .transport(transport)
        .build()
        .unwrap()
}

/// The `app_secret` of the example store app.
pub(crate) fn store_secret() -> String {
    let apps = World::example().apps;
    apps.into_iter()
        .find(|app| app.app_id == World::EXAMPLE_STORE_APP_ID)
        .unwrap()
        .app_secret
}
