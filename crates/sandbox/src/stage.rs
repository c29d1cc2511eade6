//! The stage: the model of the platform together with a clock, the fault script, and the record of requests.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::fault::{Fault, Script};
use crate::model::{App, Chat, Interface, Model, Switches, User, World};
use crate::record::{Journal, RecordedRequest};

/// The most that [`Stage::advance`] adds, in total: ten thousand years. Adding the life of a token to it does not
/// overflow.
const MAX_ADVANCE: Duration = Duration::from_secs(10_000 * 365 * 86_400);

/// The simulated platform without sockets, for tests on tokio's paused clock. Clones share their state.
///
/// [`Sandbox`](crate::Sandbox) serves the same platform over HTTP.
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
///     assert_eq!(stage.now(), Duration::from_secs(60)); // passes immediately on the paused clock
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
    /// What [`Stage::advance`] has added to the clock.
    advanced: Duration,
}

impl State {
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed() + self.advanced
    }
}

impl Stage {
    /// Creates a platform with this world, at time 0 of its clock. To use a paused clock, create it inside the
    /// runtime that has it.
    pub fn new(mut world: World) -> Self {
        world.seed.get_or_insert_with(|| RandomState::new().hash_one(0));
        let state = State {
            model: Model::new(world),
            script: Script::default(),
            journal: Journal::default(),
            started: Instant::now(),
            advanced: Duration::ZERO,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Ignores poisoning: each change of the state is one statement, so a panic leaves no change half done.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The platform's time: the time since its start, plus what [`advance`](Stage::advance) added.
    pub fn now(&self) -> Duration {
        self.lock().now()
    }

    /// Moves the platform's clock forward, so that tokens expire and frequency windows become free. Does not
    /// shorten the delays of the fault script.
    pub fn advance(&self, by: Duration) {
        let state = &mut *self.lock();
        state.advanced = state.advanced.saturating_add(by).min(MAX_ADVANCE);
    }

    /// The ids of the chats that are pinned for this user, sorted. Bots' own chats are not included.
    pub fn pinned(&self, open_id: &str) -> Vec<String> {
        self.lock().model.pinned(open_id)
    }

    /// The open ids of the users for whom this chat is pinned, sorted.
    pub fn pinned_users(&self, feed_card_id: &str) -> Vec<String> {
        self.lock().model.pinned_users(feed_card_id)
    }

    /// The ids of the apps whose bot's chat is pinned for this user, sorted.
    pub fn bot_pinned(&self, open_id: &str) -> Vec<String> {
        self.lock().model.bot_pinned(open_id)
    }

    /// The open ids of the users for whom the chat of this app's bot is pinned, sorted.
    pub fn bot_pinned_users(&self, app_id: &str) -> Vec<String> {
        self.lock().model.bot_pinned_users(app_id)
    }

    /// The last [`Switches::keep_requests`] requests that were received, oldest first.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.lock().journal.requests()
    }

    /// The number of requests received, including those that the record no longer keeps.
    pub fn request_count(&self) -> u64 {
        self.lock().journal.request_count()
    }

    /// The number of requests for a tenant token.
    pub fn token_fetches(&self) -> u64 {
        self.lock().journal.token_fetches()
    }

    /// The most calls of one interface that arrived in any window of this length. Refused calls count, calls that
    /// did not reach the platform do not. Two arrivals exactly `window` apart are not in one window.
    pub fn max_in_window(&self, interface: Interface, window: Duration) -> usize {
        self.lock().journal.max_in_window(interface, window)
    }

    /// Deletes the recorded requests and arrivals and sets all counters to 0. The platform's state stays.
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

    /// Removes all remaining steps of the fault script.
    pub fn clear_faults(&self) {
        self.lock().script.clear();
    }

    /// The number of remaining steps of the fault script.
    pub fn faults_left(&self) -> usize {
        self.lock().script.len()
    }

    /// The remaining steps of the fault script, with the remaining [`times`](Fault::times) of each.
    pub fn script(&self) -> Vec<Fault> {
        self.lock().script.steps()
    }

    /// Revokes all tokens. Calls with them fail with 99991663.
    pub fn revoke_tokens(&self) {
        self.lock().model.revoke_tokens();
    }

    /// The current ticket of this app, or `None` for an unknown app.
    pub fn app_ticket(&self, app_id: &str) -> Option<String> {
        self.lock().model.app_ticket(app_id)
    }

    /// Replaces this app's ticket, as the platform does every hour, and returns the new one. The old ticket becomes
    /// invalid. Returns `None` for an unknown app.
    pub fn rotate_app_ticket(&self, app_id: &str) -> Option<String> {
        self.lock().model.rotate_app_ticket(app_id)
    }

    /// The current switches: the behaviour where the platform's documentation is silent or contradicts itself.
    pub fn switches(&self) -> Switches {
        self.lock().model.switches().clone()
    }

    /// Replaces all switches.
    pub fn set_switches(&self, switches: Switches) {
        self.lock().model.set_switches(switches);
    }

    /// Adds an app, or changes the app with this id, which keeps its tokens, frequency windows and pins.
    pub fn put_app(&self, app: App) {
        self.lock().model.put_app(app);
    }

    /// Adds a user, or changes the other ids of the user with this open id.
    pub fn put_user(&self, user: User) {
        self.lock().model.put_user(user);
    }

    /// Adds a chat, or changes the chat with this id. Users who are no longer members lose the pin.
    pub fn put_chat(&self, chat: Chat) {
        self.lock().model.put_chat(chat);
    }

    /// Whether the fault script closes the next connection at once. Takes the step that does so.
    pub(crate) fn refuses_connection(&self) -> bool {
        self.lock().script.refuses_connection()
    }
}
