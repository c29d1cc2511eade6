// Installs the npm package and the one of this platform into an empty project, and calls a sandbox with them.
//
//   node try_npm.mjs [FOLDER]
//
// The folder is node/packed by default. Only Node and npm are needed: so it runs on a machine that has nothing else.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { packageName, platformOf } from '../../../node/scripts/platforms.mjs'

const packed = path.resolve(process.argv[2] ?? fileURLToPath(new URL('../../../node/packed', import.meta.url)))
const tarballs = readdirSync(packed)
const wanted = [/^feishu-feed-card-\d.*\.tgz$/, new RegExp(`^${packageName(platformOf())}-\\d.*\\.tgz$`)]
const files = wanted.map((pattern) => {
  const file = tarballs.find((name) => pattern.test(name))
  if (file === undefined) {
    throw new Error(`${packed} has no ${pattern}`)
  }
  return path.join(packed, file)
})

const call = `
const assert = require('node:assert')
const { Client } = require('feishu-feed-card')
const { Sandbox } = require('feishu-feed-card/sandbox')

async function main() {
  const sandbox = Sandbox.start()
  const client = new Client({ appId: 'cli_example', appSecret: 'example-secret', baseUrl: sandbox.baseUrl })
  const chat = 'oc_679eaeb583654bff73fefcc6e6371370'
  const user = 'ou_9d2beb613c85a2412862a49a924558c5'
  for (const timeSensitive of [true, false]) {
    const outcome = await client.setTimeSensitive({ feedCardId: chat, userIds: [user], timeSensitive, timeoutMs: 20_000 })
    assert.ok(outcome.ok)
    assert.deepEqual(sandbox.pinned(user), timeSensitive ? [chat] : [])
  }
  sandbox.close()
  console.log('feishu-feed-card', require('feishu-feed-card/package.json').version, 'pinned and unpinned')
}
main()
`

function run(command, args, cwd) {
  const { status, error } = spawnSync(command, args, {
    cwd,
    stdio: 'inherit',
    timeout: 120_000,
    // npm is a script there.
    shell: command === 'npm' && process.platform === 'win32',
  })
  if (status !== 0) {
    throw new Error(`${command} ${args[0]}: ${error?.message ?? `exit code ${status}`}`)
  }
}

const project = mkdtempSync(path.join(tmpdir(), 'feishu-feed-card-'))
try {
  writeFileSync(path.join(project, 'package.json'), '{ "private": true }\n')
  // The main package's other optional dependencies are not there; npm passes over them.
  run('npm', ['install', '--offline', '--no-audit', '--no-fund', '--loglevel=error', ...files], project)
  writeFileSync(path.join(project, 'call.cjs'), call)
  run(process.execPath, ['call.cjs'], project)
} finally {
  rmSync(project, { recursive: true })
}
