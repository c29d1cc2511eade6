// Writes a CycloneDX bill of materials for a wheel or npm package: the crates in its native module.
//
//   node scripts/sbom.mjs CRATE TARGET FILE
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'

const root = path.join(import.meta.dirname, '../..')

/** Returns the bill of materials of a crate of this workspace, for a Rust target. */
export function sbom(crate, target) {
  const options = ['--locked', '--package', crate, '--target', target, '--edges=normal,no-proc-macro']
  const tree = execFileSync('cargo', ['tree', ...options, '--prefix=depth', '--format= {p} |{l}|'], {
    cwd: root,
    encoding: 'utf8',
  })
  const checksums = readChecksums()
  const components = new Map()
  const dependencies = new Map()
  const above = []
  for (const line of tree.split('\n').filter(Boolean)) {
    const [, depth, name, version, licence] = /^(\d+) (\S+) v(\S+) .*\|(.*)\|/.exec(line)
    const purl = `pkg:cargo/${name}@${version}`
    const checksum = checksums.get(`${name} ${version}`)
    components.set(purl, {
      type: 'library',
      'bom-ref': purl,
      name,
      version,
      ...(checksum && { hashes: [{ alg: 'SHA-256', content: checksum }] }),
      // `MIT/Apache-2.0` is an old form of `MIT OR Apache-2.0`.
      licenses: [{ expression: licence.replaceAll(/ ?\/ ?/g, ' OR ') }],
      purl,
    })
    above.length = Number(depth)
    if (above.length > 0) {
      dependencies.get(above.at(-1)).add(purl)
    }
    above.push(purl)
    if (!dependencies.has(purl)) {
      dependencies.set(purl, new Set())
    }
  }
  const [[ref, component]] = components
  components.delete(ref)
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: { component, properties: [{ name: 'cdx:rustc:sbom:target:triple', value: target }] },
    components: [...components.values()],
    dependencies: [...dependencies].map(([from, to]) => ({ ref: from, dependsOn: [...to].toSorted() })),
  }
}

/** Returns the SHA-256 of each crate's package, by name and version. */
function readChecksums() {
  const lock = readFileSync(path.join(root, 'Cargo.lock'), 'utf8')
  const packages = lock.matchAll(/^name = "(.*)"\nversion = "(.*)"\nsource = .*\nchecksum = "(.*)"$/gm)
  return new Map([...packages].map(([, name, version, checksum]) => [`${name} ${version}`, checksum]))
}

if (process.argv[1] === import.meta.filename) {
  const [crate, target, file] = process.argv.slice(2)
  writeFileSync(file, `${JSON.stringify(sbom(crate, target), null, 1)}\n`)
}
