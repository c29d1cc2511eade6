//! The sandbox as a program.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use feishu_feed_card_sandbox::{Sandbox, World};
use lexopt::{Arg, Parser, ValueExt};

const USAGE: &str = "\
A stand-in for the Feishu/Lark platform's time-sensitive feed card, on loopback.

Usage: feishu-feed-card-sandbox [--port N] [--https-port N] [--world FILE] [--quiet]

  --port N         HTTP port; 0 takes a free one (default: 8080)
  --https-port N   also serve HTTPS, on this port; 0 takes a free one
  --world FILE     JSON file with apps, users, chats and switches
                   (default: the example of the platform's documentation)
  --quiet          print only the base URL
  -h, --help       print this help
  -V, --version    print the version

While it runs:
  GET  /_sandbox/state      pinned chats, counters and the clock
  GET  /_sandbox/requests   the requests received
  POST /_sandbox/control    a control as JSON, for example {\"do\": \"advance\", \"ms\": 7200000}
";

struct Options {
    port: u16,
    https_port: Option<u16>,
    world: Option<PathBuf>,
    quiet: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("feishu-feed-card-sandbox: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let Some(options) = read_arguments(Parser::from_env())? else {
        return Ok(());
    };
    let world = match &options.world {
        None => World::example(),
        Some(file) => {
            let with_file_name = |error: &dyn Error| format!("{}: {error}", file.display());
            let text = std::fs::read_to_string(file).map_err(|error| with_file_name(&error))?;
            serde_json::from_str(&text).map_err(|error| with_file_name(&error))?
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Install the signal handlers before the greeting is printed, because its reader may stop the sandbox at once.
        let stop = StopSignal::listen()?;
        let builder = Sandbox::builder().world(world.clone()).port(options.port);
        let builder = match options.https_port {
            Some(port) => builder.https(true).https_port(port),
            None => builder,
        };
        let sandbox = builder
            .start()
            .map_err(|error| format!("port {}: {error}", options.port))?;
        greet(&sandbox, &world, options.quiet)?;
        stop.received().await?;
        Ok(())
    })
}

fn read_arguments(mut arguments: Parser) -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options {
        port: 8080,
        https_port: None,
        world: None,
        quiet: false,
    };
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("port") => options.port = arguments.value()?.parse()?,
            Arg::Long("https-port") => options.https_port = Some(arguments.value()?.parse()?),
            Arg::Long("world") => options.world = Some(arguments.value()?.into()),
            Arg::Long("quiet") => options.quiet = true,
            Arg::Short('h') | Arg::Long("help") => {
                print!("{USAGE}");
                return Ok(None);
            }
            Arg::Short('V') | Arg::Long("version") => {
                println!("feishu-feed-card-sandbox {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

fn greet(sandbox: &Sandbox, world: &World, quiet: bool) -> io::Result<()> {
    let base = sandbox.base_url();
    let mut out = io::stdout().lock();
    if quiet {
        writeln!(out, "{base}")?;
        return out.flush();
    }
    writeln!(out, "base URL     {base}")?;
    if let (Some(base), Some(pem)) = (sandbox.https_base_url(), sandbox.ca_pem()) {
        writeln!(
            out,
            "             {base}, with this certificate authority:\n{pem}"
        )?;
    }
    for app in &world.apps {
        writeln!(out, "app          {}, secret {}", app.app_id, app.app_secret)?;
    }
    for chat in &world.chats {
        writeln!(
            out,
            "chat         {}: {}",
            chat.feed_card_id,
            chat.members.join(", ")
        )?;
    }
    if let (Some(app), Some(chat)) = (world.apps.first(), world.chats.first()) {
        let user = chat.members.first().map_or(World::EXAMPLE_USER, String::as_str);
        writeln!(
            out,
            r#"
Try it:
  TOKEN=$(curl -s {base}/open-apis/auth/v3/tenant_access_token/internal \
    -d '{{"app_id":"{app_id}","app_secret":"{secret}"}}' | sed 's/.*"tenant_access_token":"\([^"]*\)".*/\1/')
  curl -X PATCH '{base}/open-apis/im/v2/feed_cards/{chat}?user_id_type=open_id' \
    -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json; charset=utf-8' \
    -d '{{"time_sensitive":true,"user_ids":["{user}"]}}'
  curl {base}/_sandbox/state"#,
            app_id = app.app_id,
            secret = app.app_secret,
            chat = chat.feed_card_id,
        )?;
    }
    writeln!(out, "\nPress Ctrl-C to stop.")?;
    out.flush()
}

#[cfg(unix)]
struct StopSignal {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl StopSignal {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn received(mut self) -> io::Result<()> {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        Ok(())
    }
}

#[cfg(not(unix))]
struct StopSignal;

#[cfg(not(unix))]
impl StopSignal {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn received(self) -> io::Result<()> {
        tokio::signal::ctrl_c().await
    }
}
