//! The platform with its fault script, its record and a clock, shared by all who deliver requests to it.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::fault::{Fault, Script};
use crate::model::{App, Chat, Interface, Model, Switches, User, World};
use crate::record::{Journal, RecordedRequest};

/// Ten thousand years: far enough for any test, and no sum of it and a token's life overflows.
const FAR: Duration = Duration::from_secs(10_000 * 365 * 86_400);

/// The stand-in platform without a socket, for tests on tokio's paused time; the same one that
/// [`Sandbox`](crate::Sandbox) puts behind HTTP. Clones share everything.
///
/// ```
/// use std::time::Duration;
///
/// use feishu_feed_card_sandbox::{Delivery, Fault, Stage, World};
///
/// #[tokio::main(flavor = "current_thread", start_paused = true)]
/// async fn main() -> Result<(), http::Error> {
///     let stage = Stage::new(World::example());
///     stage.fault(Fault { delay_after_ms: 60_000, ..Fault::on_token() });
///
///     let request = http::Request::post("/open-apis/auth/v3/tenant_access_token/internal")
///         .body(r#"{"app_id":"cli_example","app_secret":"example-secret"}"#.into())?;
///     let Delivery::Answer(answer) = stage.deliver(request).await else { panic!("no answer") };
///     assert_eq!(answer.status(), 200);
///     assert_eq!(stage.now(), Duration::from_secs(60)); // at once, on paused time
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Stage {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) model: Model,
    pub(crate) script: Script,
    pub(crate) journal: Journal,
    started: Instant,
    moved: Duration,
}

impl State {
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed() + self.moved
    }
}

impl Stage {
    /// The platform as this world describes it, at time 0 of its own clock. On paused time, make it inside
    /// the runtime whose time is paused.
    pub fn new(mut world: World) -> Self {
        world.seed.get_or_insert_with(|| RandomState::new().hash_one(0));
        let state = State {
            model: Model::new(world),
            script: Script::default(),
            journal: Journal::default(),
            started: Instant::now(),
            moved: Duration::ZERO,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Nothing is left half done when a thread panics with the lock held: every change is one statement of
    /// plain data.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the start, with what [`advance`](Stage::advance) added.
    pub fn now(&self) -> Duration {
        self.lock().now()
    }

    /// Moves the platform's clock forward: tokens grow old, frequency windows empty. Delays of the fault
    /// script are not shortened.
    pub fn advance(&self, by: Duration) {
        let state = &mut *self.lock();
        state.moved = state.moved.saturating_add(by).min(FAR);
    }

    /// The chats this person has pinned now, in the order of their ids; not the bots' own chats.
    pub fn pinned(&self, open_id: &str) -> Vec<String> {
        self.lock().model.pinned(open_id)
    }

    /// The open ids of those who have this chat pinned now, sorted.
    pub fn pinned_users(&self, feed_card_id: &str) -> Vec<String> {
        self.lock().model.pinned_users(feed_card_id)
    }

    /// The ids of the apps whose bot this person has pinned now, sorted.
    pub fn bot_pinned(&self, open_id: &str) -> Vec<String> {
        self.lock().model.bot_pinned(open_id)
    }

    /// The open ids of those who have this app's bot pinned now, sorted.
    pub fn bot_pinned_users(&self, app_id: &str) -> Vec<String> {
        self.lock().model.bot_pinned_users(app_id)
    }

    /// The requests received, oldest first: the newest [`Switches::keep_requests`] of them.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.lock().journal.requests()
    }

    /// How many requests were received, also those no longer kept.
    pub fn request_count(&self) -> u64 {
        self.lock().journal.request_count()
    }

    /// How many requests for a tenant token were received.
    pub fn token_fetches(&self) -> u64 {
        self.lock().journal.token_fetches()
    }

    /// The largest number of arrivals of one call in any window of this length, wherever it is laid; refused
    /// ones count, those that never reached the platform do not. A window is half open: arrivals exactly its
    /// length apart do not share one.
    pub fn max_in_window(&self, interface: Interface, window: Duration) -> usize {
        self.lock().journal.max_in_window(interface, window)
    }

    /// Forgets the requests, their count, the token fetches and the arrivals; the platform's state stays.
    pub fn clear_record(&self) {
        self.lock().journal.clear();
    }

    /// Adds a step to the end of the fault script.
    pub fn fault(&self, fault: Fault) {
        self.faults([fault]);
    }

    /// Adds steps to the end of the fault script.
    pub fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().script.extend(faults);
    }

    /// Drops what is left of the fault script.
    pub fn clear_faults(&self) {
        self.lock().script.clear();
    }

    /// How many steps of the fault script are left.
    pub fn faults_left(&self) -> usize {
        self.lock().script.len()
    }

    /// The steps of the fault script that are left, with the [`times`](Fault::times) that are left of them.
    pub fn script(&self) -> Vec<Fault> {
        self.lock().script.steps()
    }

    /// Makes every token that was handed out worthless.
    pub fn revoke_tokens(&self) {
        self.lock().model.revoke_tokens();
    }

    /// The ticket that was pushed last to this app.
    pub fn app_ticket(&self, app_id: &str) -> Option<String> {
        self.lock().model.app_ticket(app_id)
    }

    /// Pushes a new ticket to this app, as the platform does every hour, and makes the one before worthless.
    pub fn rotate_app_ticket(&self, app_id: &str) -> Option<String> {
        self.lock().model.rotate_app_ticket(app_id)
    }

    /// How the platform behaves where its documentation leaves it open.
    pub fn switches(&self) -> Switches {
        self.lock().model.switches().clone()
    }

    /// Replaces all switches.
    pub fn set_switches(&self, switches: Switches) {
        self.lock().model.set_switches(switches);
    }

    /// Adds an app, or changes the one with this id; its tokens, windows and pins stay.
    pub fn put_app(&self, app: App) {
        self.lock().model.put_app(app);
    }

    /// Adds a person, or changes the other ids of the one with this open id.
    pub fn put_user(&self, user: User) {
        self.lock().model.put_user(user);
    }

    /// Adds a chat, or changes the one with this id; who is no longer a member loses the pin.
    pub fn put_chat(&self, chat: Chat) {
        self.lock().model.put_chat(chat);
    }

    /// Whether a connection that comes now shall be closed at once.
    pub(crate) fn refuses_connection(&self) -> bool {
        self.lock().script.refuses_connection()
    }
}
