// No secret or token is printed.

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { Client } from 'feishu-feed-card'
import { clientOf, pin, sandboxFor } from './stage.mjs'

const hush = 'hush-4f1c9d'

/** All texts that a program may log for a value. */
const printed = (value) =>
  [
    inspect(value),
    inspect(value, { showHidden: true, depth: Number.POSITIVE_INFINITY, getters: true, showProxy: true }),
    JSON.stringify(value),
    String(value),
    value?.stack,
    inspect(Object.getOwnPropertyDescriptors(Object(value)), { depth: 4 }),
    inspect(cloned(value), { showHidden: true, depth: Number.POSITIVE_INFINITY }),
    inspect(value?.cause, { showHidden: true, depth: Number.POSITIVE_INFINITY }),
  ].join('\n')

function cloned(value) {
  try {
    return structuredClone(value)
  } catch (error) {
    // An object with methods or native parts cannot be cloned.
    return error
  }
}

test('a client shows no secret', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.putApp({ app_id: 'cli_hush', app_secret: hush })
  const clients = [
    clientOf(sandbox, { appId: 'cli_hush', appSecret: hush }),
    new Client({ tenantAccessToken: hush, baseUrl: sandbox.baseUrl }),
    new Client({ appId: 'a', appSecret: hush, tenantKey: 'b', appTicket: hush, baseUrl: sandbox.baseUrl }),
    new Client({
      appId: 'a',
      appSecret: 'b',
      proxy: `http://user:${hush}@127.0.0.1:1`,
      baseUrl: sandbox.baseUrl,
    }),
    new Client({ tokenProvider: () => hush, baseUrl: sandbox.baseUrl }),
  ]
  await clients[0].setTimeSensitive(pin)
  for (const client of clients) {
    assert.ok(!printed(client).includes(hush))
    assert.equal(JSON.stringify(client), '{}')
    assert.ok(!printed(client.quota).includes(hush))
  }
})

test('errors of calls show no secret', async (t) => {
  const sandbox = sandboxFor(t)
  // Servers and proxies may echo a request.
  const echo = { status: 400, body: JSON.stringify({ code: 230_001, msg: `bad header: Bearer ${hush}` }) }
  sandbox.faults({ on: 'call', times: 2, ...echo })
  sandbox.faults({
    on: 'token',
    status: 200,
    body: JSON.stringify({ code: 10_003, msg: `bad secret ${hush}` }),
  })
  const clients = [
    new Client({ tenantAccessToken: hush, baseUrl: sandbox.baseUrl, maxRetries: 0 }),
    new Client({ tokenProvider: () => hush, baseUrl: sandbox.baseUrl, maxRetries: 0 }),
    new Client({ appId: 'cli_example', appSecret: hush, baseUrl: sandbox.baseUrl, maxRetries: 0 }),
    new Client({ tokenProvider: () => `${hush}\n`, baseUrl: sandbox.baseUrl, maxRetries: 0 }),
    new Client({
      appId: 'a',
      appSecret: 'b',
      proxy: `http://user:${hush}@127.0.0.1:1`,
      baseUrl: sandbox.baseUrl,
      maxRetries: 0,
    }),
  ]
  for (const [index, client] of clients.entries()) {
    await assert.rejects(client.setTimeSensitive(pin), (error) => {
      assert.ok(!printed(error).includes(hush), `client ${index}: ${printed(error)}`)
      return true
    })
  }
})

test('errors of options show no secret', () => {
  const wrong = [
    { appId: '', appSecret: hush },
    { appId: 'a', appSecret: hush, tenantAccessToken: hush },
    { appId: 'a', appSecret: [hush] },
    { tenantAccessToken: `${hush}\r\n` },
    { appId: 'a', appSecret: 'b', proxy: `nowhere ${hush}` },
    { appId: 'a', appSecret: 'b', baseUrl: `https://user:${hush}@open.feishu.cn` },
    { appId: 'a', appSecret: hush, surprise: hush },
    { appId: 'a', appSecret: `${hush}\ud83d` },
  ]
  for (const options of wrong) {
    assert.throws(
      () => new Client(options),
      (error) => {
        assert.equal(error.code, 'INVALID_INPUT')
        assert.ok(!printed(error).includes(hush), printed(error))
        return true
      },
    )
  }
})

test('the error for an unusable proxy of the environment names the variable and shows no password', (t) => {
  t.after(() => delete process.env.ALL_PROXY)
  for (const proxy of [
    `http://user:${hush}`,
    `socks4://user:${hush}@proxy.invalid`,
    `"http://user:${hush}@proxy.invalid"`,
    `http://user:${hush}/@proxy.invalid`,
    `http://user:${hush}#@proxy.invalid`,
    `http://user:${hush}@${hush}@proxy.invalid`,
    `socks5h://user:${hush}${'x'.repeat(256)}@proxy.invalid`,
    `user:${hush}@proxy.invalid`,
  ]) {
    process.env.ALL_PROXY = proxy
    assert.throws(
      () => new Client({ appId: 'a', appSecret: 'b' }),
      (error) => {
        assert.equal(error.code, 'INVALID_INPUT')
        assert.match(error.message, /ALL_PROXY/)
        assert.ok(!printed(error).includes(hush), printed(error))
        return true
      },
    )
  }
})

const appSecret = 'hush-SECRET-0123456789'
const token = 't-hush-TOKEN-0123456789'
const appToken = 'a-hush-APPTOKEN-0123456789'
const appTicket = 'hush-TICKET-0123456789'
const proxyPassword = 'hush-PROXY-0123456789'
const inHeader = Buffer.from(`user:${proxyPassword}`).toString('base64')

/** A server that returns tokens, and otherwise echoes each request as `answer` says. */
async function echoing(t, answer) {
  const server = createServer(async (request, response) => {
    let text = ''
    for await (const part of request) {
      text += part
    }
    const all = `${request.method} ${request.url} ${JSON.stringify(request.headers)} ${text}`
    const isToken = request.url.includes('/auth/v3/')
    const expire = { code: 0, msg: all, expire: 7200 }
    if (isToken && request.url.includes('app_access_token')) {
      response.end(JSON.stringify({ ...expire, app_access_token: appToken }))
    } else if (isToken && !answer.onToken) {
      response.end(JSON.stringify({ ...expire, tenant_access_token: token }))
    } else if (answer.breaks) {
      response.destroy()
    } else if (!answer.hangs) {
      response.statusCode = answer.status ?? 400
      response.setHeader('x-tt-logid', encodeURIComponent(all).slice(0, 4000))
      response.end(answer.body(all))
    }
  })
  // The server as a proxy.
  server.on('connect', (request, socket) => {
    const all = `${request.url} ${JSON.stringify(request.headers)}`
    socket.on('error', () => {})
    socket.end(`HTTP/1.1 407 ${all}\r\nproxy-authenticate: Basic realm=${JSON.stringify(all)}\r\n\r\n${all}`)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${server.address().port}`
}

const json = (value) => (all) => JSON.stringify(value(all))
const refusal = (code) =>
  json((all) => ({
    code,
    msg: all,
    error: {
      log_id: all,
      permission_violations: [{ type: all, subject: all }],
      field_violations: [{ field: all, value: all, description: all }],
    },
  }))
const answers = [
  { kind: 'AUTHENTICATION', body: refusal(99_991_663) },
  { kind: 'AUTHENTICATION', body: refusal(10_014), onToken: true, status: 200 },
  { kind: 'PERMISSION_DENIED', body: refusal(99_991_672) },
  { kind: 'REJECTED', body: refusal(230_001) },
  { kind: 'REJECTED', body: refusal(99_992_402), status: 200 },
  { kind: 'RATE_LIMITED', body: refusal(99_991_400), status: 429 },
  { kind: 'QUOTA_EXHAUSTED', body: refusal(99_991_403) },
  { kind: 'SERVER', body: refusal(5000), status: 500 },
  { kind: 'SERVER', body: (all) => `<html>${all}</html>`, status: 502 },
  { kind: 'UNEXPECTED_RESPONSE', body: (all) => `<html>${all}</html>`, status: 200 },
  { kind: 'UNEXPECTED_RESPONSE', body: (all) => `{"code": "${all}`, status: 200 },
  { kind: 'UNEXPECTED_RESPONSE', body: (all) => all, status: 200, onToken: true },
  { kind: 'CONNECTION', breaks: true },
  { kind: 'CONNECTION', breaks: true, onToken: true },
  { kind: 'TIMEOUT', hangs: true },
  { kind: 'TIMEOUT', hangs: true, onToken: true },
  {
    kind: 'PARTIAL_FAILURE',
    body: json((all) => ({
      code: 0,
      msg: all,
      data: { failed_user_reasons: [{ error_code: 5, error_message: all, user_id: pin.userIds[0] }] },
    })),
    status: 200,
  },
]

test('no kind of error, outcome or event shows a secret that a server echoes', async (t) => {
  const kinds = new Set()
  const check = (what, value) => {
    const text = printed(value)
    const found = [appSecret, token, appToken, appTicket, proxyPassword, inHeader, 'hush-'].find((secret) =>
      text.includes(secret),
    )
    assert.equal(found, undefined, `${what}: ${text}`)
  }
  for (const [index, answer] of answers.entries()) {
    const server = await echoing(t, answer)
    const events = []
    const common = {
      baseUrl: server,
      maxRetries: 0,
      timeoutMs: answer.hangs ? 50 : 30_000,
      lateArrivalMs: 1,
      onEvent: (event) => events.push(event),
    }
    const ways = {
      app: { appId: 'cli_hush', appSecret },
      store: { appId: 'cli_hush', appSecret, tenantKey: 'tenant', appTicket },
      token: { tenantAccessToken: token },
      provider: { tokenProvider: () => token },
      'provider that throws': {
        tokenProvider() {
          throw new Error('the vault is sealed')
        },
      },
      proxy: {
        appId: 'cli_hush',
        appSecret,
        proxy: server.replace('//', `//user:${proxyPassword}@`),
        baseUrl: 'https://feishu.invalid',
      },
    }
    for (const [way, options] of Object.entries(ways)) {
      const what = `answer ${index} (${answer.kind}), ${way}`
      const client = new Client({ ...common, ...options })
      for (const call of [pin, { ...pin, userIds: [...pin.userIds, 'ou_other'] }]) {
        try {
          const outcome = await client.setTimeSensitive(call)
          check(`${what}, outcome`, outcome)
          outcome.throwIfFailed()
        } catch (error) {
          kinds.add(error.code)
          check(what, error)
          check(`${what}, cause`, error.cause)
        }
      }
      const many = client.setTimeSensitiveMany([pin, { ...pin, userIds: 5 }])
      for await (const item of many) {
        check(`${what}, item`, item)
        kinds.add(item.error?.code)
      }
      check(`${what}, handle`, many)
      check(`${what}, report`, await many.report())
      check(`${what}, client`, client)
      check(`${what}, quota`, client.quota)
      await client.close()
    }
    assert.ok(events.length > 0)
    check(`answer ${index}, events`, events)
    assert.ok(!JSON.stringify(events).includes(pin.userIds[0]), 'user ids are counted, not listed')
  }
  for (const kind of [...new Set(answers.map((answer) => answer.kind)), 'INVALID_INPUT']) {
    assert.ok(kinds.has(kind), `no ${kind} was made: ${[...kinds]}`)
  }
  assert.equal(kinds.size, 11 + 1, `${[...kinds]}`)
})
