// Makes many calls with one client. Prints memory, handles and threads before and after.
import { readdirSync } from 'node:fs'
import { clientOf, member } from '../stage.mjs'

const [, , baseUrl, count] = process.argv
const client = clientOf({ baseUrl }, { rateLimit: false })
// Other systems have no /proc: their test is skipped.
const threads = () => (process.platform === 'linux' ? readdirSync('/proc/self/task').length : 0)
const measure = async () => {
  globalThis.gc()
  // Since Node.js 22, V8 returns up to 20 MB of freed memory only after this kind of collection.
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

// Warm-up, until the engine has compiled and cached everything: that takes Deno 20,000 calls.
await calls(count / 4)
const before = await measure()
// The sandbox knows none of the chats, so each call also makes an error.
const failed = await calls(Number(count))
const after = await measure()
process.stdout.write(JSON.stringify({ before, after, failed }))
