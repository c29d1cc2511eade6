import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  Client,
  ClientClosedError,
  DeadlineExceededError,
  InvalidInputError,
  Many,
  Outcome,
  RejectedError,
} from 'feishu-feed-card'
import { chat, clientOf, member, outsider, pin, run, sandboxFor, unpin, until } from './stage.mjs'

const fast = { rateLimit: false, lateArrivalMs: 1 }
const slow = { on: 'call', times: 0, delay_before_ms: 60_000 }

/** Equal calls, each a new object. */
const pins = (count) => Array.from({ length: count }, () => ({ ...pin }))

async function all(many) {
  const items = []
  for await (const item of many) {
    items.push(item)
  }
  return items
}

/** All items, and the error after the last item if the total timeout passed before all requests were read. */
async function allUntilCut(many) {
  const items = []
  try {
    for await (const item of many) {
      items.push(item)
    }
  } catch (error) {
    return [items, error]
  }
  throw new Error('no error followed')
}

/** Blocks the thread, as a source that computes or reads a file does. */
function block(ms) {
  const end = performance.now() + ms
  while (performance.now() < end);
}

const byIndex = (items) => items.toSorted((one, other) => one.index - other.index)

/** A generator that counts how many values were taken from it, and how often it was closed. */
function counted(count) {
  const seen = { read: 0, closed: 0 }
  function* generate() {
    try {
      for (let index = 0; index < count; index += 1) {
        seen.read += 1
        yield { ...pin }
      }
    } finally {
      seen.closed += 1
    }
  }
  return [generate(), seen]
}

function isExact(report) {
  assert.equal(report.taken, report.succeeded + report.failed + report.unfinished.length)
  const indices = [...report.unread, ...report.unfinished].map(({ index }) => index)
  assert.equal(new Set(indices).size, indices.length)
  for (const { index, request, reached, failed, unknown, notAttempted } of report.unfinished) {
    assert.ok(index < report.taken)
    assert.deepEqual([...reached, ...failed, ...unknown, ...notAttempted], request.userIds)
  }
}

describe('each request has one item', () => {
  const requests = pins(150)
  async function* later() {
    for (const request of requests) {
      if (Math.random() < 0.05) {
        await sleep(1)
      }
      yield request
    }
  }
  const sources = {
    'an array': () => requests,
    'a Set': () => new Set(requests),
    'a generator': () => requests.values(),
    'an async generator': later,
    'an object with an iterator': () => ({ [Symbol.iterator]: () => requests.values() }),
  }
  for (const [name, source] of Object.entries(sources)) {
    test(name, async (t) => {
      const sandbox = sandboxFor(t)
      const seen = []
      const many = clientOf(sandbox, fast).setTimeSensitiveMany(source(), {
        progress: (progress) => seen.push(progress),
      })
      assert.ok(many instanceof Many)
      const items = byIndex(await all(many))
      assert.equal(items.length, 150)
      for (const [index, item] of items.entries()) {
        assert.equal(item.index, index)
        assert.equal(item.request, requests[index])
        assert.ok(item.outcome instanceof Outcome)
        assert.ok(item.outcome.ok)
        assert.ok(!('error' in item))
      }
      const total = ['an array', 'a Set'].includes(name) ? 150 : undefined
      assert.deepEqual(seen.at(-1), {
        done: 150,
        failed: 0,
        waitingForQuota: 0,
        ...(total && { total, etaMs: 0 }),
      })
      assert.deepEqual(await many.next(), { done: true, value: undefined })
      assert.deepEqual(await many.report(), {
        taken: 150,
        succeeded: 150,
        failed: 0,
        notRead: 0,
        failures: [],
        unread: [],
        unfinished: [],
      })
      assert.equal(sandbox.requestCount(), 151)
    })
  }

  test('no requests', async (t) => {
    const sandbox = sandboxFor(t)
    assert.deepEqual(await all(clientOf(sandbox).setTimeSensitiveMany([])), [])
    assert.equal(sandbox.requestCount(), 0)
  })
})

test('a failed or invalid request does not end the loop', async (t) => {
  const requests = [
    pin,
    { ...pin, feedCardId: 'oc_nowhere' },
    null,
    { ...pin, userIds: [member, 5, member, outsider] },
    { ...pin, userIds: [member, 'on_1'] },
    { ...pin, userIdType: 'openid' },
    { ...pin, timeoutMs: -1 },
    { ...pin, signal: AbortSignal.abort() },
    { ...pin, user_ids: [] },
    { feedCardId: chat, timeSensitive: true },
    { ...pin, userIds: outsider },
    { ...pin, userIds: ['ou_"\\\u2028\ud83d\ude00'] },
    [pin],
    { ...pin, userIds: [member, outsider] },
  ]
  const client = clientOf(sandboxFor(t), fast)
  const many = client.setTimeSensitiveMany(requests)
  const items = byIndex(await all(many))
  const told = items.map(({ error, outcome }) => [
    error?.field ?? error?.code ?? outcome.ok,
    (error ?? outcome).notAttempted,
  ])
  assert.deepEqual(told, [
    [true, []],
    ['REJECTED', []],
    ['requests[2]', []],
    ['userIds[1]', [member, outsider]],
    ['userIds[1]', [member, 'on_1']],
    ['userIdType', [member]],
    ['timeoutMs', [member]],
    ['signal', [member]],
    ['user_ids', [member]],
    ['userIds', []],
    ['userIds', [outsider]],
    [false, []],
    ['requests[12]', []],
    [false, []],
  ])
  for (const [index, { request, error }] of items.entries()) {
    assert.equal(request, requests[index])
    assert.ok(error === undefined || error instanceof InvalidInputError || error instanceof RejectedError)
  }
  assert.deepEqual(items[13].outcome.failed, [outsider])
  const { taken, succeeded, failed, unread, unfinished } = await many.report()
  assert.deepEqual([taken, succeeded, failed, unread, unfinished], [14, 1, 13, [], []])
})

test('a request may have its own timeoutMs and userIdType', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults({ on: 'call', delay_before_ms: 5000 })
  const requests = [{ ...pin, timeoutMs: 50 }]
  const [{ error }] = await all(clientOf(sandbox, fast).setTimeSensitiveMany(requests))
  assert.equal(error.code, 'TIMEOUT')
  assert.deepEqual(error.unknown, [member])
  const [{ outcome }] = await all(
    clientOf(sandbox).setTimeSensitiveMany([
      { ...pin, userIdType: 'union_id', userIds: ['on_8ed6aa67826108097d9ee143816345'] },
    ]),
  )
  assert.ok(outcome instanceof Outcome)
  assert.equal(sandbox.requests().at(-1).query, 'user_id_type=union_id')
})

test('an exception of the token provider is the cause of an error', async (t) => {
  const mine = new RangeError('mine')
  const { baseUrl } = sandboxFor(t)
  const client = new Client({
    baseUrl,
    maxRetries: 0,
    tokenProvider() {
      throw mine
    },
  })
  const [{ error }] = await all(client.setTimeSensitiveMany([pin]))
  assert.equal(error.cause, mine)
})

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

describe('a tag', () => {
  test('is on each kind of item', async (t) => {
    const tag = { row: 7 }
    const requests = [
      { ...pin, tag },
      { ...pin, tag: undefined },
      pin,
      { ...pin, feedCardId: 'oc_nowhere', tag: 3 },
      { ...pin, feedCardId: 'nowhere', tag: 4 },
      { ...pin, timeoutMs: 'soon', tag: 5 },
      { userIds: 7, tag: 6 },
      null,
    ]
    const many = clientOf(sandboxFor(t), fast).setTimeSensitiveMany(requests)
    const items = byIndex(await all(many))
    assert.deepEqual(
      items.map((item) => item.tag),
      [tag, undefined, undefined, 3, 4, 5, 6, undefined],
    )
    assert.equal(items[0].tag, tag)
    const { failures, failed } = await many.report()
    assert.equal(failed, 5)
    assert.deepEqual(failures, items.slice(3))
    assert.ok(failures.every((item) => item === items[item.index]))
  })

  test('is on unfinished requests', async (t) => {
    const sandbox = sandboxFor(t)
    sandbox.faults(slow)
    const thrown = new Error('the row is gone')
    const bad = {
      ...pin,
      tag: 'second',
      get timeSensitive() {
        throw thrown
      },
    }
    const many = clientOf(sandbox, fast).setTimeSensitiveMany([{ ...pin, tag: 'first' }, bad])
    await assert.rejects(all(many), (error) => error === thrown)
    const { unfinished } = await many.report()
    assert.deepEqual(
      unfinished.map((left) => left.tag),
      ['first', 'second'],
    )
  })

  test('is mentioned by the error for an unknown key', async (t) => {
    const request = { ...pin, rowId: 7, tag: 'mine' }
    const { items } = await clientOf(sandboxFor(t), fast).setTimeSensitiveMany([request]).collect()
    const [{ error, tag }] = items
    assert.ok(error instanceof InvalidInputError)
    assert.equal(error.field, 'rowId')
    assert.equal(
      error.message,
      'rowId: unknown key of a request; expected feedCardId, userIds, timeSensitive, userIdType, timeoutMs, ' +
        'or tag for any value of yours',
    )
    assert.deepEqual(error.notAttempted, [member])
    assert.equal(tag, 'mine')
  })
})

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

test('opposite calls on one chat keep their order', async (t) => {
  const sandbox = sandboxFor(t)
  const client = clientOf(sandbox, fast)
  const items = await all(client.setTimeSensitiveMany([pin, unpin, pin, unpin]))
  assert.deepEqual(
    items.map(({ index }) => index),
    [0, 1, 2, 3],
  )
  assert.deepEqual(sandbox.pinned(member), [])
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

test('an invalid option or source is an error that names the field', (t) => {
  const client = clientOf(sandboxFor(t))
  const isWrong = (field) => (error) => {
    assert.ok(error instanceof InvalidInputError, `${error.stack}`)
    assert.equal(error.field, field)
    assert.match(error.stack, /many\.test\.mjs/)
    assert.doesNotMatch(error.stack, /dist/)
    return true
  }
  for (const requests of [undefined, null, 5, chat, {}, () => pin]) {
    assert.throws(() => client.setTimeSensitiveMany(requests), isWrong('requests'))
  }
  const wrong = {
    concurrency: [null, '5', 0, -1, 1.5, Number.NaN],
    progress: [null, 'bar', {}],
    totalTimeoutMs: [null, 0, -1, '5', Number.POSITIVE_INFINITY],
    signal: [null, {}, new AbortController()],
    total: [5],
    timeoutMs: [5],
  }
  for (const [field, values] of Object.entries(wrong)) {
    for (const value of values) {
      assert.throws(() => client.setTimeSensitiveMany([], { [field]: value }), isWrong(field))
    }
  }
  for (const options of [null, 5, []]) {
    assert.throws(() => client.setTimeSensitiveMany([], options), isWrong('setTimeSensitiveMany'))
  }
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
