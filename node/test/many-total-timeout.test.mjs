import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { DeadlineExceededError } from 'feishu-feed-card'
import { all, allUntilCut, block, counted, fast, pins, slow } from './many.mjs'
import { clientOf, member, pin, sandboxFor, unpin } from './stage.mjs'

test('totalTimeoutMs: late requests have an item with an error', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults(slow)
  const [requests, seen] = counted(1000)
  const many = clientOf(sandbox, fast).setTimeSensitiveMany(requests, { totalTimeoutMs: 200, concurrency: 5 })
  const [items, end] = await allUntilCut(many)
  assert.ok(end instanceof DeadlineExceededError)
  assert.match(end.hint, /totalTimeoutMs, or call again with the requests from index 5 on/)
  assert.deepEqual(await many.next(), { done: true, value: undefined })
  assert.deepEqual(
    items.map(({ error }) => error.code),
    Array(5).fill('TIMEOUT'),
  )
  assert.deepEqual(seen, { read: 5, closed: 1 })
  const report = await many.report()
  assert.deepEqual([report.taken, report.failed], [5, 5])
})

test('totalTimeoutMs: a request read as the time passes has an item with an error', async (t) => {
  const seen = []
  function* generate() {
    yield pin
    block(1300)
    yield unpin
  }
  const many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(generate(), {
    concurrency: 1,
    totalTimeoutMs: 1000,
    progress: (progress) => seen.push(progress),
  })
  const [[first, second]] = await allUntilCut(many)
  assert.ok(first.outcome.ok)
  assert.deepEqual([second.index, second.request], [1, unpin])
  assert.ok(second.error instanceof DeadlineExceededError)
  assert.deepEqual(second.error.notAttempted, [member])
  assert.match(second.error.message, /totalTimeoutMs/)
  assert.deepEqual(await many.report(), {
    taken: 2,
    succeeded: 1,
    failed: 1,
    failures: [second],
    unread: [],
    unfinished: [],
  })
  assert.deepEqual(seen.at(-1), { done: 2, failed: 1, waitingForQuota: 0 })
})

test('totalTimeoutMs: a request that an async source yields too late has no item', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults({ ...slow, times: 1 })
  async function* generate() {
    yield pin
    await sleep(600)
    yield unpin
  }
  const client = clientOf(sandbox, fast)
  // The first request is on its way as the time passes. The second is read after the loop has ended: it is in nobody's
  // report, and its index is the first that the hint names.
  const many = client.setTimeSensitiveMany(generate(), { totalTimeoutMs: 300 })
  const [items, end] = await allUntilCut(many)
  assert.deepEqual(
    items.map(({ index }) => index),
    [0],
  )
  assert.match(end.hint, /from index 1 on/)
  const report = await many.report()
  await sleep(600)
  assert.equal(await many.report(), report)
  assert.deepEqual([report.taken, report.failed, report.unfinished], [1, 1, []])
  assert.deepEqual(await many.next(), { done: true, value: undefined })
})

test('totalTimeoutMs: no error follows the last item if all requests were read', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults(slow)
  const options = { totalTimeoutMs: 200, concurrency: 2 }
  const items = await all(clientOf(sandbox, fast).setTimeSensitiveMany(pins(2), options))
  assert.deepEqual(
    items.map(({ error }) => error.code),
    ['TIMEOUT', 'TIMEOUT'],
  )
})

test('totalTimeoutMs: a DeadlineExceededError thrown by progress ends the loop', async (t) => {
  function* generate() {
    yield pin
    block(1300)
    yield unpin
  }
  const thrown = new Error('the bar is gone')
  const many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(generate(), {
    concurrency: 1,
    totalTimeoutMs: 1000,
    progress: ({ failed }) => {
      if (failed > 0) throw thrown
    },
  })
  await assert.rejects(all(many), (error) => error === thrown)
})
