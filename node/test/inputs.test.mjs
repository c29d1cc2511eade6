// Invalid values that JSON does not have: wrong types, unknown options, lone surrogates. The conformance cases have
// the others.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { Client, InvalidInputError } from 'feishu-feed-card'
import { chat, clientOf, deadUrl, member, outsider, pin, sandboxFor } from './stage.mjs'

const isInvalid = (field, text) => (error) => {
  assert.ok(error instanceof InvalidInputError, `${error?.stack ?? error}`)
  assert.equal(error.field, field, error.message)
  assert.ok(error.message.startsWith(`${field}: `), error.message)
  if (text !== undefined) {
    assert.ok(error.message.includes(text), error.message)
  }
  return true
}

/** Values of each type but strings. */
const noStrings = [
  null,
  true,
  5,
  Number.NaN,
  10n,
  Symbol('x'),
  {},
  [],
  () => {},
  new String('oc_1'),
  Buffer.from('oc_1'),
]
const noNumbers = [
  null,
  true,
  '5',
  Number.NaN,
  Number.POSITIVE_INFINITY,
  10n,
  Symbol('x'),
  {},
  [5],
  new Date(),
]
const noBooleans = [null, undefined, 0, 1, 'true', 'false', {}, [], Number.NaN]

describe('arguments of a call', () => {
  const cases = [
    ['feedCardId', [...noStrings, undefined]],
    [
      'userIds',
      [null, undefined, member, 5, {}, new Set([member]), { 0: member, length: 1 }, Buffer.from(member), []],
    ],
    ['timeSensitive', noBooleans],
    ['userIdType', [...noStrings, 'openid', 'OPEN_ID', '']],
    ['timeoutMs', [...noNumbers, 0, -1, -0]],
  ]
  for (const [field, values] of cases) {
    test(field, async (t) => {
      const sandbox = sandboxFor(t)
      const client = clientOf(sandbox)
      for (const value of values) {
        await assert.rejects(client.setTimeSensitive({ ...pin, [field]: value }), isInvalid(field))
      }
      assert.equal(sandbox.requestCount(), 0)
    })
  }

  test('an id of the wrong type is named by its index', async (t) => {
    const client = clientOf(sandboxFor(t))
    for (const value of [...noStrings, undefined]) {
      await assert.rejects(
        client.setTimeSensitive({ ...pin, userIds: [member, value] }),
        isInvalid('userIds[1]'),
      )
    }
    const holes = [member]
    holes[2] = member
    await assert.rejects(
      client.setTimeSensitive({ ...pin, userIds: holes }),
      isInvalid('userIds[1]', 'missing'),
    )
  })

  test('the ids of a call with any invalid argument are in notAttempted', async (t) => {
    const client = clientOf(sandboxFor(t))
    const ids = [member, outsider, member]
    const wrong = [
      [{ userIds: [member, 5, outsider, null, member] }, 'userIds[1]'],
      [{ userIds: [member, '\ud83d'] }, 'userIds[1]', [member, '\ud83d']],
      [{ userIds: member }, 'userIds', [member]],
      [{ userIds: new Set([...ids, 5]) }, 'userIds'],
      [{ userIds: ids, feedCardId: 5 }, 'feedCardId'],
      [{ userIds: ids, feedCardId: 'chat' }, 'feedCardId'],
      [{ userIds: ids, timeSensitive: 'yes' }, 'timeSensitive'],
      [{ userIds: ids, userIdType: 5 }, 'userIdType'],
      [{ userIds: ids, userIdType: 'openid' }, 'userIdType'],
      [{ userIds: ids, timeoutMs: '5' }, 'timeoutMs'],
      [{ userIds: ids, timeoutMs: -5 }, 'timeoutMs'],
      [{ userIds: ids, signal: 5 }, 'signal'],
      [{ userIds: ids, timeout: 5 }, 'timeout'],
    ]
    for (const [change, field, told = [member, outsider]] of wrong) {
      await assert.rejects(client.setTimeSensitive({ ...pin, ...change }), (error) => {
        isInvalid(field)(error)
        assert.deepEqual(error.notAttempted, told)
        return true
      })
    }
    await client.close()
    await assert.rejects(client.setTimeSensitive({ ...pin, userIds: ids }), {
      code: 'CLIENT_CLOSED',
      notAttempted: [member, outsider],
    })
  })

  test('a lone surrogate is refused', async (t) => {
    const client = clientOf(sandboxFor(t))
    await assert.rejects(
      client.setTimeSensitive({ ...pin, userIds: ['\ud83d'], userIdType: 'user_id' }),
      isInvalid('userIds[0]', 'surrogate'),
    )
    await assert.rejects(
      client.setTimeSensitive({ ...pin, feedCardId: 'oc_\udc00' }),
      isInvalid('feedCardId', 'surrogate'),
    )
    await assert.rejects(client.setTimeSensitive({ ...pin, userIds: '\ud83d' }), isInvalid('userIds'))
  })

  test('a call that is not an object, or has an unknown key, is refused', async (t) => {
    const client = clientOf(sandboxFor(t))
    for (const call of [undefined, null, 5, chat, [pin], () => pin]) {
      await assert.rejects(
        client.setTimeSensitive(call),
        isInvalid('setTimeSensitive', 'feedCardId, userIds'),
      )
    }
    await assert.rejects(client.setTimeSensitive(chat, [member], true), isInvalid('setTimeSensitive'))
    await assert.rejects(
      client.setTimeSensitive({ ...pin, timeout: 5 }),
      isInvalid('timeout', 'unknown in setTimeSensitive; expected one of feedCardId, userIds'),
    )
    await assert.rejects(client.setTimeSensitive({ ...pin, user_ids: [member] }), isInvalid('user_ids'))
    await assert.rejects(
      client.setBotTimeSensitive(pin),
      isInvalid('feedCardId', 'unknown in setBotTimeSensitive'),
    )
  })

  test('an exception of a getter rejects the call', async (t) => {
    const mine = new RangeError('mine')
    const call = {
      get userIds() {
        throw mine
      },
    }
    await assert.rejects(clientOf(sandboxFor(t)).setTimeSensitive(call), (error) => error === mine)
  })

  test('changing an array during a call does not change the call', async (t) => {
    const sandbox = sandboxFor(t)
    const userIds = [member]
    const call = clientOf(sandbox).setTimeSensitive({ ...pin, userIds })
    userIds[0] = 'ou_other'
    assert.deepEqual((await call).reached, [member])
  })
})

describe('options of a client', () => {
  const baseUrl = deadUrl()
  const wrong = (options, field, text) =>
    assert.throws(
      () => new Client({ appId: 'a', appSecret: 'b', baseUrl, ...options }),
      isInvalid(field, text),
    )

  test('strings', () => {
    const names = [
      'appId',
      'appSecret',
      'tenantKey',
      'appTicket',
      'tenantAccessToken',
      'baseUrl',
      'proxy',
      'caCerts',
      'userAgent',
    ]
    for (const name of names) {
      for (const value of noStrings) {
        wrong({ [name]: value }, name)
      }
      wrong({ [name]: '\ud83d' }, name, 'surrogate')
    }
  })

  test('numbers', () => {
    const names = [
      'timeoutMs',
      'connectTimeoutMs',
      'attemptTimeoutMs',
      'maxRetries',
      'lateArrivalMs',
      'maxUsersPerRequest',
    ]
    for (const name of names) {
      for (const value of [...noNumbers, -1]) {
        wrong({ [name]: value }, name)
      }
    }
    wrong({ maxRetries: 1.5 }, 'maxRetries', 'whole')
    wrong({ maxUsersPerRequest: 0 }, 'maxUsersPerRequest')
    wrong({ timeoutMs: '5' }, 'timeoutMs', 'the string "5"')
  })

  test('the others', () => {
    for (const value of [null, 0, 'yes']) {
      wrong({ allowHttp: value }, 'allowHttp')
    }
    for (const value of [null, true, 50, [50, 1000], 'fast']) {
      wrong({ rateLimit: value }, 'rateLimit')
    }
    wrong({ rateLimit: {} }, 'rateLimit.perSecond', 'missing')
    wrong({ rateLimit: { perSecond: 5 } }, 'rateLimit.perMinute', 'missing')
    wrong({ rateLimit: { perSecond: 5, perMinute: '100' } }, 'rateLimit.perMinute')
    wrong({ rateLimit: { perSecond: 0.5, perMinute: 5 } }, 'rateLimit.perSecond', 'whole')
    wrong({ rateLimit: { perSecond: 5, perMinute: 5, perHour: 5 } }, 'perHour')
    for (const value of [null, {}, 5, new Client({ appId: 'a', appSecret: 'b' })]) {
      wrong({ quota: value }, 'quota')
    }
    for (const value of [null, {}, 't-1', Promise.resolve('t-1')]) {
      wrong({ appId: undefined, appSecret: undefined, tokenProvider: value }, 'tokenProvider')
    }
  })

  test('unknown ones', () => {
    wrong({ timeout: 5 }, 'timeout', 'timeoutMs')
    wrong({ app_id: 'cli_1' }, 'app_id', 'appId')
    for (const options of [undefined, null, 5, 'cli_1', ['cli_1']]) {
      assert.throws(() => new Client(options), isInvalid('options'))
    }
  })

  test('the interface lists the options there are, and each checks its type', () => {
    const source = readFileSync(new URL('../src/client.ts', import.meta.url), 'utf8')
    const [, fields] = /export interface ClientOptions \{(.*?)\n\}/s.exec(source)
    const listed = [...fields.matchAll(/^ {2}(\w+)\?:/gm)].map(([, name]) => name)
    let known = ''
    assert.throws(
      () => new Client({ nothing: 1 }),
      ({ message }) => {
        known = message.split('expected one of ')[1]
        return true
      },
    )
    assert.deepEqual(listed.toSorted(), known.split(', ').toSorted())
    for (const name of listed) {
      assert.throws(() => new Client({ [name]: Symbol('x') }), isInvalid(name))
    }
  })

  test('the extremes that are allowed', () => {
    const options = {
      maxRetries: 0,
      lateArrivalMs: 0,
      timeoutMs: Number.MAX_VALUE,
      connectTimeoutMs: 0.001,
      maxUsersPerRequest: Number.MAX_SAFE_INTEGER,
    }
    assert.ok(new Client({ appId: 'a', appSecret: 'b', baseUrl, ...options }))
  })

  test('a secret of the wrong type is not shown', () => {
    assert.throws(
      () => new Client({ appId: 'a', appSecret: 12_345_678 }),
      ({ message }) => !message.includes('12345678'),
    )
    assert.throws(
      () => new Client({ tenantAccessToken: { token: 'hush-hush' } }),
      ({ message }) => !message.includes('hush-hush'),
    )
  })
})

test('a class cannot be called, and the native classes not be reached', () => {
  assert.throws(() => Client({}), TypeError)
})

/** Runs `task` while every object seems to have these properties. */
function polluted(properties, task) {
  Object.assign(Object.prototype, properties)
  try {
    return task()
  } finally {
    for (const name of Object.keys(properties)) {
      delete Object.prototype[name]
    }
  }
}

describe('a polluted Object.prototype', () => {
  const app = { appId: 'cli_example', appSecret: 'example-secret' }
  // Refused wherever it is read.
  const wrong = (names) => Object.fromEntries(names.map((name) => [name, Symbol(name)]))
  const options = [
    'tenantKey appTicket tenantAccessToken tokenProvider baseUrl allowHttp proxy caCerts userAgent timeoutMs',
    'connectTimeoutMs attemptTimeoutMs maxRetries rateLimit quota lateArrivalMs maxUsersPerRequest onEvent',
  ].flatMap((names) => names.split(' '))

  test('gives a client no option', () => {
    for (const name of options) {
      assert.throws(() => new Client({ ...app, [name]: Symbol(name) }), isInvalid(name))
    }
    polluted(wrong(options), () => {
      assert.ok(new Client({ ...app }))
      assert.ok(new Client(Object.assign(Object.create(null), app)))
      assert.ok(Client.fromEnv({ ...app, baseUrl: deadUrl() }))
    })
  })

  test('does not send the secret elsewhere', () => {
    polluted({ baseUrl: 'http://evil.invalid' }, () => {
      // http to another machine needs `allowHttp`, so this throws if the URL is read.
      assert.ok(new Client({ ...app }))
    })
    assert.throws(
      () => polluted({ appSecret: 's' }, () => new Client({ appId: 'cli_1' })),
      isInvalid('appSecret', 'missing'),
    )
  })

  test('sets no environment variable', () => {
    const before = process.env.FEISHU_BASE_URL
    delete process.env.FEISHU_BASE_URL
    const isRead = isInvalid('baseUrl')
    try {
      polluted({ FEISHU_BASE_URL: 'http://evil.invalid' }, () => assert.ok(Client.fromEnv({ ...app })))
      process.env.FEISHU_BASE_URL = 'http://evil.invalid'
      assert.throws(() => Client.fromEnv({ ...app }), isRead)
    } finally {
      delete process.env.FEISHU_BASE_URL
      Object.assign(process.env, before !== undefined && { FEISHU_BASE_URL: before })
    }
  })

  test('gives a call no argument', async (t) => {
    const sandbox = sandboxFor(t)
    const client = clientOf(sandbox)
    const { feedCardId, ...bot } = pin
    const rest = wrong(['userIdType', 'timeoutMs', 'signal', 'onEvent'])
    await polluted({ ...rest, feedCardId }, () => client.setBotTimeSensitive(bot))
    assert.deepEqual(sandbox.botPinnedUsers('cli_example'), [member])
    assert.deepEqual(sandbox.pinnedUsers(chat), [])
    const lacking = polluted({ userIds: [member] }, () =>
      client.setTimeSensitive({ feedCardId, timeSensitive: true }),
    )
    await assert.rejects(lacking, (error) => {
      assert.deepEqual(error.notAttempted, [])
      return isInvalid('userIds')(error)
    })
  })

  test('gives many calls no option', async (t) => {
    const names = ['concurrency', 'progress', 'totalTimeoutMs', 'signal', 'onEvent', 'context', 'total']
    const many = polluted(wrong(names), () => clientOf(sandboxFor(t)).setTimeSensitiveMany([pin]))
    const { value } = await many.next()
    assert.ok(value.outcome.ok)
  })
})

test('an inherited property with the name of an option or argument is refused', async (t) => {
  class Options {
    appId = 'cli_example'
    appSecret = 'example-secret'
    get baseUrl() {
      return deadUrl()
    }
  }
  class Child extends Options {}
  for (const Given of [Options, Child]) {
    assert.throws(() => new Client(new Given()), isInvalid('baseUrl', 'inherited in options'))
  }
  // Other inherited methods are ignored.
  class Pin {
    feedCardId = chat
    userIds = [member]
    timeSensitive = true
    describe() {}
  }
  const client = clientOf(sandboxFor(t))
  assert.ok((await client.setTimeSensitive(new Pin())).ok)
  await assert.rejects(client.setTimeSensitive(Object.create(pin)), isInvalid('feedCardId', 'inherited'))
})
