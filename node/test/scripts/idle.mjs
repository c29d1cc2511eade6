// An idle client, also one that has made calls and holds a connection, lets the process end at once.
import { clientOf, pin } from '../stage.mjs'

const [, , baseUrl, watched] = process.argv
const client = clientOf({ baseUrl }, { onEvent: watched && (() => {}) })
await client.setTimeSensitive(pin)
process.stdout.write('done')
