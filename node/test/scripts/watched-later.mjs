// A client without a listener runs each part of the core before a client with a listener does.
import { clientOf, pin } from '../stage.mjs'

const [, , baseUrl] = process.argv
const names = new Set()
const watched = clientOf({ baseUrl }, { onEvent: ({ name }) => names.add(name) })
const silent = clientOf({ baseUrl })
for (const client of [silent, watched]) {
  await client.setTimeSensitive(pin)
  await client.setTimeSensitive({ ...pin, feedCardId: 'oc_nowhere' }).catch(() => {})
}
process.stdout.write([...names].toSorted().join())
