// What most tests start from: a sandbox with the platform page's own example, and clients of it.

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

/** A sandbox that ends with the test, without frequency limits. */
export function sandboxFor(test, options = {}) {
  const world = { ...Sandbox.exampleWorld(), switches: { per_second: null, per_minute: null } }
  const sandbox = Sandbox.start({ world, ...options })
  test.after(() => sandbox.close())
  return sandbox
}

export const clientOf = (sandbox, options = {}) =>
  new Client({ appId: 'cli_example', appSecret: secret, baseUrl: sandbox.baseUrl, ...options })

/** A port on which nobody listens. */
export function deadUrl() {
  const sandbox = Sandbox.start()
  const { baseUrl } = sandbox
  sandbox.close()
  return baseUrl
}

/** Waits until it is so; 10 s and it never will be. */
export async function until(isSo) {
  const end = performance.now() + 10_000
  while (!isSo()) {
    assert.ok(performance.now() < end, `never: ${isSo}`)
    await sleep(5)
  }
}

/**
 * Runs one of `scripts/` as a process of its own, killed after 30 s unless said, and tells how it ended: a Node that
 * never exits is the fault that no test inside of it can see.
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
