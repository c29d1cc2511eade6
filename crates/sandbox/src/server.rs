//! The HTTP and HTTPS server around a [`Stage`]. It runs on its own thread.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc as async_mpsc, oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::control::{Control, ControlError};
use crate::deliver::{Delivery, NoContentLength};
use crate::stage::Stage;
use crate::wire::{ResetHandle, ResponseBody, Socket};

/// Larger bodies are refused with 413, as by a proxy in front of the platform. 50 ids need about a thousandth of this.
const MAX_BODY: usize = 4 << 20;

/// The most that is read of a body that is too large. After that the connection is closed.
const MAX_DRAINED: usize = 64 << 20;

/// How long to wait for the server's thread to stop, or to execute a command.
const THREAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Receives the result of a command. The command comes from another thread, or from a request to this server.
type Ack = Box<dyn FnOnce(io::Result<()>) + Send>;

enum Command {
    Pause(Ack),
    Resume(Ack),
    /// Closes all connections except the one with this number, which the command came from.
    CloseConnections(Option<u64>, Ack),
}

/// A running server. Dropping it ends its thread, with all connections and delayed deliveries.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) http: SocketAddr,
    pub(crate) https: Option<SocketAddr>,
    commands: Option<async_mpsc::UnboundedSender<Command>>,
    /// Disconnected when the thread has dropped its runtime. The mutex makes the server `Sync`.
    ended: Mutex<mpsc::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
    /// The process that the thread is in.
    process: u32,
}

impl Server {
    pub(crate) fn start(
        stage: Stage,
        http: SocketAddr,
        https: Option<(SocketAddr, TlsAcceptor)>,
        max_concurrent_streams: Option<u32>,
    ) -> io::Result<Self> {
        let (http_listener, http) = listen(http)?;
        let mut ports = vec![Port {
            address: http,
            tls: None,
        }];
        let mut listeners = vec![http_listener];
        let mut https_address = None;
        if let Some((address, tls)) = https {
            let (listener, address) = listen(address)?;
            https_address = Some(address);
            ports.push(Port {
                address,
                tls: Some(tls),
            });
            listeners.push(listener);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (commands, received) = async_mpsc::unbounded_channel();
        let (ending, ended) = mpsc::channel();
        let shared = Arc::new(Shared {
            stage,
            connections: AtomicU64::new(0),
            hang_up: watch::Sender::new(None),
            commands: commands.downgrade(),
            http: protocol(max_concurrent_streams),
        });
        let thread = std::thread::Builder::new()
            .name("feishu-sandbox".to_owned())
            .spawn(move || {
                runtime.block_on(run(&shared, &ports, listeners, received));
                drop(runtime);
                drop(ending);
            })?;
        Ok(Self {
            http,
            https: https_address,
            commands: Some(commands),
            ended: Mutex::new(ended),
            thread: Some(thread),
            process: std::process::id(),
        })
    }

    pub(crate) fn pause_listening(&self) -> io::Result<()> {
        self.command(Command::Pause)
    }

    pub(crate) fn resume_listening(&self) -> io::Result<()> {
        self.command(Command::Resume)
    }

    pub(crate) fn close_connections(&self) -> io::Result<()> {
        self.command(|ack| Command::CloseConnections(None, ack))
    }

    fn command(&self, command: impl FnOnce(Ack) -> Command) -> io::Result<()> {
        let (ack, done) = mpsc::channel();
        let no_response = || io::Error::other("the sandbox's thread does not respond");
        let commands = self.commands.as_ref().ok_or_else(no_response)?;
        let ack: Ack = Box::new(move |result| drop(ack.send(result)));
        commands.send(command(ack)).map_err(|_| no_response())?;
        // With a timeout, because a forked child has the channel but not the thread.
        done.recv_timeout(THREAD_TIMEOUT).map_err(|_| no_response())?
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.commands = None;
        // The thread does not exist in a forked child, where joining it would never return.
        if self.process != std::process::id() {
            std::mem::forget(self.thread.take());
            return;
        }
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(THREAD_TIMEOUT) == Err(mpsc::RecvTimeoutError::Disconnected)
            && let Some(thread) = self.thread.take()
        {
            // Returns at once. A panic of the thread was already printed.
            let _ = thread.join();
        }
    }
}

/// A port, and its TLS settings if it is for HTTPS.
#[derive(Clone)]
struct Port {
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
}

/// State shared by all connections.
struct Shared {
    stage: Stage,
    connections: AtomicU64,
    /// Changed to close all connections except the one with this number.
    hang_up: watch::Sender<Option<u64>>,
    /// Weak, so that the channel closes when the [`Server`] is dropped.
    commands: async_mpsc::WeakUnboundedSender<Command>,
    http: Builder<TokioExecutor>,
}

fn protocol(max_concurrent_streams: Option<u32>) -> Builder<TokioExecutor> {
    // The official Python client finds the log id only in these letter cases (docs/platform.md#official-clients).
    let mut http = Builder::new(TokioExecutor::new()).title_case_headers(true);
    if let Some(most) = max_concurrent_streams {
        http.http2().max_concurrent_streams(most);
    }
    http
}

/// Opens a port, and returns its address. Port 0 takes a free one.
fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn run(
    shared: &Arc<Shared>,
    ports: &[Port],
    listeners: Vec<TcpListener>,
    mut commands: async_mpsc::UnboundedReceiver<Command>,
) {
    let open = |(port, listener): (&Port, TcpListener)| {
        tokio::spawn(accept(Arc::clone(shared), port.clone(), listener))
    };
    let mut accepting: Vec<_> = ports.iter().zip(listeners).map(open).collect();
    while let Some(command) = commands.recv().await {
        let (ack, result) = match command {
            Command::Pause(ack) => {
                for task in accepting.drain(..) {
                    task.abort();
                    // The port is closed when the task has ended, not when it is aborted.
                    let _ = task.await;
                }
                (ack, Ok(()))
            }
            Command::Resume(ack) if accepting.is_empty() => {
                let listeners: io::Result<Vec<_>> = ports
                    .iter()
                    .map(|port| listen(port.address).map(|(listener, _)| listener))
                    .collect();
                let result =
                    listeners.map(|listeners| accepting.extend(ports.iter().zip(listeners).map(open)));
                (ack, result)
            }
            Command::Resume(ack) => (ack, Ok(())),
            Command::CloseConnections(except, ack) => {
                shared.hang_up.send_replace(except);
                (ack, Ok(()))
            }
        };
        ack(result);
    }
}

async fn accept(shared: Arc<Shared>, port: Port, listener: TcpListener) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
                let hang_up = close_requested(shared.hang_up.subscribe(), number);
                let connection = connection(Arc::clone(&shared), stream, port.tls.clone(), number);
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        () = hang_up => {}
                        () = connection => {}
                    }
                });
            }
            // Probably out of file descriptors. Some become free when connections end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Waits until the connection with this number is to be closed.
async fn close_requested(mut hang_up: watch::Receiver<Option<u64>>, number: u64) {
    while hang_up.changed().await.is_ok() {
        if *hang_up.borrow_and_update() != Some(number) {
            return;
        }
    }
}

/// A connection with or without TLS. As a trait object, because hyper's server compiled for two types would be too
/// large for the Python and npm packages, which include it.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

async fn connection(shared: Arc<Shared>, stream: TcpStream, tls: Option<TlsAcceptor>, number: u64) {
    let reset = Arc::new(ResetHandle::default());
    let _ = stream.set_nodelay(true);
    let socket = Socket::new(stream, Arc::clone(&reset));
    if shared.stage.refuses_connection() {
        reset.reset();
        return;
    }
    let service = service_fn(|request| answer(&shared, &reset, number, request));
    tokio::select! {
        biased;
        () = reset.requested() => {}
        () = async {
            let stream: Box<dyn Duplex> = match tls {
                None => Box::new(socket),
                Some(tls) => match tls.accept(socket).await {
                    Ok(stream) => Box::new(stream),
                    Err(_) => return,
                },
            };
            // Errors are ignored: the client or the fault script has ended the connection.
            drop(shared.http.serve_connection(TokioIo::new(stream), service).await);
        } => {}
    }
}

fn answer(
    shared: &Arc<Shared>,
    reset: &Arc<ResetHandle>,
    connection: u64,
    request: Request<Incoming>,
) -> impl Future<Output = io::Result<Response<ResponseBody>>> + Send + 'static {
    let (shared, reset) = (Arc::clone(shared), Arc::clone(reset));
    async move {
        let (head, body) = request.into_parts();
        let Some(body) = read_body(body).await? else {
            let page = "<h1>413 Request Entity Too Large</h1>";
            return Ok(text_response(StatusCode::PAYLOAD_TOO_LARGE, "text/html", page));
        };
        if let Some(path) = head.uri.path().strip_prefix("/_sandbox/") {
            return Ok(control_endpoint(&shared, connection, &head.method, path, &body).await);
        }
        match shared
            .stage
            .deliver_on(connection, Request::from_parts(head, body))
            .await
        {
            Delivery::Answer(response) => Ok(send(response)),
            Delivery::Truncated { response, sent_bytes } => {
                Ok(send(response).map(|body| body.cut_after(sent_bytes)))
            }
            Delivery::Reset => {
                reset.reset();
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
    }
}

/// Reads a body. Returns `None` if it is too large, but still reads it to its end: otherwise the connection would be
/// reset while the client is sending, and the client would not get the response.
async fn read_body(mut body: Incoming) -> io::Result<Option<Bytes>> {
    match Limited::new(&mut body, MAX_BODY).collect().await {
        Ok(body) => return Ok(Some(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => {}
        Err(error) => return Err(io::Error::other(error)),
    }
    let mut left = MAX_DRAINED;
    while let Some(frame) = body.frame().await {
        let length = frame.map_err(io::Error::other)?.data_ref().map_or(0, Bytes::len);
        left = left.checked_sub(length).ok_or(io::ErrorKind::FileTooLarge)?;
    }
    Ok(None)
}

fn send(response: Response<Bytes>) -> Response<ResponseBody> {
    let without_length = response.extensions().get::<NoContentLength>().is_some();
    let response = response.map(ResponseBody::new);
    if without_length {
        response.map(ResponseBody::without_length)
    } else {
        response
    }
}

/// Handles `GET state`, `GET requests`, and `POST control` with a [`Control`].
async fn control_endpoint(
    shared: &Shared,
    connection: u64,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Response<ResponseBody> {
    let control = match (method, path) {
        (&Method::GET, "state") => Ok(Control::State {}),
        (&Method::GET, "requests") => Ok(Control::Requests {}),
        (&Method::POST, "control") => Control::from_json(&String::from_utf8_lossy(body)),
        _ => {
            let known = "expected GET /_sandbox/state, GET /_sandbox/requests or POST /_sandbox/control\n";
            return text_response(StatusCode::NOT_FOUND, "text/plain", known);
        }
    };
    let result = match control {
        Ok(control) => execute(shared, connection, control).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(value) => text_response(StatusCode::OK, "application/json", format!("{value}\n")),
        Err(error) => text_response(StatusCode::BAD_REQUEST, "text/plain", format!("{error}\n")),
    }
}

async fn execute(shared: &Shared, connection: u64, control: Control) -> Result<Value, ControlError> {
    let (ack, done) = oneshot::channel();
    let ack: Ack = Box::new(move |result| drop(ack.send(result)));
    let command = match control {
        Control::PauseListening {} => Command::Pause(ack),
        Control::ResumeListening {} => Command::Resume(ack),
        Control::CloseConnections {} => Command::CloseConnections(Some(connection), ack),
        other => return shared.stage.control(other),
    };
    let sent = shared
        .commands
        .upgrade()
        .is_some_and(|commands| commands.send(command).is_ok());
    match done.await {
        Ok(result) if sent => result
            .map(|()| Value::Null)
            .map_err(|error| ControlError(error.to_string())),
        _ => Err(ControlError("the sandbox is shutting down".to_owned())),
    }
}

fn text_response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
