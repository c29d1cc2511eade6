import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { DeadlineExceededError } from 'feishu-feed-card'
import { chat, clientOf, member, pin, sandboxFor, until } from './stage.mjs'

test('an aborted signal rejects the call, and nothing is sent', async (t) => {
  const sandbox = sandboxFor(t)
  const reason = new Error('not any more')
  await assert.rejects(
    clientOf(sandbox).setTimeSensitive({ ...pin, signal: AbortSignal.abort(reason) }),
    (error) => {
      assert.equal(error, reason)
      return true
    },
  )
  assert.equal(sandbox.requestCount(), 0)
})

test('an invalid argument is reported before an aborted signal, as in fetch', async (t) => {
  const call = { ...pin, userIds: 'all', signal: AbortSignal.abort() }
  await assert.rejects(clientOf(sandboxFor(t)).setTimeSensitive(call), { code: 'INVALID_INPUT' })
})

test('aborting during a call rejects at once and stops the request', async (t) => {
  const sandbox = sandboxFor(t)
  const client = clientOf(sandbox)
  await client.setTimeSensitive(pin)
  sandbox.faults({ on: 'call', delay_before_ms: 500 })
  const controller = new AbortController()
  const call = client.setTimeSensitive({ ...pin, timeSensitive: false, signal: controller.signal })
  await until(() => sandbox.requestCount() === 3)
  let isOver = false
  const rejected = assert.rejects(call, { name: 'AbortError' }).then(() => (isOver = true))
  controller.abort()
  // The promise is rejected without waiting for another turn of the event loop.
  await new Promise(setImmediate)
  assert.ok(isOver)
  await rejected
  // The sandbox drops a request whose connection was closed.
  await sleep(700)
  assert.deepEqual(sandbox.pinned(member), [chat])
})

test('aborting during a token fetch does not stop the fetch for other calls', async (t) => {
  const sandbox = sandboxFor(t)
  const client = clientOf(sandbox)
  sandbox.faults({ on: 'token', delay_before_ms: 100 })
  const controller = new AbortController()
  const first = client.setTimeSensitive({ ...pin, signal: controller.signal })
  const second = client.setTimeSensitive(pin)
  await sleep(20)
  controller.abort()
  await assert.rejects(first, { name: 'AbortError' })
  assert.ok((await second).ok)
  assert.equal(sandbox.tokenFetches(), 1)
})

test('aborting after a call has no effect', async (t) => {
  const controller = new AbortController()
  const outcome = await clientOf(sandboxFor(t)).setTimeSensitive({ ...pin, signal: controller.signal })
  controller.abort()
  assert.ok(outcome.ok)
})

test('AbortSignal.timeout rejects with its TimeoutError, timeoutMs with a DeadlineExceededError', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults({ on: 'call', times: 0, delay_before_ms: 5000 })
  const client = clientOf(sandbox, { lateArrivalMs: 1 })
  const call = client.setTimeSensitive({ ...pin, signal: AbortSignal.timeout(50) })
  await assert.rejects(call, (error) => error instanceof DOMException && error.name === 'TimeoutError')
  await assert.rejects(client.setTimeSensitive({ ...pin, timeoutMs: 50 }), (error) => {
    assert.ok(error instanceof DeadlineExceededError)
    assert.equal(error.station, 'answer')
    assert.deepEqual(error.unknown, [member])
    return true
  })
})

test('the listener is removed after a call, and onabort is not changed', async (t) => {
  const sandbox = sandboxFor(t)
  const client = clientOf(sandbox, { maxRetries: 0 })
  const controller = new AbortController()
  const { signal } = controller
  let calledBack = 0
  signal.onabort = () => (calledBack += 1)
  const { onabort } = signal
  const listeners = () => getEventListeners(signal, 'abort').length
  const before = listeners()

  const call = client.setTimeSensitive({ ...pin, signal })
  assert.equal(listeners(), before + 1)
  await call
  assert.equal(listeners(), before)
  await assert.rejects(client.setTimeSensitive({ ...pin, feedCardId: 'oc_nowhere', signal }))
  assert.equal(listeners(), before)
  await assert.rejects(client.setTimeSensitive({ ...pin, feedCardId: 'nowhere', signal }))
  assert.equal(listeners(), before)

  sandbox.faults({ on: 'call', delay_before_ms: 5000 })
  const stopped = client.setTimeSensitive({ ...pin, signal })
  controller.abort()
  await assert.rejects(stopped, { name: 'AbortError' })
  assert.equal(listeners(), before)
  assert.equal(signal.onabort, onabort)
  assert.equal(calledBack, 1)
})

test('one signal stops many calls', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults({ on: 'call', times: 0, delay_before_ms: 5000 })
  const client = clientOf(sandbox, { rateLimit: false })
  const controller = new AbortController()
  const reason = { why: 'shutdown' }
  const warnings = []
  const onWarning = (warning) => warnings.push(warning)
  process.on('warning', onWarning)
  t.after(() => process.off('warning', onWarning))
  const calls = Array.from({ length: 100 }, () =>
    client.setTimeSensitive({ ...pin, signal: controller.signal }),
  )
  setTimeout(() => controller.abort(reason), 30)
  const ends = await Promise.allSettled(calls)
  assert.ok(ends.every((end) => end.status === 'rejected' && end.reason === reason))
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0)
  assert.deepEqual(warnings, [])
})

test('a client can be used after its calls were aborted', async (t) => {
  const sandbox = sandboxFor(t)
  const client = clientOf(sandbox, { lateArrivalMs: 1 })
  for (let round = 0; round < 20; round += 1) {
    const controller = new AbortController()
    const call = client.setTimeSensitive({ ...pin, signal: controller.signal })
    setTimeout(() => controller.abort(), round / 4)
    await Promise.allSettled([call])
  }
  assert.ok((await client.setTimeSensitive(pin)).ok)
})

test('an object like a signal is accepted, and any other value is refused', async (t) => {
  const client = clientOf(sandboxFor(t))
  const target = new EventTarget()
  const signal = Object.assign(target, { aborted: false })
  assert.ok((await client.setTimeSensitive({ ...pin, signal })).ok)
  const aborted = Object.assign(new EventTarget(), { aborted: true })
  await assert.rejects(client.setTimeSensitive({ ...pin, signal: aborted }), { name: 'AbortError' })
  for (const wrong of [null, {}, 'abort', new AbortController(), 5]) {
    await assert.rejects(client.setTimeSensitive({ ...pin, signal: wrong }), {
      code: 'INVALID_INPUT',
      field: 'signal',
    })
  }
})
