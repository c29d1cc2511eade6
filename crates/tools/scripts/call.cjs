// Pins and unpins on a sandbox with the installed package.
const assert = require('node:assert')
const { Client } = require('feishu-feed-card')
const { Sandbox } = require('feishu-feed-card/sandbox')

async function main() {
  const sandbox = Sandbox.start()
  const client = new Client({ appId: 'cli_example', appSecret: 'example-secret', baseUrl: sandbox.baseUrl })
  const chat = 'oc_679eaeb583654bff73fefcc6e6371370'
  const user = 'ou_9d2beb613c85a2412862a49a924558c5'
  for (const timeSensitive of [true, false]) {
    const call = { feedCardId: chat, userIds: [user], timeSensitive, timeoutMs: 60_000 }
    const outcome = await client.setTimeSensitive(call)
    assert.ok(outcome.ok)
    assert.deepEqual(sandbox.pinned(user), timeSensitive ? [chat] : [])
  }
  sandbox.close()
  console.log('feishu-feed-card', require('feishu-feed-card/package.json').version, 'pinned and unpinned')
}

main()
