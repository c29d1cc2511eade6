// Many calls by one client: what do memory, handles and threads do?
import { readdirSync } from 'node:fs'
import { clientOf, member } from '../stage.mjs'

const [, , baseUrl, count] = process.argv
const client = clientOf({ baseUrl }, { rateLimit: false })
const threads = () => (process.platform === 'linux' ? readdirSync('/proc/self/task').length : 0)
const look = async () => {
  globalThis.gc()
  // From Node 22 on V8 keeps up to 20 MB that it has freed, unless it is asked in this way.
  globalThis.gc({ type: 'major', execution: 'sync', flavor: 'last-resort' })
  await new Promise((resolve) => setTimeout(resolve, 100))
  const { rss, heapUsed } = process.memoryUsage()
  return { rss, heapUsed, threads: threads(), handles: process.getActiveResourcesInfo() }
}

async function calls(number) {
  let left = number
  let failed = 0
  const { signal } = new AbortController()
  await Promise.all(
    Array.from({ length: 50 }, async (_, caller) => {
      while (left > 0) {
        left -= 1
        const call = { feedCardId: `oc_${caller}`, userIds: [member], timeSensitive: true, signal }
        await client.setTimeSensitive(call).catch(() => (failed += 1))
      }
    }),
  )
  return failed
}

// Until what the engine compiles and keeps is there: with Deno that takes 20,000.
await calls(count / 4)
const before = await look()
// Every chat is unknown to the sandbox: each call also makes an error.
const failed = await calls(Number(count))
const after = await look()
process.stdout.write(JSON.stringify({ before, after, failed }))
