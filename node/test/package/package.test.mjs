// The packages, installed into an empty project and used as ES module, CommonJS and strict TypeScript, and checked by
// publint and Are the types wrong.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { before, describe, test } from 'node:test'
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core'
import { nodeFileTrace } from '@vercel/nft'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { npm } from '../../scripts/npm.mjs'
import { nativeFile, packageName, platformOf } from '../../scripts/platforms.mjs'

const root = path.join(import.meta.dirname, '../..')
const packed = path.join(root, 'packed')

const spawning = (cwd) => ({ cwd, encoding: 'utf8', timeout: 120_000 })

/** Runs this Node.js. Returns what it printed. */
const run = (args, cwd) => succeeded(args, spawnSync(process.execPath, args, spawning(cwd)))

function succeeded(args, { status, stdout, stderr, error = '' }) {
  assert.equal(status, 0, `${args.join(' ')}: ${stdout}${stderr}${error}`)
  return stdout
}

let tarballs
before(() => {
  run(['scripts/pack.mjs'], root)
  tarballs = readdirSync(packed).map((name) => path.join(packed, name))
})

const here = packageName(platformOf())
const mainTarball = () => tarballs.find((file) => /feishu-feed-card-\d[^/\\]*\.tgz$/.test(file))

test('the main package and one for this platform are packed', () => {
  assert.ok(mainTarball(), tarballs.join())
  assert.ok(tarballs.length >= 2, tarballs.join())
})

describe('installed into an empty project', () => {
  let project
  before(() => {
    project = mkdtempSync(path.join(tmpdir(), 'feishu-feed-card-'))
    writeFileSync(path.join(project, 'package.json'), '{ "private": true }\n')
    const quiet = ['--offline', '--no-audit', '--no-fund', '--loglevel=error']
    // npm refuses packages for other platforms that are named, and skips them as optional dependencies.
    const own = tarballs.find((file) => path.basename(file).startsWith(`${here}-`))
    const args = ['install', ...quiet, mainTarball(), own]
    succeeded(args, npm(args, spawning(project)))
  })
  const installed = () => path.join(project, 'node_modules', 'feishu-feed-card')
  const script = (name, text) => {
    writeFileSync(path.join(project, name), text)
    return run([name], project)
  }
  const body = `
    const sandbox = Sandbox.start()
    const client = new Client({ appId: 'cli_example', appSecret: 'example-secret', baseUrl: sandbox.baseUrl })
    const feedCardId = 'oc_679eaeb583654bff73fefcc6e6371370'
    const userIds = ['ou_9d2beb613c85a2412862a49a924558c5']
    client.setTimeSensitive({ feedCardId, userIds, timeSensitive: true }).then(({ ok }) => console.log(ok))
  `

  test('works as an ES module', () => {
    const head = `import { Client } from 'feishu-feed-card'\nimport { Sandbox } from 'feishu-feed-card/sandbox'\n`
    assert.equal(script('use.mjs', head + body), 'true\n')
  })

  test('works as CommonJS', () => {
    const head = `const { Client } = require('feishu-feed-card')\nconst { Sandbox } = require('feishu-feed-card/sandbox')\n`
    assert.equal(script('use.cjs', head + body), 'true\n')
  })

  test('has types for strict TypeScript, with each module system', () => {
    // Types of Node.js, which most TypeScript projects have.
    for (const name of ['@types/node', 'undici-types']) {
      cpSync(path.join(root, 'node_modules', name), path.join(project, 'node_modules', name), {
        recursive: true,
      })
    }
    mkdirSync(path.join(project, 'types'))
    for (const name of readdirSync(path.join(root, 'test/types'))) {
      cpSync(path.join(root, 'test/types', name), path.join(project, 'types', name))
    }
    const tsc = path.join(root, 'node_modules/typescript/bin/tsc')
    run([tsc, '--project', 'types'], project)
    const bundled = [
      '--module',
      'esnext',
      '--moduleResolution',
      'bundler',
      '--strict',
      '--noEmit',
      '--types',
      'node',
    ]
    const lib = ['--lib', 'es2022,esnext.disposable']
    run([tsc, ...bundled, ...lib, '--ignoreConfig', 'types/uses.ts'], project)
  })

  test('has types for TypeScript with the old module resolution', () => {
    const tsc = path.join(root, 'node_modules/typescript-5/bin/tsc')
    const old = ['--module', 'commonjs', '--moduleResolution', 'node10', '--strict', '--noEmit']
    run([tsc, ...old, '--target', 'es2022', '--types', 'node', 'types/required.cts'], project)
  })

  test('is found by file tracing, as in Next.js and Vercel', async () => {
    const uses = {
      'traced.mjs': `import { Client } from 'feishu-feed-card'\nconsole.log(typeof Client)`,
      'traced.cjs': `console.log(typeof require('feishu-feed-card').Client)`,
      'traced-sandbox.cjs': `console.log(typeof require('feishu-feed-card/sandbox').Sandbox)`,
    }
    for (const [name, text] of Object.entries(uses)) {
      writeFileSync(path.join(project, name), text)
      const { fileList } = await nodeFileTrace([path.join(project, name)], { base: project })
      const files = [...fileList].filter((file) => existsSync(path.join(project, file)))
      const native = path.join('node_modules', here, nativeFile(platformOf()))
      assert.ok(files.includes(native), `${name}: ${files.join()}`)
      const deployed = mkdtempSync(path.join(tmpdir(), 'feishu-feed-card-'))
      try {
        for (const file of files) {
          cpSync(path.join(project, file), path.join(deployed, file))
        }
        assert.equal(run([name], deployed), 'function\n')
      } finally {
        rmSync(deployed, { recursive: true })
      }
    }
  })

  test('has both licences and only the needed files', () => {
    const files = readdirSync(installed(), { recursive: true }).filter((name) =>
      statSync(path.join(installed(), name)).isFile(),
    )
    assert.ok(
      ['LICENSE-APACHE', 'LICENSE-MIT', 'README.md', 'package.json'].every((name) => files.includes(name)),
    )
    const others = files.filter((name) => !/^(?:LICENSE-|README\.md$|package\.json$|dist[/\\])/.test(name))
    assert.deepEqual(others, [])
    const { dependencies, devDependencies, scripts, optionalDependencies, version } = JSON.parse(
      readFileSync(path.join(installed(), 'package.json'), 'utf8'),
    )
    assert.deepEqual([dependencies, devDependencies, scripts], [undefined, undefined, undefined])
    const platforms = tarballs.length - 1
    assert.deepEqual(Object.values(optionalDependencies), Array(platforms).fill(version))
    assert.ok(here in optionalDependencies)
    const folder = path.join(project, 'node_modules', here)
    assert.equal(readdirSync(folder).filter((file) => file.endsWith('.node')).length, 1)
    assert.equal(readdirSync(folder).filter((file) => file.startsWith('LICENSE-')).length, 2)
  })

  test('names the platform package if that is missing', () => {
    rmSync(path.join(project, 'node_modules', here), { recursive: true })
    const said = script(
      'use.cjs',
      `try { require('feishu-feed-card') } catch ({ message }) { console.log(message) }`,
    )
    assert.ok(said.includes(here), said)
    rmSync(project, { recursive: true })
  })
})

test('publint reports nothing', async () => {
  const tarball = readFileSync(mainTarball())
  const { messages, pkg } = await publint({ pack: { tarball: tarball.buffer }, strict: true })
  assert.deepEqual(
    messages.map((message) => formatMessage(message, pkg, { color: false })),
    [],
  )
})

test('Are the types wrong reports nothing', async () => {
  const analysis = await checkPackage(createPackageFromTarballData(readFileSync(mainTarball())))
  assert.ok(analysis.types)
  // TypeScript's oldest resolution finds the sandbox with `typesVersions`. Node.js 10, which does not find it, is not
  // supported.
  assert.deepEqual(analysis.problems, [])
})
