// What most tests use: a sandbox with the example of the platform's page, clients for it, and scripts in new processes.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from 'feishu-feed-card'
import { Sandbox } from 'feishu-feed-card/sandbox'

export const chat = 'oc_679eaeb583654bff73fefcc6e6371370'
export const member = 'ou_9d2beb613c85a2412862a49a924558c5'
export const outsider = 'ou_679eaeb583654bff73fefcc6e6371301'
export const secret = 'example-secret'

export const pin = { feedCardId: chat, userIds: [member], timeSensitive: true }
export const unpin = { ...pin, timeSensitive: false }

/** Why tests that count threads and descriptors are skipped, or false. */
export const needsProc = process.platform !== 'linux' && 'needs /proc, which only Linux has'

/** A sandbox without frequency limits, closed at the end of the test. */
export function sandboxFor(test, options = {}) {
  const world = { ...Sandbox.exampleWorld(), switches: { per_second: null, per_minute: null } }
  const sandbox = Sandbox.start({ world, ...options })
  test.after(() => sandbox.close())
  return sandbox
}

export const clientOf = (sandbox, options = {}) =>
  new Client({ appId: 'cli_example', appSecret: secret, baseUrl: sandbox.baseUrl, ...options })

/** A URL whose port refuses connections. */
export function deadUrl() {
  const sandbox = Sandbox.start()
  const { baseUrl } = sandbox
  sandbox.close()
  return baseUrl
}

/** Waits until the condition is true. Fails after 10 s. */
export async function until(condition) {
  const end = performance.now() + 10_000
  while (!condition()) {
    assert.ok(performance.now() < end, `not true within 10 s: ${condition}`)
    await sleep(5)
  }
}

/**
 * Runs a script of `scripts/` in a new process. Resolves to how the process ended and what it printed. A process that
 * does not exit is killed after `killAfterMs` (default: 30 s): no test inside the process could detect that.
 */
export function run(script, args = [], { execArgv = [], env = {}, killAfterMs = 30_000 } = {}) {
  return new Promise((resolve, reject) => {
    const file = path.join(import.meta.dirname, 'scripts', script)
    const child = spawn(process.execPath, [...execArgv, file, ...args], {
      // Deno writes errors in colours, also to a pipe.
      env: { ...process.env, NO_COLOR: '1', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: killAfterMs,
      killSignal: 'SIGKILL',
    })
    const began = performance.now()
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (text) => (stdout += text))
    child.stderr.on('data', (text) => (stderr += text))
    child.on('error', reject)
    child.on('close', (code, signal) =>
      resolve({ code, signal, stdout, stderr, ms: performance.now() - began }),
    )
  })
}
