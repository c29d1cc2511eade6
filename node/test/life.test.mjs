// What only a process of its own can show: when it ends, and what it leaves behind.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { pin, run, sandboxFor } from './stage.mjs'

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

test('a call under way keeps the process alive', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.faults({ on: 'call', delay_before_ms: 500 })
  const end = ended(await run('pending.mjs', [sandbox.baseUrl]))
  assert.equal(end.stdout, 'ok: true')
  assert.ok(end.ms >= 500)
})

test('a call that was stopped does not', async (t) => {
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

test('a rejection that nobody catches is printed with its text', async (t) => {
  const end = ended(await run('throws.mjs', [sandboxFor(t).baseUrl]), 1)
  assert.match(end.stderr, /RejectedError: the platform said: chat id is invalid/)
  assert.match(end.stderr, /throws\.mjs:4/)
})

describe('worker threads that end with calls in flight', () => {
  for (const mode of ['beside', 'alone']) {
    test(`${mode === 'alone' ? 'no other user of' : 'the main thread uses'} the package`, async (t) => {
      const sandbox = sandboxFor(t)
      sandbox.faults(...Array.from({ length: 12 }, () => ({ on: 'call', times: 60, delay_before_ms: 300 })))
      const end = ended(await run('workers.mjs', [sandbox.baseUrl, mode]))
      assert.equal(end.stdout, 'done')
      assert.equal(end.stderr, '')
    })
  }
})

test('1,000 clients made and dropped leave nothing', async (t) => {
  const { baseUrl } = sandboxFor(t)
  const { stdout } = ended(await run('many-clients.mjs', [baseUrl], { execArgv: ['--expose-gc'] }))
  const { before, after } = JSON.parse(stdout)
  assert.ok(after.handles <= before.handles, stdout)
  assert.ok(after.descriptors <= before.descriptors + 10, stdout)
})

test('a client is collected, also one whose token provider holds it', async (t) => {
  const { stdout } = ended(await run('collected.mjs', [sandboxFor(t).baseUrl], { execArgv: ['--expose-gc'] }))
  // The last one may still be on the stack.
  assert.ok(Number(stdout) >= 19, `${stdout} of 20`)
})

test('many calls leave nothing', async (t) => {
  // `cargo matrix`, whose build is an optimised one, makes 100,000.
  const calls = Number(process.env.LEAK_TEST_CALLS ?? 20_000)
  const sandbox = sandboxFor(t)
  sandbox.setSwitches({ keep_requests: 0 })
  const { stdout } = ended(
    await run('many-calls.mjs', [sandbox.baseUrl, calls], {
      // V8's young generation would grow by 30 MB as it sees fit, and hide what we hold.
      execArgv: ['--expose-gc', '--max-semi-space-size=1'],
      // A debug build on a busy machine takes a millisecond for a call.
      killAfterMs: calls * 6,
    }),
  )
  const { before, after, failed } = JSON.parse(stdout)
  assert.equal(failed, calls)
  assert.equal(sandbox.requestCount(), calls * 1.25 + sandbox.tokenFetches())
  assert.ok(after.threads <= before.threads, stdout)
  assert.deepEqual(after.handles, before.handles)
  assert.ok(after.heapUsed < before.heapUsed + 2 ** 20, stdout)
  assert.ok(after.rss < before.rss + 6 * 2 ** 20, stdout)
})

test('the main thread waits for a worker with a call under way', async (t) => {
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
