import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { all, allUntilCut, block, counted, fast, isExact, slow } from './many.mjs'
import { clientOf, member, pin, sandboxFor, until } from './stage.mjs'

describe('reading', () => {
  test('begins with the first next(), and is bounded', async (t) => {
    const [requests, seen] = counted(1000)
    const many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(requests, { concurrency: 10 })
    await sleep(20)
    assert.equal(seen.read, 0)
    await many.next()
    const { read } = seen
    assert.ok(read >= 1 && read <= 10 + 64, `${read}`)
    // No further next() is called.
    await sleep(100)
    assert.equal(seen.read, read)
    await many.return()
    assert.deepEqual(seen, { read, closed: 1 })
  })

  test('concurrency limits the requests in flight', async (t) => {
    const sandbox = sandboxFor(t)
    let out = 0
    let most = 0
    async function* generate() {
      for (let index = 0; index < 30; index += 1) {
        out += 1
        most = Math.max(most, out)
        yield { ...pin }
      }
    }
    for await (const _ of clientOf(sandbox, fast).setTimeSensitiveMany(generate(), { concurrency: 1 })) {
      out -= 1
    }
    assert.equal(most, 1)
  })

  test('concurrency has an upper bound', async (t) => {
    const sandbox = sandboxFor(t)
    sandbox.faults({ ...slow, on: 'any' })
    const [requests, seen] = counted(20_000)
    const many = clientOf(sandbox, fast).setTimeSensitiveMany(requests, { concurrency: 1e9 })
    const next = many.next()
    await until(() => seen.read >= 10_000)
    await sleep(50)
    assert.equal(seen.read, 10_000)
    await many.return()
    assert.deepEqual(await next, { done: true, value: undefined })
    const report = await many.report()
    isExact(report)
    assert.equal(report.taken, 10_000)
  })

  test('an exception of the source ends the loop, after the finished items', async (t) => {
    const sandbox = sandboxFor(t)
    const mine = new RangeError('mine')
    for (const isAsync of [false, true]) {
      let closed = 0
      const source = (function* generate() {
        try {
          for (let index = 0; index < 120; index += 1) {
            yield { ...pin }
          }
          throw mine
        } finally {
          closed += 1
        }
      })()
      const many = clientOf(sandbox, fast).setTimeSensitiveMany(
        isAsync
          ? (async function* asynchronous() {
              yield* source
            })()
          : source,
      )
      const items = []
      await assert.rejects(
        async () => {
          for await (const item of many) {
            items.push(item)
          }
        },
        (error) => error === mine,
      )
      assert.equal(closed, 1)
      const report = await many.report()
      isExact(report)
      assert.equal(report.taken, 120)
      assert.deepEqual(report.unread, [])
      assert.equal(report.succeeded + report.failed, items.length)
      assert.ok(items.length > 0)
      assert.deepEqual(await many.next(), { done: true, value: undefined })
    }
  })

  test('items are returned while the source is slow', async (t) => {
    const [requests, seen] = counted(40)
    function* slowly() {
      for (const request of requests) {
        block(20)
        yield request
      }
    }
    const many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(slowly())
    await many.next()
    assert.ok(seen.read < 20, `${seen.read}`)
    assert.equal((await all(many)).length, 39)
  })

  test('the report has the ids read before a request threw', async (t) => {
    const mine = new RangeError('mine')
    const userIds = [member, '']
    Object.defineProperty(userIds, 1, {
      get() {
        throw mine
      },
    })
    const many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany([pin, { ...pin, userIds }, pin])
    await assert.rejects(all(many), (error) => error === mine)
    const { taken, succeeded, unfinished } = await many.report()
    assert.equal(taken, succeeded + unfinished.length)
    const last = unfinished.at(-1)
    assert.deepEqual([taken, last.index, last.notAttempted], [2, 1, [member]])
  })

  test('an invalid iterator and a throwing getter end the loop', async (t) => {
    const client = clientOf(sandboxFor(t), fast)
    const wrong = [
      [{ [Symbol.iterator]: () => ({ next: () => 5 }) }, TypeError],
      [{ [Symbol.iterator]: () => 5 }, TypeError],
      [{ [Symbol.asyncIterator]: () => ({ next: () => 5 }) }, TypeError],
      [{ [Symbol.asyncIterator]: null }, TypeError],
    ]
    for (const [requests, kind] of wrong) {
      await assert.rejects(all(client.setTimeSensitiveMany(requests)), kind)
    }
    const mine = new RangeError('mine')
    let closed = 0
    function* generate() {
      try {
        yield {
          get userIds() {
            throw mine
          },
        }
      } finally {
        closed += 1
      }
    }
    const many = client.setTimeSensitiveMany(generate())
    await assert.rejects(all(many), (error) => error === mine)
    assert.equal(closed, 1)
    const { taken, unfinished } = await many.report()
    assert.deepEqual([taken, unfinished.map(({ index }) => index)], [1, [0]])
  })

  test('changing an element later does not change its request', async (t) => {
    const userIds = [member]
    const next = clientOf(sandboxFor(t))
      .setTimeSensitiveMany([{ ...pin, userIds }])
      .next()
    userIds[0] = 'ou_other'
    assert.deepEqual((await next).value.outcome.reached, [member])
  })
})

describe('a source that never yields', () => {
  async function* never() {
    yield pin
    await new Promise(() => {})
  }

  test('totalTimeoutMs ends it', async (t) => {
    const many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(never(), { totalTimeoutMs: 500 })
    const [items, end] = await allUntilCut(many)
    assert.match(end.message, /the number of unread requests is unknown/)
    const report = await many.report()
    isExact(report)
    assert.equal(report.taken, 1)
    assert.equal('notRead' in report, false)
    assert.equal(report.succeeded + report.failed, items.length)
  })

  test('leaving does not wait for it', async (t) => {
    const many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(never())
    for await (const { outcome } of many) {
      assert.ok(outcome.ok)
      break
    }
    const controller = new AbortController()
    const other = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(never(), { signal: controller.signal })
    await other.next()
    const next = other.next()
    controller.abort()
    await assert.rejects(next, { name: 'AbortError' })
  })
})
