import { Client, FeedCardError } from 'feishu-feed-card'

// Made at the first request: `next build` loads this file, too, without the variables of the app.
let client

export async function POST(request) {
  const { chat, onCall, firing } = await request.json()
  client ??= Client.fromEnv()
  try {
    const call = { feedCardId: chat, userIds: onCall, timeSensitive: firing, timeoutMs: 10_000 }
    const outcome = await client.setTimeSensitive(call)
    return Response.json({ reached: outcome.reached, failed: outcome.failed })
  } catch (error) {
    if (!(error instanceof FeedCardError)) throw error
    return Response.json(error, { status: error.retryable ? 503 : 502 })
  }
}
