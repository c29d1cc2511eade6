// Certificates, proxies, and a process that may start no thread.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, test } from 'node:test'
import { Client, InvalidInputError } from 'feishu-feed-card'
import { clientOf, deadUrl, pin, run, sandboxFor } from './stage.mjs'

describe('NODE_EXTRA_CA_CERTS', () => {
  const untrusted = { code: 'CONNECTION', reason: 'tls_untrusted', retryable: false }

  /** Runs a call in a new process whose variable is `file`. Returns what the script prints. */
  async function trusts(t, { file, setLater = [] }) {
    const { httpsBaseUrl } = t.sandbox
    const end = await run('trusts.mjs', [httpsBaseUrl, ...setLater], { env: { NODE_EXTRA_CA_CERTS: file } })
    assert.equal(end.code, 0, end.stderr)
    return JSON.parse(end.stdout)
  }

  function staged(t) {
    t.sandbox = sandboxFor(t, { https: true })
    const folder = mkdtempSync(path.join(tmpdir(), 'feishu-feed-card-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const file = path.join(folder, 'ca.pem')
    writeFileSync(file, t.sandbox.caPem)
    return { folder, file }
  }

  test('is trusted', async (t) => {
    const { file } = staged(t)
    assert.deepEqual(await trusts(t, { file }), { ok: true, warnings: [] })
  })

  test('is ignored with a warning if it cannot be read', async (t) => {
    const { folder } = staged(t)
    const empty = path.join(folder, 'empty.pem')
    writeFileSync(empty, '')
    for (const file of [path.join(folder, 'missing.pem'), empty]) {
      const { warnings, ...end } = await trusts(t, { file })
      assert.deepEqual(end, untrusted)
      assert.equal(warnings.length, 1)
      assert.equal(warnings[0].variable, 'NODE_EXTRA_CA_CERTS')
    }
  })

  test('may be empty, and is read only when the package is loaded', async (t) => {
    const { file } = staged(t)
    assert.deepEqual(await trusts(t, { file: '', setLater: [file] }), { ...untrusted, warnings: [] })
  })
})

describe('proxy', () => {
  const app = { appId: 'cli_example', appSecret: 'example-secret' }

  test('false disables the proxies of the environment', (t) => {
    t.after(() => delete process.env.HTTPS_PROXY)
    process.env.HTTPS_PROXY = 'socks6://user:hush-4f1c9d@proxy.invalid'
    assert.throws(
      () => new Client(app),
      (error) => {
        assert.ok(error instanceof InvalidInputError)
        assert.equal(error.field, 'proxy')
        assert.match(error.message, /HTTPS_PROXY/)
        assert.match(error.hint, /HTTPS_PROXY/)
        assert.ok(!error.message.includes('hush'), error.message)
        return true
      },
    )
    assert.ok(new Client({ ...app, proxy: false }))
  })

  test('true is refused', () => {
    assert.throws(() => new Client({ ...app, proxy: true }), { code: 'INVALID_INPUT', field: 'proxy' })
  })
})

test('an error of a refused connection has a reason, also as JSON', async () => {
  await assert.rejects(clientOf({ baseUrl: deadUrl() }, { maxRetries: 0 }).setTimeSensitive(pin), (error) => {
    assert.equal(error.reason, 'refused')
    assert.equal(JSON.parse(JSON.stringify(error)).reason, 'refused')
    assert.equal(structuredClone(error).message, error.message)
    return true
  })
})

describe('a process that may start no thread', () => {
  const skip = process.platform !== 'linux' && 'needs prlimit, which only Linux has'
  test('gets an error from the constructor, and a client later', { skip }, async (t) => {
    const end = await run('no-thread.mjs', [sandboxFor(t).baseUrl])
    if (end.stdout.startsWith('skip: ')) {
      t.skip(end.stdout)
      return
    }
    assert.deepEqual([end.code, end.stderr], [0, ''])
    assert.deepEqual(JSON.parse(end.stdout), {
      code: 'CONNECTION',
      retryable: true,
      isHinted: true,
      ok: true,
    })
  })
})
