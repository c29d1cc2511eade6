// A call over https to a server for which only NODE_EXTRA_CA_CERTS vouches. A value that the program sets later has no
// effect, as in Node itself.
import { clientOf, pin } from '../stage.mjs'

const [baseUrl, setLater] = process.argv.slice(2)
if (setLater !== undefined) {
  process.env.NODE_EXTRA_CA_CERTS = setLater
}
const events = []
const onEvent = (event) => events.push(event)
const client = clientOf({ baseUrl }, { maxRetries: 0, onEvent })
const end = await client.setTimeSensitive(pin).then(
  ({ ok }) => ({ ok }),
  ({ code, reason, retryable }) => ({ code, reason, retryable }),
)
const warnings = events.filter(({ level, name }) => level === 'warn' && name.startsWith('ignoring'))
process.stdout.write(JSON.stringify({ ...end, warnings }))
