// Loads a copy of the package without its native module, or with a broken one. PACKAGES, joined by commas, are the
// platform packages published with it. PLATFORM and ARCH simulate another machine:
// `missing.mjs broken|none PACKAGES [PLATFORM ARCH]`.
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { nativeFile, platformOf } from '../../scripts/platforms.mjs'

const root = path.join(import.meta.dirname, '../..')
const folder = mkdtempSync(path.join(tmpdir(), 'feishu-feed-card-'))
try {
  cpSync(path.join(root, 'dist'), path.join(folder, 'dist'), { recursive: true })
  const [, , state, packages, platform, arch] = process.argv
  const optionalDependencies = Object.fromEntries(packages.split(',').map((name) => [name, '0.1.0']))
  if (packages !== '') {
    writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ optionalDependencies }))
  }
  if (state === 'broken') {
    writeFileSync(path.join(folder, nativeFile(platformOf())), 'no module')
  }
  if (platform !== undefined) {
    Object.defineProperties(process, { platform: { value: platform }, arch: { value: arch } })
  }
  createRequire(import.meta.url)(path.join(folder, 'dist/index.js'))
  process.stdout.write('it loads')
} catch (error) {
  process.stdout.write(`${error.message}\ncause: ${error.cause}`)
} finally {
  rmSync(folder, { recursive: true })
}
