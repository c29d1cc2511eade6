//! The whole core against the stand-in platform's model, without a socket, on tokio's paused time: what
//! takes minutes for the platform takes milliseconds here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use feishu_feed_card_sandbox::{Chat, Delivery, Stage, Switches, User, World};
use http::{Request as HttpRequest, header};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::transport::{Answering, JSON, MOST_BYTES, Outgoing, Sent, Transport, TransportError};
use crate::{Client, ClientBuilder};

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

/// One request's way: how long it takes to the platform and back, and whether it is broken on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trip {
    pub(crate) there: Duration,
    pub(crate) back: Duration,
    /// The connection breaks instead of an answer.
    pub(crate) breaks: bool,
    /// A request whose connection is closed before it arrived arrives this much later.
    pub(crate) late: Duration,
}

type Trips = Box<dyn FnMut(&HttpRequest<Bytes>) -> Trip + Send>;

/// The model as a transport. A request that was sent is not recalled by closing its connection: it still
/// arrives, as on a real network with a proxy's queue in between.
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
            let (gone, mut is_gone) = oneshot::channel::<()>();
            let (tell, told) = oneshot::channel();
            tokio::spawn(async move {
                tokio::select! {
                    () = sleep(trip.there) => {}
                    _ = &mut is_gone => sleep(trip.late).await,
                }
                let delivery = stage.deliver(request).await;
                sleep(trip.back).await;
                let _ = tell.send(delivery);
            });
            let delivery = told.await;
            drop(gone);
            match delivery {
                Ok(Delivery::Answer(response)) if response.body().len() > MOST_BYTES => {
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

/// A round trip of this long, evenly split.
pub(crate) fn round_trip(time: Duration) -> impl FnMut(&HttpRequest<Bytes>) -> Trip + Send {
    move |_| Trip {
        there: time / 2,
        back: time / 2,
        ..Trip::default()
    }
}

pub(crate) const USER: &str = World::EXAMPLE_USER;

/// A stage with `chats` chats, `oc_0` and so on, that the example user is in.
pub(crate) fn stage(chats: usize, switches: Switches) -> Stage {
    let mut world = World::example();
    world.switches = switches;
    world
        .chats
        .extend((0..chats).map(|chat| Chat::new(format!("oc_{chat}"), [USER])));
    Stage::new(world)
}

/// Many users of the chat `oc_full`.
pub(crate) fn fill_chat(stage: &Stage, users: usize) -> Vec<String> {
    let users: Vec<String> = (0..users).map(|user| format!("ou_{user}")).collect();
    for user in &users {
        stage.put_user(User::new(user.clone()));
    }
    stage.put_chat(Chat::new("oc_full", users.clone()));
    users
}

pub(crate) fn client(
    stage: &Stage,
    trips: impl FnMut(&HttpRequest<Bytes>) -> Trip + Send + 'static,
) -> ClientBuilder {
    Client::builder()
        .app("cli_example", "example-secret")
        .transport(OnStage::new(stage, trips))
}

/// A stream of numbers from a seed.
pub(crate) fn random(seed: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed)
}

pub(crate) fn up_to(random: &mut fastrand::Rng, most: Duration) -> Duration {
    most.mul_f64(random.f64())
}

/// A token of the example app, fetched as another program would.
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

pub(crate) fn given_token(stage: &Stage, token: &str) -> Client {
    let transport = OnStage::new(stage, round_trip(Duration::from_millis(40)));
    Client::builder()
        .tenant_access_token(token)
        .transport(transport)
        .build()
        .unwrap()
}

pub(crate) fn store_secret() -> String {
    let apps = World::example().apps;
    apps.into_iter()
        .find(|app| app.app_id == World::EXAMPLE_STORE_APP_ID)
        .unwrap()
        .app_secret
}
