// Calls of a loop keep the process alive, but not after the loop has ended.
import { clientOf, pin } from '../stage.mjs'

const [, , baseUrl, way] = process.argv
const client = clientOf({ baseUrl }, { rateLimit: false })
const controller = new AbortController()
const requests = Array.from({ length: way === 'done' ? 3 : 50 }, () => pin)
const many = client.setTimeSensitiveMany(requests, { signal: controller.signal })

async function use() {
  for await (const { outcome } of many) {
    if (!outcome.ok || way === 'left') {
      break
    }
    if (way === 'dropped') {
      return
    }
    if (way === 'aborted') {
      controller.abort()
    }
  }
}

if (way === 'dropped') {
  await many.next()
} else {
  await use().catch(({ name }) => name === 'AbortError' || process.exit(1))
}
process.stdout.write(way)
