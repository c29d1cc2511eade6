// Installs the npm package and the one of this platform into an empty project, and calls a sandbox with them.
//
//   node try_npm.mjs [FOLDER [PLATFORM PROGRAM...]]
//
// FOLDER: default node/packed. PLATFORM: another platform, such as linux-arm64-musl, with the program that starts a
// Node.js of that platform. Needs nothing but Node.js and npm, so it runs on a machine without compilers.
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { packageName, platformOf } from '../../../node/scripts/platforms.mjs'

const [
  folder = fileURLToPath(new URL('../../../node/packed', import.meta.url)),
  name = platformOf().name,
  ...program
] = process.argv.slice(2)
const packed = path.resolve(folder)
const tarballs = readdirSync(packed)
const wanted = [/^feishu-feed-card-\d.*\.tgz$/, new RegExp(`^${packageName({ name })}-\\d.*\\.tgz$`)]
const files = wanted.map((pattern) => {
  const file = tarballs.find((name) => pattern.test(name))
  if (file === undefined) {
    throw new Error(`${packed} has no ${pattern}`)
  }
  return path.join(packed, file)
})

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
  // npm refuses a package that is named and is for another platform.
  const options = ['--offline', '--no-audit', '--no-fund', '--loglevel=error', ...(program.length > 0 ? ['--force'] : [])]
  run('npm', ['install', ...options, ...files], project)
  copyFileSync(new URL('call.cjs', import.meta.url), path.join(project, 'call.cjs'))
  const [command = process.execPath, ...args] = program
  run(command, [...args, 'call.cjs'], project)
} finally {
  rmSync(project, { recursive: true })
}
