// An exception of `onEvent` is an uncaught exception, and the call continues.
import { clientOf, pin } from '../stage.mjs'

const [, , baseUrl] = process.argv
const thrown = []
const rejected = []
process.on('uncaughtException', ({ message }) => thrown.push(message))
process.on('unhandledRejection', ({ message }) => rejected.push(message))

const onEvent = () => {
  throw new Error('on purpose')
}
const { ok } = await clientOf({ baseUrl }, { onEvent }).setTimeSensitive(pin)
await clientOf(
  { baseUrl },
  {
    async onEvent() {
      throw new Error('async')
    },
  },
).setTimeSensitive(pin)
await new Promise((resolve) => setImmediate(resolve))
process.stdout.write(JSON.stringify({ ok, thrown, rejected }))
