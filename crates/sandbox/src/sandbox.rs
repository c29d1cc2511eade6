//! The stand-in platform as a server in this process.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;

use serde_json::Value;

use crate::control::{Control, ControlError};
use crate::fault::Fault;
use crate::model::{App, Chat, Switches, User, World};
use crate::server::Server;
use crate::stage::Stage;
use crate::tls;

/// The stand-in platform behind HTTP, on loopback by default. All controls of its [`Stage`] are at hand; dropping
/// it stops the server.
///
/// ```
/// use feishu_feed_card_sandbox::{Sandbox, World};
///
/// fn main() -> std::io::Result<()> {
///     let sandbox = Sandbox::builder().start()?;
///     println!("point a client at {}", sandbox.base_url());
///     assert!(sandbox.pinned(World::EXAMPLE_USER).is_empty());
///     Ok(())
/// }
/// ```
#[derive(Debug)]
#[must_use = "dropping it stops the server"]
pub struct Sandbox {
    stage: Stage,
    server: Server,
    ca_pem: Option<String>,
}

/// A [`Sandbox`] to be: which world it holds and where it listens.
#[derive(Clone, Debug)]
#[must_use = "a sandbox starts with start()"]
pub struct SandboxBuilder {
    world: World,
    faults: Vec<Fault>,
    address: IpAddr,
    port: u16,
    https: bool,
    https_port: u16,
    max_concurrent_streams: Option<u32>,
}

impl Sandbox {
    /// Starts from [`World::example`], on a free port, without https.
    pub fn builder() -> SandboxBuilder {
        SandboxBuilder {
            world: World::example(),
            faults: Vec::new(),
            address: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            https: false,
            https_port: 0,
            max_concurrent_streams: None,
        }
    }

    /// `http://127.0.0.1:…`, with the address given to [`bind`](SandboxBuilder::bind).
    pub fn base_url(&self) -> String {
        format!("http://{}", self.server.http)
    }

    /// `https://127.0.0.1:…`, where [`https`](SandboxBuilder::https) was asked for.
    pub fn https_base_url(&self) -> Option<String> {
        self.server.https.map(|address| format!("https://{address}"))
    }

    /// Where http is spoken.
    pub fn address(&self) -> SocketAddr {
        self.server.http
    }

    /// The certificate authority, made at the start, that a client must trust for https.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// The platform inside, to keep or to deliver requests to without a socket.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Closes the ports: who connects now is refused. Open connections stay.
    ///
    /// # Errors
    ///
    /// The server's thread has ended.
    pub fn pause_listening(&self) -> io::Result<()> {
        self.server.pause_listening()
    }

    /// Listens on the same ports again.
    ///
    /// # Errors
    ///
    /// Another program has taken a port meanwhile, or the server's thread has ended.
    pub fn resume_listening(&self) -> io::Result<()> {
        self.server.resume_listening()
    }

    /// Closes every open connection, as a server does with idle ones; a request still on its way is lost.
    ///
    /// # Errors
    ///
    /// The server's thread has ended.
    pub fn close_connections(&self) -> io::Result<()> {
        self.server.close_connections()
    }

    /// Carries out one control.
    ///
    /// # Errors
    ///
    /// A switch that does not exist or has another type, or one of the errors of
    /// [`resume_listening`](Self::resume_listening).
    pub fn control(&self, control: Control) -> Result<Value, ControlError> {
        let done = match control {
            Control::PauseListening {} => self.pause_listening(),
            Control::ResumeListening {} => self.resume_listening(),
            Control::CloseConnections {} => self.close_connections(),
            other => return self.stage.control(other),
        };
        done.map(|()| Value::Null)
            .map_err(|error| ControlError(error.to_string()))
    }

    /// [`control`](Sandbox::control) from JSON to JSON; the error is a sentence.
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
}

/// A sandbox is a stage with a door: every control of the one is a control of the other.
impl Deref for Sandbox {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl SandboxBuilder {
    /// Holds this world instead of the example.
    pub fn world(mut self, world: World) -> Self {
        self.world = world;
        self
    }

    /// Adds an app to the world.
    pub fn app(mut self, app: App) -> Self {
        self.world.apps.push(app);
        self
    }

    /// Adds a person to the world.
    pub fn user(mut self, user: User) -> Self {
        self.world.users.push(user);
        self
    }

    /// Adds a chat to the world.
    pub fn chat(mut self, chat: Chat) -> Self {
        self.world.chats.push(chat);
        self
    }

    /// Replaces all switches of the world.
    pub fn switches(mut self, switches: Switches) -> Self {
        self.world.switches = switches;
        self
    }

    /// Adds a step to the fault script.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Listens on this address of the machine; 127.0.0.1 by default. Whoever can reach the address can use and control
    /// the sandbox. Its certificate is for this address and for loopback.
    pub fn bind(mut self, address: IpAddr) -> Self {
        self.address = address;
        self
    }

    /// Speaks http on this port; 0, the default, takes a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Speaks https too, HTTP/2 and HTTP/1.1, with a certificate made at the start.
    pub fn https(mut self, https: bool) -> Self {
        self.https = https;
        self
    }

    /// Speaks https on this port; 0, the default, takes a free one.
    pub fn https_port(mut self, port: u16) -> Self {
        self.https_port = port;
        self
    }

    /// How many requests an HTTP/2 connection may carry at a time. Default: 200.
    pub fn max_concurrent_streams(mut self, most: u32) -> Self {
        self.max_concurrent_streams = Some(most);
        self
    }

    /// Starts the server. It listens when this returns.
    ///
    /// # Errors
    ///
    /// A port that is taken or not permitted, an address that is not this machine's, or no thread for the server.
    pub fn start(self) -> io::Result<Sandbox> {
        let stage = Stage::new(self.world);
        stage.faults(self.faults);
        let (tls, ca_pem) = if self.https {
            Some(tls::acceptor(self.address)?)
        } else {
            None
        }
        .unzip();
        let http = SocketAddr::new(self.address, self.port);
        let https = tls.map(|tls| (SocketAddr::new(self.address, self.https_port), tls));
        let server = Server::start(stage.clone(), http, https, self.max_concurrent_streams)?;
        Ok(Sandbox {
            stage,
            server,
            ca_pem,
        })
    }
}
