import Fastify from 'fastify'
import { Client, FeedCardError } from 'feishu-feed-card'

const app = Fastify({ logger: true })
// One client for the whole process: its calls share the token, the connections and the quota.
const client = Client.fromEnv()

const body = {
  type: 'object',
  required: ['chat', 'onCall', 'firing'],
  properties: {
    chat: { type: 'string' },
    onCall: { type: 'array', items: { type: 'string' } },
    firing: { type: 'boolean' },
  },
}

app.post('/alerts', { schema: { body } }, async (request) => {
  const { chat, onCall, firing } = request.body
  const outcome = await client.setTimeSensitive({
    feedCardId: chat,
    userIds: onCall,
    timeSensitive: firing,
    timeoutMs: 10_000,
  })
  return { reached: outcome.reached, failed: outcome.failed }
})

app.setErrorHandler((error, request, reply) => {
  if (!(error instanceof FeedCardError)) {
    return reply.send(error)
  }
  request.log.error(error.toJSON())
  return reply.code(error.retryable ? 503 : 502).send(error.toJSON())
})

app.addHook('onClose', () => client.close({ timeoutMs: 5000 }))
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => app.close())
}
await app.listen({ port: Number(process.env.PORT ?? 3000) })
