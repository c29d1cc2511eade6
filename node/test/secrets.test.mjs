// No secret and no token in anything that is printed.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { Client } from 'feishu-feed-card'
import { clientOf, pin, sandboxFor } from './stage.mjs'

const hush = 'hush-4f1c9d'

/** All that a careless program may write into a log. */
const printed = (value) =>
  [
    inspect(value),
    inspect(value, { showHidden: true, depth: Number.POSITIVE_INFINITY, getters: true, showProxy: true }),
    JSON.stringify(value),
    String(value),
    value?.stack,
    inspect(Object.getOwnPropertyDescriptors(value), { depth: 4 }),
  ].join('\n')

test('a client', async (t) => {
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

test('errors of its calls', async (t) => {
  const sandbox = sandboxFor(t)
  // Servers and proxies echo what they were sent.
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

test('errors of its options', () => {
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
