import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Client } from 'feishu-feed-card'
import { chat, clientOf, deadUrl, member, outsider, pin, run, sandboxFor, until } from './stage.mjs'

/** A client, and the list of its events. */
function watched(sandbox, options = {}) {
  const events = []
  const client = clientOf(sandbox, { onEvent: (event) => events.push(event), lateArrivalMs: 1, ...options })
  return [client, events]
}

const named = (events, name) => events.filter((event) => event.name === name)

test('a call reports its attempts, retry and token fetch before it ends', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults({ on: 'call', code: 5000, msg: 'internal' })
  const [client, events] = watched(sandbox)
  const userIds = [member, outsider]
  const outcome = await client.setTimeSensitive({ ...pin, userIds })

  const [fetch] = named(events, 'token_fetch')
  assert.ok(fetch.durationMs > 0)
  assert.equal(named(events, 'fetched a tenant_access_token').length, 1)
  const attempts = named(events, 'attempt')
  assert.deepEqual(
    attempts.map(({ attempt }) => attempt),
    [1, 2],
  )
  const [retrying] = named(events, 'retrying')
  assert.equal(retrying.level, 'info')
  assert.equal(retrying.code, 5000)
  assert.equal(retrying.kind, 'SERVER')
  assert.equal(retrying.attempt, 1)
  assert.equal(typeof retrying.status, 'number')
  assert.equal(typeof retrying.logId, 'string')
  assert.ok(retrying.waitMs > 0)
  const [done] = named(events, 'done')
  assert.equal(done.logId, outcome.logId)
  assert.deepEqual([done.requests, done.failedUsers], [2, 1])
  const call = events.at(-1)
  assert.equal(call.name, 'call')
  assert.ok(call.durationMs >= attempts[0].durationMs)
  for (const event of events) {
    assert.deepEqual(
      [event.call, event.feedCardId, event.users, event.timeSensitive],
      [call.call, chat, 2, true],
    )
    assert.match(event.level, /^(?:error|warn|info|debug|trace)$/)
  }
  const text = JSON.stringify(events)
  assert.ok(!text.includes(member) && !text.includes(outsider) && !text.includes('example-secret'))
})

test('a failure of a call or of a token fetch is a warning with its code', async (t) => {
  const sandbox = sandboxFor(t)
  const [client, events] = watched(sandbox)
  await assert.rejects(client.setTimeSensitive({ ...pin, feedCardId: 'oc_nowhere' }))
  const [failed] = named(events, 'failed')
  assert.deepEqual([failed.level, failed.code, failed.kind], ['warn', 232_006, 'REJECTED'])

  const [wrong, itsEvents] = watched(sandbox, { appSecret: 'wrong' })
  await assert.rejects(wrong.setTimeSensitive(pin))
  assert.equal(named(itsEvents, 'failed to fetch a tenant_access_token')[0].code, 10_014)
})

test('waits for the quota and many calls are reported', async (t) => {
  const [client, events] = watched(sandboxFor(t), { rateLimit: { perSecond: 2, perMinute: 100 } })
  for await (const { outcome } of client.setTimeSensitiveMany([pin, pin, pin])) {
    assert.ok(outcome.ok)
  }
  assert.ok(named(events, 'waiting for a slot of the quota').length > 0)
  assert.equal(named(events, 'done').length, 3)
  const calls = new Set(named(events, 'call').map(({ call }) => call))
  assert.equal(calls.size, 3)
})

test('each client gets its own events', async (t) => {
  const sandbox = sandboxFor(t)
  const [first, ofFirst] = watched(sandbox, { rateLimit: false })
  const [second, ofSecond] = watched(sandbox, { rateLimit: false })
  const silent = clientOf(sandbox, { rateLimit: false })
  const calls = (client, feedCardId, count) =>
    Array.from({ length: count }, () => client.setTimeSensitive({ ...pin, feedCardId }).catch(() => {}))
  await Promise.all([
    ...calls(first, 'oc_first', 30),
    ...calls(second, 'oc_second', 20),
    ...calls(silent, 'oc_silent', 20),
  ])
  assert.equal(named(ofFirst, 'call').length, 30)
  assert.equal(named(ofSecond, 'call').length, 20)
  assert.ok(ofFirst.every(({ feedCardId }) => feedCardId === 'oc_first'))
  assert.ok(ofSecond.every(({ feedCardId }) => feedCardId === 'oc_second'))
})

test('events of concurrent calls have the number of their call', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults({ on: 'call', times: 10, status: 500, body: '{"code":5000,"msg":"internal"}' })
  const [client, events] = watched(sandbox, { rateLimit: false })
  await Promise.all(Array.from({ length: 10 }, () => client.setTimeSensitive(pin)))
  const numbers = new Set(events.map(({ call }) => call))
  assert.equal(numbers.size, 10)
  for (const number of numbers) {
    const own = events.filter(({ call }) => call === number)
    const attempts = named(own, 'attempt').map(({ attempt }) => attempt)
    assert.deepEqual(
      attempts,
      attempts.map((_, index) => index + 1),
    )
    assert.equal(own.at(-1).name, 'call')
  }
})

test('a client without a listener does not disable the events of another client', async (t) => {
  const end = await run('watched-later.mjs', [sandboxFor(t).baseUrl])
  assert.deepEqual([end.code, end.stderr], [0, ''])
  assert.equal(end.stdout, 'attempt,call,done,failed,fetched a tenant_access_token,token_fetch')
})

test('an exception of onEvent fails no call and is an uncaught exception', async (t) => {
  const end = await run('event-throws.mjs', [sandboxFor(t).baseUrl])
  assert.deepEqual([end.code, end.stderr], [0, ''])
  const { ok, thrown, rejected } = JSON.parse(end.stdout)
  assert.ok(ok)
  assert.deepEqual(new Set(thrown), new Set(['on purpose']))
  assert.deepEqual(new Set(rejected), new Set(['async']))
})

test('onEvent does not keep the process alive', async (t) => {
  const end = await run('idle.mjs', [sandboxFor(t).baseUrl, 'watched'])
  assert.deepEqual([end.code, end.stdout], [0, 'done'])
})

test('a call stopped by close is reported as failed', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults({ on: 'call', delay_before_ms: 20_000 })
  const [client, events] = watched(sandbox)
  const call = client.setTimeSensitive(pin)
  await until(() => sandbox.requestCount() === 2)
  await Promise.all([
    assert.rejects(call, { code: 'CLIENT_CLOSED', unknown: pin.userIds }),
    client.close({ timeoutMs: 0 }),
  ])
  const [failed] = named(events, 'failed')
  assert.deepEqual([failed.level, failed.kind, failed.attempts], ['warn', 'CLIENT_CLOSED', 1])
})

test('an aborted call of a closed client is reported', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults({ on: 'call', delay_before_ms: 10_000 })
  const [client, events] = watched(sandbox)
  const controller = new AbortController()
  const call = client.setTimeSensitive({ ...pin, signal: controller.signal })
  await until(() => sandbox.requestCount() === 2)
  const closed = client.close()
  controller.abort()
  await assert.rejects(call, { name: 'AbortError' })
  await closed
  await until(() => named(events, 'call').length > 0)
  // An aborted call ends without `done` or `failed`.
  assert.equal(named(events, 'done').length + named(events, 'failed').length, 0)
})

test('onEvent must be a function', () => {
  for (const onEvent of [null, 'log', {}, 5]) {
    assert.throws(() => new Client({ appId: 'a', appSecret: 'b', baseUrl: deadUrl(), onEvent }), {
      code: 'INVALID_INPUT',
      field: 'onEvent',
    })
  }
})
