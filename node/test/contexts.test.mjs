// The async context of a call, and its number, in callbacks, events, outcomes and errors.

import assert from 'node:assert/strict'
import { AsyncLocalStorage } from 'node:async_hooks'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from 'feishu-feed-card'
import { chat, clientOf, member, outsider, pin, run, sandboxFor, until } from './stage.mjs'

const storage = new AsyncLocalStorage()
const inRequest = (id, callback) => storage.run(id, callback)

/** A client that keeps its events, each with the store it was told in. */
function watched(sandbox, options = {}) {
  const events = []
  const onEvent = (event) => events.push({ ...event, store: storage.getStore() })
  return [clientOf(sandbox, { rateLimit: false, lateArrivalMs: 1, onEvent, ...options }), events]
}

async function tokenOf(sandbox) {
  const answer = await fetch(`${sandbox.baseUrl}/open-apis/auth/v3/tenant_access_token/internal`, {
    method: 'POST',
    body: JSON.stringify({ app_id: 'cli_example', app_secret: 'example-secret' }),
  })
  return (await answer.json()).tenant_access_token
}

describe('onEvent runs in the async context', () => {
  test('of each call', async (t) => {
    const sandbox = sandboxFor(t)
    sandbox.faults({ on: 'call', times: 5, code: 5000, msg: 'internal' })
    const [client, events] = watched(sandbox)
    const ids = Array.from({ length: 20 }, (_, index) => `request ${index}`)
    const outcomes = await Promise.all(ids.map((id) => inRequest(id, () => client.setTimeSensitive(pin))))
    for (const [index, { call }] of outcomes.entries()) {
      const own = events.filter((event) => event.call === call)
      assert.ok(own.length >= 3)
      assert.deepEqual(new Set(own.map(({ store }) => store)), new Set([ids[index]]))
    }
    assert.equal(new Set(outcomes.map(({ call }) => call)).size, 20)
    assert.ok(events.every(({ call }) => typeof call === 'number'))
  })

  test('of many calls', async (t) => {
    const [client, events] = watched(sandboxFor(t))
    const calls = new Map()
    for (const id of ['first', 'second']) {
      const many = inRequest(id, () => client.setTimeSensitiveMany([pin, pin, pin]))
      for await (const { outcome } of many) {
        calls.set(outcome.call, id)
      }
    }
    assert.equal(calls.size, 6)
    for (const { name, call, store } of events) {
      assert.equal(store, calls.get(call), name)
    }
  })

  test('also when the call was stopped, and of a token fetch that outlives it', async (t) => {
    const sandbox = sandboxFor(t)
    sandbox.faults({ on: 'token', delay_before_ms: 300 })
    const [client, events] = watched(sandbox)
    await assert.rejects(
      inRequest('late', () => client.setTimeSensitive({ ...pin, signal: AbortSignal.timeout(50) })),
    )
    await until(() => events.some(({ name }) => name === 'token_fetch'))
    const names = events.map(({ name }) => name)
    assert.ok(names.indexOf('call') < names.indexOf('token_fetch'), names.join())
    assert.deepEqual(new Set(events.map(({ store }) => store)), new Set(['late']))
  })
})

describe('tokenProvider runs in the async context', () => {
  const provided = (sandbox, stores) =>
    new Client({
      baseUrl: sandbox.baseUrl,
      rateLimit: false,
      tokenProvider: async () => {
        stores.push(storage.getStore())
        await sleep(1)
        stores.push(storage.getStore())
        return tokenOf(sandbox)
      },
    })

  test('of the call that wants a token', async (t) => {
    const sandbox = sandboxFor(t)
    const stores = []
    const client = provided(sandbox, stores)
    await inRequest('first', () => client.setTimeSensitive(pin))
    sandbox.revokeTokens()
    await inRequest('second', () => client.setTimeSensitive(pin))
    assert.deepEqual(stores, ['first', 'first', 'second', 'second'])
  })

  test('of many calls', async (t) => {
    const sandbox = sandboxFor(t)
    const stores = []
    const many = inRequest('many', () => provided(sandbox, stores).setTimeSensitiveMany([pin, pin]))
    for await (const { outcome } of many) {
      assert.ok(outcome.ok)
    }
    assert.deepEqual(stores, ['many', 'many'])
  })
})

describe('the onEvent of a call', () => {
  test("gets the events of its call, in the call's context", async (t) => {
    const sandbox = sandboxFor(t)
    for (const [client, all] of [watched(sandbox), [clientOf(sandbox)]]) {
      const own = []
      const onEvent = (event) => own.push([event, storage.getStore()])
      const [outcome] = await Promise.all([
        inRequest('mine', () => client.setTimeSensitive({ ...pin, onEvent })),
        client.setTimeSensitive({ ...pin, feedCardId: chat }),
      ])
      assert.ok(own.some(([{ name }]) => name === 'attempt'))
      assert.equal(own.at(-1)[0].name, 'call')
      for (const [event, store] of own) {
        assert.deepEqual([event.call, store], [outcome.call, 'mine'])
      }
      if (all) {
        assert.equal(all.filter(({ call }) => call === outcome.call).length, own.length)
      }
    }
  })

  test("works with a token provider, and for the bot's chat", async (t) => {
    const sandbox = sandboxFor(t)
    const token = await tokenOf(sandbox)
    const client = new Client({ tokenProvider: () => token, baseUrl: sandbox.baseUrl })
    const names = []
    const onEvent = ({ name }) => names.push(name)
    await client.setTimeSensitive(pin)
    await client.setBotTimeSensitive({ userIds: [member], timeSensitive: true, onEvent })
    assert.equal(names.filter((name) => name === 'call').length, 1)
  })

  test('gets the events of all of many calls', async (t) => {
    const own = []
    const client = clientOf(sandboxFor(t))
    const numbers = []
    const many = client.setTimeSensitiveMany([pin, pin, pin], { onEvent: (event) => own.push(event) })
    for await (const { outcome } of many) {
      numbers.push(outcome.call)
    }
    const calls = own.filter(({ name }) => name === 'call').map(({ call }) => call)
    assert.deepEqual(calls.toSorted(), numbers.toSorted())
  })

  test('must be a function', async (t) => {
    const client = clientOf(sandboxFor(t))
    const wrong = { code: 'INVALID_INPUT', field: 'onEvent' }
    await assert.rejects(client.setTimeSensitive({ ...pin, onEvent: 'log' }), wrong)
    assert.throws(() => client.setTimeSensitiveMany([], { onEvent: {} }), wrong)
    const many = client.setTimeSensitiveMany([{ ...pin, onEvent: () => {} }])
    for await (const { error } of many) {
      assert.equal(error.field, 'onEvent')
    }
  })

  test('does not prevent garbage collection', async (t) => {
    const end = await run('collected.mjs', [sandboxFor(t).baseUrl, 'watched'], { execArgv: ['--expose-gc'] })
    assert.equal(end.code, 0, end.stderr)
    assert.ok(Number(end.stdout) >= 19, end.stdout)
  })
})

test('errors and outcomes have the number of their call, with or without a listener', async (t) => {
  const sandbox = sandboxFor(t)
  const silent = clientOf(sandbox, { maxRetries: 0 })
  const first = await silent.setTimeSensitive(pin)
  const partly = await silent.setTimeSensitive({ ...pin, userIds: [member, outsider] })
  assert.ok(first.call < partly.call)
  assert.throws(() => partly.throwIfFailed(), { call: partly.call })
  await assert.rejects(
    silent.setTimeSensitive({ ...pin, feedCardId: 'wrong' }),
    ({ call }) => call === undefined,
  )

  const [client, events] = watched(sandbox, { maxUsersPerRequest: 1, maxRetries: 0 })
  sandbox.faults({ on: 'call' }, { on: 'call', code: 230_001, status: 400 })
  await assert.rejects(client.setTimeSensitive({ ...pin, userIds: [member, outsider] }), (error) => {
    const failed = events.find(({ name }) => name === 'failed')
    assert.deepEqual([error.call, error.outcome.call], [failed.call, failed.call])
    return true
  })
})

test('each event of level warn or info has the chat id', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults(
    { on: 'call', code: 5000, msg: 'internal' },
    { on: 'call', code: 99_991_400, status: 429, headers: { 'x-ogw-ratelimit-reset': '1' } },
    { on: 'call', revoke_tokens: true },
  )
  const [client, events] = watched(sandbox, { rateLimit: { perSecond: 50, perMinute: 1000 } })
  await client.setTimeSensitive(pin)
  sandbox.faults({ on: 'call', code: 230_001, status: 400 })
  await assert.rejects(client.setTimeSensitive(pin))
  const [wrong, itsEvents] = watched(sandbox, { appSecret: 'wrong' })
  await assert.rejects(wrong.setTimeSensitive(pin))
  const loud = [...events, ...itsEvents].filter(({ level }) => ['warn', 'info'].includes(level))
  for (const name of [
    'retrying',
    'the platform asks to slow down: all calls of the client pause',
    'the token was refused: taking another one',
    'failed',
    'failed to fetch a tenant_access_token',
  ]) {
    assert.ok(
      loud.some((event) => event.name === name),
      name,
    )
  }
  assert.ok(loud.every(({ feedCardId }) => feedCardId === chat))
})
