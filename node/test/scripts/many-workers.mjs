// Worker threads that end during a loop of many calls: terminated, by process.exit, by an exception.
import { once } from 'node:events'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { clientOf, pin } from '../stage.mjs'

async function main() {
  const [, , baseUrl] = process.argv
  const expected = { terminated: 1, exit: 7, exception: 1 }
  for (const [way, code] of Object.entries(expected)) {
    const worker = new Worker(new URL(import.meta.url), { workerData: { baseUrl, way } })
    worker.on('error', ({ message }) => message === 'on purpose' || process.exit(1))
    const exit = new Promise((resolve) => worker.on('exit', resolve))
    await once(worker, 'message')
    if (way === 'terminated') {
      await worker.terminate()
    }
    const ended = await exit
    if (ended !== code) {
      throw new Error(`${way}: the worker ended with ${ended}`)
    }
  }
  // Calls of the main thread still work.
  await clientOf({ baseUrl }).setTimeSensitive(pin)
  process.stdout.write('done')
}

async function work() {
  const { baseUrl, way } = workerData
  function* forEver() {
    for (;;) {
      yield { ...pin }
    }
  }
  let read = 0
  for await (const { error } of clientOf({ baseUrl }, { rateLimit: false }).setTimeSensitiveMany(forEver())) {
    if (error) {
      throw error
    }
    read += 1
    if (read === 200) {
      parentPort.postMessage('running')
      if (way === 'exit') {
        process.exit(7)
      } else if (way === 'exception') {
        throw new Error('on purpose')
      }
    }
  }
}

await (isMainThread ? main() : work())
