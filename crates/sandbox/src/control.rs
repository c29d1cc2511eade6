//! All controls as data, for callers in another process or language.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::fault::Fault;
use crate::model::{App, Chat, Interface, User};
use crate::record::in_milliseconds;
use crate::stage::Stage;

/// A command or query, in JSON for example `{"do": "advance", "ms": 7200000}`.
///
/// Each variant corresponds to the method of the same name of [`Stage`] or [`Sandbox`](crate::Sandbox). Its
/// description says what [`Stage::control`] returns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Control {
    /// A list of chat ids.
    Pinned {
        /// The user.
        open_id: String,
    },
    /// A list of open ids.
    PinnedUsers {
        /// The chat.
        feed_card_id: String,
    },
    /// A list of app ids.
    BotPinned {
        /// The user.
        open_id: String,
    },
    /// A list of open ids.
    BotPinnedUsers {
        /// The app.
        app_id: String,
    },
    /// An overview with `now_ms`, `request_count`, `token_fetches`, `over_limit` (calls that exceeded a frequency
    /// limit of the platform, without those refused by the fault script), `faults_left`, `pinned` (open ids by chat)
    /// and `bot_pinned` (open ids by app).
    State {},
    /// A list of [`RecordedRequest`](crate::RecordedRequest)s.
    Requests {},
    /// A number.
    RequestCount {},
    /// A number.
    TokenFetches {},
    /// A number.
    MaxInWindow {
        /// The interface.
        interface: Interface,
        /// The window's length in milliseconds.
        ms: u64,
    },
    /// null.
    ClearRecord {},
    /// The platform's time, in milliseconds since its start.
    Now {},
    /// null.
    Advance {
        /// Milliseconds to add.
        ms: u64,
    },
    /// null.
    RevokeTokens {},
    /// The ticket, or null for an unknown app.
    AppTicket {
        /// The app.
        app_id: String,
    },
    /// The new ticket, or null for an unknown app.
    RotateAppTicket {
        /// The app.
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
    /// A list of [`Fault`]s: the remaining steps, with the remaining `times` of each.
    Script {},
    /// The [`Switches`](crate::Switches).
    Switches {},
    /// null. Switches that are not named keep their values.
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
        /// The user.
        user: User,
    },
    /// null.
    PutChat {
        /// The chat.
        chat: Chat,
    },
    /// null. An error for a [`Stage`], which has no ports. Over HTTP, keep the connection open: while the ports are
    /// closed, it is the only way to send `ResumeListening`.
    PauseListening {},
    /// null. An error for a [`Stage`], which has no ports.
    ResumeListening {},
    /// null. An error for a [`Stage`], which has no connections. Over HTTP, the connection that carries this control
    /// stays open.
    CloseConnections {},
}

/// The error of an invalid or failed control.
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
    /// Invalid JSON, an unknown name or field (the error lists the known ones), or a value of the wrong type.
    pub fn from_json(text: &str) -> Result<Self, ControlError> {
        serde_json::from_str(text).map_err(|error| ControlError(format!("invalid control: {error}")))
    }
}

impl Stage {
    /// Executes one control and returns its result.
    ///
    /// # Errors
    ///
    /// An unknown switch, a switch of the wrong type, or a control of ports or connections, which a stage does not
    /// have.
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
            Control::PauseListening {} | Control::ResumeListening {} | Control::CloseConnections {} => {
                Err(ControlError(
                    "a Stage has no ports and connections: use a Sandbox for this control".to_owned(),
                ))
            }
        }
    }

    /// Executes a control given as JSON, like [`control`](Stage::control), and returns the result as JSON.
    ///
    /// # Errors
    ///
    /// A message with an error of [`Control::from_json`] or [`control`](Self::control).
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
            .map_err(|error| ControlError(format!("invalid control: {error}")))?;
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
