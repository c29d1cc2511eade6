// Makes a call over https to a server that is trusted only through NODE_EXTRA_CA_CERTS. As in Node.js itself, a value
// that the program sets later has no effect.
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
