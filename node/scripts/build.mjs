// Builds the native module with cargo and the facade with tsc and esbuild:
//
//   node scripts/build.mjs [--debug] [--check] [--target TRIPLE] [--zig]
//   node scripts/build.mjs --facade
//
// `src/binding.ts`, the native module's types, is written from what the build says of them; with
// `--check` it is an error if that changes the committed file. With `--zig` cargo-zigbuild links, and the triple of
// a target may end with a version of glibc. With `--facade` the native module is left alone.
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
  // The path is always the same, so that the derive macros' output stays when cargo has nothing to do.
  const typeFolder = path.join(targetFolder, 'node-types', options.target ?? 'host')
  mkdirSync(typeFolder, { recursive: true })
  const said = run(
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
  const artifact = said
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
    .find(
      (message) => message.reason === 'compiler-artifact' && message.target.name === 'feishu_feed_card_node',
    )
  const library = artifact?.filenames.find((name) => /\.(so|dylib|dll)$/.test(name))
  if (library === undefined) {
    throw new Error('cargo made no native module')
  }
  // Moved into place in one step: a process that has the old one loaded keeps it whole.
  const file = path.join(root, nativeFile(platformOf(options.target?.replace(/\.[\d.]+$/, ''))))
  copyFileSync(library, `${file}.new`)
  renameSync(`${file}.new`, file)

  const bindingFile = path.join(root, 'src', 'binding.ts')
  const binding = declarations(readFileSync(path.join(typeFolder, 'feishu-feed-card-node'), 'utf8'))
  const committed = readFileSync(bindingFile, { encoding: 'utf8', flag: 'a+' })
  if (binding !== committed) {
    writeFileSync(bindingFile, binding)
    if (options.check) {
      throw new Error('src/binding.ts was not current; it is now: commit it')
    }
  }
}

function buildFacade() {
  const dist = path.join(root, 'dist')
  rmSync(dist, { recursive: true, force: true })
  run(process.execPath, [path.join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '--project', root])
  bundle(dist)
  // Editors read all of it; four blanks an indentation are a tenth of it, and what may be left out a twentieth.
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
  // Says that `dist/*.js` is CommonJS, as it says for the sources.
  copyFileSync(path.join(root, 'src', 'package.json'), path.join(dist, 'package.json'))
}

/**
 * One file for the facade: to find, read and compile one for each source took a third of `require`'s time. What an
 * ES module imports is beside it, and no more than the names: Node parses all of such a file in JavaScript to find
 * them, and for the whole facade that took longer than it saved.
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
    // The platforms' packages, of which one is installed beside this one.
    external: ['feishu-feed-card-*'],
  })
  const facade = readFileSync(path.join(dist, 'facade.js'), 'utf8')
  const names = facade.slice(facade.lastIndexOf('0 && (module.exports = {'))
  if (!names.startsWith('0 &&')) {
    throw new Error('esbuild does not tell the names that the facade exports')
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
    throw new Error(`${command} does not run: ${error.message}`)
  }
  if (status !== 0) {
    process.exit(status ?? 1)
  }
  return stdout
}
