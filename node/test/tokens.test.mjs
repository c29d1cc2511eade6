import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { AuthenticationError, Client } from 'feishu-feed-card'
import { clientOf, pin, sandboxFor } from './stage.mjs'

/** Fetches a token that the sandbox accepts. */
async function tokenOf(sandbox) {
  const answer = await fetch(`${sandbox.baseUrl}/open-apis/auth/v3/tenant_access_token/internal`, {
    method: 'POST',
    body: JSON.stringify({ app_id: 'cli_example', app_secret: 'example-secret' }),
  })
  return (await answer.json()).tenant_access_token
}

const withProvider = (sandbox, tokenProvider, options = {}) =>
  new Client({ tokenProvider, baseUrl: sandbox.baseUrl, maxRetries: 0, ...options })

describe('a token provider may return', () => {
  const forms = {
    'a token': (token) => token,
    'a token with its life': (token) => ({ token, expiresInMs: 60_000 }),
    'a promise of a token': (token) => Promise.resolve(token),
    'a promise of a token with its life': async (token) => ({ token, expiresInMs: 0.5 }),
    'a thenable': (token) => ({ then: (resolve) => resolve(token) }),
  }
  for (const [name, form] of Object.entries(forms)) {
    test(name, async (t) => {
      const sandbox = sandboxFor(t)
      const token = await tokenOf(sandbox)
      assert.ok((await withProvider(sandbox, () => form(token)).setTimeSensitive(pin)).ok)
    })
  }
})

test('a provider is called once for concurrent calls, without a this', async (t) => {
  const sandbox = sandboxFor(t)
  const token = await tokenOf(sandbox)
  let asked = 0
  const client = withProvider(sandbox, async function provide() {
    assert.equal(this, undefined)
    asked += 1
    await sleep(20)
    return token
  })
  await Promise.all(Array.from({ length: 20 }, () => client.setTimeSensitive(pin)))
  assert.equal(asked, 1)
})

test('a provider is called again after the platform refuses the token', async (t) => {
  const sandbox = sandboxFor(t)
  let asked = 0
  const client = withProvider(sandbox, () => {
    asked += 1
    return tokenOf(sandbox)
  })
  await client.setTimeSensitive(pin)
  sandbox.revokeTokens()
  assert.ok((await client.setTimeSensitive(pin)).ok)
  assert.equal(asked, 2)
})

test('a provider gets the refused token', async (t) => {
  const sandbox = sandboxFor(t)
  const reasons = []
  const client = withProvider(sandbox, async (reason) => {
    reasons.push(reason)
    return { token: await tokenOf(sandbox), expiresInMs: 60_000 }
  })
  const first = await tokenOf(sandbox)
  await client.setTimeSensitive(pin)
  sandbox.revokeTokens()
  assert.ok((await client.setTimeSensitive(pin)).ok)
  assert.deepEqual(reasons, [{}, { refusedToken: first }])
})

test('a provider gets the refused token in many calls', async (t) => {
  const sandbox = sandboxFor(t)
  const revoked = await tokenOf(sandbox)
  sandbox.revokeTokens()
  const token = await tokenOf(sandbox)
  const reasons = []
  const client = withProvider(sandbox, (reason) => {
    reasons.push(reason)
    return reason.refusedToken === revoked ? token : revoked
  })
  for await (const { error } of client.setTimeSensitiveMany([pin, pin])) {
    assert.equal(error, undefined)
  }
  assert.deepEqual(reasons, [{}, { refusedToken: revoked }])
})

test('a refused token that the provider returns again is an error and is not sent', async (t) => {
  const sandbox = sandboxFor(t)
  const revoked = await tokenOf(sandbox)
  sandbox.revokeTokens()
  const before = sandbox.requestCount()
  await assert.rejects(withProvider(sandbox, () => revoked).setTimeSensitive(pin), (error) => {
    assert.ok(error instanceof AuthenticationError)
    assert.match(error.message, /^the tokenProvider returned the token that the platform had refused/)
    assert.match(error.hint, /refusedToken/)
    assert.deepEqual([error.attempts, error.station, error.failed], [1, 'token', pin.userIds])
    assert.ok(!error.message.includes(revoked))
    return true
  })
  assert.equal(sandbox.requestCount(), before + 1)
})

describe('an exception of the provider is the cause of the error', () => {
  const thrown = {
    'an error': new RangeError('the vault is sealed'),
    'a string': 'the vault is sealed',
    'half of a surrogate pair': 'the vault is sealed \ud83d',
    undefined,
    'an object without a prototype': Object.create(null),
    'what throws when made a string': { [Symbol.toPrimitive]: () => assert.fail() },
  }
  for (const [name, value] of Object.entries(thrown)) {
    const ways = {
      thrown: () => {
        throw value
      },
      rejected: () => Promise.reject(value),
    }
    for (const [way, provide] of Object.entries(ways)) {
      test(`${name}, ${way}`, async (t) => {
        const client = withProvider(sandboxFor(t), provide)
        await assert.rejects(client.setTimeSensitive(pin), (error) => {
          assert.ok(error instanceof AuthenticationError, `${error}`)
          assert.match(error.message, /^the token provider failed: /)
          assert.equal(error.cause, value)
          assert.equal(error.station, 'token')
          return true
        })
      })
    }
  }
})

test('an invalid result of the provider is an error', async (t) => {
  const sandbox = sandboxFor(t)
  for (const value of [
    undefined,
    null,
    5,
    {},
    { token: 5 },
    { token: 't', expiresInMs: 0 },
    { token: 't', expiresInMs: '5' },
    [],
  ]) {
    await assert.rejects(withProvider(sandbox, () => value).setTimeSensitive(pin), (error) => {
      assert.ok(error instanceof AuthenticationError)
      assert.match(error.message, /expected a (token|positive)/)
      assert.ok(error.cause instanceof TypeError)
      return true
    })
  }
  assert.equal(sandbox.requestCount(), 0)
})

test('an unknown or inherited property of the result is named', async (t) => {
  class Answer {
    get token() {
      return 't-1'
    }
  }
  const sandbox = sandboxFor(t)
  for (const [value, field, text] of [
    [{ token: 't-1', expiresIn: 60 }, 'expiresIn', 'unknown in the returned object'],
    [new Answer(), 'token', 'inherited in the returned object'],
  ]) {
    await assert.rejects(withProvider(sandbox, () => value).setTimeSensitive(pin), (error) => {
      assert.ok(error instanceof AuthenticationError, `${error}`)
      assert.ok(error.message.startsWith(`the token provider failed: ${field}: ${text}`), error.message)
      assert.equal(error.cause.field, field)
      return true
    })
  }
  assert.equal(sandbox.requestCount(), 0)
})

test('properties of a polluted prototype are ignored', async (t) => {
  const sandbox = sandboxFor(t)
  const client = withProvider(sandbox, () => {
    Object.assign(Object.prototype, { token: 't-1' })
    // The result is read in the next microtask.
    setImmediate(() => delete Object.prototype.token)
    return {}
  })
  await assert.rejects(client.setTimeSensitive(pin), /it returned an object; expected a token/)
  assert.equal(sandbox.requestCount(), 0)
})

test('a hanging provider does not delay the deadline of a call', async (t) => {
  const client = withProvider(sandboxFor(t), () => new Promise(() => {}))
  const began = performance.now()
  await assert.rejects(client.setTimeSensitive({ ...pin, timeoutMs: 100 }), {
    code: 'TIMEOUT',
    station: 'token',
  })
  assert.ok(performance.now() - began < 10_000)
})

test('a provider may make calls with other clients', async (t) => {
  const sandbox = sandboxFor(t)
  const inner = clientOf(sandbox)
  const client = withProvider(sandbox, async () => {
    await inner.setTimeSensitive(pin)
    return tokenOf(sandbox)
  })
  assert.ok((await client.setTimeSensitive(pin)).ok)
})
