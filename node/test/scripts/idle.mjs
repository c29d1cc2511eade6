// An idle client with an open connection does not keep the process alive.
import { clientOf, pin } from '../stage.mjs'

const [, , baseUrl, watched] = process.argv
const client = clientOf({ baseUrl }, { onEvent: watched && (() => {}) })
await client.setTimeSensitive(pin)
process.stdout.write('done')
