import assert from 'node:assert/strict'
import { readFileSync, readdirSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { test } from 'node:test'
import * as esm from 'feishu-feed-card'
import * as esmSandbox from 'feishu-feed-card/sandbox'
import { packageName, platforms } from '../scripts/platforms.mjs'
import { run } from './stage.mjs'

const require = createRequire(import.meta.url)
const root = path.join(import.meta.dirname, '..')

test('import and require return the same classes', () => {
  const names = (module) =>
    Object.keys(module)
      .filter((name) => !['default', 'module.exports', '__esModule'].includes(name))
      .toSorted()
  for (const [imported, name] of [
    [esm, 'feishu-feed-card'],
    [esmSandbox, 'feishu-feed-card/sandbox'],
  ]) {
    const required = require(name)
    assert.deepEqual(names(imported), names(required))
    for (const key of names(required)) {
      assert.equal(imported[key], required[key], key)
      assert.equal(required[key].name ?? key, key)
    }
  }
})

test('other files of the package cannot be required', () => {
  for (const inner of ['dist/facade.js', 'dist/client.js', 'src/index.ts']) {
    assert.throws(() => require(`feishu-feed-card/${inner}`), { code: 'ERR_PACKAGE_PATH_NOT_EXPORTED' })
  }
  assert.equal(require('feishu-feed-card/package.json').name, 'feishu-feed-card')
})

test('the package has no dependencies', () => {
  const { dependencies, optionalDependencies, peerDependencies, scripts } = JSON.parse(
    readFileSync(path.join(root, 'package.json'), 'utf8'),
  )
  assert.deepEqual([dependencies, optionalDependencies, peerDependencies], [undefined, undefined, undefined])
  assert.deepEqual(
    Object.keys(scripts).filter((name) => /install/.test(name)),
    [],
  )
})

test('the declarations are small', () => {
  const dist = path.join(root, 'dist')
  const files = readdirSync(dist).filter((name) => /\.d\.m?ts$/.test(name))
  const bytes = files.reduce((sum, name) => sum + statSync(path.join(dist, name)).size, 0)
  assert.ok(files.length > 0 && bytes < 24_000, `${bytes} bytes`)
})

const all = Object.values(platforms).map(packageName).toSorted()

test('the error for a missing native module says how to install it', async () => {
  const end = await run('missing.mjs', ['none', all.join()])
  assert.equal(end.code, 0, end.stderr)
  assert.match(end.stdout, /the package of the native module, feishu-feed-card-\w+-\w+.* is missing/)
  assert.match(end.stdout, /npm install feishu-feed-card-/)
})

test('the error in a clone says how to build the native module', async () => {
  const end = await run('missing.mjs', ['none', ''])
  assert.equal(end.code, 0, end.stderr)
  assert.match(end.stdout, /the native module is missing.*npm run build/)
  assert.doesNotMatch(end.stdout, /feishu-feed-card-/)
})

test('each platform package is required by a literal name', () => {
  for (const name of ['facade.js', 'sandbox.js']) {
    const text = readFileSync(path.join(root, 'dist', name), 'utf8')
    const required = [...text.matchAll(/\brequire\("(feishu-feed-card-[^"]+)"\)/g)].map(
      ([, literal]) => literal,
    )
    assert.deepEqual(required.toSorted(), all, name)
  }
})

test('the error names only packages that were published with this version', async () => {
  const linux = ['feishu-feed-card-linux-x64-gnu', 'feishu-feed-card-linux-x64-musl']
  const machines = [
    [all, 'darwin', 'arm64', ['feishu-feed-card-darwin-arm64']],
    [all, 'win32', 'x64', ['feishu-feed-card-win32-x64-msvc']],
    [all, 'linux', 'arm64', ['feishu-feed-card-linux-arm64-gnu', 'feishu-feed-card-linux-arm64-musl']],
    [linux, 'linux', 'x64', linux],
    [linux.slice(0, 1), 'linux', 'x64', linux.slice(0, 1)],
  ]
  for (const [published, platform, arch, expected] of machines) {
    const end = await run('missing.mjs', ['none', published.join(), platform, arch])
    assert.equal(end.code, 0, end.stderr)
    const named = new Set(end.stdout.match(/feishu-feed-card-[\w-]+/g) ?? [])
    assert.deepEqual([...named].toSorted(), expected, end.stdout)
  }
})

test('the error on a platform without a package lists the packages', async () => {
  const linux = ['feishu-feed-card-linux-x64-gnu', 'feishu-feed-card-linux-x64-musl']
  for (const [published, platform, arch] of [
    [all, 'linux', 'arm'],
    [all, 'win32', 'ia32'],
    [all, 'freebsd', 'x64'],
    [linux, 'darwin', 'arm64'],
  ]) {
    const end = await run('missing.mjs', ['none', published.join(), platform, arch])
    assert.equal(end.code, 0, end.stderr)
    assert.match(end.stdout, new RegExp(`no native module is published for ${platform}-${arch}, only `))
    const named = end.stdout.match(/feishu-feed-card-[\w-]+/g) ?? []
    assert.deepEqual(named.toSorted(), published)
  }
})

test('the error for a native module that does not load has its cause', async () => {
  const end = await run('missing.mjs', ['broken', all.join()])
  assert.equal(end.code, 0, end.stderr)
  assert.match(end.stdout, /cannot be loaded \(see cause\)/)
  assert.match(end.stdout, /cause: Error: /)
})
