import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { ClientClosedError } from 'feishu-feed-card'
import { all, counted, fast, isExact, pins, slow } from './many.mjs'
import { clientOf, member, pin, run, sandboxFor, until } from './stage.mjs'

describe('leaving early', () => {
  test('break stops requests in flight and closes the source', async (t) => {
    const sandbox = sandboxFor(t)
    const [requests, seen] = counted(1000)
    const many = clientOf(sandbox, fast).setTimeSensitiveMany(requests, { concurrency: 20 })
    let read = 0
    for await (const { outcome } of many) {
      assert.ok(outcome.ok)
      read += 1
      if (read === 30) {
        // What follows is not answered any more, but for what may be on its way: one more has to come.
        sandbox.faults({ on: 'call', times: 20 }, slow)
      }
      if (read > 30) {
        break
      }
    }
    assert.equal(seen.closed, 1)
    const report = await many.report()
    isExact(report)
    assert.equal(report.taken, seen.read)
    assert.equal(report.succeeded, read + report.unread.length)
    assert.deepEqual(await many.report(), report)
    assert.deepEqual(await many.next(), { done: true, value: undefined })
    assert.deepEqual(await many.return(), { done: true, value: undefined })
  })

  test('the report has requests that were read and never sent', async (t) => {
    const sandbox = sandboxFor(t)
    sandbox.faults(slow)
    const requests = [...pins(3), { ...pin, userIds: [member, member] }]
    const many = clientOf(sandbox, fast).setTimeSensitiveMany(requests)
    const next = many.next()
    await until(() => sandbox.requestCount() > 1)
    const report = await many.report()
    assert.deepEqual(await next, { done: true, value: undefined })
    assert.deepEqual(
      report.unfinished.map(({ request }) => request),
      requests,
    )
    for (const { unknown, notAttempted } of report.unfinished) {
      assert.deepEqual([...unknown, ...notAttempted], [member])
    }
  })

  test('before it begins', async (t) => {
    const [requests, seen] = counted(10)
    const many = clientOf(sandboxFor(t)).setTimeSensitiveMany(requests)
    const nothing = { taken: 0, succeeded: 0, failed: 0, failures: [], unread: [], unfinished: [] }
    assert.deepEqual(await many.report(), nothing)
    assert.equal((await clientOf(sandboxFor(t)).setTimeSensitiveMany(pins(3)).report()).notRead, 3)
    assert.deepEqual(await many.next(), { done: true, value: undefined })
    assert.equal(seen.read, 0)
  })

  test('await using leaves the loop, and an exception of closing the source is thrown', async (t) => {
    const mine = new RangeError('mine')
    const requests = {
      [Symbol.iterator]: () => ({
        next: () => ({ done: false, value: pin }),
        return() {
          throw mine
        },
      }),
    }
    const many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(requests)
    await many.next()
    await assert.rejects(many[Symbol.asyncDispose](), (error) => error === mine)
    isExact(await many.report())
  })

  test('a source may be closed while it runs', async (t) => {
    let many
    let closed = 0
    function* generate() {
      try {
        yield pin
        void many.return()
        yield pin
        yield pin
      } finally {
        closed += 1
      }
    }
    many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(generate())
    assert.deepEqual(await many.next(), { done: true, value: undefined })
    assert.equal(closed, 1)
    const report = await many.report()
    isExact(report)
    assert.equal(report.taken, 2)
  })
})

describe('a signal', () => {
  test('ends the loop with its reason, and the report is complete', async (t) => {
    const sandbox = sandboxFor(t)
    const controller = new AbortController()
    const { signal } = controller
    const reason = new Error('shutdown')
    const [requests, seen] = counted(10_000)
    const many = clientOf(sandbox, fast).setTimeSensitiveMany(requests, { signal })
    const items = []
    await assert.rejects(
      async () => {
        for await (const item of many) {
          items.push(item)
          assert.equal(getEventListeners(signal, 'abort').length, 1)
          if (items.length === 150) {
            controller.abort(reason)
          }
        }
      },
      (error) => error === reason,
    )
    assert.equal(items.length, 150)
    assert.equal(getEventListeners(signal, 'abort').length, 0)
    const report = await many.report()
    isExact(report)
    assert.equal(report.taken, seen.read)
    assert.equal(seen.closed, 1)
    assert.equal(report.succeeded + report.failed, items.length + report.unread.length)
    assert.deepEqual(await many.next(), { done: true, value: undefined })
  })

  test('ends all pending next() calls', async (t) => {
    const sandbox = sandboxFor(t)
    sandbox.faults(slow)
    const controller = new AbortController()
    const many = clientOf(sandbox, fast).setTimeSensitiveMany(pins(3), { signal: controller.signal })
    const nexts = [many.next(), many.next()]
    setTimeout(() => controller.abort(), 20)
    const [first, second] = await Promise.allSettled(nexts)
    assert.equal(first.reason.name, 'AbortError')
    assert.deepEqual(second.value, { done: true, value: undefined })
    const report = await many.report()
    isExact(report)
    assert.equal(report.unfinished.length, 3)
  })

  test('before it begins, and after its end', async (t) => {
    const sandbox = sandboxFor(t)
    const client = clientOf(sandbox, fast)
    const [requests, seen] = counted(10)
    const stopped = client.setTimeSensitiveMany(requests, { signal: AbortSignal.abort('no') })
    await assert.rejects(all(stopped), (error) => error === 'no')
    assert.equal(seen.read, 0)
    assert.equal((await stopped.report()).taken, 0)
    assert.equal(sandbox.requestCount(), 0)

    const controller = new AbortController()
    const many = client.setTimeSensitiveMany(pins(3), { signal: controller.signal })
    assert.equal((await all(many)).length, 3)
    assert.equal(getEventListeners(controller.signal, 'abort').length, 0)
    controller.abort()
    assert.deepEqual(await many.next(), { done: true, value: undefined })
    assert.equal((await many.report()).succeeded, 3)
  })
})

describe('closing the client', () => {
  const isClosed = (error) => {
    assert.ok(error instanceof ClientClosedError)
    assert.equal(error.message, 'the client is closed. Create another client')
    return true
  }

  test('ends the loop with an error, after the finished items', async (t) => {
    const client = clientOf(sandboxFor(t), fast)
    const [requests, seen] = counted(10_000)
    const many = client.setTimeSensitiveMany(requests)
    let items = 0
    await assert.rejects(async () => {
      for await (const _ of many) {
        items += 1
        if (items === 100) {
          void client.close()
        }
      }
    }, isClosed)
    await client.close()
    assert.equal(seen.closed, 1)
    const report = await many.report()
    isExact(report)
    assert.equal(report.succeeded + report.failed, items)
    assert.ok(
      report.failures.every(({ error }) => isClosed(error)),
      'those that were read late',
    )
    assert.equal(report.notRead, undefined)
  })

  test('lets requests in progress finish within the timeout', async (t) => {
    const sandbox = sandboxFor(t)
    const client = clientOf(sandbox, fast)
    sandbox.faults({ on: 'call', delay_before_ms: 300 })
    const [requests] = counted(100)
    const collected = client.setTimeSensitiveMany(requests, { concurrency: 3 }).collect()
    await sleep(100)
    await client.close({ timeoutMs: 10_000 })
    const { items, report } = await collected
    assert.equal(report.unfinished.length, 0)
    assert.ok(report.succeeded >= 3, `${report}`)
    assert.equal(items.length, report.taken)
  })

  test('does not wait for a loop that is not read or has ended', async (t) => {
    const sandbox = sandboxFor(t)
    const client = clientOf(sandbox, fast)
    await all(client.setTimeSensitiveMany(pins(3)))
    const begun = client.setTimeSensitiveMany(pins(300))
    await begun.next()
    const fresh = client.setTimeSensitiveMany(pins(3))
    await client.close()
    assert.ok((await all(fresh)).every(({ error }) => isClosed(error)))
    await assert.rejects(all(begun), isClosed)
    isExact(await begun.report())
    assert.throws(() => client.setTimeSensitiveMany(pins(3)), isClosed)
  })
})

describe('in a new process', () => {
  for (const way of ['done', 'left', 'dropped', 'aborted']) {
    test(`it ends when a loop is ${way}`, async (t) => {
      const sandbox = sandboxFor(t)
      sandbox.faults({ on: 'call', delay_before_ms: 300 })
      if (way !== 'done') {
        sandbox.faults(slow)
      }
      const end = await run('many.mjs', [sandbox.baseUrl, way])
      assert.deepEqual([end.code, end.stdout, end.stderr], [0, way, ''])
      assert.ok(end.ms >= 300 && end.ms < 20_000, `${end.ms} ms`)
    })
  }

  test('a worker thread may end during a loop', async (t) => {
    const sandbox = sandboxFor(t)
    const end = await run('many-workers.mjs', [sandbox.baseUrl])
    assert.deepEqual([end.code, end.stdout, end.stderr], [0, 'done', ''])
  })
})
