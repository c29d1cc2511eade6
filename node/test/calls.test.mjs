import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Client, ClientClosedError, InvalidInputError, Outcome, PartialFailureError } from 'feishu-feed-card'
import { chat, clientOf, deadUrl, member, outsider, pin, sandboxFor, secret, unpin, until } from './stage.mjs'

test('an Outcome cannot be constructed', async (t) => {
  const outcome = await clientOf(sandboxFor(t)).setTimeSensitive(pin)
  const data = { ...outcome.toJSON(), users: {} }
  for (const construct of [
    () => new Outcome(),
    () => new Outcome(data),
    () => new Outcome(data, Symbol('outcome')),
    () => new outcome.constructor(data),
    () => new (class extends Outcome {})(data),
  ]) {
    assert.throws(construct, { name: 'TypeError', message: /Outcome has no public constructor/ })
  }
  assert.deepEqual(structuredClone(outcome), { ...outcome })
  assert.equal(outcome.toJSON().requests, 1)
})

test('a call pins, and another one unpins', async (t) => {
  const sandbox = sandboxFor(t)
  const client = clientOf(sandbox)
  const outcome = await client.setTimeSensitive(pin)
  assert.ok(outcome instanceof Outcome)
  assert.equal(outcome.ok, true)
  assert.equal(outcome.requests, 1)
  assert.deepEqual(outcome.logIds, [outcome.logId])
  assert.deepEqual(outcome.reached, [member])
  assert.deepEqual(sandbox.pinned(member), [chat])
  await client.setTimeSensitive(unpin)
  assert.deepEqual(sandbox.pinned(member), [])
})

test("setBotTimeSensitive pins the bot's own chat", async (t) => {
  const sandbox = sandboxFor(t)
  await clientOf(sandbox).setBotTimeSensitive({ userIds: [member], timeSensitive: true })
  assert.deepEqual(sandbox.botPinned(member), ['cli_example'])
})

test('an outcome lists failed users, and throwIfFailed throws them', async (t) => {
  const client = clientOf(sandboxFor(t))
  const outcome = await client.setTimeSensitive({ ...pin, userIds: [member, outsider] })
  assert.equal(outcome.ok, false)
  assert.deepEqual(outcome.failedUserReasons, [
    { errorCode: 0, errorMessage: 'The user is not in the chat', userId: outsider },
  ])
  assert.throws(
    () => outcome.throwIfFailed(),
    (error) => {
      assert.ok(error instanceof PartialFailureError)
      assert.match(error.message, /1 of 2 users were not reached/)
      assert.equal(error.outcome, outcome)
      assert.deepEqual([error.reached, error.failed], [[member], [outsider]])
      return true
    },
  )
  const reached = await client.setTimeSensitive(pin)
  assert.equal(reached.throwIfFailed(), reached)
})

test('each userIdType is accepted', async (t) => {
  const client = clientOf(sandboxFor(t))
  const ids = { open_id: member, union_id: member.replace('ou_', 'on_'), user_id: '9d2beb61' }
  for (const [userIdType, id] of Object.entries(ids)) {
    const outcome = await client.setTimeSensitive({ ...pin, userIds: [id], userIdType })
    assert.ok(outcome.ok, userIdType)
  }
})

test('undefined is the same as a missing option or argument', async (t) => {
  const client = clientOf(sandboxFor(t), {
    timeoutMs: undefined,
    rateLimit: undefined,
    tokenProvider: undefined,
  })
  const outcome = await client.setTimeSensitive({
    ...pin,
    userIdType: undefined,
    signal: undefined,
    timeoutMs: undefined,
  })
  assert.ok(outcome.ok)
})

test('a store app uses the ticket of setAppTicket', async (t) => {
  const sandbox = sandboxFor(t)
  const client = clientOf(sandbox, { appId: 'cli_example_store', tenantKey: 'tenant_example' })
  client.setAppTicket(sandbox.appTicket('cli_example_store'))
  assert.ok((await client.setTimeSensitive(pin)).ok)
  assert.throws(() => client.setAppTicket(''), { code: 'INVALID_INPUT', field: 'appTicket' })
  assert.throws(() => clientOf(sandbox).setAppTicket('g-1'), { code: 'INVALID_INPUT', field: 'appTicket' })
})

test('a method without its client rejects', async (t) => {
  const { setTimeSensitive } = clientOf(sandboxFor(t))
  await assert.rejects(setTimeSensitive(pin), TypeError)
})

test('opposite calls on one chat keep their order', async (t) => {
  const sandbox = sandboxFor(t)
  const client = clientOf(sandbox)
  for (let round = 0; round < 20; round += 1) {
    sandbox.faults({ on: 'call', delay_before_ms: 5 })
    await Promise.all([client.setTimeSensitive(pin), client.setTimeSensitive(unpin)])
    assert.deepEqual(sandbox.pinned(member), [], `round ${round}`)
  }
})

test('clients can share a quota', async (t) => {
  const sandbox = sandboxFor(t)
  const first = clientOf(sandbox, { rateLimit: { perSecond: 2, perMinute: 100 } })
  const second = clientOf(sandbox, { quota: first.quota })
  await first.setTimeSensitive(pin)
  await first.setTimeSensitive(pin)
  await assert.rejects(second.setTimeSensitive({ ...pin, timeoutMs: 100 }), (error) => {
    assert.equal(error.code, 'RATE_LIMITED')
    assert.ok(error.retryAfterMs > 0 && error.retryAfterMs <= 1100, `${error.retryAfterMs}`)
    return true
  })
  assert.equal(clientOf(sandbox, { rateLimit: false }).quota, undefined)
  assert.throws(() => clientOf(sandbox, { quota: first.quota, rateLimit: false }), { field: 'rateLimit' })
})

describe('fromEnv', () => {
  const variables = ['FEISHU_APP_ID', 'FEISHU_APP_SECRET', 'FEISHU_BASE_URL']
  const set = (values) => {
    for (const [index, name] of variables.entries()) {
      delete process.env[name]
      if (values[index] !== undefined) {
        process.env[name] = values[index]
      }
    }
  }

  test('reads the environment variables', async (t) => {
    t.after(() => set([]))
    const sandbox = sandboxFor(t)
    set(['cli_example', secret, sandbox.baseUrl])
    assert.ok((await Client.fromEnv().setTimeSensitive(pin)).ok)
  })

  test('an option takes precedence over a variable, and an empty variable is ignored', async (t) => {
    t.after(() => set([]))
    const sandbox = sandboxFor(t)
    set(['', 'wrong', deadUrl()])
    assert.throws(() => Client.fromEnv(), { code: 'INVALID_INPUT', field: 'appId', message: /fromEnv/ })
    assert.throws(() => Client.fromEnv(), {
      message: /FEISHU_APP_ID/,
      hint: /FEISHU_APP_ID/,
      stack: /calls\.test/,
    })
    assert.throws(
      () => Client.fromEnv({ appId: ' ' }),
      (error) => !/variable/.test(error.message),
    )
    const client = Client.fromEnv({ appId: 'cli_example', appSecret: secret, baseUrl: sandbox.baseUrl })
    assert.ok((await client.setTimeSensitive(pin)).ok)
  })
})

describe('close', () => {
  test('waits for calls in progress, and refuses later ones', async (t) => {
    const sandbox = sandboxFor(t)
    const client = clientOf(sandbox)
    sandbox.faults({ on: 'call', delay_before_ms: 100 })
    const call = client.setTimeSensitive(pin)
    await client.close()
    assert.deepEqual(sandbox.pinned(member), [chat])
    assert.ok((await call).ok)
    for (const late of [
      () => client.setTimeSensitive({ ...pin, userIds: [member, outsider, member] }),
      () => client.setBotTimeSensitive({ userIds: [member, outsider], timeSensitive: true }),
    ]) {
      await assert.rejects(late, (error) => {
        assert.ok(error instanceof ClientClosedError)
        assert.ok(!(error instanceof InvalidInputError))
        assert.match(error.message, /closed/)
        assert.deepEqual(error.notAttempted, [member, outsider])
        return true
      })
    }
    assert.throws(() => client.setAppTicket('ticket'), ClientClosedError)
    await client.close()
  })

  test('stops the remaining calls after its timeout', async (t) => {
    const sandbox = sandboxFor(t)
    const client = clientOf(sandbox)
    sandbox.faults({ on: 'call', delay_before_ms: 20_000 })
    const call = client.setTimeSensitive(pin)
    call.catch(() => {})
    await until(() => sandbox.requestCount() === 2)
    const began = performance.now()
    const first = client.close()
    await Promise.all([client.close({ timeoutMs: 200 }), client.close({ timeoutMs: 15_000 }), first])
    const took = performance.now() - began
    assert.ok(took >= 199 && took < 5000, `${took} ms`)
    await assert.rejects(call, (error) => {
      assert.ok(error instanceof ClientClosedError)
      assert.deepEqual([error.code, error.station, error.retryable], ['CLIENT_CLOSED', 'answer', false])
      assert.deepEqual([error.unknown, error.notAttempted], [[member], []])
      return true
    })
    await client.close({ timeoutMs: 0 })
  })

  test('stops calls at once if the timeout is 0', async (t) => {
    const sandbox = sandboxFor(t)
    const client = clientOf(sandbox)
    sandbox.faults({ on: 'call', delay_before_ms: 20_000 })
    const calls = [client.setTimeSensitive(pin), client.setTimeSensitive(unpin)]
    calls.forEach((call) => call.catch(() => {}))
    await until(() => sandbox.requestCount() === 2)
    await client.close({ timeoutMs: 0 })
    await assert.rejects(calls[0], { code: 'CLIENT_CLOSED', station: 'answer', unknown: [member] })
    await assert.rejects(calls[1], { code: 'CLIENT_CLOSED', station: 'order', notAttempted: [member] })
  })

  test('refuses a wrong timeout, and leaves the client open', async (t) => {
    const client = clientOf(sandboxFor(t))
    for (const timeoutMs of [-1, Number.NaN, Number.POSITIVE_INFINITY, '5', null]) {
      await assert.rejects(client.close({ timeoutMs }), (error) => {
        assert.ok(error instanceof InvalidInputError, `${error}`)
        assert.equal(error.field, 'timeoutMs')
        assert.match(error.stack, /calls\.test\.mjs/)
        return true
      })
    }
    await assert.rejects(client.close({ timeout: 5 }), { code: 'INVALID_INPUT', field: 'timeout' })
    await assert.rejects(client.close(5), { code: 'INVALID_INPUT', field: 'close' })
    assert.ok((await client.setTimeSensitive(pin)).ok)
  })

  test('is what await using calls', async (t) => {
    const client = clientOf(sandboxFor(t))
    await client.setTimeSensitive(pin)
    await client[Symbol.asyncDispose]()
    await assert.rejects(client.setTimeSensitive(pin), /closed/)
  })
})
