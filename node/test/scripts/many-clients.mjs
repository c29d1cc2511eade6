// Makes 1,000 clients, calls once with each and drops it. Prints the handles and descriptors before and after.
import { readdirSync } from 'node:fs'
import { clientOf, pin } from '../stage.mjs'

const [, , baseUrl] = process.argv
const handles = () => process.getActiveResourcesInfo().length
// Other systems have no /proc: their test is skipped.
const descriptors = () => (process.platform === 'linux' ? readdirSync('/proc/self/fd').length : 0)

await clientOf({ baseUrl }).setTimeSensitive(pin)
const before = { handles: handles(), descriptors: descriptors() }
for (let count = 0; count < 1000; count += 1) {
  await clientOf({ baseUrl }).setTimeSensitive(pin)
}
for (let round = 0; round < 50 && descriptors() > before.descriptors + 10; round += 1) {
  globalThis.gc()
  await new Promise((resolve) => setTimeout(resolve, 20))
}
const after = { handles: handles(), descriptors: descriptors() }
process.stdout.write(JSON.stringify({ before, after }))
