//! The sandbox: the simulated platform as a server in this process.

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

/// The simulated platform as an HTTP server, on loopback by default.
///
/// It dereferences to its [`Stage`], so it has all methods of one. Dropping it stops the server.
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

/// Settings of a [`Sandbox`]: its world and its addresses.
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
    /// Returns a builder with [`World::example`], a free HTTP port, and no HTTPS.
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

    /// The HTTP base URL, `http://127.0.0.1:…` unless [`bind`](SandboxBuilder::bind) set another address.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.server.http)
    }

    /// The HTTPS base URL, `https://127.0.0.1:…`, if [`https`](SandboxBuilder::https) is enabled.
    pub fn https_base_url(&self) -> Option<String> {
        self.server.https.map(|address| format!("https://{address}"))
    }

    /// The address of the HTTP port.
    pub fn address(&self) -> SocketAddr {
        self.server.http
    }

    /// The certificate authority, in PEM, that a client must trust for HTTPS. Each sandbox creates its own.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// The platform inside. A clone of it outlives the server, and takes requests without a socket.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Closes the ports, so that new connections are refused. Open connections stay open.
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
    /// Another program has taken one of the ports, or the server's thread has ended.
    pub fn resume_listening(&self) -> io::Result<()> {
        self.server.resume_listening()
    }

    /// Closes all open connections, as a server does with idle ones. Requests in progress are lost.
    ///
    /// # Errors
    ///
    /// The server's thread has ended.
    pub fn close_connections(&self) -> io::Result<()> {
        self.server.close_connections()
    }

    /// Executes one control and returns its result.
    ///
    /// # Errors
    ///
    /// An unknown switch, a switch of the wrong type, or an error of
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

    /// Executes a control given as JSON, like [`control`](Sandbox::control), and returns the result as JSON.
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
}

/// Gives access to the methods of the [`Stage`].
impl Deref for Sandbox {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl SandboxBuilder {
    /// Sets the world. Default: [`World::example`].
    pub fn world(mut self, world: World) -> Self {
        self.world = world;
        self
    }

    /// Adds an app to the world.
    pub fn app(mut self, app: App) -> Self {
        self.world.apps.push(app);
        self
    }

    /// Adds a user to the world.
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

    /// Listens on this address. Default: 127.0.0.1. Everyone who can reach the address can use and control the
    /// sandbox. The HTTPS certificate is valid for this address and for loopback.
    pub fn bind(mut self, address: IpAddr) -> Self {
        self.address = address;
        self
    }

    /// Sets the HTTP port. 0, the default, takes a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Also serves HTTPS, with HTTP/2 and HTTP/1.1 and a new certificate.
    pub fn https(mut self, https: bool) -> Self {
        self.https = https;
        self
    }

    /// Sets the HTTPS port. 0, the default, takes a free one.
    pub fn https_port(mut self, port: u16) -> Self {
        self.https_port = port;
        self
    }

    /// Sets how many requests an HTTP/2 connection may have in progress. Default: 200.
    pub fn max_concurrent_streams(mut self, most: u32) -> Self {
        self.max_concurrent_streams = Some(most);
        self
    }

    /// Starts the server. It accepts connections when this method returns.
    ///
    /// # Errors
    ///
    /// A port is taken or not permitted, the address does not belong to this machine, or no thread can be started.
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
