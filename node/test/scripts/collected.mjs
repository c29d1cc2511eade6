// A client whose token provider holds the client itself is collected all the same.
import { Client } from 'feishu-feed-card'
import { pin } from '../stage.mjs'

const [, , baseUrl] = process.argv
const collected = []
const registry = new FinalizationRegistry((number) => collected.push(number))

async function use(number) {
  const client = new Client({ tokenProvider: () => (client ? 't-1' : ''), baseUrl, maxRetries: 0 })
  registry.register(client, number)
  await client.setTimeSensitive(pin).catch(() => {})
}
for (let count = 0; count < 20; count += 1) {
  await use(count)
}
for (let round = 0; round < 100 && collected.length < 19; round += 1) {
  globalThis.gc()
  await new Promise((resolve) => setTimeout(resolve, 10))
}
process.stdout.write(`${collected.length}`)
