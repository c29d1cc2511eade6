// An unhandled error of a call ends the process, and its message is printed.
import { clientOf, pin } from '../stage.mjs'

await clientOf({ baseUrl: process.argv[2] }).setTimeSensitive({ ...pin, feedCardId: 'oc_nowhere' })
