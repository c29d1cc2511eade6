// The examples, run as a user would run them.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { test } from 'node:test'
import { chat, member, sandboxFor, secret } from './stage.mjs'

/** Runs an example. Returns its output and exit code. */
async function example(sandbox, name, userIds, lines) {
  const child = spawn(process.execPath, [path.join(import.meta.dirname, '../examples', name), ...userIds], {
    env: {
      ...process.env,
      FEISHU_APP_ID: 'cli_example',
      FEISHU_APP_SECRET: secret,
      FEISHU_BASE_URL: sandbox.baseUrl,
    },
    timeout: 30_000,
  })
  let printed = ''
  child.stdout.on('data', (text) => (printed += text))
  child.stderr.on('data', (text) => (printed += text))
  child.stdin.end(lines.join('\n'))
  const [code] = await once(child, 'close')
  return { code, printed }
}

test('many.mjs pins all chats and prints failures', async (t) => {
  const sandbox = sandboxFor(t)
  sandbox.putChat({ feed_card_id: 'oc_1', members: [member] })
  const { code, printed } = await example(sandbox, 'many.mjs', [member], [chat, 'oc_1', 'oc_nowhere'])
  assert.match(printed, /2 chats pinned, 1 failed/)
  assert.match(printed, /oc_nowhere: the platform said: chat id is invalid/)
  assert.equal(code, 1, printed)
  assert.deepEqual(sandbox.pinned(member).toSorted(), ['oc_1', chat].toSorted())

  const again = await example(sandbox, 'many.mjs', [member], [chat, 'oc_1'])
  assert.match(again.printed, /2 chats pinned, 0 failed/)
  assert.equal(again.code, 0, again.printed)
})
