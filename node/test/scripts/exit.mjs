// process.exit with 50 calls in flight, during a token fetch.
import { clientOf, pin } from '../stage.mjs'

const client = clientOf({ baseUrl: process.argv[2] }, { rateLimit: false })
for (let count = 0; count < 50; count += 1) {
  client.setTimeSensitive({ ...pin, feedCardId: `oc_${count}` }).catch(() => {})
}
setTimeout(() => process.exit(7), Number(process.argv[3]))
