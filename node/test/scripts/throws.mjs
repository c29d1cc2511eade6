// A failed call that nobody catches ends the process as any rejection does, with the error's own text.
import { clientOf, pin } from '../stage.mjs'

await clientOf({ baseUrl: process.argv[2] }).setTimeSensitive({ ...pin, feedCardId: 'oc_nowhere' })
