//! Every control as data, for those who are not in the same process or not in Rust.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::fault::Fault;
use crate::model::{App, Chat, Interface, User};
use crate::record::in_milliseconds;
use crate::stage::Stage;

/// One control, `{"do": "advance", "ms": 7200000}`, and what [`Stage::control`] returns for it. Each does
/// what the method of the same name does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Control {
    /// A list of chat ids.
    Pinned {
        /// Whose.
        open_id: String,
    },
    /// A list of open ids.
    PinnedUsers {
        /// Of which chat.
        feed_card_id: String,
    },
    /// A list of app ids.
    BotPinned {
        /// Whose.
        open_id: String,
    },
    /// A list of open ids.
    BotPinnedUsers {
        /// Of which app's bot.
        app_id: String,
    },
    /// Everything at one glance: `now_ms`, `request_count`, `token_fetches`, `over_limit` (calls that
    /// the platform itself, not the fault script, refused for their frequency), `faults_left`, `pinned` (open
    /// ids by chat) and `bot_pinned` (open ids by app).
    State {},
    /// A list of [`RecordedRequest`](crate::RecordedRequest)s.
    Requests {},
    /// A number.
    RequestCount {},
    /// A number.
    TokenFetches {},
    /// A number.
    MaxInWindow {
        /// Which call.
        interface: Interface,
        /// The window's length.
        ms: u64,
    },
    /// null.
    ClearRecord {},
    /// Milliseconds since the start.
    Now {},
    /// null.
    Advance {
        /// By how much.
        ms: u64,
    },
    /// null.
    RevokeTokens {},
    /// The ticket, or null for an unknown app.
    AppTicket {
        /// Whose.
        app_id: String,
    },
    /// The new ticket, or null for an unknown app.
    RotateAppTicket {
        /// Whose.
        app_id: String,
    },
    /// null.
    Faults {
        /// The steps to add.
        faults: Vec<Fault>,
    },
    /// null.
    ClearFaults {},
    /// A number.
    FaultsLeft {},
    /// A list of [`Fault`]s: the steps that are left, with the `times` that are left of them.
    Script {},
    /// The [`Switches`](crate::Switches).
    Switches {},
    /// null. Those that are not named stay as they are.
    SetSwitches {
        /// The [`Switches`](crate::Switches) to change, by name.
        switches: Map<String, Value>,
    },
    /// null.
    PutApp {
        /// The app.
        app: App,
    },
    /// null.
    PutUser {
        /// The person.
        user: User,
    },
    /// null.
    PutChat {
        /// The chat.
        chat: Chat,
    },
    /// null. A bare [`Stage`] refuses it, for it has no door. Over HTTP, keep the connection open: only there the sandbox still hears that it shall listen again.
    PauseListening {},
    /// null. A bare [`Stage`] refuses it, for it has no door.
    ResumeListening {},
    /// null. A bare [`Stage`] refuses it, for it has no door. Over HTTP, the connection that asks for it stays.
    CloseConnections {},
}

/// Why a control was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlError(pub(crate) String);

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ControlError {}

impl Control {
    /// Reads a control from JSON.
    ///
    /// # Errors
    ///
    /// Broken JSON, an unknown name or field (the error lists the known ones), or a value of another type.
    pub fn from_json(text: &str) -> Result<Self, ControlError> {
        serde_json::from_str(text).map_err(|error| ControlError(format!("not a control: {error}")))
    }
}

impl Stage {
    /// Carries out one control.
    ///
    /// # Errors
    ///
    /// A switch that does not exist or has another type, or a control of connections, which a stage has none of.
    pub fn control(&self, control: Control) -> Result<Value, ControlError> {
        match control {
            Control::Pinned { open_id } => Ok(json!(self.pinned(&open_id))),
            Control::PinnedUsers { feed_card_id } => Ok(json!(self.pinned_users(&feed_card_id))),
            Control::BotPinned { open_id } => Ok(json!(self.bot_pinned(&open_id))),
            Control::BotPinnedUsers { app_id } => Ok(json!(self.bot_pinned_users(&app_id))),
            Control::State {} => Ok(self.state()),
            Control::Requests {} => Ok(json!(self.requests())),
            Control::RequestCount {} => Ok(json!(self.request_count())),
            Control::TokenFetches {} => Ok(json!(self.token_fetches())),
            Control::MaxInWindow { interface, ms } => {
                Ok(json!(self.max_in_window(interface, Duration::from_millis(ms))))
            }
            Control::ClearRecord {} => Ok(json!(self.clear_record())),
            Control::Now {} => Ok(json!(in_milliseconds(self.now()))),
            Control::Advance { ms } => Ok(json!(self.advance(Duration::from_millis(ms)))),
            Control::RevokeTokens {} => Ok(json!(self.revoke_tokens())),
            Control::AppTicket { app_id } => Ok(json!(self.app_ticket(&app_id))),
            Control::RotateAppTicket { app_id } => Ok(json!(self.rotate_app_ticket(&app_id))),
            Control::Faults { faults } => Ok(json!(self.faults(faults))),
            Control::ClearFaults {} => Ok(json!(self.clear_faults())),
            Control::Script {} => Ok(json!(self.script())),
            Control::FaultsLeft {} => Ok(json!(self.faults_left())),
            Control::Switches {} => Ok(json!(self.switches())),
            Control::SetSwitches { switches } => Ok(json!(self.change_switches(switches)?)),
            Control::PutApp { app } => Ok(json!(self.put_app(app))),
            Control::PutUser { user } => Ok(json!(self.put_user(user))),
            Control::PutChat { chat } => Ok(json!(self.put_chat(chat))),
            Control::PauseListening {} | Control::ResumeListening {} | Control::CloseConnections {} => Err(
                ControlError("this control needs the Sandbox itself: a Stage has no door".to_owned()),
            ),
        }
    }

    /// [`control`](Stage::control) from JSON to JSON; the error is a sentence.
    ///
    /// # Errors
    ///
    /// As [`Control::from_json`] and [`control`](Self::control).
    pub fn control_json(&self, text: &str) -> Result<String, String> {
        let value = Control::from_json(text).and_then(|control| self.control(control));
        value
            .map(|value| value.to_string())
            .map_err(|error| error.to_string())
    }

    fn change_switches(&self, changes: Map<String, Value>) -> Result<(), ControlError> {
        let model = &mut self.lock().model;
        let mut switches = json!(model.switches());
        if let Value::Object(switches) = &mut switches {
            switches.extend(changes);
        }
        let switches = serde_json::from_value(switches)
            .map_err(|error| ControlError(format!("not a control: {error}")))?;
        model.set_switches(switches);
        Ok(())
    }

    fn state(&self) -> Value {
        let state = &mut *self.lock();
        let model = &state.model;
        let chats = model
            .chat_ids()
            .map(|id| (id.clone(), json!(model.pinned_users(id))));
        let apps = model
            .app_ids()
            .map(|id| (id.clone(), json!(model.bot_pinned_users(id))));
        json!({
            "now_ms": in_milliseconds(state.now()),
            "request_count": state.journal.request_count(),
            "token_fetches": state.journal.token_fetches(),
            "over_limit": state.journal.over_limit(),
            "faults_left": state.script.len(),
            "pinned": Value::Object(chats.collect()),
            "bot_pinned": Value::Object(apps.collect()),
        })
    }
}
