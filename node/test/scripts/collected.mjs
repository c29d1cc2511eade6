// Prints how many of 20 clients are garbage-collected whose token provider refers to the client. With `watched`: how
// many loops that were begun and dropped, with a listener that refers to them.
import { Client } from 'feishu-feed-card'
import { pin } from '../stage.mjs'

const [, , baseUrl, watched] = process.argv
const collected = []
const registry = new FinalizationRegistry((number) => collected.push(number))

async function use(number) {
  const client = new Client({ tokenProvider: () => (client ? 't-1' : ''), baseUrl, maxRetries: 0 })
  if (watched === undefined) {
    registry.register(client, number)
    await client.setTimeSensitive(pin).catch(() => {})
  } else {
    await client.setTimeSensitive({ ...pin, onEvent: () => client }).catch(() => {})
    const endless = Array.from({ length: 1000 }, () => pin)
    const many = client.setTimeSensitiveMany(endless, { onEvent: () => many, concurrency: 2 })
    registry.register(many, number)
    await many.next()
  }
}
for (let count = 0; count < 20; count += 1) {
  await use(count)
}
for (let round = 0; round < 100 && collected.length < 19; round += 1) {
  globalThis.gc()
  await new Promise((resolve) => setTimeout(resolve, 10))
}
process.stdout.write(`${collected.length}`)
