//! Runs the examples.

use feishu_feed_card::Client;
use feishu_feed_card_sandbox::{Chat, Sandbox, World};

#[path = "../examples/many.rs"]
#[allow(dead_code, reason = "the example's main is run by people")]
mod many;

#[tokio::test]
async fn many_chats_are_pinned_and_failures_counted() {
    let sandbox = Sandbox::builder()
        .chat(Chat::new("oc_1", [World::EXAMPLE_USER]))
        .chat(Chat::new("oc_2", [World::EXAMPLE_USER]))
        .start()
        .unwrap();
    let client = Client::builder()
        .app(World::EXAMPLE_APP_ID, World::EXAMPLE_APP_SECRET)
        .base_url(sandbox.base_url())
        .build()
        .unwrap();
    let chats = ["oc_1", "oc_2", "oc_nowhere"].map(str::to_owned).to_vec();
    let failed = many::pin_all(&client, chats, vec![World::EXAMPLE_USER.to_owned()]).await;
    assert_eq!(failed.unwrap(), 1);
    assert_eq!(sandbox.pinned(World::EXAMPLE_USER), ["oc_1", "oc_2"]);
}
