//! Pins chats for the users given as arguments, with a progress bar. The ids of the chats come from standard input, one
//! per line:
//!
//! ```text
//! FEISHU_APP_ID=cli_… FEISHU_APP_SECRET=… cargo run --example many -- ou_… ou_… < chats.txt
//! ```

use std::error::Error;
use std::io::stdin;

use feishu_feed_card::{Client, Request};
use indicatif::{ProgressBar, ProgressStyle};

/// Pins every chat for these users. Returns the number of chats that failed.
pub(crate) async fn pin_all(
    client: &Client,
    chats: Vec<String>,
    users: Vec<String>,
) -> Result<usize, Box<dyn Error>> {
    let bar = ProgressBar::new(chats.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}")?);
    let shown = bar.clone();
    let requests = chats
        .into_iter()
        .map(move |chat| Request::new(chat, users.clone(), true));
    let mut many = client
        .set_time_sensitive_many(requests)
        .on_progress(move |progress| {
            shown.set_position(progress.done as u64);
            // The time that the quota allows, not an estimate from recent speed.
            let left = progress.eta.unwrap_or_default().as_secs();
            shown.set_message(format!("{} failed, {left} s to go", progress.failed));
        });
    while let Some(item) = many.next().await.transpose()? {
        match item.result {
            Ok(outcome) if outcome.ok() => {}
            Ok(outcome) => bar.println(format!(
                "{}: {:?}",
                item.request.feed_card_id, outcome.users.failed
            )),
            Err(error) => bar.println(format!("{}: {error}", item.request.feed_card_id)),
        }
    }
    bar.finish();
    Ok(many.progress().failed)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::from_env()?;
    let mut chats = stdin().lines().collect::<Result<Vec<_>, _>>()?;
    chats.retain(|chat| !chat.trim().is_empty());
    let users = std::env::args().skip(1).collect();
    match pin_all(&client, chats, users).await? {
        0 => Ok(()),
        failed => Err(format!("{failed} chats failed").into()),
    }
}
