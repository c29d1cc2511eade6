// A call in progress keeps the process alive.
import { clientOf, pin } from '../stage.mjs'

clientOf({ baseUrl: process.argv[2] })
  .setTimeSensitive(pin)
  .then(({ ok }) => process.stdout.write(`ok: ${ok}`))
