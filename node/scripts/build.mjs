// Builds the native module with cargo, and the facade with tsc and esbuild:
//
//   node scripts/build.mjs [--debug] [--check] [--target TRIPLE] [--zig]
//   node scripts/build.mjs --facade
//
// The build also writes `src/binding.ts`, the types of the native module.
//
//   --check   fails if `src/binding.ts` has changed
//   --zig     links with cargo-zigbuild; the target's triple may then end with a version of glibc
//   --facade  builds only the facade
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { buildSync } from 'esbuild'
import { declarations } from './declarations.mjs'
import { nativeFile, platformOf } from './platforms.mjs'

const { values: options } = parseArgs({
  options: {
    debug: { type: 'boolean' },
    facade: { type: 'boolean' },
    check: { type: 'boolean' },
    target: { type: 'string' },
    zig: { type: 'boolean' },
  },
})
const root = path.join(import.meta.dirname, '..')

if (!options.facade) {
  buildNative()
}
buildFacade()

function buildNative() {
  const { target_directory: targetFolder } = JSON.parse(
    run('cargo', ['metadata', '--format-version=1', '--no-deps'], { capture: true }),
  )
  // The path must not change: if cargo has nothing to do, the output of the derive macros from the last build is used.
  const typeFolder = path.join(targetFolder, 'node-types', options.target ?? 'host')
  mkdirSync(typeFolder, { recursive: true })
  const messages = run(
    'cargo',
    [
      options.zig ? 'zigbuild' : 'build',
      '--package=feishu-feed-card-node',
      '--message-format=json-render-diagnostics',
      ...(options.debug ? [] : ['--release']),
      ...(options.target ? [`--target=${options.target}`] : []),
    ],
    { capture: true, env: { ...process.env, NAPI_TYPE_DEF_TMP_FOLDER: typeFolder } },
  )
  const artifact = messages
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
    .find(
      (message) => message.reason === 'compiler-artifact' && message.target.name === 'feishu_feed_card_node',
    )
  const library = artifact?.filenames.find((name) => /\.(so|dylib|dll)$/.test(name))
  if (library === undefined) {
    throw new Error('cargo reported no library of the package feishu-feed-card-node')
  }
  // Replace the file by a rename, so that a process that has loaded the old file keeps it intact.
  const file = path.join(root, nativeFile(platformOf(options.target?.replace(/\.[\d.]+$/, ''))))
  copyFileSync(library, `${file}.new`)
  renameSync(`${file}.new`, file)

  const bindingFile = path.join(root, 'src', 'binding.ts')
  const binding = declarations(readFileSync(path.join(typeFolder, 'feishu-feed-card-node'), 'utf8'))
  const committed = readFileSync(bindingFile, { encoding: 'utf8', flag: 'a+' })
  if (binding !== committed) {
    writeFileSync(bindingFile, binding)
    if (options.check) {
      throw new Error('src/binding.ts was out of date; commit the new file')
    }
  }
}

function buildFacade() {
  const dist = path.join(root, 'dist')
  rmSync(dist, { recursive: true, force: true })
  run(process.execPath, [path.join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '--project', root])
  bundle(dist)
  // Shorten the declarations, which editors read completely: tabs save a tenth, optional tokens a twentieth.
  for (const name of readdirSync(dist).filter((file) => file.endsWith('.d.ts'))) {
    const file = path.join(dist, name)
    writeFileSync(
      file,
      readFileSync(file, 'utf8')
        .replaceAll(/^(?: {4})+/gm, (blanks) => '\t'.repeat(blanks.length / 4))
        .replaceAll(/;$/gm, '')
        .replaceAll(/^export declare /gm, 'export '),
    )
  }
  // Marks `dist/*.js` as CommonJS, as it does for the sources.
  copyFileSync(path.join(root, 'src', 'package.json'), path.join(dist, 'package.json'))
}

/**
 * Bundles the facade to one file, because loading one file per source took a third of the time of `require`. ES modules
 * import a second file, which only lists the exported names: Node parses a CommonJS file in JavaScript to find them, and
 * for the whole facade this took longer than the bundle saved.
 */
function bundle(dist) {
  buildSync({
    absWorkingDir: root,
    entryPoints: [{ in: 'src/index.ts', out: 'facade' }, 'src/sandbox.ts'],
    outdir: dist,
    bundle: true,
    format: 'cjs',
    platform: 'node',
    target: 'node20',
    // The platform packages, of which the one for this machine is installed.
    external: ['feishu-feed-card-*'],
  })
  const facade = readFileSync(path.join(dist, 'facade.js'), 'utf8')
  const names = facade.slice(facade.lastIndexOf('0 && (module.exports = {'))
  if (!names.startsWith('0 &&')) {
    throw new Error('the output of esbuild does not list the names that the facade exports')
  }
  writeFileSync(
    path.join(dist, 'index.js'),
    `"use strict";\nmodule.exports = require("./facade.js");\n${names}`,
  )
  for (const name of ['index', 'sandbox']) {
    copyFileSync(path.join(root, 'src', `${name}.mts`), path.join(dist, `${name}.mjs`))
  }
}

function run(command, args, { capture = false, env = process.env } = {}) {
  const { status, error, stdout } = spawnSync(command, args, {
    cwd: root,
    env,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
    stdio: ['ignore', capture ? 'pipe' : 'inherit', 'inherit'],
  })
  if (error) {
    throw new Error(`cannot run ${command}: ${error.message}`)
  }
  if (status !== 0) {
    process.exit(status ?? 1)
  }
  return stdout
}
