// An idle client, also one that has made calls and holds a connection, lets the process end at once.
import { clientOf, pin } from '../stage.mjs'

const client = clientOf({ baseUrl: process.argv[2] })
await client.setTimeSensitive(pin)
process.stdout.write('done')
