import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import * as errors from 'feishu-feed-card'
import { chat, clientOf, deadUrl, member, outsider, pin, sandboxFor } from './stage.mjs'

const { FeedCardError } = errors

/** A call that fails with each kind of error: class name, fault, argument, options, and what to do before. */
const ways = {
  INVALID_INPUT: ['InvalidInputError', {}, { feedCardId: 'nowhere' }],
  AUTHENTICATION: ['AuthenticationError', {}, {}, { appSecret: 'wrong' }],
  PERMISSION_DENIED: ['PermissionDeniedError', { code: 230_027, status: 400 }],
  REJECTED: ['RejectedError', { code: 230_001, status: 400 }],
  RATE_LIMITED: ['RateLimitedError', { code: 99_991_400, status: 429, times: 0 }],
  QUOTA_EXHAUSTED: ['QuotaExhaustedError', { code: 99_991_403, status: 429 }],
  SERVER: ['ServerError', { code: 5000, status: 500, times: 0 }],
  UNEXPECTED_RESPONSE: ['UnexpectedResponseError', { html: true, status: 200 }],
  CONNECTION: ['ConnectionFailedError', { reset: 'before', times: 0 }],
  TIMEOUT: ['DeadlineExceededError', { delay_before_ms: 5000 }, { timeoutMs: 50 }],
  CLIENT_CLOSED: ['ClientClosedError', {}, {}, {}, (client) => client.close()],
}

for (const [code, [name, fault, call = {}, options = {}, before]] of Object.entries(ways)) {
  test(`${code} is a ${name}`, async (t) => {
    const sandbox = sandboxFor(t)
    sandbox.faults({ on: 'call', ...fault })
    const client = clientOf(sandbox, { maxRetries: 0, ...options })
    await before?.(client)
    await assert.rejects(client.setTimeSensitive({ ...pin, ...call }), (error) => {
      assert.ok(error instanceof errors[name], `${error}`)
      assert.ok(error instanceof FeedCardError && error instanceof Error)
      assert.equal(error.code, code)
      assert.equal(error.name, name)
      assert.equal(String(error), `${name}: ${error.message}`)
      // The error accounts for the user.
      const all = [...error.reached, ...error.failed, ...error.unknown, ...error.notAttempted]
      assert.deepEqual(all, [member])
      return true
    })
  })
}

test('each error class but PartialFailureError is tested here', () => {
  const kinds = Object.values(errors).filter((value) => value?.prototype instanceof FeedCardError)
  assert.deepEqual(
    kinds.map(({ name }) => name).toSorted(),
    [...Object.values(ways).map(([name]) => name), 'PartialFailureError'].toSorted(),
  )
})

test("a refusal has the platform's code, status, log id and hint", async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.putApp({ app_id: 'cli_poor', app_secret: 's', scopes: [] })
  const client = clientOf(sandbox, { appId: 'cli_poor', appSecret: 's' })
  await assert.rejects(client.setTimeSensitive(pin), (error) => {
    assert.equal(error.platformCode, 99_991_672)
    assert.equal(error.httpStatus, 400)
    assert.equal(error.retryable, false)
    assert.equal(error.attempts, 1)
    assert.equal(error.station, 'answer')
    assert.match(error.logId, /^[\da-f]{32}$/)
    assert.match(error.hint, /im:datasync\.feed_card\.time_sensitive:write/)
    assert.deepEqual(error.permissionViolations, [
      { type: 'action_scope_required', subject: 'im:datasync.feed_card.time_sensitive:write' },
    ])
    assert.deepEqual(error.failed, [member])
    return true
  })
})

test('the error of a split call has the outcome of the other parts', async (t) => {
  const sandbox = sandboxFor(t)
  const client = clientOf(sandbox, { maxUsersPerRequest: 1, maxRetries: 0 })
  await client.setTimeSensitive(pin)
  sandbox.faults({ on: 'call' }, { on: 'call', code: 230_001, status: 400 })
  await assert.rejects(client.setTimeSensitive({ ...pin, userIds: [member, outsider] }), (error) => {
    assert.equal(error.code, 'REJECTED')
    assert.ok(error.outcome instanceof errors.Outcome)
    assert.deepEqual(error.outcome.reached, [member])
    assert.deepEqual([error.reached, error.failed], [[member], [outsider]])
    return true
  })
})

test('messages have the names of JavaScript, and values and texts of the platform are not changed', async (t) => {
  const client = clientOf({ baseUrl: deadUrl() }, { maxRetries: 0 })
  await assert.rejects(client.setTimeSensitive(pin), ({ hint, message }) => {
    assert.match(hint, /port in baseUrl/)
    assert.ok(message.endsWith(hint))
    return true
  })
  const { httpsBaseUrl } = sandboxFor(t, { https: true })
  await assert.rejects(
    clientOf({ baseUrl: httpsBaseUrl }).setTimeSensitive(pin),
    ({ hint, message, reason }) => {
      assert.equal(reason, 'tls_untrusted')
      assert.match(hint, /with caCerts/)
      assert.ok(message.endsWith(hint))
      return true
    },
  )
  await assert.rejects(client.setTimeSensitive({ ...pin, userIds: ['user_ids'] }), ({ field, message }) => {
    assert.equal(field, 'userIds[0]')
    assert.match(message, /^userIds\[0\]: "user_ids"; expected .* userIdType is `open_id`$/)
    return true
  })
  assert.throws(() => clientOf({ baseUrl: deadUrl() }, { connectTimeoutMs: -1 }), {
    field: 'connectTimeoutMs',
    message: 'connectTimeoutMs: -1; expected a positive, finite number of milliseconds',
  })
  assert.throws(() => new errors.Client({}), {
    field: 'appId',
    message:
      'appId: missing; expected appId with appSecret (or FEISHU_APP_ID with FEISHU_APP_SECRET and fromEnv), a tenantAccessToken, or a tokenProvider',
  })
  const sandbox = sandboxFor(t)
  sandbox.faults({ on: 'call', delay_before_ms: 5000 })
  await assert.rejects(
    clientOf(sandbox, { attemptTimeoutMs: 50, maxRetries: 0 }).setTimeSensitive(pin),
    /^DeadlineExceededError: the attemptTimeoutMs passed/,
  )
  sandbox.faults({
    on: 'call',
    code: 230_001,
    msg: 'param is invalid, ext=user_ids and base_url',
    status: 400,
  })
  await assert.rejects(clientOf(sandbox).setTimeSensitive(pin), /ext=user_ids and base_url/)
})

describe('the stack', () => {
  const here = /errors\.test\.mjs/

  async function caller(client, call) {
    await client.setTimeSensitive(call)
  }

  test('begins at the line that awaits', async (t) => {
    const client = clientOf(sandboxFor(t))
    for (const call of [
      { ...pin, feedCardId: 'oc_nowhere' },
      { ...pin, feedCardId: 'nowhere' },
      { ...pin, userIds: 1 },
    ]) {
      await assert.rejects(caller(client, call), ({ stack, message }) => {
        const [head, ...frames] = stack.slice(stack.indexOf(message) + message.length).split('\n')
        assert.equal(head, '')
        assert.match(frames[0], /at (async )?caller/)
        assert.match(frames[0], here)
        return true
      })
    }
  })

  test('exists without an awaiting caller', async (t) => {
    const client = clientOf(sandboxFor(t))
    const error = await new Promise((resolve) => {
      client.setTimeSensitive({ ...pin, feedCardId: 'oc_nowhere' }).then(undefined, resolve)
    })
    assert.match(error.stack, /\n {4}at /)
  })

  test('of a constructor and of throwIfFailed begins at their caller', async (t) => {
    const first = (stack) => stack.split('\n').find((line) => line.startsWith('    at '))
    const client = clientOf(sandboxFor(t))
    const outcome = await client.setTimeSensitive({ ...pin, userIds: [outsider] })
    assert.throws(
      () => outcome.throwIfFailed(),
      ({ stack }) => here.test(first(stack)),
    )
    assert.throws(
      () => new errors.Client({}),
      ({ stack }) => here.test(first(stack)),
    )
    assert.throws(
      () => new errors.Client({ appId: 1 }),
      ({ stack }) => here.test(first(stack)),
    )
  })
})

test('an error has its causes, the outermost first', async (t) => {
  const garbage = createServer((socket) => socket.end('this is not HTTP\r\n\r\n')).listen(0, '127.0.0.1')
  t.after(() => garbage.close())
  await new Promise((resolve) => garbage.on('listening', resolve))
  const client = clientOf({ baseUrl: `http://127.0.0.1:${garbage.address().port}` }, { maxRetries: 0 })
  await assert.rejects(client.setTimeSensitive(pin), (error) => {
    assert.equal(error.code, 'CONNECTION')
    const causes = []
    for (let { cause } = error; cause !== undefined; { cause } = cause) {
      assert.ok(cause instanceof Error)
      causes.push(cause.message)
    }
    assert.ok(causes.length > 0)
    assert.ok(error.message.includes(`): ${causes.at(-1)} (`), `${error.message} ${causes}`)
    return true
  })
})

test('an error can be printed and converted to JSON', async (t) => {
  const client = clientOf(sandboxFor(t))
  await assert.rejects(client.setTimeSensitive({ ...pin, feedCardId: 'oc_nowhere' }), (error) => {
    const json = JSON.parse(JSON.stringify(error))
    assert.equal(json.type, 'RejectedError')
    assert.equal(json.message, error.message)
    assert.equal(json.platformCode, 232_006)
    assert.equal('stack' in json, false)
    const text = inspect(error)
    assert.match(text, /platformCode: 232006/)
    // Empty properties are not printed.
    assert.doesNotMatch(text, /reached|fieldViolations|undefined/)
    assert.deepEqual(error.reached, [])
    return true
  })
})

test('an error can be constructed, for tests of code that catches it', () => {
  const error = new errors.RateLimitedError('busy', { retryAfterMs: 20, retryable: true })
  assert.equal(error.code, 'RATE_LIMITED')
  assert.deepEqual([error.retryAfterMs, error.retryable, error.attempts, error.reached], [20, true, 0, []])
  assert.equal(new FeedCardError('base').name, 'FeedCardError')
})

test('a failing call returns a rejected promise and never throws', async (t) => {
  const client = clientOf(sandboxFor(t))
  for (const call of [undefined, null, 5, { feedCardId: Symbol('x') }, { ...pin, userIds: chat }]) {
    const promise = client.setTimeSensitive(call)
    assert.ok(promise instanceof Promise)
    await assert.rejects(promise, { code: 'INVALID_INPUT' })
  }
})
