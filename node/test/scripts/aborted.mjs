// An aborted call does not keep the process alive.
import { clientOf, pin } from '../stage.mjs'

const client = clientOf({ baseUrl: process.argv[2] })
const controller = new AbortController()
const call = client.setTimeSensitive({ ...pin, signal: controller.signal })
setTimeout(() => controller.abort(), 50)
await call.catch(({ name }) => process.stdout.write(name))
