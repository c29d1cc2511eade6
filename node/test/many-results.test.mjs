import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { DeadlineExceededError, InvalidInputError } from 'feishu-feed-card'
import { all, byIndex, counted, fast, isExact, pins, slow } from './many.mjs'
import { clientOf, member, pin, sandboxFor, until } from './stage.mjs'

describe('collect', () => {
  test('returns all items by index, and the report', async (t) => {
    const requests = pins(100)
    for (const [index, request] of requests.entries()) {
      request.userIds = index % 2 ? [] : request.userIds
    }
    const many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(requests)
    const { items, report } = await many.collect()
    assert.deepEqual(
      items.map(({ index }) => index),
      requests.map((_, index) => index),
    )
    assert.equal(`${report}`, '100 taken: 50 succeeded, 50 failed, 0 unfinished; 0 not read')
    assert.equal(report.failures.length, 50)
    assert.equal(await many.report(), report)
    assert.deepEqual(JSON.parse(JSON.stringify(report)).taken, 100)
  })

  test('does not reject for totalTimeoutMs', async (t) => {
    const sandbox = sandboxFor(t)
    sandbox.faults(slow)
    const options = { totalTimeoutMs: 200, concurrency: 2 }
    const { items, report } = await clientOf(sandbox, fast).setTimeSensitiveMany(pins(5), options).collect()
    assert.equal(items.length, 2)
    assert.equal(`${report}`, '2 taken: 0 succeeded, 2 failed, 0 unfinished; 3 not read')
  })

  test('an exception of the source loses no item', async (t) => {
    const mine = new DeadlineExceededError('mine')
    let done = 0
    async function* generate() {
      yield* pins(5)
      await until(() => done === 5)
      throw mine
    }
    const many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(generate(), {
      progress: (progress) => {
        done = progress.done
      },
    })
    await assert.rejects(many.collect(), (error) => error === mine)
    const { unread, succeeded } = await many.report()
    assert.equal(succeeded, 5)
    assert.deepEqual(
      byIndex(unread).map(({ index }) => index),
      [0, 1, 2, 3, 4],
    )
  })
})

test('awaiting the loop, or a promise as its source, is an error with a hint', async (t) => {
  const sandbox = sandboxFor(t)
  const client = clientOf(sandbox, fast)
  const many = client.setTimeSensitiveMany([pin])
  const awaited = async () => await many
  await assert.rejects(awaited, (error) => {
    assert.ok(error instanceof InvalidInputError)
    assert.match(
      error.message,
      /setTimeSensitiveMany: awaited; expected .*`for await`.*`await many.collect\(\)`/,
    )
    return true
  })
  assert.equal(sandbox.requestCount(), 0)
  assert.equal((await all(many)).length, 1, 'it can still be read')
  for (const promise of [Promise.resolve([pin]), { then: () => {} }]) {
    assert.throws(
      () => client.setTimeSensitiveMany(promise),
      /requests: a promise; expected an iterable or async iterable of requests; await the promise first/,
    )
  }
})

test('two loops and single calls at once', async (t) => {
  const sandbox = sandboxFor(t)
  const client = clientOf(sandbox, fast)
  const [first, second, call] = await Promise.all([
    all(client.setTimeSensitiveMany(pins(200))),
    all(client.setTimeSensitiveMany(pins(300), { concurrency: 7 })),
    client.setBotTimeSensitive({ userIds: [member], timeSensitive: true }),
  ])
  assert.deepEqual([first.length, second.length, call.ok], [200, 300, true])
  assert.equal(sandbox.tokenFetches(), 1)
})

test('next() may be called again before its promise resolves', async (t) => {
  const many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(pins(5))
  const results = await Promise.all(Array.from({ length: 8 }, () => many.next()))
  assert.deepEqual(
    results.map(({ done }) => done),
    [...Array(5).fill(false), ...Array(3).fill(true)],
  )
})

describe('progress', () => {
  test('has the number of requests that wait for the quota, and the least time to wait', async (t) => {
    const sandbox = sandboxFor(t)
    const client = clientOf(sandbox, { rateLimit: { perSecond: 5, perMinute: 1000 } })
    const seen = []
    await all(client.setTimeSensitiveMany(pins(12), { progress: (progress) => seen.push(progress) }))
    const [first] = seen
    assert.ok(first.waitingForQuota > 0 && first.etaMs > 0, JSON.stringify(first))
    assert.equal(first.total, 12)
    assert.deepEqual(seen.at(-1), { done: 12, total: 12, failed: 0, waitingForQuota: 0, etaMs: 0 })
    assert.ok(seen.every(({ done }, index) => index === 0 || done > seen[index - 1].done))
  })

  test('is reported while all requests wait for the quota', async (t) => {
    const client = clientOf(sandboxFor(t), { rateLimit: { perSecond: 1, perMinute: 1 } })
    const seen = []
    const many = client.setTimeSensitiveMany(pins(2), { progress: (progress) => seen.push(progress) })
    await many.next()
    const next = many.next()
    await until(() => seen.length === 2)
    const [first, second] = seen
    assert.deepEqual([first.done, second.done, second.waitingForQuota], [1, 1, 1])
    assert.ok(second.etaMs < first.etaMs)
    await many.return()
    assert.deepEqual(await next, { done: true, value: undefined })
  })

  for (const way of ['throws', 'rejects with']) {
    test(`what it ${way} stops everything`, async (t) => {
      const mine = new RangeError('mine')
      const fail = () => {
        throw mine
      }
      const many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(counted(10_000)[0], {
        progress: way === 'throws' ? fail : async () => fail(),
      })
      await assert.rejects(all(many), (error) => error === mine)
      isExact(await many.report())
    })
  }
})
