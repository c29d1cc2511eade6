import { Client } from 'feishu-feed-card'

// Outside of the handler: a warm instance uses its token and its connection again.
const client = Client.fromEnv()

export async function handler(event, context) {
  const { chat, onCall, firing } = JSON.parse(event.body)
  const outcome = await client.setTimeSensitive({
    feedCardId: chat,
    userIds: onCall,
    timeSensitive: firing,
    // Ends before the platform ends the function, so that the error is seen.
    timeoutMs: Math.max(context.getRemainingTimeInMillis() - 1000, 1),
  })
  return { statusCode: 200, body: JSON.stringify(outcome) }
}
