import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { Sandbox } from 'feishu-feed-card/sandbox'
import { chat, clientOf, deadUrl, member, outsider, pin, sandboxFor, run } from './stage.mjs'

test('start uses the given world', async (t) => {
  const sandbox = sandboxFor(t, {
    world: {
      apps: [{ app_id: 'cli_1', app_secret: 's' }],
      chats: [{ feed_card_id: 'oc_war_room', members: ['ou_amy', 'ou_bo'] }],
    },
  })
  const client = clientOf(sandbox, { appId: 'cli_1', appSecret: 's' })
  await client.setTimeSensitive({ feedCardId: 'oc_war_room', userIds: ['ou_amy'], timeSensitive: true })
  assert.deepEqual(sandbox.pinnedUsers('oc_war_room'), ['ou_amy'])
  assert.deepEqual(sandbox.pinned('ou_bo'), [])
})

test("https works with the sandbox's certificate", async (t) => {
  const sandbox = sandboxFor(t, { https: true })
  const folder = mkdtempSync(path.join(tmpdir(), 'feishu-feed-card-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const caCerts = path.join(folder, 'ca.pem')
  writeFileSync(caCerts, sandbox.caPem)
  const { httpsBaseUrl: baseUrl } = sandbox
  assert.match(baseUrl, /^https:\/\/127\.0\.0\.1:\d+$/)
  assert.ok((await clientOf(sandbox, { baseUrl, caCerts }).setTimeSensitive(pin)).ok)
  await assert.rejects(clientOf(sandbox, { baseUrl, maxRetries: 0 }).setTimeSensitive(pin), {
    code: 'CONNECTION',
  })
  assert.equal(sandboxFor(t).caPem, undefined)
})

test('requests returns the received requests', async (t) => {
  const sandbox = sandboxFor(t)
  await clientOf(sandbox).setTimeSensitive(pin)
  const [token, call] = sandbox.requests()
  assert.equal(sandbox.requestCount(), 2)
  assert.equal(sandbox.tokenFetches(), 1)
  assert.equal(token.method, 'POST')
  assert.deepEqual(
    { ...call, received_ms: 0, arrived_ms: 0, headers: {} },
    {
      number: 2,
      connection: 1,
      received_ms: 0,
      arrived_ms: 0,
      method: 'PATCH',
      path: `/open-apis/im/v2/feed_cards/${chat}`,
      query: 'user_id_type=open_id',
      headers: {},
      authorization: 'Bearer',
      token: 1,
      body: { time_sensitive: true, user_ids: [member] },
      status: 200,
      code: 0,
      fault: false,
    },
  )
  assert.equal(sandbox.maxInWindow('group', 1000), 1)
  assert.equal(sandbox.maxInWindow('bot', 1000), 0)
  sandbox.clearRecord()
  assert.deepEqual(sandbox.requests(), [])
})

test('each control works', async (t) => {
  const sandbox = sandboxFor(t)
  const client = clientOf(sandbox, { maxRetries: 0 })
  sandbox.putUser({ open_id: 'ou_new', user_id: 'new' })
  sandbox.putChat({ feed_card_id: 'oc_new', members: ['ou_new', member] })
  const outcome = await client.setTimeSensitive({
    feedCardId: 'oc_new',
    userIds: ['new'],
    userIdType: 'user_id',
    timeSensitive: true,
  })
  assert.ok(outcome.ok)
  assert.deepEqual(sandbox.pinnedUsers('oc_new'), ['ou_new'])

  sandbox.faults({ on: 'call', code: 5000 }, { on: 'call', code: 5000 })
  assert.equal(sandbox.faultsLeft(), 2)
  await assert.rejects(client.setTimeSensitive(pin), { code: 'SERVER' })
  assert.equal(sandbox.faultsLeft(), 1)
  sandbox.clearFaults()
  assert.equal(sandbox.faultsLeft(), 0)

  sandbox.setSwitches({ per_second: 1 })
  const { per_second, per_minute } = sandbox.switches()
  assert.deepEqual([per_second, per_minute], [1, null])
  sandbox.advance(7_200_000)
  await client.setTimeSensitive(pin)
  assert.equal(sandbox.tokenFetches(), 2)
  await assert.rejects(client.setTimeSensitive(pin), { code: 'RATE_LIMITED', platformCode: 99_991_400 })

  await client.setBotTimeSensitive({ userIds: [outsider], timeSensitive: true })
  assert.deepEqual(sandbox.botPinnedUsers('cli_example'), [outsider])
  assert.notEqual(sandbox.rotateAppTicket('cli_example_store'), sandbox.rotateAppTicket('cli_example_store'))
  assert.equal(sandbox.appTicket('cli_nobody'), null)
  assert.deepEqual(sandbox.control({ do: 'pinned', open_id: 'ou_new' }), ['oc_new'])

  sandbox.closeConnections()
  sandbox.pauseListening()
  await assert.rejects(clientOf(sandbox, { maxRetries: 0 }).setTimeSensitive(pin), { code: 'CONNECTION' })
  sandbox.resumeListening()
  sandbox.setSwitches({ per_second: null })
  assert.ok((await clientOf(sandbox).setTimeSensitive(pin)).ok)
})

test('an invalid world, fault or control is an error that names the problem', (t) => {
  assert.throws(
    () => Sandbox.start({ world: { chatz: [] } }),
    /sandbox: invalid world: unknown field `chatz`/,
  )
  const sandbox = sandboxFor(t)
  assert.throws(() => sandbox.faults({ statsu: 500 }), /sandbox: invalid control: unknown field `statsu`/)
  assert.throws(() => sandbox.control({ do: 'dance' }), /sandbox: invalid control: unknown variant `dance`/)
  assert.throws(() => sandbox.advance('long'), /sandbox: /)
  const port = Number(new URL(sandbox.baseUrl).port)
  assert.throws(() => Sandbox.start({ port }), /sandbox: the sandbox cannot listen/)
})

test('close stops listening', async () => {
  const baseUrl = deadUrl()
  await assert.rejects(fetch(baseUrl))
  const sandbox = Sandbox.start()
  sandbox[Symbol.dispose]()
  sandbox.close()
  assert.throws(() => sandbox.requests(), /was closed/)
})

test('a dropped sandbox listens until the process ends, and lets it end', async () => {
  const end = await run('dropped-sandbox.mjs', [], { execArgv: ['--expose-gc'] })
  assert.deepEqual([end.code, end.stdout, end.stderr], [0, 'true', ''])
})
