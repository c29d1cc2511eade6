// A sandbox listens although the program keeps only its URL.
import { Sandbox } from 'feishu-feed-card/sandbox'
import { clientOf, pin } from '../stage.mjs'

const start = () => Sandbox.start().baseUrl
const baseUrl = start()
for (let round = 0; round < 10; round += 1) {
  globalThis.gc()
  await new Promise((resolve) => setTimeout(resolve, 10))
}
const { ok } = await clientOf({ baseUrl }, { maxRetries: 0 }).setTimeSensitive(pin)
process.stdout.write(`${ok}`)
