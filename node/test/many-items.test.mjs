import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client, InvalidInputError, Many, Outcome, RejectedError } from 'feishu-feed-card'
import { all, byIndex, fast, pins, slow } from './many.mjs'
import { chat, clientOf, member, outsider, pin, sandboxFor, unpin } from './stage.mjs'

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

test('an invalid option or source is an error that names the field', (t) => {
  const client = clientOf(sandboxFor(t))
  const isWrong = (field) => (error) => {
    assert.ok(error instanceof InvalidInputError, `${error.stack}`)
    assert.equal(error.field, field)
    assert.match(error.stack, /many-items\.test\.mjs/)
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
