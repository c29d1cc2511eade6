// Pins the chats whose ids are on standard input, one per line, for the users given as arguments. Shows a progress bar:
//
//   FEISHU_APP_ID=cli_… FEISHU_APP_SECRET=… node examples/many.mjs ou_… ou_… < chats.txt

import { once } from 'node:events'
import { createInterface } from 'node:readline'
import cliProgress from 'cli-progress'
import { Client } from 'feishu-feed-card'

const userIds = process.argv.slice(2)
const chats = []
const lines = createInterface({ input: process.stdin }).on(
  'line',
  (line) => line.trim() && chats.push(line.trim()),
)
await once(lines, 'close')

const bar = new cliProgress.SingleBar({ format: '{bar} {value}/{total} {failed} failed, {seconds} s to go' })
bar.start(chats.length, 0, { failed: 0, seconds: '…' })

const requests = chats.map((feedCardId) => ({ feedCardId, userIds, timeSensitive: true }))
const many = Client.fromEnv().setTimeSensitiveMany(requests, {
  // `etaMs` comes from the quota, not from the speed so far.
  progress: ({ done, failed, etaMs = 0 }) => bar.update(done, { failed, seconds: Math.ceil(etaMs / 1000) }),
})
const failures = []
for await (const { request, outcome, error } of many) {
  if (error) {
    failures.push(`${request.feedCardId}: ${error.message}`)
  } else if (!outcome.ok) {
    failures.push(`${request.feedCardId}: not reached: ${outcome.failedUserReasons.length}`)
  }
}
bar.stop()
console.log(`${chats.length - failures.length} chats pinned, ${failures.length} failed`)
if (failures.length > 0) {
  console.error(failures.join('\n'))
  process.exitCode = 1
}
