// When a process ends, and what it holds: tests that need a new process.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { needsProc, pin, run, sandboxFor } from './stage.mjs'

const slow = { on: 'call', times: 0, delay_before_ms: 60_000 }

function ended(end, code = 0) {
  assert.equal(end.signal, null, `killed after ${end.ms} ms: ${end.stderr}`)
  assert.equal(end.code, code, end.stderr)
  return end
}

test('an idle client lets the process end at once', async (t) => {
  const end = ended(await run('idle.mjs', [sandboxFor(t).baseUrl]))
  assert.equal(end.stdout, 'done')
  assert.ok(end.ms < 10_000, `${end.ms} ms`)
})

test('a call in progress keeps the process alive', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults({ on: 'call', delay_before_ms: 500 })
  const end = ended(await run('pending.mjs', [sandbox.baseUrl]))
  assert.equal(end.stdout, 'ok: true')
  assert.ok(end.ms >= 500)
})

test('an aborted call does not keep the process alive', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults(slow)
  const end = ended(await run('aborted.mjs', [sandbox.baseUrl]))
  assert.equal(end.stdout, 'AbortError')
  assert.ok(end.ms < 10_000, `${end.ms} ms`)
})

describe('process.exit with 50 calls in flight', () => {
  for (const ms of [0, 5, 50, 200]) {
    test(`after ${ms} ms`, async (t) => {
      const sandbox = sandboxFor(t)
      sandbox.faults({ on: 'call', times: 25 }, slow)
      const end = ended(await run('exit.mjs', [sandbox.baseUrl, ms]), 7)
      assert.equal(end.stderr, '')
      assert.ok(end.ms < 10_000, `${end.ms} ms`)
    })
  }
})

test('an unhandled rejection is printed with its message', async (t) => {
  const end = ended(await run('throws.mjs', [sandboxFor(t).baseUrl]), 1)
  assert.match(end.stderr, /RejectedError: the platform said: chat id is invalid/)
  assert.match(end.stderr, /throws\.mjs:4/)
})

describe('worker threads may end with calls in flight', () => {
  for (const mode of ['beside', 'alone']) {
    test(`when the main thread ${mode === 'alone' ? 'does not use' : 'uses'} the package`, async (t) => {
      const sandbox = sandboxFor(t)
      sandbox.faults(...Array.from({ length: 12 }, () => ({ on: 'call', times: 60, delay_before_ms: 300 })))
      const end = ended(await run('workers.mjs', [sandbox.baseUrl, mode]))
      assert.equal(end.stdout, 'done')
      assert.equal(end.stderr, '')
    })
  }
})

describe('1,000 clients made and dropped leave', () => {
  async function manyClients(t) {
    const { baseUrl } = sandboxFor(t)
    const { stdout } = ended(
      await run('many-clients.mjs', [baseUrl], { execArgv: ['--expose-gc'], killAfterMs: 120_000 }),
    )
    return { ...JSON.parse(stdout), stdout }
  }

  test('no handle', async (t) => {
    const { before, after, stdout } = await manyClients(t)
    assert.ok(after.handles <= before.handles, stdout)
  })

  test('no descriptor', { skip: needsProc }, async (t) => {
    const { before, after, stdout } = await manyClients(t)
    assert.ok(after.descriptors <= before.descriptors + 10, stdout)
  })
})

test('a client is garbage-collected, even if its token provider refers to it', async (t) => {
  const { stdout } = ended(await run('collected.mjs', [sandboxFor(t).baseUrl], { execArgv: ['--expose-gc'] }))
  // The last client may still be on the stack.
  assert.ok(Number(stdout) >= 19, `${stdout} of 20`)
})

describe('many calls leave', () => {
  async function manyCalls(sandbox, calls) {
    sandbox.setSwitches({ keep_requests: 0 })
    const { stdout } = ended(
      await run('many-calls.mjs', [sandbox.baseUrl, calls], {
        // V8's young generation could grow by 30 MB, and would hide a leak.
        execArgv: ['--expose-gc', '--max-semi-space-size=1'],
        // A call of a debug build takes up to a millisecond on a busy machine.
        killAfterMs: 30_000 + calls * 6,
      }),
    )
    return { ...JSON.parse(stdout), stdout }
  }

  test('no memory and no handle', async (t) => {
    // `cargo matrix` tests an optimised build, and makes 100,000.
    const calls = Number(process.env.LEAK_TEST_CALLS ?? 20_000)
    const sandbox = sandboxFor(t)
    const { before, after, failed, stdout } = await manyCalls(sandbox, calls)
    assert.equal(failed, calls)
    assert.equal(sandbox.requestCount(), calls * 1.25 + sandbox.tokenFetches())
    assert.deepEqual(after.handles, before.handles)
    assert.ok(after.heapUsed < before.heapUsed + 2 ** 20, stdout)
    assert.ok(after.rss < before.rss + 6 * 2 ** 20, stdout)
  })

  test('no thread', { skip: needsProc }, async (t) => {
    const { before, after, stdout } = await manyCalls(sandboxFor(t), 2000)
    assert.ok(after.threads <= before.threads, stdout)
  })
})

test('the process waits for a worker with a call in progress', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults({ on: 'call', delay_before_ms: 300 })
  const { Worker } = await import('node:worker_threads')
  const worker = new Worker(new URL('scripts/pending.mjs', import.meta.url), {
    argv: [sandbox.baseUrl],
    stdout: true,
  })
  let stdout = ''
  worker.stdout.on('data', (text) => (stdout += text))
  const code = await new Promise((resolve) => worker.on('exit', resolve))
  assert.deepEqual([code, stdout], [0, 'ok: true'])
  assert.deepEqual(sandbox.pinnedUsers(pin.feedCardId), pin.userIds)
})
