// Worker threads that end with 50 calls in flight each: terminated, by process.exit, by an exception. With `alone`, the
// main thread does not load the package, so the last worker is the last user of the native module.
import { once } from 'node:events'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'

const [, , baseUrl, mode] = process.argv

async function main() {
  const stage = mode === 'alone' ? undefined : await import('../stage.mjs')
  for (const way of ['terminated', 'exit', 'exception', 'terminated', 'idle']) {
    const workers = Array.from(
      { length: 4 },
      () => new Worker(new URL(import.meta.url), { workerData: { baseUrl, way } }),
    )
    await Promise.all(workers.map((worker) => endOf(worker, way)))
  }
  if (stage) {
    // Calls of the main thread still work.
    await stage.clientOf({ baseUrl }, { lateArrivalMs: 1 }).setBotTimeSensitive({
      userIds: [stage.member],
      timeSensitive: true,
    })
  }
  process.stdout.write('done')
}

async function endOf(worker, way) {
  worker.on('error', (error) => {
    if (error.message !== 'on purpose') {
      throw error
    }
  })
  const exit = new Promise((resolve) => worker.on('exit', resolve))
  await once(worker, 'message')
  if (way === 'terminated') {
    await worker.terminate()
  }
  const code = await exit
  const expected = { terminated: 1, exit: 7, exception: 1, idle: 0 }[way]
  if (code !== expected) {
    throw new Error(`${way}: the worker ended with ${code}`)
  }
}

async function work() {
  const { clientOf, pin } = await import('../stage.mjs')
  const client = clientOf({ baseUrl: workerData.baseUrl }, { rateLimit: false })
  if (workerData.way === 'idle') {
    await client.setBotTimeSensitive({ userIds: pin.userIds, timeSensitive: true })
    parentPort.postMessage('idle')
    return
  }
  for (let count = 0; count < 50; count += 1) {
    client.setTimeSensitive({ ...pin, feedCardId: `oc_${count}` }).catch(() => {})
  }
  parentPort.postMessage('in flight')
  setTimeout(() => {
    if (workerData.way === 'exit') {
      process.exit(7)
    }
    if (workerData.way === 'exception') {
      throw new Error('on purpose')
    }
  }, 20)
}

await (isMainThread ? main() : work())
