// Packs the npm packages into `packed`: the main package, and one for each native module that has been built. With
// `--all`, fails if the native module of a platform is missing. The platform packages become optional dependencies only
// here, because names that are not published yet would break `npm ci` in a clone, and anyone could register them.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { npm } from './npm.mjs'
import { nativeFile, packageName, platforms } from './platforms.mjs'
import { sbom } from './sbom.mjs'

const root = path.join(import.meta.dirname, '..')
const main = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))
// `private` prevents publishing from the clone. Only the packages made here may be published.
delete main.private
delete main.devDependencies
delete main.scripts
const { version, homepage, bugs, license, repository, engines } = main
const isBuilt = ([, platform]) => existsSync(path.join(root, nativeFile(platform)))
const built = Object.entries(platforms).filter(isBuilt)
const missing = Object.entries(platforms).filter((entry) => !isBuilt(entry))
if (process.argv.includes('--all') && missing.length > 0) {
  throw new Error(`no native module for ${missing.map(([target]) => target).join(', ')}`)
}
if (built.length === 0 || !existsSync(path.join(root, 'dist/index.js'))) {
  throw new Error('the native module or the facade is not built; run npm run build')
}

const packed = path.join(root, 'packed')
rmSync(packed, { recursive: true, force: true })
mkdirSync(packed)
for (const [target, platform] of built) {
  const file = nativeFile(platform)
  const { os, cpu, libc } = platform
  const manifest = {
    name: packageName(platform),
    version,
    description: `The native module of feishu-feed-card for ${platform.name}`,
    homepage,
    bugs,
    license,
    repository,
    files: [file, 'LICENSE-*', 'sbom.cdx.json'],
    main: file,
    engines,
    os: [os],
    cpu: [cpu],
    ...(libc && { libc: [libc] }),
  }
  const readme = `The native module of [feishu-feed-card](https://www.npmjs.com/package/feishu-feed-card) for ${platform.name}.\n`
  const bill = `${JSON.stringify(sbom('feishu-feed-card-node', target), null, 1)}\n`
  pack(manifest, { 'README.md': readme, 'sbom.cdx.json': bill }, { [file]: file })
}
const optionalDependencies = Object.fromEntries(built.map(([, platform]) => [packageName(platform), version]))
pack({ ...main, optionalDependencies }, {}, { dist: 'dist', 'README.md': 'README.md' })

/** Packs a manifest, texts by their file names, copies of files of the clone, and the licences. */
function pack(manifest, texts, copies) {
  const folder = mkdtempSync(path.join(tmpdir(), 'feishu-feed-card-'))
  try {
    writeFileSync(path.join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`)
    for (const [name, text] of Object.entries(texts)) {
      writeFileSync(path.join(folder, name), text)
    }
    const licences = { 'LICENSE-APACHE': '../LICENSE-APACHE', 'LICENSE-MIT': '../LICENSE-MIT' }
    for (const [name, source] of Object.entries({ ...copies, ...licences })) {
      cpSync(path.join(root, source), path.join(folder, name), { recursive: true })
    }
    const { status, error } = npm(['pack', '--silent', '--pack-destination', packed], {
      cwd: folder,
      stdio: ['ignore', 'inherit', 'inherit'],
    })
    if (status !== 0) {
      throw new Error(`npm pack failed for ${manifest.name}`, { cause: error })
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
}
